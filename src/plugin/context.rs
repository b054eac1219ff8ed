//! What a call is made of.

use super::cel::value::{from_object, record, string, strings, timestamp};
use super::cel::{Data, Variables};
use super::secret::Secret;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// What proves to the external system for whom a call is made.
#[derive(Clone)]
pub enum Credentials {
    /// What the user's Secret holds, by the plugin's keys.
    ApiKey(BTreeMap<String, Secret>),
    /// An access token of OAuth 2.0, and the secret of the client that it was issued to; empty where nobody needs it.
    AccessToken {
        /// The token.
        token: Secret,
        /// The client's secret.
        client_secret: Secret,
    },
    /// Nothing; for plugins whose external system asks for nothing.
    None,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiKey(_) => "ApiKey(…)",
            Self::AccessToken { .. } => "AccessToken(…)",
            Self::None => "None",
        })
    }
}

impl Credentials {
    /// Everything that must not be shown.
    pub fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::ApiKey(values) => values.values().collect(),
            Self::AccessToken { token, client_secret } => vec![token, client_secret],
            Self::None => Vec::new(),
        }
    }
}

/// A webhook in the external system: `webhook` in expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookRef {
    /// Its id.
    pub id: String,
    /// What else was captured of it, by name.
    pub values: BTreeMap<String, String>,
}

/// What a call is made of.
#[derive(Clone, Copy)]
pub struct CallContext<'a> {
    /// The Subscription's parameters.
    pub parameters: &'a Map<String, Value>,
    /// For whom the call is made.
    pub credentials: &'a Credentials,
    /// The Subscription's callback URL.
    pub callback_url: &'a str,
    /// A name that is this Subscription's alone, for systems in which the caller names a webhook.
    pub callback_name: &'a str,
    /// The secret that callbacks will be verified with; empty while the external system has still to tell it.
    pub callback_secret: &'a Secret,
    /// The Subscription's events.
    pub events: &'a [String],
    /// The one event that the call is about, if the plugin needs a webhook for each; see
    /// [`Plugin::per_event`](super::Plugin::per_event).
    pub event: Option<&'a str>,
    /// What the calls before `create` have captured, by name.
    pub setup: &'a BTreeMap<String, String>,
    /// The webhook that the call is about, for `after`, `read`, `update`, `refresh` and `delete`.
    pub webhook: Option<&'a WebhookRef>,
    /// The attempt to create a webhook, new for each.
    pub attempt: Option<Uuid>,
    /// The time of the call, in Unix milliseconds.
    pub now: i64,
}

impl fmt::Debug for CallContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who knows the callback URL can send requests to it.
        f.debug_struct("CallContext")
            .field("parameters", self.parameters)
            .field("events", &self.events)
            .field("event", &self.event)
            .field("webhook", &self.webhook.map(|webhook| &webhook.id))
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// A context as expressions see it. Which of it an expression may mention was decided when it was compiled.
pub(crate) struct Given {
    pub(crate) parameters: Data,
    callback: Data,
    events: Data,
    event: Data,
    setup: Data,
    webhook: Data,
    now: Data,
}

impl Given {
    /// `secret`: whether `callback.secret` is there, if there is one.
    pub(crate) fn new(context: &CallContext<'_>, secret: bool) -> Self {
        let texts = |values: &BTreeMap<String, String>| {
            values.iter().map(|(name, value)| (name.clone(), string(value))).collect::<Vec<_>>()
        };
        let mut callback = vec![("url", string(context.callback_url)), ("name", string(context.callback_name))];
        callback.extend(context.attempt.map(|attempt| ("attempt", string(attempt.to_string()))));
        let secret = context.callback_secret.expose_str().filter(|text| secret && !text.is_empty());
        callback.extend(secret.map(|secret| ("secret", string(secret))));
        let webhook = context.webhook.map(|webhook| {
            let mut fields = texts(&webhook.values);
            fields.push(("id".to_owned(), string(&webhook.id)));
            fields
        });
        Self {
            parameters: from_object(context.parameters),
            callback: record(callback),
            events: strings(context.events),
            event: context.event.map_or_else(super::cel::value::null, string),
            setup: record(texts(context.setup)),
            webhook: record(webhook.unwrap_or_default()),
            now: timestamp(context.now),
        }
    }

    /// The variables of expressions.
    pub(crate) fn variables(&self) -> Variables<'_> {
        Variables::default()
            .with("parameters", &self.parameters)
            .with("callback", &self.callback)
            .with("events", &self.events)
            .with("event", &self.event)
            .with("setup", &self.setup)
            .with("webhook", &self.webhook)
            .with("now", &self.now)
    }
}
