//! Webflow: one webhook for each event, and each has a secret of its own, which the answer to create tells.
//!
//! Facts: developers.webflow.com/data/reference/webhooks (create for a site with one `triggerType` and `url`, list of a
//! site, delete by id alone), developers.webflow.com/data/docs/working-with-webhooks (`triggerType` and `payload` of a
//! delivery; x-webflow-signature; for webhooks that a site token has made, `secretKey` in the answer to create).
//!
//! Instead of: Webflow signs time and body. Here, the raw body is signed. Its list has pages; here, it has one.

use super::asked::text;
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The site token that is accepted.
pub const TOKEN: &str = "wf-standin-token-of-acme";

/// The events that exist here.
const TRIGGER_TYPES: [&str; 3] = ["form_submission", "site_publish", "page_created"];

/// Webflow with the site `acme`.
#[derive(Debug, Default)]
pub struct Webflow;

fn error(status: u16, code: &str, message: &str) -> Reply {
    answer_json(status, &json!({"code": code, "message": message}))
}

impl Vendor for Webflow {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return error(401, "not_authorized", "Request not authorized").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["v2", "sites", "acme"]) => answer_json(200, &json!({"id": "acme", "displayName": "Acme"})),
            ("GET", ["v2", "sites", "acme", "webhooks"]) => {
                let webhooks: Vec<Value> = desk.all().iter().map(show).collect();
                answer_json(200, &json!({"webhooks": webhooks}))
            }
            ("POST", ["v2", "sites", "acme", "webhooks"]) => create(desk, &asked.json()),
            ("DELETE", ["v2", "webhooks", id]) => match desk.remove(id) {
                true => Reply::status(204),
                false => error(404, "resource_not_found", "Requested resource not found"),
            },
            _ => error(404, "resource_not_found", "Requested resource not found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({"triggerType": event, "payload": {"id": number.to_string(), "siteId": "acme"}});
        Delivery::json(&webhook.url, &body).signed_hex("x-webflow-signature", "", &webhook.secret)
    }
}

fn show(webhook: &Webhook) -> Value {
    json!({"id": webhook.id, "triggerType": webhook.events.first(), "siteId": "acme", "url": webhook.url})
}

fn create(desk: &Desk, body: &Value) -> Reply {
    let (trigger_type, url) = (text(&body["triggerType"]), text(&body["url"]));
    if !TRIGGER_TYPES.contains(&trigger_type.as_str()) || url.is_empty() {
        return error(400, "validation_error", "Validation Error: triggerType or url");
    }
    let number = desk.number();
    let webhook = Webhook::new(format!("57ca0a9e418c504a6e1a{number:04}"), url)
        .events([trigger_type])
        .secret(format!("a2f8c{:016x}", number * 0x9e37_79b9));
    desk.add(webhook.clone());
    let mut shown = show(&webhook);
    shown["secretKey"] = json!(webhook.secret);
    answer_json(200, &shown)
}
