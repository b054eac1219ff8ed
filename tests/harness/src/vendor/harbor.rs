//! Harbor: the answer to create is empty, and the id is the end of its Location header.
//!
//! Facts: goharbor/harbor api/v2.0/swagger.yaml (webhook policies; `page`, `page_size`, X-Total-Count and Link),
//! src/server/v2.0/handler/webhook.go (Location), src/server/v2.0/handler/base.go (relative URLs in Link),
//! src/jobservice/job/impl/notification/webhook_job.go (`auth_header` comes as Authorization);
//! goharbor.io/docs, "Configure Webhook Notifications" (the payload).

use super::asked::{strings, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The robot account that is accepted.
pub const USER: &str = "robot$acme+bellhop";
/// Its secret.
pub const PASSWORD: &str = "standin-secret-of-acme";

const MOST_PER_PAGE: usize = 2;
const POLICIES: &str = "/api/v2.0/projects/web/webhook/policies";

/// Harbor with the project `web`.
#[derive(Debug, Default)]
pub struct Harbor;

fn error(status: u16, code: &str, message: &str) -> Reply {
    answer_json(status, &json!({"errors": [{"code": code, "message": message}]}))
}

impl Vendor for Harbor {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.basic() != Some((USER.to_owned(), PASSWORD.to_owned())) {
            return error(401, "UNAUTHORIZED", "unauthorized").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["api", "v2.0", "projects", "web"]) => answer_json(200, &json!({"name": "web"})),
            ("GET", ["api", "v2.0", "projects", "web", "webhook", "policies"]) => list(desk, asked),
            ("POST", ["api", "v2.0", "projects", "web", "webhook", "policies"]) => {
                let (body, number) = (asked.json(), desk.number());
                desk.add(read(Webhook::new(number.to_string(), ""), &body));
                Reply::status(201).header("location", &format!("{POLICIES}/{number}"))
            }
            ("PUT", ["api", "v2.0", "projects", "web", "webhook", "policies", id]) => {
                match desk.change(id, |webhook| *webhook = read(webhook.clone(), &asked.json())) {
                    true => Reply::status(200),
                    false => error(404, "NOT_FOUND", "webhook policy not found"),
                }
            }
            ("DELETE", ["api", "v2.0", "projects", "web", "webhook", "policies", id]) => match desk.remove(id) {
                true => Reply::status(200),
                false => error(404, "NOT_FOUND", "webhook policy not found"),
            },
            _ => error(404, "NOT_FOUND", "not found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({"type": event, "occur_at": 1_700_000_000 + number, "operator": "acme",
            "event_data": {"repository": {"repo_full_name": "web/app"}, "resources": [{"tag": "v1"}]}});
        Delivery::json(&webhook.url, &body).header("authorization", webhook.secret.clone())
    }
}

fn read(webhook: Webhook, body: &Value) -> Webhook {
    let target = &body["targets"][0];
    let mut webhook = webhook.events(strings(&body["event_types"])).secret(text(&target["auth_header"]));
    webhook.url = text(&target["address"]);
    webhook.enabled = body["enabled"] == json!(true);
    webhook
}

fn show(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id.parse::<u64>().unwrap_or_default(),
        "enabled": webhook.enabled,
        "event_types": webhook.events,
        "targets": [{"type": "http", "address": webhook.url, "auth_header": webhook.secret}],
    })
}

fn list(desk: &Desk, asked: &Asked) -> Reply {
    let size = asked.query("page_size").parse().unwrap_or(10).clamp(1, MOST_PER_PAGE);
    let page = asked.query("page").parse().unwrap_or(1).max(1);
    let all = desk.all();
    let items: Vec<Value> = all.iter().skip((page - 1) * size).take(size).map(show).collect();
    let mut links = Vec::new();
    if page > 1 {
        links.push(format!("<{POLICIES}?page={}&page_size={size}>; rel=\"prev\"", page - 1));
    }
    if page * size < all.len() {
        links.push(format!("<{POLICIES}?page={}&page_size={size}>; rel=\"next\"", page + 1));
    }
    let reply = answer_json(200, &json!(items)).header("x-total-count", &all.len().to_string());
    if links.is_empty() { reply } else { reply.header("link", &links.join(" , ")) }
}
