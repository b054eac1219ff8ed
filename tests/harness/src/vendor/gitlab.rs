//! GitLab: events are boolean flags, of which one is on unless it is switched off.
//!
//! Facts: docs.gitlab.com/api/project_webhooks (flags such as `push_events`, `token`, project by id or encoded path; the
//! token is not shown again), docs.gitlab.com/user/project/integrations/webhook_events (object_kind, X-Gitlab-Event),
//! docs.gitlab.com/user/project/integrations/webhooks (X-Gitlab-Token, Idempotency-Key); gitlab-org/gitlab
//! app/models/hooks/web_hook.rb.

use super::asked::text;
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_error, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The access token that is accepted.
pub const TOKEN: &str = "glpat-standin-token-of-acme";

/// The flags, with the names of their events in callbacks and their defaults.
const FLAGS: [(&str, &str, bool); 4] = [
    ("push_events", "push", true),
    ("issues_events", "issue", false),
    ("merge_requests_events", "merge_request", false),
    ("tag_push_events", "tag_push", false),
];

/// GitLab with the project `acme/web`.
#[derive(Debug, Default)]
pub struct GitLab;

impl Vendor for GitLab {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("private-token") != TOKEN {
            return answer_error(401, "401 Unauthorized").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["api", "v4", "user"]) => answer_json(200, &json!({"username": "acme-bot"})),
            ("GET", ["api", "v4", "projects", "acme/web", "hooks"]) => {
                answer_json(200, &desk.all().iter().map(show).collect())
            }
            ("POST", ["api", "v4", "projects", "acme/web", "hooks"]) => {
                let body = asked.json();
                let events = FLAGS.iter().filter(|flag| body[flag.0].as_bool().unwrap_or(flag.2)).map(|flag| flag.1);
                let webhook = Webhook::new(desk.number().to_string(), text(&body["url"]))
                    .events(events)
                    .secret(text(&body["token"]));
                desk.add(webhook.clone());
                answer_json(201, &show(&webhook))
            }
            ("PUT", ["api", "v4", "projects", "acme/web", "hooks", id]) => {
                let body = asked.json();
                let found = desk.change(id, |webhook| {
                    let on = |flag: &(&str, &str, bool)| {
                        body[flag.0].as_bool().unwrap_or_else(|| webhook.events.iter().any(|event| event == flag.1))
                    };
                    webhook.events = FLAGS.iter().filter(|flag| on(flag)).map(|flag| flag.1.to_owned()).collect();
                    webhook.url = text(&body["url"]);
                    if let Some(token) = body["token"].as_str() {
                        webhook.secret = token.to_owned();
                    }
                });
                if found { answer_json(200, &json!({"id": id})) } else { answer_error(404, "404 Not found") }
            }
            ("DELETE", ["api", "v4", "projects", "acme/web", "hooks", id]) => match desk.remove(id) {
                true => Reply::status(204),
                false => answer_error(404, "404 Not found"),
            },
            _ => answer_error(404, "404 Project Not Found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        Delivery::json(&webhook.url, &json!({"object_kind": event, "ref": "refs/heads/main", "number": number}))
            .header("x-gitlab-event", hook(event))
            .header("x-gitlab-event-uuid", format!("event-{number}"))
            .header("idempotency-key", format!("delivery-{number}"))
            .header("x-gitlab-token", webhook.secret.clone())
    }
}

/// What the header X-Gitlab-Event says, such as "Merge Request Hook".
fn hook(event: &str) -> String {
    let words = event.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
    words.chain(["Hook".to_owned()]).collect::<Vec<_>>().join(" ")
}

fn show(webhook: &Webhook) -> Value {
    let mut shown = json!({
        "id": webhook.id.parse::<u64>().unwrap_or_default(),
        "url": webhook.url,
        "token_present": !webhook.secret.is_empty(),
        "alert_status": if webhook.enabled { "executable" } else { "disabled" },
    });
    for (flag, event, _) in FLAGS {
        shown[flag] = json!(webhook.events.iter().any(|on| on == event));
    }
    shown
}
