//! Requests as the vendors' own libraries sign them: npm packages (`tests/cluster/signers`).

use anyhow::Result;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// A request that a library has signed.
#[derive(Debug, Deserialize)]
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
