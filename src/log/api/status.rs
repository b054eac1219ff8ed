//! Refusals as the API machinery knows them: objects of the kind `Status`, with words for people.

use super::{GROUP, RESOURCE};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

/// Why a question is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    code: StatusCode,
    message: String,
    name: Option<String>,
    retry_after: Option<u16>,
}

impl Refusal {
    /// With this status, and a message for people.
    pub fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), name: None, retry_after: None }
    }

    /// 400: the question is wrong; the message names what of it.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404: there is no request of this name.
    pub fn not_found(name: &str, why: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{RESOURCE}.{GROUP} \"{name}\" not found: {why}")).about(name)
    }

    /// 503: it may be answered later.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { retry_after: Some(5), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// 429: too much is asked at once.
    pub fn too_many(message: impl Into<String>) -> Self {
        Self { retry_after: Some(5), ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// The same, about the request of this name.
    pub fn about(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The HTTP status.
    pub fn code(&self) -> StatusCode {
        self.code
    }

    /// What people read.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The object.
    pub fn to_status(&self) -> Value {
        let mut details = json!({"group": GROUP, "kind": RESOURCE});
        if let Some(name) = &self.name {
            details["name"] = json!(name);
        }
        if let Some(seconds) = self.retry_after {
            details["retryAfterSeconds"] = json!(seconds);
        }
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": reason(self.code), "details": details, "code": self.code.as_u16(),
        })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = self.to_status().to_string();
        let mut response = (self.code, [(CONTENT_TYPE, "application/json")], body).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What clients tell refusals apart by; `metav1.StatusReason` in k8s.io/apimachinery.
fn reason(code: StatusCode) -> &'static str {
    match code.as_u16() {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotAllowed",
        406 => "NotAcceptable",
        409 => "Conflict",
        410 => "Expired",
        413 => "RequestEntityTooLarge",
        415 => "UnsupportedMediaType",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    }
}
