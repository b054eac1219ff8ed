//! What is sent: a recorded push of GitHub, made larger by further commits, signed as GitHub signs.

use anyhow::{Context, Result, ensure};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Bytes of the body.
pub const BYTES: usize = 10 * 1024;
/// The secret of every subscription: what is measured does not depend on how many there are.
pub const SECRET: &str = "5b3f8d0e6c1a49f2b7e4d8036a95c2f1";
/// The header with the signature.
pub const SIGNATURE: &str = "x-hub-signature-256";
/// What the signature begins with.
pub const PREFIX: &str = "sha256=";
const RECORDED: &str = include_str!("../../tests/catalogue/github/push-1.json");
/// Bytes of a UUID in text.
const ID: usize = 36;

/// The token of a callback URL, as long as a real one.
pub fn token(subscription: usize) -> String {
    hex::encode(Sha256::digest(format!("token {subscription}")))
}

/// The UID of a Subscription.
pub fn uid(subscription: usize) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("subscription {subscription}").as_bytes())
}

/// The id of the event that a delivery to a Subscription becomes: what the runner sees as `ce-id`.
pub fn event_id(subscription: usize, delivery: Uuid) -> Uuid {
    Uuid::new_v5(&uid(subscription), format!("{delivery}/0").as_bytes())
}

/// A request that differs from the next one in its token and its delivery id only.
#[derive(Clone)]
pub struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
    token_at: usize,
    delivery_at: usize,
}

impl Request {
    /// # Errors
    /// If the recorded push is not what it was.
    pub fn new() -> Result<Self> {
        Self::of(body()?)
    }

    /// The same with another body.
    ///
    /// # Errors
    /// Never, as the secret is a key.
    pub fn of(body: Vec<u8>) -> Result<Self> {
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).context("the secret")?;
        mac.update(&body);
        let signature = hex::encode(mac.finalize().into_bytes());
        let before = "POST /hooks/";
        let after = format!(
            " HTTP/1.1\r\nHost: hooks.example.com\r\nUser-Agent: GitHub-Hookshot/f1cb2d6\r\n\
             Accept: */*\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\n\
             X-GitHub-Hook-ID: 292430182\r\nX-GitHub-Hook-Installation-Target-ID: 186853002\r\n\
             X-GitHub-Hook-Installation-Target-Type: repository\r\n{SIGNATURE}: {PREFIX}{signature}\r\n\
             Content-Length: {}\r\nX-GitHub-Delivery: ",
            body.len()
        );
        let token = token(0);
        let (token_at, delivery_at) = (before.len(), before.len() + token.len() + after.len());
        let head = format!("{before}{token}{after}{}\r\n\r\n", Uuid::nil());
        Ok(Self { head: head.into_bytes(), body, token_at, delivery_at })
    }

    /// Sets what differs.
    pub fn address(&mut self, token: &str, delivery: Uuid) {
        self.head[self.token_at..][..token.len()].copy_from_slice(token.as_bytes());
        delivery.hyphenated().encode_lower(&mut self.head[self.delivery_at..][..ID]);
    }

    /// The head and the body.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (&self.head, &self.body)
    }
}

/// The recorded push, to `main`, with as many commits as fit.
fn body() -> Result<Vec<u8>> {
    let mut push: Value = serde_json::from_str(RECORDED)?;
    push["ref"] = json!("refs/heads/main");
    let commit = push["commits"][0].clone();
    let size = serde_json::to_vec(&commit)?.len() + 1;
    let room = BYTES.saturating_sub(serde_json::to_vec(&push)?.len());
    for number in 0..room / size {
        let mut more = commit.clone();
        more["id"] = json!(hex::encode(&Sha256::digest(format!("commit {number}"))[..20]));
        push["commits"].as_array_mut().context("the recorded push has no commits")?.push(more);
    }
    let missing = BYTES.checked_sub(serde_json::to_vec(&push)?.len()).context("the push is too large")?;
    let message = push["commits"][0]["message"].as_str().context("a commit without a message")?;
    push["commits"][0]["message"] = json!(format!("{message}{}", ".".repeat(missing)));
    let body = serde_json::to_vec(&push)?;
    ensure!(body.len() == BYTES, "the push has {} bytes", body.len());
    Ok(body)
}
