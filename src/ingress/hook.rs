//! One request at a callback URL, from its head to its answer.

use super::body::{self, BodyError, Declared};
use super::handshake::{Uncaptured, capture};
use super::judge::{self, Judged, Refused, judge, to_store};
use super::reply::Reply;
use super::{Peer, State, answer, client_address, now_millis, request_id};
use crate::log::convert::{self, About, Passed};
use crate::log::mask::Mask;
use crate::log::model::{self, Outcome, Verification};
use crate::plugin::{HandshakeReply, PublicKeys, Secret};
use crate::routes::Route;
use crate::spool::{AppendError, Appended, Request as Stored};
use crate::telemetry::Answer;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderMap, Request, header};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};
use tracing::{debug, error, info, warn};
use uuid::Uuid;

/// Longest time that a request waits for the disk. A sender that gave up would send it again anyway.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a body from which on it is judged apart from what serves requests: to read one takes up to 60 ms, for which all
/// other requests of the thread would wait.
pub(super) const LARGE: usize = 64 * 1024;
/// Most requests with large bodies that are judged at once; others wait for their turn.
pub(super) const LARGE_AT_ONCE: usize = 4;

/// What was found out about a request until it was answered.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) route: Option<Arc<Route>>,
    pub(super) head: Option<Parts>,
    pub(super) body: Option<Bytes>,
    pub(super) delivery_id: Option<String>,
    pub(super) verification: Option<Verification>,
    /// A secret that it brought.
    secret: Option<Secret>,
}

/// What became of a request that is not refused.
pub(super) enum Taken {
    /// It is on disk, and the plugin may have a say in the answer.
    Stored(Uuid, Answer, Option<Reply>),
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
        Ok(Taken::Stored(id, Answer::Accepted, Some(reply))) => {
            let (plugin, stored) = (plugin.clone(), started.elapsed());
            // It may wait for seconds, and not hold what takes memory meanwhile.
            drop(seen);
            let (how, response) = reply.answer(&state.spool, id, started).await;
            state.metrics.request(&plugin, how, stored);
            response
        }
        Ok(Taken::Stored(id, how, reply)) => {
            state.metrics.request(plugin, how, started.elapsed());
            if how != Answer::Accepted {
                let status = reply.as_ref().map_or(200, Reply::status);
                seen.pass(&state, Outcome::Duplicate, (how, status), started, repeats(&state, id, how));
            }
            reply.map_or_else(|| answer::stored(id, how), Reply::again)
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
pub(super) struct Said<'a> {
    /// What the sender was told.
    pub(super) message: Option<&'a str>,
    /// What it was not told.
    pub(super) note: Option<String>,
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
    pub(super) fn pass(
        &self,
        state: &State,
        outcome: Outcome,
        (how, status): (Answer, u16),
        started: Instant,
        said: Said<'_>,
    ) {
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
                ..model::Answer::default()
            },
            verification: self.verification.clone(),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
        };
        let about = About { replica: &state.replica, plugin: Some(route.plugin_name()), mask: &mask };
        state.passing.keep(convert::passing(passed, &about), state.spool.oldest(now_millis()));
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
    judge::check_encoding(&parts.headers)?;
    let (body, _reservation) = body::read(body, declared(&parts.headers), &state.bounds, route.traffic())
        .await
        .map_err(|error| unread(error, state))?;
    let body = &*seen.body.insert(body);

    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0);
    let client = client_address::client(peer, &parts.headers, &state.trusted_proxies);
    if let Err(refusal) = route.plugin().check_sender(client) {
        let why = refusal.to_string();
        seen.verification = Some(Verification { verified: false, message: Some(why.clone()) });
        return Err(Refused(Answer::Unverified, why));
    }
    let keys = Some(&state.routes as &(dyn PublicKeys + Sync));
    let (verification, secret) = (&mut seen.verification, &mut seen.secret);
    let judged =
        apart(state, body.len(), || judge(route, (parts, body), now_millis(), keys, verification, secret)).await;
    if seen.verification.as_ref().is_some_and(|verification| verification.verified) {
        route.traffic().activity.note(now_millis());
    }
    let (delivery_id, reply) = match judged? {
        Judged::Event { delivery_id, reply } => (delivery_id, reply),
        Judged::Handshake(reply) => {
            let answer = shake(state, route, reply).await?;
            route.traffic().activity.note(now_millis());
            return Ok(answer);
        }
    };
    seen.delivery_id = delivery_id;

    let id = request_id(route.uid(), seen.delivery_id.as_deref(), body);
    // Before it is stored, because it may be matched and delivered before that is known here.
    let reply = reply.map(|reply| Reply::plan(state, route, id, reply));
    let stored = to_store(route, id, seen.delivery_id.clone(), (parts, body), now_millis());
    store(state, route, stored, reply, started).await
}

/// Puts a request on disk; `reply` is what the plugin has to say in the answer.
pub(super) async fn store(
    state: &State,
    route: &Route,
    stored: Stored,
    reply: Option<Reply>,
    started: Instant,
) -> Result<Taken, Refused> {
    let (id, bytes) = (stored.id, stored.body.len());
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
    Ok(Taken::Stored(id, how, reply))
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

/// Does what takes long with a large body while another thread serves this one's requests.
pub(super) async fn apart<T>(state: &State, bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes < LARGE || Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
        return work();
    }
    let _turn = state.large.acquire().await;
    tokio::task::block_in_place(work)
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
