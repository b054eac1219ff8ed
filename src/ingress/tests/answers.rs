//! Answers that the plugin has a say in.

use super::*;
use crate::routes::tests::trigger;
use crate::spool::DeliveryKey;
use http::header::CONTENT_TYPE;
use tokio::time::Instant;

/// A deadline that a test waits for.
const SHORT: Duration = Duration::from_millis(400);
/// One that it does not, however slow the machine is.
const LONG: Duration = Duration::from_secs(10);

/// A bench whose plugin has this answer, with a trigger whose runner's answer is wished.
fn bench(answer: Value) -> Bench {
    let bench = Bench::new();
    let mut spec = serde_json::to_value(plugin_spec()).unwrap();
    spec["callback"]["answer"] = answer;
    let spec = serde_json::from_value(spec).unwrap();
    let mut answering = trigger(1, "sub-1");
    answering.spec.delivery.answer = true;
    bench.routes.update(|index| {
        index.apply_plugin("forge", &spec);
        index.apply_trigger(answering);
    });
    bench
}

fn waiting(deadline: Duration) -> Bench {
    let deadline = format!("{}ms", deadline.as_millis());
    bench(json!({"deadline": deadline, "default": {"body": "{'text': 'working on ' + body.ref}"}}))
}

fn id() -> Uuid {
    request_id(Uuid::from_u128(1), Some("d-1"), b"")
}

fn delivery() -> DeliveryKey {
    DeliveryKey { request: id(), item: 0, trigger: Uuid::from_u128(1001) }
}

fn default() -> Value {
    json!({"text": "working on refs/heads/main"})
}

impl Bench {
    /// Plays the delivery: as soon as the request is stored, it is matched, and its runner gives this answer.
    fn deliver(&self, told: Result<RunnerAnswer, NoAnswer>) -> tokio::task::JoinHandle<()> {
        let (spool, waiting) = (self.spool.clone(), self.state.waiting.clone());
        tokio::spawn(async move {
            spool.next_unmatched().await;
            waiting.matched(id(), vec![delivery()]);
            waiting.ended(&delivery(), told);
        })
    }

