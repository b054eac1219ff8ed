//! Calls to the external system, as values: somebody else carries them out.

use super::cel::value::{from_object, integer, record, string, strings};
use super::cel::{Data, Expression, Variables};
use super::error::CallError;
use super::secret::Secret;
use super::template::{Template, Values};
use crate::api::{BodyEncoding, Method};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

/// What a call is made of.
#[derive(Clone, Copy)]
pub struct CallContext<'a> {
    /// The Subscription's parameters.
    pub parameters: &'a Map<String, Value>,
    /// The credentials, by the plugin's keys.
    pub credentials: &'a BTreeMap<String, Secret>,
    /// The Subscription's callback URL.
    pub callback_url: &'a str,
    /// The secret that callbacks will be verified with.
    pub callback_secret: &'a Secret,
    /// The Subscription's events.
    pub events: &'a [String],
    /// The webhook's id, for update and delete.
    pub webhook_id: Option<&'a str>,
}

impl fmt::Debug for CallContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Who knows the callback URL can send requests to it.
        f.debug_struct("CallContext")
            .field("parameters", self.parameters)
            .field("events", &self.events)
            .field("webhook_id", &self.webhook_id)
            .finish_non_exhaustive()
    }
}

/// One HTTP call to make. It must not be redirected to another origin.
#[derive(Clone)]
pub struct HttpCall {
    /// The method.
    pub method: http::Method,
    /// The URL; its origin is one of the plugin's allowed origins.
    pub url: Url,
    /// The headers; values that involve credentials are marked sensitive.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Bytes>,
}

impl fmt::Debug for HttpCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("HttpCall")
            .field("method", &self.method)
            .field("url", &self.url.as_str())
            .field("headers", &names)
            .field("body_bytes", &self.body.as_ref().map(Bytes::len))
            .finish()
    }
}

/// The answer to an [`HttpCall`].
#[derive(Clone)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as a whole.
    pub body: Bytes,
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl HttpResponse {
    /// `response` in expressions.
    ///
    /// # Errors
    /// The status is not 2xx.
    pub(crate) fn successful(&self) -> Result<Data, CallError> {
        if !(200..300).contains(&self.status) {
            return Err(self.unexpected("the status is not 2xx"));
        }
        let mut headers: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.as_str())
                .and_modify(|joined| {
                    joined.push_str(", ");
                    joined.push_str(&value);
                })
                .or_insert_with(|| value.clone().into_owned());
        }
        let body = match serde_json::from_slice::<super::cel::value::Parsed>(&self.body) {
            Ok(parsed) => parsed.0,
            Err(_) => string(String::from_utf8_lossy(&self.body)),
        };
        Ok(record([
            ("status", integer(self.status.into())),
            ("headers", record(headers.into_iter().map(|(name, value)| (name, string(value))))),
            ("body", body),
        ]))
    }

    pub(crate) fn unexpected(&self, problem: impl Into<String>) -> CallError {
        CallError::UnexpectedAnswer { status: self.status, problem: problem.into() }
    }
}

/// A compiled call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) field: String,
    pub(crate) method: Method,
    pub(crate) url: Template,
    pub(crate) headers: Vec<(HeaderName, Expression)>,
    pub(crate) body: Option<Expression>,
    pub(crate) encoding: BodyEncoding,
    /// Whether `callback.secret` is there: in create and update alone.
    pub(crate) secret: bool,
    /// Whether `webhook` is there: in update and delete alone.
    pub(crate) webhook: bool,
}

/// Compiled `spec.authorization.apiKey`.
#[derive(Debug)]
pub(crate) struct ApiKey {
    pub(crate) keys: Vec<String>,
    pub(crate) headers: Vec<(HeaderName, Expression)>,
}

/// `callback` in expressions.
pub(crate) fn callback(url: &str, secret: Option<&str>) -> Data {
    let secret = secret.map(|secret| ("secret", string(secret)));
    record([("url", string(url))].into_iter().chain(secret))
}

