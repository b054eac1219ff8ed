//! Requests by which an external system makes sure of a callback URL.

use super::*;
use http::HeaderMap;

fn shaking(handshakes: Value) -> Plugin {
    let create = ("/webhook/create/body", json!("{'url': callback.url}"));
    compile(with_all([("/callback/handshakes", handshakes), create])).unwrap()
}

fn ask(
    plugin: &Plugin,
    method: &str,
    query: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Option<HandshakeReply> {
    ask_with(&[], plugin, method, query, headers, body)
}

fn ask_with(
    secrets: &[&str],
    plugin: &Plugin,
    method: &str,
    query: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Option<HandshakeReply> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::from(*secret)).collect();
    plugin.handshake(&CallbackRequest::new(method, query, &map, body.as_bytes()), &secrets)
}

fn text(reply: &HandshakeReply) -> (u16, &str, &str) {
    let kind = reply.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
    (reply.status, kind, std::str::from_utf8(&reply.body).unwrap())
}

#[test]
fn a_plugin_without_handshakes_has_none() {
    assert!(ask(&plugin(), "GET", "challenge=1", &[], "{}").is_none());
    assert!(!plugin().captures_secret_by_handshake());
}

#[test]
fn challenges_come_in_the_query_in_the_body_and_in_headers() {
    // Dropbox and Microsoft Graph; Slack; Trello; CloudEvents.
    let plugin = shaking(json!([
        {"when": "request.method == 'GET' && has(request.query.challenge)", "answer": {"body": "request.query.challenge"}},
        {"when": "'validationToken' in request.query", "answer": {"body": "request.query.validationToken"}},
        {"when": "body.type == 'url_verification'", "verified": true, "answer": {"body": "{'challenge': body.challenge}"}},
        {"when": "request.method == 'HEAD'"},
        {
            "when": "request.method == 'OPTIONS'",
            "answer": {"headers": {"WebHook-Allowed-Origin": "request.headers['webhook-request-origin']", "allow": "'POST'"}}
        },
    ]));
    let plain = "text/plain; charset=utf-8";
    let reply = ask(&plugin, "GET", "challenge=a%20b", &[], "").unwrap();
    assert_eq!((text(&reply), reply.verified), ((200, plain, "a b"), false));
    assert_eq!(reply.headers["x-content-type-options"], "nosniff");
    // Graph posts text, which no plugin reads.
    let graph = ask(&plugin, "POST", "validationToken=t", &[("content-type", "text/plain")], "x").unwrap();
    assert_eq!(text(&graph), (200, plain, "t"));
    let slack = ask(&plugin, "POST", "", &[], r#"{"type": "url_verification", "challenge": "c"}"#).unwrap();
    assert_eq!((text(&slack), slack.verified), ((200, "application/json", r#"{"challenge":"c"}"#), true));
    assert_eq!(text(&ask(&plugin, "HEAD", "", &[], "").unwrap()), (200, "", ""));
    let events = ask(&plugin, "OPTIONS", "", &[("webhook-request-origin", "x.example")], "").unwrap();
    assert_eq!(
        (&events.headers["webhook-allowed-origin"], &events.headers["allow"]),
        (&"x.example".parse().unwrap(), &"POST".parse().unwrap())
    );
    // What cannot be evaluated is no handshake, and neither is one whose answer cannot be made.
    for (method, query, body) in [
        ("POST", "challenge=1", "{}"),
        ("POST", "", r#"{"type": "event"}"#),
        ("POST", "", "[]"),
        ("POST", "", "not json"),
        ("POST", "", r#"{"type": "url_verification"}"#),
        ("OPTIONS", "", ""),
    ] {
        assert!(ask(&plugin, method, query, &[], body).is_none(), "{method} {query} {body}");
    }
    let large = format!(r#"{{"type": "url_verification", "challenge": "{}"}}"#, "x".repeat(70_000));
    assert!(ask(&plugin, "POST", "", &[], &large).is_none());
}

#[test]
fn a_handshake_can_bring_the_secret() {
    // Asana in a header, Notion in the body.
    let plugin = shaking(json!([
        {
            "when": "'x-hook-secret' in request.headers", "secret": "request.headers[?'x-hook-secret'].orValue('')",
            "answer": {"status": 204, "headers": {"x-hook-secret": "request.headers['x-hook-secret']"}}
        },
        {"when": "has(body.verification_token)", "secret": "body.verification_token"},
    ]));
    assert_eq!((plugin.secret_source(), plugin.captures_secret_by_handshake()), (SecretSource::External, true));
    assert_eq!(plugin.secret_headers(), ["x-hook-secret"]);
    let asana = ask(&plugin, "POST", "", &[("x-hook-secret", "s3cret")], "").unwrap();
    assert_eq!((asana.status, asana.secret.as_ref().unwrap().expose()), (204, &b"s3cret"[..]));
    assert_eq!(asana.headers["x-hook-secret"], "s3cret");
    assert!(!format!("{asana:?}").contains("s3cret"), "{asana:?}");
    let notion = ask(&plugin, "POST", "", &[], r#"{"verification_token": "s3cret"}"#).unwrap();
    assert_eq!((notion.status, notion.secret.unwrap().expose()), (200, &b"s3cret"[..]));
    // An empty secret, one that is no text, and one that is too long are none.
    for body in [r#"{"verification_token": ""}"#, r#"{"verification_token": 7}"#] {
        assert!(ask(&plugin, "POST", "", &[], body).is_none(), "{body}");
    }
    let long = json!({"verification_token": "x".repeat(5000)}).to_string();
    assert!(ask(&plugin, "POST", "", &[], &long).is_none());
}

#[test]
fn nothing_is_proven_before_the_secret_is_known() {
    let plugin = compile(with_all([
        ("/callback/handshakes", json!([{"when": "has(body.token)", "secret": "body.token"}])),
        ("/callback/verification", json!([{"none": {}}])),
        ("/webhook/create/body", json!("{'url': callback.url}")),
    ]))
    .unwrap();
    let headers = HeaderMap::new();
    let request = CallbackRequest::new("POST", "", &headers, b"{}");
    for secrets in [&[][..], &[Secret::from("")]] {
        assert_eq!(plugin.verify(&request, secrets), Err(Refusal::NoSecret));
    }
    plugin.verify(&request, &[Secret::from("known")]).unwrap();
}

// The HMACs below were computed by OpenSSL: printf '%s' TOKEN | openssl dgst -sha256 -hmac KEY
const KEY: &str = "Kd93mv0sPq";

#[test]
fn an_answer_can_show_that_the_secret_is_known() {
    // Zoom, which signs the request, and X, which does not.
    let plugin = shaking(json!([
        {
            "when": "body.event == 'endpoint.url_validation'", "verified": true,
            "hmac": {"of": "body.payload.plainToken", "algorithm": "sha256", "encoding": "hex"},
            "answer": {"body": "{'plainToken': body.payload.plainToken, 'encryptedToken': hmac}"}
        },
        {
            "when": "has(request.query.crc_token)",
            "hmac": {"of": "request.query.crc_token", "algorithm": "sha256", "encoding": "base64"},
            "answer": {"body": "{'response_token': 'sha256=' + hmac}", "headers": {"x-token": "hmac"}}
        },
    ]));
    assert_eq!(plugin.secret_source(), SecretSource::Generated);
    let zoom = r#"{"event": "endpoint.url_validation", "payload": {"plainToken": "qgg8vlvZRS6UYooatFL8Aw"}}"#;
    let answer = json!({
        "plainToken": "qgg8vlvZRS6UYooatFL8Aw",
        "encryptedToken": "5e2af770dfaaf880d0d470d696e5aaf932cd40d5d9e6b88ec36d94e0f1749ba2"
    });
    let reply = ask_with(&[KEY, "older"], &plugin, "POST", "", &[], zoom).unwrap();
    assert!(reply.verified);
    assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap(), answer);
    // While the secret is replaced, the one that the request is signed with answers.
    let signed = super::verification::sign(KEY, zoom.as_bytes());
    let reply = ask_with(&["newer", KEY], &plugin, "POST", "", &[("x-signature", &signed)], zoom).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap(), answer);

    let reply = ask_with(&[KEY], &plugin, "GET", "crc_token=NWRlNTI4OTktMzVlYy00", &[], "").unwrap();
    assert_eq!(
        text(&reply),
        (200, "application/json", r#"{"response_token":"sha256=nWz88O4mfjBEINLt8IjQsFUoD0A+n48KIpc0Y9SqvsU="}"#)
    );
    assert_eq!(reply.headers["x-token"], "nWz88O4mfjBEINLt8IjQsFUoD0A+n48KIpc0Y9SqvsU=");
    // Without a secret, nothing can be shown.
    for secrets in [&[][..], &[""]] {
        assert!(ask_with(secrets, &plugin, "GET", "crc_token=NWRlNTI4OTktMzVlYy00", &[], "").is_none());
        assert!(ask_with(secrets, &plugin, "POST", "", &[], zoom).is_none());
    }
}

/// Otherwise anybody could have a payload signed, and then send it.
#[test]
fn nothing_but_tokens_is_signed_for_everybody() {
    let hmac = |verified: bool| {
        shaking(json!([{
            "when": "has(body.sign)", "verified": verified,
            "hmac": {"of": "body.sign", "algorithm": "sha512", "encoding": "base64url"},
            "answer": {"body": "hmac"}
        }]))
    };
    let (open, proven) = (hmac(false), hmac(true));
    let answers = |plugin: &Plugin, text: &str| {
        ask_with(&[KEY], plugin, "POST", "", &[], &json!({"sign": text}).to_string()).is_some()
    };
    for token in ["a", "1", "true", "qgg8vlvZRS6UYooatFL8Aw", "a+/-_9==", &"x".repeat(256)] {
        assert!(answers(&open, token) && answers(&proven, token), "{token}");
    }
    for forgery in [
        "",
        "=",
        "a===",
        "a=b",
        r#"{"event":"paid"}"#,
        "v0:1700000000:x",
        "1700000000.x",
        "a b",
        "a&b",
        "\u{e4}",
        &"x".repeat(257),
    ] {
        assert!(!answers(&open, forgery), "{forgery}");
        assert!(answers(&proven, forgery), "{forgery}");
    }
}

/// A number is JSON, and a name is a form: what a handshake has signed is not believed to be a callback.
#[test]
fn what_is_signed_for_everybody_proves_nothing() {
    let plugin = |verified: bool, signed: Value| {
        let hmac = json!({"header": "x-signature", "algorithm": "sha256", "encoding": "hex", "signed": signed});
        let handshake = json!({
            "when": "has(request.query.crc_token)", "verified": verified,
            "hmac": {"of": "request.query.crc_token", "algorithm": "sha256", "encoding": "hex"},
            "answer": {"body": "hmac"}
        });
        compile(with_all([
            ("/callback/handshakes", json!([handshake])),
            ("/callback/verification", json!([{"hmac": hmac}])),
        ]))
        .unwrap()
    };
    let verify = |plugin: &Plugin, body: &str, signature: &str| {
        let headers = [("x-signature".to_owned(), signature.to_owned())];
        plugin.verify(&CallbackRequest::stored("POST", "", &headers, body.as_bytes()), &[KEY.into()])
    };
    for signed in [json!([{"body": {}}]), json!([{"literal": "v"}, {"expression": "string(body)"}])] {
        let open = plugin(false, signed.clone());
        let prefix = if signed[0].get("literal").is_some() { "v" } else { "" };
        for body in ["1", "true", "7"] {
            let asked = format!("crc_token={prefix}{body}");
            let reply = ask_with(&[KEY], &open, "GET", &asked, &[], "").unwrap();
            let signature = std::str::from_utf8(&reply.body).unwrap();
            let refusal = verify(&open, body, signature).unwrap_err();
            assert!(refusal.to_string().contains("signs the same for everybody"), "{body}: {refusal}");
            // Where the question has to be proven, nobody else gets it signed.
            assert_eq!(verify(&plugin(true, signed.clone()), body, signature), Ok(()), "{body}");
        }
        let body = r#"{"event":"paid"}"#;
        assert!(ask_with(&[KEY], &open, "GET", "crc_token=%7B%22event%22%3A%22paid%22%7D", &[], "").is_none());
        if prefix.is_empty() {
            assert_eq!(verify(&open, body, &super::verification::sign(KEY, body.as_bytes())), Ok(()));
        }
    }
}