    /// What the log says of the answer, once it says something.
    async fn noted(&self) -> crate::spool::Answered {
        for _ in 0..2000 {
            if let Some(answered) = self.spool.entry(id()).unwrap().and_then(|entry| entry.answered) {
                return *answered;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was noted");
    }
}

#[tokio::test]
async fn a_plugin_can_answer_by_itself_what_is_stored() {
    let bench = bench(json!({
        "when": "request.headers['x-event'] == 'push'",
        "default": {"status": 202, "headers": {"x-extra": "'1'"}, "body": "'thanks for ' + body.ref"},
    }));
    let response = router(bench.state.clone()).oneshot(good()).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(
        (&response.headers()["x-extra"], &response.headers()["x-content-type-options"]),
        (&"1".parse().unwrap(), &"nosniff".parse().unwrap())
    );
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "thanks for refs/heads/main");
    let noted = bench.noted().await;
    assert_eq!((noted.status, noted.reason.as_str(), noted.trigger, noted.note), (202, "Default", None, None));
    assert!(bench.stored().await.is_some());
    // A repetition is answered in the same way, and is logged as what it is.
    assert_eq!(bench.status(good()).await, StatusCode::ACCEPTED);
    let repeated = &bench.state.passing.of_namespace("team-a")[0];
    assert_eq!(repeated.answer.as_ref().map(|a| (a.status, a.reason.as_str())), Some((202, "Duplicate")));
    let metrics = bench.private("/metrics").await.1;
    for answer in ["default", "duplicate"] {
        let line = format!("bellhop_requests_total{{plugin=\"forge\",answer=\"{answer}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
    // Of which the plugin does not say it, and what cannot be evaluated, is answered as usual.
    for (event, body) in [("issue", BODY), ("push", "{}")] {
        let mut request = signed(body).body(body.into()).unwrap();
        request.headers_mut().insert("x-event", event.parse().unwrap());
        request.headers_mut().insert("x-delivery", format!("of-{event}").parse().unwrap());
        let id = request_id(Uuid::from_u128(1), Some(&format!("of-{event}")), b"");
        let (status, answered, _) = bench.send(request).await;
        assert_eq!((status, &answered["id"]), (StatusCode::OK, &json!(id)), "{event}");
    }
}

#[tokio::test]
async fn a_runners_answer_is_handed_on_and_nothing_else_of_it() {
    let bench = waiting(LONG);
    let body = r#"{"text": "done"}"#;
    let answer = RunnerAnswer { trigger: "trigger-1".into(), format: Format::Json, body: body.into() };
    let delivery = bench.deliver(Ok(answer));
    let (status, answered, head) = bench.send(good()).await;
    assert_eq!((status, answered), (StatusCode::OK, json!({"text": "done"})));
    let mut names: Vec<&str> = head.headers().keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "content-type", "x-content-type-options"]);
    assert_eq!(head.headers()[CONTENT_TYPE], "application/json");
    delivery.await.unwrap();
    let noted = bench.noted().await;
    assert_eq!((noted.status, noted.reason.as_str(), noted.trigger.as_deref()), (200, "Answered", Some("trigger-1")));
    assert!(u128::from(noted.after) < LONG.as_millis() && noted.note.is_none(), "{noted:?}");
    // Nobody waits for what was delivered before.
    let began = Instant::now();
    assert_eq!(bench.send(good()).await.1, default());
    assert!(began.elapsed() < LONG / 2 && !bench.state.waiting.any());
}

#[tokio::test]
async fn the_plugins_own_answer_comes_with_the_deadline_and_at_once_if_none_can_come() {
    let bench = waiting(SHORT);
    let began = Instant::now();
    let (status, answered, _) = bench.send(good()).await;
    let took = began.elapsed();
    assert_eq!((status, answered), (StatusCode::OK, default()));
    assert!((SHORT..LONG).contains(&took), "{took:?}");
    let noted = bench.noted().await;
    assert_eq!((noted.reason.as_str(), noted.note.as_deref()), ("Default", Some("no runner answered in time")));
    assert!(bench.stored().await.is_some() && !bench.state.waiting.any());
    // It comes too late, and hurts nobody.
    bench.state.waiting.ended(&delivery(), Err(NoAnswer::NotFired));

    let bench = waiting(LONG);
    let delivery = bench.deliver(Err(NoAnswer::Failed("trigger-1".into())));
    let began = Instant::now();
    assert_eq!(bench.send(good()).await.1, default());
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    delivery.await.unwrap();
    let note = bench.noted().await.note.unwrap();
    assert!(note.contains("trigger-1") && note.contains("first attempt"), "{note}");
}

#[tokio::test]
async fn who_waits_for_nothing_does_not_wait() {
    // No trigger has asked for it.
    let bench = waiting(LONG);
    bench.routes.update(|index| index.apply_trigger(trigger(1, "sub-1")));
    let began = Instant::now();
    assert_eq!(bench.send(good()).await.1, default());
    assert!(began.elapsed() < LONG);
    assert_eq!(bench.noted().await.note, None);

    // Others wait already, as many as may.
    let mut bench = waiting(LONG);
    let full = Waiting::new(WaitingLimits { total: 1, subscription: 1 });
    bench.state = Arc::new(Arc::into_inner(bench.state).unwrap().with_waiting(full.clone()));
    let ticket = full.enter(Uuid::nil(), Uuid::nil()).unwrap();
    let began = Instant::now();
    assert_eq!(bench.send(good()).await.1, default());
    assert!(began.elapsed() < LONG);
    let note = bench.noted().await.note.unwrap();
    assert!(note.contains("too many"), "{note}");
    drop(ticket);
}

#[tokio::test]
async fn a_sender_that_goes_away_leaves_nothing_behind() {
    let bench = waiting(LONG);
    let request = tokio::spawn(router(bench.state.clone()).oneshot(good()));
    bench.spool.next_unmatched().await;
    // Whoever stored it hears of that a moment later; only then it waits, though its place is taken before.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(bench.state.waiting.any());
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    assert!(!bench.state.waiting.any());
    let noted = bench.noted().await;
    assert_eq!((noted.status, noted.reason.as_str()), (499, "Closed"));
}

#[tokio::test]
async fn what_is_not_stored_is_refused_as_ever() {
    let bench = waiting(LONG);
    let mut forged = good();
    forged.headers_mut().insert("x-signature", "00".parse().unwrap());
    assert_eq!(bench.status(forged).await, StatusCode::UNAUTHORIZED);
    assert!(!bench.state.waiting.any());
}
