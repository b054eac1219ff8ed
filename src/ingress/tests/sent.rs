//! Requests that a person has sent.

use super::*;
use crate::api::TriggerPluginSpec;
use crate::log::model::Outcome;

/// The plugin with a sample of `push`, and other verifications.
fn spec(verification: Value) -> TriggerPluginSpec {
    let mut spec = serde_json::to_value(plugin_spec()).unwrap();
    spec["events"][0]["sample"] = json!({"headers": {"x-event": "push"}, "body": {"ref": "refs/heads/main"}});
    spec["callback"]["verification"] = verification;
    serde_json::from_value(spec).unwrap()
}

fn by_hmac() -> Value {
    json!([{"hmac": {"header": "X-Signature", "algorithm": "sha256", "encoding": "hex"}}])
}

impl Bench {
    fn with_plugin(verification: Value) -> Self {
        let bench = Self::new();
        bench.routes.update(|index| index.apply_plugin("forge", &spec(verification)));
        bench
    }

    async fn post(&self, path: &str, wish: Value) -> (StatusCode, Value) {
        let request = Request::post(path).header("content-type", "application/json").body(Body::from(wish.to_string()));
        let response = sent_router(self.state.clone()).oneshot(request.unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn wish(&self, spec: Value) -> (StatusCode, Value) {
        self.post("/log/team-a/subscriptions/sub-1/send", json!({"spec": spec, "by": "jane"})).await
    }

    /// What the log shows of a request that was stored.
    fn shown(&self, id: Uuid) -> crate::log::model::Request {
        self.state.log().one("team-a", id).unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_sample_is_signed_stored_and_told_from_what_came_from_outside() {
    let bench = Bench::with_plugin(by_hmac());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (status, sent) = bench.wish(json!({"event": "push"})).await;
        assert_eq!((status, sent.get("unsigned")), (StatusCode::OK, None), "{sent}");
        let stored = bench.stored().await.unwrap();
        assert_eq!(sent["request"], format!("0-{}", stored.id));
        assert_eq!((&*stored.body, stored.name.as_str()), (&br#"{"ref":"refs/heads/main"}"#[..], "sub-1"));
        assert_eq!(stored.delivery_id, Some(stored.id.to_string()));
        let signature = stored.headers.iter().find(|(name, _)| name == "x-signature").unwrap();
        assert_eq!(signature.1, "***", "who reads the log could send it from outside");
        let shown = bench.shown(stored.id);
        assert_eq!((shown.note.as_deref(), shown.verification.unwrap().verified), (Some("sent by jane"), true));
        ids.push(stored.id);
    }
    assert_ne!(ids[0], ids[1], "the same sample is not taken for a repetition");

    // What a person gives goes before what the sample has.
    let spec = json!({"event": "push", "headers": {"x-event": "issue"}, "query": "a=b", "bodyBase64": "e30="});
    assert_eq!(bench.wish(spec).await.0, StatusCode::OK);
    let stored = bench.stored().await.unwrap();
    assert!(stored.headers.contains(&("x-event".to_owned(), "issue".to_owned())), "{:?}", stored.headers);
    assert_eq!((&*stored.body, stored.query.as_str()), (&b"{}"[..], "a=b"));
}

#[tokio::test]
async fn what_cannot_be_signed_is_taken_by_this_way_alone() {
    let key =
        json!([{"publicKey": {"header": "x-s", "algorithm": "ed25519", "encoding": "hex", "keyEncoding": "hex"}}]);
    let bench = Bench::with_plugin(key);
    let (status, sent) = bench.wish(json!({"event": "push"})).await;
    assert_eq!(status, StatusCode::OK, "{sent}");
    assert!(sent["unsigned"].as_str().unwrap().contains("public key"), "{sent}");
    let shown = bench.shown(bench.stored().await.unwrap().id);
    let verification = shown.verification.unwrap();
    assert!(!verification.verified && verification.message.unwrap().contains("without a signature"));
    assert_eq!(shown.note.as_deref(), Some("sent by jane"));

    assert_eq!(bench.status(good()).await, StatusCode::UNAUTHORIZED);
    let path = "/log/team-a/subscriptions/sub-1/send";
    let outside = Request::post(path).body(Body::from(r#"{"spec": {"event": "push"}, "by": "jane"}"#)).unwrap();
    assert_eq!(bench.status(outside).await, StatusCode::NOT_FOUND, "not at the public listener");
    assert!(bench.stored().await.is_none());
}

#[tokio::test]
async fn what_cannot_be_sent_says_why() {
    let bench = Bench::with_plugin(by_hmac());
    for path in ["/log/team-a/subscriptions/sub-2/send", "/log/team-b/subscriptions/sub-1/send"] {
        let (status, why) = bench.post(path, json!({"spec": {"event": "push"}, "by": "jane"})).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {why}");
    }
    for (spec, status, word) in [
        (json!({}), 400, "spec.event: name the event"),
        (json!({"event": "psh"}), 400, "did you mean push?"),
        (json!({"event": "issue"}), 400, "no sample of the event issue"),
        (json!({"evnt": "push"}), 400, "evnt"),
        (json!({"body": "{}", "bodyBase64": "e30="}), 400, "set one of them"),
        (json!({"bodyBase64": "?"}), 400, "no base64"),
        (json!({"event": "push", "headers": {"a b": "c"}}), 400, "spec.headers.a b"),
        (json!({"event": "push", "query": "\u{7f} x"}), 409, "spec.query"),
        (json!({"event": "push", "body": "{"}), 409, "JSON"),
    ] {
        let (code, why) = bench.wish(spec.clone()).await;
        assert!(code == status && why["error"].as_str().unwrap().contains(word), "{spec}: {code} {why}");
    }
    let logged = bench.state.passing.of_namespace("team-a");
    let refused = logged.iter().find(|request| request.answer.as_ref().is_some_and(|answer| answer.status == 400));
    let refused = refused.expect("one that was refused is in the log");
    assert_eq!((refused.outcome, refused.note.as_deref()), (Outcome::Refused, Some("sent by jane")));
    assert!(bench.stored().await.is_none());
}

#[tokio::test]
async fn expressions_about_what_is_sent_may_do_no_more_than_about_what_comes_from_outside() {
    let bench = Bench::new();
    let mut spec = spec(by_hmac());
    spec.callback.delivery_id = Some("string(body.n.map(n, n + 1).size())".to_owned());
    bench.routes.update(|index| index.apply_plugin("forge", &spec));
    for (items, id) in [(10, Some("10".to_owned())), (40_000, None)] {
        let body = json!({"ref": "refs/heads/main", "n": vec![1; items]}).to_string();
        let (status, sent) = bench.wish(json!({"event": "push", "body": body})).await;
        assert_eq!(status, StatusCode::OK, "{sent}");
        assert_eq!(bench.stored().await.unwrap().delivery_id, id);
    }
}
