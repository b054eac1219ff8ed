//! What would become of a request, without a listener, a disk and a controller: for those who write plugins.

use super::judge::{self, Judged, judge, to_store};
use super::{answer, request_id};
use crate::log::model::Verification;
use crate::plugin::Secret;
use crate::routes::Route;
use crate::spool::Request as Stored;
use crate::telemetry::Answer;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use http::Request;
use http_body_util::BodyExt;
use subtle::ConstantTimeEq;

/// What would become of a request.
#[derive(Debug)]
pub struct Rehearsal {
    /// What the sender would be told.
    pub answer: http::Response<Bytes>,
    /// How the sender was proven; nothing if that was not asked.
    pub verification: Option<Verification>,
    /// What would be stored, and is then held against the triggers: see [`match_request`](crate::delivery::match_request).
    pub stored: Option<Stored>,
}

/// Takes a request that was received at `now` (Unix milliseconds) the way that the public listener does, with a disk that
/// always works and a controller that stores every secret, unless the route has another one. It may come from anywhere, and no
/// public keys are fetched.
pub fn rehearse(route: &Route, request: Request<Bytes>, now: u64) -> Rehearsal {
    let (parts, body) = request.into_parts();
    let (mut verification, mut secret) = (None, None);
    let judged = judge::check_encoding(&parts.headers)
        .and_then(|()| judge(route, (&parts, &body), now, None, &mut verification, &mut secret));
    let mut stored = None;
    let response = match judged {
        Err(refused) => answer::refused(refused.0, &refused.1),
        Ok(Judged::Handshake(reply)) if reply.secret.as_ref().is_some_and(|secret| contradicts(route, secret)) => {
            answer::refused(Answer::Unverified, "the handshake brings another secret than the one that is known")
        }
        Ok(Judged::Handshake(reply)) => answer::shaken(reply),
        Ok(Judged::Event { delivery_id, reply }) => {
            let id = request_id(route.uid(), delivery_id.as_deref(), &body);
            stored = Some(to_store(route, id, delivery_id, (&parts, &body), now));
            // No runner answers here.
            match reply {
                Some(reply) => answer::written(reply.status, reply.headers, reply.body),
                None => answer::stored(id, Answer::Accepted),
            }
        }
    };
    Rehearsal { answer: whole(response), verification, stored }
}

/// Whether another secret is known already.
fn contradicts(route: &Route, secret: &Secret) -> bool {
    let known = |known: &Secret| bool::from(known.expose().ct_eq(secret.expose()));
    !route.secrets().is_empty() && !route.secrets().iter().any(known)
}

/// An answer with its body, which is there without waiting.
fn whole(response: Response) -> http::Response<Bytes> {
    let (parts, body) = response.into_parts();
    let body = body.collect().now_or_never().and_then(Result::ok);
    http::Response::from_parts(parts, body.map(|body| body.to_bytes()).unwrap_or_default())
}
