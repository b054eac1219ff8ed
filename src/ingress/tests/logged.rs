//! What is known of requests that are not stored.

use super::*;
use crate::log::model::{self, Outcome};

impl Bench {
    fn logged(&self) -> Vec<Arc<model::Request>> {
        self.state.passing.of_namespace("team-a")
    }
}

#[tokio::test]
async fn what_is_refused_is_logged_with_how_it_was_answered_and_without_secrets() {
    let bench = Bench::new();
    let request = Request::post("/hooks/token-1?key=hunter2")
        .header("x-signature", "00".repeat(32))
        .header("authorization", "Bearer hunter2")
        .header("x-note", format!("it is {SECRET}"))
        .body(Body::from(format!("{{\"s\": \"{SECRET}\"}}")));
    assert_eq!(bench.status(request.unwrap()).await, StatusCode::UNAUTHORIZED);
    let logged = bench.logged();
    let [refused] = logged.as_slice() else { panic!("{logged:?}") };
    assert_eq!((refused.outcome, refused.subscription.name.as_str()), (Outcome::Refused, "sub-1"));
    let answer = refused.answer.as_ref().unwrap();
    assert_eq!((answer.status, answer.reason.as_str()), (401, "Unverified"));
    assert!(answer.after_millis.is_some() && answer.message.as_ref().unwrap().contains("X-Signature"), "{answer:?}");
    assert!(!refused.verification.as_ref().unwrap().verified);
    let text = serde_json::to_string(&**refused).unwrap();
    assert!(!text.contains("hunter2") && !text.contains(SECRET), "{text}");
    assert!(text.contains(r#""name":"authorization","value":"***""#), "{text}");
    assert_eq!(refused.received.query, "key=***");
}

#[tokio::test]
async fn repetitions_name_what_they_repeat_and_what_is_accepted_is_not_kept_twice() {
    let bench = Bench::new();
    assert_eq!(bench.status(good()).await, StatusCode::OK);
    assert!(bench.logged().is_empty(), "it is in the spool");
    assert_eq!(bench.status(good()).await, StatusCode::OK);
    let id = request_id(Uuid::from_u128(1), Some("d-1"), b"");
    let logged = bench.logged();
    assert_eq!((logged.len(), logged[0].outcome), (1, Outcome::Duplicate));
    assert_eq!(logged[0].note, Some(format!("repeats 0-{id}")));
    assert_eq!(logged[0].received.delivery_id.as_deref(), Some("d-1"));
}

#[tokio::test]
async fn bodies_that_are_not_read_and_not_read_right_are_told_apart() {
    let bench = Bench::new();
    let large = signed("").body(Body::from("x".repeat(LIMIT + 1))).unwrap();
    assert_eq!(bench.status(large).await, StatusCode::PAYLOAD_TOO_LARGE);
    let broken = "{".repeat(6000);
    let mut broken = signed(&broken).body(Body::from(broken.clone())).unwrap();
    broken.headers_mut().remove("x-delivery");
    assert_eq!(bench.status(broken).await, StatusCode::BAD_REQUEST);
    let logged = bench.logged();
    let found = |reason: &str| logged.iter().find(|r| r.answer.as_ref().unwrap().reason == reason).unwrap();
    assert!(found("TooLarge").received.body.is_none() && found("TooLarge").verification.is_none());
    let body = found("BadBody").received.body.clone().unwrap();
    assert_eq!((body.bytes, body.text.unwrap().len(), body.truncated), (6000, 4096, true));
    assert!(found("BadBody").verification.as_ref().unwrap().verified);
}

#[tokio::test]
async fn unknown_urls_belong_to_nobody_and_a_flood_is_thinned_out() {
    let bench = Bench::new();
    assert_eq!(bench.status(Request::post("/hooks/none").body(Body::empty()).unwrap()).await, StatusCode::NOT_FOUND);
    assert!(bench.logged().is_empty());
    let forged = || Request::post("/hooks/token-1").body(Body::from("{}")).unwrap();
    for _ in 0..100 {
        assert_eq!(bench.status(forged()).await, StatusCode::UNAUTHORIZED);
    }
    let before = bench.logged().len();
    assert!((10..30).contains(&before), "{before}");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bench.status(forged()).await;
    let note = bench.logged()[0].note.clone().unwrap();
    assert!(note.contains("others like it were left out"), "{note}");
}
