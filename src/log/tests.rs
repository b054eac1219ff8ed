//! The questions of the controller, over a real spool and real routes.

use super::*;
use crate::api::PublishedController;
use crate::ingress::request_id;
use crate::log::convert::{About, Passed, passing};
use crate::log::model::{Answer, ChangeKind, Outcome, Page, Request, State};
use crate::routes::Trigger;
use crate::routes::tests::{plugin_spec, published, trigger};
use crate::spool::{Attempt, DeliveryKey, Limits, Matched, Next};
use crate::telemetry::Metrics;
use axum::Router;
use axum::body::Body;
use futures::StreamExt;
use http::StatusCode;
use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use tempfile::TempDir;
use tower::ServiceExt;

const NOW: u64 = 1_700_000_000_000;
const MAIN: &str = r#"{"ref":"main"}"#;

struct Bench {
    _dir: TempDir,
    routes: Handle,
    spool: Spool,
    log: Log,
}

impl Bench {
    /// The Subscriptions 1 and 2 of `team-a`, 3 of `team-b`, and these triggers.
    fn new(triggers: impl IntoIterator<Item = Trigger>) -> Self {
        // What came at `NOW` is years old.
        Self::with_retention(Duration::from_secs(1 << 32), triggers)
    }

    fn with_retention(retention: Duration, triggers: impl IntoIterator<Item = Trigger>) -> Self {
        let dir = TempDir::new().unwrap();
        let spool = Spool::open(dir.path(), Limits { retention, ..Limits::default() }).unwrap();
        let routes = Handle::new(Metrics::new());
        routes.update(|index| {
            index.apply_plugin("forge", &plugin_spec());
            index.apply_route(published(1));
            index.apply_route(published(2));
            index.apply_route(crate::api::PublishedRoute { namespace: "team-b".into(), ..published(3) });
            triggers.into_iter().for_each(|trigger| index.apply_trigger(trigger));
        });
        routes.set_synced();
        let log = Log::new(routes.clone(), spool.clone(), Arc::default(), "7".into());
        Self { _dir: dir, routes, spool, log }
    }

    /// Stores and matches a request of the Subscription `subscription`, received `n` milliseconds after [`NOW`].
    async fn receive(&self, subscription: u128, n: u64, event: &str, body: &str) -> Uuid {
        let id = self.store(subscription, n, event, body).await;
        let request = self.spool.entry(id).unwrap().unwrap().request;
        let Lookup::Served(route) = self.routes.by_uid(request.subscription) else { panic!("not served") };
        let matched = crate::delivery::match_request(&route, &request, NOW + n);
        self.spool.store_match(id, matched).await.unwrap();
        id
    }

    async fn store(&self, subscription: u128, n: u64, event: &str, body: &str) -> Uuid {
        let uid = Uuid::from_u128(subscription);
        let delivery_id = Some(n.to_string());
        let id = request_id(uid, delivery_id.as_deref(), body.as_bytes());
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let request = crate::spool::Request {
            id,
            subscription: uid,
            namespace: if subscription == 3 { "team-b" } else { "team-a" }.into(),
            name: format!("sub-{subscription}"),
            received_at: NOW + n,
            delivery_id,
            method: "POST".into(),
            query: "a=b&token=hush".into(),
            headers: vec![
                header("x-event", event),
                header("content-type", "application/json"),
                header("x-odd", &format!("has secret-{subscription} in it")),
            ],
            sent: None,
            body: body.to_owned().into(),
        };
        self.spool.append(request).await.unwrap();
        id
    }

    fn pass(&self, subscription: u128, n: u64, outcome: Outcome) -> Uuid {
        let (head, ()) = http::Request::post("/hooks/x?token=hush").body(()).unwrap().into_parts();
        let id = Uuid::from_u128(u128::from(n) << 96 | 1);
        let (name, mask) = (format!("sub-{subscription}"), Mask::default());
        let passed = Passed {
            id,
            at: NOW + n,
            subscription: ("team-a", &name, Uuid::from_u128(subscription)),
            outcome,
            head: &head,
            body: Some(b"{}"),
            delivery_id: None,
            answer: Answer { status: 401, after_millis: Some(1), reason: "Unverified".into(), ..Answer::default() },
            verification: None,
            note: None,
        };
        self.log.0.passing.keep(passing(passed, &About { replica: "7", plugin: Some("forge"), mask: &mask }), 0);
        id
    }

