//! From the spool to a runner on a real socket.

use super::*;
use crate::spool::{Attempt, DeliveryState, Entry, Next, Status};
use axum::Router;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

/// What a test's runner received, and what it answers.
#[derive(Default)]
struct Runner {
    requests: Mutex<Vec<(String, HeaderMap, Value)>>,
    answers: Mutex<Vec<(StatusCode, &'static str)>>,
}

async fn runner() -> (Arc<Runner>, std::net::SocketAddr) {
    let runner = Arc::new(Runner::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = |State(runner): State<Arc<Runner>>, uri: http::Uri, headers: HeaderMap, body: String| async move {
        let body = serde_json::from_str(&body).unwrap();
        runner.requests.lock().unwrap().push((uri.to_string(), headers, body));
        let answer = runner.answers.lock().unwrap().pop().unwrap_or((StatusCode::ACCEPTED, ""));
        (answer.0, [("location", "http://169.254.169.254/")], answer.1)
    };
    let router = Router::new().fallback(answer).with_state(runner.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (runner, address)
}

struct Bench {
    dir: TempDir,
    routes: Handle,
    spool: Spool,
    waiting: Waiting,
    end: CancellationToken,
}

impl Bench {
    fn new(routes: Handle) -> Self {
        let dir = TempDir::new().unwrap();
        let spool = Spool::open(dir.path(), Default::default()).unwrap();
        Self { dir, routes, spool, waiting: Waiting::default(), end: CancellationToken::new() }
    }

    fn context(&self, allowed: &[&str]) -> Context {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Context {
            routes: self.routes.clone(),
            spool: self.spool.clone(),
            runners: Runners::new("localhost", &["http://127.0.0.1:*".into(), "http://metadata.localhost:*".into()])
                .unwrap(),
            addresses: AddressPolicy::new(allowed.iter().map(|net| net.parse().unwrap()).collect()),
            controller: crate::ingress::Controller::Absent,
            metrics: Metrics::new(),
            health: Health::default(),
            waiting: self.waiting.clone(),
        }
    }

    fn start(&self) -> tokio::task::JoinHandle<Result<(), reqwest::Error>> {
        let context = self.context(&["127.0.0.0/8", "::1/128"]);
        tokio::spawn(run(context, Limits::default(), self.end.clone()))
    }

    fn live(&self, underway: Arc<Underway>) -> Live {
        let Context { routes, spool, runners, addresses, metrics, waiting: waits, .. } = self.context(&["127.0.0.0/8"]);
        let sender = Sender::new(routes.clone(), spool.clone(), runners.clone(), addresses, metrics.clone()).unwrap();
        let changes = Changes::of(&routes);
        Live { sender, routes, spool, runners, underway, metrics, waits, changes }
    }

    async fn settled(&self, id: Uuid, status: Status) -> Entry {
        let subscription = self.spool.entry(id).unwrap().unwrap().request.subscription;
        until(|| {
            let recent = self.spool.recent(subscription, None, 100);
            recent.iter().any(|summary| summary.id == id && summary.status == status)
        })
        .await;
        self.spool.entry(id).unwrap().unwrap()
    }
}

fn to(address: std::net::SocketAddr, n: u128) -> Trigger {
    let mut trigger = trigger(n, "sub-1");
    trigger.spec.runner.url = Some(format!("http://{address}/run?key=hunter2"));
    trigger
}

#[tokio::test]
async fn an_accepted_event_reaches_its_runners_as_a_cloud_event() {
    let (runner, address) = runner().await;
    let mut service = trigger(2, "sub-1");
    service.spec.runner =
        serde_json::from_value(json!({"service": {"name": "runner", "port": address.port(), "path": "/runs"}}))
            .unwrap();
    let bench = Bench::new(routes([to(address, 1), service]));
    let request = request(1, "push", r#"{"ref": "main"}"#);
    bench.spool.append(request.clone()).await.unwrap();
    bench.start();
    let entry = bench.settled(request.id, Status::Finished).await;
    assert_eq!(entry.deliveries.len(), 2);
    for delivery in &entry.deliveries {
        assert!(matches!(delivery.state, DeliveryState::Delivered { attempts: 1, .. }));
        assert!(!delivery.attempts[0].url.contains("hunter2"), "{:?}", delivery.attempts);
    }
    let mut requests = runner.requests.lock().unwrap();
    requests.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!([requests[0].0.as_str(), requests[1].0.as_str()], ["/run?key=hunter2", "/runs"]);
    let (_, headers, body) = &requests[0];
    assert_eq!(*body, json!({"ref": "main"}));
    assert_eq!(headers["ce-id"], entry.matched.unwrap().events[0].id.to_string());
    assert_eq!(headers["ce-type"], "dev.bellhop.forge.push");
    assert_eq!(headers["ce-workflow"], "workflow-1");
    assert!(!headers.contains_key("authorization"));
    assert_eq!(requests[1].1["host"], format!("runner.team-a.svc.localhost:{}", address.port()));
}

#[tokio::test]
async fn failures_are_recorded_and_repeated_with_the_same_id() {
    let (runner, address) = runner().await;
    *runner.answers.lock().unwrap() = vec![(StatusCode::FOUND, ""), (StatusCode::SERVICE_UNAVAILABLE, "not\nyet")];
    let bench = Bench::new(routes([to(address, 1)]));
    let request = request(1, "push", "{}");
    bench.spool.append(request.clone()).await.unwrap();
    bench.start();
    // The redirect ends it: nobody follows it.
    let entry = bench.settled(request.id, Status::Dead).await;
    let attempts = &entry.deliveries[0].attempts;
    assert_eq!(attempts.len(), 2);
    assert_eq!((attempts[0].status, attempts[0].error.as_deref()), (Some(503), Some("HTTP 503: not yet")));
    let DeliveryState::Dead { reason, .. } = &entry.deliveries[0].state else { panic!() };
    assert!(reason.contains("redirects are not followed"), "{reason}");
    assert_eq!((attempts[0].answer.as_deref(), attempts[1].answer.as_deref()), (Some("not\nyet"), None));

    // The sender sends it again: it gets another chance, at once.
    bench.spool.append(request.clone()).await.unwrap();
    bench.settled(request.id, Status::Finished).await;
    let requests = runner.requests.lock().unwrap();
    let ids: Vec<_> = requests.iter().map(|(_, headers, _)| headers["ce-id"].clone()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let numbers: Vec<_> = requests.iter().map(|(_, headers, _)| headers["ce-deliveryattempt"].clone()).collect();
    assert_eq!(numbers, ["1", "2", "1"]);
}

#[tokio::test]
async fn what_can_never_be_delivered_is_a_dead_letter_with_the_reason() {
    let (runner, address) = runner().await;
    let reason = async |bench: &Bench, context: Context, n: usize| {
        let request = request(1, "push", &format!(r#"{{"ref": "{n}"}}"#));
        bench.spool.append(request.clone()).await.unwrap();
        let end = CancellationToken::new();
        let running = tokio::spawn(run(context, Limits::default(), end.clone()));
        let entry = bench.settled(request.id, Status::Dead).await;
        end.cancel();
        running.await.unwrap().unwrap();
        let DeliveryState::Dead { reason, .. } = &entry.deliveries[0].state else { panic!() };
        format!("{reason}; {:?}", entry.deliveries[0].attempts[0].error)
    };
    let bench = Bench::new(routes([to(address, 1)]));
    let found = reason(&bench, bench.context(&[]), 1).await;
    assert!(found.contains("--allow-address"), "{found}");

    let mut foreign = to(address, 1);
    foreign.spec.runner.url = Some("http://169.254.169.254/latest".into());
    bench.routes.update(|index| index.apply_trigger(foreign));
    let found = reason(&bench, bench.context(&["0.0.0.0/0"]), 2).await;
    assert!(found.contains("--allow-runner-origin"), "{found}");

    // A name that leads to loopback is refused when it is resolved.
    let mut named = to(address, 1);
    named.spec.runner.url = Some(format!("http://metadata.localhost:{}/", address.port()));
    named.spec.delivery.max_attempts = 1;
    bench.routes.update(|index| index.apply_trigger(named));
    let found = reason(&bench, bench.context(&[]), 3).await;
    assert!(found.contains("attempt 1 of 1") && found.contains("--allow-address"), "{found}");
    assert!(runner.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_runner_that_is_gone_pauses_its_trigger_and_no_other() {
    let (runner, address) = runner().await;
    let bench = Bench::new(routes([to(address, 1)]));
    runner.answers.lock().unwrap().push((StatusCode::GONE, "moved away"));
    bench.start();
    let [first, second, third] = [1, 2, 3].map(|n| request(1, "push", &format!(r#"{{"ref": "{n}"}}"#)));
    bench.spool.append(first.clone()).await.unwrap();
    let entry = bench.settled(first.id, Status::Dead).await;
    assert_eq!(entry.deliveries[0].attempts[0].answer.as_deref(), Some("moved away"));
    assert!(bench.routes.trigger(to(address, 1).uid).unwrap().gone);
    bench.routes.update(|index| index.apply_trigger(to(address, 2)));
    bench.spool.append(second.clone()).await.unwrap();
    let entry = bench.settled(second.id, Status::Finished).await;
    let outcomes = &entry.matched.unwrap().events[0].triggers;
    assert_eq!(outcomes[0].mismatch.as_deref(), Some("paused: the runner answered 410 Gone"));
    assert_eq!(outcomes[1].mismatch, None);

    // A redelivery requeues the dead letter, which the pause still holds; the counts tell what happened.
    bench.spool.append(first.clone()).await.unwrap();
    until(|| bench.spool.entry(first.id).unwrap().unwrap().deliveries[0].attempts.len() == 2).await;
    let entry = bench.settled(first.id, Status::Dead).await;
    let DeliveryState::Dead { reason, .. } = &entry.deliveries[0].state else { panic!() };
    assert_eq!(reason, "paused: the runner answered 410 Gone");
    let tallies = bench.routes.tallies().take(now_millis(), 0, 10);
    let of_first = tallies.iter().find(|(uid, _)| *uid == to(address, 1).uid).unwrap().1;
    assert_eq!((of_first.fired, of_first.filtered, of_first.failed), (1, 1, 2));

    let mut changed = to(address, 1);
    changed.state.generation += 1;
    bench.routes.update(|index| index.apply_trigger(changed));
    bench.spool.append(third.clone()).await.unwrap();
    let entry = bench.settled(third.id, Status::Finished).await;
    assert_eq!(entry.deliveries.len(), 2);
    assert_eq!(refs(&runner, "/run"), [1, 2, 3, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_triggers_on_one_event_all_fire() {
    let (runner, address) = runner().await;
    let triggers: Vec<Trigger> = (1..=1000)
        .map(|n| {
            let mut trigger = to(address, n);
            trigger.spec.parameters = json!({"branch": "main"}).as_object().unwrap().clone();
            trigger.spec.filter = Some("variables.ref == 'main' && event.name == 'push'".into());
            trigger
        })
        .collect();
    let bench = Bench::new(routes(triggers));
    let request = request(1, "push", r#"{"ref": "main"}"#);
    let started = Instant::now();
    let outcome = matched(&bench.routes, &request);
    let cost = started.elapsed();
    assert_eq!(outcome.events[0].triggers.iter().filter(|outcome| outcome.mismatch.is_none()).count(), 1000);
    println!("one event held against 1000 triggers: {cost:?}, {:?} each", cost / 1000);
    let started = Instant::now();
    bench.spool.append(request.clone()).await.unwrap();
    bench.start();
    until(|| runner.requests.lock().unwrap().len() == 1000).await;
    println!("1000 deliveries to one runner: {:?}", started.elapsed());
    bench.settled(request.id, Status::Finished).await;
    let mut workflows: Vec<_> =
        runner.requests.lock().unwrap().iter().map(|(_, headers, _)| headers["ce-workflow"].clone()).collect();
    workflows.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    workflows.dedup();
    assert_eq!(workflows.len(), 1000);
}

#[tokio::test]
async fn deliveries_of_a_deleted_trigger_end() {
    let bench = Bench::new(routes([trigger(1, "sub-1")]));
    let request = request(1, "push", "{}");
    bench.spool.append(request.clone()).await.unwrap();
    let stored = bench.spool.next_unmatched().await;
    bench.spool.store_match(stored.id, matched(&bench.routes, &stored)).await.unwrap();
    bench.routes.update(|index| index.delete_trigger("team-a", "trigger-1"));
    bench.start();
    let entry = bench.settled(request.id, Status::Dead).await;
    let DeliveryState::Dead { reason, .. } = &entry.deliveries[0].state else { panic!() };
    assert_eq!(reason, "the trigger was deleted");
}

#[tokio::test]
async fn nothing_is_judged_before_the_routes_are_known() {
    let (runner, address) = runner().await;
    let bench = Bench::new(Handle::new(Metrics::new()));
    let request = request(1, "push", "{}");
    bench.spool.append(request.clone()).await.unwrap();
    bench.start();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(bench.spool.entry(request.id).unwrap().unwrap().matched.is_none());
    bench.routes.update(|index| {
        index.apply_plugin("forge", &plugin_spec());
        index.apply_route(published(1));
        index.apply_trigger(to(address, 1));
    });
    bench.routes.set_synced();
    bench.settled(request.id, Status::Finished).await;
    assert_eq!(runner.requests.lock().unwrap().len(), 1);
}

fn ordered(address: std::net::SocketAddr, n: u128) -> Trigger {
    let mut trigger = to(address, n);
    trigger.spec.delivery.ordered = true;
    trigger.spec.runner.url = Some(format!("http://{address}/ordered"));
    trigger
}

/// The values of `ref` that came to this path, in the order of arrival.
fn refs(runner: &Runner, path: &str) -> Vec<usize> {
    let requests = runner.requests.lock().unwrap();
    let of_path = requests.iter().filter(|(uri, ..)| uri.starts_with(path));
    of_path.map(|(_, _, body)| body["ref"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn ordered_deliveries_keep_their_order_and_a_failure_holds_back_that_trigger_alone() {
    let (runner, address) = runner().await;
    let bench = Bench::new(routes([ordered(address, 1)]));
    bench.start();
    // The first attempt fails; the others of this trigger wait for the second.
    runner.answers.lock().unwrap().push((StatusCode::SERVICE_UNAVAILABLE, "later"));
    bench.spool.append(request(1, "push", r#"{"ref": "0"}"#)).await.unwrap();
    until(|| refs(&runner, "/ordered") == [0]).await;
    bench.routes.update(|index| index.apply_trigger(to(address, 2)));
    for n in 1..200 {
        bench.spool.append(request(1, "push", &format!(r#"{{"ref": "{n}"}}"#))).await.unwrap();
    }
    until(|| refs(&runner, "/run").len() == 199).await;
    until(|| refs(&runner, "/ordered").len() == 201).await;
    let expected: Vec<usize> = std::iter::once(0).chain(0..200).collect();
    assert_eq!(refs(&runner, "/ordered"), expected);
}

#[tokio::test]
async fn the_order_outlives_a_restart_and_matches_that_overtake_each_other() {
    let (runner, address) = runner().await;
    let Bench { dir, routes, spool, .. } = Bench::new(routes([ordered(address, 1)]));
    let mut requests = Vec::new();
    for n in 0..20 {
        let mut request = request(1, "push", &format!(r#"{{"ref": "{n}"}}"#));
        // A clock that goes backwards changes nothing.
        request.received_at -= n;
        spool.append(request.clone()).await.unwrap();
        requests.push(request);
    }
    // The process ends when some later ones were matched and some earlier ones were not.
    for n in [7, 3, 19, 12] {
        spool.store_match(requests[n].id, matched(&routes, &requests[n])).await.unwrap();
    }
    drop(spool);
    let spool = Spool::open(dir.path(), Default::default()).unwrap();
    let bench = Bench { dir, routes, spool, waiting: Waiting::default(), end: CancellationToken::new() };
    bench.start();
    until(|| refs(&runner, "/ordered").len() == 20).await;
    assert_eq!(refs(&runner, "/ordered"), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn requests_of_a_plugin_in_repair_wait_and_those_of_a_deleted_subscription_end() {
    let (runner, address) = runner().await;
    let bench = Bench::new(routes([to(address, 1)]));
    let mut broken = plugin_spec();
    broken.callback.event.push('(');
    bench.routes.update(|index| index.apply_plugin("forge", &broken));
    let (waits, gone) = (request(1, "push", "{}"), request(9, "push", "{}"));
    bench.spool.append(waits.clone()).await.unwrap();
    bench.spool.append(gone.clone()).await.unwrap();
    bench.start();
    let entry = bench.settled(gone.id, Status::Finished).await;
    assert_eq!(entry.matched.unwrap().note.as_deref(), Some("the Subscription is gone"));
    assert!(bench.spool.entry(waits.id).unwrap().unwrap().matched.is_none());
    bench.routes.update(|index| index.apply_plugin("forge", &plugin_spec()));
    bench.settled(waits.id, Status::Finished).await;
    assert_eq!(runner.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_workspace_with_many_slow_matches_leaves_the_next_turn_to_another() {
    static ORDER: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
    let bench = Bench::new(routes([]));
    bench.routes.update(|index| {
        (2..=20).for_each(|n| index.apply_route(published(n)));
        index.apply_route(crate::api::PublishedRoute { namespace: "team-b".into(), ..published(21) });
    });
    let slow: matcher::Matching = |route, request, at| {
        ORDER.lock().unwrap().push(request.namespace.clone());
        std::thread::sleep(Duration::from_millis(if request.namespace == "team-a" { 50 } else { 0 }));
        match_request(route, request, at)
    };
    for n in 1..=20 {
        bench.spool.append(request(n, "push", "{}")).await.unwrap();
    }
    let (deliveries, _taken) = mpsc::channel(HANDED_OVER);
    let matcher = Matcher::with(slow, bench.routes.clone(), bench.spool.clone(), deliveries, Arc::default());
    let running = tokio::spawn(matcher.run());
    until(|| !ORDER.lock().unwrap().is_empty()).await;
    bench.spool.append(Request { namespace: "team-b".into(), ..request(21, "push", "{}") }).await.unwrap();
    let before = ORDER.lock().unwrap().len();
    until(|| ORDER.lock().unwrap().iter().any(|namespace| namespace == "team-b")).await;
    running.abort();
    let place = ORDER.lock().unwrap().iter().position(|namespace| namespace == "team-b").unwrap();
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    assert!(place <= before + 2 * processors, "{place} after {before}, with {processors} processors");
}

#[tokio::test]
async fn a_request_that_meets_a_defect_is_a_dead_letter_and_holds_back_nothing() {
    let (runner, address) = runner().await;
    let bench = Bench::new(routes([ordered(address, 1)]));
    let [bad, good] = ["0", "1"].map(|n| request(1, "push", &format!(r#"{{"ref": "{n}"}}"#)));
    bench.spool.append(bad.clone()).await.unwrap();
    bench.spool.append(good.clone()).await.unwrap();
    let (deliveries, taken) = mpsc::channel(HANDED_OVER);
    let underway = Arc::new(Underway::default());
    let (routes, spool) = (bench.routes.clone(), bench.spool.clone());
    let meets_a_defect: matcher::Matching = |route, request, at| {
        assert!(!request.body.windows(3).any(|found| found == b"\"0\""), "a defect");
        match_request(route, request, at)
    };
    let matcher = Matcher::with(meets_a_defect, routes.clone(), spool.clone(), deliveries, underway.clone());
    let live = bench.live(underway);
    let scheduler = Scheduler::new(Arc::new(live), Limits::default());
    tokio::spawn(async move { tokio::join!(matcher.run(), scheduler.run(taken, CancellationToken::new())) });
    let entry = bench.settled(bad.id, Status::Dead).await;
    assert!(entry.matched.is_none() && entry.dead.unwrap().contains("a defect of Bellhop"));
    bench.settled(good.id, Status::Finished).await;
    assert_eq!(refs(&runner, "/ordered"), [1]);
}

#[tokio::test]
async fn every_change_of_the_routes_is_told_once_also_if_it_was_not_waited_for() {
    let bench = Bench::new(routes([]));
    let live = bench.live(Arc::default());
    let soon = async || tokio::time::timeout(Duration::from_millis(50), live.rerouted()).await.is_ok();
    let comes = async || tokio::time::timeout(Duration::from_secs(10), live.rerouted()).await.is_ok();
    assert!(!soon().await);
    for n in 1..3 {
        bench.routes.update(|index| index.apply_trigger(trigger(n, "sub-1")));
        // Whoever gives up meanwhile misses nothing.
        assert!(soon().await || comes().await);
        assert!(!soon().await, "it was told already");
    }
    bench.routes.update(|index| index.apply_trigger(trigger(3, "sub-1")));
    assert!(comes().await);
}

#[tokio::test]
async fn what_was_pending_goes_on_after_a_restart() {
    let (runner, address) = runner().await;
    let Bench { dir, routes, spool, .. } = Bench::new(routes([to(address, 1)]));
    let request = request(1, "push", "{}");
    spool.append(request.clone()).await.unwrap();
    let stored = spool.next_unmatched().await;
    let pending = spool.store_match(stored.id, matched(&routes, &stored)).await.unwrap();
    let attempt = Attempt { at: 1, url: String::new(), status: Some(503), error: None, duration_ms: 1, answer: None };
    spool.record_attempt(pending[0].key, attempt, Next::Retry { due_at: now_millis() }).await.unwrap();
    drop((spool, stored));

    let spool = Spool::open(dir.path(), Default::default()).unwrap();
    let bench = Bench { dir, routes, spool, waiting: Waiting::default(), end: CancellationToken::new() };
    let running = start(bench.context(&["127.0.0.0/8"]), bench.end.clone()).unwrap();
    bench.settled(request.id, Status::Finished).await;
    assert_eq!(runner.requests.lock().unwrap()[0].1["ce-deliveryattempt"], "2");
    bench.end.cancel();
    running.stopped().await;
}

#[tokio::test]
async fn an_event_waits_for_the_secrets_of_its_runner() {
    let (runner, address) = runner().await;
    let mut secured = to(address, 1);
    secured.spec.runner.headers.insert("authorization".into(), "'Bearer ' + credentials.token".into());
    secured.spec.runner.credentials =
        Some(crate::api::RunnerCredentials { secret_ref: crate::api::NameRef { name: "token".into() } });
    let bench = Bench::new(routes([secured.clone()]));
    let request = request(1, "push", "{}");
    bench.spool.append(request.clone()).await.unwrap();
    bench.start();
    let attempts = || bench.spool.entry(request.id).unwrap().unwrap().deliveries.into_iter().flat_map(|d| d.attempts);
    until(|| !bench.spool.pending().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(attempts().count(), 0, "nobody was asked, so no attempt is used up");
    assert!(runner.requests.lock().unwrap().is_empty());

    // It ends with its age; and again it waits, when it is wanted after all.
    bench.spool.sweep(now_millis() + 4 * 24 * 3_600_000).await.unwrap();
    let entry = bench.settled(request.id, Status::Dead).await;
    let DeliveryState::Dead { reason, attempts: used, .. } = &entry.deliveries[0].state else { panic!() };
    assert_eq!((reason.as_str(), *used), ("not delivered within 72 hours", 0));
    bench.spool.append(request.clone()).await.unwrap();
    bench.settled(request.id, Status::Pending).await;

    let mut secrets = crate::api::PublishedRunner::new(secured.uid, "team-a", "trigger-1", &secured.spec.runner);
    secrets.credentials.insert("token".into(), "hunter2".into());
    // It is told what it got, in the answer.
    *runner.answers.lock().unwrap() = vec![(StatusCode::BAD_REQUEST, "not for Bearer hunter2, (hunter2)")];
    bench.routes.update(|index| index.apply_runner(secrets));
    bench.settled(request.id, Status::Dead).await;
    assert_eq!(runner.requests.lock().unwrap()[0].1["authorization"], "Bearer hunter2");
    let refused = attempts().find(|attempt| attempt.status == Some(400)).unwrap();
    assert_eq!(refused.error.unwrap(), "HTTP 400: not for [redacted], ([redacted])");
    let recorded = format!("{:?}", bench.spool.entry(request.id).unwrap());
    assert!(!recorded.contains("hunter2"), "{recorded}");
}

fn answering(mut trigger: Trigger) -> Trigger {
    trigger.spec.delivery.answer = true;
    trigger
}

#[tokio::test]
async fn the_first_attempts_answer_is_handed_to_who_waits_for_it() {
    let ((runner, address), (_other, elsewhere)) = (runner().await, runner().await);
    // The other one answers too, and has not been asked.
    let bench = Bench::new(routes([answering(to(address, 1)), to(elsewhere, 2)]));
    bench.start();
    let told = async |n: &str, answers: Vec<(StatusCode, &'static str)>| {
        *runner.answers.lock().unwrap() = answers;
        let request = request(1, "push", &format!(r#"{{"n": {n}}}"#));
        let ticket = bench.waiting.enter(request.id, request.subscription).unwrap();
        bench.spool.append(request).await.unwrap();
        ticket.wait((Instant::now() + Duration::from_secs(10)).into()).await
    };
    let ok = |body| vec![(StatusCode::CREATED, body)];
    let answer = told("1", ok("hello")).await.unwrap();
    assert_eq!((answer.trigger.as_str(), answer.format), ("trigger-1", crate::ingress::Format::Text));
    assert_eq!(answer.body, "hello");
    let unusable = told("2", ok("")).await.unwrap_err();
    assert_eq!(unusable, NoAnswer::Unusable("trigger-1".to_owned(), "is empty"));
    let failed = vec![(StatusCode::INTERNAL_SERVER_ERROR, "no")];
    assert_eq!(told("3", failed).await.unwrap_err(), NoAnswer::Failed("trigger-1".to_owned()));

    // No trigger that answers fires.
    bench.routes.update(|index| index.apply_trigger(to(address, 1)));
    assert_eq!(told("4", ok("hello")).await.unwrap_err(), NoAnswer::NotFired);
}

#[tokio::test]
async fn a_runner_that_is_left_alone_keeps_nobody_waiting() {
    let bench = Bench::new(routes([answering(trigger(1, "sub-1"))]));
    bench.start();
    let mut told = Vec::new();
    for n in 0..12 {
        let request = request(1, "push", &format!(r#"{{"n": {n}}}"#));
        let ticket = bench.waiting.enter(request.id, request.subscription).unwrap();
        bench.spool.append(request).await.unwrap();
        told.push(ticket.wait((Instant::now() + Duration::from_secs(10)).into()).await.unwrap_err());
    }
    let failed = NoAnswer::Failed("trigger-1".to_owned());
    assert_eq!(told[0], failed, "{told:?}");
    assert_eq!(told[11], NoAnswer::Resting("trigger-1".to_owned()));
}

/// A runner takes connections and says nothing, and more senders wait than it may be asked for at once: those in the line hear
/// at once that it is left alone, and not when their time is over.
#[tokio::test]
async fn who_waits_in_line_for_a_runner_hears_at_once_that_it_is_left_alone() {
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    let held = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = mute.accept().await {
            open.push(connection);
        }
    });
    let mut trigger = answering(to(address, 1));
    trigger.spec.delivery.timeout = Duration::from_secs(1).into();
    let bench = Bench::new(routes([trigger]));
    bench.start();
    let mut tickets = Vec::new();
    for n in 0..200 {
        let request = request(1, "push", &format!(r#"{{"n": {n}}}"#));
        tickets.push((bench.waiting.enter(request.id, Uuid::from_u128(n)).unwrap(), request));
    }
    let mut waits = Vec::new();
    for (ticket, request) in tickets {
        bench.spool.append(request).await.unwrap();
        waits.push(ticket.wait((Instant::now() + Duration::from_secs(60)).into()));
    }
    let begun = Instant::now();
    let told = futures::future::join_all(waits).await;
    let resting = NoAnswer::Resting("trigger-1".to_owned());
    let rests = told.iter().filter(|told| **told == Err(resting.clone())).count();
    let failed = told.iter().filter(|told| **told == Err(NoAnswer::Failed("trigger-1".to_owned()))).count();
    assert_eq!(rests + failed, 200, "{told:?}");
    assert!(rests >= 100, "{rests} of them were in the line");
    // The first attempts take a second until they are over; what is in the line does not take one more each.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    held.abort();
}
