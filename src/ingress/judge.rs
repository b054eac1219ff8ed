//! What a request at a callback URL is, and whether it is taken: decided from the request, its route and the time alone.

use crate::log::model::{MASK, Verification};
use crate::plugin::{CallbackReply, CallbackRequest, HandshakeReply, PublicKeys, Refusal, Secret, sparing};
use crate::routes::Route;
use crate::spool::Request as Stored;
use crate::telemetry::Answer;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use tracing::debug;
use uuid::Uuid;

/// Most bytes of header names and values that are stored with a request; further fields are left out.
const STORED_HEADERS: usize = 32 * 1024;
/// Longest delivery id that is stored as it is, in bytes.
const LONGEST_ID: usize = 256;
/// Header fields whose values are never stored, because they carry credentials.
const SECRET_HEADERS: [header::HeaderName; 3] = [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE];

/// A refusal: how it is answered and counted, and why.
pub(super) struct Refused(pub(super) Answer, pub(super) String);

/// What a request is that is not refused.
pub(super) enum Judged {
    /// A handshake, with its answer. A secret that it brings has to be stored before.
    Handshake(HandshakeReply),
    /// Something that may have happened, from a sender that is proven. It has to be stored.
    Event {
        /// The external system's own id of the request, if it has one.
        delivery_id: Option<String>,
        /// How the plugin wants it to be answered, if it has a wish.
        reply: Option<CallbackReply>,
    },
}

/// Judges a request that was received at `now` (Unix milliseconds), with the public `keys` that were fetched. Whatever comes
/// out, `verification` is how its sender was proven, if that was asked, and `secret` is a callback secret that it brought.
///
/// # Errors
/// It is refused.
pub(super) fn judge(
    route: &Route,
    request: (&Parts, &Bytes),
    now: u64,
    keys: Option<&(dyn PublicKeys + Sync)>,
    verification: &mut Option<Verification>,
    secret: &mut Option<Secret>,
) -> Result<Judged, Refused> {
    // The sender waits, and so do others on this thread.
    sparing(|| judge_now(route, request, now, keys, verification, secret))
}

fn judge_now(
    route: &Route,
    (parts, body): (&Parts, &Bytes),
    now: u64,
    keys: Option<&(dyn PublicKeys + Sync)>,
    verification: &mut Option<Verification>,
    secret: &mut Option<Secret>,
) -> Result<Judged, Refused> {
    let query = parts.uri.query().unwrap_or_default();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let callback = CallbackRequest::new(parts.method.as_str(), query, &parts.headers, body);
    let callback = callback.at(now).registered(route.url());
    let callback = keys.map_or(callback, |keys| callback.with_keys(keys));
    let plugin = route.plugin();
    let mut verify = || {
        let proof = plugin.verify(&callback, route.secrets());
        let message = proof.as_ref().err().map(ToString::to_string);
        *verification = Some(Verification { verified: proof.is_ok(), message });
        proof.map_err(|refusal| unproven(route, &refusal))
    };
    if let Some(reply) = plugin.handshake(&callback, route.secrets()) {
        secret.clone_from(&reply.secret);
        if reply.verified {
            verify()?;
        }
        return Ok(Judged::Handshake(reply));
    }
    verify()?;
    let delivery_id = delivery_id(route, &callback)?;
    let reply = plugin.answer(&callback).unwrap_or_else(|error| {
        debug!(subscription = %route.uid(), %error, "the request is answered as if the plugin had no answer");
        None
    });
    Ok(Judged::Event { delivery_id, reply })
}

/// Judges a request that a person has sent here and that is signed, or cannot be. Gives the external system's own id of it.
///
/// # Errors
/// It is refused.
pub(super) fn judge_sent(route: &Route, callback: &CallbackRequest<'_>) -> Result<Option<String>, Refused> {
    sparing(|| {
        if route.plugin().handshake(callback, route.secrets()).is_some() {
            let why = "this is a handshake, by which the external system tries the callback URL, and no event";
            return Err(Refused(Answer::BadBody, why.to_owned()));
        }
        delivery_id(route, callback)
    })
}

/// The external system's own id of a request that is no handshake, if it has one and its body can be read.
fn delivery_id(route: &Route, callback: &CallbackRequest<'_>) -> Result<Option<String>, Refused> {
    let plugin = route.plugin();
    plugin.check_body(callback).map_err(|error| Refused(Answer::BadBody, error.to_string()))?;
    let id = plugin.delivery_id(callback).unwrap_or_else(|error| {
        debug!(subscription = %route.uid(), %error, "no delivery id; the body's hash stands in for it");
        None
    });
    Ok(id.map(shorten))
}

/// Nothing is believed that is not proven. Where the secret or the keys that would prove it are on their way, the
/// sender is to come back.
fn unproven(route: &Route, refusal: &Refusal) -> Refused {
    match refusal {
        Refusal::NoSecret | Refusal::Mismatch(_) | Refusal::UnusableSecret if route.awaits_secret() => {
            Refused(Answer::Uncaptured, format!("{refusal}; another secret is still to be told, come back soon"))
        }
        Refusal::NoKeys => Refused(Answer::Uncaptured, format!("{refusal}; come back soon")),
        _ => Refused(Answer::Unverified, refusal.to_string()),
    }
}

/// An id that is taken from the body can be as long as the body; then its hash does.
fn shorten(id: String) -> String {
    if id.len() <= LONGEST_ID { id } else { format!("sha256:{}", hex::encode(Sha256::digest(id.as_bytes()))) }
}

/// A compressed body could grow beyond every limit, so none is accepted.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Refused> {
    let identity = |value: &http::HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    match headers.get_all(header::CONTENT_ENCODING).iter().all(identity) {
        true => Ok(()),
        false => Err(Refused(Answer::Encoding, "send the body without content-encoding".to_owned())),
    }
}

/// What is stored of a request that is an event.
pub(super) fn to_store(
    route: &Route,
    id: Uuid,
    delivery_id: Option<String>,
    (parts, body): (&Parts, &Bytes),
    now: u64,
) -> Stored {
    Stored {
        id,
        subscription: route.uid(),
        namespace: route.namespace().to_string(),
        name: route.name().to_owned(),
        received_at: now,
        delivery_id,
        method: parts.method.as_str().to_owned(),
        query: stored_query(parts.uri.query().unwrap_or_default(), route.secret_queries()),
        headers: stored_headers(&parts.headers, route),
        sent: None,
        body: body.clone(),
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
