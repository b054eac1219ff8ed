//! Mailgun: one entry for each event, under the event's name; form encoding; HTTP Basic authentication.
//!
//! Facts: documentation.mailgun.com, "Webhooks" (POST with `id`, the event, and `url`; GET gives a map from event to
//! URLs; DELETE by event); mailgun/mailgun-go webhooks.go and mtypes/webhooks.go.
//!
//! Instead of: Mailgun signs a timestamp and a token that stand in the body, with a key of the account. Here, the raw
//! body is signed, in the header x-standin-signature, with a key that comes with each entry, in the field
//! `signing-key` that Mailgun does not have.

use super::asked::first;
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_error, answer_json};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The API key that is accepted.
pub const KEY: &str = "key-standin-key-of-acme";

/// Mailgun with the domain `mail.acme.example`.
#[derive(Debug, Default)]
pub struct Mailgun;

impl Vendor for Mailgun {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.basic() != Some(("api".to_owned(), KEY.to_owned())) {
            return answer_error(401, "Invalid private key").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["v3", "domains", "mail.acme.example", "webhooks"]) => {
                let entries: Map<String, Value> =
                    desk.all().iter().map(|webhook| (webhook.id.clone(), json!({"urls": [webhook.url]}))).collect();
                answer_json(200, &json!({"webhooks": entries}))
            }
            ("POST", ["v3", "domains", "mail.acme.example", "webhooks"]) => {
                let form = asked.form();
                let (event, url) = (first(&form, "id"), first(&form, "url"));
                if event.is_empty() || url.is_empty() {
                    answer_error(400, "Missing mandatory parameter: id or url")
                } else if desk.get(event).is_some() {
                    answer_error(400, "Webhook already exists")
                } else {
                    desk.add(Webhook::new(event, url).events([event]).secret(first(&form, "signing-key")));
                    answer_json(200, &json!({"message": "Webhook has been created", "webhook": {"urls": [url]}}))
                }
            }
            ("PUT", ["v3", "domains", "mail.acme.example", "webhooks", event]) => {
                let form = asked.form();
                let found = desk.change(event, |webhook| {
                    webhook.url = first(&form, "url").to_owned();
                    webhook.secret = first(&form, "signing-key").to_owned();
                });
                match found {
                    true => answer_json(200, &json!({"message": "Webhook has been updated"})),
                    false => answer_error(404, "Webhook not found"),
                }
            }
            ("DELETE", ["v3", "domains", "mail.acme.example", "webhooks", event]) => match desk.remove(event) {
                true => answer_json(200, &json!({"message": "Webhook has been deleted"})),
                false => answer_error(404, "Webhook not found"),
            },
            ("GET", ["v3", "domains", "mail.acme.example"]) => {
                answer_json(200, &json!({"domain": {"name": "mail.acme.example"}}))
            }
            _ => answer_error(404, "Domain not found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body =
            json!({"event-data": {"event": event, "id": format!("event-{number}"), "recipient": "a@example.com"}});
        Delivery::json(&webhook.url, &body).signed_hex("x-standin-signature", "", &webhook.secret)
    }
}
