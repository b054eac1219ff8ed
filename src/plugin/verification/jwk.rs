//! Public keys as JSON Web Keys (RFC 7517).

use super::BASE64_URL;
use crate::api::JwtAlgorithm;
use base64::Engine as _;
use ring::signature::{ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;
use std::fmt;

/// Largest set that is read, in bytes.
const LONGEST: usize = 256 * 1024;
/// Most keys of a set; further ones are left out.
const KEYS: usize = 64;
/// Sizes of an RSA modulus in bytes, as its algorithm has it here.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// The public keys of a JWK Set that can prove a token.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Clone, PartialEq, Eq)]
enum Public {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The point, uncompressed (SEC 1, section 2.3.3).
    P256(Vec<u8>),
}

/// What is read of a JWK. Members of private and of symmetric keys are not among it.
#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a JWK Set. Keys of other types and for other purposes are left out, and so are symmetric ones: whoever reads
    /// them could sign with them.
    ///
    /// # Errors
    /// It is no JWK Set, is larger than 256 KiB, or has no key of RSA or P-256 for signatures.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        if json.len() > LONGEST {
            return Err(format!("is larger than {LONGEST} bytes"));
        }
        let set: Value = serde_json::from_slice(json).map_err(|error| format!("is not JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("is no JWK Set: it has no list `keys`")?;
        let keys: Vec<Key> = keys.iter().filter_map(Key::read).take(KEYS).collect();
        if keys.is_empty() {
            return Err("has no public key of RSA (2048 to 8192 bits) or P-256 for signatures".to_owned());
        }
        Ok(Self(keys))
    }

    /// The set as a JWK Set in JSON, which [`KeySet::read`] reads.
    pub fn to_json(&self) -> Value {
        serde_json::json!({ "keys": self.0.iter().map(Key::to_json).collect::<Vec<_>>() })
    }

    /// The keys of an algorithm that a token with this `kid` can be signed with: those with the same, or all if it has none.
    pub(super) fn candidates<'a>(
        &'a self,
        algorithm: JwtAlgorithm,
        id: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Key> {
        self.0.iter().filter(move |key| key.algorithm() == algorithm && (id.is_none() || key.id.as_deref() == id))
    }

    /// Whether a key of the set is one of this algorithm.
    pub(super) fn has(&self, algorithm: JwtAlgorithm) -> bool {
        self.0.iter().any(|key| key.algorithm() == algorithm)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.0.iter().map(|key| key.id.as_deref().unwrap_or_default()).collect();
        f.debug_tuple("KeySet").field(&ids).finish()
    }
}

impl Key {
    fn read(json: &Value) -> Option<Self> {
        let written = Written::deserialize(json).ok()?;
        if written.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let bytes = |text: &Option<String>| BASE64_URL.decode(text.as_deref()?).ok();
        let public = match written.kty.as_str() {
            "RSA" => {
                let strip = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
                let (n, e) = (strip(bytes(&written.n)?), strip(bytes(&written.e)?));
                let fits = MODULUS.contains(&n.len()) && (1..=8).contains(&e.len());
                fits.then_some(Public::Rsa { n, e })?
            }
            "EC" if written.crv.as_deref() == Some("P-256") => {
                let (x, y) = (bytes(&written.x)?, bytes(&written.y)?);
                let point = [&[4][..], &x, &y].concat();
                (x.len() == 32 && y.len() == 32).then_some(Public::P256(point))?
            }
            _ => return None,
        };
        let key = Self { id: written.kid, public };
        // A key that is for another algorithm, such as PS256, is not for this one.
        let named = written.alg.is_none_or(|named| named == key.algorithm().name());
        named.then_some(key)
    }

    fn to_json(&self) -> Value {
        let text = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let mut json = match &self.public {
            Public::Rsa { n, e } => serde_json::json!({"kty": "RSA", "n": text(n), "e": text(e)}),
            Public::P256(point) => {
                let (x, y) = point[1..].split_at(32);
                serde_json::json!({"kty": "EC", "crv": "P-256", "x": text(x), "y": text(y)})
            }
        };
        if let Some(id) = &self.id {
            json["kid"] = id.as_str().into();
        }
        json
    }

    fn algorithm(&self) -> JwtAlgorithm {
        match self.public {
            Public::Rsa { .. } => JwtAlgorithm::Rs256,
            Public::P256(_) => JwtAlgorithm::Es256,
        }
    }

    /// Whether this is the key's signature of the message.
    pub(super) fn proves(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.public {
            Public::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Public::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
        }
    }
}

impl JwtAlgorithm {
    /// Its name in tokens and keys.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}
