//! Discord: an application's URLs are entered by hand, and are tried with good and with bad signatures; what a person does has
//! to be answered within three seconds.
//!
//! Facts: docs.discord.com/developers/interactions/overview (PING and its answer, Ed25519 over the timestamp and the body, 401
//! for a signature that is not right), .../interactions/receiving-and-responding (types of interactions and of answers, three
//! seconds), .../events/webhook-events (PING of type 0, to be answered with 204; the event's type and data).

use super::{Answer, Answered, Asked, Delivery, Desk, Vendor, Webhook, answer_error, now};
use anyhow::{Context, Result, ensure};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long Discord waits for the answer to an interaction.
const LONGEST: Duration = Duration::from_secs(3);

/// Discord with one application.
#[derive(Debug)]
pub struct Discord {
    key: Ed25519KeyPair,
}

impl Discord {
    /// An application whose key is made of this seed.
    pub fn new(seed: [u8; 32]) -> Discord {
        Discord { key: Ed25519KeyPair::from_seed_unchecked(&seed).expect("any seed is good") }
    }

    /// The application's public key, as the developer portal shows it.
    pub fn public_key(&self) -> String {
        hex::encode(self.key.public_key())
    }

    fn signed(&self, url: &str, body: &Value) -> Delivery {
        let time = (now() / 1000).to_string();
        let signature = self.key.sign(format!("{time}{body}").as_bytes());
        Delivery::json(url, body)
            .header("x-signature-timestamp", time)
            .header("x-signature-ed25519", hex::encode(signature))
    }

    /// A person enters the URL, of interactions and of webhook events; it is tried at once.
    ///
    /// # Errors
    /// It believes a signature that is not right, or does not answer a PING.
    pub async fn enter_url(&self, desk: &Desk, url: &str) -> Result<()> {
        let ping = json!({"version": 1, "application_id": "1234560123453231555", "type": 1, "id": "1", "token": "t"});
        let stranger = Discord::new([9; 32]);
        let refused = stranger.signed(url, &ping).send().await?;
        ensure!(refused.status == 401, "interactions_endpoint_url could not be verified: {refused:?}");
        let answered = self.signed(url, &ping).send().await?;
        let pong: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
        ensure!(answered.status == 200 && pong == json!({"type": 1}), "no PONG: {answered:?}");
        let ping = json!({"version": 1, "application_id": "1234560123453231555", "type": 0});
        let answered = self.signed(url, &ping).send().await?;
        ensure!(answered.status == 204 && answered.body.is_empty(), "event_webhooks_url: {answered:?}");
        ensure!(!answered.header("content-type").is_empty(), "event_webhooks_url: no Content-Type");
        desk.add(Webhook::new(desk.number().to_string(), url));
        Ok(())
    }

    /// A person uses a command; what is answered within three seconds is shown.
    ///
    /// # Errors
    /// The person sees that the application did not respond.
    pub async fn command(&self, url: &str, name: &str, id: u64) -> Result<Answered> {
        let body = json!({
            "id": id.to_string(), "application_id": "1234560123453231555", "type": 2, "token": format!("token-{id}"),
            "version": 1, "guild_id": "290926798626357999", "channel_id": "645027906669510667", "locale": "en-US",
            "member": {"user": {"id": "53908232506183680", "username": "ada"}, "roles": []},
            "data": {"id": "771825006014889984", "name": name, "type": 1},
        });
        let sent = self.signed(url, &body).send();
        tokio::time::timeout(LONGEST, sent).await.context("The application did not respond")?
    }
}

impl Vendor for Discord {
    fn answer(&self, _: &Arc<Desk>, _: &Asked) -> Answer {
        answer_error(401, "401: Unauthorized").into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({
            "version": 1, "application_id": "1234560123453231555", "type": 1,
            "event": {"type": event, "timestamp": format!("2026-01-02T03:04:05.{number:06}"), "data": {
                "integration_type": 1, "scopes": ["applications.commands"],
                "user": {"id": "80351110224678912", "username": "ada"}}},
        });
        self.signed(&webhook.url, &body)
    }
}
