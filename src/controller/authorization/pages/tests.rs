//! The pages, as a browser sees them.

use super::super::testing::{UID, World, custody, custody_path, put_custody};
use super::super::{AuthorizationRecord, ProblemKind, now_millis};
use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, LOCATION, ORIGIN, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::collections::HashMap;
use tower::ServiceExt;
use url::Url;

const PUBLIC: &str = "http://hooks.example.com";

struct Seen {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Seen {
    fn header(&self, name: http::HeaderName) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn location(&self) -> (Url, HashMap<String, String>) {
        let url: Url = self.header(LOCATION).parse().unwrap();
        let pairs = url.query_pairs().into_owned().collect();
        (url, pairs)
    }
}

async fn visit(world: &World, method: Method, path: &str, headers: &[(http::HeaderName, &str)]) -> Seen {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    let response = world.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let seen = Seen { status: parts.status, headers: parts.headers, text };
    // Whatever the page: nothing is kept by caches, nothing is loaded, and nothing of it goes elsewhere.
    assert_eq!(seen.header(CACHE_CONTROL), "no-store");
    assert!(seen.header(CONTENT_SECURITY_POLICY).contains("frame-ancestors 'none'"));
    assert!(["no-referrer", "same-origin"].contains(&seen.header(REFERRER_POLICY)));
    assert!(!seen.text.contains("<script") && !seen.text.contains("<b>"), "{}", seen.text);
    seen
}

/// Opens the link; gives the cookie as the browser sends it.
async fn open(world: &World) -> (Seen, String) {
    let seen = visit(world, Method::GET, &format!("/oauth/start/{}", world.link), &[]).await;
    let cookie = seen.header(SET_COOKIE).split(';').next().unwrap().to_owned();
    (seen, cookie)
}

/// Opens the link and presses the button; gives the cookie and what the external system is asked.
async fn begin(world: &World) -> (String, HashMap<String, String>) {
    let (_, cookie) = open(world).await;
    let path = format!("/oauth/start/{}", world.link);
    let seen = visit(world, Method::POST, &path, &[(COOKIE, &cookie), (ORIGIN, PUBLIC)]).await;
    assert_eq!(seen.status, StatusCode::SEE_OTHER, "{}", seen.text);
    (cookie, seen.location().1)
}

async fn come_back(world: &World, cookie: &str, query: &[(&str, &str)]) -> Seen {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    visit(world, Method::GET, &format!("/oauth/callback?{query}"), &[(COOKIE, cookie)]).await
}

#[tokio::test]
async fn one_click_one_consent_and_a_grant_is_in_custody() {
    let world = World::new(PUBLIC, &json!({"authorizeParameters": {"access_type": "offline"}})).await;
    let (page, cookie) = open(&world).await;
    assert_eq!(page.status, StatusCode::OK);
    for told in ["team-a", "acme-web", "Forge &lt;b&gt; (forge)", &world.endpoint.url, "my-client", "hooks, read"] {
        assert!(page.text.contains(told), "no {told} in {}", page.text);
    }
    assert!(
        page.text.contains("<html lang=\"en\">")
            && page.text.contains("<form method=\"post\"><button type=\"submit\">")
    );
    // Looking at the page has begun nothing.
    assert!(world.record().await.flow.is_none());

    let path = format!("/oauth/start/{}", world.link);
    let seen = visit(&world, Method::POST, &path, &[(COOKIE, &cookie), (ORIGIN, PUBLIC)]).await;
    assert_eq!(seen.status, StatusCode::SEE_OTHER);
    let (url, asked) = seen.location();
    assert_eq!(url.origin().ascii_serialization(), world.endpoint.url);
    let flow = world.record().await.flow.unwrap();
    assert_eq!(asked["state"], format!("{}.{}", UID.simple(), flow.state));
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "the-id"),
        ("redirect_uri", "http://hooks.example.com/oauth/callback"),
        ("scope", "hooks read"),
        ("code_challenge_method", "S256"),
        ("access_type", "offline"),
    ] {
        assert_eq!(asked[name], value);
    }
    assert!(!url.as_str().contains("the-secret"));

    let done = come_back(&world, &cookie, &[("code", "the-code"), ("state", &asked["state"])]).await;
    assert_eq!(done.status, StatusCode::OK, "{}", done.text);
    assert!(done.text.contains("You can close this page") && done.text.contains("acme-web"));
    let (headers, form) = world.endpoint.requests.lock().unwrap().pop().expect("one token request");
    assert_eq!(headers["authorization"], "Basic dGhlLWlkOnRoZS1zZWNyZXQ=");
    assert_eq!((form["code"].as_str(), form["grant_type"].as_str()), ("the-code", "authorization_code"));
    assert_eq!(form["redirect_uri"], "http://hooks.example.com/oauth/callback");
    assert_eq!(Some(&form["code_verifier"]), flow.pkce_verifier.as_ref());
    let record = world.record().await;
    let grant = record.grant.unwrap();
    assert_eq!((grant.access_token.as_str(), grant.refresh_token.as_deref()), ("access-1", Some("refresh-1")));
    assert!(grant.expires_at.is_some_and(|at| at > now_millis() + 3_590_000));
    assert!(record.link.is_none() && record.flow.is_none() && record.problem.is_none());
    let counted = r#"bellhop_external_calls_total{plugin="forge",call="oauth2.code",status="2xx"} 1"#;
    assert!(world.metrics.to_text().contains(counted), "{}", world.metrics.to_text());
    // The link has done what it was for.
    assert_eq!(open(&world).await.0.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_answer_counts_once() {
    let world = World::new(PUBLIC, &json!({})).await;
    let (cookie, asked) = begin(&world).await;
    let query = [("code", "the-code"), ("state", asked["state"].as_str())];
    // Two at the same moment: a write that only one can win decides.
    let (one, other) = tokio::join!(come_back(&world, &cookie, &query), come_back(&world, &cookie, &query));
    let mut statuses = [one.status, other.status];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::BAD_REQUEST]);
    let again = come_back(&world, &cookie, &query).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST);
    assert!(again.text.contains("used already"));
    assert_eq!(world.endpoint.requests.lock().unwrap().len(), 1, "the code was used once");
}

