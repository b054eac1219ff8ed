//! The calls that make, read, change, prolong and remove a webhook, and what their answers mean.

use super::Plugin;
use super::call::{Call, HttpCall};
use super::captures::{Captured, expiry, filled, secret, texts};
use super::cel::{Expression, Variables};
use super::context::{CallContext, Given};
use super::error::{CallError, EvalError};
use super::find::Find;
use super::response::HttpResponse;
use super::steps::Step;
use crate::api::RenewalMethod;
use std::time::Duration;

/// Compiled `spec.webhook`.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) per_event: bool,
    pub(crate) verify: Option<(Call, Option<Expression>)>,
    pub(crate) before: Vec<Step>,
    pub(crate) find: Option<Find>,
    pub(crate) read: Option<Read>,
    pub(crate) create: Option<Create>,
    pub(crate) after: Vec<Step>,
    pub(crate) update: Option<Call>,
    pub(crate) refresh: Option<(Call, Option<Expression>)>,
    pub(crate) renewal: Option<(RenewalMethod, Option<Duration>)>,
    pub(crate) delete: Option<Call>,
}

/// Compiled `spec.webhook.create`.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) call: Call,
    pub(crate) idempotent: bool,
    pub(crate) exclusive: bool,
    pub(crate) id: Expression,
    pub(crate) secret: Option<Expression>,
    pub(crate) expires_at: Option<Expression>,
    pub(crate) values: Vec<(String, Expression)>,
}

/// Compiled `spec.webhook.read`.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) call: Call,
    pub(crate) exists: Option<Expression>,
    pub(crate) healthy: Option<Expression>,
}

/// What a look at one webhook says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookReading {
    /// There is no such webhook.
    Gone,
    /// It is as it was made.
    Healthy,
    /// It is there, but disabled or changed.
    Unhealthy,
}

impl Plugin {
    /// The call that asks whether the credentials are good; nothing if the plugin has none.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`].
    pub fn verify_call(&self, context: &CallContext<'_>) -> Result<Option<HttpCall>, CallError> {
        self.calls.verify.as_ref().map(|(call, _)| self.make(call, context)).transpose()
    }

    /// The account that the answer to [`Plugin::verify_call`] names, for people; nothing if the plugin does not ask.
    ///
    /// # Errors
    /// The status is not 2xx, the answer is no success, or it has no such name.
    pub fn account(&self, response: &HttpResponse) -> Result<Option<String>, CallError> {
        let (call, account) = self.calls.verify.as_ref().ok_or(CallError::NoSuchCall("webhook.verify"))?;
        let data = response.successful(call.success.as_ref())?;
        let variables = Variables::default().with("response", &data);
        account.as_ref().map(|account| account.text(&variables)).transpose().map_err(|error| of(response, &error))
    }

    /// The call that creates the webhook.
    ///
    /// # Errors
    /// The plugin has none, or it cannot be made; see [`CallError`].
    pub fn create_call(&self, context: &CallContext<'_>) -> Result<HttpCall, CallError> {
        self.make(&self.create()?.call, context)
    }

    /// What the answer to [`Plugin::create_call`] says of the webhook; `context` is that of the call.
    ///
    /// # Errors
    /// The status is not 2xx, the answer is no success ([`CallError::Unsuccessful`]), or it lacks what is to be kept; in
    /// the last case a webhook may exist all the same.
    pub fn created(&self, context: &CallContext<'_>, response: &HttpResponse) -> Result<Captured, CallError> {
        let create = self.create()?;
        let data = response.successful(create.call.success.as_ref())?;
        let given = Given::new(context, false);
        let variables = given.variables().with("response", &data);
        let credentials = Self::secret_credentials(context.credentials);
        let telling = Variables::default().with("response", &data).with("credentials", &credentials);
        let read = || -> Result<Captured, EvalError> {
            Ok(Captured {
                id: filled(&create.id, &variables)?,
                secret: create.secret.as_ref().map(|expression| secret(expression, &telling)).transpose()?,
                expires_at: end(create.expires_at.as_ref(), &variables)?,
                values: texts(&create.values, &variables)?,
            })
        };
        read().map_err(|error| of(response, &error))
    }

    /// Whether the create call may be repeated without making a second webhook.
    pub fn create_is_idempotent(&self) -> bool {
        self.calls.create.as_ref().is_some_and(|create| create.idempotent)
    }

    /// Whether the external system refuses a second webhook with the same URL, so that one that is to be replaced has to
    /// be deleted first.
    pub fn create_is_exclusive(&self) -> bool {
        self.calls.create.as_ref().is_some_and(|create| create.exclusive)
    }

    /// Whether there is a webhook of its own for each event.
    pub fn per_event(&self) -> bool {
        self.calls.per_event
    }

    /// The call that reads one webhook; nothing if the plugin has none.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`].
    pub fn read_call(&self, context: &CallContext<'_>) -> Result<Option<HttpCall>, CallError> {
        self.calls.read.as_ref().map(|read| self.make(&read.call, context)).transpose()
    }

