//! Requests that a person makes up and has sent, to try a trigger without the external system.
//!
//! They come from the controller, which knows who may do that, at the listener of the request log, and never at the public
//! one. Such a request is signed here with the Subscription's callback secret, verified, stored and delivered as every other.
//! Where only the external system could sign it, it is taken all the same, and the log says so.

use super::hook::{Said, Seen, Taken, store};
use super::judge::{Refused, judge_sent, to_store};
use super::{State, answer, now_millis};
use crate::log::model::{MASK, Outcome, Verification};
use crate::log::sending::{SendSpec, SendWish, Sent};
use crate::plugin::{MadeRequest, sparing};
use crate::routes::{Lookup, Route};
use crate::spool::SentBy;
use crate::telemetry::Answer;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, State as Of};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;
use tracing::info;
use uuid::Uuid;

/// The largest wish, in bytes: with a body of 2 MiB as base64.
pub const WISH: usize = 3 * 1024 * 1024;
/// Most headers that a person gives.
const HEADERS: usize = 100;
/// Most characters of a user's name that are kept.
const NAME: usize = 256;

/// Why nothing was sent.
enum Unsent {
    /// No such Subscription is served here.
    NotServed,
    /// The wish cannot be understood.
    Wrong(String),
    /// It was refused, as one that comes from outside would be.
    Refused(Answer, String),
}

/// Takes wishes from the controller: `POST /log/{namespace}/subscriptions/{name}/send`.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/log/{namespace}/subscriptions/{name}/send", post(send))
        .layer(DefaultBodyLimit::max(WISH))
        .with_state(state)
}

async fn send(Of(state): Of<Arc<State>>, path: Result<Path<(String, String)>, PathRejection>, body: Bytes) -> Response {
    let said = |status: StatusCode, why: &str| (status, axum::Json(json!({ "error": why }))).into_response();
    let Ok(Path((namespace, name))) = path else { return said(StatusCode::NOT_FOUND, "there is no such page") };
    let wish: SendWish = match serde_json::from_slice(&body) {
        Ok(wish) => wish,
        Err(error) => return said(StatusCode::BAD_REQUEST, &format!("the body is no wish to send: {error}")),
    };
    match take(&state, &namespace, &name, wish).await {
        Ok(sent) => axum::Json(sent).into_response(),
        Err(Unsent::NotServed) => {
            let why = "this replica serves no Subscription of this name; its conditions say whether it is Ready";
            said(StatusCode::NOT_FOUND, why)
        }
        Err(Unsent::Wrong(why)) => said(StatusCode::BAD_REQUEST, &why),
        Err(Unsent::Refused(how, why)) => match answer::status(how) {
            StatusCode::SERVICE_UNAVAILABLE => said(StatusCode::SERVICE_UNAVAILABLE, &why),
            _ => said(StatusCode::CONFLICT, &why),
        },
    }
}

async fn take(state: &State, namespace: &str, name: &str, wish: SendWish) -> Result<Sent, Unsent> {
    let started = Instant::now();
    if !state.routes.is_synced() {
        return Err(Unsent::Refused(Answer::NotSynced, "starting; come back soon".to_owned()));
    }
    let Lookup::Served(route) = state.routes.by_name(namespace, name) else { return Err(Unsent::NotServed) };
    let by: String = wish.by.chars().take(NAME).collect();
    // Also the request's own, so that none is taken for one that was sent before.
    let id = Uuid::new_v4();
    let request = made(&route, &wish.spec, id).map_err(Unsent::Wrong)?;
    let mut seen = Seen::default();
    let taken = accept(state, &route, request, (id, &by), started, &mut seen).await;
    match taken {
        Ok((id, unsigned)) => {
            state.metrics.request(route.plugin_name(), Answer::Accepted, started.elapsed());
            info!(request = %id, namespace, subscription = name, by, signed = unsigned.is_none(), "a request was sent");
            Ok(Sent::new(&state.replica, id, unsigned))
        }
        Err(Refused(how, why)) => {
            state.metrics.request(route.plugin_name(), how, started.elapsed());
            let said = Said { message: Some(&why), note: Some(format!("sent by {by}")) };
            seen.pass(state, Outcome::Refused, (how, answer::status(how).as_u16()), started, said);
            Err(Unsent::Refused(how, why))
        }
    }
}

