//! What senders are told: a status, a small JSON object, and when to come back.

use super::waiting::Format;
use crate::plugin::HandshakeReply;
use crate::telemetry::Answer;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;
use uuid::Uuid;

/// When a sender should come back, in seconds.
const LATER: HeaderValue = HeaderValue::from_static("30");
const SOON: HeaderValue = HeaderValue::from_static("5");

/// The answer to a request that is on disk.
pub fn stored(id: Uuid, answer: Answer) -> Response {
    let mut text = format!("{{\"id\":\"{id}\"");
    match answer {
        Answer::Duplicate => text.push_str(",\"duplicate\":true}"),
        Answer::Requeued => text.push_str(",\"duplicate\":true,\"requeued\":true}"),
        _ => text.push('}'),
    }
    respond(StatusCode::OK, text)
}

/// The answer to a handshake, as the plugin has it.
pub fn shaken(reply: HandshakeReply) -> Response {
    written(reply.status, reply.headers, reply.body)
}

/// An answer that a plugin has written.
pub fn written(status: u16, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    // The plugin's compiler lets nothing else pass than 200 to 299.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    *response.headers_mut() = headers;
    response
}

/// A runner's answer: of its head, nothing is handed on but how the body is written.
pub fn handed_on(format: Format, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, format.into());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// With which status a request is refused.
pub fn status(answer: Answer) -> StatusCode {
    match answer {
        Answer::UnknownRoute => StatusCode::NOT_FOUND,
        Answer::Unverified => StatusCode::UNAUTHORIZED,
        Answer::BadBody => StatusCode::BAD_REQUEST,
        Answer::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Answer::Timeout => StatusCode::REQUEST_TIMEOUT,
        Answer::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Answer::NotSynced | Answer::Busy | Answer::SpoolFull | Answer::SpoolFailed | Answer::Uncaptured => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Answer::Accepted
        | Answer::Duplicate
        | Answer::Requeued
        | Answer::Answered
        | Answer::Default
        | Answer::Handshake
        | Answer::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The answer to a request that is refused, with the reason for the reader of the sender's log.
pub fn refused(answer: Answer, reason: &str) -> Response {
    let mut response = respond(status(answer), json!({ "error": reason }).to_string());
    let headers = response.headers_mut();
    match answer {
        Answer::SpoolFull | Answer::SpoolFailed => drop(headers.insert(RETRY_AFTER, LATER)),
        Answer::NotSynced | Answer::Busy | Answer::Uncaptured => drop(headers.insert(RETRY_AFTER, SOON)),
        // What is left of the body must not be taken for the next request.
        Answer::TooLarge | Answer::Timeout => drop(headers.insert(CONNECTION, HeaderValue::from_static("close"))),
        _ => {}
    }
    response
}

fn respond(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
