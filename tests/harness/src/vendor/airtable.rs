//! Airtable: a webhook ends unless a call refreshes it in time, and only the answer to create tells the secret.
//!
//! Facts: airtable.com/developers/web/api/webhooks-overview (a ping has no event, and must be answered with 200 or 204
//! and an empty body; X-Airtable-Content-MAC), .../create-a-webhook (`macSecretBase64`, `expirationTime`),
//! .../list-webhooks, .../refresh-a-webhook, .../delete-a-webhook.
//!
//! Instead of: an expired webhook is gone at once, where Airtable shows it disabled for another week.

use super::asked::{strings, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json, millis, now};
use crate::server::Reply;
use base64::Engine as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The token that is accepted.
pub const TOKEN: &str = "patStandin.token-of-acme";

/// Airtable with the base `appAcme`.
#[derive(Debug)]
pub struct Airtable {
    /// How long a webhook lives after create and after each refresh.
    pub life: Duration,
}

fn error(status: u16, type_: &str, message: &str) -> Reply {
    answer_json(status, &json!({"error": {"type": type_, "message": message}}))
}

/// ISO 8601 with milliseconds, in UTC.
fn iso(at: i64) -> String {
    let time = k8s_openapi::jiff::Timestamp::from_millisecond(at).expect("the test's time has a date");
    time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

impl Vendor for Airtable {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return error(401, "AUTHENTICATION_REQUIRED", "Authentication required").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["v0", "meta", "whoami"]) => answer_json(200, &json!({"id": "usrAcmeBot"})),
            ("GET", ["v0", "bases", "appAcme", "webhooks"]) => {
                let webhooks: Vec<Value> = desk.all().iter().map(show).collect();
                answer_json(200, &json!({"webhooks": webhooks}))
            }
            ("POST", ["v0", "bases", "appAcme", "webhooks"]) => {
                let (body, number) = (asked.json(), desk.number());
                let secret = base64::engine::general_purpose::STANDARD.encode((number * 0x9e37_79b9).to_be_bytes());
                let webhook = Webhook::new(format!("achStandin{number:07}"), text(&body["notificationUrl"]))
                    .events(strings(&body["specification"]["options"]["filters"]["dataTypes"]))
                    .secret(&secret)
                    .lives(self.life);
                desk.add(webhook.clone());
                let expires = webhook.expires_at.map(iso);
                answer_json(200, &json!({"id": webhook.id, "macSecretBase64": secret, "expirationTime": expires}))
            }
            ("POST", ["v0", "bases", "appAcme", "webhooks", id, "refresh"]) => {
                let expires = now() + millis(self.life);
                match desk.change(id, |webhook| webhook.expires_at = Some(expires)) {
                    true => answer_json(200, &json!({"expirationTime": iso(expires)})),
                    false => error(404, "NOT_FOUND", "Webhook not found"),
                }
            }
            ("DELETE", ["v0", "bases", "appAcme", "webhooks", id]) => match desk.remove(id) {
                true => Reply::status(204),
                false => error(404, "NOT_FOUND", "Webhook not found"),
            },
            _ => error(404, "NOT_FOUND", "Not found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, _: &str, number: u64) -> Delivery {
        // Pings of one webhook differ in their time alone; this makes sure that they do.
        let time = iso(now() / 1000 * 1000 + i64::try_from(number % 1000).unwrap_or_default());
        let body = json!({"base": {"id": "appAcme"}, "webhook": {"id": webhook.id}, "timestamp": time});
        let delivery = Delivery::json(&webhook.url, &body);
        let key = base64::engine::general_purpose::STANDARD.decode(&webhook.secret).expect("it was made so");
        let mac = hex::encode(delivery.hmac_after("", &key));
        delivery.header("x-airtable-content-mac", format!("hmac-sha256={mac}"))
    }
}

fn show(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id,
        "notificationUrl": webhook.url,
        "isHookEnabled": webhook.enabled,
        "areNotificationsEnabled": webhook.enabled,
        "expirationTime": webhook.expires_at.map(iso),
        "specification": {"options": {"filters": {"dataTypes": webhook.events}}},
    })
}
