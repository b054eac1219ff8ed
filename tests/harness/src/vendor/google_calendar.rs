//! Google Calendar: a channel cannot be renewed, listed or read; its caller chooses its id, and it takes two ids to stop it.
//!
//! Facts: developers.google.com/workspace/calendar/api/guides/push (a new channel before the old one ends; the `sync`
//! message; the headers X-Goog-*; no body), .../api/v3/reference/events/watch (`id`, `token`, `type`, `address`;
//! `resourceId`, and `expiration` in milliseconds since the epoch), .../api/v3/reference/channels/stop.

use super::asked::text;
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use futures::FutureExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The access token that is accepted.
pub const TOKEN: &str = "ya29.standin-token-of-acme";

/// The first message of a channel, for [`Vendor::delivery`].
pub const SYNC: &str = "sync";

/// Google Calendar with the calendar `primary`.
#[derive(Debug)]
pub struct GoogleCalendar {
    /// How long a channel lives.
    pub life: Duration,
}

fn error(status: u16, message: &str) -> Reply {
    answer_json(status, &json!({"error": {"code": status, "message": message}}))
}

impl Vendor for GoogleCalendar {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return error(401, "Request had invalid authentication credentials.").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["calendar", "v3", "calendars", "primary"]) => answer_json(200, &json!({"id": "bot@acme.example"})),
            ("POST", ["calendar", "v3", "calendars", "primary", "events", "watch"]) => {
                return Answer::Later(watch(desk.clone(), asked.json(), self.life).boxed());
            }
            ("POST", ["calendar", "v3", "channels", "stop"]) => {
                let body = asked.json();
                let (id, resource) = (text(&body["id"]), text(&body["resourceId"]));
                let known = desk.get(&id).is_some_and(|webhook| webhook.values["resourceId"] == resource);
                match known && desk.remove(&id) {
                    true => Reply::status(204),
                    false => error(404, &format!("Channel '{id}' not found for project 'acme'")),
                }
            }
            _ => error(404, "Not Found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        Delivery::empty(&webhook.url)
            .header("x-goog-channel-id", webhook.id.clone())
            .header("x-goog-channel-token", webhook.secret.clone())
            .header("x-goog-resource-id", webhook.values["resourceId"].clone())
            .header("x-goog-resource-state", event)
            .header("x-goog-message-number", number.to_string())
    }
}

async fn watch(desk: Arc<Desk>, body: Value, life: Duration) -> Reply {
    let (id, url) = (text(&body["id"]), text(&body["address"]));
    if id.is_empty() || body["type"] != "web_hook" {
        return error(400, "Required: id, type");
    }
    if desk.timeline().iter().any(|channel| channel.id == id) {
        return error(400, &format!("Channel id {id} not unique"));
    }
    let resource = format!("o3hgv1538sdj-{}", desk.number());
    let webhook = Webhook::new(id, url).secret(text(&body["token"])).value("resourceId", &resource).lives(life);
    desk.add(webhook.clone());
    // The first message comes at about the time of the answer; nothing hangs on what it is answered.
    let sync = GoogleCalendar { life }.delivery(&webhook, SYNC, 0);
    tokio::spawn(sync.send());
    answer_json(
        200,
        &json!({"kind": "api#channel", "id": webhook.id, "resourceId": resource,
            "expiration": webhook.expires_at.map(|at| at.to_string())}),
    )
}
