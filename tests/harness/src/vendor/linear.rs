//! Linear: GraphQL, whose errors come with the status 200, and a list that goes on at a cursor.
//!
//! Facts: linear/linear packages/sdk/src/schema.graphql (webhooks(first, after), webhookCreate, webhookUpdate,
//! webhookDelete; PageInfo) and packages/sdk/src/webhooks (signature); linear.app/developers/graphql (errors are in
//! `errors`, whatever the status), linear.app/developers/webhooks.
//!
//! The query's text is not interpreted: which operation is meant is seen from its name. A page has two webhooks here.

use super::asked::{strings, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// The API key that is accepted.
pub const KEY: &str = "lin_api_standin-key-of-acme";

const PER_PAGE: usize = 2;

/// Linear.
#[derive(Debug, Default)]
pub struct Linear {
    refusal: Mutex<Option<String>>,
}

impl Linear {
    /// Refuses to create webhooks, in these words; takes it back with nothing.
    pub fn refuse_to_create(&self, words: Option<&str>) {
        *self.refusal.lock().expect("no panic while the lock is held") = words.map(str::to_owned);
    }

    fn refusal(&self) -> Option<String> {
        self.refusal.lock().expect("no panic while the lock is held").clone()
    }
}

fn data(data: Value) -> Reply {
    answer_json(200, &json!({"data": data}))
}

fn error(message: &str) -> Reply {
    answer_json(200, &json!({"data": null, "errors": [{"message": message, "extensions": {"type": "invalid input"}}]}))
}

impl Vendor for Linear {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != KEY {
            return error("Authentication required, not authenticated").into();
        }
        if (asked.method.as_str(), asked.segments().as_slice()) != ("POST", ["graphql"].as_slice()) {
            return Reply::status(404).into();
        }
        let (body, query) = (asked.json(), text(&asked.json()["query"]));
        let variables = &body["variables"];
        if query.contains("viewer") {
            data(json!({"viewer": {"name": "acme-bot"}}))
        } else if query.contains("webhookCreate") {
            match self.refusal() {
                Some(words) => error(&words),
                None => create(desk, &variables["input"]),
            }
        } else if query.contains("webhookUpdate") {
            let (id, input) = (text(&variables["id"]), &variables["input"]);
            let found = desk.change(&id, |webhook| {
                webhook.url = text(&input["url"]);
                webhook.secret = text(&input["secret"]);
                webhook.events = strings(&input["resourceTypes"]);
                webhook.enabled = input["enabled"] != json!(false);
            });
            if found { data(json!({"webhookUpdate": {"success": true}})) } else { error("Entity not found: Webhook") }
        } else if query.contains("webhookDelete") {
            match desk.remove(&text(&variables["id"])) {
                true => data(json!({"webhookDelete": {"success": true}})),
                false => error("Entity not found: Webhook"),
            }
        } else if query.contains("webhooks") {
            list(desk, variables)
        } else {
            error("Cannot query this")
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({
            "type": event, "action": "create", "data": {"number": number}, "webhookId": webhook.id,
            "webhookTimestamp": super::now(),
        });
        Delivery::json(&webhook.url, &body)
            .header("linear-event", event)
            .header("linear-delivery", format!("delivery-{number}"))
            .signed_hex("linear-signature", "", &webhook.secret)
    }
}

fn create(desk: &Desk, input: &Value) -> Reply {
    let id = format!("790ce3f6-ea44-473d-bbd9-{:012}", desk.number());
    let webhook =
        Webhook::new(&id, text(&input["url"])).events(strings(&input["resourceTypes"])).secret(text(&input["secret"]));
    desk.add(webhook);
    data(json!({"webhookCreate": {"success": true, "webhook": {"id": id, "enabled": true}}}))
}

fn list(desk: &Desk, variables: &Value) -> Reply {
    let (all, after) = (desk.all(), text(&variables["after"]));
    let start = match after.as_str() {
        "" => 0,
        after => match all.iter().position(|webhook| format!("cursor:{}", webhook.id) == after) {
            Some(at) => at + 1,
            None => return error("The cursor is invalid"),
        },
    };
    let page: Vec<_> = all.iter().skip(start).take(PER_PAGE).collect();
    let nodes: Vec<Value> = page
        .iter()
        .map(|webhook| {
            json!({"id": webhook.id, "url": webhook.url, "enabled": webhook.enabled, "resourceTypes": webhook.events})
        })
        .collect();
    let end = page.last().map(|webhook| format!("cursor:{}", webhook.id));
    let more = start + PER_PAGE < all.len();
    data(json!({"webhooks": {"nodes": nodes, "pageInfo": {"hasNextPage": more, "endCursor": end}}}))
}