/// What the person wants to have sent, not signed yet; or what is wrong with it.
fn made(route: &Route, spec: &SendSpec, id: Uuid) -> Result<MadeRequest, String> {
    let plugin = route.plugin();
    let given = match (&spec.body, &spec.body_base64) {
        (Some(_), Some(_)) => return Err("spec.body and spec.bodyBase64: set one of them".to_owned()),
        (Some(text), None) => Some(Bytes::from(text.clone())),
        (None, Some(text)) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            Some(bytes.map_err(|error| format!("spec.bodyBase64: is no base64: {error}"))?.into())
        }
        (None, None) => None,
    };
    let mut request = match &spec.event {
        // Then the sample is only what the rest is taken from.
        Some(event) => match plugin.sample(event, id) {
            Err(crate::plugin::NoSample::None { .. }) if given.is_some() => MadeRequest::default(),
            sample => sample.map_err(|why| format!("spec.event: {why}"))?,
        },
        None if given.is_none() && spec.query.is_none() && spec.headers.is_empty() => {
            return Err("spec.event: name the event whose sample is to be sent, or give a body".to_owned());
        }
        None => MadeRequest::default(),
    };
    if let Some(body) = given {
        request.body = body;
        plugin.set_delivery_id(&mut request, id);
    }
    if let Some(query) = &spec.query {
        request.query.clone_from(query);
    }
    if spec.headers.len() > HEADERS {
        return Err(format!("spec.headers: there are {}; at most {HEADERS} are sent", spec.headers.len()));
    }
    for (name, value) in &spec.headers {
        let wrong = |what: &str| format!("spec.headers.{name}: is no {what} of a header");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("name"))?;
        request.headers.insert(name, HeaderValue::from_str(value).map_err(|_| wrong("value"))?);
    }
    Ok(request)
}

/// Takes a request as one that came from outside, but for the proof of who sent it where none can be made. Gives its id, and
/// why it is not signed.
async fn accept(
    state: &State,
    route: &Arc<Route>,
    request: MadeRequest,
    (id, by): (Uuid, &str),
    started: Instant,
    seen: &mut Seen,
) -> Result<(Uuid, Option<String>), Refused> {
    let plugin = route.plugin();
    let now = i64::try_from(now_millis()).unwrap_or(i64::MAX);
    // As the log shows it: with its proof, somebody could send it from outside, also when they may not send any more.
    let mut head = http::Request::new(()).into_parts().0;
    let uri = format!("/?{}", request.query).parse::<Uri>();
    head.uri = uri.map_err(|error| Refused(Answer::BadBody, format!("spec.query: is no query: {error}")))?;
    head.method = request.method.clone();
    let (request, unsigned) = match sparing(|| plugin.sign(&request, route.url(), route.secrets(), now)) {
        Ok(signed) => {
            head.headers = without_proofs(&signed.headers, &request.headers);
            (signed, None)
        }
        Err(why) => {
            head.headers = request.headers.clone();
            (request, Some(why.to_string()))
        }
    };
    seen.route = Some(route.clone());
    let head = &*seen.head.insert(head);
    if request.body.len() > state.bounds.limit {
        return Err(Refused(Answer::TooLarge, format!("the body is larger than {} bytes", state.bounds.limit)));
    }
    let body = &*seen.body.insert(request.body.clone());
    let callback = request.callback().at(now).registered(route.url());
    if unsigned.is_none() {
        sparing(|| plugin.verify(&callback, route.secrets()))
            .map_err(|refusal| Refused(Answer::Unverified, refusal.to_string()))?;
    }
    seen.verification = Some(Verification { verified: unsigned.is_none(), message: unsigned.clone() });
    seen.delivery_id = judge_sent(route, &callback)?;
    let mut stored = to_store(route, id, seen.delivery_id.clone(), (head, body), now_millis());
    stored.sent = Some(SentBy { by: by.to_owned(), unsigned: unsigned.clone() });
    // Nobody waits for a runner's answer: who sends it looks into the log.
    match store(state, route, stored, None, started).await? {
        Taken::Stored(id, ..) => Ok((id, unsigned)),
        Taken::Shaken(_) => Err(Refused(Answer::BadBody, "this is a handshake and no event".to_owned())),
    }
}

/// The headers of a request, with those masked that signing it has added or changed.
fn without_proofs(signed: &HeaderMap, before: &HeaderMap) -> HeaderMap {
    let mut shown = signed.clone();
    for (name, value) in &mut shown {
        if before.get(name) != Some(&*value) {
            *value = HeaderValue::from_static(MASK);
        }
    }
    shown
}
