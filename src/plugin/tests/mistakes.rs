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
            "/events/0/variables/branch/schema",
            json!({"minLength": "long"}),
            "spec.events[0].variables.branch.schema.minLength",
            "is no JSON schema",
        ),
        (
            "/events/0/variables/branch/schema",
            json!({"type": "integer"}),
            "spec.events[0].variables.branch.schema.type",
            "the variable is of type string; leave it out",
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

/// A call that is right.
fn call(url: &str) -> Value {
    json!({"method": "GET", "url": format!("{{+parameters.baseURL}}{url}")})
}

fn call_with(url: &str, more: Value) -> Value {
    let mut call = call(url);
    call.as_object_mut().unwrap().extend(object(more));
    call
}

#[test]
fn mistakes_in_the_life_of_a_webhook_name_their_field() {
    let step = |url: &str, capture: Value| call_with(url, json!({ "capture": capture }));
    for (pointer, value, field, problem) in [
        // Steps.
        ("before", json!([step("/a", json!({}))]), "before[0].capture", "is empty"),
        ("before", json!([step("/a", json!({"a-b": "''"}))]), "before[0].capture.a-b", "letters, digits and `_`"),
        ("before", json!([step("/a", json!({"1a": "''"}))]), "before[0].capture.1a", "begins with no digit"),
        (
            "before",
            json!([step("/a", json!({"a": "''"})), step("/b", json!({"a": "''"}))]),
            "before[1].capture.a",
            "is captured already",
        ),
        ("before", json!([step("/{setup.a}", json!({"a": "''"}))]), "before[0].url", "unknown variable `setup.a`"),
        (
            "before",
            json!([step("/a", json!({"a": "''"})), step("/{setup.b}", json!({"b": "''"}))]),
            "before[1].url",
            "did you mean `setup.a`?",
        ),
        (
            "before",
            json!([step("/{webhook.id}", json!({"a": "''"}))]),
            "before[0].url",
            "unknown variable `webhook.id`",
        ),
        ("before", json!([step("/{event}", json!({"a": "''"}))]), "before[0].url", "unknown variable `event`"),
        ("before", json!([step("/a", json!({"a": "parameters.owner"}))]), "before[0].capture.a", "unknown variable"),
        ("after", json!([step("/a", json!({"id": "''"}))]), "after[0].capture.id", "has a meaning of its own"),
        ("after", json!([step("/{webhook.a}", json!({"a": "''"}))]), "after[0].url", "unknown variable `webhook.a`"),
        ("after", json!([step("/a", json!({"secret": "response.x"}))]), "after[0].capture.secret", "has no `x`"),
        (
            "after",
            json!([step("/a", json!({"secret": "''"}))]),
            "create",
            "the external system chooses the secret (spec.webhook.after[0].capture.secret)",
        ),
        // Create.
        ("create/capture/values", json!({"secret": "''"}), "create.capture.values.secret", "a meaning of its own"),
        ("create/capture/values", json!({"expiresAt": "''"}), "create.capture.values.expiresAt", "a meaning"),
        ("create/capture/values", json!({"a": "''"}), "find.values.a", "create.capture.values has it"),
        ("create/capture/secret", json!("response.body.s"), "create", "leave `callback.secret` out"),
        ("create/capture/expiresAt", json!("callback.attempt"), "create.capture.expiresAt", "unknown variable"),
        ("create/capture/id", json!("event"), "create.capture.id", "unknown variable `event`"),
        ("create/success", json!("body.ok"), "create.success", "unknown variable `body`"),
        ("create/url", json!("{+parameters.baseURL}/{page}"), "create.url", "unknown variable `page`"),
        ("create/url", json!("{+parameters.baseURL}/{callback.secret}"), "create.url", "unknown variable"),
        ("create/body", json!("page"), "create.body", "unknown variable `page`"),
        ("create/body", json!("setup.a"), "create.body", "unknown variable `setup`"),
        ("create/body", json!("event"), "create.body", "unknown variable `event`"),
        ("delete/body", json!("callback.attempt"), "delete.body", "`callback` has no `attempt`"),
        ("update/body", json!("webhook.resource"), "update.body", "`webhook` has no `resource`"),
        // Credentials in URLs.
        (
            "create/url",
            json!("{+parameters.baseURL}/{credentials.tokn}"),
            "create.url",
            "did you mean `credentials.token`?",
        ),
        ("create/url", json!("https://{credentials.token}.example.com/"), "create.url", "must stand behind the origin"),
        ("create/url", json!("{+credentials.token}/x"), "create.url", "must stand behind the origin"),
        ("create/url", json!("{+parameters.baseURL}{credentials.token}"), "create.url", "must stand behind the origin"),
        (
            "create/url",
            json!("{+parameters.baseURL}/{+credentials.token}"),
            "create.url",
            "not in a reserved expansion",
        ),
        // Find.
        ("find/pagination", json!({}), "find.pagination", "exactly one of next and nextURL"),
        ("find/pagination", json!({"next": "''", "nextURL": "''"}), "find.pagination", "exactly one"),
        ("find/pagination", json!({"next": "page + 1"}), "find.pagination.next", "every page would be the first"),
        ("find/pagination", json!({"nextURL": "page"}), "find.pagination.nextURL", "unknown variable `page`"),
        ("find/values", json!({"a": "''"}), "find.values.a", "both must have the same names"),
        ("find/healthy", json!("item.x == callback.name"), "find.healthy", "`callback` has no `name`"),
        ("find/match", json!("item.x in events"), "find.match", "unknown variable `events`"),
        ("find/expiresAt", json!("response.body"), "find.expiresAt", "unknown variable `response`"),
        // Read.
        ("read", call("/{page}"), "read.url", "unknown variable `page`"),
        ("read", call_with("/", json!({"exists": "item.x"})), "read.exists", "unknown variable `item`"),
        ("read", call_with("/", json!({"healthy": "callback.secret == ''"})), "read.healthy", "has no `secret`"),
        // Renewal.
        ("renewal", json!({"by": "refresh", "life": "1h"}), "renewal.by", "needs the call spec.webhook.refresh"),
        ("renewal", json!({"by": "create", "life": "1h"}), "renewal.by", "`idempotent: true`"),
        ("renewal", json!({"by": "replace"}), "renewal.life", "is missing"),
        ("renewal", json!({"by": "replace", "life": "0s"}), "renewal.life", "is no time at all"),
        ("renewal", json!({"by": "replace", "life": "-1h"}), "renewal.life", "is negative"),
        ("refresh", call("/{webhook.id}"), "refresh", "is never called"),
        ("refresh", call_with("/", json!({"expiresAt": "webhook.id"})), "refresh.expiresAt", "unknown variable"),
    ] {
        let (pointer, field) = (format!("/webhook/{pointer}"), format!("spec.webhook.{field}"));
        expect(&with_all([(pointer.as_str(), value)]), &field, problem);
    }
    let both = [("/webhook/create/idempotent", json!(true)), ("/webhook/create/exclusive", json!(true))];
    expect(&with_all(both), "spec.webhook.create.exclusive", "contradicts `idempotent: true`");
    let mut spec = spec();
    spec["webhook"].as_object_mut().unwrap().remove("create");
    spec["webhook"]["renewal"] = json!({"by": "replace", "life": "1h"});
    expect(&spec, "spec.webhook.renewal.by", "needs the call spec.webhook.create");
}

#[test]
fn an_event_is_there_only_where_a_webhook_is_for_one() {
    let per_event = ("/webhook/perEvent", json!(true));
    let body = ("/webhook/create/body", json!("{'event': event, 'secret': callback.secret}"));
    compile(with_all([per_event.clone(), body])).unwrap();
    for place in ["verify", "before"] {
        let value = call_with("/{event}", json!({"capture": {"a": "''"}}));
        let value = if place == "before" { json!([value]) } else { value };
        let pointer = format!("/webhook/{place}");
        let spec = with_all([per_event.clone(), (pointer.as_str(), value)]);
        expect(&spec, &format!("spec.webhook.{place}"), "unknown variable `event`");
    }
}

#[test]
fn mistakes_in_oauth2_name_their_field() {
    let right = json!({
        "authorizationURL": "https://git.example.com/authorize", "tokenURL": "https://git.example.com/token"
    });
    compile(with_all([("/authorization/oauth2", right.clone())])).unwrap();
    let client = |origins: Value| json!({"secretRef": {"name": "c"}, "origins": origins});
    for (name, value, field, problem) in [
        ("authorizationURL", Value::Null, "authorizationURL", "the grant authorizationCode needs"),
        ("authorizationURL", json!("{+webhook.id}"), "authorizationURL", "unknown variable `webhook.id`"),
        ("tokenURL", json!("/token"), "tokenURL", "must begin with https://"),
        ("tokenURL", json!("https://x/{credentials.accessToken}"), "tokenURL", "unknown variable"),
        ("revocationURL", json!("https://x/{parameters.ownr}"), "revocationURL", "did you mean `parameters.owner`?"),
        ("scopes", json!(["a b"]), "scopes[0]", "is no scope"),
        ("scopes", json!(["a", ""]), "scopes[1]", "is no scope"),
        ("authorizeParameters", json!({"state": "x"}), "authorizeParameters.state", "Bellhop sets this"),
        ("authorizeParameters", json!({"code_challenge": "x"}), "authorizeParameters.code_challenge", "Bellhop sets"),
        ("tokenParameters", json!({"client_secret": "x"}), "tokenParameters.client_secret", "Bellhop sets"),
        ("tokenResponse", json!({"accessToken": "body.t"}), "tokenResponse.accessToken", "unknown variable `body`"),
        ("tokenResponse", json!({"expiresIn": "("}), "tokenResponse.expiresIn", "1:"),
        ("headers", json!({"authorization": "credentials.token"}), "headers.authorization", "has no `token`"),
        ("headers", json!({"Host": "''"}), "headers.Host", "belongs to the HTTP client"),
        ("headers", json!({"a": "''", "A": "''"}), "headers.a", "there twice"),
        ("defaultClient", client(json!([])), "defaultClient.origins", "is empty"),
        (
            "defaultClient",
            json!({"secretRef": {"name": ""}, "origins": ["https://x"]}),
            "defaultClient.secretRef.name",
            "is empty",
        ),
        ("defaultClient", client(json!(["https://x/"])), "defaultClient.origins[0]", "is no origin"),
        ("defaultClient", client(json!(["https://x/y"])), "defaultClient.origins[0]", "is no origin"),
        ("defaultClient", client(json!(["https://u@x"])), "defaultClient.origins[0]", "is no origin"),
        ("defaultClient", client(json!(["https://x?y"])), "defaultClient.origins[0]", "is no origin"),
        ("defaultClient", client(json!(["ftp://x"])), "defaultClient.origins[0]", "is no origin"),
        ("defaultClient", client(json!(["x", "{+parameters.baseURL}"])), "defaultClient.origins[1]", "is no origin"),
    ] {
        let mut method = right.clone();
        match value {
            Value::Null => drop(method.as_object_mut().unwrap().remove(name)),
            value => method[name] = value,
        }
        let field = format!("spec.authorization.oauth2.{field}");
        expect(&with_all([("/authorization/oauth2", method)]), &field, problem);
    }
    // Scopes with another separator.
    let mut method = right.clone();
    method["scopeSeparator"] = json!(",");
    method["scopes"] = json!(["a,b"]);
    expect(&with_all([("/authorization/oauth2", method)]), "spec.authorization.oauth2.scopes[0]", "scopeSeparator");
    // Nothing is parameterised, so a client's origin that is not allowed can never be used.
    let mut method = right.clone();
    method["defaultClient"] = client(json!(["https://git.example.com", "https://other.example.com"]));
    let spec =
        with_all([("/authorization/oauth2", method), ("/allowedOrigins", json!(["https://git.example.com/sub"]))]);
    expect(&spec, "spec.authorization.oauth2.defaultClient.origins[1]", "nothing is ever sent to");
    // A call must not set what either method sets.
    let mut method = right.clone();
    method["headers"] = json!({"x-token": "credentials.accessToken"});
    let spec = with_all([("/authorization/oauth2", method), ("/webhook/verify/headers", json!({"X-Token": "''"}))]);
    expect(&spec, "spec.webhook.verify.headers.X-Token", "spec.authorization.oauth2.headers sets this header");
    // With both methods, a URL can hold only what both have.
    let url = ("/webhook/create/url", json!("https://git.example.com/{credentials.token}"));
    compile(with_all([url.clone()])).unwrap();
    let spec = with_all([("/authorization/oauth2", right), url]);
    expect(&spec, "spec.webhook.create.url", "unknown variable `credentials.token`");
}

#[test]
fn mistakes_in_handshakes_name_their_field() {
    let hmac = |of: &str| json!({"of": of, "algorithm": "sha256", "encoding": "hex"});
    for (handshake, field, problem) in [
        (json!({"when": "item.x"}), "when", "unknown variable `item`"),
        (json!({"when": ""}), "when", "is empty"),
        (json!({"when": "true", "secret": "callback.secret"}), "secret", "unknown variable `callback`"),
        (json!({"when": "true", "answer": {"status": 302}}), "answer.status", "302 is not from 200 to 299"),
        (json!({"when": "true", "answer": {"status": 204, "body": "'x'"}}), "answer.body", "has no body"),
        (json!({"when": "true", "answer": {"body": "response"}}), "answer.body", "unknown variable `response`"),
        (json!({"when": "true", "answer": {"headers": {"a b": "''"}}}), "answer.headers.a b", "is no header name"),
        (json!({"when": "true", "answer": {"body": "hmac"}}), "answer.body", "unknown variable `hmac`"),
        (json!({"when": "true", "hmac": hmac("hmac")}), "hmac.of", "unknown variable `hmac`"),
        (json!({"when": "true", "hmac": hmac("body.t"), "secret": "body.s"}), "hmac", "leave `hmac` or `secret` out"),
        (
            json!({"when": "true", "answer": {"headers": {"Connection": "''"}}}),
            "answer.headers.Connection",
            "belongs to",
        ),
    ] {
        let spec = with_all([("/callback/handshakes", json!([{"when": "false"}, handshake]))]);
        expect(&spec, &format!("spec.callback.handshakes[1].{field}"), problem);
    }
    let secret = json!([{"when": "true", "secret": "body.s"}]);
    let spec = with_all([("/callback/handshakes", secret)]);
    expect(&spec, "spec.webhook.create", "spec.callback.handshakes[0].secret");
}

fn expect(spec: &Value, field: &str, problem: &str) {
    let mistakes = compile(spec.clone()).err().unwrap_or_else(|| panic!("{field}: {problem}: it compiles"));
    let found = mistakes.iter().any(|m| m.field.starts_with(field) && m.problem.contains(problem));
    assert!(found, "{field}: {problem}: {mistakes:#?}");
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
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn networks_are_networks() {
    let plugin = compile(with("/callback/from", json!(["54.187.174.0/24", "2001:db8::/32", "192.0.2.7"]))).unwrap();
    let ask = |client: &str| plugin.check_sender(Some(client.parse().unwrap())).map_err(|refusal| refusal.to_string());
    for inside in ["54.187.174.255", "2001:db8::1", "192.0.2.7"] {
        assert_eq!(ask(inside), Ok(()));
    }
    for outside in ["54.187.175.0", "2001:db9::1", "192.0.2.8", "::1"] {
        assert_eq!(
            ask(outside),
            Err(format!("{outside} is in none of the networks that the external system sends from"))
        );
    }
    // Whose address is not known is nowhere; without networks, it does not matter.
    assert_eq!(plugin.check_sender(None), Err(Refusal::Elsewhere(None)));
    assert_eq!(super::plugin().check_sender(None), Ok(()));
    for (text, problem) in
        [("54.187.174.1/24", "did you mean 54.187.174.0/24?"), ("stripe.com", "is no network"), ("", "is no network")]
    {
        expect(&with("/callback/from", json!([text])), "spec.callback.from[0]", problem);
    }
}

#[test]
fn items_bring_item() {
    expect(&with("/callback/itemID", json!("item.id")), "spec.callback.itemID", "write `deliveryID`");
    let mut spec = with("/callback/items", json!("body.value"));
    spec["callback"]["event"] = json!("item.kind");
    compile(spec).unwrap();
}
