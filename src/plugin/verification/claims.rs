//! What a token says, held against what the plugin expects.

use super::BASE64_URL;
use super::jwt::Jwt;
use super::place::Seen;
use crate::api::{ExpectedClaim, SignatureEncoding};
use crate::plugin::error::Refusal;
use crate::plugin::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

impl Jwt {
    /// Whether the claims are as they have to be, at the time of the request.
    pub(super) fn check_claims(
        &self,
        claims: &Map<String, Value>,
        seen: &Seen<'_>,
        secrets: &[&Secret],
    ) -> Result<(), Refusal> {
        self.check_times(claims, seen)?;
        if !self.issuer.is_empty() && !holds(claims.get("iss"), |text| self.issuer.iter().any(|known| known == text)) {
            return Err(refused("iss", "is not the issuer that the plugin names"));
        }
        match (&self.audience, claims.get("aud")) {
            (Some(expected), found) => check("aud", expected, found, seen, secrets)?,
            (None, None) => {}
            // RFC 7519, section 4.1.3.
            (None, Some(_)) => return Err(refused("aud", "names an audience, and the plugin says none")),
        }
        self.claims.iter().try_for_each(|(name, expected)| check(name, expected, claims.get(name), seen, secrets))
    }

    fn check_times(&self, claims: &Map<String, Value>, seen: &Seen<'_>) -> Result<(), Refusal> {
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            // Whole and broken seconds (RFC 7519, section 2), as milliseconds.
            Some(value) => match value.as_f64().filter(|seconds| seconds.abs() < 1e12) {
                Some(seconds) => Ok(Some((seconds * 1000.0) as i64)),
                None => Err(refused(name, "is not a number of seconds")),
            },
        };
        let (expires, begins, issued) = (time("exp")?, time("nbf")?, time("iat")?);
        let Some(now) = seen.request.received_at() else {
            return Err(refused("exp", "cannot be held against the time"));
        };
        let stale = |text: &str| Err(Refusal::Stale(format!("the token {text}")));
        if expires.is_some_and(|expires| now >= expires.saturating_add(self.tolerance)) {
            return stale("has expired");
        }
        if begins.is_some_and(|begins| now < begins.saturating_sub(self.tolerance)) {
            return stale("is not valid yet");
        }
        if issued.is_some_and(|issued| now < issued.saturating_sub(self.tolerance)) {
            return stale("is from the future");
        }
        match (self.max_age, issued) {
            (Some(_), None) => return Err(refused("iat", "is missing, which says how old the token is")),
            (Some(most), Some(issued)) if now.saturating_sub(issued) > most.saturating_add(self.tolerance) => {
                return stale("is too old");
            }
            _ => {}
        }
        if expires.is_none() && self.max_age.is_none() && !self.covers_body() {
            return Err(refused("exp", "is missing; a token without an end could be sent again for ever"));
        }
        Ok(())
    }

    fn covers_body(&self) -> bool {
        self.claims.values().any(|expected| matches!(expected, ExpectedClaim::BodySha256(_)))
    }
}

fn check(
    name: &str,
    expected: &ExpectedClaim,
    found: Option<&Value>,
    seen: &Seen<'_>,
    secrets: &[&Secret],
) -> Result<(), Refusal> {
    if found.is_none() {
        return Err(refused(name, "is missing"));
    }
    let (fits, problem) = match expected {
        ExpectedClaim::OneOf(texts) => {
            (holds(found, |text| texts.iter().any(|expected| expected == text)), "is not what the plugin expects")
        }
        ExpectedClaim::Secret(_) => {
            // Digests have one length, so the comparison tells nothing of the secret's.
            let digest = |bytes: &[u8]| Sha256::digest(bytes);
            let is = |text: &str, secret: &Secret| digest(text.as_bytes()).ct_eq(&digest(secret.expose())).into();
            (holds(found, |text| secrets.iter().any(|secret| is(text, secret))), "is not the callback secret")
        }
        ExpectedClaim::Url(_) => {
            let url = seen.request.url().ok_or(Refusal::NoUrl)?;
            (holds(found, |text| text == url), "is not the callback URL")
        }
        ExpectedClaim::BodySha256(encoding) => {
            let hash = Sha256::digest(seen.request.body());
            let is = |text: &str| decode(*encoding, text).is_some_and(|found| found == hash.as_slice());
            (holds(found, is), "is not the SHA-256 of the body")
        }
    };
    if fits { Ok(()) } else { Err(refused(name, problem)) }
}

fn decode(encoding: SignatureEncoding, text: &str) -> Option<Vec<u8>> {
    match encoding {
        SignatureEncoding::Hex => hex::decode(text).ok(),
        SignatureEncoding::Base64 => STANDARD.decode(text).ok(),
        SignatureEncoding::Base64url => BASE64_URL.decode(text).ok(),
    }
}

/// Whether a claim, or one of its values if it is a list, is a text that fits; numbers and booleans are written out.
fn holds(claim: Option<&Value>, fits: impl Fn(&str) -> bool) -> bool {
    let is = |value: &Value| match value {
        Value::String(text) => fits(text),
        Value::Number(number) => fits(&number.to_string()),
        Value::Bool(value) => fits(if *value { "true" } else { "false" }),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    };
    match claim {
        Some(Value::Array(values)) => values.iter().any(is),
        Some(value) => is(value),
        None => false,
    }
}

fn refused(claim: &str, problem: &str) -> Refusal {
    Refusal::Claim { claim: claim.to_owned(), problem: problem.to_owned() }
}
