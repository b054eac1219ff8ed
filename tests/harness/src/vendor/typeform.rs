//! Typeform: an upsert under a name that the caller gives.
//!
//! Facts: typeform.com/developers/webhooks/reference/create-or-update-webhook (PUT /forms/{form_id}/webhooks/{tag}),
//! .../retrieve-webhooks, .../delete-single-webhook; typeform.com/developers/webhooks/secure-your-webhooks (signature).

use super::asked::text;
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The access token that is accepted.
pub const TOKEN: &str = "tfp_standin-token-of-acme";

/// Typeform with the form `feedback`.
#[derive(Debug, Default)]
pub struct Typeform;

fn error(status: u16, code: &str, description: &str) -> Reply {
    answer_json(status, &json!({"code": code, "description": description}))
}

impl Vendor for Typeform {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return error(401, "AUTHENTICATION_FAILED", "Authentication credentials not found on the Request Headers")
                .into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["me"]) => answer_json(200, &json!({"alias": "acme-bot"})),
            ("GET", ["forms", "feedback", "webhooks"]) => {
                answer_json(200, &json!({"items": desk.all().iter().map(show).collect::<Vec<_>>()}))
            }
            ("PUT", ["forms", "feedback", "webhooks", tag]) => {
                let body = asked.json();
                let events = body["event_types"].as_object().into_iter().flatten();
                let webhook = Webhook::new(*tag, text(&body["url"]))
                    .events(events.filter(|(_, on)| **on == json!(true)).map(|(name, _)| name.as_str()))
                    .secret(text(&body["secret"]));
                let webhook = Webhook { enabled: body["enabled"] == json!(true), ..webhook };
                if !desk.change(tag, |found| *found = webhook.clone()) {
                    desk.add(webhook.clone());
                }
                answer_json(200, &show(&webhook))
            }
            ("DELETE", ["forms", "feedback", "webhooks", tag]) => match desk.remove(tag) {
                true => Reply::status(204),
                false => error(404, "NOT_FOUND", "webhook not found"),
            },
            _ => error(404, "NOT_FOUND", "form not found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({"event_id": format!("event-{number}"), "event_type": event,
            "form_response": {"form_id": "feedback", "token": format!("token-{number}")}});
        Delivery::json(&webhook.url, &body).signed_base64("typeform-signature", "sha256=", &webhook.secret)
    }
}

fn show(webhook: &Webhook) -> Value {
    json!({"id": "01FXYZ", "form_id": "feedback", "tag": webhook.id, "url": webhook.url, "enabled": webhook.enabled})
}
