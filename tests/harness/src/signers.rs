//! Requests as the vendors' own libraries sign them: npm packages (`tests/cluster/signers`).

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

/// A request that a library has signed, or Node.js for a library that verifies only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signed {
    /// Name of the plugin in the catalogue.
    pub plugin: String,
    /// Name of the library's npm package.
    pub library: String,
    /// The secret, as a person gives it to a Subscription.
    pub secret: String,
    /// The method, where it is signed.
    pub method: Option<String>,
    /// The callback URL, where it is signed with the query.
    pub url: Option<String>,
    /// The raw query.
    #[serde(default)]
    pub query: String,
    /// Name of the header with the signature.
    pub signature: String,
    /// Names of the other headers that are signed.
    #[serde(default)]
    pub covered: Vec<String>,
    /// The headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body; in base64 where it is handed to Node.js and back.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub body: Vec<u8>,
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Has every library sign a request, at a time in Unix seconds.
///
/// # Errors
/// Node.js is missing, or a package cannot be installed or has changed.
pub async fn sign(now: i64) -> Result<Vec<Signed>> {
    crate::npm::ask("signers", "sign.mjs", &json!({"now": now})).await
}

/// Asks the library of each request whether it believes it, at a time in Unix milliseconds.
///
/// # Errors
/// As of [`sign`].
pub async fn verify(now: i64, requests: &[Signed]) -> Result<Vec<bool>> {
    crate::npm::ask("signers", "verify.mjs", &json!({"now": now, "requests": requests})).await
}

/// A JSON Web Token of each algorithm, by the npm package jose.
#[derive(Debug, Deserialize)]
pub struct Token {
    /// `HS256`, `RS256` or `ES256`.
    pub algorithm: String,
    /// The secret of `HS256`.
    pub secret: String,
    /// The JWK Set of the others.
    #[serde(default)]
    pub jwks: Map<String, Value>,
    /// A token of now.
    pub good: String,
    /// One whose end was five minutes ago.
    pub old: String,
    /// One that names a key of the set and is signed by another.
    pub stranger: Option<String>,
}

/// Makes a token of each algorithm, at a time in Unix seconds.
///
/// # Errors
/// As of [`sign`].
pub async fn tokens(now: i64, audience: &str) -> Result<Vec<Token>> {
    crate::npm::ask("signers", "tokens.mjs", &json!({"now": now, "audience": audience})).await
}
