//! Requests that are signed here are accepted as those of the external system, and only with the same secret.

use super::*;
use http::HeaderValue;
use std::collections::BTreeSet;

const NOW: i64 = 1_767_323_045_678;
const URL: &str = "https://hooks.example.com/hooks/a";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLSw=";

/// A plugin with this verification, and a request that it reads.
fn unsigned(verification: &Value, kind: &'static str, body: &str) -> (Plugin, MadeRequest) {
    let plugin = compile(with("/callback/verification", json!([verification]))).unwrap();
    let mut request = MadeRequest { body: body.to_owned().into(), ..MadeRequest::default() };
    request.headers.insert("content-type", HeaderValue::from_static(kind));
    request.headers.insert("x-event", HeaderValue::from_static("push"));
    (plugin, request)
}

fn sign(plugin: &Plugin, request: &MadeRequest, secret: &str) -> Result<MadeRequest, Unsigned> {
    plugin.sign(request, Some(URL), &[Secret::from(secret)], NOW)
}

fn verify(plugin: &Plugin, request: &MadeRequest, secret: &str, at: i64) -> Result<(), Refusal> {
    plugin.verify(&request.callback().at(at).registered(Some(URL)), &[Secret::from(secret)])
}

#[test]
fn each_scheme_with_a_shared_secret_can_be_signed() {
    const JSON: &str = r#"{"a": {"signature": "x", "at": 1}, "token": ""}"#;
    let hmac = |more: Value| {
        let mut hmac = json!({"algorithm": "sha256", "encoding": "hex"});
        hmac.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "hmac": hmac })
    };
    let slack = json!({
        "header": "x-slack-signature", "prefix": "v0=", "timestamp": {"header": "x-slack-request-timestamp"},
        "signed": [{"literal": "v0:"}, {"timestamp": {}}, {"literal": ":"}, {"body": {}}],
    });
    let stripe = json!({
        "header": "stripe-signature", "list": {"separator": ",", "key": "v1"}, "timestamp": {"element": "t"},
        "signed": [{"timestamp": {}}, {"literal": "."}, {"body": {}}],
    });
    let mailgun = json!({
        "field": "body.a.signature", "timestamp": {"field": "string(body.a.at)"},
        "signed": [{"expression": "string(body.a.at)"}, {"expression": "body.token"}],
    });
    let with_key = json!({"header": "x-s", "encoding": "base64url", "algorithm": "sha512",
        "key": {"encoding": "base64", "prefix": "whsec_"}});
    let rows = [
        ("a header", hmac(json!({"header": "X-Signature"})), JSON, false),
        ("a prefix", hmac(json!({"header": "x-hub-signature-256", "prefix": "sha256="})), JSON, false),
        ("Slack", hmac(slack), JSON, true),
        ("Stripe", hmac(stripe), JSON, true),
        ("Mailgun", hmac(mailgun), JSON, true),
        ("a key in base64", hmac(with_key), JSON, false),
        ("the query", hmac(json!({"query": "sig", "signed": [{"url": {}}, {"body": {}}]})), JSON, false),
        (
            "Twilio",
            hmac(json!({"header": "x-twilio-signature", "algorithm": "sha1", "encoding": "base64",
                "signed": [{"urlWithQuery": {}}, {"sortedForm": {}}]})),
            "b=2&a=1",
            false,
        ),
        ("Standard Webhooks", json!({"standardWebhooks": {"headerPrefix": "svix", "tolerance": "5m"}}), JSON, true),
        ("a token", json!({"token": {"header": "x-gitlab-token"}}), JSON, false),
        ("a bearer", json!({"token": {"header": "authorization", "prefix": "Bearer "}}), JSON, false),
        ("a password", json!({"token": {"header": "authorization", "basic": true}}), JSON, false),
        ("a token in the query", json!({"token": {"query": "token"}}), JSON, false),
        ("a token in the body", json!({"token": {"field": "body.token"}}), JSON, false),
        ("a token in a form", json!({"token": {"field": "body.token"}}), "a=1&token=", false),
    ];
    for (name, verification, body, is_timed) in rows {
        let kind = if body == JSON { "application/json" } else { "application/x-www-form-urlencoded" };
        let (plugin, mut request) = unsigned(&verification, kind, body);
        request.query = "q=1".to_owned();
        assert!(verify(&plugin, &request, SECRET, NOW).is_err(), "{name}: it was not signed yet");
        let signed = sign(&plugin, &request, SECRET).unwrap_or_else(|why| panic!("{name}: {why}"));
        verify(&plugin, &signed, SECRET, NOW).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(
            verify(&plugin, &signed, "whsec_b3RoZXIga2V5IG9mIDI0IGJ5dGVz", NOW).is_err(),
            "{name}: any secret does"
        );
        assert_eq!(verify(&plugin, &signed, SECRET, NOW + 600_000).is_err(), is_timed, "{name}");
        assert!(signed.query.starts_with("q=1"), "{name}: {}", signed.query);
        assert!(plugin.read(&signed.callback()).is_ok(), "{name}");
        // What is signed again is not longer.
        let again = sign(&plugin, &signed, SECRET).unwrap();
        assert_eq!((again.headers.len(), again.query.len()), (signed.headers.len(), signed.query.len()), "{name}");
    }
}

