//! How a request is answered, where the plugin says that: once it is stored.

use super::Plugin;
use super::cel::value::null;
use super::cel::{Expression, Variables};
use super::error::EvalError;
use super::request::CallbackRequest;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::time::Duration;

/// What `callback.answer` says, compiled.
#[derive(Debug)]
pub(crate) struct Answering {
    pub(crate) when: Option<Expression>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) default: WrittenAnswer,
}

/// An answer as a plugin writes it, compiled.
#[derive(Debug)]
pub(crate) struct WrittenAnswer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(HeaderName, Expression)>,
    pub(crate) body: Option<Expression>,
}

impl WrittenAnswer {
    pub(crate) fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.headers.iter().map(|(_, expression)| expression).chain(&self.body)
    }

    /// The headers, `content-type` among them if there is a body, and the body.
    pub(crate) fn make(&self, variables: &Variables<'_>) -> Result<(HeaderMap, Bytes), EvalError> {
        let mut headers = HeaderMap::new();
        // What a sender has sent comes back to it; no browser may take it for a page.
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let body = match &self.body {
            None => Bytes::new(),
            Some(expression) => {
                let (kind, body) = match expression.json(variables)? {
                    Value::String(text) => ("text/plain; charset=utf-8", text),
                    json => ("application/json", json.to_string()),
                };
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                body.into()
            }
        };
        for (name, expression) in &self.headers {
            let value = HeaderValue::from_str(&expression.text(variables)?);
            let value = value.map_err(|_| EvalError::new(expression.field(), "is no header value"))?;
            headers.insert(name.clone(), value);
        }
        Ok((headers, body))
    }
}

/// How one request is answered.
#[derive(Clone, Debug)]
pub struct CallbackReply {
    /// How long its sender waits for a runner's answer, from the head of the request; it does not if this is not there.
    pub deadline: Option<Duration>,
    /// HTTP status of the default, 200 to 299.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Plugin {
    /// How the plugin wants a request to be answered once it is stored; nothing, without a look at the request, if it does
    /// not say, and nothing if this request is none of those that it says it of.
    ///
    /// # Errors
    /// That cannot be evaluated; the request is then answered as if the plugin did not say.
    pub fn answer(&self, request: &CallbackRequest<'_>) -> Result<Option<CallbackReply>, EvalError> {
        let Some(answering) = &self.callback.answer else { return Ok(None) };
        let needs_body = answering.when.iter().chain(answering.default.expressions()).any(|one| one.uses("body"));
        let field = self.callback.payload_field.as_deref();
        let body = if needs_body { request.parse_body(field).unwrap_or_else(|_| null()) } else { null() };
        let request = request.to_data();
        let variables = Variables::default().with("request", &request).with("body", &body);
        if let Some(when) = &answering.when
            && !when.boolean(&variables)?
        {
            return Ok(None);
        }
        let (headers, body) = answering.default.make(&variables)?;
        Ok(Some(CallbackReply { deadline: answering.deadline, status: answering.default.status, headers, body }))
    }
}
