//! Slack: a Request URL is entered by hand, and counts only once it has echoed a challenge.
//!
//! Facts: docs.slack.dev/apis/events-api (outer type `event_callback`, `event_id`, `event.type`),
//! docs.slack.dev/reference/events/url_verification (the challenge, to be echoed as text or in JSON),
//! docs.slack.dev/authentication/verifying-requests-from-slack (the app's signing secret, which Slack chooses).

use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json, now};
use anyhow::{Result, ensure};
use serde_json::json;
use std::sync::Arc;

const CHALLENGE: &str = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";

/// Slack with one app.
#[derive(Debug)]
pub struct Slack {
    /// The app's signing secret.
    pub signing_secret: String,
}

impl Slack {
    fn signed(&self, delivery: Delivery) -> Delivery {
        let time = now() / 1000;
        let signature = hex::encode(delivery.hmac_after(&format!("v0:{time}:"), self.signing_secret.as_bytes()));
        delivery
            .header("x-slack-request-timestamp", time.to_string())
            .header("x-slack-signature", format!("v0={signature}"))
    }

    /// A person enters the Request URL in the app's settings; it is verified at once.
    ///
    /// # Errors
    /// The callback URL does not echo the challenge.
    pub async fn enter_url(&self, desk: &Desk, url: &str) -> Result<()> {
        let body = json!({"type": "url_verification", "token": "legacy", "challenge": CHALLENGE});
        let answered = self.signed(Delivery::json(url, &body)).send().await?.accepted()?;
        let text = String::from_utf8_lossy(&answered.body).into_owned();
        let json: serde_json::Value = serde_json::from_slice(&answered.body).unwrap_or_default();
        ensure!(
            text == CHALLENGE || json["challenge"] == CHALLENGE,
            "Your URL didn't respond with the challenge: {text}"
        );
        desk.add(Webhook::new(desk.number().to_string(), url).secret(&self.signing_secret));
        Ok(())
    }
}

impl Vendor for Slack {
    fn answer(&self, _: &Arc<Desk>, _: &Asked) -> Answer {
        answer_json(200, &json!({"ok": false, "error": "unknown_method"})).into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({"type": "event_callback", "team_id": "T0001", "event_id": format!("Ev{number}"),
            "event": {"type": event, "text": format!("hello {number}")}});
        self.signed(Delivery::json(&webhook.url, &body))
    }
}
