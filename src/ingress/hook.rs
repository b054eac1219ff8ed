//! One request at a callback URL, from its head to its answer.

use super::body::{self, BodyError, Declared};
use super::handshake::{Uncaptured, capture};
use super::{State, answer, now_millis, request_id};
use crate::log::convert::{self, About, Passed};
use crate::log::mask::Mask;
use crate::log::model::{self, MASK, Outcome, Verification};
use crate::plugin::{CallbackRequest, HandshakeReply, Secret};
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
/// Header fields whose values are never stored, because they carry credentials.
const SECRET_HEADERS: [header::HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// A refusal: how it is answered and counted, and why.
struct Refused(Answer, String);

/// What was found out about a request until it was answered.
#[derive(Default)]
struct Seen {
    route: Option<Arc<Route>>,
    head: Option<Parts>,
    body: Option<Bytes>,
    delivery_id: Option<String>,
    verification: Option<Verification>,
    /// A secret that it brought.
    secret: Option<Secret>,
}

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
    let mut seen = Seen::default();
    let outcome = AssertUnwindSafe(take(&state, &token, request, started, &mut seen)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| Err(Refused(Answer::Panicked, "internal error".to_owned())));
    let plugin = seen.route.as_ref().map_or(&state.no_plugin, |route: &Arc<Route>| route.plugin_name());
    match outcome {
        Ok(Taken::Stored(id, how)) => {
            state.metrics.request(plugin, how, started.elapsed());
            if how != Answer::Accepted {
                seen.pass(&state, Outcome::Duplicate, (how, 200), started, repeats(&state, id, how));
            }
            answer::stored(id, how)
        }
        Ok(Taken::Shaken(reply)) => {
            state.metrics.request(plugin, Answer::Handshake, started.elapsed());
            let answer = (Answer::Handshake, reply.status);
            seen.pass(&state, Outcome::Handshake, answer, started, Said::default());
            answer::shaken(reply)
        }
        Err(Refused(how, why)) => {
            state.metrics.request(plugin, how, started.elapsed());
            log_refusal(seen.route.as_deref(), how, &why);
            let said = Said { message: Some(&why), ..Said::default() };
            seen.pass(&state, Outcome::Refused, (how, answer::status(how).as_u16()), started, said);
            answer::refused(how, &why)
        }
    }
}

/// What else there is to say of a request that is not stored.
#[derive(Default)]
struct Said<'a> {
    /// What the sender was told.
    message: Option<&'a str>,
    /// What it was not told.
    note: Option<String>,
}

fn repeats(state: &State, id: Uuid, how: Answer) -> Said<'static> {
    let first = model::name(&state.replica, id);
    let note = match how {
        Answer::Requeued => format!("repeats {first}, whose dead letters are delivered again"),
        _ => format!("repeats {first}"),
    };
    Said { note: Some(note), ..Said::default() }
}

impl Seen {
    /// Puts a request into the log that is not stored. Requests to unknown URLs belong to nobody.
    fn pass(&self, state: &State, outcome: Outcome, (how, status): (Answer, u16), started: Instant, said: Said<'_>) {
        let (Some(route), Some(head)) = (&self.route, &self.head) else { return };
        let Some(left_out) = state.passing.admit(route.uid(), outcome, started) else { return };
        let mut mask = Mask::of(Some(route));
        if let Some(secret) = &self.secret {
            mask = mask.with(secret.expose());
        }
        let left_out = (left_out > 0).then(|| format!("{left_out} others like it were left out of the log before it"));
        let notes: Vec<String> = said.note.into_iter().chain(left_out).collect();
        let elapsed = started.elapsed().as_millis();
        let passed = Passed {
            id: Uuid::new_v4(),
            at: now_millis(),
            subscription: (route.namespace(), route.name(), route.uid()),
            outcome,
            head,
            body: self.body.as_deref(),
            delivery_id: self.delivery_id.as_deref(),
            answer: model::Answer {
                status,
                after_millis: u64::try_from(elapsed).ok(),
                reason: format!("{how:?}"),
                message: said.message.map(str::to_owned),
            },
            verification: self.verification.clone(),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        };
        let about = About { replica: &state.replica, plugin: Some(route.plugin_name()), mask: &mask };
        state.passing.keep(convert::passing(passed, &about));
    }
}

async fn take(
    state: &State,
    token: &str,
    request: Request<Body>,
    started: Instant,
    seen: &mut Seen,
) -> Result<Taken, Refused> {
    if !state.routes.is_synced() {
        return Err(Refused(Answer::NotSynced, "starting; come back soon".to_owned()));
    }
    let Some(route) = state.routes.by_token(token) else {
        return Err(Refused(Answer::UnknownRoute, "there is no such callback URL".to_owned()));
    };
    let route = &*seen.route.insert(route);
    let (parts, body) = request.into_parts();
    let parts = &*seen.head.insert(parts);
    check_encoding(&parts.headers)?;
    let (body, _reservation) = body::read(body, declared(&parts.headers), &state.bounds, route.traffic())
        .await
        .map_err(|error| unread(error, state))?;
    let body = &*seen.body.insert(body);

    let query = parts.uri.query().unwrap_or_default();
    let now = i64::try_from(now_millis()).unwrap_or(i64::MAX);
    let callback = CallbackRequest::new(parts.method.as_str(), query, &parts.headers, body);
    let callback = callback.at(now).registered(route.url());
    let plugin = route.plugin();
    let verification = &mut seen.verification;
    let mut verify = || {
        let proof = plugin.verify(&callback, route.secrets()).map_err(|refusal| refusal.to_string());
        *verification = Some(Verification { verified: proof.is_ok(), message: proof.as_ref().err().cloned() });
        proof.map_err(|why| Refused(Answer::Unverified, why))
    };
    if let Some(reply) = plugin.handshake(&callback, route.secrets()) {
        seen.secret.clone_from(&reply.secret);
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
    seen.delivery_id = delivery_id.map(shorten);

    let id = request_id(route.uid(), seen.delivery_id.as_deref(), body);
    let stored = to_store(route, id, seen.delivery_id.clone(), parts, body.clone());
    let bytes = stored.body.len();
    let appended = match tokio::time::timeout(STORE_TIMEOUT, state.spool.append_begun(stored, started)).await {
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

fn to_store(route: &Route, id: Uuid, delivery_id: Option<String>, parts: &Parts, body: Bytes) -> Stored {
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
        // That they came is part of the log; what they say is not.
        let secret = SECRET_HEADERS.contains(name) || route.is_secret_header(name.as_str());
        let value = if secret { MASK.as_bytes() } else { value.as_bytes() };
        let size = name.as_str().len() + value.len();
        if size > room {
            continue;
        }
        room -= size;
        kept.push((name.as_str().to_owned(), String::from_utf8_lossy(value).into_owned()));
    }
    kept
}
