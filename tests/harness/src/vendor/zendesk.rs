//! Zendesk: the signing secret comes from a second call, after create.
//!
//! Facts: developer.zendesk.com/api-reference/webhooks/webhooks-api/webhooks (create, list with cursor pagination, show
//! the signing secret, patch, delete), developer.zendesk.com/documentation/webhooks/verifying;
//! developer.zendesk.com/documentation/api-basics/pagination (`links.next`, `meta.has_more`).

use super::asked::{strings, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;

/// Who calls, for Basic authentication.
pub const USER: &str = "bot@acme.example/token";
/// An API token that is accepted.
pub const TOKEN: &str = "standin-token-of-acme";
/// Another one that is.
pub const OTHER_TOKEN: &str = "standin-token-of-acme-with-all-rights";

/// Zendesk.
#[derive(Debug, Default)]
pub struct Zendesk;

fn error(status: u16, title: &str) -> Reply {
    answer_json(status, &json!({"errors": [{"title": title}], "message": title}))
}

impl Vendor for Zendesk {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        let known = |(user, token): (String, String)| user == USER && [TOKEN, OTHER_TOKEN].contains(&token.as_str());
        if !asked.basic().is_some_and(known) {
            return error(401, "Couldn't authenticate you").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["api", "v2", "users", "me"]) => answer_json(200, &json!({"user": {"email": "bot@acme.example"}})),
            ("GET", ["api", "v2", "webhooks"]) => {
                let webhooks: Vec<Value> = desk.all().iter().map(show).collect();
                answer_json(200, &json!({"webhooks": webhooks, "meta": {"has_more": false}, "links": {"next": null}}))
            }
            ("POST", ["api", "v2", "webhooks"]) => {
                let body = &asked.json()["webhook"];
                let number = desk.number();
                let webhook = Webhook::new(format!("01FMJQSY40HZBCBV{number:010}"), text(&body["endpoint"]))
                    .events(strings(&body["subscriptions"]))
                    .secret(format!("dhrMDR{:x}", number * 0x9e37_79b9));
                desk.add(webhook.clone());
                answer_json(201, &json!({"webhook": show(&webhook)}))
            }
            ("GET", ["api", "v2", "webhooks", id, "signing_secret"]) => match desk.get(id) {
                Some(webhook) => {
                    answer_json(200, &json!({"signing_secret": {"algorithm": "SHA256", "secret": webhook.secret}}))
                }
                None => error(404, "Webhook not found"),
            },
            ("DELETE", ["api", "v2", "webhooks", id]) => match desk.remove(id) {
                true => Reply::status(204),
                false => error(404, "Webhook not found"),
            },
            _ => error(404, "Not found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let delivery = Delivery::json(&webhook.url, &json!({"type": event, "detail": {"id": number.to_string()}}));
        let time = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let signature = STANDARD.encode(delivery.hmac_after(&time, webhook.secret.as_bytes()));
        delivery
            .header("x-zendesk-webhook-id", webhook.id.clone())
            .header("x-zendesk-webhook-invocation-id", format!("invocation-{number}"))
            .header("x-zendesk-webhook-signature-timestamp", time)
            .header("x-zendesk-webhook-signature", signature)
    }
}

fn show(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id,
        "endpoint": webhook.url,
        "status": if webhook.enabled { "active" } else { "inactive" },
        "subscriptions": webhook.events,
    })
}
