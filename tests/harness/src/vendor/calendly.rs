//! Calendly: a call before the first create reads the organization, a webhook's id is the end of a URI, and a second webhook
//! with the same URL is refused while none can be changed.
//!
//! Facts: developer.calendly.com/api-docs, "Get current user" (resource.current_organization), "Create Webhook
//! Subscription" (url, events, organization, scope, signing_key; resource.uri), "List Webhook Subscriptions"
//! (`organization` and `scope` are needed; pagination.next_page is a URL or null), "Delete Webhook Subscription".
//!
//! Instead of: Calendly signs time and body, `t=...,v1=...`. Here, the raw body is signed, and the header is `v1=...`.

use super::asked::{strings, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The token that is accepted.
pub const TOKEN: &str = "eyJ-standin-token-of-acme";

const ORGANIZATION: &str = "https://api.calendly.com/organizations/AAAAAAAAAAAAAAAA";
const PER_PAGE: usize = 2;

/// Calendly with one organization.
#[derive(Debug, Default)]
pub struct Calendly;

fn error(status: u16, title: &str, message: &str) -> Reply {
    answer_json(status, &json!({"title": title, "message": message}))
}

impl Vendor for Calendly {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return error(401, "Unauthenticated", "The access token is invalid").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["users", "me"]) => {
                let resource = json!({"name": "acme-bot", "uri": format!("{}/users/BBBB", asked.origin()),
                    "current_organization": ORGANIZATION});
                answer_json(200, &json!({"resource": resource}))
            }
            ("GET", ["webhook_subscriptions"]) => list(desk, asked),
            ("POST", ["webhook_subscriptions"]) => create(desk, asked),
            ("DELETE", ["webhook_subscriptions", id]) => match desk.remove(id) {
                true => Reply::status(204),
                false => error(404, "Resource Not Found", "The server could not find the requested resource."),
            },
            _ => error(404, "Resource Not Found", "The server could not find the requested resource."),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({"event": event, "payload": {"uri": format!("https://api.calendly.com/invitees/{number}"),
            "email": "a@example.com"}});
        Delivery::json(&webhook.url, &body).signed_hex("calendly-webhook-signature", "v1=", &webhook.secret)
    }
}

fn show(webhook: &Webhook, origin: &str) -> Value {
    json!({
        "uri": format!("{origin}/webhook_subscriptions/{}", webhook.id),
        "callback_url": webhook.url,
        "state": if webhook.enabled { "active" } else { "disabled" },
        "events": webhook.events,
        "organization": ORGANIZATION,
    })
}

fn create(desk: &Desk, asked: &Asked) -> Reply {
    let body = asked.json();
    if body["organization"] != ORGANIZATION || body["scope"] != "organization" {
        return error(400, "Invalid Argument", "The supplied parameters are invalid.");
    }
    let url = text(&body["url"]);
    if desk.all().iter().any(|webhook| webhook.url == url) {
        return error(409, "Already Exists", "Hook with this url already exists");
    }
    let id = format!("c0ffee00-0000-4000-8000-{:012}", desk.number());
    let webhook = Webhook::new(id, url).events(strings(&body["events"])).secret(text(&body["signing_key"]));
    desk.add(webhook.clone());
    answer_json(201, &json!({"resource": show(&webhook, &asked.origin())}))
}

fn list(desk: &Desk, asked: &Asked) -> Reply {
    if asked.query("organization") != ORGANIZATION || asked.query("scope") != "organization" {
        return error(400, "Invalid Argument", "The supplied parameters are invalid.");
    }
    let start: usize = asked.query("page_token").parse().unwrap_or(0);
    let all = desk.all();
    let items: Vec<Value> =
        all.iter().skip(start).take(PER_PAGE).map(|webhook| show(webhook, &asked.origin())).collect();
    let next = (start + PER_PAGE < all.len()).then(|| {
        format!(
            "{}/webhook_subscriptions?scope=organization&organization={}&page_token={}",
            asked.origin(),
            ORGANIZATION.replace(':', "%3A").replace('/', "%2F"),
            start + PER_PAGE
        )
    });
    answer_json(200, &json!({"collection": items, "pagination": {"count": items.len(), "next_page": next}}))
}
