//! A vendor calls a webhook.

use anyhow::{Result, ensure};
use base64::Engine as _;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

/// A call to a callback URL.
#[derive(Debug, Clone)]
pub struct Delivery {
    url: String,
    headers: Vec<(String, String)>,
    body: Bytes,
}

/// How a callback URL has answered.
#[derive(Debug, Clone)]
pub struct Answered {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answered {
    /// A header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Fails if the status is not 2xx.
    pub fn accepted(self) -> Result<Answered> {
        ensure!(
            (200..300).contains(&self.status),
            "the callback URL answered {}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        Ok(self)
    }
}

impl Delivery {
    /// A POST without a body.
    pub fn empty(url: impl Into<String>) -> Delivery {
        Delivery { url: url.into(), headers: Vec::new(), body: Bytes::new() }
    }

    /// A POST with JSON.
    pub fn json(url: impl Into<String>, body: &Value) -> Delivery {
        let mut delivery = Delivery::empty(url).header("content-type", "application/json");
        delivery.body = body.to_string().into();
        delivery
    }

    /// A POST with a form.
    pub fn form(url: impl Into<String>, fields: &[(&str, &str)]) -> Delivery {
        let mut delivery = Delivery::empty(url).header("content-type", "application/x-www-form-urlencoded");
        // A query is written in the same way.
        let form = reqwest::Url::parse_with_params("http://form.invalid/", fields).expect("a URL with a query");
        delivery.body = form.query().unwrap_or_default().to_owned().into();
        delivery
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Delivery {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a header with `prefix` and the HMAC-SHA256 of the body in hexadecimal.
    pub fn signed_hex(self, header: &str, prefix: &str, secret: &str) -> Delivery {
        let signature = hex::encode(self.hmac_after("", secret.as_bytes()));
        self.header(header, format!("{prefix}{signature}"))
    }

    /// The HMAC-SHA256 of `before` and the body.
    pub fn hmac_after(&self, before: &str, key: &[u8]) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
        mac.update(before.as_bytes());
        mac.update(&self.body);
        mac.finalize().into_bytes().to_vec()
    }

    /// Adds a header with `prefix` and the HMAC-SHA256 of the body in base64.
    pub fn signed_base64(self, header: &str, prefix: &str, secret: &str) -> Delivery {
        let signature = base64::engine::general_purpose::STANDARD.encode(self.hmac_after("", secret.as_bytes()));
        self.header(header, format!("{prefix}{signature}"))
    }

    /// Makes the call, once.
    pub async fn send(self) -> Result<Answered> {
        let mut request = crate::http::client().post(&self.url).body(self.body);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answered { status, headers, body: response.bytes().await? })
    }
}
