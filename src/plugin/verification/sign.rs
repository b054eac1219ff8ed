//! Signs a request that is made up here as the external system would sign it: the other side of each verification whose key
//! Bellhop has. What was signed is verified before it is believed to be.

use super::hmac::{self, HmacVerifier};
use super::place::{Place, Seen};
use super::standard_webhooks::StandardWebhooks;
use super::timestamp::{self, Timestamp};
use super::token::TokenVerifier;
use super::{BASE64_KEY, Verifier};
use crate::api::{HmacAlgorithm, SignatureEncoding};
use crate::plugin::cel::Expression;
use crate::plugin::sample::MadeRequest;
use crate::plugin::secret::Secret;
use ::hmac::{Hmac, KeyInit, Mac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use std::borrow::Cow;
use uuid::Uuid;

/// Why a request cannot be signed here; a line for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsigned(pub(crate) String);

/// What else a signature is made of.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    /// The field of a form that carries JSON, for expressions over `body`.
    pub(crate) payload_field: Option<&'a str>,
    /// The callback URL as it was registered.
    pub(crate) url: Option<&'a str>,
    /// Now, in Unix milliseconds.
    pub(crate) now: i64,
}

/// The request with a proof of its sender: by the first verification for which one can be made with the secrets.
///
/// # Errors
/// None can be made; why the last one cannot.
pub(crate) fn sign_request(
    verifiers: &[Verifier],
    request: &MadeRequest,
    facts: Facts<'_>,
    secrets: &[Secret],
) -> Result<MadeRequest, Unsigned> {
    let mut why = unsigned("the plugin has no verification");
    for verifier in verifiers {
        let mut signed = request.clone();
        if let Err(reason) = write(verifier, &mut signed, facts, secrets) {
            why = reason;
            continue;
        }
        let callback = signed.callback().at(facts.now).registered(facts.url);
        match verifier.verify(&Seen::new(&callback, facts.payload_field), secrets) {
            Ok(()) => return Ok(signed),
            Err(refusal) => why = Unsigned(format!("a signature that is made here does not verify: {refusal}")),
        }
    }
    Err(why)
}

fn unsigned(why: &str) -> Unsigned {
    Unsigned(why.to_owned())
}

fn write(verifier: &Verifier, request: &mut MadeRequest, facts: Facts<'_>, secrets: &[Secret]) -> Result<(), Unsigned> {
    if verifier.is_none() {
        return Ok(());
    }
    let secret = secrets.iter().find(|secret| !secret.is_empty());
    let secret = secret.ok_or_else(|| unsigned("no callback secret is known"))?;
    match verifier {
        Verifier::Hmac(hmac) => by_hmac(hmac, request, facts, secret),
        Verifier::StandardWebhooks(settings) => by_standard_webhooks(settings, request, facts, secret),
        Verifier::Token(token) => by_token(token, request, facts, secret),
        Verifier::PublicKey(_) => {
            Err(unsigned("the plugin verifies by a public key, whose private key only the external system has"))
        }
        // Whatever else proves a sender is not to be had here.
        _ => Err(unsigned("what the plugin verifies by can only be made by the external system")),
    }
}

fn by_hmac(hmac: &HmacVerifier, request: &mut MadeRequest, facts: Facts<'_>, secret: &Secret) -> Result<(), Unsigned> {
    let timestamp = hmac.timestamp.as_ref().map(|timestamp| write_time(timestamp, request, facts)).transpose()?;
    let key =
        hmac::key(&hmac.key, secret).ok_or_else(|| unsigned("the callback secret is no key as the plugin has it"))?;
    let signature = {
        let callback = request.callback().at(facts.now).registered(facts.url);
        let seen = Seen::new(&callback, facts.payload_field);
        let parts = hmac.signed.parts(&seen, timestamp.as_deref()).map_err(|refusal| Unsigned(refusal.to_string()))?;
        match hmac.algorithm {
            HmacAlgorithm::Sha1 => mac::<Hmac<Sha1>>(&key, &parts),
            HmacAlgorithm::Sha256 => mac::<Hmac<Sha256>>(&key, &parts),
            HmacAlgorithm::Sha512 => mac::<Hmac<Sha512>>(&key, &parts),
        }
    };
    let mut value = format!("{}{}", hmac.prefix, encoded(hmac.encoding, &signature));
    if let Some(list) = &hmac.list {
        if let Some(key) = &list.key {
            value = format!("{key}{}{value}", list.assignment);
        }
        if let (Some(Timestamp { place: timestamp::Place::Element(key), .. }), Some(time)) =
            (&hmac.timestamp, &timestamp)
        {
            value = format!("{key}{}{time}{}{value}", list.assignment, list.separator);
        }
    }
    put(&hmac.place, request, facts, &value)
}

