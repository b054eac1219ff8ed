//! Calls to the external system and their answers.

use super::*;
use bytes::Bytes;
use http::HeaderMap;
use std::collections::BTreeMap;
use uuid::Uuid;

pub(super) const URL: &str = "https://hooks.example.com/hooks/abc";

pub(super) struct Given {
    pub(super) parameters: Map<String, Value>,
    pub(super) credentials: Credentials,
    pub(super) secret: Secret,
    pub(super) events: Vec<String>,
    pub(super) event: Option<String>,
    pub(super) setup: BTreeMap<String, String>,
    pub(super) webhook: Option<WebhookRef>,
}

/// 2023-11-14T22:13:20.500Z
const NOW: i64 = 1_700_000_000_500;

pub(super) fn key(token: impl Into<Secret>) -> Credentials {
    Credentials::ApiKey(BTreeMap::from([("token".to_owned(), token.into())]))
}

pub(super) fn access_token(token: &str) -> Credentials {
    Credentials::AccessToken { token: Secret::from(token), client_secret: Secret::from("cl13nt") }
}

pub(super) fn given(parameters: Value) -> Given {
    Given {
        parameters: object(parameters),
        credentials: key("hunter2"),
        secret: Secret::from("callback-s3cret"),
        events: vec!["push".to_owned()],
        event: None,
        setup: BTreeMap::new(),
        webhook: Some(WebhookRef { id: "17".to_owned(), values: BTreeMap::new() }),
    }
}

impl Given {
    pub(super) fn context(&self) -> CallContext<'_> {
        CallContext {
            parameters: &self.parameters,
            credentials: &self.credentials,
            callback_url: URL,
            callback_name: "bellhop-0123456789abcdef",
            callback_secret: &self.secret,
            events: &self.events,
            event: self.event.as_deref(),
            setup: &self.setup,
            webhook: self.webhook.as_ref(),
            attempt: Some(Uuid::from_u128(7)),
            now: NOW,
        }
    }
}

pub(super) fn acme() -> Given {
    given(json!({"baseURL": "https://git.example.com", "owner": "acme"}))
}

pub(super) fn response(status: u16, body: impl Into<Bytes>) -> HttpResponse {
    HttpResponse { status, headers: HeaderMap::new(), body: body.into() }
}

pub(super) fn body(call: &HttpCall) -> Value {
    serde_json::from_slice(call.body.as_ref().unwrap()).unwrap()
}

pub(super) fn ids(found: Vec<Found>) -> Vec<String> {
    found.into_iter().map(|found| found.id).collect()
}

#[test]
fn calls_are_made_of_the_plugin_and_the_parameters() {
    let (plugin, given) = (plugin(), acme());
    let verify = plugin.verify_call(&given.context()).unwrap().unwrap();
    assert_eq!((verify.method.as_str(), verify.url.as_str()), ("GET", "https://git.example.com/user"));
    assert_eq!(verify.headers["authorization"], "token hunter2");
    assert!(verify.headers["authorization"].is_sensitive());
    assert!(verify.body.is_none());

    let find = plugin.find_call(&given.context(), &Page::First).unwrap().unwrap();
    assert_eq!(find.url.as_str(), "https://git.example.com/acme/hooks");
    let paged = super::calls::given(json!({"baseURL": "https://git.example.com", "owner": "acme", "page": 2}));
    let find = plugin.find_call(&paged.context(), &Page::First).unwrap().unwrap();
    assert_eq!(find.url.as_str(), "https://git.example.com/acme/hooks?parameters.page=2");

    let create = plugin.create_call(&given.context()).unwrap();
    assert_eq!(body(&create), json!({"url": URL, "secret": "callback-s3cret", "events": ["push"]}));
    assert_eq!(create.headers["content-type"], "application/json");
    let update = plugin.update_call(&given.context()).unwrap().unwrap();
    assert_eq!((update.method.as_str(), update.url.path()), ("PATCH", "/acme/hooks/17"));
    assert_eq!(body(&update), json!({"id": "17", "secret": "callback-s3cret"}));
    let delete = plugin.delete_call(&given.context()).unwrap().unwrap();
    assert_eq!((delete.method.as_str(), delete.url.path()), ("DELETE", "/acme/hooks/17"));

    let debug = format!("{verify:?} {create:?} {update:?} {:?} {:?}", given.context(), response(200, "hunter2"));
    assert!(!debug.contains("hunter2") && !debug.contains("callback-s3cret"), "{debug}");
    assert!(!debug.contains("hooks.example.com"), "{debug}");
}

