//! A compiled TriggerPlugin: expressions, verification schemes, events and calls as values.
//!
//! Everything that differs between external systems is in the resource; this module gives it a meaning. It does no
//! I/O and has no clock: calls are values that somebody else carries out, and requests are handed in.

mod answer;
mod call;
mod captures;
mod cel;
mod compile;
mod context;
mod definitions;
mod error;
mod event;
mod find;
mod handshake;
mod oauth2;
mod outgoing;
mod request;
mod resource;
mod response;
#[cfg(feature = "cli")]
mod rules;
mod sample;
mod schema;
mod secret;
mod steps;
mod template;
mod trigger;
mod verification;
mod webhook;

#[cfg(test)]
mod tests;

pub use answer::CallbackReply;
pub use call::HttpCall;
pub use captures::{Captured, CapturedAfter, Found};
pub use context::{CallContext, Credentials, WebhookRef};
pub use definitions::{WholeEvent, WholeParameter, Written, whole_events};
#[cfg(feature = "cli")]
pub(crate) use error::nearest;
pub use error::{BadBody, CallError, EvalError, Mismatch, Mistake, Refusal, TriggerMistake, join};
pub use event::{Event, Reading, VariableNote};
pub use find::Page;
pub use handshake::HandshakeReply;
pub use oauth2::{OAuth2, Token};
pub use outgoing::{Facts, Outgoing, Rendered};
pub use request::{CallbackRequest, PublicKeys};
pub use resource::{EVENT_LABEL, ObjectIdentity, ObjectTemplate, TRIGGER_UID_LABEL};
pub use response::{HttpResponse, redact, words};
#[cfg(feature = "cli")]
pub use rules::keeps_rule;
pub use sample::{MadeRequest, NoSample};
pub use secret::Secret;
pub use trigger::{SubscriptionInfo, Trigger};
pub use verification::{KeySet, Unsigned};
pub use webhook::WebhookReading;

pub(crate) use cel::{sparing, work_done};

use answer::Answering;
use call::ApiKey;
use cel::Expression;
use event::EventKind;
use handshake::Handshake;
use ipnet::IpNet;
use schema::{Schema, unknown};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;
use template::Template;
use verification::Verifier;
use webhook::Calls;

/// A compiled TriggerPlugin. It never changes; share it in an `Arc`.
#[derive(Debug)]
pub struct Plugin {
    name: String,
    origins: Vec<Template>,
    parameters: Option<Schema>,
    api_key: Option<ApiKey>,
    oauth2: Option<OAuth2>,
    calls: Calls,
    secret_source: SecretSource,
    callback: Callback,
    events: Vec<EventKind>,
    event_index: BTreeMap<String, usize>,
}

/// Where the callback secret comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// Nothing needs one: no verification, and no call that tells it.
    NotNeeded,
    /// Bellhop makes it, and `create` tells the external system.
    Generated,
    /// The external system chooses it and says it: in the answer to `create`, to a call after it, or in a handshake.
    External,
}

#[derive(Debug)]
struct Callback {
    /// Networks that callbacks may come from; empty: all.
    from: Vec<IpNet>,
    verification: Vec<Verifier>,
    handshakes: Vec<Handshake>,
    payload_field: Option<String>,
    ping: Option<Expression>,
    items: Option<Expression>,
    event: Expression,
    item_id: Option<Expression>,
    delivery_id: Option<Expression>,
    answer: Option<Answering>,
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

    /// The authorization methods that a Subscription may choose: `apiKey` and `oauth2` where the plugin has them and can
    /// make a webhook, and always `manual`.
    pub fn offers(&self) -> Vec<&'static str> {
        let creates = self.calls.create.is_some();
        let api_key = (creates && self.api_key.is_some()).then_some("apiKey");
        let oauth2 = (creates && self.oauth2.is_some()).then_some("oauth2");
        api_key.into_iter().chain(oauth2).chain(["manual"]).collect()
    }

    /// Where the callback secret comes from.
    pub fn secret_source(&self) -> SecretSource {
        self.secret_source
    }

    /// Whether a handshake brings the callback secret, so that one must be expected for webhooks made by hand too.
    pub fn captures_secret_by_handshake(&self) -> bool {
        self.callback.handshakes.iter().any(|handshake| handshake.secret.is_some())
    }

    /// The keys that a Secret with credentials must have.
    pub fn credential_keys(&self) -> &[String] {
        self.api_key.as_ref().map(|api_key| api_key.keys.as_slice()).unwrap_or_default()
    }

    /// Whether a request may come from this address, which is nothing where it is not known.
    ///
    /// # Errors
    /// The plugin names networks, and it is in none of them.
    pub fn check_sender(&self, client: Option<IpAddr>) -> Result<(), Refusal> {
        let networks = &self.callback.from;
        let inside = |client: IpAddr| networks.iter().any(|network| network.contains(&client));
        match networks.is_empty() || client.is_some_and(inside) {
            true => Ok(()),
            false => Err(Refusal::Elsewhere(client)),
        }
    }

    /// URLs of the JWK Sets (RFC 7517) that callbacks are verified with.
    pub fn jwks_urls(&self) -> impl Iterator<Item = &str> {
        self.callback.verification.iter().filter_map(Verifier::jwks_url)
    }

    /// Whether the callback URL as it was registered is part of what the external system signs.
    pub fn verification_needs_url(&self) -> bool {
        self.callback.verification.iter().any(Verifier::needs_url)
    }

    /// Names of the query parameters that carry a callback secret; their values are never stored.
    pub fn secret_queries(&self) -> Vec<String> {
        self.callback.verification.iter().filter_map(Verifier::secret_query).map(str::to_owned).collect()
    }

    /// Verifies who sent a request: by any of the plugin's verifications, with any of the secrets. The raw body is
    /// what is verified, whatever its content type says, unless the plugin names other parts.
    ///
    /// # Errors
    /// Why it is refused. No secret, an empty one, and a missing or repeated header are refusals. While a secret that
    /// the external system chooses is not known, everything is refused.
    pub fn verify(&self, request: &CallbackRequest<'_>, secrets: &[Secret]) -> Result<(), Refusal> {
        if self.secret_source == SecretSource::External && secrets.iter().all(Secret::is_empty) {
            return Err(Refusal::NoSecret);
        }
        let callback = &self.callback;
        let tokens_are_signed = callback.handshakes.iter().any(Handshake::signs_for_everybody);
        let payload_field = callback.payload_field.as_deref();
        verification::verify(&callback.verification, request, payload_field, tokens_are_signed, secrets)
    }
}
