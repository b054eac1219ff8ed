//! Who sent a request.

use super::*;
use crate::plugin::cel::value::to_json;

// From https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
const SECRET: &str = "It's a Secret to Everybody";
const BODY: &[u8] = b"Hello, World!";
const SIGNATURE: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

/// The HMAC-SHA256 of a body, in hexadecimal.
pub(super) fn sign(secret: &str, body: &[u8]) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    hex::encode(mac.chain_update(body).finalize().into_bytes())
}

fn verify(plugin: &Plugin, pairs: &[(&str, &str)], secrets: &[&str]) -> Result<(), Refusal> {
    let pairs = headers(pairs);
    let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::from(*secret)).collect();
    let stored = plugin.verify(&CallbackRequest::stored("POST", "", &pairs, BODY), &secrets);
    let mut map = http::HeaderMap::new();
    for (name, value) in &pairs {
        map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    assert_eq!(plugin.verify(&CallbackRequest::new("POST", "", &map, BODY), &secrets), stored);
    stored
}

#[test]
fn githubs_own_vector() {
    let signed = format!("sha256={SIGNATURE}");
    let plugin = example("github-push");
    assert_eq!(verify(&plugin, &[("X-Hub-Signature-256", &signed)], &[SECRET]), Ok(()));
    assert_eq!(verify(&plugin, &[("x-hub-signature-256", &signed.replace("757107ea", "757107EA"))], &[SECRET]), Ok(()));
    assert_eq!(verify(&plugin, &[("x-hub-signature-256", &signed)], &["other", SECRET]), Ok(()));
    let refused = |value: &str, secrets: &[&str]| {
        verify(&plugin, &[("x-hub-signature-256", value)], secrets).unwrap_err().label()
    };
    assert_eq!(refused(&signed, &["other"]), "mismatch");
    assert_eq!(refused(&signed, &[]), "no_secret");
    assert_eq!(refused(&signed, &[""]), "no_secret");
    assert_eq!(refused("", &[SECRET]), "malformed");
    assert_eq!(refused("sha256=", &[SECRET]), "malformed");
    assert_eq!(refused(SIGNATURE, &[SECRET]), "malformed");
    assert_eq!(refused(&signed.replace("sha256", "sha1"), &[SECRET]), "malformed");
    assert_eq!(refused(&signed.replace("sha256", "SHA256"), &[SECRET]), "malformed");
    assert_eq!(refused(&signed[..signed.len() - 2], &[SECRET]), "malformed");
    assert_eq!(refused(&signed[..9], &[SECRET]), "malformed");
    assert_eq!(refused(&format!("{signed}00"), &[SECRET]), "malformed");
    assert_eq!(refused(&format!("{signed},{signed}"), &[SECRET]), "malformed");
    assert_eq!(refused(&format!(" {signed}"), &[SECRET]), "malformed");
    assert_eq!(refused(&signed.replace('7', "g"), &[SECRET]), "malformed");
    assert_eq!(refused(&signed.replace("757107ea", "757107eb"), &[SECRET]), "mismatch");
    assert_eq!(verify(&plugin, &[], &[SECRET]).unwrap_err().label(), "missing");
    assert_eq!(verify(&plugin, &[("x-hub-signature", &signed)], &[SECRET]).unwrap_err().label(), "missing");
    let twice = [("x-hub-signature-256", signed.as_str()), ("X-Hub-Signature-256", signed.as_str())];
    assert_eq!(verify(&plugin, &twice, &[SECRET]).unwrap_err().label(), "repeated");
}

#[test]
fn an_empty_secret_never_verifies() {
    let signed = sign("", BODY);
    assert_eq!(verify(&plugin(), &[("x-signature", &signed)], &[""]), Err(Refusal::NoSecret));
    let token = with("/callback/verification", json!([{"token": {"header": "x-token"}}]));
    let token = compile(token).unwrap();
    assert_eq!(verify(&token, &[("x-token", "")], &[""]), Err(Refusal::NoSecret));
    assert_eq!(verify(&token, &[("x-token", "")], &["s"]).unwrap_err().label(), "malformed");
}

#[test]
fn algorithms_and_encodings() {
    use base64::Engine as _;
    use hmac::Hmac;
    fn sign<M: hmac::Mac + hmac::KeyInit>() -> Vec<u8> {
        let mut mac = <M as hmac::KeyInit>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(BODY);
        mac.finalize().into_bytes().to_vec()
    }
    let signatures = [
        ("sha1", sign::<Hmac<sha1::Sha1>>()),
        ("sha256", sign::<Hmac<sha2::Sha256>>()),
        ("sha512", sign::<Hmac<sha2::Sha512>>()),
    ];
    for (algorithm, signature) in &signatures {
        let base64 = base64::engine::general_purpose::STANDARD.encode(signature);
        for (encoding, text) in [("hex", hex::encode(signature)), ("base64", base64)] {
            let hmac = json!({"header": "x-sig", "algorithm": algorithm, "encoding": encoding, "prefix": "v0="});
            let plugin = compile(with("/callback/verification", json!([{"hmac": hmac}]))).unwrap();
            let value = format!("v0={text}");
            assert_eq!(verify(&plugin, &[("x-sig", &value)], &[SECRET]), Ok(()), "{algorithm} {encoding}");
            assert_eq!(verify(&plugin, &[("x-sig", &value)], &["x"]).unwrap_err().label(), "mismatch");
            assert_eq!(
                verify(&plugin, &[("x-sig", &value[..value.len() - 4])], &[SECRET]).unwrap_err().label(),
                "malformed"
            );
        }
        // A signature of another algorithm has another length, and is none of this one's.
        let other = signatures.iter().find(|(name, _)| name != algorithm).unwrap();
        let hmac = json!({"header": "x-sig", "algorithm": algorithm, "encoding": "hex"});
        let plugin = compile(with("/callback/verification", json!([{"hmac": hmac}]))).unwrap();
        assert_eq!(verify(&plugin, &[("x-sig", &hex::encode(&other.1))], &[SECRET]).unwrap_err().label(), "malformed");
    }
}

