//! Handshakes: answered at once, never stored, and a captured secret stored before that.

use super::*;
use axum::routing::post;
use std::sync::Mutex;
use tokio::sync::Semaphore;

/// What the controller of a test was told, and how it answers.
#[derive(Clone)]
struct Told {
    bodies: Arc<Mutex<Vec<Value>>>,
    answer: StatusCode,
    /// Each answer takes one.
    permits: Arc<Semaphore>,
}

impl Told {
    fn answering(answer: StatusCode) -> Self {
        Self { bodies: Arc::default(), answer, permits: Arc::new(Semaphore::new(100)) }
    }

    fn controller(&self) -> Controller {
        let told = self.clone();
        let take = move |body: String| async move {
            told.bodies.lock().unwrap().push(serde_json::from_str(&body).unwrap());
            told.permits.acquire().await.unwrap().forget();
            told.answer
        };
        Controller::Here(Router::new().route("/internal/secrets", post(take)))
    }

    fn bodies(&self) -> Vec<Value> {
        self.bodies.lock().unwrap().clone()
    }
}

/// A bench whose plugin has a challenge in the query, one in a signed body, and a secret in a header.
fn bench(secrets: &[&str], controller: Controller) -> Bench {
    let mut bench = Bench::new();
    let mut spec = serde_json::to_value(plugin_spec()).unwrap();
    spec["callback"]["handshakes"] = json!([
        {"when": "'challenge' in request.query", "answer": {"body": "request.query.challenge"}},
        {
            "when": "body.type == 'url_verification'", "verified": true,
            "answer": {"body": "{'challenge': body.challenge}", "headers": {"x-extra": "'1'"}}
        },
        {
            "when": "request.method == 'OPTIONS' && 'webhook-request-origin' in request.headers",
            "answer": {"headers": {
                "allow": "'POST'",
                "webhook-allowed-origin": "request.headers['webhook-request-origin']",
                "webhook-allowed-rate": "request.headers[?'webhook-request-rate'].orValue('*')"
            }}
        },
        {
            "when": "body.type == 'validate'", "verified": true,
            "hmac": {"of": "body.token", "algorithm": "sha256", "encoding": "hex"},
            "answer": {"body": "{'token': body.token, 'proof': hmac}"}
        },
        {
            "when": "'x-hook-secret' in request.headers", "secret": "request.headers['x-hook-secret']",
            "answer": {"status": 204, "headers": {"x-hook-secret": "request.headers['x-hook-secret']"}}
        },
    ]);
    if secrets.is_empty() {
        // Without any verification, everything would pass once nothing is known.
        spec["callback"]["verification"] = json!([{"none": {}}]);
    }
    let spec = serde_json::from_value(spec).unwrap();
    let callback_secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
    bench.routes.update(|index| {
        index.apply_plugin("forge", &spec);
        index.apply_route(PublishedRoute { callback_secrets, ..published(1) });
    });
    let state = Arc::into_inner(bench.state).unwrap().with_controller(controller);
    bench.state = Arc::new(state);
    bench
}

fn hook(secret: &str) -> Request<Body> {
    Request::post("/hooks/token-1").header("x-hook-secret", secret).body(Body::empty()).unwrap()
}

async fn text(bench: &Bench, request: Request<Body>) -> (StatusCode, String, Response<()>) {
    let response = router(bench.state.clone()).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status, String::from_utf8(body.to_vec()).unwrap(), Response::from_parts(parts, ()))
}

#[tokio::test]
async fn a_challenge_is_answered_before_anything_is_proven() {
    let bench = bench(&[SECRET], Controller::Absent);
    let challenge = "/hooks/token-1?challenge=%3Cb%3E1";
    for request in [
        Request::get(challenge).body(Body::empty()).unwrap(),
        Request::post(challenge).header("content-type", "text/plain").body("not read".into()).unwrap(),
    ] {
        let (status, body, response) = text(&bench, request).await;
        assert_eq!((status, &*body), (StatusCode::OK, "<b>1"));
        assert_eq!(response.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    // What is too large for a handshake is an event, which has to prove its sender.
    let large = Request::post(challenge).body(Body::from("x".repeat(70_000))).unwrap();
    assert_eq!(bench.status(large).await, StatusCode::UNAUTHORIZED);
    assert!(bench.stored().await.is_none());
    let metrics = bench.private("/metrics").await.1;
    assert!(metrics.contains(r#"bellhop_requests_total{plugin="forge",answer="handshake"} 2"#), "{metrics}");
}

/// A sender of CloudEvents asks for the permission to send before it sends (the abuse protection of its HTTP webhooks).
#[tokio::test]
async fn a_sender_of_cloud_events_is_permitted() {
    let bench = bench(&[SECRET], Controller::Absent);
    let asks = || Request::options("/hooks/token-1");
    let question = asks().header("webhook-request-origin", "events.example").header("webhook-request-rate", "120");
    let (status, body, response) = text(&bench, question.body(Body::empty()).unwrap()).await;
    assert_eq!((status, &*body), (StatusCode::OK, ""));
    for (name, value) in
        [("allow", "POST"), ("webhook-allowed-origin", "events.example"), ("webhook-allowed-rate", "120")]
    {
        assert_eq!(response.headers()[name], value);
    }
    let question = asks().header("webhook-request-origin", "events.example").body(Body::empty()).unwrap();
    assert_eq!(text(&bench, question).await.2.headers()["webhook-allowed-rate"], "*");
    // Without an origin it is no such question.
    assert_eq!(bench.status(asks().body(Body::empty()).unwrap()).await, StatusCode::UNAUTHORIZED);
    assert!(bench.stored().await.is_none());
}

#[tokio::test]
async fn an_answer_shows_that_the_secret_is_known_to_who_has_signed() {
    let bench = bench(&[SECRET], Controller::Absent);
    let body = r#"{"type": "validate", "token": "abc"}"#;
    let unsigned = Request::post("/hooks/token-1").body(body.into()).unwrap();
    let (status, answer, _) = text(&bench, unsigned).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let expected = sign(b"abc");
    assert!(!answer.contains(&expected), "{answer}");
    let (status, answer, _) = bench.send(signed(body).body(body.into()).unwrap()).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"token": "abc", "proof": expected})));
    assert!(bench.stored().await.is_none());
}

