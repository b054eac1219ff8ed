//! Stripe: form encoding, HTTP Basic authentication, and a secret that only the answer to create tells.
//!
//! Facts: docs.stripe.com/api/webhook_endpoints (form encoding, `enabled_events[]`, `secret`: "only returned at
//! creation", update by POST, `deleted` in the answer to delete), docs.stripe.com/api/authentication (the key is the
//! user of Basic, without a password), docs.stripe.com/api/pagination (`starting_after`, `has_more`),
//! docs.stripe.com/webhooks/signature (time and body, `t=...,v1=...`; the secret is used as it is, `whsec_` included).

use super::asked::{every, first};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json, now};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The API key that is accepted.
pub const KEY: &str = "sk_test_standin-key-of-acme";

const MOST_PER_PAGE: usize = 2;

/// Stripe.
#[derive(Debug, Default)]
pub struct Stripe;

fn error(status: u16, message: &str) -> Reply {
    answer_json(status, &json!({"error": {"type": "invalid_request_error", "message": message}}))
}

impl Vendor for Stripe {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.basic() != Some((KEY.to_owned(), String::new())) {
            return error(401, "Invalid API Key provided").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["v1", "account"]) => answer_json(200, &json!({"id": "acct_acme", "email": "acme@example.com"})),
            ("GET", ["v1", "webhook_endpoints"]) => list(desk, asked),
            ("POST", ["v1", "webhook_endpoints"]) => create(desk, &asked.form()),
            ("POST", ["v1", "webhook_endpoints", id]) => {
                let form = asked.form();
                let found = desk.change(id, |webhook| {
                    webhook.url = first(&form, "url").to_owned();
                    webhook.events = every(&form, "enabled_events[]");
                    webhook.enabled = first(&form, "disabled") != "true";
                });
                match desk.get(id) {
                    Some(webhook) if found => answer_json(200, &show(&webhook)),
                    _ => error(404, &format!("No such webhook endpoint: '{id}'")),
                }
            }
            ("DELETE", ["v1", "webhook_endpoints", id]) => match desk.remove(id) {
                true => answer_json(200, &json!({"id": id, "object": "webhook_endpoint", "deleted": true})),
                false => error(404, &format!("No such webhook endpoint: '{id}'")),
            },
            _ => error(404, "Unrecognized request URL"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({"id": format!("evt_{number}"), "object": "event", "type": event,
            "data": {"object": {"amount": number}}});
        let (delivery, time) = (Delivery::json(&webhook.url, &body), now() / 1000);
        let signature = hex::encode(delivery.hmac_after(&format!("{time}."), webhook.secret.as_bytes()));
        delivery.header("stripe-signature", format!("t={time},v1={signature}"))
    }
}

fn show(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id,
        "object": "webhook_endpoint",
        "enabled_events": webhook.events,
        "status": if webhook.enabled { "enabled" } else { "disabled" },
        "url": webhook.url,
    })
}

fn create(desk: &Desk, form: &[(String, String)]) -> Reply {
    let (url, events) = (first(form, "url"), every(form, "enabled_events[]"));
    if url.is_empty() || events.is_empty() {
        return error(400, "Missing required param: url or enabled_events.");
    }
    let number = desk.number();
    let secret = format!("whsec_{:x}", number * 0x9e37_79b9);
    let webhook = Webhook::new(format!("we_{number}"), url).events(events).secret(secret);
    desk.add(webhook.clone());
    let mut body = show(&webhook);
    body["secret"] = json!(webhook.secret);
    answer_json(200, &body)
}

fn list(desk: &Desk, asked: &Asked) -> Reply {
    let limit = asked.query("limit").parse().unwrap_or(10).clamp(1, MOST_PER_PAGE);
    let all = desk.all();
    let start = match asked.query("starting_after") {
        "" => 0,
        after => match all.iter().position(|webhook| webhook.id == after) {
            Some(at) => at + 1,
            None => return error(400, &format!("No such webhook endpoint: '{after}'")),
        },
    };
    let items: Vec<Value> = all.iter().skip(start).take(limit).map(show).collect();
    answer_json(200, &json!({"object": "list", "data": items, "has_more": start + limit < all.len()}))
}