#[test]
fn what_is_missing_is_an_error() {
    let plugin = plugin();
    let mut without = acme();
    without.credentials = Credentials::ApiKey(BTreeMap::new());
    assert_eq!(plugin.create_call(&without.context()).unwrap_err(), CallError::MissingCredential("token".into()));
    for unusable in [Secret::from(""), Secret::new(vec![0xff])] {
        without.credentials = key(unusable);
        assert_eq!(plugin.verify_call(&without.context()).unwrap_err(), CallError::MissingCredential("token".into()));
    }
    let mut without = acme();
    without.webhook = None;
    let error = plugin.delete_call(&without.context()).unwrap_err().to_string();
    assert_eq!(error, "spec.webhook.delete.url: webhook.id has no value");
    without.webhook = Some(WebhookRef::default());
    assert!(plugin.delete_call(&without.context()).unwrap_err().to_string().contains("is empty"));
    let mut without = acme();
    without.secret = Secret::from("");
    assert!(matches!(plugin.create_call(&without.context()), Err(CallError::InvalidBody { .. })));
    let no_owner = given(json!({"baseURL": "https://git.example.com"}));
    assert!(plugin.create_call(&no_owner.context()).unwrap_err().to_string().contains("parameters.owner has no value"));
    let mut none = spec();
    none.as_object_mut().unwrap().remove("webhook");
    let none = compile(none).unwrap();
    assert!(none.verify_call(&acme().context()).unwrap().is_none());
    assert_eq!(none.create_call(&acme().context()).unwrap_err(), CallError::NoSuchCall("webhook.create"));
}

#[test]
fn only_calls_that_make_a_webhook_hold_the_secret() {
    let header = json!({"x": "string(callback[?'secret'].orValue('none'))"});
    let plugin =
        compile(with_all([("/webhook/delete/headers", header.clone()), ("/webhook/update/headers", header)])).unwrap();
    let given = acme();
    let delete = plugin.delete_call(&given.context()).unwrap().unwrap();
    let update = plugin.update_call(&given.context()).unwrap().unwrap();
    assert_eq!(
        (&delete.headers["x"], &update.headers["x"]),
        (&"none".parse().unwrap(), &"callback-s3cret".parse().unwrap())
    );
}

