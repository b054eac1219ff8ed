//! A compiled TriggerPlugin: expressions, verification schemes, events and calls as values.
//!
//! Everything that differs between external systems is in the resource; this module gives it a meaning. It does no
//! I/O and has no clock: calls are values that somebody else carries out, and requests are handed in.

mod call;
mod cel;
mod compile;
mod error;
mod event;
mod request;
mod schema;
mod secret;
mod template;
mod trigger;
mod verification;
mod webhook;

#[cfg(test)]
mod tests;

pub use call::{CallContext, HttpCall, HttpResponse};
pub use error::{BadBody, CallError, EvalError, Mismatch, Mistake, Refusal, TriggerMistake, join};
pub use event::{Event, Reading, VariableNote};
pub use request::CallbackRequest;
pub use secret::Secret;
pub use trigger::{SubscriptionInfo, Trigger};

use crate::api::Verification;
use call::{ApiKey, Call};
use cel::Expression;
use event::EventKind;
use schema::{Schema, unknown};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use template::Template;

/// A compiled TriggerPlugin. It never changes; share it in an `Arc`.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    origins: Vec<Template>,
    parameters: Option<Schema>,
    api_key: Option<ApiKey>,
    calls: Calls,
    callback: Callback,
    events: Vec<EventKind>,
    event_index: BTreeMap<String, usize>,
}

#[derive(Debug, Default)]
struct Calls {
    verify: Option<(Call, Option<Expression>)>,
    find: Option<Find>,
    create: Option<(Call, Expression)>,
    update: Option<Call>,
    delete: Option<Call>,
}

#[derive(Debug)]
struct Find {
    call: Call,
    items: Expression,
    matches: Expression,
    id: Expression,
}

#[derive(Debug)]
struct Callback {
    verification: Vec<Verification>,
    payload_field: Option<String>,
    items: Option<Expression>,
    event: Expression,
    delivery_id: Option<Expression>,
}

impl Plugin {
    /// Name of the TriggerPlugin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Checks a Subscription's parameters against the plugin's JSON schema.
    ///
    /// # Errors
    /// Every mistake, with a field such as `spec.parameters.owner`.
    pub fn check_parameters(&self, parameters: &Map<String, Value>) -> Result<(), Vec<Mistake>> {
        match &self.parameters {
            Some(schema) => schema.check("spec.parameters", &Value::Object(parameters.clone())),
            None if parameters.is_empty() => Ok(()),
            None => Err(parameters.keys().map(|name| unknown("spec.parameters", name, &[])).collect()),
        }
    }

    /// The events that a Subscription gets: those it asked for, each once, or all that the plugin has.
    ///
    /// # Errors
    /// The first event that the plugin does not have, with the nearest name and how to see all.
    pub fn pin_events(&self, wanted: Option<&[String]>) -> Result<Vec<String>, Mistake> {
        let Some(wanted) = wanted else { return Ok(self.events.iter().map(|kind| kind.name.clone()).collect()) };
        let mut pinned: Vec<String> = Vec::new();
        for (at, name) in wanted.iter().enumerate() {
            if self.event(name).is_none() {
                let hint = error::nearest(name, self.events.iter().map(|kind| kind.name.as_str()));
                let hint = hint.map(|nearest| format!("did you mean `{nearest}`? ")).unwrap_or_default();
                let problem = format!(
                    "the plugin {0} has no event `{name}`; {hint}To see all: \
                     kubectl get triggerplugin {0} -o jsonpath='{{.spec.events[*].name}}'",
                    self.name
                );
                return Err(Mistake::new(format!("spec.events[{at}]"), problem));
            }
            if !pinned.contains(name) {
                pinned.push(name.clone());
            }
        }
        if pinned.is_empty() {
            return Err(Mistake::new("spec.events", "is empty; leave it out to get all events"));
        }
        Ok(pinned)
    }

    /// The authorization methods that a Subscription may choose: `apiKey` where the plugin can make a webhook with
    /// one, and always `manual`.
    pub fn offers(&self) -> Vec<&'static str> {
        let api_key = self.api_key.is_some() && self.calls.create.is_some();
        api_key.then_some("apiKey").into_iter().chain(["manual"]).collect()
    }

    /// The keys that a Secret with credentials must have.
    pub fn credential_keys(&self) -> &[String] {
        self.api_key.as_ref().map(|api_key| api_key.keys.as_slice()).unwrap_or_default()
    }

    /// Verifies who sent a request: by any of the plugin's verifications, with any of the secrets. The raw body is
    /// what is verified, whatever its content type says.
    ///
    /// # Errors
    /// Why it is refused. No secret, an empty one, and a missing or repeated header are refusals.
    pub fn verify(&self, request: &CallbackRequest<'_>, secrets: &[Secret]) -> Result<(), Refusal> {
        verification::verify(&self.callback.verification, request, secrets)
    }
}
