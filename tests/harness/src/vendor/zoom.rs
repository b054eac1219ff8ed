//! Zoom: an event notification endpoint is entered by hand and has to show, then and again every few days, that it knows the
//! app's secret token.
//!
//! Facts: developers.zoom.us/docs/api/webhooks (`endpoint.url_validation` with `payload.plainToken`, to be answered within
//! three seconds with the token and its HMAC in hexadecimal, again every 72 hours; what has failed six times in a row is
//! disabled; `x-zm-signature` over `v0:`, the seconds of `x-zm-request-timestamp`, `:` and the body, on this request as on
//! every other; `event`, `event_ts` and `payload.object`).

use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_error, now};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long Zoom waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Zoom with one app.
#[derive(Debug)]
pub struct Zoom {
    /// The app's secret token.
    pub secret_token: String,
}

impl Zoom {
    fn signed(&self, delivery: Delivery) -> Delivery {
        let time = now() / 1000;
        let signature = hex::encode(delivery.hmac_after(&format!("v0:{time}:"), self.secret_token.as_bytes()));
        delivery.header("x-zm-request-timestamp", time.to_string()).header("x-zm-signature", format!("v0={signature}"))
    }

    /// The question whether an endpoint knows the secret token, as Zoom signs it.
    pub fn question(&self, url: &str, token: &str) -> Delivery {
        let body = json!({"event": "endpoint.url_validation", "event_ts": now(), "payload": {"plainToken": token}});
        self.signed(Delivery::json(url, &body))
    }

    /// Asks an endpoint whether it knows the secret token: when it is entered, and again every 72 hours.
    ///
    /// # Errors
    /// It does not, or is too slow.
    pub async fn validate(&self, url: &str, token: &str) -> Result<()> {
        let begin = Instant::now();
        let answered = self.question(url, token).send().await?;
        ensure!(answered.status == 200, "URL validation failed: {answered:?}");
        ensure!(begin.elapsed() < PATIENCE, "URL validation failed: it took {:?}", begin.elapsed());
        let answer: Value = serde_json::from_slice(&answered.body).context("URL validation failed: no JSON")?;
        let proof = Delivery::empty(url).hmac_after(token, self.secret_token.as_bytes());
        let expected = json!({"plainToken": token, "encryptedToken": hex::encode(proof)});
        ensure!(answer == expected, "URL validation failed: {answer}");
        Ok(())
    }

    /// A person enters the URL in the app's settings and lets it be validated.
    ///
    /// # Errors
    /// As of [`Zoom::validate`].
    pub async fn enter_url(&self, desk: &Desk, url: &str) -> Result<()> {
        self.validate(url, "qgg8vlvZRS6UYooatFL8Aw").await?;
        desk.add(Webhook::new(desk.number().to_string(), url).secret(&self.secret_token));
        Ok(())
    }
}

impl Vendor for Zoom {
    fn answer(&self, _: &Arc<Desk>, _: &Asked) -> Answer {
        answer_error(404, "This app's event subscriptions are made in its settings.").into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({"event": event, "event_ts": 1_700_000_000_000_u64 + number, "payload": {
            "account_id": "AAAAAABBBB", "object": {"id": "1234567890", "uuid": format!("meeting-{number}"),
            "topic": "Planning", "type": 2}}});
        self.signed(Delivery::json(&webhook.url, &body))
    }
}
