//! Microsoft Graph: create fails unless the callback URL echoes a token within it; the subscription ends, and a PATCH
//! prolongs it.
//!
//! Facts: microsoftgraph/microsoft-graph-docs-contrib concepts/change-notifications-delivery-webhooks.md,
//! concepts/includes/change-notifications-delivery-notificationurl-validation.md (POST with `validationToken` in the
//! query, to be answered with 200, text/plain and the decoded token), api-reference/v1.0/resources/subscription.md,
//! api-reference/v1.0/api/subscription-{post-subscriptions,update,delete,list}.md (`clientState`, 404 after the end).
//!
//! Instead of: `expirationDateTime`, which Graph needs and which is days away, may be left out: the life is what the test
//! says.

use super::asked::text;
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json, millis, now};
use crate::server::Reply;
use futures::FutureExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The access token that is accepted.
pub const TOKEN: &str = "eyJ0-standin-token-of-acme";

/// Contains what must be decoded and encoded rightly on the way.
const VALIDATION: &str = "Validation: Testing client application reachability for a+b & \"c/d\" %41";

/// Microsoft Graph.
#[derive(Debug)]
pub struct MicrosoftGraph {
    /// How long a subscription lives.
    pub life: Duration,
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    answer_json(status, &json!({"error": {"code": code, "message": message}}))
}

impl Vendor for MicrosoftGraph {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.header("authorization") != format!("Bearer {TOKEN}") {
            return error(401, "InvalidAuthenticationToken", "Access token is empty.").into();
        }
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["v1.0", "me"]) => answer_json(200, &json!({"userPrincipalName": "bot@acme.example"})),
            ("GET", ["v1.0", "subscriptions"]) => {
                let subscriptions: Vec<Value> = desk.all().iter().map(show).collect();
                answer_json(200, &json!({"value": subscriptions}))
            }
            ("POST", ["v1.0", "subscriptions"]) => {
                return Answer::Later(subscribe(desk.clone(), asked.json(), self.life).boxed());
            }
            ("PATCH", ["v1.0", "subscriptions", id]) => {
                let expires = now() + millis(self.life);
                match desk.change(id, |webhook| webhook.expires_at = Some(expires)) {
                    true => answer_json(200, &json!({"id": id, "expirationDateTime": iso(expires)})),
                    false => error(404, "ResourceNotFound", "The object was not found."),
                }
            }
            ("DELETE", ["v1.0", "subscriptions", id]) => match desk.remove(id) {
                true => Reply::status(204),
                false => error(404, "ResourceNotFound", "The object was not found."),
            },
            _ => error(404, "ResourceNotFound", "Resource not found for the segment."),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let item = json!({"subscriptionId": webhook.id, "clientState": webhook.secret, "changeType": event,
            "resource": format!("Users/a/Messages/{number}"), "id": format!("notification-{number}")});
        Delivery::json(&webhook.url, &json!({"value": [item]}))
    }
}

/// RFC 3339 in UTC, with a tenth of a microsecond as Graph writes it.
fn iso(at: i64) -> String {
    let time = k8s_openapi::jiff::Timestamp::from_millisecond(at).expect("the test's time has a date");
    time.strftime("%Y-%m-%dT%H:%M:%S%.7fZ").to_string()
}

fn show(webhook: &Webhook) -> Value {
    json!({
        "id": webhook.id,
        "notificationUrl": webhook.url,
        "changeType": webhook.events.join(","),
        "clientState": null,
        "expirationDateTime": webhook.expires_at.map(iso),
    })
}

async fn subscribe(desk: Arc<Desk>, body: Value, life: Duration) -> Reply {
    let (url, state) = (text(&body["notificationUrl"]), text(&body["clientState"]));
    if state.len() > 128 {
        return error(400, "InvalidRequest", "clientState is longer than 128 characters.");
    }
    let mut probe = match reqwest::Url::parse(&url) {
        Ok(url) => url,
        Err(_) => return error(400, "InvalidRequest", "notificationUrl is invalid."),
    };
    probe.query_pairs_mut().append_pair("validationToken", VALIDATION);
    let failed = |why: &str| error(400, "ValidationError", &format!("Subscription validation request failed. {why}"));
    match Delivery::empty(probe).header("content-type", "text/plain; charset=utf-8").send().await {
        Err(_) => return failed("No answer."),
        Ok(answered) if answered.status != 200 => {
            return failed(&format!("HTTP status code is '{}'.", answered.status));
        }
        Ok(answered) if !answered.header("content-type").starts_with("text/plain") => {
            return failed(&format!("The content type is '{}'.", answered.header("content-type")));
        }
        Ok(answered) if answered.body != VALIDATION => return failed("The token is another one."),
        Ok(_) => {}
    }
    let webhook = Webhook::new(format!("7f105c7d-2dc5-4530-97cd-{:012}", desk.number()), url)
        .events(text(&body["changeType"]).split(','))
        .secret(state)
        .lives(life);
    desk.add(webhook.clone());
    answer_json(201, &show(&webhook))
}
