//! Handshakes: what they echo is data, what they sign cannot be a payload, and a reply is always one that can be sent.

use super::{Sent, hold, plugin};
use bellhop::plugin::Secret;
use proptest::prelude::*;
use ring::hmac;
use serde_json::json;

const SECRET: &str = "q7Zk2Lw9Vt4Xb8Rm";

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
        let reply = sent.ask(0, |request| plugin.handshake(request, &[Secret::from(SECRET)]));
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

/// Who is not known gets nothing signed but what is no payload, and that with the right key alone.
#[test]
fn handshake_codes() {
    let plugin = plugin(json!({"handshakes": [{
        "when": "has(body.challenge)",
        "hmac": {"of": "body.challenge", "algorithm": "sha256", "encoding": "hex"},
        "answer": {"body": "hmac"},
    }], "verification": [{"hmac": {"header": "x-sig", "algorithm": "sha256", "encoding": "hex"}}]}));
    let challenge =
        prop_oneof!["[A-Za-z0-9+/_-]{0,300}={0,3}", ".{0,40}", "[A-Za-z0-9]{1,20}[ \"{}:=.]{0,2}[A-Za-z0-9]{0,20}",];
    hold("tests/fuzz/regressions/codes.txt", &challenge, |challenge| {
        let body = json!({"challenge": challenge}).to_string().into_bytes();
        let sent = Sent { headers: vec![("content-type", b"application/json".to_vec())], body, ..Sent::default() };
        let stem = challenge.trim_end_matches('=');
        let plain = stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/_-".contains(&byte));
        let harmless = plain && !stem.is_empty() && challenge.len() - stem.len() <= 2 && challenge.len() <= 256;
        let reply = sent.ask(0, |request| plugin.handshake(request, &[Secret::from(SECRET)]));
        prop_assert_eq!(reply.is_some(), harmless, "{}", challenge);
        if let Some(reply) = reply {
            let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), challenge.as_bytes());
            let right = hex::encode(code);
            prop_assert_eq!(&reply.body[..], right.as_bytes());
        }
        prop_assert!(sent.ask(0, |request| plugin.handshake(request, &[])).is_none(), "signed without a secret");
        Ok(())
    });
}

/// Where the question is signed, nobody else gets an answer, and the code in it is made with the key that has signed it.
#[test]
fn handshake_verified() {
    let plugin = plugin(json!({"handshakes": [{
        "when": "body.type == 'url_validation'", "verified": true,
        "hmac": {"of": "body.token", "algorithm": "sha256", "encoding": "hex"},
        "answer": {"body": "{'token': body.token, 'code': hmac}"},
    }], "verification": [{"hmac": {"header": "x-sig", "algorithm": "sha256", "encoding": "hex"}}]}));
    let sign =
        |key: &str, text: &[u8]| hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()), text));
    let kinds = prop_oneof![8 => Just("url_validation"), 1 => Just("url_verification"), 1 => Just("push")];
    let cases = (kinds, ".{0,40}", any::<(bool, bool, bool)>(), any::<prop::sample::Index>(), 1_u8..=255);
    hold("tests/fuzz/regressions/verified.txt", &cases, |(kind, token, (old, signed, changes), at, difference)| {
        let secrets = ["the new secret", "the old secret"];
        let key = secrets[usize::from(old)];
        let mut body = json!({"type": kind, "token": token}).to_string().into_bytes();
        let signature = sign(if signed { key } else { "a guess" }, &body);
        if changes {
            let at = at.index(body.len());
            body[at] ^= difference;
        }
        let headers = vec![("content-type", b"application/json".to_vec()), ("x-sig", signature.into_bytes())];
        let sent = Sent { headers, body, ..Sent::default() };
        let secrets = secrets.map(Secret::from);
        let answered = sent.ask(0, |request| {
            // As the ingress asks.
            let reply = plugin.handshake(request, &secrets)?;
            (!reply.verified || plugin.verify(request, &secrets).is_ok()).then_some(reply)
        });
        prop_assert_eq!(answered.is_some(), kind == "url_validation" && signed && !changes, "{:?}", sent);
        if let Some(reply) = answered {
            let answer: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
            prop_assert_eq!(answer, json!({"token": token, "code": sign(key, token.as_bytes())}));
        }
        Ok(())
    });
}
