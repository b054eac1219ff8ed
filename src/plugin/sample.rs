//! Requests that are made up here instead of in the external system: the samples of a plugin's events, and their signatures.

use super::Plugin;
use super::error::{Mistake, nearest};
use super::request::CallbackRequest;
use super::secret::Secret;
use super::verification::{self, Facts, Unsigned};
use crate::api;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use url::form_urlencoded;
use uuid::Uuid;

/// Largest body of a sample, in bytes: every replica of the ingress keeps it in memory.
const LARGEST: usize = 64 * 1024;

/// A request that is made up here.
#[derive(Clone)]
pub struct MadeRequest {
    /// HTTP method.
    pub method: http::Method,
    /// Query without the question mark.
    pub query: String,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Default for MadeRequest {
    fn default() -> Self {
        Self { method: http::Method::POST, query: String::new(), headers: HeaderMap::new(), body: Bytes::new() }
    }
}

impl std::fmt::Debug for MadeRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Once it is signed, headers, query and body may hold the callback secret.
        f.debug_struct("MadeRequest").field("method", &self.method).finish_non_exhaustive()
    }
}

/// Why there is no sample.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSample {
    /// The plugin has no such event.
    #[error("the plugin {plugin} has no event {event}{hint}")]
    UnknownEvent {
        /// The plugin.
        plugin: String,
        /// The event.
        event: String,
        /// The nearest name, if there is one.
        hint: String,
    },
    /// The event has no sample.
    #[error(
        "the plugin {plugin} has no sample of the event {event}; say what the external system sends, headers and body"
    )]
    None {
        /// The plugin.
        plugin: String,
        /// The event.
        event: String,
    },
}

impl MadeRequest {
    /// What a plugin has at `field`.
    ///
    /// # Errors
    /// The mistake, with its field.
    pub(crate) fn of(field: &str, sample: &api::EventSample) -> Result<Self, Mistake> {
        let mut headers = HeaderMap::new();
        for (name, value) in &sample.headers {
            let mistake = |problem: &str| Mistake::new(format!("{field}.headers.{name}"), problem);
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| mistake("is no header name"))?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| mistake("is no header value"))?);
        }
        let body = match &sample.body {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            json => {
                headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                json.to_string()
            }
        };
        if body.len() > LARGEST {
            let problem = format!("has {} bytes; a sample has at most {LARGEST}", body.len());
            return Err(Mistake::new(format!("{field}.body"), problem));
        }
        let method = match sample.method {
            api::Method::Get => http::Method::GET,
            api::Method::Post => http::Method::POST,
            api::Method::Put => http::Method::PUT,
            api::Method::Patch => http::Method::PATCH,
            api::Method::Delete => http::Method::DELETE,
        };
        Ok(Self { method, query: sample.query.clone(), headers, body: body.into() })
    }

    /// The request as a plugin reads it.
    pub fn callback(&self) -> CallbackRequest<'_> {
        CallbackRequest::new(self.method.as_str(), &self.query, &self.headers, &self.body)
    }

    /// The value of a header, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    /// Sets a header, in place of those of the same name.
    ///
    /// # Errors
    /// It cannot be one.
    pub(crate) fn set_header(&mut self, name: &str, value: &str) -> Result<(), Unsigned> {
        let header = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
        let (Ok(name), Ok(value)) = header else {
            return Err(Unsigned(format!("the header {name} cannot have the value that it would need")));
        };
        self.headers.insert(name, value);
        Ok(())
    }

    /// Sets a parameter of the query, in place of those of the same name.
    pub(crate) fn set_query(&mut self, name: &str, value: &str) {
        self.query = with_pair(self.query.as_bytes(), name, value);
    }

    /// Sets a field of the body, which is JSON or a form.
    ///
    /// # Errors
    /// The body is neither, or has something else where the field would be.
    pub(crate) fn set_in_body(
        &mut self,
        path: &[String],
        value: &str,
        payload_field: Option<&str>,
    ) -> Result<(), Unsigned> {
        let cannot = || Unsigned(format!("the field {} cannot be written into the body", path.join(".")));
        let is_form = |kind: String| kind.starts_with("application/x-www-form-urlencoded");
        if self.header(CONTENT_TYPE.as_str()).is_some_and(is_form) {
            let ([name], None) = (path, payload_field) else { return Err(cannot()) };
            self.body = with_pair(&self.body, name, value).into();
            return Ok(());
        }
        let mut body: Value = serde_json::from_slice(&self.body).map_err(|_| cannot())?;
        let mut at = &mut body;
        for name in path {
            at = at.as_object_mut().ok_or_else(cannot)?.entry(name).or_insert_with(|| serde_json::json!({}));
        }
        *at = match at {
            Value::Number(_) => value.parse::<i64>().map_or_else(|_| Value::from(value), Value::from),
            _ => Value::from(value),
        };
        self.body = body.to_string().into();
        Ok(())
    }
}

fn with_pair(form: &[u8], name: &str, value: &str) -> String {
    let others = form_urlencoded::parse(form).filter(|(key, _)| key != name);
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    pairs.extend_pairs(others).append_pair(name, value);
    pairs.finish()
}

impl Plugin {
    /// The sample of an event, not signed, with the id of a delivery that is new.
    ///
    /// # Errors
    /// There is none.
    pub fn sample(&self, event: &str, id: Uuid) -> Result<MadeRequest, NoSample> {
        let plugin = self.name.clone();
        let Some(kind) = self.event(event) else {
            let near = nearest(event, self.events.iter().map(|kind| kind.name.as_str()));
            let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return Err(NoSample::UnknownEvent { plugin, event: event.chars().take(128).collect(), hint });
        };
        let mut request = kind.sample.clone().ok_or_else(|| NoSample::None { plugin, event: event.to_owned() })?;
        self.set_delivery_id(&mut request, id);
        Ok(request)
    }

    /// Gives a request the id of a delivery, where the plugin looks it up: in a header, or in a text of the body that is
    /// there. Elsewhere it stays as it is.
    pub fn set_delivery_id(&self, request: &mut MadeRequest, id: Uuid) {
        let Some(expression) = &self.callback.delivery_id else { return };
        if let Some(name) = expression.header() {
            let _ = request.set_header(name, &id.to_string());
        } else if let Some(path) = expression.body_path()
            && is_text(&request.body, path)
        {
            let _ = request.set_in_body(path, &id.to_string(), self.callback.payload_field.as_deref());
        }
    }

    /// The request as the external system would have signed it at `now` (Unix milliseconds), with one of the secrets; `url`
    /// is the callback URL as it was registered.
    ///
    /// # Errors
    /// It cannot be signed here, and why.
    pub fn sign(
        &self,
        request: &MadeRequest,
        url: Option<&str>,
        secrets: &[Secret],
        now: i64,
    ) -> Result<MadeRequest, Unsigned> {
        let facts = Facts { payload_field: self.callback.payload_field.as_deref(), url, now };
        verification::sign_request(&self.callback.verification, request, facts, secrets)
    }
}

/// Whether a body of JSON has a text at this path.
fn is_text(body: &[u8], path: &[String]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    path.iter().try_fold(&body, |at, name| at.get(name)).is_some_and(Value::is_string)
}
