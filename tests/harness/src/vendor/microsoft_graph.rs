//! Microsoft Graph: create fails unless the callback URL echoes a token within it; the subscription ends, and a PATCH
//! prolongs it.
//!
//! Facts: microsoftgraph/microsoft-graph-docs-contrib concepts/change-notifications-delivery-webhooks.md,
//! concepts/includes/change-notifications-delivery-notificationurl-validation.md (POST with `validationToken` in the
//! query, to be answered with 200, text/plain and the decoded token), api-reference/v1.0/resources/subscription.md,
//! api-reference/v1.0/api/subscription-{post-subscriptions,update,delete,list}.md (`clientState`, 404 after the end);
//! learn.microsoft.com/entra/identity-platform/v2-oauth2-auth-code-flow (the two endpoints, PKCE, errors).
//!
//! Instead of: the life of a subscription is what the test says, and not `expirationDateTime`, which is days away. A person
//! who is asked for consent gives it at once.

use super::asked::{first, text};
use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_json, millis, now};
use crate::server::Reply;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The access token that is accepted.
pub const TOKEN: &str = "eyJ0-standin-token-of-acme";

/// The client that is registered with Entra.
pub const CLIENT_ID: &str = "11112222-bbbb-3333-cccc-4444dddd5555";

/// Its secret.
pub const CLIENT_SECRET: &str = "Qz8~standin-secret-of-acme";

/// What stands for a person's consent.
const CODE: &str = "OAAABAAAAiL9Kn2Z27UubvWFPbm0gLW";

/// Contains what must be decoded and encoded rightly on the way.
const VALIDATION: &str = "Validation: Testing client application reachability for a+b & \"c/d\" %41";

/// Microsoft Graph.
#[derive(Debug)]
pub struct MicrosoftGraph {
    life: Duration,
    /// What the consent of now is bound to: where the browser was sent back to, and the hash of the verifier.
    consent: Mutex<Option<(String, String)>>,
}

impl MicrosoftGraph {
    /// A Graph in which a subscription lives this long.
    pub fn new(life: Duration) -> MicrosoftGraph {
        MicrosoftGraph { life, consent: Mutex::default() }
    }

    /// The page that asks a person, who agrees.
    fn authorize(&self, asked: &Asked) -> Reply {
        let (back, challenge) = (asked.query("redirect_uri"), asked.query("code_challenge"));
        let fits = asked.query("client_id") == CLIENT_ID
            && asked.query("response_type") == "code"
            && asked.query("code_challenge_method") == "S256"
            && asked.query("scope").split(' ').any(|scope| scope == "offline_access");
        let Ok(mut to) = reqwest::Url::parse(back) else { return Reply::status(400).body("AADSTS50011") };
        if !fits {
            return Reply::status(400).body("AADSTS900144");
        }
        *self.consent.lock().expect("no panic") = Some((back.to_owned(), challenge.to_owned()));
        to.query_pairs_mut().append_pair("code", CODE).append_pair("state", asked.query("state"));
        Reply::status(302).header("location", to.as_str())
    }

    fn token(&self, asked: &Asked) -> Reply {
        let form = asked.form();
        let field = |name: &str| first(&form, name);
        let refused = |code: &str, words: &str| answer_json(400, &json!({"error": code, "error_description": words}));
        if field("client_id") != CLIENT_ID || field("client_secret") != CLIENT_SECRET {
            return answer_json(401, &json!({"error": "invalid_client", "error_description": "AADSTS7000215"}));
        }
        let consent = self.consent.lock().expect("no panic").take();
        let verifier = URL_SAFE_NO_PAD.encode(Sha256::digest(field("code_verifier")));
        if field("grant_type") != "authorization_code"
            || field("code") != CODE
            || consent != Some((field("redirect_uri").to_owned(), verifier))
        {
            return refused("invalid_grant", "AADSTS70008: The code is not what was issued.");
        }
        answer_json(
            200,
            &json!({"token_type": "Bearer", "scope": "Mail.Read User.Read", "expires_in": 3599, "access_token": TOKEN,
                "refresh_token": "AwABAAAAvPM1KaPlrEqdFSBzjqfTGAMxZGUTdM0t4B4-standin"}),
        )
    }
}

fn error(status: u16, code: &str, message: &str) -> Reply {
    answer_json(status, &json!({"error": {"code": code, "message": message}}))
}

impl Vendor for MicrosoftGraph {
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer {
        match asked.segments().as_slice() {
            [_, "oauth2", "v2.0", "authorize"] => return self.authorize(asked).into(),
            [_, "oauth2", "v2.0", "token"] => return self.token(asked).into(),
            _ => {}
        }
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
    // Once for each of the two addresses.
    for url in [&body["notificationUrl"], &body["lifecycleNotificationUrl"]].into_iter().filter(|url| !url.is_null()) {
        if let Err(why) = validate(&text(url)).await {
            return error(400, "ValidationError", &format!("Subscription validation request failed. {why}"));
        }
    }
    let webhook = Webhook::new(format!("7f105c7d-2dc5-4530-97cd-{:012}", desk.number()), url)
        .events(text(&body["changeType"]).split(','))
        .secret(state)
        .lives(life);
    desk.add(webhook.clone());
    answer_json(201, &show(&webhook))
}

async fn validate(url: &str) -> Result<(), String> {
    let mut probe = reqwest::Url::parse(url).map_err(|_| "The URL is invalid.".to_owned())?;
    probe.query_pairs_mut().append_pair("validationToken", VALIDATION);
    match Delivery::empty(probe).header("content-type", "text/plain; charset=utf-8").send().await {
        Err(_) => Err("No answer.".to_owned()),
        Ok(answered) if answered.status != 200 => Err(format!("HTTP status code is '{}'.", answered.status)),
        Ok(answered) if !answered.header("content-type").starts_with("text/plain") => {
            Err(format!("The content type is '{}'.", answered.header("content-type")))
        }
        Ok(answered) if answered.body != VALIDATION => Err("The token is another one.".to_owned()),
        Ok(_) => Ok(()),
    }
}
