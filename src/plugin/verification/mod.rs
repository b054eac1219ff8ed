//! Proofs of who sent a request.

mod claims;
mod hmac;
mod jwk;
mod jwt;
mod place;
mod public_key;
mod sign;
mod signed;
mod standard_webhooks;
mod timestamp;
mod token;

use super::cel::{Expression, Scope};
use super::error::{Mistake, Refusal};
use super::request::CallbackRequest;
use super::secret::Secret;
use crate::api::{SignatureEncoding, Verification};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};
pub(crate) use hmac::sign;
pub use jwk::KeySet;
use place::Seen;

pub use sign::Unsigned;
pub(crate) use sign::{Facts, sign_request};

/// Base64 as keys are written: some leave the padding out.
const BASE64_KEY: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);
const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A compiled verification.
#[derive(Debug)]
pub(crate) enum Verifier {
    Hmac(hmac::HmacVerifier),
    StandardWebhooks(standard_webhooks::StandardWebhooks),
    PublicKey(public_key::PublicKeyVerifier),
    Token(token::TokenVerifier),
    Jwt(jwt::Jwt),
    None,
}

/// Compiles expressions of a verification and notes what is wrong.
pub(crate) trait Compile {
    /// An expression over `request` and `body`.
    fn expression(&mut self, field: &str, source: &str, scope: &Scope) -> Expression;
    /// Notes a mistake.
    fn mistake(&mut self, mistake: Mistake);
}

impl Verifier {
    /// Compiles the verification that is the value of `field`, over the variables of `scope`.
    pub(crate) fn compile(field: &str, verification: &Verification, scope: &Scope, to: &mut dyn Compile) -> Self {
        let mut compiler = place::Compiler { scope, to };
        match verification {
            Verification::Hmac(hmac) => {
                Self::Hmac(hmac::HmacVerifier::compile(&format!("{field}.hmac"), hmac, &mut compiler))
            }
            Verification::StandardWebhooks(settings) => {
                let field = format!("{field}.standardWebhooks");
                Self::StandardWebhooks(standard_webhooks::StandardWebhooks::compile(&field, settings, &mut compiler))
            }
            Verification::PublicKey(settings) => {
                let field = format!("{field}.publicKey");
                Self::PublicKey(public_key::PublicKeyVerifier::compile(&field, settings, &mut compiler))
            }
            Verification::Token(token) => {
                Self::Token(token::TokenVerifier::compile(&format!("{field}.token"), token, &mut compiler))
            }
            Verification::Jwt(settings) => {
                Self::Jwt(jwt::Jwt::compile(&format!("{field}.jwt"), settings, &mut compiler))
            }
            Verification::None(_) => Self::None,
        }
    }

    /// Whether nothing is proven.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether the callback URL as it was registered is part of what is signed.
    pub(crate) fn needs_url(&self) -> bool {
        match self {
            Self::Hmac(hmac) => hmac.signed.needs_url(),
            Self::PublicKey(key) => key.signed.needs_url(),
            Self::Jwt(jwt) => jwt.needs_url(),
            Self::StandardWebhooks(_) | Self::Token(_) | Self::None => false,
        }
    }

    /// Whether the callback secret has a part in the proof.
    pub(crate) fn needs_secret(&self) -> bool {
        match self {
            Self::Jwt(jwt) => jwt.needs_secret(),
            Self::Hmac(_) | Self::StandardWebhooks(_) | Self::PublicKey(_) | Self::Token(_) => true,
            Self::None => false,
        }
    }

    /// Where public keys are fetched that it needs.
    pub(crate) fn jwks_url(&self) -> Option<&str> {
        match self {
            Self::Jwt(jwt) => jwt.jwks_url(),
            _ => None,
        }
    }

    /// Names, in lower case, of the headers that carry the callback secret itself, or a token that could be sent again.
    pub(crate) fn secret_headers(&self) -> Vec<String> {
        match self {
            Self::Token(token) => token.place().headers(),
            Self::Jwt(jwt) => jwt.place().headers(),
            _ => Vec::new(),
        }
    }

    /// Name of the query parameter that carries the callback secret itself, or a token that could be sent again.
    pub(crate) fn secret_query(&self) -> Option<&str> {
        match self {
            Self::Token(token) => token.place().query(),
            Self::Jwt(jwt) => jwt.place().query(),
            _ => None,
        }
    }

    fn verify(&self, seen: &Seen<'_>, secrets: &[Secret]) -> Result<(), Refusal> {
        if self.is_none() {
            return Ok(());
        }
        // With an empty secret everybody could sign.
        let secrets: Vec<&Secret> = secrets.iter().filter(|secret| !secret.is_empty()).collect();
        if secrets.is_empty() && self.needs_secret() {
            return Err(Refusal::NoSecret);
        }
        match self {
            Self::Hmac(hmac) => hmac.verify(seen, &secrets),
            Self::StandardWebhooks(settings) => settings.verify(seen, &secrets),
            Self::PublicKey(key) => key.verify(seen, &secrets),
            Self::Token(token) => token.verify(seen, &secrets),
            Self::Jwt(jwt) => jwt.verify(seen, &secrets),
            Self::None => Ok(()),
        }
    }
}

/// Verifies a request: any of the verifications, with any of the secrets. `payload_field` is the field of a form that
/// carries JSON, for expressions over `body`; `tokens_are_signed` says whether a handshake signs tokens for everybody.
///
/// # Errors
/// Why the verification failed that came furthest.
pub(crate) fn verify(
    verifiers: &[Verifier],
    request: &CallbackRequest<'_>,
    payload_field: Option<&str>,
    tokens_are_signed: bool,
    secrets: &[Secret],
) -> Result<(), Refusal> {
    let seen = Seen::new(request, payload_field).with_signed_tokens(tokens_are_signed);
    let mut refusal = Refusal::NoSecret;
    for verifier in verifiers {
        match verifier.verify(&seen, secrets) {
            Ok(()) => return Ok(()),
            Err(found) if found.rank() >= refusal.rank() => refusal = found,
            Err(_) => {}
        }
    }
    Err(refusal)
}

/// Whether any of the secrets proves what stands at `place`: `read` makes a key of a secret, if it is one, and `proves` asks
/// the key.
///
/// # Errors
/// None of the secrets is a key, or no key proves it.
fn any_secret<'s, K>(
    secrets: &[&'s Secret],
    place: impl FnOnce() -> String,
    read: impl Fn(&'s Secret) -> Option<K>,
    proves: impl Fn(&K) -> bool,
) -> Result<(), Refusal> {
    let mut usable = false;
    for key in secrets.iter().filter_map(|secret| read(secret)) {
        usable = true;
        if proves(&key) {
            return Ok(());
        }
    }
    Err(if usable { Refusal::Mismatch(place()) } else { Refusal::UnusableSecret })
}

/// Decodes a signature or a public key; otherwise what it is not.
fn decode(encoding: SignatureEncoding, text: &[u8]) -> Result<Vec<u8>, &'static str> {
    match encoding {
        SignatureEncoding::Hex => hex::decode(text).map_err(|_| "is not hexadecimal"),
        SignatureEncoding::Base64 => general_purpose::STANDARD.decode(text).map_err(|_| "is not base64"),
        SignatureEncoding::Base64url => BASE64_URL.decode(text).map_err(|_| "is not base64 for URLs"),
    }
}
