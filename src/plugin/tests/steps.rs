//! Calls before and after `create`, and what they capture.

use super::calls::{URL, access_token, acme, body, response};
use super::*;
use std::collections::BTreeMap;

/// Reads the account, then its organization, before; the secret and the end of life after.
fn stepped() -> Value {
    with_all([
        (
            "/webhook/before",
            json!([
                {
                    "method": "GET", "url": "{+parameters.baseURL}/users/me",
                    "capture": {"user": "response.body.uri", "organization": "string(response.body.org)"}
                },
                {
                    "method": "GET", "url": "{+parameters.baseURL}/orgs/{setup.organization}",
                    "headers": {"x-user": "setup.user"},
                    "capture": {"region": "response.body.region"}
                }
            ]),
        ),
        ("/webhook/create/url", json!("{+parameters.baseURL}/{setup.region}/hooks")),
        ("/webhook/create/body", json!("{'url': callback.url, 'user': setup.user}")),
        ("/webhook/create/capture", json!({"id": "response.body.id", "values": {"kind": "response.body.kind"}})),
        ("/webhook/find/values", json!({"kind": "item.kind"})),
        ("/webhook/find/match", json!("item.url == callback.url && item.user == setup.user")),
        (
            "/webhook/after",
            json!([
                {
                    "method": "GET", "url": "{+parameters.baseURL}/hooks/{webhook.id}/{webhook.kind}",
                    "capture": {"etag": "response.headers.etag"}
                },
                {
                    "method": "POST", "url": "{+parameters.baseURL}/hooks/{webhook.id}/secret",
                    "body": "{'etag': webhook.etag}", "success": "response.body.ok",
                    "capture": {"secret": "response.body.secret", "expiresAt": "response.body.end"}
                }
            ]),
        ),
        ("/webhook/update/body", json!("{'etag': webhook.etag, 'secret': callback.secret}")),
    ])
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn each_step_knows_what_those_before_it_captured() {
    let plugin = compile(stepped()).unwrap();
    let mut given = acme();
    given.webhook = None;
    assert_eq!((plugin.before_count(), plugin.after_count()), (2, 2));
    assert_eq!(plugin.before_call(0, &given.context()).unwrap().url.path(), "/users/me");
    let early = plugin.before_call(1, &given.context()).unwrap_err().to_string();
    assert!(early.contains("setup.organization has no value"), "{early}");
    given.setup.extend(plugin.captured_before(0, &response(200, r#"{"uri": "u/1", "org": 7}"#)).unwrap());
    assert_eq!(given.setup, map(&[("user", "u/1"), ("organization", "7")]));
    let second = plugin.before_call(1, &given.context()).unwrap();
    assert_eq!((second.url.path(), &second.headers["x-user"]), ("/orgs/7", &"u/1".parse().unwrap()));
    given.setup.extend(plugin.captured_before(1, &response(200, r#"{"region": "eu"}"#)).unwrap());

    let create = plugin.create_call(&given.context()).unwrap();
    assert_eq!((create.url.path(), body(&create)), ("/eu/hooks", json!({"url": URL, "user": "u/1"})));
    let list = json!([{"id": 1, "url": URL, "user": "u/1", "kind": "k"}, {"id": 2, "url": URL, "user": "u/2"}]);
    let found = plugin.found(&given.context(), &response(200, list.to_string())).unwrap();
    assert_eq!((found.len(), &found[0].values), (1, &map(&[("kind", "k")])));

    given.webhook = Some(WebhookRef { id: "17".to_owned(), values: map(&[("kind", "k")]) });
    assert_eq!(plugin.after_call(0, &given.context()).unwrap().url.path(), "/hooks/17/k");
    let mut answer = response(200, "{}");
    answer.headers.insert("etag", "\"e\"".parse().unwrap());
    let captured = plugin.captured_after(0, &answer).unwrap();
    assert!(captured.secret.is_none() && captured.expires_at.is_none());
    given.webhook.as_mut().unwrap().values.extend(captured.values);
    assert_eq!(body(&plugin.after_call(1, &given.context()).unwrap()), json!({"etag": "\"e\""}));
    let answer = |body: &str| plugin.captured_after(1, &response(200, body.to_owned()));
    let captured = answer(r#"{"ok": true, "secret": "s3cret", "end": 1767323045}"#).unwrap();
    assert_eq!(captured.secret.as_ref().unwrap().expose(), b"s3cret");
    assert_eq!((captured.expires_at, captured.values.len()), (Some(1_767_323_045_000), 0));
    assert!(!format!("{captured:?}").contains("s3cret"));
    assert!(matches!(answer(r#"{"ok": false}"#), Err(CallError::Unsuccessful { .. })));
    assert!(matches!(answer(r#"{"ok": true, "end": null}"#), Err(CallError::UnexpectedAnswer { .. })));
    assert!(matches!(answer(r#"{"ok": true, "secret": "", "end": null}"#), Err(CallError::UnexpectedAnswer { .. })));
    let update = plugin.update_call(&given.context()).unwrap().unwrap();
    assert_eq!(body(&update), json!({"etag": "\"e\"", "secret": "callback-s3cret"}));

    assert_eq!(plugin.secret_source(), SecretSource::External);
    assert!(!plugin.captures_secret_by_handshake());
    assert!(plugin.renewal().is_some(), "a step captures the end of the life");
    for error in [
        plugin.before_call(2, &given.context()).map(drop),
        plugin.captured_before(2, &response(200, "{}")).map(drop),
        plugin.after_call(2, &given.context()).map(drop),
        plugin.captured_after(2, &response(200, "{}")).map(drop),
    ] {
        assert!(matches!(error, Err(CallError::NoSuchCall(_))), "{error:?}");
    }
}

#[test]
fn what_a_step_answers_stays_in_its_place() {
    let plugin = compile(stepped()).unwrap();
    let mut given = acme();
    for region in ["..", "", "%2e%2e", "a\nb"] {
        given.setup = map(&[("region", region), ("user", "u")]);
        let error = plugin.create_call(&given.context()).unwrap_err();
        assert!(matches!(error, CallError::InvalidUrl { .. }), "{region:?}: {error}");
    }
    given.setup = map(&[("region", "//evil.example.com/x?"), ("user", "u")]);
    let url = plugin.create_call(&given.context()).unwrap().url;
    assert_eq!(url.as_str(), "https://git.example.com/%2F%2Fevil.example.com%2Fx%3F/hooks");
    // A whole URL that was captured may be called only where credentials may go.
    let plugin = compile(with_all([
        ("/webhook/create/capture/values", json!({"self": "response.body.self"})),
        ("/webhook/find/values", json!({"self": "item.self"})),
        ("/webhook/delete/url", json!("{+webhook.self}")),
    ]))
    .unwrap();
    let delete = |url: &str| {
        let mut given = acme();
        given.webhook = Some(WebhookRef { id: "17".to_owned(), values: map(&[("self", url)]) });
        plugin.delete_call(&given.context()).map(|call| call.unwrap().url.to_string())
    };
    assert_eq!(delete("https://git.example.com/hooks/1").unwrap(), "https://git.example.com/hooks/1");
    assert!(matches!(delete("https://evil.example.com/hooks/1"), Err(CallError::OriginNotAllowed { .. })));
}

#[test]
fn a_credential_may_be_in_the_path_and_is_never_shown() {
    // Telegram: https://api.telegram.org/bot<token>/setWebhook
    let plugin = compile(with_all([
        ("/authorization/apiKey", json!({"keys": ["token"]})),
        ("/webhook/create/url", json!("{+parameters.baseURL}/bot{credentials.token}/setWebhook")),
        ("/webhook/verify/url", json!("{+parameters.baseURL}/1/members/me?key={credentials.token}")),
    ]))
    .unwrap();
    let mut given = acme();
    let call = plugin.create_call(&given.context()).unwrap();
    assert_eq!(call.url.path(), "/bothunter2/setWebhook");
    let verify = plugin.verify_call(&given.context()).unwrap().unwrap();
    assert_eq!(verify.url.query(), Some("key=hunter2"));
    let debug = format!("{call:?} {verify:?}");
    assert!(!debug.contains("hunter2") && debug.contains("https://git.example.com"), "{debug}");

    for token in ["hun/../ter2", "hunter2\n", "..", "hunter2/%2e%2e"] {
        given.credentials = super::calls::key(token);
        let error = plugin.create_call(&given.context()).unwrap_err();
        assert!(matches!(error, CallError::InvalidUrl { .. }), "{token:?}: {error}");
        assert!(!format!("{error} {error:?}").contains("ter2"), "{error:?}");
    }
    given.credentials = super::calls::key("a@b/c?d#e");
    let url = plugin.create_call(&given.context()).unwrap().url;
    assert_eq!(url.as_str(), "https://git.example.com/bota%40b%2Fc%3Fd%23e/setWebhook");
    given.credentials = Credentials::None;
    assert_eq!(plugin.create_call(&given.context()).unwrap_err(), CallError::MissingCredential("token".into()));
    given.credentials = access_token("t");
    assert_eq!(plugin.create_call(&given.context()).unwrap_err(), CallError::NoSuchCall("authorization.oauth2"));
}