#[test]
fn credentials_stay_in_the_allowed_origins() {
    let plugin =
        compile(with("/allowedOrigins", json!(["https://git.example.com", "http://127.0.0.1:3000/sub"]))).unwrap();
    let url = |base: &str| {
        let given = given(json!({"baseURL": base, "owner": "acme"}));
        plugin.create_call(&given.context()).map(|call| call.url.to_string())
    };
    for (base, expected) in [
        ("https://git.example.com", "https://git.example.com/acme/hooks"),
        ("https://GIT.example.com:443/gitea", "https://git.example.com/gitea/acme/hooks"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000/acme/hooks"),
    ] {
        assert_eq!(url(base).unwrap(), expected);
    }
    for base in [
        "https://evil.example.com",
        "http://git.example.com",
        "https://git.example.com:8443",
        "https://git.example.com.evil.com",
        "http://127.0.0.1:3001",
        "http://localhost:3000",
        "https://git.example.com.",
        "https://[::ffff:127.0.0.1]:3000",
    ] {
        let error = url(base).unwrap_err();
        assert!(matches!(error, CallError::OriginNotAllowed { .. }), "{base}: {error}");
        assert!(
            error.to_string().contains("spec.allowedOrigins (https://git.example.com, http://127.0.0.1:3000)"),
            "{error}"
        );
    }
    for base in [
        "ftp://git.example.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "//git.example.com",
        "git.example.com",
        "",
        "https://user@git.example.com",
        "https://user:pass@git.example.com",
        "https://git.example.com@evil.com",
        "https://git.example.com\\@evil.com",
        "https://git.example.com/x?y=",
        "https://git.example.com/#",
        "https://git.example.com/..",
        "https://git.example.com/a/../b",
        "https://git.example.com/%2e%2e/b",
        "https://git.example.com/.%2E/b",
        "https://git.example.com/a%2fb",
        "https://git.example.com//evil",
        "https://git.exa\tmple.com",
        "https://git.example.com\n",
        " https://git.example.com",
        "https://",
    ] {
        let error = url(base).unwrap_err();
        assert!(matches!(error, CallError::InvalidUrl { .. }), "{base:?}: {error}");
    }
}

#[test]
fn an_origin_without_its_parameters_allows_nothing() {
    let origins = json!(["{+parameters.path}", "https://git.example.com"]);
    let plugin = compile(with("/allowedOrigins", origins)).unwrap();
    plugin.create_call(&acme().context()).unwrap();
    let evil = given(json!({"baseURL": "https://evil.example.com", "owner": "acme"}));
    assert!(matches!(plugin.create_call(&evil.context()), Err(CallError::OriginNotAllowed { .. })));
}

#[test]
fn values_stay_in_their_place() {
    let plugin = compile(with(
        "/webhook/find/url",
        json!("https://git.example.com/api/{parameters.owner}/{+parameters.path}{?parameters.tags*}"),
    ))
    .unwrap();
    let url = |owner: &str, path: &str| {
        let given =
            given(json!({"baseURL": "https://git.example.com", "owner": owner, "path": path, "tags": ["a&b", ".."]}));
        plugin.find_call(&given.context(), &Page::First).map(|call| call.unwrap().url.to_string())
    };
    let query = "?parameters.tags=a%26b&parameters.tags=..";
    assert_eq!(url("acme", "a/b").unwrap(), format!("https://git.example.com/api/acme/a/b{query}"));
    assert_eq!(url("a/b?c#d@e", "x@y").unwrap(), format!("https://git.example.com/api/a%2Fb%3Fc%23d%40e/x@y{query}"));
    assert_eq!(url("gröup name", "x").unwrap(), format!("https://git.example.com/api/gr%C3%B6up%20name/x{query}"));
    assert_eq!(url("...", "a..b").unwrap(), format!("https://git.example.com/api/.../a..b{query}"));
    for owner in
        ["..", ".", "%2e%2e", "%2E.", "%252e%252e", "a/../b", "../x", "..\\x", "a%2f..%2fb", "", "a\r\nb", "a\0b"]
    {
        assert!(matches!(url(owner, "x"), Err(CallError::InvalidUrl { .. })), "{owner:?}");
    }
    for path in ["../x", "a/../../b", "x?admin=1", "x#", "a%2fb", "a%2e", "a\\b", "/x//y", "%2e%2e/x", ".", ""] {
        assert!(matches!(url("acme", path), Err(CallError::InvalidUrl { .. })), "{path:?}");
    }
    for path in ["//evil.com/x", "https://evil.com/x"] {
        let result = url("acme", path);
        assert!(result.as_ref().map_or(true, |url| url.starts_with("https://git.example.com/api/acme/")), "{result:?}");
    }
}

#[test]
fn header_values_are_checked_and_not_printed() {
    let mut given = acme();
    for broken in ["hunter2\r\nx-admin: 1", "hunter2\n", "hunter2\0"] {
        given.credentials = key(broken);
        let error = plugin().verify_call(&given.context()).unwrap_err();
        assert_eq!(error, CallError::InvalidHeader { field: "spec.authorization.apiKey.headers.authorization".into() });
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
    // No failing expression prints what it worked on.
    for source in [
        "credentials.token + 1",
        "string(int(credentials.token))",
        "parameters[credentials.token]",
        "credentials[credentials.token]",
        "credentials.token.matches('[' + credentials.token)",
        "duration(credentials.token) == duration('1s') ? 'a' : 'b'",
        "timestamp(credentials.token) == timestamp('x') ? 'a' : 'b'",
        "credentials.token < 1 ? 'a' : 'b'",
        "credentials",
        "-credentials.token",
        "glob('[' + credentials.token, 'a') ? 'a' : 'b'",
        "{credentials: 1}.x",
    ] {
        let plugin = compile(with("/authorization/apiKey/headers/authorization", json!(source))).unwrap();
        let error = plugin.verify_call(&acme().context()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{source}: {error}");
    }
}

#[test]
fn bodies_are_json_or_a_form() {
    let form = |source: &str| {
        let mut spec = with("/webhook/create/body", json!(source));
        spec["webhook"]["create"]["encoding"] = json!("form");
        compile(spec).unwrap().create_call(&acme().context())
    };
    let call = form("{'url': callback.url, 'enabled_events[]': events + ['x y'], 'n': 1, 'b': true}").unwrap();
    let text = String::from_utf8(call.body.unwrap().to_vec()).unwrap();
    let url = "https%3A%2F%2Fhooks.example.com%2Fhooks%2Fabc";
    assert_eq!(text, format!("b=true&enabled_events%5B%5D=push&enabled_events%5B%5D=x+y&n=1&url={url}"));
    assert_eq!(call.headers["content-type"], "application/x-www-form-urlencoded");
    for wrong in ["[1]", "'x'", "{'a': {}}", "{'a': null}", "{'a': [[1]]}"] {
        assert!(matches!(form(wrong), Err(CallError::InvalidBody { .. })), "{wrong}");
    }
    let plugin = compile(with("/webhook/create/body", json!("{'a': type(1)}"))).unwrap();
    let error = plugin.create_call(&acme().context()).unwrap_err().to_string();
    assert!(error.starts_with("spec.webhook.create.body is a type"), "{error}");
}

#[test]
fn an_unexpected_answer_is_never_absent() {
    let (plugin, given) = (plugin(), acme());
    let found = |status: u16, body: &str| plugin.found(&given.context(), &response(status, body.to_owned()));
    let mine = format!(
        r#"[{{"id": 17, "url": "{URL}"}}, {{"id": 18, "url": "https://other"}}, {{"id": 18446744073709551615, "url": "{URL}"}}]"#
    );
    assert_eq!(ids(found(200, &mine).unwrap()), ["17", "18446744073709551615"]);
    assert_eq!(found(200, "[]").unwrap(), []);
    for (status, body) in [
        (200, ""),
        (200, "null"),
        (200, "{}"),
        (200, "<html>"),
        (200, r#"{"message": "x"}"#),
        (200, "[{}]"),
        (200, r#"[{"id": 1}]"#),
        (200, "[1]"),
        (404, "[]"),
        (500, "[]"),
        (301, "[]"),
        (401, "[]"),
        (204, ""),
        (200, "\"[]\""),
    ] {
        let error = found(status, body).unwrap_err();
        assert!(
            matches!(&error, CallError::UnexpectedAnswer { status: s, .. } if *s == status),
            "{status} {body}: {error}"
        );
    }
    let answers = |pointer: &str, source: &str| {
        let plugin = compile(with(pointer, json!(source))).unwrap();
        plugin.found(&given.context(), &response(200, mine.clone())).unwrap_err().to_string()
    };
    assert!(answers("/webhook/find/match", "item.id").contains("spec.webhook.find.match is an int, not a bool"));
    assert!(answers("/webhook/find/match", "null").contains("is null, not a bool"));
    assert!(answers("/webhook/find/id", "item.id").contains("spec.webhook.find.id is an int, not a string"));
    assert!(answers("/webhook/find/id", "''").contains("is empty"));
    assert!(answers("/webhook/find/items", "response.headers.link").contains("no such key: link"));

    assert_eq!(plugin.created(&given.context(), &response(201, r#"{"id": 17}"#)).unwrap().id, "17");
    for (status, body) in [(201, "{}"), (200, ""), (422, r#"{"id": 17}"#)] {
        let created = plugin.created(&given.context(), &response(status, body.to_owned()));
        assert!(matches!(created, Err(CallError::UnexpectedAnswer { .. })));
    }
    assert_eq!(plugin.account(&response(200, r#"{"login": "bot"}"#)).unwrap().as_deref(), Some("bot"));
    assert!(plugin.account(&response(401, r#"{"login": "bot"}"#)).is_err());
    assert!(plugin.account(&response(200, "{}")).is_err());
}

#[test]
fn a_parameter_can_choose_another_url() {
    let other = json!({"owner": "https://git.example.com/orgs/{parameters.owner}/hooks"});
    let plugin = compile(with_all([
        ("/webhook/create/url", json!("{+parameters.baseURL}/hooks")),
        ("/webhook/create/urlWith", other),
        ("/webhook/find/urlWith", json!({"path": "{+parameters.baseURL}/{parameters.path}"})),
    ]))
    .unwrap();
    let create = |given: &Given| plugin.create_call(&given.context()).map(|call| call.url.to_string());
    assert_eq!(create(&acme()).unwrap(), "https://git.example.com/orgs/acme/hooks");
    for parameters in [
        json!({"baseURL": "https://git.example.com"}),
        json!({"baseURL": "https://git.example.com", "owner": null, "path": "x"}),
    ] {
        assert_eq!(create(&given(parameters)).unwrap(), "https://git.example.com/hooks");
    }
    // The origin is checked as any other URL's.
    let elsewhere = create(&given(json!({"baseURL": "https://git.example.org", "owner": "acme"}))).unwrap_err();
    assert!(
        matches!(&elsewhere, CallError::OriginNotAllowed { field, .. } if field == "spec.webhook.create.urlWith.owner")
    );

    let mistakes = |value: Value| {
        let found = compile(with_all([("/webhook/create/urlWith", value)])).unwrap_err();
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let unknown = mistakes(json!({"ownr": "https://git.example.com/"}));
    assert!(unknown.starts_with("spec.webhook.create.urlWith.ownr: `ownr` is no parameter; there are: "), "{unknown}");
    let wrong = mistakes(json!({"owner": "https://git.example.com/{parameters.x}"}));
    assert!(wrong.starts_with("spec.webhook.create.urlWith.owner: unknown variable `parameters.x`"), "{wrong}");
    let pages = compile(with_all([
        ("/webhook/find/url", json!("{+parameters.baseURL}/hooks{?page}")),
        ("/webhook/find/urlWith", json!({"owner": "{+parameters.baseURL}/hooks"})),
        ("/webhook/find/pagination", json!({"next": "null"})),
    ]));
    assert!(pages.unwrap_err()[0].problem.contains("`page` is not part of the call"));
}

#[test]
fn the_examples_make_the_vendors_calls() {
    let gitea = example("gitea-push");
    let mut given = given(json!({"baseURL": "http://127.0.0.1:3000", "owner": "acme", "repository": "web"}));
    gitea.check_parameters(&given.parameters).unwrap();
    assert!(gitea.check_parameters(&object(json!({"baseURL": "http://x/", "owner": "a", "repository": "b"}))).is_err());
    let create = gitea.create_call(&given.context()).unwrap();
    assert_eq!(create.url.as_str(), "http://127.0.0.1:3000/api/v1/repos/acme/web/hooks");
    let config = json!({"url": URL, "content_type": "json", "secret": "callback-s3cret"});
    assert_eq!(body(&create), json!({"type": "gitea", "active": true, "events": ["push"], "config": config}));
    given.events.push("issue_comment".into());
    assert_eq!(
        body(&gitea.create_call(&given.context()).unwrap())["events"],
        json!(["push", "issue_comment", "pull_request_comment"])
    );
    assert!(gitea.update_call(&given.context()).unwrap().is_none());
    let delete = gitea.delete_call(&given.context()).unwrap().unwrap();
    assert_eq!(delete.url.path(), "/api/v1/repos/acme/web/hooks/17");
    let events = r#""active": true, "events": ["push", "issue_comment", "pull_request_comment"]"#;
    let list = format!(r#"[{{"id": 3, {events}, "config": {{"url": "{URL}", "content_type": "json"}}}}]"#);
    assert_eq!(ids(gitea.found(&given.context(), &response(200, list)).unwrap()), ["3"]);

    let github = example("github-push");
    let given = self::given(json!({"owner": "acme", "repository": "web"}));
    let create = github.create_call(&given.context()).unwrap();
    assert_eq!(create.url.as_str(), "https://api.github.com/repos/acme/web/hooks");
    assert_eq!(create.headers["authorization"], "Bearer hunter2");
    assert_eq!(create.headers["accept"], "application/vnd.github+json");
    assert!(create.headers.contains_key("user-agent") && create.headers.contains_key("x-github-api-version"));
    let list = format!(r#"[{{"id": 1, "config": {{}}}}, {{"id": 2, {events}, "config": {{"url": "{URL}"}}}}]"#);
    assert_eq!(ids(github.found(&given.context(), &response(200, list)).unwrap()), ["2"]);
}

#[test]
fn a_call_knows_the_time() {
    let body = "{'until': now + duration('4230m'), 'text': string(now), 'seconds': int(now), \
                'millis': (now + duration('168h') - timestamp(0)).getMilliseconds()}";
    let headers = json!({"x-date": "string(now - duration('500ms'))"});
    let plugin = compile(with_all([("/webhook/create/body", json!(body)), ("/webhook/create/headers", headers)]));
    let call = plugin.unwrap().create_call(&acme().context()).unwrap();
    assert_eq!(call.headers["x-date"], "2023-11-14T22:13:20Z");
    let expected = json!({
        "until": "2023-11-17T20:43:20.500+00:00", "text": "2023-11-14T22:13:20.5Z", "seconds": 1_700_000_000,
        "millis": 1_700_604_800_500_i64
    });
    assert_eq!(super::calls::body(&call), expected);
    // What a callback says must not depend on when it is looked at.
    let mistakes = compile(with("/callback/event", json!("string(now)"))).unwrap_err();
    assert!(mistakes[0].problem.contains("unknown variable `now`"), "{mistakes:?}");
}
