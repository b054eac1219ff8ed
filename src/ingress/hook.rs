//! One request at a callback URL, from its head to its answer.

use super::body::{self, BodyError, Declared};
use super::handshake::{Uncaptured, capture};
use super::{State, answer, now_millis, request_id};
use crate::plugin::{CallbackRequest, HandshakeReply};
use crate::routes::Route;
use crate::spool::{AppendError, Appended, Request as Stored};
use crate::telemetry::Answer;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderMap, Request, header};
use sha2::{Digest, Sha256};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

/// Longest time that a request waits for the disk. A sender that gave up would send it again anyway.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of header names and values that are stored with a request; further fields are left out.
const STORED_HEADERS: usize = 32 * 1024;
/// Longest delivery id that is stored as it is, in bytes.
const LONGEST_ID: usize = 256;
/// Header fields that are never stored, because they carry credentials.
const SECRET_HEADERS: [header::HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// What stands for the value of a secret query parameter.
const MASK: &str = "***";

/// A refusal: how it is answered and counted, and why.
struct Refused(Answer, String);

/// What became of a request that is not refused.
enum Taken {
    /// It is on disk.
    Stored(Uuid, Answer),
    /// It was a handshake.
    Shaken(HandshakeReply),
}

/// Answers one request.
pub async fn handle(state: Arc<State>, token: String, request: Request<Body>) -> Response {
    let started = Instant::now();
    let mut route = None;
    let outcome = AssertUnwindSafe(take(&state, &token, request, &mut route)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| Err(Refused(Answer::Panicked, "internal error".to_owned())));
    let plugin = route.as_ref().map_or(&state.no_plugin, |route: &Arc<Route>| route.plugin_name());
    match outcome {
        Ok(Taken::Stored(id, how)) => {
            state.metrics.request(plugin, how, started.elapsed());
            answer::stored(id, how)
        }
        Ok(Taken::Shaken(reply)) => {
            state.metrics.request(plugin, Answer::Handshake, started.elapsed());
            answer::shaken(reply)
        }
        Err(Refused(how, why)) => {
            state.metrics.request(plugin, how, started.elapsed());
            log_refusal(route.as_deref(), how, &why);
            answer::refused(how, &why)
        }
    }
}

async fn take(
    state: &State,
    token: &str,
    request: Request<Body>,
    found: &mut Option<Arc<Route>>,
) -> Result<Taken, Refused> {
    if !state.routes.is_synced() {
        return Err(Refused(Answer::NotSynced, "starting; come back soon".to_owned()));
    }
    let Some(route) = state.routes.by_token(token) else {
        return Err(Refused(Answer::UnknownRoute, "there is no such callback URL".to_owned()));
    };
    let route = &*found.insert(route);
    let (parts, body) = request.into_parts();
    check_encoding(&parts.headers)?;
    let (body, _reservation) = body::read(body, declared(&parts.headers), &state.bounds, route.traffic())
        .await
        .map_err(|error| unread(error, state))?;

    let query = parts.uri.query().unwrap_or_default();
    let now = i64::try_from(now_millis()).unwrap_or(i64::MAX);
    let callback = CallbackRequest::new(parts.method.as_str(), query, &parts.headers, &body);
    let callback = callback.at(now).registered(route.url());
    let plugin = route.plugin();
    let verify = || {
        let refused = |refusal: crate::plugin::Refusal| Refused(Answer::Unverified, refusal.to_string());
        plugin.verify(&callback, route.secrets()).map_err(refused)
    };
    if let Some(reply) = plugin.handshake(&callback) {
        if reply.verified {
            verify()?;
        }
        let answer = shake(state, route, reply).await?;
        route.traffic().activity.note(now_millis());
        return Ok(answer);
    }
    verify()?;
    route.traffic().activity.note(now_millis());
    plugin.check_body(&callback).map_err(|error| Refused(Answer::BadBody, error.to_string()))?;
    let delivery_id = plugin.delivery_id(&callback).unwrap_or_else(|error| {
        debug!(subscription = %route.uid(), %error, "no delivery id; the body's hash stands in for it");
        None
    });
    let delivery_id = delivery_id.map(shorten);

    let id = request_id(route.uid(), delivery_id.as_deref(), &body);
    let stored = to_store(route, id, delivery_id, parts, body);
    let bytes = stored.body.len();
    let appended = match tokio::time::timeout(STORE_TIMEOUT, state.spool.append(stored)).await {
        Ok(appended) => appended,
        Err(_) => Err(AppendError::Stopped),
    };
    let how = match appended {
        Ok(Appended::Stored) => Answer::Accepted,
        Ok(Appended::Duplicate) => Answer::Duplicate,
        Ok(Appended::Requeued) => Answer::Requeued,
        Err(error) => return Err(unstored(&error, state)),
    };
    state.health.spool_works(true);
    debug!(request = %id, namespace = &**route.namespace(), subscription = route.name(), bytes, ?how, "stored");
    Ok(Taken::Stored(id, how))
}

/// Answers a handshake, once the secret that it brings is stored.
async fn shake(state: &State, route: &Route, reply: HandshakeReply) -> Result<Taken, Refused> {
    if let Some(secret) = &reply.secret {
        capture(&state.controller, route, secret).await.map_err(|uncaptured| match uncaptured {
            Uncaptured::Another => {
                Refused(Answer::Unverified, "the handshake brings another secret than the one that is known".to_owned())
            }
            Uncaptured::NotNow(why) => {
                debug!(subscription = %route.uid(), why, "a handshake's secret was not stored");
                Refused(Answer::Uncaptured, "the secret cannot be stored now; come back soon".to_owned())
            }
        })?;
    }
    let captured = reply.secret.is_some();
    debug!(namespace = &**route.namespace(), subscription = route.name(), captured, "answered a handshake");
    Ok(Taken::Shaken(reply))
}

/// An id that is taken from the body can be as long as the body; then its hash does.
fn shorten(id: String) -> String {
    if id.len() <= LONGEST_ID { id } else { format!("sha256:{}", hex::encode(Sha256::digest(id.as_bytes()))) }
}

/// A compressed body could grow beyond every limit, so none is accepted.
fn check_encoding(headers: &HeaderMap) -> Result<(), Refused> {
    let identity = |value: &http::HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    match headers.get_all(header::CONTENT_ENCODING).iter().all(identity) {
        true => Ok(()),
        false => Err(Refused(Answer::Encoding, "send the body without content-encoding".to_owned())),
    }
}

fn declared(headers: &HeaderMap) -> Declared {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    Declared { length: length.and_then(|value| value.parse().ok()), waits: headers.contains_key(header::EXPECT) }
}

fn unread(error: BodyError, state: &State) -> Refused {
    match error {
        BodyError::TooLarge => {
            Refused(Answer::TooLarge, format!("the body is larger than {} bytes", state.bounds.limit))
        }
        BodyError::Timeout => Refused(Answer::Timeout, format!("the body took longer than {:?}", state.bounds.timeout)),
        BodyError::Busy => Refused(Answer::Busy, "too many bodies are being received; come back soon".to_owned()),
        BodyError::Broken => Refused(Answer::BadBody, "the body ended early or is malformed".to_owned()),
    }
}

fn unstored(error: &AppendError, state: &State) -> Refused {
    match error {
        // The numbers are for the administrator; the sender learns only that it should come back.
        AppendError::SubscriptionFull { .. } | AppendError::Full { .. } => {
            state.health.spool_works(true);
            if let Some(suppressed) = state.spool_log.pass() {
                warn!(%error, suppressed, "a request was refused");
            }
            Refused(Answer::SpoolFull, "too many undelivered requests; come back later".to_owned())
        }
        AppendError::TooLarge { .. } => {
            Refused(Answer::TooLarge, "the request is larger than can be stored".to_owned())
        }
        AppendError::Failed(_) | AppendError::Stopped => {
            state.health.spool_works(false);
            if let Some(suppressed) = state.spool_log.pass() {
                error!(%error, suppressed, "a request could not be stored");
            }
            Refused(Answer::SpoolFailed, "the request cannot be stored; come back later".to_owned())
        }
    }
}

/// A flood of bad requests must not fill the disk with log lines, so each route writes one in ten seconds. Requests to
/// unknown URLs are everybody's and are only counted.
fn log_refusal(route: Option<&Route>, how: Answer, why: &str) {
    if how == Answer::Panicked {
        error!(subscription = ?route.map(Route::uid), "a request hit a defect; the panic was reported above");
        return;
    }
    let Some(route) = route else {
        debug!(?how, why, "refused");
        return;
    };
    // Logged with its cause, by the spool's own gate.
    if matches!(how, Answer::SpoolFull | Answer::SpoolFailed) {
        return;
    }
    if let Some(suppressed) = route.traffic().refusals.pass() {
        let (namespace, subscription) = (&**route.namespace(), route.name());
        match how {
            Answer::Unverified | Answer::Busy | Answer::Uncaptured => {
                warn!(namespace, subscription, ?how, why, suppressed, "a request was refused");
            }
            _ => info!(namespace, subscription, ?how, why, suppressed, "a request was refused"),
        }
    }
}

fn to_store(route: &Route, id: Uuid, delivery_id: Option<String>, parts: Parts, body: Bytes) -> Stored {
    Stored {
        id,
        subscription: route.uid(),
        namespace: route.namespace().to_string(),
        name: route.name().to_owned(),
        received_at: now_millis(),
        delivery_id,
        method: parts.method.as_str().to_owned(),
        query: stored_query(parts.uri.query().unwrap_or_default(), route.secret_queries()),
        headers: stored_headers(&parts.headers, route),
        body,
    }
}

/// The query, in which the values of secret parameters are masked.
fn stored_query(query: &str, secret: &[String]) -> String {
    if secret.is_empty() {
        return query.to_owned();
    }
    let mut masked = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let is_secret = secret.iter().any(|secret| *secret == name);
        masked.append_pair(&name, if is_secret { MASK } else { &value });
    }
    masked.finish()
}

fn stored_headers(headers: &HeaderMap, route: &Route) -> Vec<(String, String)> {
    let mut room = STORED_HEADERS;
    let mut kept = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        if SECRET_HEADERS.contains(name) || route.is_secret_header(name.as_str()) {
            continue;
        }
        let size = name.as_str().len() + value.len();
        if size > room {
            continue;
        }
        room -= size;
        kept.push((name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    }
    kept
}
