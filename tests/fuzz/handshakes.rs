//! Handshakes: what they echo is data, and a reply is always one that can be sent.

use super::{Sent, hold, plugin};
use bellhop::plugin::Secret;
use proptest::prelude::*;
use serde_json::json;

#[test]
fn handshake_replies() {
    let plugin = plugin(json!({"handshakes": [
        {"when": "has(body.challenge)", "answer": {"status": 200, "body": "body.challenge"}},
        {"when": "'token' in request.query", "answer": {"status": 200, "body": "request.query['token']"}},
        {"when": "'x-secret' in request.headers",
         "answer": {"status": 200, "headers": {"x-secret": "request.headers['x-secret']"}}},
    ]}));
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        ".{0,40}".prop_map(|text| json!({"challenge": text}).to_string().into_bytes()),
        any::<i64>().prop_map(|number| json!({"challenge": number}).to_string().into_bytes()),
    ];
    let cases = (body, "(token=.{0,10})?.{0,20}", proptest::option::of(super::header_bytes()));
    hold("tests/fuzz/regressions/handshake.txt", &cases, |(body, query, secret)| {
        let mut sent = Sent { query, headers: vec![("content-type", b"application/json".to_vec())], body };
        sent.headers.extend(secret.map(|secret| ("x-secret", secret)));
        let reply = sent.ask(0, |request| plugin.handshake(request, &[Secret::from("q7Zk2Lw9Vt4Xb8Rm")]));
        if let Some(reply) = reply {
            prop_assert_eq!(reply.status, 200);
            let challenge = serde_json::from_slice::<serde_json::Value>(&sent.body).ok();
            if let Some(text) = challenge.as_ref().and_then(|body| body["challenge"].as_str()) {
                prop_assert_eq!(&reply.body[..], text.as_bytes());
            }
            for (name, value) in &reply.headers {
                let plain = value.as_bytes().iter().all(|byte| !matches!(byte, b'\r' | b'\n' | 0));
                prop_assert!(plain, "{}: {:?}", name, value);
            }
        }
        Ok(())
    });
}
