//! Gmail: a watch ends unless it is called again in time; calling again prolongs the one watch that there is.
//!
//! Facts: developers.google.com/workspace/gmail/api/reference/rest/v1/users/watch (`expiration` in milliseconds since the
//! epoch, as a string: "call watch again before this time to renew"), .../users/stop,
//! developers.google.com/workspace/gmail/api/guides/push; cloud.google.com/pubsub/docs/push (the envelope);
//! googleapis/google-api-python-client, gmail v1.
//!
//! Instead of: Gmail publishes to a Pub/Sub topic, whose push subscription calls the callback URL with a signed JWT. Here,
//! there is no Pub/Sub in between: `topicName` is the callback URL, and the field `standinToken` comes back as a bearer
//! token.

use super::asked::text;
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use base64::Engine as _;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The access token that is accepted.
pub const TOKEN: &str = "ya29.standin-token-of-acme";

const WATCH: &str = "watch";

/// Gmail with one mailbox.
#[derive(Debug)]
pub struct Gmail {
    /// How long a watch lives.
    pub life: Duration,
}

fn error(status: u16, message: &str) -> Reply {
    answer_json(status, &json!({"error": {"code": status, "message": message, "status": "FAILED"}}))
}

impl Vendor for Gmail {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return error(401, "Request had invalid authentication credentials.").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["gmail", "v1", "users", "me", "profile"]) => {
                answer_json(200, &json!({"emailAddress": "bot@acme.example"}))
            }
            ("POST", ["gmail", "v1", "users", "me", "watch"]) => watch(desk, &asked.json(), self.life),
            // It is no error if there is none.
            ("POST", ["gmail", "v1", "users", "me", "stop"]) => {
                desk.remove(WATCH);
                Reply::status(204)
            }
            _ => error(404, "Not Found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, _: &str, number: u64) -> Delivery {
        let data = json!({"emailAddress": "bot@acme.example", "historyId": number}).to_string();
        let data = base64::engine::general_purpose::STANDARD.encode(data);
        let body = json!({"message": {"data": data, "messageId": format!("message-{number}")},
            "subscription": "projects/acme/subscriptions/push"});
        Delivery::json(&webhook.url, &body).header("authorization", format!("Bearer {}", webhook.secret))
    }
}

fn watch(desk: &Desk, body: &Value, life: Duration) -> Reply {
    let webhook = Webhook::new(WATCH, text(&body["topicName"])).secret(text(&body["standinToken"])).lives(life);
    let expiration = webhook.expires_at.unwrap_or_default().to_string();
    if !desk.change(WATCH, |found| *found = webhook.clone()) {
        desk.add(webhook);
    }
    answer_json(200, &json!({"historyId": desk.number().to_string(), "expiration": expiration}))
}
