//! What is kept of answers.

use super::calls::{URL, access_token, acme, response};
use super::*;
use std::collections::BTreeMap;

fn capturing(source: &str) -> Plugin {
    compile(with_all([("/webhook/create/capture", json!({"id": "'1'", "expiresAt": source}))])).unwrap()
}

#[test]
fn the_end_of_a_life_is_read_in_every_common_form() {
    let plugin = capturing("response.body.end");
    let read = |value: Value| {
        let body = json!({ "end": value }).to_string();
        plugin.created(&acme().context(), &response(201, body)).map(|captured| captured.expires_at)
    };
    for (value, expected) in [
        (json!("2026-01-02T03:04:05Z"), Some(1_767_323_045_000)),
        // Microsoft Graph writes seven digits.
        (json!("2026-01-02T03:04:05.1234567Z"), Some(1_767_323_045_123)),
        (json!("2026-01-02T04:04:05+01:00"), Some(1_767_323_045_000)),
        (json!(1_767_323_045), Some(1_767_323_045_000)),
        (json!(1_767_323_045_123_i64), Some(1_767_323_045_123)),
        (json!(1_767_323_045.5), Some(1_767_323_045_500)),
        // Google writes milliseconds in a string.
        (json!("1767323045123"), Some(1_767_323_045_123)),
        (Value::Null, None),
    ] {
        assert_eq!(read(value.clone()).unwrap(), expected, "{value}");
    }
    for value in [
        json!(""),
        json!("soon"),
        json!("2026-01-02"),
        json!("2026-01-02T03:04:05"),
        json!(-1),
        json!(1e30),
        json!("NaN"),
        json!("inf"),
        json!(true),
        json!([1]),
        json!({}),
    ] {
        let error = read(value.clone()).unwrap_err();
        assert!(matches!(error, CallError::UnexpectedAnswer { status: 201, .. }), "{value}: {error}");
        assert!(error.to_string().contains("spec.webhook.create.capture.expiresAt"), "{value}: {error}");
    }
    let computed = capturing("timestamp('2026-01-02T03:04:05Z') + duration('1s')");
    let captured = computed.created(&acme().context(), &response(201, "{}")).unwrap();
    assert_eq!(captured.expires_at, Some(1_767_323_046_000));
    let missing = plugin.created(&acme().context(), &response(201, "{}")).unwrap_err().to_string();
    assert!(missing.contains("no such key: end"), "{missing}");
}