/// Puts the timestamp where it belongs, unless that is in the signature itself, and gives it.
fn write_time(timestamp: &Timestamp, request: &mut MadeRequest, facts: Facts<'_>) -> Result<String, Unsigned> {
    let text = timestamp.written(facts.now);
    match &timestamp.place {
        timestamp::Place::Header(name) => request.set_header(name, &text)?,
        timestamp::Place::Element(_) => {}
        timestamp::Place::Field(expression) => set(expression, request, facts, &text)?,
    }
    Ok(text)
}

fn by_standard_webhooks(
    settings: &StandardWebhooks,
    request: &mut MadeRequest,
    facts: Facts<'_>,
    secret: &Secret,
) -> Result<(), Unsigned> {
    let text = secret.expose();
    if text.starts_with(b"whpk_") {
        return Err(unsigned("the callback secret is a public key, whose private key only the external system has"));
    }
    let key = BASE64_KEY.decode(text.strip_prefix(b"whsec_").unwrap_or(text)).ok().filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| unsigned("the callback secret is no key of Standard Webhooks"))?;
    let id = match request.header(&settings.id) {
        Some(id) => id,
        None => {
            let id = format!("msg_{}", Uuid::new_v4().simple());
            request.set_header(&settings.id, &id)?;
            id
        }
    };
    let time = write_time(&settings.timestamp, request, facts)?;
    let parts = [id.as_bytes(), b".", time.as_bytes(), b".", &request.body[..]].map(Cow::Borrowed);
    let signature = format!("v1,{}", STANDARD.encode(mac::<Hmac<Sha256>>(&key, &parts)));
    request.set_header(&settings.signature, &signature)
}

fn by_token(
    token: &TokenVerifier,
    request: &mut MadeRequest,
    facts: Facts<'_>,
    secret: &Secret,
) -> Result<(), Unsigned> {
    let text = secret.expose_str().ok_or_else(|| unsigned("the callback secret is no text"))?;
    let value = match token.basic {
        true => format!("Basic {}", STANDARD.encode(format!("bellhop:{text}"))),
        false => format!("{}{text}", token.prefix),
    };
    put(&token.place, request, facts, &value)
}

fn put(place: &Place, request: &mut MadeRequest, facts: Facts<'_>, value: &str) -> Result<(), Unsigned> {
    match place {
        Place::Header(name) => request.set_header(name, value),
        Place::Query(name) => {
            request.set_query(name, value);
            Ok(())
        }
        Place::Field(expression) => set(expression, request, facts, value),
    }
}

/// Puts a value where an expression looks for it, if all that it does is look somewhere.
fn set(expression: &Expression, request: &mut MadeRequest, facts: Facts<'_>, value: &str) -> Result<(), Unsigned> {
    if let Some(name) = expression.header() {
        return request.set_header(name, value);
    }
    let path = expression.body_path();
    let path = path.ok_or_else(|| Unsigned(format!("where `{}` looks cannot be written to", expression.source())))?;
    request.set_in_body(path, value, facts.payload_field)
}

fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[Cow<'_, [u8]>]) -> Vec<u8> {
    // Keys of an HMAC have any length; an empty one has been refused.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else { return Vec::new() };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

fn encoded(encoding: SignatureEncoding, signature: &[u8]) -> String {
    match encoding {
        SignatureEncoding::Hex => hex::encode(signature),
        SignatureEncoding::Base64 => STANDARD.encode(signature),
        SignatureEncoding::Base64url => URL_SAFE_NO_PAD.encode(signature),
    }
}
