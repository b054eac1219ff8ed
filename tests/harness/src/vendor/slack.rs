//! Slack: a Request URL is entered by hand, and counts only once it has echoed a challenge.
//!
//! Facts: docs.slack.dev/apis/events-api (outer type `event_callback`, `event_id`, `event.type`),
//! docs.slack.dev/reference/events/url_verification (the challenge, to be echoed as text or in JSON),
//! docs.slack.dev/authentication/verifying-requests-from-slack (the app's signing secret, which Slack chooses),
//! docs.slack.dev/interactivity/implementing-slash-commands (a form; the answer within three seconds is shown to the user,
//! with status 200, as plain text or as JSON by its content type).

use super::{Answer, Answered, Asked, Delivery, Desk, Vendor, Webhook, answer_json, now};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// How long Slack waits for the answer to a slash command.
const LONGEST: Duration = Duration::from_secs(3);
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

    /// A person types a slash command; `trigger_id` differs from one to the next. What is answered within three seconds is
    /// shown, and nothing that comes later.
    ///
    /// # Errors
    /// The person sees that the command failed: there was no answer in time.
    pub async fn command(&self, url: &str, command: &str, text: &str, trigger_id: &str) -> Result<Answered> {
        let fields = [
            ("token", "legacy"),
            ("team_id", "T0001"),
            ("channel_id", "C2147483705"),
            ("user_id", "U2147483697"),
            ("command", command),
            ("text", text),
            ("response_url", "https://hooks.slack.com/commands/1234/5678"),
            ("trigger_id", trigger_id),
        ];
        let sent = self.signed(Delivery::form(url, &fields)).send();
        tokio::time::timeout(LONGEST, sent).await.context("operation_timeout")?
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
