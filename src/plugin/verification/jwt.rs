//! JSON Web Tokens (RFC 7519), signed as a compact JWS (RFC 7515).
//!
//! The key decides the algorithm, never the token: a token names one of those that the plugin allows, and a public key is
//! never the key of an HMAC. Keys and URLs that a token brings (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.

use super::hmac::{key, matches};
use super::jwk::KeySet;
use super::place::{Compiler, Place, Seen};
use super::{any_secret, timestamp};
use crate::api::{ExpectedClaim, HmacKey, JwtAlgorithm, JwtKeys, JwtVerification};
use crate::plugin::error::Refusal;
use crate::plugin::secret::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::Hmac;
use serde_json::{Map, Value};
use sha2::Sha256;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use url::{Host, Url};

/// Longest token that is read, in bytes.
const LONGEST: usize = 16 * 1024;
/// Most keys that a token without `kid` is tried with: each costs a signature.
const TRIED: usize = 8;
/// Claims that have fields of their own.
const OWN: [&str; 5] = ["iss", "aud", "exp", "nbf", "iat"];

/// A compiled verification by a token.
#[derive(Debug)]
pub(crate) struct Jwt {
    place: Place,
    prefix: String,
    algorithms: Vec<JwtAlgorithm>,
    key: HmacKey,
    keys: Option<Keys>,
    pub(super) issuer: Vec<String>,
    pub(super) audience: Option<ExpectedClaim>,
    pub(super) claims: BTreeMap<String, ExpectedClaim>,
    /// In milliseconds, as `tolerance`.
    pub(super) max_age: Option<i64>,
    pub(super) tolerance: i64,
}

#[derive(Debug)]
enum Keys {
    At(String),
    Here(KeySet),
}

impl Jwt {
    pub(super) fn compile(field: &str, settings: &JwtVerification, compiler: &mut Compiler<'_>) -> Self {
        let place = compiler.place(field, settings.header.as_ref(), settings.query.as_ref(), settings.field.as_ref());
        let secret = settings.algorithms.contains(&JwtAlgorithm::Hs256);
        if settings.algorithms.is_empty() {
            compiler.mistake(&format!("{field}.algorithms"), "is empty; say with which a token may be signed");
        }
        if secret && settings.algorithms.iter().any(|algorithm| *algorithm != JwtAlgorithm::Hs256) {
            let problem = "a public key must not be the key of an HMAC; write a verification of its own for HS256";
            compiler.mistake(&format!("{field}.algorithms"), problem);
        }
        if secret && settings.keys.is_some() {
            compiler.mistake(&format!("{field}.keys"), "the key of HS256 is the callback secret; leave `keys` out");
        }
        if !secret && settings.key != HmacKey::default() {
            compiler.mistake(&format!("{field}.key"), "is of HS256 alone; leave it out");
        }
        let keys = settings.keys.as_ref().and_then(|keys| compile_keys(field, keys, &settings.algorithms, compiler));
        if !secret && settings.keys.is_none() {
            compiler.mistake(&format!("{field}.keys"), "is missing; say where the public keys are");
        }
        let expected = settings.audience.iter().chain(settings.claims.values());
        if !secret && expected.clone().next().is_none() {
            let problem =
                "is missing: a token that the issuer has made for somebody else would be accepted; set it, or a claim";
            compiler.mistake(&format!("{field}.audience"), problem);
        }
        for (name, expected) in &settings.claims {
            let field = format!("{field}.claims.{name}");
            if OWN.contains(&name.as_str()) {
                compiler
                    .mistake(&field, "is not looked at here; iss and aud have fields of their own, times are checked");
            }
            check_expected(&field, expected, compiler);
        }
        if let Some(audience) = &settings.audience {
            check_expected(&format!("{field}.audience"), audience, compiler);
        }
        Self {
            place,
            prefix: settings.prefix.clone(),
            algorithms: settings.algorithms.clone(),
            key: settings.key.clone(),
            keys,
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            claims: settings.claims.clone(),
            max_age: settings.max_age.map(timestamp::millis),
            tolerance: timestamp::millis(settings.tolerance),
        }
    }

    /// Where the token stands.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whether the callback secret proves anything here.
    pub(super) fn needs_secret(&self) -> bool {
        self.keys.is_none() || self.expected().any(|expected| matches!(expected, ExpectedClaim::Secret(_)))
    }

    /// Whether the callback URL as it was registered is part of what is checked.
    pub(super) fn needs_url(&self) -> bool {
        self.expected().any(|expected| matches!(expected, ExpectedClaim::Url(_)))
    }

    /// Where the public keys are fetched.
    pub(super) fn jwks_url(&self) -> Option<&str> {
        match &self.keys {
            Some(Keys::At(url)) => Some(url),
            Some(Keys::Here(_)) | None => None,
        }
    }

    fn expected(&self) -> impl Iterator<Item = &ExpectedClaim> {
        self.audience.iter().chain(self.claims.values())
    }

