//! Handing a callback secret that came in a handshake to the controller.

use super::Controller;
use crate::plugin::Secret;
use crate::routes::Route;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Where the controller takes captured secrets.
const SECRETS: &str = "/internal/secrets";
/// How long the controller may take: senders wait for ten seconds, and should be told to come back before that. A secret that
/// is stored all the same is known when they do.
pub(super) const DEADLINE: Duration = Duration::from_secs(8);

/// Why a handshake is not answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Uncaptured {
    /// Another secret is known already, so the sender is not the one that the webhook belongs to.
    Another,
    /// It could not be stored; the sender should come back.
    NotNow(String),
}

/// Makes sure that the controller knows the secret. What the route is served with already is known.
///
/// # Errors
/// See [`Uncaptured`].
pub async fn capture(controller: &Controller, route: &Route, secret: &Secret) -> Result<(), Uncaptured> {
    let known = route.secrets().iter().any(|known| bool::from(known.expose().ct_eq(secret.expose())));
    if known {
        return Ok(());
    }
    // Handshakes are not proven: whoever knows the URL must not be able to keep the controller busy.
    let Some(_turn) = Turn::take(&route.traffic().capturing) else {
        return Err(Uncaptured::NotNow("another secret is just being stored".to_owned()));
    };
    let Some(text) = secret.expose_str() else { return Err(Uncaptured::NotNow("the secret is not text".to_owned())) };
    let body = json!({ "uid": route.uid(), "secret": text }).to_string();
    let request = Request::post(SECRETS).header(CONTENT_TYPE, "application/json").body(Bytes::from(body));
    let request = request.map_err(|error| Uncaptured::NotNow(error.to_string()))?;
    match tokio::time::timeout(DEADLINE, controller.call(request)).await {
        Ok(Ok(answer)) if answer.status() == StatusCode::NO_CONTENT => Ok(()),
        Ok(Ok(answer)) if answer.status() == StatusCode::CONFLICT => Err(Uncaptured::Another),
        Ok(Ok(answer)) => Err(Uncaptured::NotNow(format!("the controller answered {}", answer.status()))),
        Ok(Err(error)) => Err(Uncaptured::NotNow(error.to_string())),
        Err(_) => Err(Uncaptured::NotNow(format!("the controller did not answer within {DEADLINE:?}"))),
    }
}

/// A route's one turn to ask; given back when dropped, also if the sender goes away meanwhile.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(taken: &'a AtomicBool) -> Option<Self> {
        taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).ok().map(|_| Self(taken))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
