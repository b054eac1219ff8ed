//! Bitbucket Cloud: a list whose next page is a URL in the body, and ids in braces.
//!
//! Facts: developer.atlassian.com/cloud/bitbucket/rest/api-group-repositories (hooks: `url`, `events`, `active`, `secret`,
//! `uuid` in braces), developer.atlassian.com/cloud/bitbucket/rest/intro (`next` is a URL to follow as it is, and is
//! missing on the last page), support.atlassian.com/bitbucket-cloud/docs/manage-webhooks (signature); n8n-io/n8n
//! packages/nodes-base/nodes/Bitbucket/BitbucketTrigger.node.ts (the id without its braces in URLs).
//!
//! A page has two webhooks here, so that a few of them fill three pages.

use super::asked::{strings, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The token that is accepted.
pub const TOKEN: &str = "ATCTT-standin-token-of-acme";

const PER_PAGE: usize = 2;

/// Bitbucket with the repository `acme/web`.
#[derive(Debug, Default)]
pub struct Bitbucket;

fn error(status: u16, message: &str) -> Reply {
    answer_json(status, &json!({"type": "error", "error": {"message": message}}))
}

impl Vendor for Bitbucket {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return error(401, "Token is invalid or not supported for this endpoint.").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["2.0", "user"]) => answer_json(200, &json!({"display_name": "acme-bot"})),
            ("GET", ["2.0", "repositories", "acme", "web", "hooks"]) => list(desk, asked),
            ("POST", ["2.0", "repositories", "acme", "web", "hooks"]) => {
                let body = asked.json();
                let webhook =
                    Webhook::new(format!("6a5f2d3c-0000-4000-8000-{:012}", desk.number()), text(&body["url"]))
                        .events(strings(&body["events"]))
                        .secret(text(&body["secret"]));
                desk.add(webhook.clone());
                answer_json(201, &show(&webhook))
            }
            ("PUT", ["2.0", "repositories", "acme", "web", "hooks", id]) => {
                let body = asked.json();
                let found = desk.change(id, |webhook| {
                    webhook.url = text(&body["url"]);
                    webhook.secret = text(&body["secret"]);
                    webhook.events = strings(&body["events"]);
                    webhook.enabled = body["active"] == json!(true);
                });
                if found { answer_json(200, &json!({"uuid": format!("{{{id}}}")})) } else { error(404, "Not found") }
            }
            ("DELETE", ["2.0", "repositories", "acme", "web", "hooks", id]) => match desk.remove(id) {
                true => Reply::status(204),
                false => error(404, "Not found"),
            },
            _ => error(404, "Resource not found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        Delivery::json(&webhook.url, &json!({"repository": {"full_name": "acme/web"}, "number": number}))
            .header("x-event-key", event)
            .header("x-hook-uuid", webhook.id.clone())
            .header("x-request-uuid", format!("request-{number}"))
            .signed_hex("x-hub-signature", "sha256=", &webhook.secret)
    }
}

fn show(webhook: &Webhook) -> Value {
    json!({
        "type": "webhook_subscription",
        "uuid": format!("{{{}}}", webhook.id),
        "url": webhook.url,
        "active": webhook.enabled,
        "events": webhook.events,
        "secret_set": !webhook.secret.is_empty(),
    })
}

fn list(desk: &Desk, asked: &Asked) -> Reply {
    // What stands in `next` is Bitbucket's own business; only the server can make sense of it.
    let page: usize = asked.query("ctx").strip_prefix("page-").and_then(|page| page.parse().ok()).unwrap_or(0);
    let all = desk.all();
    let items: Vec<Value> = all.iter().skip(page * PER_PAGE).take(PER_PAGE).map(show).collect();
    let mut body = json!({"pagelen": PER_PAGE, "values": items});
    if all.len() > (page + 1) * PER_PAGE {
        let next = format!("{}/2.0/repositories/acme/web/hooks?ctx=page-{}", asked.origin(), page + 1);
        body["next"] = json!(next);
    }
    answer_json(200, &body)
}