#[test]
fn what_only_the_external_system_can_sign_is_told() {
    let key = json!({"publicKey": {"header": "x-s", "algorithm": "ed25519", "encoding": "hex", "keyEncoding": "hex"}});
    let hidden = json!({"token": {"field": "body.items[0].token"}});
    let circular = json!({"hmac": {"field": "body.signature", "algorithm": "sha256", "encoding": "hex"}});
    let hmac = json!({"hmac": {"header": "x-s", "algorithm": "sha256", "encoding": "hex"}});
    let standard = json!({"standardWebhooks": {}});
    for (verification, secret, word) in [
        (key.clone(), "00", "only the external system has"),
        (hidden, SECRET, "body.items[0].token"),
        (circular, SECRET, "does not verify"),
        (hmac.clone(), "", "no callback secret is known"),
        (standard, "whpk_AAAA", "public key"),
    ] {
        let (plugin, request) = unsigned(&verification, "application/json", r#"{"items": [{"token": "x"}]}"#);
        let why = sign(&plugin, &request, secret).unwrap_err();
        assert!(why.to_string().contains(word), "{verification}: {why}");
    }
    // The next one of the list does.
    let plugin = compile(with("/callback/verification", json!([key, hmac]))).unwrap();
    let (_, request) = unsigned(&json!({"none": {}}), "application/json", "{}");
    verify(&plugin, &sign(&plugin, &request, SECRET).unwrap(), SECRET, NOW).unwrap();
    let (open, request) = unsigned(&json!({"none": {}}), "application/json", "{}");
    assert!(sign(&open, &request, "").is_ok(), "nothing is to be proven");
}

#[test]
fn a_sample_has_a_new_id_each_time() {
    let mut spec = spec();
    spec["events"][0]["sample"] =
        json!({"headers": {"X-Event": "push", "X-Delivery": "old"}, "query": "a=b", "body": {"branch": "main"}});
    let plugin = compile(spec.clone()).unwrap();
    let id = uuid::Uuid::from_u128(7);
    let sample = plugin.sample("push", id).unwrap();
    assert_eq!(plugin.delivery_id(&sample.callback()).unwrap(), Some(id.to_string()));
    assert_eq!(
        (sample.method.as_str(), sample.query.as_str(), &*sample.body),
        ("POST", "a=b", &br#"{"branch":"main"}"#[..])
    );
    assert_eq!(sample.headers["content-type"], "application/json");
    assert!(!format!("{sample:?}").contains("main"), "a signed one may hold a secret");
    let none = plugin.sample("pull_request", id).unwrap_err().to_string();
    assert!(none.contains("has no sample of the event pull_request"), "{none}");
    let unknown = plugin.sample("pushh", id).unwrap_err().to_string();
    assert!(unknown.contains("did you mean push?"), "{unknown}");

    // In the body, where there is a text.
    spec["callback"]["deliveryID"] = json!("body.meta['id']");
    for (meta, fresh) in [(json!({"id": "old"}), true), (json!({}), false), (json!({"id": 3}), false)] {
        spec["events"][0]["sample"]["body"] = json!({"meta": meta});
        let sample = compile(spec.clone()).unwrap().sample("push", id).unwrap();
        let body: Value = serde_json::from_slice(&sample.body).unwrap();
        assert_eq!(body["meta"]["id"] == json!(id), fresh, "{body}");
    }

    for (sample, word) in [
        (json!({"headers": {"no name": "a"}}), "spec.events[0].sample.headers.no name"),
        (json!({"headers": {"x": "a\nb"}}), "is no header value"),
        (json!({"body": "x".repeat(65 * 1024)}), "a sample has at most 65536"),
    ] {
        spec["events"][0]["sample"] = sample;
        let mistakes = compile(spec.clone()).unwrap_err();
        assert!(mistakes.iter().any(|mistake| mistake.to_string().contains(word)), "{word}: {mistakes:?}");
    }
}

/// What the plugins of the chart have is what they read. It can be signed, but where that needs a private key, or where an
/// expression computes what the proof is.
#[test]
fn the_samples_of_the_catalogue_carry_their_events() {
    let folder = format!("{}/charts/bellhop-plugins/plugins", env!("CARGO_MANIFEST_DIR"));
    let mut unsigned = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let resource: Value = serde_saphyr::from_str(&text).unwrap();
        let spec: TriggerPluginSpec = serde_json::from_value(resource["spec"].clone()).unwrap();
        let plugin = Plugin::compile(resource["metadata"]["name"].as_str().unwrap(), &spec).unwrap();
        let name = plugin.name();
        assert!(spec.events.iter().any(|event| event.sample.is_some()), "{name} has no sample");
        for event in spec.events.iter().filter(|event| event.sample.is_some()) {
            let what = format!("{name}: {}", event.name);
            let request = plugin.sample(&event.name, uuid::Uuid::new_v4()).unwrap();
            assert!(plugin.handshake(&request.callback(), &[]).is_none(), "{what}: it is a handshake");
            let reading = plugin.read(&request.callback()).unwrap();
            let events = plugin.events(&reading).unwrap();
            assert_eq!(events[0].name.as_deref(), Ok(event.name.as_str()), "{what}");
            let (_, notes) = plugin.variables(&reading, &events[0]);
            assert_eq!(notes, [], "{what}: a variable is not in the sample");
            match sign(&plugin, &request, SECRET) {
                Ok(signed) => assert_eq!(verify(&plugin, &signed, SECRET, NOW), Ok(()), "{what}"),
                Err(_) => drop(unsigned.insert(name.to_owned())),
            }
        }
    }
    assert_eq!(unsigned.iter().collect::<Vec<_>>(), ["discord", "generic-hmac", "microsoft-graph"]);
}
