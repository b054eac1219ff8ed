//! PagerDuty: the secret is in the answer to create alone, and nothing can change it.
//!
//! Facts: developer.pagerduty.com/docs/webhooks-overview and .../docs/webhooks-signatures (`v1=` and the HMAC of the body,
//! several with commas while a secret is replaced), PagerDuty/api-schema reference/REST/openapiv3.json (the resource
//! WebhookSubscription, `Authorization: Token token=`, classic pagination with `limit`, `offset` and `more`).

use super::asked::{strings, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The REST API key that is accepted.
pub const KEY: &str = "u+standin-key-of-acme";

/// PagerDuty with one account, and the service P393ZNQ.
#[derive(Debug, Default)]
pub struct PagerDuty;

fn error(status: u16, code: u32, message: &str) -> Reply {
    answer_json(status, &json!({"error": {"code": code, "message": message}}))
}

impl Vendor for PagerDuty {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Token token={KEY}") {
            return error(401, 2006, "You must supply credentials to perform this action").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["abilities"]) => answer_json(200, &json!({"abilities": ["teams", "urgencies"]})),
            ("GET", ["webhook_subscriptions"]) => list(desk, asked),
            ("POST", ["webhook_subscriptions"]) => create(desk, &asked.json()["webhook_subscription"]),
            ("DELETE", ["webhook_subscriptions", id]) => match desk.remove(id) {
                true => Reply::status(204),
                false => error(404, 2100, "Not Found"),
            },
            _ => error(404, 2100, "Not Found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let id = format!("Q{number:013}");
        let data = json!({
            "id": id, "type": "incident", "html_url": format!("https://acme.pagerduty.com/incidents/{id}"),
            "number": number, "status": "triggered", "title": format!("Disk {number} is full"), "urgency": "high",
            "service": {"id": "P393ZNQ", "summary": "Storage", "type": "service_reference"},
            "assignees": [{"id": "PTUXL6G", "summary": "Ada", "type": "user_reference"}],
            "priority": {"id": "PSO75BM", "summary": "P1", "type": "priority_reference"},
            "teams": [{"id": "PFCVPS0", "summary": "Platform", "type": "team_reference"}],
        });
        let event = json!({
            "id": format!("01DFRM8QUT{number:016}"), "event_type": event, "resource_type": "incident",
            "occurred_at": "2026-01-02T03:04:05.000Z", "agent": {"id": "PLH1HKV", "summary": "Ada", "type": "user_reference"},
            "client": null, "data": data,
        });
        Delivery::json(&webhook.url, &json!({"event": event}))
            .header("x-webhook-subscription", webhook.id.clone())
            .signed_hex("x-pagerduty-signature", "v1=", &webhook.secret)
    }
}

fn show(webhook: &Webhook) -> Value {
    let disabled = !webhook.enabled;
    json!({
        "id": webhook.id, "type": "webhook_subscription", "active": true, "description": "Bellhop", "events": webhook.events,
        "delivery_method": {"id": format!("D{}", webhook.id), "type": "http_delivery_method", "url": webhook.url,
            "secret": null, "temporarily_disabled": disabled, "custom_headers": []},
        "filter": {"type": webhook.values.get("filter"), "id": webhook.values.get("of")},
    })
}

fn create(desk: &Desk, body: &Value) -> Reply {
    let (method, filter, events) = (&body["delivery_method"], &body["filter"], strings(&body["events"]));
    let names_one = match filter["type"].as_str() {
        Some("account_reference") => filter["id"].is_null(),
        Some("service_reference") => filter["id"] == "P393ZNQ",
        Some("team_reference") => filter["id"].is_string(),
        _ => false,
    };
    if body["type"] != "webhook_subscription" || method["type"] != "http_delivery_method" || !names_one {
        return error(400, 2001, "Invalid Input Provided: filter or delivery_method");
    }
    if events.is_empty() || !method["url"].is_string() {
        return error(400, 2001, "Invalid Input Provided: events or url");
    }
    let number = desk.number();
    let webhook = Webhook::new(format!("PY{number}"), text(&method["url"]))
        .events(events)
        .secret(format!("8DbW{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .value("filter", text(&filter["type"]))
        .value("of", text(&filter["id"]));
    desk.add(webhook.clone());
    let mut shown = show(&webhook);
    shown["delivery_method"]["secret"] = json!(webhook.secret);
    answer_json(201, &json!({"webhook_subscription": shown}))
}

fn list(desk: &Desk, asked: &Asked) -> Reply {
    let limit: usize = asked.query("limit").parse().unwrap_or(25).clamp(1, 100);
    let offset: usize = asked.query("offset").parse().unwrap_or(0);
    let all = desk.all();
    let shown: Vec<Value> = all.iter().skip(offset).take(limit).map(show).collect();
    let more = offset + shown.len() < all.len();
    answer_json(
        200,
        &json!({"webhook_subscriptions": shown, "limit": limit, "offset": offset, "more": more, "total": null}),
    )
}