    pub(super) fn verify(&self, seen: &Seen<'_>, secrets: &[&Secret]) -> Result<(), Refusal> {
        let value = self.place.read(seen)?;
        let token = value.strip_prefix(self.prefix.as_bytes());
        let token = token.ok_or_else(|| self.place.malformed(format!("does not begin with {}", self.prefix)))?;
        let token = Token::read(token).map_err(|problem| self.place.malformed(problem))?;
        let Some(algorithm) = self.algorithms.iter().copied().find(|algorithm| algorithm.name() == token.algorithm)
        else {
            return Err(self.place.malformed("is signed with an algorithm that the plugin does not allow"));
        };
        self.check_signature(&token, algorithm, seen, secrets)?;
        self.check_claims(&token.claims, seen, secrets)
    }

    fn check_signature(
        &self,
        token: &Token<'_>,
        algorithm: JwtAlgorithm,
        seen: &Seen<'_>,
        secrets: &[&Secret],
    ) -> Result<(), Refusal> {
        let fetched;
        let keys = match (&self.keys, algorithm) {
            (None, JwtAlgorithm::Hs256) => {
                let (parts, signature) = ([Cow::Borrowed(token.signed)], [&token.signature]);
                let proves = |key: &Cow<'_, [u8]>| matches::<Hmac<Sha256>>(key, &parts, &signature);
                return any_secret(secrets, || self.place.name(), |secret| key(&self.key, secret), proves);
            }
            (Some(Keys::Here(keys)), _) => keys,
            (Some(Keys::At(url)), _) => {
                fetched = seen.request.keys(url).ok_or(Refusal::NoKeys)?;
                &*fetched
            }
            (None, _) => return Err(Refusal::NoKeys),
        };
        let mut candidates = keys.candidates(algorithm, token.key_id.as_deref()).take(TRIED).peekable();
        if candidates.peek().is_none() {
            if let Some(Keys::At(url)) = &self.keys {
                seen.request.misses_key(url);
            }
            return Err(Refusal::UnknownKey);
        }
        match candidates.any(|key| key.proves(token.signed, &token.signature)) {
            true => Ok(()),
            false => Err(Refusal::Mismatch(self.place.name())),
        }
    }
}

fn compile_keys(field: &str, keys: &JwtKeys, algorithms: &[JwtAlgorithm], compiler: &mut Compiler<'_>) -> Option<Keys> {
    match (&keys.jwks_url, &keys.jwks) {
        (Some(url), None) => match check_url(url) {
            Ok(()) => return Some(Keys::At(url.clone())),
            Err(problem) => compiler.mistake(&format!("{field}.keys.jwksURL"), problem),
        },
        (None, Some(set)) => {
            let field = format!("{field}.keys.jwks");
            match KeySet::read(Value::Object(set.clone()).to_string().as_bytes()) {
                Ok(set) => {
                    let lacks = algorithms.iter().find(|algorithm| !set.has(**algorithm));
                    if let Some(lacks) = lacks {
                        compiler.mistake(&field, format!("has no key for {}", lacks.name()));
                    }
                    return Some(Keys::Here(set));
                }
                Err(problem) => compiler.mistake(&field, problem),
            }
        }
        _ => compiler.mistake(&format!("{field}.keys"), "set exactly one of jwksURL and jwks"),
    }
    None
}

/// Keys that come unprotected could be anybody's.
fn check_url(text: &str) -> Result<(), String> {
    let url: Url = text.parse().map_err(|error| format!("is no URL: {error}"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if loopback => {}
        _ => return Err("must begin with https://, or with http:// and an address of loopback".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must have no user, no password and no fragment".to_owned());
    }
    Ok(())
}

fn check_expected(field: &str, expected: &ExpectedClaim, compiler: &mut Compiler<'_>) {
    if let ExpectedClaim::OneOf(texts) = expected
        && (texts.is_empty() || texts.len() > 20 || texts.iter().any(String::is_empty))
    {
        compiler.mistake(&format!("{field}.oneOf"), "has 1 to 20 texts, none of which is empty");
    }
}

/// A token as it was sent: nothing of it is proven.
struct Token<'a> {
    algorithm: String,
    key_id: Option<String>,
    signed: &'a [u8],
    signature: Vec<u8>,
    claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    fn read(token: &'a [u8]) -> Result<Self, &'static str> {
        if token.len() > LONGEST {
            return Err("is longer than any token that is read");
        }
        let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err("is no token: it has not three parts with points in between");
        };
        let header = object(header).ok_or("is no token: its first part is no JSON object in base64url")?;
        let claims = object(payload).ok_or("is no token: its second part is no JSON object in base64url")?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "is no token: its signature is not base64url")?;
        if signature.is_empty() {
            return Err("is not signed");
        }
        // What must be understood and is not (RFC 7515, section 4.1.11).
        if header.contains_key("crit") {
            return Err("asks for extensions of JWS, of which none is known");
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        let algorithm = text("alg").ok_or("does not say how it is signed")?;
        if header.contains_key("kid") && text("kid").is_none() {
            return Err("has a key id that is no text");
        }
        let signed = &token[..token.len() - parts[2].len() - 1];
        Ok(Self { algorithm, key_id: text("kid"), signed, signature, claims })
    }
}

fn object(part: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
