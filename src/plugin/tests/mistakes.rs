//! Every kind of mistake, with its field and what it says.

use super::*;
use std::time::{Duration, Instant};

#[test]
fn mistakes_name_their_field() {
    for (pointer, value, field, problem) in [
        ("/allowedOrigins", json!([]), "spec.allowedOrigins", "is empty"),
        (
            "/allowedOrigins/0",
            json!("{+parameters.base}"),
            "spec.allowedOrigins[0]",
            "unknown variable `parameters.base`",
        ),
        ("/allowedOrigins/0", json!("{+parameters.baseURL"), "spec.allowedOrigins[0]", "is no URL template"),
        ("/allowedOrigins/0", json!("git.example.com"), "spec.allowedOrigins[0]", "must begin with https://"),
        ("/allowedOrigins/0", json!("{parameters.baseURL}"), "spec.allowedOrigins[0]", "must begin with https://"),
        (
            "/parameters/properties/owner",
            json!({"type": "strin"}),
            "spec.parameters.properties.owner.type",
            "is no JSON schema",
        ),
        ("/parameters/type", json!("array"), "spec.parameters.type", "write `object`"),
        (
            "/parameters/properties/owner",
            json!({"$ref": "https://example.com/s.json"}),
            "spec.parameters",
            "is no JSON schema",
        ),
        ("/authorization/apiKey/keys", json!(["token", ""]), "spec.authorization.apiKey.keys[1]", "is empty"),
        (
            "/authorization/apiKey/headers/authorization",
            json!("credentials.tokn"),
            "spec.authorization.apiKey.headers.authorization",
            "1:1: `credentials` has no `tokn`; did you mean `token`?",
        ),
        (
            "/authorization/apiKey/headers/a b",
            json!("''"),
            "spec.authorization.apiKey.headers.a b",
            "is no header name",
        ),
        (
            "/authorization/apiKey/headers/Host",
            json!("''"),
            "spec.authorization.apiKey.headers.Host",
            "belongs to the HTTP client",
        ),
        (
            "/webhook/verify/headers",
            json!({"Authorization": "''"}),
            "spec.webhook.verify.headers.Authorization",
            "sets this header",
        ),
        ("/webhook/verify/headers", json!({"a": "''", "A": "''"}), "spec.webhook.verify.headers.a", "there twice"),
        (
            "/webhook/verify/headers",
            json!({"x": "credentials.token"}),
            "spec.webhook.verify.headers.x",
            "unknown variable `credentials`",
        ),
        (
            "/webhook/verify/headers",
            json!({"x": "callback.secret"}),
            "spec.webhook.verify.headers.x",
            "`callback` has no `secret`",
        ),
        (
            "/webhook/verify/headers",
            json!({"x": "parameters.ownr"}),
            "spec.webhook.verify.headers.x",
            "did you mean `owner`?",
        ),
        ("/webhook/verify/account", json!("response.bdy.login"), "spec.webhook.verify.account", "did you mean `body`?"),
        ("/webhook/verify/body", json!("1"), "spec.webhook.verify.body", "a GET call has no body"),
        (
            "/webhook/verify/url",
            json!("{+parameters.baseURL}/{webhook.id}"),
            "spec.webhook.verify.url",
            "unknown variable `webhook.id`",
        ),
        (
            "/webhook/verify/url",
            json!("{+parameters.baseURL}/../x"),
            "spec.webhook.verify.url",
            "segments `.` and `..`",
        ),
        (
            "/webhook/verify/url",
            json!("{+parameters.baseURL}/%2e%2E/x"),
            "spec.webhook.verify.url",
            "segments `.` and `..`",
        ),
        ("/webhook/verify/url", json!("{+parameters.baseURL}#x"), "spec.webhook.verify.url", "fragment"),
        (
            "/webhook/verify/url",
            json!("{+parameters.baseURL}{#parameters.owner}"),
            "spec.webhook.verify.url",
            "operator `#`",
        ),
        ("/webhook/verify/url", json!("ftp://x"), "spec.webhook.verify.url", "must begin with"),
        ("/webhook/find/items", json!("item"), "spec.webhook.find.items", "unknown variable `item`"),
        (
            "/webhook/find/match",
            json!("item.url == callback.secret"),
            "spec.webhook.find.match",
            "`callback` has no `secret`",
        ),
        ("/webhook/find/id", json!("response.id"), "spec.webhook.find.id", "unknown variable `response`"),
        ("/webhook/create/body", json!("webhook.id"), "spec.webhook.create.body", "unknown variable `webhook`"),
        (
            "/webhook/create/body",
            json!("credentials.token"),
            "spec.webhook.create.body",
            "unknown variable `credentials`",
        ),
        (
            "/webhook/create/capture/id",
            json!("callback.url"),
            "spec.webhook.create.capture.id",
            "`callback` has no `url`",
        ),
        ("/webhook/delete/body", json!("callback.secret"), "spec.webhook.delete.body", "`callback` has no `secret`"),
        ("/callback/verification", json!([]), "spec.callback.verification", "`none: {}`"),
        (
            "/callback/verification/0/hmac/header",
            json!("a b"),
            "spec.callback.verification[0].hmac.header",
            "is no header name",
        ),
        (
            "/callback/verification/0",
            json!({"token": {"header": ""}}),
            "spec.callback.verification[0].token.header",
            "is no header name",
        ),
        ("/callback/event", json!("item.name"), "spec.callback.event", "unknown variable `item`"),
        ("/callback/event", json!("request.heders['x']"), "spec.callback.event", "did you mean `headers`?"),
        ("/callback/deliveryID", json!(""), "spec.callback.deliveryID", "is empty"),
        ("/callback/items", json!("body.value["), "spec.callback.items", "1:12"),
        ("/events/1/name", json!("push"), "spec.events[1].name", "there twice"),
        ("/events", json!([]), "spec.events", "is empty"),
        (
            "/events/0/parameters/branches/match",
            json!("valu.x"),
            "spec.events[0].parameters.branches.match",
            "did you mean `value`?",
        ),
        (
            "/events/0/parameters/branches/schema",
            json!({"type": 1}),
            "spec.events[0].parameters.branches.schema.type",
            "is no JSON schema",
        ),
        (
            "/events/0/parameters/branches/schema",
            json!({"pattern": "("}),
            "spec.events[0].parameters.branches.schema",
            "is no JSON schema",
        ),
        (
            "/events/0/parameters/branches/schema",
            json!({"type": "array", "default": "main"}),
            "spec.events[0].parameters.branches.schema.default",
            "is not of type",
        ),
        (
            "/events/0/variables/branch/value",
            json!("value"),
            "spec.events[0].variables.branch.value",
            "unknown variable `value`",
        ),
        (
            "/events/0/variables/branch/value",
            json!("body.a &&\n  body.b ||| c"),
            "spec.events[0].variables.branch.value",
            "2:",
        ),
    ] {
        let mistakes =
            compile(with(pointer, value.clone())).err().unwrap_or_else(|| panic!("{pointer} {value} compiles"));
        let found = mistakes.iter().any(|m| m.field.starts_with(field) && m.problem.contains(problem));
        assert!(found, "{pointer} {value}: {mistakes:#?}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let mut spec = with("/callback/event", json!("a"));
    spec["events"][0]["variables"]["branch"]["value"] = json!("b");
    spec["webhook"]["delete"]["url"] = json!("{");
    assert_eq!(compile(spec).unwrap_err().len(), 3);
}

#[test]
fn hostile_specs_are_refused_quickly() {
    let begin = Instant::now();
    for source in ["(".repeat(1 << 20), format!("{}1{}", "[".repeat(1900), "]".repeat(1900)), "{+a}".repeat(1 << 18)] {
        compile(with("/callback/event", json!(source))).unwrap_err();
        compile(with("/webhook/verify/url", json!(source))).unwrap_err();
    }
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn items_bring_item() {
    let mut spec = with("/callback/items", json!("body.value"));
    spec["callback"]["event"] = json!("item.kind");
    compile(spec).unwrap();
}
