//! The calls before and after `create`, which read what other calls need.

use super::Plugin;
use super::call::{Call, HttpCall};
use super::captures::{CapturedAfter, expiry, secret, text, texts};
use super::cel::{Expression, Variables};
use super::context::CallContext;
use super::error::{CallError, EvalError};
use super::response::HttpResponse;
use super::webhook::of;
use std::collections::BTreeMap;

/// What `after` captures under this name is the callback secret.
pub(crate) const SECRET: &str = "secret";
/// What `after` captures under this name is the end of the webhook's life.
pub(crate) const EXPIRES_AT: &str = "expiresAt";

/// A compiled step.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) call: Call,
    pub(crate) capture: Vec<(String, Expression)>,
}

impl Plugin {
    /// How many calls there are before the first `create`.
    pub fn before_count(&self) -> usize {
        self.calls.before.len()
    }

    /// The call number `step` before the first `create`, counted from 0. `context.setup` holds what those before it have
    /// captured.
    ///
    /// # Errors
    /// There is no such step, or the call cannot be made; see [`CallError`].
    pub fn before_call(&self, step: usize, context: &CallContext<'_>) -> Result<HttpCall, CallError> {
        self.make(&self.before(step)?.call, context)
    }

    /// What the answer to [`Plugin::before_call`] gives for `setup`.
    ///
    /// # Errors
    /// The answer is no success, or not as expected.
    pub fn captured_before(&self, step: usize, response: &HttpResponse) -> Result<BTreeMap<String, String>, CallError> {
        let step = self.before(step)?;
        let data = response.successful(step.call.success.as_ref())?;
        texts(&step.capture, &Variables::default().with("response", &data)).map_err(|error| of(response, &error))
    }

    /// How many calls there are after each `create`.
    pub fn after_count(&self) -> usize {
        self.calls.after.len()
    }

    /// The call number `step` after `create`, counted from 0. `context.webhook` holds what `create` and the steps before
    /// this one have captured.
    ///
    /// # Errors
    /// There is no such step, or the call cannot be made; see [`CallError`].
    pub fn after_call(&self, step: usize, context: &CallContext<'_>) -> Result<HttpCall, CallError> {
        self.make(&self.after(step)?.call, context)
    }

    /// What the answer to [`Plugin::after_call`] says of the webhook.
    ///
    /// # Errors
    /// The answer is no success, or not as expected.
    pub fn captured_after(&self, step: usize, response: &HttpResponse) -> Result<CapturedAfter, CallError> {
        let step = self.after(step)?;
        let data = response.successful(step.call.success.as_ref())?;
        let variables = Variables::default().with("response", &data);
        let mut captured = CapturedAfter { secret: None, expires_at: None, values: BTreeMap::new() };
        let mut read = || -> Result<(), EvalError> {
            for (name, expression) in &step.capture {
                match name.as_str() {
                    SECRET => captured.secret = Some(secret(expression, &variables)?),
                    EXPIRES_AT => captured.expires_at = expiry(expression, &variables)?,
                    _ => drop(captured.values.insert(name.clone(), text(expression, &variables)?)),
                }
            }
            Ok(())
        };
        read().map_err(|error| of(response, &error))?;
        Ok(captured)
    }

    fn before(&self, step: usize) -> Result<&Step, CallError> {
        self.calls.before.get(step).ok_or(CallError::NoSuchCall("webhook.before of that number"))
    }

    fn after(&self, step: usize) -> Result<&Step, CallError> {
        self.calls.after.get(step).ok_or(CallError::NoSuchCall("webhook.after of that number"))
    }
}
