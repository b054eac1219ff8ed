//! Notion: a webhook is made by hand; the first callback, which nobody signs, brings the key of all later ones.
//!
//! Facts: developers.notion.com/reference/webhooks (the POST with `verification_token`, which a person pastes into the
//! page; X-Notion-Signature with the token as its key; `type` and `id` in the body).

use super::{Answer, Answered, Asked, Delivery, Desk, Vendor, Webhook, answer_error};
use anyhow::Result;
use serde_json::json;
use std::sync::Arc;

/// Notion, whose page the test's person uses.
#[derive(Debug, Default)]
pub struct Notion;

impl Notion {
    /// A person enters the callback URL in the page: Notion sends the token there. What the callback URL answers
    /// decides nothing; the token has to be pasted.
    ///
    /// # Errors
    /// The callback URL cannot be called.
    pub async fn enter_url(&self, url: &str, token: &str) -> Result<Answered> {
        Delivery::json(url, &json!({"verification_token": token})).send().await
    }

    /// A person pastes a token: if it is the one that was sent, the webhook is active.
    pub fn paste(&self, desk: &Desk, url: &str, sent: &str, pasted: &str) -> bool {
        if sent == pasted {
            desk.add(Webhook::new(desk.number().to_string(), url).secret(sent));
        }
        sent == pasted
    }
}

impl Vendor for Notion {
    fn answer(&self, _: &Arc<Desk>, _: &Asked) -> Answer {
        answer_error(404, "There is no API for webhooks.").into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let body = json!({"id": format!("event-{number}"), "type": event, "attempt_number": 1,
            "entity": {"id": "page", "type": "page"}});
        Delivery::json(&webhook.url, &body).signed_hex("x-notion-signature", "sha256=", &webhook.secret)
    }
}