    /// What the answer to [`Plugin::read_call`] says; the statuses 404 and 410 say that the webhook is gone.
    ///
    /// # Errors
    /// Any other status that is not 2xx, and whatever is not as expected. None of it means that the webhook is gone.
    pub fn reading(&self, context: &CallContext<'_>, response: &HttpResponse) -> Result<WebhookReading, CallError> {
        let read = self.calls.read.as_ref().ok_or(CallError::NoSuchCall("webhook.read"))?;
        if matches!(response.status, 404 | 410) {
            return Ok(WebhookReading::Gone);
        }
        let data = response.successful(read.call.success.as_ref())?;
        let given = Given::new(context, false);
        let variables = given.variables().with("response", &data);
        let says = |expression: &Option<Expression>| {
            let says = expression.as_ref().map_or(Ok(true), |expression| expression.boolean(&variables));
            says.map_err(|error| of(response, &error))
        };
        Ok(match (says(&read.exists)?, &read.healthy) {
            (false, _) => WebhookReading::Gone,
            (true, healthy) if says(healthy)? => WebhookReading::Healthy,
            (true, _) => WebhookReading::Unhealthy,
        })
    }

    /// Whether one webhook can be read.
    pub fn can_read(&self) -> bool {
        self.calls.read.is_some()
    }

    /// The call that rewrites the webhook in place; nothing if the plugin has none, and then a webhook that needs a
    /// change is replaced.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`].
    pub fn update_call(&self, context: &CallContext<'_>) -> Result<Option<HttpCall>, CallError> {
        self.calls.update.as_ref().map(|call| self.make(call, context)).transpose()
    }

    /// Whether the answer to [`Plugin::update_call`] is a success.
    ///
    /// # Errors
    /// It is not.
    pub fn updated(&self, response: &HttpResponse) -> Result<(), CallError> {
        let call = self.calls.update.as_ref().ok_or(CallError::NoSuchCall("webhook.update"))?;
        response.successful(call.success.as_ref()).map(drop)
    }

    /// Whether a webhook can be rewritten in place.
    pub fn can_update(&self) -> bool {
        self.calls.update.is_some()
    }

    /// The call that prolongs the life of the webhook; nothing if the plugin has none.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`].
    pub fn refresh_call(&self, context: &CallContext<'_>) -> Result<Option<HttpCall>, CallError> {
        self.calls.refresh.as_ref().map(|(call, _)| self.make(call, context)).transpose()
    }

    /// The new end of the webhook's life in Unix milliseconds, from the answer to [`Plugin::refresh_call`]; nothing if
    /// the plugin does not read it, and then the life begins anew.
    ///
    /// # Errors
    /// The answer is no success, or not as expected.
    pub fn refreshed(&self, response: &HttpResponse) -> Result<Option<i64>, CallError> {
        let (call, expires_at) = self.calls.refresh.as_ref().ok_or(CallError::NoSuchCall("webhook.refresh"))?;
        let data = response.successful(call.success.as_ref())?;
        end(expires_at.as_ref(), &Variables::default().with("response", &data)).map_err(|error| of(response, &error))
    }

    /// Whether the life of a webhook can be prolonged by a call.
    pub fn can_refresh(&self) -> bool {
        self.calls.refresh.is_some()
    }

    /// How a webhook that expires is renewed, and its life where no end is captured; nothing if webhooks do not expire.
    pub fn renewal(&self) -> Option<(RenewalMethod, Option<Duration>)> {
        self.calls.renewal
    }

    /// The call that deletes the webhook; nothing if the plugin has none.
    ///
    /// # Errors
    /// The call cannot be made; see [`CallError`].
    pub fn delete_call(&self, context: &CallContext<'_>) -> Result<Option<HttpCall>, CallError> {
        self.calls.delete.as_ref().map(|call| self.make(call, context)).transpose()
    }

    /// Whether the answer to [`Plugin::delete_call`] is a success. That 404 and 410 are one is for the caller to say.
    ///
    /// # Errors
    /// It is not.
    pub fn deleted(&self, response: &HttpResponse) -> Result<(), CallError> {
        let call = self.calls.delete.as_ref().ok_or(CallError::NoSuchCall("webhook.delete"))?;
        response.successful(call.success.as_ref()).map(drop)
    }

    fn create(&self) -> Result<&Create, CallError> {
        self.calls.create.as_ref().ok_or(CallError::NoSuchCall("webhook.create"))
    }
}

/// An answer that an expression cannot be evaluated on.
pub(crate) fn of(response: &HttpResponse, error: &EvalError) -> CallError {
    response.unexpected(error.to_string())
}

/// The end of a life, where the plugin reads it.
pub(crate) fn end(expression: Option<&Expression>, variables: &Variables<'_>) -> Result<Option<i64>, EvalError> {
    expression.map_or(Ok(None), |expression| expiry(expression, variables))
}