#[test]
fn tokens_and_lists_of_proofs() {
    let both = json!([
        {"hmac": {"header": "x-sig", "algorithm": "sha256", "encoding": "hex"}},
        {"token": {"header": "authorization", "prefix": "Bearer "}}
    ]);
    let plugin = compile(with("/callback/verification", both)).unwrap();
    assert_eq!(verify(&plugin, &[("authorization", "Bearer s3cret")], &["s3cret"]), Ok(()));
    assert_eq!(verify(&plugin, &[("x-sig", SIGNATURE)], &[SECRET]), Ok(()));
    for wrong in
        ["Bearer s3cre", "Bearer s3cret ", "Bearer S3cret", "Bearer ", "bearer s3cret", "s3cret", "", "Bearer s3crets"]
    {
        let refusal = verify(&plugin, &[("authorization", wrong)], &["s3cret"]).unwrap_err();
        assert!(matches!(refusal, Refusal::Mismatch(_) | Refusal::Malformed { .. }), "{wrong}: {refusal}");
        assert!(!refusal.to_string().contains("s3cret"), "{refusal}");
    }
    // One good proof is enough, whatever the other header says.
    assert_eq!(verify(&plugin, &[("x-sig", "00"), ("authorization", "Bearer s3cret")], &["s3cret"]), Ok(()));
    assert_eq!(
        verify(&plugin, &[("x-sig", SIGNATURE)], &["s3cret"]),
        Err(Refusal::Mismatch("the header x-sig".into()))
    );

    let open = compile(with("/callback/verification", json!([{"none": {}}]))).unwrap();
    assert_eq!(verify(&open, &[], &[]), Ok(()));
}

#[test]
fn bodies_are_what_their_content_type_says() {
    let plugin = example("github-push");
    let check = |content_type: Option<&str>, body: &[u8]| {
        let pairs: Vec<_> =
            content_type.map(|value| ("Content-Type".to_owned(), value.to_owned())).into_iter().collect();
        let request = CallbackRequest::stored("POST", "", &pairs, body);
        let checked = plugin.check_body(&request);
        // What passes the check can be read.
        match plugin.read(&request) {
            Ok(reading) => checked.map(|()| to_json(reading.body.as_ref()).unwrap()),
            Err(error) => {
                assert_eq!(checked, Err(error.clone()));
                Err(error)
            }
        }
    };
    for good in
        [Some("application/json"), Some("Application/JSON; charset=utf-8"), Some("application/cloudevents+json"), None]
    {
        assert_eq!(check(good, b"{\"a\": 1}"), Ok(json!({"a": 1})), "{good:?}");
    }
    assert_eq!(
        check(Some("application/x-www-form-urlencoded"), b"payload=%7B%22a%22%3A+1%7D&x=2"),
        Ok(json!({"a": 1}))
    );
    for empty in [None, Some("text/plain"), Some("application/json"), Some("application/x-www-form-urlencoded")] {
        assert_eq!(check(empty, b""), Ok(Value::Null), "{empty:?}");
    }
    for (content_type, body, expected) in [
        ("multipart/form-data; boundary=x", "--x", "content type \"multipart/form-data\" is not read"),
        ("text/plain", "{}", "content type \"text/plain\""),
        ("application/jsonx", "{}", "content type \"application/jsonx\""),
        ("", "{}", "content type \"\""),
        ("application/json", "a=1", "the body is not JSON: expected value at line 1 column 1"),
        ("application/json", "{} {}", "trailing characters"),
        ("application/x-www-form-urlencoded", "{}", "the form has the field payload 0 times"),
        ("application/x-www-form-urlencoded", "payload={}&payload={}", "the form has the field payload 2 times"),
        ("application/x-www-form-urlencoded", "payload=x", "the form's field payload is not JSON"),
    ] {
        let error = check(Some(content_type), body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{content_type}: {error}");
    }
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(check(None, deep.as_bytes()).unwrap_err().to_string().contains("recursion limit exceeded"));
    let twice = headers(&[("content-type", "application/json"), ("content-type", "text/plain")]);
    assert_eq!(
        plugin.check_body(&CallbackRequest::stored("POST", "", &twice, b"{}")),
        Err(BadBody::RepeatedContentType)
    );
    // Without a payload field, a form is a map of its fields.
    let form = headers(&[("content-type", "application/x-www-form-urlencoded")]);
    let reading = super::plugin().read(&CallbackRequest::stored("POST", "", &form, b"a=1&b=x%20y&a=2")).unwrap();
    assert_eq!(to_json(reading.body.as_ref()), Ok(json!({"a": "1", "b": "x y"})));
}

#[test]
fn nothing_secret_is_debugged() {
    let secret = Secret::from("hunter2");
    let pairs = headers(&[("authorization", "hunter2")]);
    let request = CallbackRequest::stored("POST", "t=hunter2", &pairs, b"hunter2");
    let reading = plugin().read(&CallbackRequest::stored("POST", "t=hunter2", &pairs, b"\"hunter2\"")).unwrap();
    let text = format!("{secret:?} {request:?} {reading:?} {:#?}", plugin());
    assert!(!text.contains("hunter2"), "{text}");
}