    fn key(&self, request: Uuid) -> DeliveryKey {
        self.spool.entry(request).unwrap().unwrap().deliveries[0].key
    }

    async fn attempt(&self, key: DeliveryKey, next: Next) {
        let (url, status, error) = ("http://runner/".into(), Some(503), Some("busy".into()));
        let attempt = Attempt { at: NOW + 50, url, status, error, duration_ms: 3, answer: None };
        self.spool.record_attempt(key, attempt, next).await.unwrap();
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, text) =
            send(router(self.log.clone()), http::Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn names(&self, question: &str) -> Vec<Uuid> {
        let page: Page = self.ask(&format!("/log/team-a/requests?{question}")).await;
        page.items.into_iter().map(|request| request.metadata.uid).collect()
    }

    async fn replay(&self, id: Uuid, wish: Value) -> (StatusCode, Value) {
        let request = http::Request::post(format!("/log/team-a/requests/{id}/replay"));
        let (status, text) = send(router(self.log.clone()), request.body(Body::from(wish.to_string())).unwrap()).await;
        (status, serde_json::from_str(&text).unwrap())
    }
}

async fn send(router: Router, request: http::Request<Body>) -> (StatusCode, String) {
    let response = router.oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A trigger of the Subscription 1 that wants pushes to `branch`.
fn wants(n: u128, branch: &str) -> Trigger {
    let mut trigger = trigger(n, "sub-1");
    trigger.spec.parameters.insert("branch".into(), json!(branch));
    trigger
}

#[tokio::test]
async fn a_request_tells_its_whole_story_without_secrets() {
    let bench = Bench::new([wants(1, "main"), wants(2, "release")]);
    let id = bench.receive(1, 0, "push", r#"{"ref":"main","say":"secret-1"}"#).await;
    bench.attempt(bench.key(id), Next::Retry { due_at: NOW + 99 }).await;
    let request: Request = bench.ask(&format!("/log/team-a/requests/{id}")).await;
    assert_eq!((request.metadata.name, request.outcome), (format!("7-{id}"), Outcome::Pending));
    assert_eq!(request.subscription.plugin.as_deref(), Some("forge"));
    assert_eq!(
        (request.received.query.as_str(), request.received.delivery_id.as_deref()),
        ("a=b&token=***", Some("0"))
    );
    let odd = request.received.headers.iter().find(|header| header.name == "x-odd").unwrap();
    assert_eq!(odd.value, "***");
    assert_eq!(request.received.body.unwrap().text.unwrap(), r#"{"ref":"main","say":"***"}"#);
    let answer = request.answer.unwrap();
    assert!(answer.status == 200 && answer.after_millis.is_some());
    let event = &request.events[0];
    assert_eq!(event.variables, Some(json!({"ref": "main"})));
    let [fired, not] = event.triggers.as_slice() else { panic!("{:?}", event.triggers) };
    assert!(fired.fired && !not.fired && not.reason.as_ref().unwrap().contains("branch"), "{not:?}");
    let delivery = fired.delivery.as_ref().unwrap();
    assert_eq!((delivery.state, delivery.attempts[0].status), (State::Pending, Some(503)));
    assert_eq!(delivery.next_attempt.as_deref(), Some("2023-11-14T22:13:20.099Z"));

    // Nobody sees what is another namespace's.
    let other = send(router(bench.log.clone()), get(&format!("/log/team-b/requests/{id}"))).await;
    assert_eq!(other.0, StatusCode::NOT_FOUND);
}

fn get(path: &str) -> http::Request<Body> {
    http::Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_list_is_newest_first_and_goes_on_where_it_ended() {
    let bench = Bench::new([wants(1, "main")]);
    let mut expected = Vec::new();
    for n in 0..250 {
        expected.push(match n % 5 {
            4 => bench.pass(1, n, Outcome::Refused),
            other => bench.receive(1 + u128::from(other % 2 == 1), n, "push", MAIN).await,
        });
        bench.store(3, n, "push", MAIN).await;
    }
    expected.reverse();
    // Of what is not stored, only the last 30 are kept.
    expected.retain(|id| id.as_u128() & u128::from(u64::MAX) != 1 || (id.as_u128() >> 96) >= 100);
    let (mut found, mut next) = (Vec::new(), String::new());
    loop {
        let page: Page = bench.ask(&format!("/log/team-a/requests?limit=30{next}")).await;
        assert!(page.items.len() <= 30);
        assert!(page.items.iter().all(|r| r.received.body.is_none() && r.received.headers.is_empty()));
        assert!(page.items.iter().flat_map(|r| &r.events).all(|event| event.variables.is_none()));
        found.extend(page.items.iter().map(|request| request.metadata.uid));
        match page.next {
            Some(version) => next = format!("&before={version}"),
            None => break,
        }
    }
    assert_eq!(found.len(), expected.len());
    assert_eq!(found, expected);
    // A resource version is a place too.
    let first: Request = bench.ask(&format!("/log/team-a/requests/{}", expected[2])).await;
    let before = format!("limit=2&before={}", first.metadata.resource_version);
    assert_eq!(bench.names(&before).await, expected[3..5]);
}

#[tokio::test]
async fn a_list_has_what_was_asked_for() {
    let bench = Bench::new([wants(1, "main"), wants(2, "release")]);
    let delivered = bench.receive(1, 0, "push", MAIN).await;
    bench.attempt(bench.key(delivered), Next::Delivered).await;
    let dead = bench.receive(1, 1, "push", MAIN).await;
    bench.attempt(bench.key(dead), Next::Dead { reason: "12 attempts failed".into() }).await;
    let pending = bench.receive(1, 2, "push", MAIN).await;
    let not_fired = bench.receive(1, 3, "push", r#"{"ref":"other"}"#).await;
    let not_subscribed = bench.receive(1, 4, "issue", MAIN).await;
    let elsewhere = bench.receive(2, 5, "push", MAIN).await;
    let received = bench.store(2, 6, "push", MAIN).await;
    let refused = bench.pass(2, 7, Outcome::Refused);
    let unread = bench.store(1, 8, "push", MAIN).await;
    let note = Some("the body is no JSON".to_owned());
    bench.spool.store_match(unread, Matched { at: NOW + 8, events: Vec::new(), note }).await.unwrap();
    let ping = bench.store(1, 9, "push", MAIN).await;
    let note = Some(Matched::PING.to_owned());
    bench.spool.store_match(ping, Matched { at: NOW + 9, events: Vec::new(), note }).await.unwrap();
    for (question, expected) in [
        ("outcome=Delivered", vec![delivered]),
        ("outcome=DeadLettered", vec![dead]),
        ("outcome=Pending", vec![pending]),
        ("outcome=NotFired", vec![elsewhere, not_fired]),
        ("outcome=NotSubscribed", vec![not_subscribed]),
        ("outcome=NoEvent", vec![unread]),
        ("outcome=Ping", vec![ping]),
        ("outcome=Received", vec![received]),
        ("outcome=Refused", vec![refused]),
        ("outcome=Handshake", vec![]),
        ("subscription=sub-2", vec![refused, received, elsewhere]),
        ("event=issue", vec![not_subscribed]),
        ("trigger=trigger-2", vec![not_fired, pending, dead, delivered]),
        ("trigger=trigger-2&event=issue", vec![]),
        ("subscription=sub-1&trigger=trigger-1&outcome=Pending", vec![pending]),
        ("subscription=none", vec![]),
    ] {
        assert_eq!(bench.names(question).await, expected, "{question}");
    }
    let (status, why) = send(router(bench.log.clone()), get("/log/team-a/requests?outcome=Nothing")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(why.contains("outcome") || why.contains("Nothing"), "{why}");
}

#[tokio::test]
async fn a_request_of_a_subscription_that_is_gone_is_still_there() {
    let bench = Bench::new([]);
    let id = bench.receive(1, 0, "push", MAIN).await;
    bench.routes.update(|index| index.delete_route(Uuid::from_u128(1)));
    let request: Request = bench.ask(&format!("/log/team-a/requests/{id}")).await;
    assert_eq!((request.subscription.name.as_str(), request.subscription.plugin), ("sub-1", None));
    let (status, why) = bench.replay(id, json!({"trigger": "trigger-1"})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(why["error"].as_str().unwrap().contains("Subscription was deleted"), "{why}");
}

#[tokio::test]
async fn what_is_not_stored_goes_with_its_subscription_and_its_age() {
    let bench = Bench::new([]);
    let (first, second) = (bench.pass(1, 0, Outcome::Refused), bench.pass(2, 1, Outcome::Refused));
    assert_eq!(bench.names("").await, [second, first]);
    bench.routes.update(|index| index.delete_route(Uuid::from_u128(1)));
    assert_eq!(bench.names("").await, [second]);
    // It is not shown again if the Subscription comes back.
    bench.routes.update(|index| index.apply_route(published(1)));
    assert_eq!(bench.names("").await, [second]);
    let short = Bench::with_retention(Duration::from_secs(3600), []);
    let old = short.pass(1, 0, Outcome::Refused);
    assert!(short.names("").await.is_empty());
    assert_eq!(send(router(short.log.clone()), get(&format!("/log/team-a/requests/{old}"))).await.0, 404);
}

#[tokio::test]
async fn a_replay_to_a_draft_whose_listening_is_over_says_that() {
    let mut draft = wants(5, "main");
    draft.spec.mode = crate::api::Mode::Draft;
    let time = |second| Time(k8s_openapi::jiff::Timestamp::from_second(second).unwrap());
    let listening = |until| Some(crate::api::Listening { requested: "x".into(), until });
    let bench = Bench::new([]);
    let id = bench.receive(1, 0, "push", MAIN).await;
    let over = Trigger { listening: listening(time(1)), ..draft.clone() };
    bench.routes.update(|index| index.apply_trigger(over));
    let (status, why) = bench.replay(id, json!({"trigger": "trigger-5"})).await;
    let why = why["error"].as_str().unwrap();
    assert!(
        status == StatusCode::CONFLICT && why.contains("trigger-5 that is published, or a draft that listens"),
        "{why}"
    );
    let listens = Trigger { listening: listening(time(10_000_000_000)), ..draft };
    bench.routes.update(|index| index.delete_trigger("team-a", "trigger-5"));
    bench.routes.update(|index| index.apply_trigger(listens));
    assert_eq!(bench.replay(id, json!({"trigger": "trigger-5"})).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_replay_delivers_again_under_the_same_id() {
    let bench = Bench::new([wants(1, "main"), wants(2, "release")]);
    let id = bench.receive(1, 0, "push", MAIN).await;
    let key = bench.key(id);
    let event = bench.spool.entry(id).unwrap().unwrap().matched.unwrap().events[0].id;
    let error = |answer: &Value| answer["error"].as_str().unwrap().to_owned();

    let (status, why) = bench.replay(id, json!({"trigger": "trigger-1"})).await;
    assert!(status == StatusCode::CONFLICT && error(&why).contains("pending already"), "{why}");
    bench.attempt(key, Next::Delivered).await;
    let (status, why) = bench.replay(id, json!({"trigger": "trigger-1", "deadLetters": true})).await;
    assert!(status == StatusCode::CONFLICT && error(&why).contains("no dead letter"), "{why}");

    let (status, replayed) = bench.replay(id, json!({"trigger": "trigger-1", "by": "jane"})).await;
    assert_eq!((status, replayed), (StatusCode::OK, json!({"deliveries": [{"trigger": "trigger-1", "event": event}]})));
    let again = tokio::time::timeout(Duration::from_secs(5), bench.spool.requeued()).await.unwrap();
    assert_eq!((again.key, again.attempts), (key, 0));
    let request: Request = bench.ask(&format!("/log/team-a/requests/{id}")).await;
    let told = &request.events[0].triggers[0];
    assert_eq!(told.replayed.as_ref().unwrap().by.as_deref(), Some("jane"));
    assert_eq!(told.delivery.as_ref().unwrap().attempts.len(), 1);

    // What was decided stays decided, and what nobody knows is not made up.
    let (status, why) = bench.replay(id, json!({"trigger": "trigger-2"})).await;
    assert!(status == StatusCode::CONFLICT && error(&why).contains("did not want the event push"), "{why}");
    let (status, why) = bench.replay(id, json!({"trigger": "trigger-9"})).await;
    assert!(status == StatusCode::CONFLICT && error(&why).contains("no trigger trigger-9 that is published"), "{why}");
    assert_eq!(bench.replay(Uuid::nil(), json!({})).await.0, StatusCode::NOT_FOUND);
    let refused = bench.pass(1, 9, Outcome::Refused);
    let (status, why) = bench.replay(refused, json!({})).await;
    assert!(status == StatusCode::CONFLICT && error(&why).contains("was not stored"), "{why}");
    assert_eq!(bench.replay(id, json!({"trigger": 7})).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_replay_of_all_takes_dead_letters_alone_if_asked() {
    let bench = Bench::new([wants(1, "main"), wants(2, "main")]);
    let id = bench.receive(1, 0, "push", MAIN).await;
    let keys: Vec<DeliveryKey> = bench.spool.entry(id).unwrap().unwrap().deliveries.iter().map(|d| d.key).collect();
    bench.attempt(keys[0], Next::Delivered).await;
    bench.attempt(keys[1], Next::Dead { reason: "12 attempts failed".into() }).await;
    let (status, replayed) = bench.replay(id, json!({"deadLetters": true})).await;
    assert_eq!((status, replayed["deliveries"][0]["trigger"].as_str()), (StatusCode::OK, Some("trigger-2")));
    assert_eq!(replayed["deliveries"].as_array().unwrap().len(), 1);
    bench.attempt(keys[1], Next::Delivered).await;
    let (_, replayed) = bench.replay(id, json!({})).await;
    assert_eq!(replayed["deliveries"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_trigger_that_did_not_exist_is_held_against_the_event_now() {
    let bench = Bench::new([]);
    let id = bench.receive(1, 0, "push", MAIN).await;
    let before = bench.spool.entry(id).unwrap().unwrap().matched;
    bench.routes.update(|index| index.apply_trigger(wants(5, "release")));
    let (status, why) = bench.replay(id, json!({"trigger": "trigger-5"})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(why["error"].as_str().unwrap().contains("does not want the event push"), "{why}");
    bench.routes.update(|index| index.apply_trigger(wants(5, "main")));
    let (status, replayed) = bench.replay(id, json!({"trigger": "trigger-5"})).await;
    assert_eq!((status, replayed["deliveries"][0]["trigger"].as_str()), (StatusCode::OK, Some("trigger-5")));
    let request: Request = bench.ask(&format!("/log/team-a/requests/{id}")).await;
    let told = &request.events[0].triggers[0];
    assert!(!told.fired && told.replayed.is_some() && told.delivery.is_some(), "{told:?}");
    assert_eq!(bench.spool.entry(id).unwrap().unwrap().matched, before, "the match is history");
    let pending = bench.spool.requeued().await;
    let event = bench.spool.event(&pending.key).unwrap().unwrap();
    assert_eq!((event.trigger.trigger.as_str(), event.trigger.workflow.as_str()), ("trigger-5", "workflow-5"));
}

#[tokio::test]
async fn changes_are_told_as_they_happen() {
    let bench = Bench::new([wants(1, "main")]);
    let old = bench.receive(1, 0, "push", MAIN).await;
    let question = format!("/log/team-a/requests?watch=true&since={NOW}");
    let response = router(bench.log.clone()).oneshot(get(&question)).await.unwrap();
    let mut lines = response.into_body().into_data_stream();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(5), lines.next()).await.expect("in time").unwrap().unwrap();
        let change: model::Change = serde_json::from_slice(&line).unwrap();
        (change.kind, change.object.map(|request| (request.metadata.uid, request.outcome)))
    };
    assert_eq!(next().await, (ChangeKind::Added, Some((old, Outcome::Pending))));
    assert_eq!(next().await, (ChangeKind::Bookmark, None));
    bench.store(3, 1, "push", MAIN).await;
    let id = bench.store(1, 1, "push", MAIN).await;
    assert_eq!(next().await, (ChangeKind::Added, Some((id, Outcome::Received))));
    bench.attempt(bench.key(old), Next::Delivered).await;
    assert_eq!(next().await, (ChangeKind::Modified, Some((old, Outcome::Delivered))));
    let refused = bench.pass(1, 5, Outcome::Refused);
    assert_eq!(next().await, (ChangeKind::Added, Some((refused, Outcome::Refused))));
}

#[tokio::test]
async fn a_watch_with_a_question_tells_what_comes_and_what_goes() {
    let bench = Bench::new([wants(1, "main")]);
    let question = Question { outcome: Some(Outcome::Pending), watch: true, ..Question::default() };
    let mut changes = std::pin::pin!(bench.log.watch("team-a".into(), question).unwrap());
    assert_eq!(changes.next().await.unwrap().kind, ChangeKind::Bookmark);
    let id = bench.receive(1, 1, "push", MAIN).await;
    let mut next = async || tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap().unwrap().kind;
    assert_eq!(next().await, ChangeKind::Added);
    bench.attempt(bench.key(id), Next::Retry { due_at: NOW + 99 }).await;
    assert_eq!(next().await, ChangeKind::Modified);
    bench.attempt(bench.key(id), Next::Delivered).await;
    assert_eq!(next().await, ChangeKind::Deleted);
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_to_list_again() {
    let bench = Bench::new([]);
    let mut changes = std::pin::pin!(bench.log.watch("team-a".into(), Question::default()).unwrap());
    assert_eq!(changes.next().await.unwrap().kind, ChangeKind::Bookmark);
    // More than the bound of what is not stored.
    for n in 0..300 {
        bench.pass(1, n, Outcome::Refused);
    }
    let last = changes.map(|change| change.kind).collect::<Vec<_>>().await;
    assert_eq!(last.last(), Some(&ChangeKind::Expired));
}

#[tokio::test]
async fn readers_are_bounded() {
    let bench = Bench::new([]);
    let watch = |namespace: &str| bench.log.watch(namespace.into(), Question::default()).map(drop);
    let open: Vec<_> =
        (0..WATCHES.each).map(|_| bench.log.watch("team-a".into(), Question::default()).unwrap()).collect();
    assert!(watch("team-a").is_err_and(|why| why.contains("16 watches")));
    assert!(watch("team-b").is_ok() && watch(ALL).is_ok());
    drop(open);
    assert!(watch("team-a").is_ok());
}

#[tokio::test]
async fn what_a_watch_reads_waits_for_its_turn() {
    let bench = Bench::new([]);
    let turns = bench.log.0.readers.acquire_many(u32::try_from(READERS).unwrap()).await.unwrap();
    let question = Question { since: Some("0".to_owned()), ..Question::default() };
    let mut changes = std::pin::pin!(bench.log.watch("team-a".into(), question).unwrap());
    let soon = Duration::from_millis(100);
    assert!(tokio::time::timeout(soon, changes.next()).await.is_err(), "others are reading");
    drop(turns);
    assert_eq!(changes.next().await.unwrap().kind, ChangeKind::Bookmark);
}

#[tokio::test]
async fn only_the_controller_may_ask_over_the_network() {
    let bench = Bench::new([]);
    let (publish, published) = tokio::sync::watch::channel(None);
    let router = network(router(bench.log.clone()), published);
    let ask = async |key: Option<&str>| {
        let mut request = get("/log/team-a/requests");
        if let Some(key) = key {
            request.headers_mut().insert("authorization", key.parse().unwrap());
        }
        send(router.clone(), request).await.0
    };
    // Nothing is published: nobody may ask, whatever they show.
    for key in [None, Some("Bearer "), Some("Bearer x")] {
        assert_eq!(ask(key).await, StatusCode::UNAUTHORIZED);
    }
    publish.send_replace(Some(PublishedController { authorities: String::new(), key: "k7Qv".into(), log: None }));
    for key in [None, Some("k7Qv"), Some("Bearer k7Q"), Some("Bearer k7Qvx"), Some("Bearer ")] {
        assert_eq!(ask(key).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(ask(Some("Bearer k7Qv")).await, StatusCode::OK);
}

#[test]
fn a_pod_is_called_by_its_number() {
    let named = |host| replica(host);
    assert_eq!(["bellhop-ingress-12", "laptop", "a-1b", "x-", "b-7"].map(named), ["12", "0", "0", "0", "7"]);
}