#[tokio::test]
async fn a_signed_handshake_must_be_proven() {
    let bench = bench(&[SECRET], Controller::Absent);
    let body = r#"{"type": "url_verification", "challenge": "c"}"#;
    let unsigned = Request::post("/hooks/token-1").body(body.into()).unwrap();
    assert_eq!(bench.status(unsigned).await, StatusCode::UNAUTHORIZED);
    let (status, answer, response) = bench.send(signed(body).body(body.into()).unwrap()).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"challenge": "c"})));
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-extra"], "1");
    assert!(bench.stored().await.is_none());
    // Everything else is an event as ever.
    assert_eq!(bench.status(good()).await, StatusCode::OK);
    assert!(bench.stored().await.is_some());
}

#[tokio::test]
async fn a_secret_is_stored_before_the_answer() {
    for (answer, expected) in [
        (StatusCode::NO_CONTENT, StatusCode::NO_CONTENT),
        (StatusCode::CONFLICT, StatusCode::UNAUTHORIZED),
        (StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE),
        (StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let told = Told::answering(answer);
        let bench = bench(&[], told.controller());
        let (status, body, response) = text(&bench, hook("theirs")).await;
        assert_eq!(status, expected, "{answer}");
        assert_eq!(told.bodies(), [json!({"uid": Uuid::from_u128(1), "secret": "theirs"})]);
        let echoed = response.headers().get("x-hook-secret").map(|value| value.to_str().unwrap());
        assert_eq!(echoed, (expected == StatusCode::NO_CONTENT).then_some("theirs"), "{answer}");
        assert!(!body.contains("theirs"), "{body}");
    }
    let bench = bench(&[], Controller::Absent);
    let (status, _, response) = bench.send(hook("theirs")).await;
    assert_eq!((status, &response.headers()["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap()));
    assert!(bench.stored().await.is_none());
}

#[tokio::test]
async fn a_known_secret_needs_no_controller() {
    let told = Told::answering(StatusCode::CONFLICT);
    let bench = bench(&["old", SECRET], told.controller());
    assert_eq!(bench.status(hook(SECRET)).await, StatusCode::NO_CONTENT);
    assert_eq!(told.bodies(), Vec::<Value>::new());
    assert_eq!(bench.status(hook("another")).await, StatusCode::UNAUTHORIZED);
    // An empty one is none: then it is no handshake, and as an event it is not proven.
    assert_eq!(bench.status(hook("")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(told.bodies().len(), 1);
}

#[tokio::test]
async fn a_route_has_one_secret_under_way_at_a_time() {
    let told = Told { permits: Arc::new(Semaphore::new(0)), ..Told::answering(StatusCode::NO_CONTENT) };
    let bench = bench(&[], told.controller());
    let others = async {
        while told.bodies().is_empty() {
            tokio::task::yield_now().await;
        }
        for _ in 0..5 {
            assert_eq!(bench.status(hook("flood")).await, StatusCode::SERVICE_UNAVAILABLE);
        }
        told.permits.add_permits(2);
    };
    let (first, ()) = tokio::join!(bench.status(hook("theirs")), others);
    assert_eq!((first, told.bodies().len()), (StatusCode::NO_CONTENT, 1));
    assert_eq!(bench.status(hook("theirs")).await, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn nothing_passes_while_the_secret_is_not_known() {
    for secrets in [vec![], vec![String::new()]] {
        let bench = bench(&[], Controller::Absent);
        let route = PublishedRoute { callback_secrets: secrets, ..published(1) };
        bench.routes.update(|index| index.apply_route(route));
        let (status, body, _) = bench.send(good()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(body["error"].as_str().unwrap().contains("no callback secret"), "{body}");
        assert!(bench.stored().await.is_none());
    }
}

#[tokio::test]
async fn a_header_that_can_carry_a_secret_is_not_stored() {
    let bench = bench(&[SECRET], Controller::Absent);
    let mut request = good();
    // An event of a sender that repeats it, and says it in a way that makes no handshake of it.
    request.headers_mut().insert("x-hook-secret", "".parse().unwrap());
    assert_eq!(bench.status(request).await, StatusCode::OK);
    let stored = bench.stored().await.unwrap();
    let told = |name: &String, value: &String| name == "x-hook-secret" && value != "***";
    assert!(!stored.headers.iter().any(|(name, value)| told(name, value)), "{:?}", stored.headers);
}
