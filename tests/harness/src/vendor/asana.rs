//! Asana: create is answered only after the callback URL has answered a handshake, which brings the secret.
//!
//! Facts: developers.asana.com/docs/webhooks-guide and developers.asana.com/reference/createwebhook (the POST with
//! X-Hook-Secret in the middle of the create call, to be answered with 200 or 204 and the same header; the answer to
//! create; X-Hook-Signature; heartbeats without events), .../reference/getwebhooks (`next_page.uri`);
//! Asana/developer-docs source/includes/markdown/_webhooks.html.md.

use super::asked::text;
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use futures::FutureExt;
use serde_json::{Value, json};
use std::sync::Arc;

/// The token that is accepted.
pub const TOKEN: &str = "1/standin-token-of-acme";

/// The event of a heartbeat, for [`Vendor::delivery`]: a signed callback without events.
pub const HEARTBEAT: &str = "heartbeat";

/// Asana with the project 8675309 of the workspace 4242.
#[derive(Debug, Default)]
pub struct Asana;

fn error(status: u16, message: &str) -> Reply {
    answer_json(status, &json!({"errors": [{"message": message}]}))
}

impl Vendor for Asana {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return error(401, "Not Authorized").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["api", "1.0", "users", "me"]) => answer_json(200, &json!({"data": {"name": "acme-bot"}})),
            ("GET", ["api", "1.0", "webhooks"]) if asked.query("workspace") == "4242" => {
                let webhooks: Vec<Value> = desk.all().iter().map(show).collect();
                answer_json(200, &json!({"data": webhooks, "next_page": null}))
            }
            ("POST", ["api", "1.0", "webhooks"]) => {
                return Answer::Later(establish(desk.clone(), asked.json()["data"].clone()).boxed());
            }
            ("DELETE", ["api", "1.0", "webhooks", gid]) => match desk.remove(gid) {
                true => answer_json(200, &json!({"data": {}})),
                false => error(404, "webhook: Unknown object"),
            },
            _ => error(404, "No matching route for request"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let one = |(kind, action): (&str, &str)| json!({"action": action, "resource": {"gid": number.to_string(), "resource_type": kind}});
        let events: Vec<Value> = event.split_once('.').map(one).into_iter().collect();
        Delivery::json(&webhook.url, &json!({"events": events})).signed_hex("x-hook-signature", "", &webhook.secret)
    }
}

fn show(webhook: &Webhook) -> Value {
    json!({"gid": webhook.id, "resource": {"gid": "8675309"}, "target": webhook.url, "active": webhook.enabled})
}

async fn establish(desk: Arc<Desk>, data: Value) -> Reply {
    let (number, target) = (desk.number(), text(&data["target"]));
    let secret = format!("b537207f20cbfa02{:016x}", number * 0x9e37_79b9);
    let handshake = Delivery::empty(&target).header("x-hook-secret", &secret);
    match handshake.send().await {
        Ok(answered) if matches!(answered.status, 200 | 204) && answered.header("x-hook-secret") == secret => {}
        // A person reads this in the condition.
        Ok(answered) => return error(400, &format!("The remote server responded with status {}", answered.status)),
        Err(_) => return error(400, "The remote server did not respond with the handshake secret."),
    }
    let filters = data["filters"].as_array().into_iter().flatten();
    let events = filters.map(|filter| format!("{}.{}", text(&filter["resource_type"]), text(&filter["action"])));
    // Filters do not keep heartbeats away.
    let webhook = Webhook::new(number.to_string(), target).events(events.chain([HEARTBEAT.to_owned()])).secret(&secret);
    desk.add(webhook.clone());
    answer_json(201, &json!({"data": show(&webhook), "X-Hook-Secret": secret}))
}
