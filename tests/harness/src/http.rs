//! The HTTP client that the harness itself uses, and that tests may use.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// A client that every test can use: it keeps no connection open, so it does not depend on the runtime that used it
/// last, and it follows no redirects.
pub fn client() -> Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT
        .get_or_init(|| {
            install_crypto();
            Client::builder()
                .pool_max_idle_per_host(0)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .timeout(Duration::from_secs(30))
                .build()
                .expect("a client without special settings can be built")
        })
        .clone()
}

/// Makes ring the process' TLS provider. Calling it again does nothing.
pub fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// One JSON call: the status and the body (`Null` if there is none, a string if it is not JSON).
pub async fn json(
    method: Method,
    url: &str,
    authorization: Option<&str>,
    body: Option<&Value>,
) -> Result<(StatusCode, Value)> {
    let mut request = client().request(method.clone(), url);
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let response = request.send().await.with_context(|| format!("{method} {url}"))?;
    let status = response.status();
    let bytes = response.bytes().await.with_context(|| format!("{method} {url}: the answer's body"))?;
    let value = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into())
    };
    Ok((status, value))
}

/// Succeeds with the body if a GET is answered with 200.
pub async fn get_ok(url: &str) -> Result<String> {
    let response = client().get(url).send().await?;
    let status = response.status();
    let text = response.text().await?;
    if status != StatusCode::OK {
        bail!("GET {url} answered {status}: {}", text.chars().take(500).collect::<String>());
    }
    Ok(text)
}