impl Call {
    /// The call with its values.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) fn make(
        &self,
        context: &CallContext<'_>,
        origins: &[Template],
        api_key: Option<&ApiKey>,
    ) -> Result<HttpCall, CallError> {
        let webhook_id = context.webhook_id.filter(|_| self.webhook);
        let values = Values { parameters: context.parameters, webhook_id };
        let url = self.url.expand(&values)?;
        self.check_origin(&url, origins, context.parameters)?;

        let parameters = from_object(context.parameters);
        let secret = match self.secret {
            true => Some(context.callback_secret.expose_str().filter(|s| !s.is_empty()).ok_or_else(|| {
                CallError::InvalidBody { field: self.field.clone(), problem: "there is no callback secret".to_owned() }
            })?),
            false => None,
        };
        let callback = callback(context.callback_url, secret);
        let events = strings(context.events);
        let webhook = record(webhook_id.map(|id| ("id", string(id))));
        let variables = Variables::default()
            .with("parameters", &parameters)
            .with("callback", &callback)
            .with("events", &events)
            .with("webhook", &webhook);

        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let body = self.body.as_ref().map(|body| self.write_body(body, &variables)).transpose()?;
        if body.is_some() {
            headers.insert(
                CONTENT_TYPE,
                HeaderValue::from_static(match self.encoding {
                    BodyEncoding::Json => "application/json",
                    BodyEncoding::Form => "application/x-www-form-urlencoded",
                }),
            );
        }
        add_headers(&mut headers, &self.headers, &variables)?;
        if let Some(api_key) = api_key {
            let credentials = api_key.credentials(context)?;
            let variables = Variables::default().with("parameters", &parameters).with("credentials", &credentials);
            add_headers(&mut headers, &api_key.headers, &variables)?;
        }
        let method = match self.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::Patch => http::Method::PATCH,
            Method::Delete => http::Method::DELETE,
        };
        Ok(HttpCall { method, url, headers, body })
    }

    fn check_origin(&self, url: &Url, origins: &[Template], parameters: &Map<String, Value>) -> Result<(), CallError> {
        let mut allowed = Vec::with_capacity(origins.len());
        for origin in origins {
            // An origin of parameters that are not set allows nothing.
            let Ok(origin) = origin.expand(&Values { parameters, webhook_id: None }).map(|url| url.origin()) else {
                continue;
            };
            if origin == url.origin() {
                return Ok(());
            }
            allowed.push(origin.ascii_serialization());
        }
        Err(CallError::OriginNotAllowed {
            field: format!("{}.url", self.field),
            origin: url.origin().ascii_serialization(),
            allowed,
        })
    }

    fn write_body(&self, body: &Expression, variables: &Variables<'_>) -> Result<Bytes, CallError> {
        let json = body.json(variables)?;
        let fail = |problem: String| CallError::InvalidBody { field: body.field().to_owned(), problem };
        match self.encoding {
            BodyEncoding::Json => serde_json::to_vec(&json).map(Bytes::from).map_err(|error| fail(error.to_string())),
            BodyEncoding::Form => {
                let fields = json.as_object().ok_or_else(|| fail("a form's body must be a map".to_owned()))?;
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                for (name, value) in fields {
                    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                    for value in values {
                        let text = match value {
                            Value::String(text) => text.clone(),
                            Value::Number(_) | Value::Bool(_) => value.to_string(),
                            _ => {
                                return Err(fail(format!(
                                    "the form's field {name} must be a scalar or a list of scalars"
                                )));
                            }
                        };
                        form.append_pair(name, &text);
                    }
                }
                Ok(form.finish().into())
            }
        }
    }
}

impl ApiKey {
    fn credentials(&self, context: &CallContext<'_>) -> Result<Data, CallError> {
        let mut fields = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let value = context.credentials.get(key).and_then(Secret::expose_str).filter(|value| !value.is_empty());
            fields.push((key.as_str(), string(value.ok_or_else(|| CallError::MissingCredential(key.clone()))?)));
        }
        Ok(record(fields))
    }
}

fn add_headers(
    headers: &mut HeaderMap,
    expressions: &[(HeaderName, Expression)],
    variables: &Variables<'_>,
) -> Result<(), CallError> {
    for (name, expression) in expressions {
        let text = expression.text(variables)?;
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| CallError::InvalidHeader { field: expression.field().to_owned() })?;
        value.set_sensitive(expression.uses("credentials") || expression.uses("callback"));
        headers.insert(name.clone(), value);
    }
    Ok(())
}
