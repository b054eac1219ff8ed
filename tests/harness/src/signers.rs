//! Requests as the vendors' own libraries sign them: npm packages (`tests/cluster/signers`).

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A request that a library has signed, or Node.js for a library that verifies only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signed {
    /// Name of the plugin in the catalogue.
    pub plugin: String,
    /// Name of the library's npm package.
    pub library: String,
    /// The secret, as a person gives it to a Subscription.
    pub secret: String,
    /// The callback URL, where it is signed.
    pub url: Option<String>,
    /// The raw query.
    #[serde(default)]
    pub query: String,
    /// Name of the header with the signature.
    pub signature: String,
    /// The headers, with names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// Has every library sign a request, at a time in Unix seconds.
///
/// # Errors
/// Node.js is missing, or a package cannot be installed or has changed.
pub async fn sign(now: i64) -> Result<Vec<Signed>> {
    crate::npm::ask("signers", "sign.mjs", &json!({"now": now})).await
}

/// Asks the library of each request whether it believes it, all at the time of now.
///
/// # Errors
/// As of [`sign`].
pub async fn verify(requests: &[Signed]) -> Result<Vec<bool>> {
    crate::npm::ask("signers", "verify.mjs", &json!({"requests": requests})).await
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
