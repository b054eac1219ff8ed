//! Requests as the vendors' own libraries sign them: npm packages (`tests/cluster/signers`).

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

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
    let folder = crate::npm::install("signers", "sign.mjs").await?;
    let mut process = tokio::process::Command::new("node")
        .arg("sign.mjs")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("node cannot be started; Node.js is needed for this test")?;
    let mut stdin = process.stdin.take().context("a pipe")?;
    stdin.write_all(json!({"now": now}).to_string().as_bytes()).await?;
    drop(stdin);
    let output = process.wait_with_output().await?;
    ensure!(output.status.success(), "sign.mjs: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
