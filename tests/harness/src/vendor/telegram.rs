//! Telegram: one webhook for each bot, set and set again by the same call; the token stands in the URL's path; an error
//! is `ok: false`.
//!
//! Facts: core.telegram.org/bots/api (making requests: /bot<token>/METHOD, `ok` says whether it was successful;
//! setWebhook with `secret_token` and `allowed_updates`, getWebhookInfo with an empty `url` where there is none,
//! deleteWebhook, X-Telegram-Bot-Api-Secret-Token); tdlib/telegram-bot-api telegram-bot-api/Client.cpp.
//!
//! The documentation promises nothing about the status of an error, so it is 200 here, which is the harder case.

use super::asked::{strings, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use serde_json::{Value, json};
use std::sync::Arc;

/// The bot's token.
pub const TOKEN: &str = "110201543:standin-token_of-acme";

const BOT: &str = "bot";

/// Telegram with one bot.
#[derive(Debug, Default)]
pub struct Telegram;

fn result(result: Value) -> Reply {
    answer_json(200, &json!({"ok": true, "result": result}))
}

fn error(code: u16, description: &str) -> Reply {
    answer_json(200, &json!({"ok": false, "error_code": code, "description": description}))
}

impl Vendor for Telegram {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        let segments = asked.segments();
        let [bot, method] = segments.as_slice() else { return error(404, "Not Found").into() };
        if *bot != format!("bot{TOKEN}") {
            return error(401, "Unauthorized").into();
        }
        match *method {
            "getMe" => result(json!({"id": 110_201_543, "is_bot": true, "username": "acme_bot"})),
            "setWebhook" => set(desk, &asked.json()),
            "getWebhookInfo" => match desk.get(BOT) {
                Some(webhook) => result(json!({"url": webhook.url, "allowed_updates": webhook.events})),
                None => result(json!({"url": "", "pending_update_count": 0})),
            },
            // It is no error if there is none.
            "deleteWebhook" => {
                desk.remove(BOT);
                result(json!(true))
            }
            _ => error(404, "Not Found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        Delivery::json(&webhook.url, &json!({"update_id": number, event: {"text": format!("hello {number}")}}))
            .header("x-telegram-bot-api-secret-token", webhook.secret.clone())
    }
}

fn set(desk: &Desk, body: &Value) -> Reply {
    let (url, secret) = (text(&body["url"]), text(&body["secret_token"]));
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if secret.len() > 256 || !secret.chars().all(allowed) {
        return error(400, "Bad Request: secret token contains unallowed characters");
    }
    let webhook = Webhook::new(BOT, url).events(strings(&body["allowed_updates"])).secret(secret);
    if !desk.change(BOT, |found| *found = webhook.clone()) {
        desk.add(webhook);
    }
    result(json!(true))
}
