//! Twilio: no webhooks, but URLs of a phone number, which are entered and emptied. The URL and the sorted fields of the form
//! are signed, with one of the credentials.
//!
//! Facts: twilio.com/docs/phone-numbers/api/incomingphonenumber-resource (SmsUrl, StatusCallback; a list by `PhoneNumber`;
//! a resource is changed by POST), twilio.com/docs/usage/webhooks/webhooks-security, twilio.com/docs/api/errors/20003,
//! and examples/WebhookSignatureValidation.md of twilio/twilio-node (what a Webhooks Rule signs with HMAC-SHA256).
//!
//! Instead of: SHA-1, with which Twilio signs unless a Webhooks Rule says otherwise; and a rule has a key of its own, which
//! here is the account's token.

use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json};
use crate::server::Reply;
use base64::Engine as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The account.
pub const ACCOUNT: &str = "AC5b7e0c51standin";
/// The account's token, with which requests are signed, too.
pub const TOKEN: &str = "9f3b2c77standin-token";
/// The account's number.
pub const NUMBER: &str = "+15005550006";

const SID: &str = "PN2a0747eb";

/// Twilio with one number.
#[derive(Debug, Default)]
pub struct Twilio;

fn error(status: u16, code: u32, message: &str) -> Reply {
    answer_json(status, &json!({"code": code, "message": message, "status": status}))
}

impl Vendor for Twilio {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        if asked.basic() != Some((ACCOUNT.to_owned(), TOKEN.to_owned())) {
            return error(401, 20003, "Authenticate").into();
        }
        let (account, number) = (format!("{ACCOUNT}.json"), format!("{SID}.json"));
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["2010-04-01", "Accounts", found]) if *found == account => {
                answer_json(200, &json!({"sid": ACCOUNT, "friendly_name": "Acme"}))
            }
            ("GET", ["2010-04-01", "Accounts", ACCOUNT, "IncomingPhoneNumbers.json"]) => {
                let numbers = if asked.query("PhoneNumber") == NUMBER { vec![show(desk)] } else { Vec::new() };
                answer_json(200, &json!({"incoming_phone_numbers": numbers}))
            }
            ("GET", ["2010-04-01", "Accounts", ACCOUNT, "IncomingPhoneNumbers", found]) if *found == number => {
                answer_json(200, &show(desk))
            }
            ("POST", ["2010-04-01", "Accounts", ACCOUNT, "IncomingPhoneNumbers", found]) if *found == number => {
                change(desk, &asked.form());
                answer_json(200, &show(desk))
            }
            _ => error(404, 20404, "The requested resource was not found"),
        }
        .into()
    }

    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery {
        let sid = format!("SM{number}");
        let status = if event == "call.status" { "CallStatus" } else { "SmsStatus" };
        let fields = BTreeMap::from([
            ("MessageSid", sid.as_str()),
            ("AccountSid", ACCOUNT),
            ("From", "+14158675309"),
            ("To", NUMBER),
            ("Body", "hello & = + 1"),
            ("NumMedia", "0"),
            (status, "received"),
        ]);
        let mut signed = webhook.url.clone();
        fields.iter().for_each(|(name, value)| signed.extend([*name, *value]));
        let signature = Delivery::empty("").hmac_after(&signed, webhook.secret.as_bytes());
        Delivery::form(&webhook.url, &fields.into_iter().collect::<Vec<_>>())
            .header("i-twilio-idempotency-token", format!("token-{number}"))
            .header("x-twilio-webhooks-signature-settings", "key=SK1,algorithm=HMAC_SHA256")
            .header("x-twilio-signature", base64::engine::general_purpose::STANDARD.encode(signature))
    }
}

/// The number: the URLs that are entered are those of the webhook that has the event.
fn show(desk: &Desk) -> Value {
    let webhook = desk.get(SID);
    let url =
        |event| webhook.as_ref().filter(|webhook| webhook.wants(event)).map_or("", |webhook| webhook.url.as_str());
    json!({
        "sid": SID, "phone_number": NUMBER, "sms_url": url("message.received"), "status_callback": url("call.status"),
    })
}

fn change(desk: &Desk, form: &[(String, String)]) {
    let given = |name| form.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    let mut urls: BTreeMap<&str, String> = BTreeMap::new();
    for (field, event) in [("SmsUrl", "message.received"), ("StatusCallback", "call.status")] {
        let before = desk.get(SID).filter(|webhook| webhook.wants(event)).map(|webhook| webhook.url);
        let url = given(field).or(before).filter(|url| !url.is_empty());
        urls.extend(url.map(|url| (event, url)));
    }
    desk.remove(SID);
    if let Some(url) = urls.values().next() {
        desk.add(Webhook::new(SID, url.clone()).events(urls.keys().copied()).secret(TOKEN));
    }
}
