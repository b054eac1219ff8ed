//! GitHub: a list in numbered pages, whose end a Link header tells.
//!
//! Facts: docs.github.com/en/rest/repos/webhooks and .../using-the-rest-api/using-pagination-in-the-rest-api (`page`,
//! `per_page`, a Link header with rel="next" on all pages but the last, and no such header where one page is all);
//! docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries (signature).
//!
//! A page has at most two webhooks here, so that a few of them fill three pages.

use super::asked::{strings, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_error, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The token that is accepted.
pub const TOKEN: &str = "ghp_standin-token-of-acme";

const MOST_PER_PAGE: usize = 2;

/// GitHub with the repository `acme/web`.
#[derive(Debug, Default)]
pub struct GitHub;

impl Vendor for GitHub {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return answer_error(401, "Bad credentials").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["user"]) => answer_json(200, &json!({"login": "acme-bot"})),
            // Links to other pages name the repository by its id.
            ("GET", ["repos", "acme", "web", "hooks"] | ["repositories", "1", "hooks"]) => list(desk, asked),
            ("POST", ["repos", "acme", "web", "hooks"]) => create(desk, &asked.json()),
            ("PATCH", ["repos", "acme", "web", "hooks", id]) => {
                let body = asked.json();
                let found = desk.change(id, |webhook| {
                    webhook.url = text(&body["config"]["url"]);
                    webhook.secret = text(&body["config"]["secret"]);
                    webhook.events = strings(&body["events"]);
                    webhook.enabled = body["active"] != json!(false);
                });
                if found { answer_json(200, &json!({"id": id})) } else { answer_error(404, "Not Found") }
            }
            ("DELETE", ["repos", "acme", "web", "hooks", id]) => match desk.remove(id) {
                true => Reply::status(204),
                false => answer_error(404, "Not Found"),
            },
            _ => answer_error(404, "Not Found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        Delivery::json(&webhook.url, &json!({"ref": "refs/heads/main", "number": number}))
            .header("x-github-event", event)
            .header("x-github-delivery", format!("delivery-{number}"))
            .signed_hex("x-hub-signature-256", "sha256=", &webhook.secret)
    }
}

fn show(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id.parse::<u64>().unwrap_or_default(),
        "name": "web",
        "active": webhook.enabled,
        "events": webhook.events,
        // GitHub shows that there is a secret, and not which.
        "config": {"url": webhook.url, "content_type": "json", "secret": "********"},
    })
}

fn create(desk: &Desk, body: &Value) -> Reply {
    let url = text(&body["config"]["url"]);
    if desk.all().iter().any(|webhook| webhook.url == url) {
        return answer_error(422, "Hook already exists on this repository");
    }
    let webhook = Webhook::new(desk.number().to_string(), url)
        .events(strings(&body["events"]))
        .secret(text(&body["config"]["secret"]));
    desk.add(webhook.clone());
    answer_json(201, &show(&webhook))
}

fn list(desk: &Desk, asked: &Asked) -> Reply {
    let per_page = asked.query("per_page").parse().unwrap_or(30).clamp(1, MOST_PER_PAGE);
    let page = asked.query("page").parse().unwrap_or(1).max(1);
    let all = desk.all();
    let items: Vec<Value> = all.iter().skip((page - 1) * per_page).take(per_page).map(show).collect();
    let reply = answer_json(200, &json!(items));
    let last = all.len().div_ceil(per_page).max(1);
    let link = |page: usize, rel: &str| {
        format!("<{}/repositories/1/hooks?per_page={per_page}&page={page}>; rel=\"{rel}\"", asked.origin())
    };
    let mut links = Vec::new();
    if page > 1 {
        links.extend([link(1, "first"), link(page - 1, "prev")]);
    }
    if page < last {
        links.extend([link(page + 1, "next"), link(last, "last")]);
    }
    if links.is_empty() { reply } else { reply.header("link", &links.join(", ")) }
}
