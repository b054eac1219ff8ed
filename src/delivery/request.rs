//! The request of one attempt: a trigger, an event, secrets and a time in; method, URL, headers and body out. No I/O.

use super::cloud_event::Attributes;
use super::runner::Runners;
use crate::api::PublishedRunner;
use crate::plugin::{Facts, Outgoing, Rendered, Secret};
use crate::routes::Trigger;
use crate::spool::DeliveryEvent;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fmt;
use url::Url;
use uuid::Uuid;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What a request is made of.
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    /// The trigger, as it is now.
    pub trigger: &'a Trigger,
    /// What its runner is sent, compiled.
    pub outgoing: &'a Outgoing,
    /// What is published of its runner's secrets.
    pub secrets: Option<&'a PublishedRunner>,
    /// Name of the TriggerPlugin.
    pub plugin: &'a str,
    /// The event, with its request.
    pub event: &'a DeliveryEvent,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The time, in Unix milliseconds.
    pub now: u64,
}

/// A request to a runner. Its headers, its URL's query and its body may hold secrets.
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where it goes.
    pub url: Url,
    /// The headers; those that involve credentials are marked sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What must not be kept of an answer, the longest first: a runner may send back what it got.
    pub secrets: Vec<Secret>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("method", &self.method).field("bytes", &self.body.len()).finish_non_exhaustive()
    }
}

/// Why there is no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// It stays so until the resources or the administrator's options change.
    Never(String),
    /// The runner's secrets are on their way, or a person has to put them there. Nobody was asked, so it is no attempt.
    NotYet,
    /// The controller was asked for an object, and may not make it yet; it may be asked so many times.
    NotMade {
        /// What is missing.
        reason: String,
        /// The attempts of the trigger.
        max_attempts: u32,
    },
}

impl From<String> for Unsendable {
    fn from(reason: String) -> Self {
        Self::Never(reason)
    }
}

impl From<&str> for Unsendable {
    fn from(reason: &str) -> Self {
        Self::Never(reason.to_owned())
    }
}

/// Whether the trigger's runner needs secrets that are not there: those of exactly this runner.
pub fn lacks_secrets(trigger: &Trigger, published: Option<&PublishedRunner>) -> bool {
    let runner = &trigger.spec.runner;
    let is_complete = |secrets: &PublishedRunner| runner.signature.is_none() || secrets.signing_key().is_some();
    runner.needs_secrets() && !own(trigger, published).is_some_and(is_complete)
}

fn own<'a>(trigger: &Trigger, published: Option<&'a PublishedRunner>) -> Option<&'a PublishedRunner> {
    published.filter(|secrets| secrets.uid == trigger.uid && secrets.is_for(&trigger.spec.runner))
}

/// Makes the request of an attempt.
///
/// # Errors
/// [`Unsendable`]. Without the secrets of exactly this runner, nothing is sent that needs any.
pub fn prepare(parts: &Parts<'_>, runners: &Runners) -> Result<Request, Unsendable> {
    let Parts { trigger, event, .. } = *parts;
    let runner = &trigger.spec.runner;
    let url = runners.url(&trigger.namespace, runner).map_err(|error| error.to_string())?;
    let secrets = own(trigger, parts.secrets);
    let signing_key = secrets.and_then(PublishedRunner::signing_key);
    if lacks_secrets(trigger, parts.secrets) {
        return Err(Unsendable::NotYet);
    }
    let attributes = Attributes {
        id: event.event.id,
        namespace: &trigger.namespace,
        subscription: &event.request.name,
        plugin: parts.plugin,
        event: &event.event.name,
        accepted_at: event.request.received_at,
        trigger: &trigger.name,
        workflow: &event.trigger.workflow,
        attempt: parts.attempt,
    };
    let credentials = secrets.into_iter().flat_map(|secrets| &secrets.credentials);
    let credentials: BTreeMap<String, Secret> =
        credentials.map(|(key, value)| (key.clone(), Secret::from(value.as_str()))).collect();
    let rendered = render(parts, &attributes, &credentials)?;
    let (method, mut headers, body) = match rendered {
        Rendered::Request(method, headers, body) => (method, headers, body),
        Rendered::Event(format, additional) => {
            let (mut headers, body) = match format {
                crate::api::EventFormat::Binary => {
                    let body = serde_json::to_vec(&event.event.variables).map_err(|error| error.to_string())?;
                    (attributes.headers(), body)
                }
                crate::api::EventFormat::Structured => {
                    let (content_type, body) = attributes.structured(&event.event.variables);
                    (HeaderMap::from_iter([(http::header::CONTENT_TYPE, content_type)]), body)
                }
            };
            // None of them has the name of one that is there: that is a mistake of the trigger.
            headers.extend(additional);
            (Method::POST, headers, body.into())
        }
        // It is not sent: see `resource.rs`.
        Rendered::Object(_) => return Err("the runner is the cluster, which nothing is sent to".into()),
    };
    if let Some(key) = signing_key {
        sign(&mut headers, &key, message_id(event.event.id, trigger.uid), parts.now / 1000, &body)?;
    }
    let secrets = secrets_of(&headers, &credentials);
    Ok(Request { method, url, headers, body, secrets })
}

/// The credentials, and what headers made of them, as a whole and without the scheme before it.
fn secrets_of(headers: &HeaderMap, credentials: &BTreeMap<String, Secret>) -> Vec<Secret> {
    let values = headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
    let values = values.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, rest)| rest)]);
    let mut secrets: Vec<Secret> = values.flatten().map(Secret::from).chain(credentials.values().cloned()).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    secrets
}

fn render(
    parts: &Parts<'_>,
    attributes: &Attributes<'_>,
    credentials: &BTreeMap<String, Secret>,
) -> Result<Rendered, Unsendable> {
    let (type_, time) = (attributes.type_(), attributes.time());
    let facts = Facts {
        variables: &parts.event.event.variables,
        id: attributes.id,
        event: attributes.event,
        item: parts.event.event.item,
        type_: &type_,
        time: &time,
        namespace: attributes.namespace,
        subscription: attributes.subscription,
        plugin: attributes.plugin,
        trigger: attributes.trigger,
        workflow: attributes.workflow,
        attempt: attributes.attempt,
    };
    parts.outgoing.render(&facts, credentials).map_err(|error| Unsendable::Never(error.to_string()))
}

/// `webhook-id`, by which runners dedupe: the same in every attempt, and different for two triggers on one event.
fn message_id(event: Uuid, trigger: Uuid) -> Uuid {
    Uuid::new_v5(&event, trigger.as_bytes())
}

/// Signs as Standard Webhooks has it: HMAC-SHA256 of `id.timestamp.body`, in base64, behind `v1,`.
fn sign(headers: &mut HeaderMap, key: &[u8], id: Uuid, seconds: u64, body: &[u8]) -> Result<(), Unsendable> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    let signature = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    for (name, value) in [(ID, id.to_string()), (TIMESTAMP, seconds.to_string()), (SIGNATURE, signature)] {
        headers.insert(name, HeaderValue::from_str(&value).map_err(|error| error.to_string())?);
    }
    Ok(())
}