#[test]
fn create_tells_the_id_the_secret_and_more() {
    let plugin = compile(with_all([
        ("/webhook/create/body", json!("{'url': callback.url, 'name': callback.name, 'channel': callback.attempt}")),
        (
            "/webhook/create/capture",
            json!({
                // The last segment of a URL in a header, without its braces.
                "id": "response.headers.location.split('/')[4].replace('{', '').replace('}', '')",
                "secret": "response.body.secret",
                "values": {"resource": "response.body.resourceId"}
            }),
        ),
        ("/webhook/find/values", json!({"resource": "item.resource"})),
        ("/webhook/delete/body", json!("{'id': webhook.id, 'resourceId': webhook.resource}")),
    ]))
    .unwrap();
    assert_eq!(plugin.secret_source(), SecretSource::External);
    let mut given = acme();
    given.secret = Secret::from("");
    let call = plugin.create_call(&given.context()).unwrap();
    let channel = "00000000-0000-0000-0000-000000000007";
    assert_eq!(super::calls::body(&call), json!({"url": URL, "name": "bellhop-0123456789abcdef", "channel": channel}));
    let mut answer = response(201, r#"{"secret": "s3cret", "resourceId": "r-1"}"#);
    answer.headers.insert("location", "https://x/hooks/{17}".parse().unwrap());
    let captured = plugin.created(&given.context(), &answer).unwrap();
    assert_eq!((captured.id.as_str(), captured.secret.as_ref().unwrap().expose()), ("17", &b"s3cret"[..]));
    assert_eq!(captured.values, BTreeMap::from([("resource".to_owned(), "r-1".to_owned())]));
    assert!(!format!("{captured:?}").contains("s3cret"), "{captured:?}");

    given.webhook = Some(WebhookRef { id: captured.id, values: captured.values });
    let delete = plugin.delete_call(&given.context()).unwrap().unwrap();
    assert_eq!(super::calls::body(&delete), json!({"id": "17", "resourceId": "r-1"}));
    given.webhook = Some(WebhookRef { id: "17".to_owned(), values: BTreeMap::new() });
    assert!(plugin.delete_call(&given.context()).unwrap_err().to_string().contains("no such key"));

    for (broken, problem) in [
        (r#"{"secret": "", "resourceId": "r"}"#, "capture.secret is empty"),
        (r#"{"secret": null, "resourceId": "r"}"#, "capture.secret is null, not a string"),
        (r#"{"secret": "s3cret", "resourceId": 7}"#, "capture.values.resource is an int, not a string"),
        (r#"{"resourceId": "r"}"#, "no such key: secret"),
    ] {
        answer.body = broken.into();
        let error = plugin.created(&given.context(), &answer).unwrap_err().to_string();
        assert!(error.contains(problem) && !error.contains("s3cret"), "{broken}: {error}");
    }
    answer.body = json!({"secret": "x".repeat(5000), "resourceId": "r"}).to_string().into();
    let error = plugin.created(&given.context(), &answer).unwrap_err().to_string();
    assert!(error.contains("at most 4096 are kept"), "{error}");
}

#[test]
fn a_callback_secret_may_be_one_of_the_credentials() {
    let told = |method: Value, secret: &str| {
        let create = ("/webhook/create/body", json!("{'url': callback.url}"));
        let update = ("/webhook/update/body", json!("{'id': webhook.id}"));
        let capture = ("/webhook/create/capture", json!({"id": "string(response.body.id)", "secret": secret}));
        let origins = ("/allowedOrigins", json!(["{+parameters.baseURL}", "https://x.example"]));
        compile(with_all([("/authorization", method), origins, create, update, capture]))
    };
    let answer = response(201, r#"{"id": 17}"#);
    let keys = json!({"apiKey": {"keys": ["token", "signingKey"]}});
    let plugin = told(keys.clone(), "credentials.signingKey").unwrap();
    assert_eq!(plugin.secret_source(), SecretSource::External);
    let mut given = acme();
    given.credentials = Credentials::ApiKey(
        [("token", "t0ken"), ("signingKey", "s1gn")].map(|(key, value)| (key.to_owned(), Secret::from(value))).into(),
    );
    let captured = plugin.created(&given.context(), &answer).unwrap();
    assert_eq!(captured.secret.unwrap().expose(), b"s1gn");
    given.credentials = Credentials::ApiKey(BTreeMap::from([("token".to_owned(), Secret::from("t0ken"))]));
    let error = plugin.created(&given.context(), &answer).unwrap_err().to_string();
    assert!(error.contains("signingKey") && !error.contains("t0ken"), "{error}");

    // With OAuth, it is the client's secret.
    let oauth = json!({
        "authorizationURL": "https://x.example/authorize", "tokenURL": "https://x.example/token",
    });
    let plugin = told(json!({"oauth2": oauth}), "credentials.clientSecret").unwrap();
    given.credentials = access_token("t0ken");
    assert_eq!(plugin.created(&given.context(), &answer).unwrap().secret.unwrap().expose(), b"cl13nt");
    let mistakes = told(json!({"oauth2": oauth}), "credentials.accessToken").unwrap_err();
    assert_eq!(mistakes[0].field, "spec.webhook.create.capture.secret");
    // With both methods, what both have.
    let both = json!({"apiKey": {"keys": ["token", "signingKey"]}, "oauth2": oauth});
    assert!(told(both, "credentials.signingKey").is_err());
    let both = json!({"apiKey": {"keys": ["token", "clientSecret"]}, "oauth2": oauth});
    told(both, "credentials.clientSecret").unwrap();
    assert!(told(keys, "credentials.other").is_err());
}

#[test]
fn calls_know_the_time() {
    let body = "{'url': callback.url, 'secret': callback.secret, 'until': string(now + duration('72h'))}";
    let plugin = compile(with_all([("/webhook/create/body", json!(body))])).unwrap();
    let call = plugin.create_call(&acme().context()).unwrap();
    assert_eq!(super::calls::body(&call)["until"], json!("2023-11-17T22:13:20.5Z"));
}

#[test]
fn the_caller_can_name_a_webhook() {
    let plugin = compile(with_all([
        ("/webhook/perEvent", json!(true)),
        ("/webhook/create/url", json!("{+parameters.baseURL}/hooks/{callback.name}/{event}")),
        ("/webhook/create/idempotent", json!(true)),
        ("/webhook/create/capture/id", json!("callback.name + '/' + event + '/' + callback.attempt")),
    ]))
    .unwrap();
    assert!(plugin.per_event() && plugin.create_is_idempotent());
    let mut given = acme();
    given.event = Some("push".to_owned());
    let url = plugin.create_call(&given.context()).unwrap().url;
    assert_eq!(url.path(), "/hooks/bellhop-0123456789abcdef/push");
    let id = plugin.created(&given.context(), &response(204, "")).unwrap().id;
    assert_eq!(id, "bellhop-0123456789abcdef/push/00000000-0000-0000-0000-000000000007");
    given.event = None;
    let error = plugin.create_call(&given.context()).unwrap_err().to_string();
    assert!(error.contains("event has no value"), "{error}");
}

#[test]
fn a_status_is_not_all_that_success_is() {
    let plugin = compile(with_all([
        ("/webhook/create/success", json!("response.body.ok")),
        ("/webhook/update/success", json!("!has(response.body.errors)")),
    ]))
    .unwrap();
    let created = |body: &str| plugin.created(&acme().context(), &response(200, body.to_owned()));
    assert_eq!(created(r#"{"ok": true, "id": 1}"#).unwrap().id, "1");
    let refused = created(r#"{"ok": false, "id": 1, "error": "token hunter2 is\n revoked"}"#).unwrap_err();
    assert_eq!(refused, CallError::Unsuccessful { status: 200, words: "token hunter2 is revoked".to_owned() });
    let shown = refused.redacted(&acme().credentials.secrets()).to_string();
    assert_eq!(shown, "the external system answered 200, but says that it failed: token [redacted] is revoked");
    for broken in ["{}", "[]", r#"{"ok": 1}"#] {
        assert!(matches!(created(broken), Err(CallError::UnexpectedAnswer { .. })), "{broken}");
    }
    let updated = |body: &str| plugin.updated(&response(200, body.to_owned()));
    updated(r#"{"data": {}}"#).unwrap();
    let graphql = updated(r#"{"errors": [{"message": "not yours"}]}"#).unwrap_err();
    assert_eq!(graphql, CallError::Unsuccessful { status: 200, words: "not yours".to_owned() });
    assert!(plugin.deleted(&response(200, "")).is_ok() && plugin.deleted(&response(404, "")).is_err());
}

#[test]
fn one_webhook_is_read() {
    let plugin = compile(with_all([(
        "/webhook/read",
        json!({
            "method": "GET", "url": "{+parameters.baseURL}/hooks/{webhook.id}",
            "exists": "response.body.url == callback.url",
            "healthy": "response.body.active && events.all(e, e in response.body.events)"
        }),
    )]))
    .unwrap();
    let given = acme();
    assert_eq!(plugin.read_call(&given.context()).unwrap().unwrap().url.path(), "/hooks/17");
    let read = |status: u16, body: Value| plugin.reading(&given.context(), &response(status, body.to_string()));
    let hook = |url: &str, active: bool, events: Value| json!({"url": url, "active": active, "events": events});
    assert_eq!(read(200, hook(URL, true, json!(["push", "x"]))).unwrap(), WebhookReading::Healthy);
    assert_eq!(read(200, hook(URL, false, json!(["push"]))).unwrap(), WebhookReading::Unhealthy);
    assert_eq!(read(200, hook(URL, true, json!([]))).unwrap(), WebhookReading::Unhealthy);
    assert_eq!(read(200, json!({"url": "https://other"})).unwrap(), WebhookReading::Gone);
    assert_eq!(read(404, json!({})).unwrap(), WebhookReading::Gone);
    assert_eq!(read(410, json!({})).unwrap(), WebhookReading::Gone);
    for (status, body) in [(500, json!({})), (403, json!({})), (200, json!({})), (200, json!({"url": URL}))] {
        assert!(matches!(read(status, body.clone()), Err(CallError::UnexpectedAnswer { .. })), "{status} {body}");
    }
}

#[test]
fn renewal_is_said_or_follows_from_what_is_captured() {
    let refresh = json!({
        "method": "POST", "url": "{+parameters.baseURL}/hooks/{webhook.id}/refresh", "expiresAt": "response.body.end"
    });
    let renewal = |plugin: Plugin| plugin.renewal().map(|(by, life)| (format!("{by:?}"), life.map(|l| l.as_secs())));
    assert_eq!(renewal(plugin()), None);
    assert_eq!(renewal(capturing("response.body.end")), Some(("Replace".to_owned(), None)));
    let expiring = [("/webhook/create/capture/expiresAt", json!("response.body.end"))];
    let mut spec = with_all(expiring);
    spec["webhook"]["refresh"] = refresh.clone();
    let plugin = compile(spec).unwrap();
    assert!(plugin.can_refresh());
    let call = plugin.refresh_call(&acme().context()).unwrap().unwrap();
    assert_eq!((call.method.as_str(), call.url.path()), ("POST", "/hooks/17/refresh"));
    assert_eq!(plugin.refreshed(&response(200, r#"{"end": 1767323045}"#)).unwrap(), Some(1_767_323_045_000));
    assert!(plugin.refreshed(&response(200, "{}")).is_err());
    assert_eq!(renewal(plugin), Some(("Refresh".to_owned(), None)));
    let said = compile(with_all([
        ("/webhook/refresh", refresh),
        ("/webhook/renewal", json!({"by": "refresh", "life": "168h"})),
    ]));
    assert_eq!(renewal(said.unwrap()), Some(("Refresh".to_owned(), Some(604_800))));
    let upsert = compile(with_all([
        ("/webhook/create/idempotent", json!(true)),
        ("/webhook/renewal", json!({"by": "create", "life": "168h"})),
    ]));
    assert_eq!(renewal(upsert.unwrap()), Some(("Create".to_owned(), Some(604_800))));
}

#[test]
fn where_a_secret_comes_from() {
    let source = |spec: Value| compile(spec).unwrap().secret_source();
    assert_eq!(plugin().secret_source(), SecretSource::Generated);
    let none = ("/callback/verification", json!([{"none": {}}]));
    // A call tells the external system one all the same.
    assert_eq!(source(with_all([none.clone()])), SecretSource::Generated);
    let untold = [
        none.clone(),
        ("/webhook/create/body", json!("{}")),
        ("/webhook/update/body", json!("{'secret': callback['secret']}")),
    ];
    assert_eq!(source(with_all(untold)), SecretSource::Generated);
    let untold = [none, ("/webhook/create/body", json!("{}")), ("/webhook/update/body", json!("{}"))];
    let plugin = compile(with_all(untold)).unwrap();
    assert_eq!(plugin.secret_source(), SecretSource::NotNeeded);
    // Then the calls need none.
    let mut given = acme();
    given.secret = Secret::from("");
    plugin.create_call(&given.context()).unwrap();
}
