//! Proofs of who sent a request.

use super::error::{Mistake, Refusal};
use super::request::CallbackRequest;
use super::secret::Secret;
use crate::api::{HmacAlgorithm, SignatureEncoding, Verification};
use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// Checks the header's name of a verification, the value of `field`.
pub(crate) fn check(field: &str, verification: &Verification) -> Option<Mistake> {
    let (kind, name) = match verification {
        Verification::Hmac(hmac) => ("hmac", &hmac.header),
        Verification::Token(token) => ("token", &token.header),
        Verification::None(_) => return None,
    };
    http::HeaderName::from_bytes(name.as_bytes())
        .err()
        .map(|_| Mistake::new(format!("{field}.{kind}.header"), format!("{name:?} is no header name")))
}

/// Verifies a request: any of the verifications, with any of the secrets.
///
/// # Errors
/// Why the verification failed that came furthest.
pub(crate) fn verify(
    verifications: &[Verification],
    request: &CallbackRequest<'_>,
    secrets: &[Secret],
) -> Result<(), Refusal> {
    let mut refusal = Refusal::NoSecret;
    for verification in verifications {
        match verify_one(verification, request, secrets) {
            Ok(()) => return Ok(()),
            Err(found) if found.rank() >= refusal.rank() => refusal = found,
            Err(_) => {}
        }
    }
    Err(refusal)
}

fn verify_one(verification: &Verification, request: &CallbackRequest<'_>, secrets: &[Secret]) -> Result<(), Refusal> {
    let (header, prefix) = match verification {
        Verification::None(_) => return Ok(()),
        Verification::Hmac(hmac) => (&hmac.header, &hmac.prefix),
        Verification::Token(token) => (&token.header, &token.prefix),
    };
    // With an empty secret everybody could sign.
    let mut secrets = secrets.iter().filter(|secret| !secret.is_empty()).peekable();
    if secrets.peek().is_none() {
        return Err(Refusal::NoSecret);
    }
    let value = match request.header(header).as_slice() {
        [] => return Err(Refusal::MissingHeader(header.clone())),
        [value] => *value,
        _ => return Err(Refusal::RepeatedHeader(header.clone())),
    };
    let malformed = |problem: String| Refusal::Malformed { header: header.clone(), problem };
    let proof =
        value.strip_prefix(prefix.as_bytes()).ok_or_else(|| malformed(format!("does not begin with {prefix}")))?;
    if proof.is_empty() {
        return Err(malformed("is empty".to_owned()));
    }
    let matches = match verification {
        Verification::Hmac(hmac) => {
            let signature = match hmac.encoding {
                SignatureEncoding::Hex => hex::decode(proof).map_err(|_| malformed("is not hexadecimal".to_owned()))?,
                SignatureEncoding::Base64 => base64::engine::general_purpose::STANDARD
                    .decode(proof)
                    .map_err(|_| malformed("is not base64".to_owned()))?,
            };
            let expected = match hmac.algorithm {
                HmacAlgorithm::Sha1 => 20,
                HmacAlgorithm::Sha256 => 32,
                HmacAlgorithm::Sha512 => 64,
            };
            if signature.len() != expected {
                return Err(malformed(format!("holds {} bytes instead of {expected}", signature.len())));
            }
            let body = request.body();
            secrets.any(|secret| match hmac.algorithm {
                HmacAlgorithm::Sha1 => signed::<Hmac<Sha1>>(secret, body, &signature),
                HmacAlgorithm::Sha256 => signed::<Hmac<Sha256>>(secret, body, &signature),
                HmacAlgorithm::Sha512 => signed::<Hmac<Sha512>>(secret, body, &signature),
            })
        }
        // Digests have one length, so the comparison tells nothing of the secret's.
        Verification::Token(_) | Verification::None(_) => {
            let found = Sha256::digest(proof);
            secrets.any(|secret| bool::from(found.as_slice().ct_eq(Sha256::digest(secret.expose()).as_slice())))
        }
    };
    if matches { Ok(()) } else { Err(Refusal::Mismatch(header.clone())) }
}

fn signed<M: Mac + KeyInit>(secret: &Secret, body: &[u8], signature: &[u8]) -> bool {
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(secret.expose()) else { return false };
    mac.update(body);
    mac.verify_slice(signature).is_ok()
}
