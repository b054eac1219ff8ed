//! Sentry: the webhook of an internal integration, whose URL is entered by hand; its client secret signs.
//!
//! Facts: docs.sentry.io/organization/integrations/integration-platform/webhooks/ and .../webhooks/issues/ (the headers
//! Sentry-Hook-Resource, Sentry-Hook-Timestamp, Sentry-Hook-Signature and Request-ID; `action`, `installation`, `data`, `actor`).

use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json, now};
use serde_json::json;
use std::sync::Arc;

/// Sentry with one internal integration.
#[derive(Debug)]
pub struct Sentry {
    /// The integration's client secret.
    pub client_secret: String,
}

impl Sentry {
    /// A person saves the integration with this webhook URL; nothing is asked of it.
    pub fn enter_url(&self, desk: &Desk, url: &str) {
        desk.add(Webhook::new(desk.number().to_string(), url).secret(&self.client_secret));
    }
}

impl Vendor for Sentry {
    fn answer(&self, _: &Arc<Desk>, _: &Asked) -> Answer {
        answer_json(404, &json!({"detail": "The requested resource does not exist"})).into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let issue = json!({
            "id": number.to_string(), "shortId": format!("WEB-{number}"), "title": "ReferenceError: blooopy is not defined",
            "culprit": "?(runner)", "level": "error", "status": "unresolved", "substatus": "new", "platform": "javascript",
            "project": {"id": "1", "name": "web", "slug": "web", "platform": "javascript"},
            "web_url": format!("https://acme.sentry.io/issues/{number}/"), "assignedTo": null, "count": "1",
            "firstSeen": "2026-01-02T03:04:05.000000Z", "issueType": "error", "issueCategory": "error", "priority": "high",
        });
        let body = json!({
            "action": "created", "installation": {"uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de"}, "data": {"issue": issue},
            "actor": {"type": "application", "id": "sentry", "name": "Sentry"},
        });
        Delivery::json(&webhook.url, &body)
            .header("request-id", format!("{number:032x}"))
            .header("sentry-hook-resource", event)
            .header("sentry-hook-timestamp", (now() / 1000).to_string())
            .signed_hex("sentry-hook-signature", "", &self.client_secret)
    }
}