#[tokio::test]
async fn what_was_begun_elsewhere_is_not_ended_here() {
    let world = World::new(PUBLIC, &json!({})).await;
    let (cookie, asked) = begin(&world).await;
    let (_, other) = open(&world).await;
    let query = [("code", "the-code"), ("state", asked["state"].as_str())];
    for stranger in [other.as_str(), ""] {
        let seen = come_back(&world, stranger, &query).await;
        assert_eq!(seen.status, StatusCode::FORBIDDEN, "{}", seen.text);
        assert!(seen.text.contains("another browser"));
    }
    assert!(world.endpoint.requests.lock().unwrap().is_empty());
    // The browser that has begun it is not disturbed.
    assert_eq!(come_back(&world, &cookie, &query).await.status, StatusCode::OK);
}

#[tokio::test]
async fn forms_of_other_sites_and_browsers_without_the_cookie_begin_nothing() {
    let world = World::new("https://hooks.example.com", &json!({})).await;
    let (_, cookie) = open(&world).await;
    assert!(cookie.starts_with("__Host-"), "{cookie}");
    let path = format!("/oauth/start/{}", world.link);
    for headers in [
        vec![(COOKIE, cookie.as_str()), (ORIGIN, "https://evil.example.com")],
        vec![(COOKIE, cookie.as_str()), (ORIGIN, "null")],
        vec![(ORIGIN, "https://hooks.example.com")],
        vec![(COOKIE, "__Host-bellhop-oauth=x")],
    ] {
        assert_eq!(visit(&world, Method::POST, &path, &headers).await.status, StatusCode::FORBIDDEN);
    }
    assert!(world.record().await.flow.is_none());
    assert_eq!(visit(&world, Method::POST, &path, &[(COOKIE, &cookie)]).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn wrong_old_and_used_links_are_all_told_alike() {
    let world = World::new(PUBLIC, &json!({})).await;
    let (good, (_, cookie)) = (world.link.clone(), open(&world).await);
    let changed = format!("{}{}", &good[..good.len() - 1], if good.ends_with('A') { 'B' } else { 'A' });
    let other_uid = format!("{:032x}{}", 7, &good[32..]);
    for link in [changed, other_uid, "x".to_owned(), "%ff".to_owned(), "x".repeat(5000)] {
        for method in [Method::GET, Method::POST] {
            let seen = visit(&world, method, &format!("/oauth/start/{link}"), &[(COOKIE, &cookie)]).await;
            assert_eq!(seen.status, StatusCode::NOT_FOUND);
            assert!(seen.text.contains("This link does not work") && !seen.text.contains("team-a"));
        }
    }
    let mut record = world.record().await;
    record.link.as_mut().unwrap().expires_at = now_millis() - 1;
    put_custody(&world.server, &custody(&world.endpoint.url, record));
    assert_eq!(open(&world).await.0.status, StatusCode::NOT_FOUND);
    assert_eq!(visit(&world, Method::GET, "/oauth/elsewhere", &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_refusal_is_shown_as_text_and_stored() {
    let world = World::new(PUBLIC, &json!({})).await;
    let (cookie, asked) = begin(&world).await;
    let words = format!("<script>alert(1)</script> {}", "x".repeat(5000));
    let query = [("error", "access_denied"), ("error_description", words.as_str()), ("state", asked["state"].as_str())];
    let seen = come_back(&world, &cookie, &query).await;
    assert_eq!(seen.status, StatusCode::OK);
    assert!(seen.text.contains("access_denied") && seen.text.contains("&lt;script&gt;") && seen.text.len() < 6000);
    assert!(seen.text.contains(&format!("href=\"{PUBLIC}/oauth/start/{}\"", world.link)), "{}", seen.text);
    let problem = world.record().await.problem.unwrap();
    assert_eq!(problem.kind, ProblemKind::ConsentRefused);
    assert!(problem.message.contains("access_denied") && problem.message.len() < 1000);
    assert!(world.endpoint.requests.lock().unwrap().is_empty());
    // The link still works, and a later consent clears the problem.
    let (cookie, asked) = begin(&world).await;
    assert_eq!(come_back(&world, &cookie, &[("code", "c"), ("state", &asked["state"])]).await.status, StatusCode::OK);
    assert!(world.record().await.problem.is_none());
}

#[tokio::test]
async fn a_code_that_is_not_taken_is_told_without_secrets() {
    let world = World::new(PUBLIC, &json!({})).await;
    let refused = |error: &str, words: &str| json!({"error": error, "error_description": words});
    for (status, answer, kind, told) in [
        (400, refused("invalid_grant", "code the-code is spent"), ProblemKind::NoToken, "code [redacted] is spent"),
        (401, refused("invalid_client", "the-secret is wrong"), ProblemKind::ClientRefused, "[redacted] is wrong"),
        (503, json!({"message": "come back"}), ProblemKind::NoToken, "answered 503: come back"),
        (200, refused("bad_verification_code", "expired"), ProblemKind::NoToken, "bad_verification_code"),
        (200, json!({"unexpected": true}), ProblemKind::NoToken, "unexpected answer"),
    ] {
        world.endpoint.answer(status, &answer);
        let (cookie, asked) = begin(&world).await;
        let seen = come_back(&world, &cookie, &[("code", "the-code"), ("state", &asked["state"])]).await;
        assert_eq!(seen.status, StatusCode::BAD_GATEWAY);
        let problem = world.record().await.problem.unwrap();
        assert_eq!(problem.kind, kind, "{}", problem.message);
        assert!(problem.message.contains(told), "{}", problem.message);
        assert!(!seen.text.contains("the-code") && !seen.text.contains("the-secret"), "{}", seen.text);
    }
}

#[tokio::test]
async fn answers_that_are_none_change_nothing() {
    let world = World::new(PUBLIC, &json!({})).await;
    let (cookie, asked) = begin(&world).await;
    let state = asked["state"].as_str();
    for query in [
        vec![],
        vec![("state", state)],
        vec![("code", ""), ("state", state)],
        vec![("code", "a"), ("error", "b"), ("state", state)],
        vec![("code", "a"), ("code", "b"), ("state", state)],
        vec![("code", "a")],
        vec![("code", "a"), ("state", "x")],
        vec![("error", "<b>"), ("state", "x")],
    ] {
        assert_eq!(come_back(&world, &cookie, &query).await.status, StatusCode::BAD_REQUEST, "{query:?}");
    }
    assert!(world.record().await.flow.is_some() && world.endpoint.requests.lock().unwrap().is_empty());
    let mut record = world.record().await;
    record.flow.as_mut().unwrap().expires_at = now_millis() - 1;
    put_custody(&world.server, &custody(&world.endpoint.url, record));
    let late = come_back(&world, &cookie, &[("code", "a"), ("state", state)]).await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn an_answer_of_another_system_reaches_nobody() {
    let world = World::new(PUBLIC, &json!({})).await;
    let (cookie, asked) = begin(&world).await;
    let query = [("code", "a"), ("iss", "https://other.example.com"), ("state", asked["state"].as_str())];
    let seen = come_back(&world, &cookie, &query).await;
    assert!(seen.text.contains("https://other.example.com and not of 127.0.0.1"), "{}", seen.text);
    assert!(world.endpoint.requests.lock().unwrap().is_empty() && world.record().await.grant.is_none());
    let (cookie, asked) = begin(&world).await;
    let query = [("code", "a"), ("iss", world.endpoint.url.as_str()), ("state", asked["state"].as_str())];
    assert_eq!(come_back(&world, &cookie, &query).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_subscription_that_goes_away_meanwhile_keeps_no_grant() {
    let world = World::new(PUBLIC, &json!({"revocationURL": "{+parameters.baseURL}/revoke"})).await;
    let (cookie, asked) = begin(&world).await;
    let query = [("code", "a"), ("state", asked["state"].as_str())];
    let server = world.server.clone();
    *world.endpoint.before_answer.lock().unwrap() = Some(Box::new(move || server.remove(&custody_path())));
    let seen = come_back(&world, &cookie, &query).await;
    assert_eq!(seen.status, StatusCode::NOT_FOUND);
    assert!(seen.text.contains("The Subscription is gone"), "{}", seen.text);
    {
        let requests = world.endpoint.requests.lock().unwrap();
        assert_eq!(requests.len(), 2, "the token that nobody needs was revoked");
        assert_eq!(requests[1].1["token"], "refresh-1");
    }
    // The answer once more, of a Subscription that is gone.
    assert_eq!(come_back(&world, &cookie, &query).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn two_tabs_do_not_lose_what_others_write() {
    let world = World::new(PUBLIC, &json!({})).await;
    let (cookie, asked) = begin(&world).await;
    let url = world.endpoint.url.clone();
    let mut record = world.record().await;
    record.doubted_at = Some(1);
    // Somebody else writes the custody between our reading and our writing.
    *world.server.before_write.lock().unwrap() =
        Some(Box::new(move |server| put_custody(server, &custody(&url, record))));
    let seen = come_back(&world, &cookie, &[("code", "a"), ("state", &asked["state"])]).await;
    assert_eq!(seen.status, StatusCode::OK, "{}", seen.text);
    assert!(world.record().await.grant.is_some());
}

#[tokio::test]
async fn a_secret_that_was_replaced_is_used_and_a_missing_one_is_used_as_it_was() {
    let world = World::new(PUBLIC, &json!({"clientAuthentication": "body", "pkce": false})).await;
    let client = |id: &str, secret: &str| {
        world.server.secret("team-a", "my-client", "forge", false, &[("clientID", id), ("clientSecret", secret)]);
    };
    client("another-id", "another-secret");
    let (cookie, asked) = begin(&world).await;
    assert_eq!(asked["client_id"], "another-id");
    assert!(!asked.contains_key("code_challenge"));
    world.server.remove("/api/v1/namespaces/team-a/secrets/my-client");
    let seen = come_back(&world, &cookie, &[("code", "a"), ("state", &asked["state"])]).await;
    assert_eq!(seen.status, StatusCode::OK, "{}", seen.text);
    let (headers, form) = world.endpoint.requests.lock().unwrap().pop().unwrap();
    assert_eq!((form["client_id"].as_str(), form["client_secret"].as_str()), ("another-id", "another-secret"));
    assert!(!headers.contains_key("authorization") && !form.contains_key("code_verifier"));
}

#[tokio::test]
async fn a_plugin_without_oauth_is_told() {
    let world = World::new(PUBLIC, &json!({})).await;
    world.server.remove("/apis/bellhop.dev/v1alpha1/triggerplugins/forge");
    let (seen, _) = open(&world).await;
    assert_eq!(seen.status, StatusCode::CONFLICT);
    assert!(seen.text.contains("The TriggerPlugin &quot;forge&quot; is not there"), "{}", seen.text);
}

#[test]
fn a_record_without_anything_is_not_written() {
    let custody = custody("http://x", AuthorizationRecord::default());
    assert_eq!(serde_json::to_value(custody).unwrap()["authorization"], Value::Object(serde_json::Map::new()));
}

#[tokio::test]
async fn made_up_links_do_not_keep_the_api_server_busy() {
    let world = World::new(PUBLIC, &json!({})).await;
    let made_up = format!("{:032x}{}", 7, &world.link[32..]);
    let mut busy = 0;
    for _ in 0..200 {
        let seen = visit(&world, Method::GET, &format!("/oauth/start/{made_up}"), &[]).await;
        busy += usize::from(seen.status == StatusCode::SERVICE_UNAVAILABLE);
    }
    let looked_for = world.server.read.lock().unwrap().len();
    assert!(busy > 0 && looked_for + busy == 200, "{busy} refused, {looked_for} looked for");
}
