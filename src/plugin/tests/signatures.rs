//! Signatures as vendors publish them: each is accepted as it is, and refused with one byte changed anywhere, with another
//! key, and at another time.

use super::*;
use ring::signature::{Ed25519KeyPair, KeyPair};

/// A signed request, and the verification that it is for.
struct Signed {
    name: &'static str,
    verification: Value,
    secret: String,
    other_secret: &'static str,
    /// When it was sent, in Unix milliseconds; with how many it may differ.
    time: Option<(i64, i64)>,
    url: Option<&'static str>,
    query: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// What else than the body is covered: names of headers.
    covered: &'static [&'static str],
    covers_body: bool,
}

impl Default for Signed {
    fn default() -> Self {
        Self {
            name: "",
            verification: Value::Null,
            secret: String::new(),
            other_secret: "another",
            time: None,
            url: None,
            query: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
            covered: &[],
            covers_body: true,
        }
    }
}

impl Signed {
    fn plugin(&self) -> Plugin {
        compile(with("/callback/verification", json!([self.verification]))).unwrap()
    }

    fn verify(&self, plugin: &Plugin) -> Result<(), Refusal> {
        self.verify_at(plugin, self.time.map_or(0, |(time, _)| time), &self.secret)
    }

    fn verify_at(&self, plugin: &Plugin, at: i64, secret: &str) -> Result<(), Refusal> {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let request = CallbackRequest::stored("POST", &self.query, &headers, &self.body);
        plugin.verify(&request.at(at).registered(self.url), &[Secret::from(secret)])
    }
}

fn hmac_hex(header: &str) -> Value {
    json!({"header": header, "algorithm": "sha256", "encoding": "hex"})
}

fn merged(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

fn published() -> Vec<Signed> {
    vec![
        Signed {
            // https://docs.slack.dev/authentication/verifying-requests-from-slack
            name: "Slack",
            verification: json!({"hmac": merged(hmac_hex("x-slack-signature"), json!({
                "prefix": "v0=",
                "signed": [{"literal": "v0:"}, {"timestamp": {}}, {"literal": ":"}, {"body": {}}],
                "timestamp": {"header": "x-slack-request-timestamp"},
            }))}),
            secret: "8f742231b10e8888abcd99yyyzzz85a5".into(),
            time: Some((1_531_420_618_000, 300_000)),
            headers: vec![
                ("X-Slack-Signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503".into()),
                ("X-Slack-Request-Timestamp", "1531420618".into()),
                ("Content-Type", "application/x-www-form-urlencoded".into()),
            ],
            body: b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
                &channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=\
                &response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
                &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
                .to_vec(),
            covered: &["X-Slack-Request-Timestamp"],
            ..Signed::default()
        },
        Signed {
            // github.com/standard-webhooks, and https://docs.svix.com/receiving/verifying-payloads/how-manual
            name: "Standard Webhooks",
            verification: json!({"standardWebhooks": {}}),
            secret: "whsec_plJ3nmyCDGBKInavdOK15jsl".into(),
            other_secret: "whsec_AAAAnmyCDGBKInavdOK15jsl",
            time: Some((1_731_705_121_000, 300_000)),
            headers: vec![
                ("webhook-id", "msg_loFOjxBNrRLzqYUf".into()),
                ("webhook-timestamp", "1731705121".into()),
                ("webhook-signature", "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=".into()),
            ],
            body: br#"{"event_type":"ping","data":{"success":true}}"#.to_vec(),
            covered: &["webhook-id", "webhook-timestamp"],
            ..Signed::default()
        },
        Signed {
            // https://www.twilio.com/docs/usage/security, and the tests of twilio-go
            name: "Twilio",
            verification: json!({"hmac": {
                "header": "x-twilio-signature", "algorithm": "sha1", "encoding": "base64",
                "signed": [{"urlWithQuery": {}}, {"sortedForm": {}}],
            }}),
            secret: "12345".into(),
            url: Some("https://mycompany.com/myapp.php"),
            query: "foo=1&bar=2".into(),
            headers: vec![
                ("X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=".into()),
                ("Content-Type", "application/x-www-form-urlencoded".into()),
            ],
            body: b"Digits=1234&CallSid=CA1234567890ABCDE&To=%2B18005551212&Caller=%2B14158675309&From=%2B14158675309"
                .to_vec(),
            // That the form is sorted is how Twilio signs: changes of the separators give another form, or none.
            ..Signed::default()
        },
        Signed {
            // The tests of sendgrid-go and sendgrid-nodejs, helpers/eventwebhook
            name: "SendGrid",
            verification: json!({"publicKey": {
                "header": "x-twilio-email-event-webhook-signature",
                "algorithm": "ecdsaP256Sha256", "encoding": "base64", "keyEncoding": "base64",
                "signed": [{"timestamp": {}}, {"body": {}}],
                "timestamp": {"header": "x-twilio-email-event-webhook-timestamp"},
            }}),
            secret: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaIN\
                XvVpiglSI8eNEc6wEA3F+g=="
                .into(),
            other_secret: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEuzJ9fKRmjgTDQE2Lj1JgmMrnBVJTfM9L8jYHVVIZLdQJ0rbWkvcfCGzq9qfK\
                dLrUBHwMSYPqTrQNMBXTaYlc1Q==",
            time: Some((1_600_112_502_000, 300_000)),
            headers: vec![
                (
                    "X-Twilio-Email-Event-Webhook-Signature",
                    "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM="
                        .into(),
                ),
                ("X-Twilio-Email-Event-Webhook-Timestamp", "1600112502".into()),
            ],
            body: b"[{\"email\":\"hello@world.com\",\"event\":\"dropped\",\"reason\":\"Bounced Address\",\
                \"sg_event_id\":\"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA\",\
                \"sg_message_id\":\"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0\",\
                \"smtp-id\":\"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>\",\"timestamp\":1600112492}]\r\n"
                .to_vec(),
            covered: &["X-Twilio-Email-Event-Webhook-Timestamp"],
            ..Signed::default()
        },
    ]
}

/// Forms of which no vendor publishes a signature; they are made here with the crates of the implementation, and by the
/// vendors' own libraries in the integration tests.
fn made() -> Vec<Signed> {
    use base64::Engine as _;
    use hmac::Mac as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let sha256 = |key: &[u8], parts: &[&[u8]]| {
        let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(key).unwrap();
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    };
    let body = br#"{"id":"evt_1","type":"charge.succeeded","sent":1700000000123}"#.to_vec();
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = pair.public_key().as_ref();
    let trello = |name, registered, signed: &str| Signed {
        name,
        verification: json!({"hmac": {
            "header": "x-trello-webhook", "algorithm": "sha256", "encoding": "base64url",
            "signed": [{"body": {}}, {"url": {}}],
        }}),
        secret: "tr-51f0".into(),
        url: Some(registered),
        headers: vec![(
            "X-Trello-Webhook",
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(sha256(b"tr-51f0", &[&body, signed.as_bytes()])),
        )],
        body: body.clone(),
        ..Signed::default()
    };
    vec![
        Signed {
            name: "Stripe",
            verification: json!({"hmac": merged(hmac_hex("stripe-signature"), json!({
                "list": {"separator": ",", "key": "v1"},
                "signed": [{"timestamp": {}}, {"literal": "."}, {"body": {}}],
                "timestamp": {"element": "t"},
            }))}),
            secret: "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH".into(),
            time: Some((1_492_774_577_000, 300_000)),
            headers: vec![(
                "Stripe-Signature",
                format!(
                    "t=1492774577,v1={},v1={},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39",
                    "00".repeat(32),
                    hex::encode(sha256(b"whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH", &[b"1492774577.", &body]))
                ),
            )],
            body: body.clone(),
            ..Signed::default()
        },
        Signed {
            name: "Zendesk",
            verification: json!({"hmac": {
                "header": "x-zendesk-webhook-signature", "algorithm": "sha256", "encoding": "base64",
                "signed": [{"timestamp": {}}, {"body": {}}],
                "timestamp": {"header": "x-zendesk-webhook-signature-timestamp", "unit": "rfc3339"},
            }}),
            secret: "dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ==".into(),
            time: Some((1_616_050_220_000, 300_000)),
            headers: vec![
                (
                    "X-Zendesk-Webhook-Signature",
                    base64.encode(sha256(
                        b"dGhpc19zZWNyZXRfaXNfZm9yX3Rlc3Rpbmdfb25seQ==",
                        &[b"2021-03-18T06:50:20Z", &body],
                    )),
                ),
                ("X-Zendesk-Webhook-Signature-Timestamp", "2021-03-18T06:50:20Z".into()),
            ],
            body: body.clone(),
            covered: &["X-Zendesk-Webhook-Signature-Timestamp"],
            ..Signed::default()
        },
        Signed {
            name: "Linear",
            verification: json!({"hmac": merged(hmac_hex("linear-signature"), json!({
                "timestamp": {"field": "body.sent", "unit": "milliseconds", "tolerance": "1m"},
            }))}),
            secret: "lin_wh_Qx7".into(),
            time: Some((1_700_000_000_123, 60_000)),
            headers: vec![("Linear-Signature", hex::encode(sha256(b"lin_wh_Qx7", &[&body])))],
            body: body.clone(),
            ..Signed::default()
        },
        Signed {
            name: "Airtable",
            verification: json!({"hmac": merged(hmac_hex("x-airtable-content-mac"), json!({
                "prefix": "hmac-sha256=", "key": {"encoding": "base64"},
            }))}),
            secret: base64.encode([9; 32]),
            other_secret: "AAAA",
            headers: vec![(
                "X-Airtable-Content-MAC",
                format!("hmac-sha256={}", hex::encode(sha256(&[9; 32], &[&body]))),
            )],
            body: body.clone(),
            ..Signed::default()
        },
        Signed {
            name: "Mailgun, which does not sign the body",
            verification: json!({"hmac": {
                "field": "body.signature.signature", "algorithm": "sha256", "encoding": "hex",
                "signed": [{"timestamp": {}}, {"expression": "body.signature.token"}],
                "timestamp": {"field": "body.signature.timestamp"},
            }}),
            secret: "key-3ax6xnjp29jd6".into(),
            time: Some((1_529_006_854_000, 300_000)),
            body: format!(
                r#"{{"signature":{{"timestamp":"1529006854","token":"a8ce0edb2dd8","signature":"{}"}}}}"#,
                hex::encode(sha256(b"key-3ax6xnjp29jd6", &[b"1529006854a8ce0edb2dd8"]))
            )
            .into_bytes(),
            covers_body: false,
            ..Signed::default()
        },
        trello("Trello", "https://hooks.example.com/hooks/abc", "https://hooks.example.com/hooks/abc"),
        trello(
            "Trello with the port",
            "https://hooks.example.com/hooks/abc",
            "https://hooks.example.com:443/hooks/abc",
        ),
        trello("Trello without it", "https://hooks.example.com:8443/hooks/abc", "https://hooks.example.com/hooks/abc"),
        Signed {
            name: "Gitea's forms, in which the JSON is signed",
            verification: json!({"hmac": merged(hmac_hex("x-gitea-signature"), json!({
                "signed": [{"formField": "payload"}],
            }))}),
            secret: "gt-0c77".into(),
            headers: vec![("X-Gitea-Signature", hex::encode(sha256(b"gt-0c77", &[br#"{"ref":"x"}"#])))],
            body: b"payload=%7B%22ref%22%3A%22x%22%7D".to_vec(),
            ..Signed::default()
        },
        Signed {
            name: "a list with spaces, a hexadecimal key, and a parameter of the query",
            verification: json!({"hmac": merged(hmac_hex("x-signature"), json!({
                "list": {"separator": " "}, "key": {"encoding": "hex"},
                "signed": [{"query": "id"}, {"literal": "."}, {"body": {}}],
            }))}),
            secret: hex::encode([9; 32]),
            other_secret: "0a0b",
            query: "id=a%2Bb&other=1".into(),
            headers: vec![(
                "X-Signature",
                format!("{} {}", "00".repeat(32), hex::encode(sha256(&[9; 32], &[b"a+b.", &body]))),
            )],
            body: body.clone(),
            ..Signed::default()
        },
        Signed {
            name: "Discord",
            verification: json!({"publicKey": {
                "header": "x-signature-ed25519", "algorithm": "ed25519", "encoding": "hex", "keyEncoding": "hex",
                "signed": [{"timestamp": {}}, {"body": {}}],
                "timestamp": {"header": "x-signature-timestamp"},
            }}),
            secret: hex::encode(public),
            other_secret: "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            time: Some((1_700_000_000_000, 300_000)),
            headers: vec![
                ("X-Signature-Ed25519", hex::encode(pair.sign(&[b"1700000000", body.as_slice()].concat()))),
                ("X-Signature-Timestamp", "1700000000".into()),
            ],
            body: body.clone(),
            covered: &["X-Signature-Timestamp"],
            ..Signed::default()
        },
        Signed {
            name: "Standard Webhooks v1a, with headers of Svix",
            verification: json!({"standardWebhooks": {"headerPrefix": "svix", "tolerance": "10s"}}),
            secret: format!("whpk_{}", base64.encode(public)),
            other_secret: "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            time: Some((1_700_000_000_000, 10_000)),
            headers: vec![
                ("svix-id", "msg_1".into()),
                ("svix-timestamp", "1700000000".into()),
                (
                    "svix-signature",
                    format!(
                        "v2,bm90IGtub3duIHlldA== v1a,{}",
                        base64.encode(pair.sign(&[b"msg_1.1700000000.", body.as_slice()].concat()))
                    ),
                ),
            ],
            body,
            covered: &["svix-id", "svix-timestamp"],
            ..Signed::default()
        },
    ]
}

#[test]
fn signed_requests_are_accepted_and_nothing_else() {
    for mut signed in published().into_iter().chain(made()) {
        let (plugin, name) = (signed.plugin(), signed.name);
        assert_eq!(signed.verify(&plugin), Ok(()), "{name}");

        let time = signed.time.map_or(0, |(time, _)| time);
        let refusal = signed.verify_at(&plugin, time, signed.other_secret).unwrap_err();
        assert!(matches!(refusal.label(), "mismatch" | "unusable_secret"), "{name}: {refusal}");
        assert_eq!(signed.verify_at(&plugin, time, "").unwrap_err().label(), "no_secret", "{name}");
        if let Some((time, tolerance)) = signed.time {
            for ok in [time - tolerance, time + tolerance] {
                assert_eq!(signed.verify_at(&plugin, ok, &signed.secret), Ok(()), "{name}");
            }
            for late in [time - tolerance - 1000, time + tolerance + 1000, 0, i64::MAX, i64::MIN] {
                assert_eq!(signed.verify_at(&plugin, late, &signed.secret).unwrap_err().label(), "stale", "{name}");
            }
        }
        if let Some(url) = signed.url {
            signed.url = Some("https://elsewhere.example.com");
            assert_eq!(signed.verify(&plugin).unwrap_err().label(), "mismatch", "{name}");
            signed.url = None;
            assert_eq!(signed.verify(&plugin).unwrap_err().label(), "no_url", "{name}");
            signed.url = Some(url);
        }

        for at in 0..if signed.covers_body { signed.body.len() } else { 0 } {
            let byte = std::mem::replace(&mut signed.body[at], b'~');
            assert!(byte == b'~' || signed.verify(&plugin).is_err(), "{name}: byte {at} of the body");
            signed.body[at] = byte;
        }
        for header in 0..signed.headers.len() {
            let (header_name, value) = signed.headers[header].clone();
            let is_signature =
                header_name.to_ascii_lowercase().contains("signature") && !header_name.contains("imestamp");
            if is_signature || signed.covered.contains(&header_name) {
                signed.headers.remove(header);
                assert_eq!(signed.verify(&plugin).unwrap_err().label(), "missing", "{name}: without {header_name}");
                signed.headers.insert(header, (header_name, value.clone()));
                signed.headers.push((header_name, value.clone()));
                assert_eq!(signed.verify(&plugin).unwrap_err().label(), "repeated", "{name}: {header_name} twice");
                signed.headers.pop();
            }
            for at in 0..if signed.covered.contains(&header_name) { value.len() } else { 0 } {
                let changed: String =
                    value.char_indices().map(|(place, char)| if place == at { '~' } else { char }).collect();
                signed.headers[header].1 = changed;
                assert!(signed.verify(&plugin).is_err(), "{name}: byte {at} of {header_name}");
            }
            signed.headers[header].1 = value;
        }
        assert_eq!(signed.verify(&plugin), Ok(()), "{name}: unchanged again");
    }
}

#[test]
fn tokens_stand_in_headers_queries_bodies_and_basic_credentials() {
    let verify = |token: Value, query: &str, pairs: &[(&str, &str)], body: &str| {
        let plugin = compile(with("/callback/verification", json!([{"token": token}]))).unwrap();
        let headers = headers(pairs);
        plugin.verify(&CallbackRequest::stored("POST", query, &headers, body.as_bytes()), &["s:3cr+t".into()])
    };
    let query = || json!({"query": "key"});
    assert_eq!(verify(query(), "a=1&key=s%3A3cr%2Bt", &[], ""), Ok(()));
    assert_eq!(verify(query(), "key=s%3A3cr+t", &[], "").unwrap_err().label(), "mismatch");
    assert_eq!(verify(query(), "key=s%3A3cr%2Bt&key=s%3A3cr%2Bt", &[], "").unwrap_err().label(), "repeated");
    assert_eq!(verify(query(), "", &[], "").unwrap_err().label(), "missing");
    assert_eq!(verify(query(), "key=", &[], "").unwrap_err().label(), "malformed");
    let field = || json!({"field": "body.value[0].clientState"});
    assert_eq!(verify(field(), "", &[], r#"{"value":[{"clientState":"s:3cr+t"}]}"#), Ok(()));
    for (body, label) in [
        (r#"{"value":[{"clientState":"other"}]}"#, "mismatch"),
        (r#"{"value":[{"clientState":""}]}"#, "malformed"),
        (r#"{"value":[{"clientState":null}]}"#, "malformed"),
        (r#"{"value":[{"clientState":{"s:3cr+t":1}}]}"#, "malformed"),
        (r#"{"value":[]}"#, "missing"),
        ("", "missing"),
        ("{", "missing"),
    ] {
        assert_eq!(verify(field(), "", &[], body).unwrap_err().label(), label, "{body}");
    }
    let basic = || json!({"header": "authorization", "basic": true});
    // user:s:3cr+t
    assert_eq!(verify(basic(), "", &[("authorization", "Basic dXNlcjpzOjNjcit0")], ""), Ok(()));
    assert_eq!(verify(basic(), "", &[("authorization", "basic dXNlcjpzOjNjcit0")], ""), Ok(()));
    for (value, label) in [
        ("Bearer dXNlcjpzOjNjcit0", "malformed"),
        ("Basic !", "malformed"),
        ("Basic dXNlcg==", "malformed"),
        ("Basic dXNlcjo=", "malformed"),
        ("Basic dXNlcjpzOjNjci10", "mismatch"),
    ] {
        assert_eq!(verify(basic(), "", &[("authorization", value)], "").unwrap_err().label(), label, "{value}");
    }
}

#[test]
fn mistakes_in_verifications_are_named() {
    let hmac = || json!({"header": "x-sig", "algorithm": "sha256", "encoding": "hex"});
    for (verification, expected) in [
        (
            json!({"hmac": {"algorithm": "sha256", "encoding": "hex"}}),
            "[0].hmac: set exactly one of header, query and field",
        ),
        (json!({"token": {"header": "x", "query": "y"}}), "[0].token: set exactly one of header, query and field"),
        (json!({"token": {"header": "a b"}}), "[0].token.header: \"a b\" is no header name"),
        (json!({"token": {"field": "body."}}), "[0].token.field: "),
        (json!({"token": {"header": "x", "prefix": "Basic ", "basic": true}}), "[0].token.prefix: `basic` says"),
        (json!({"standardWebhooks": {"headerPrefix": "ä"}}), "[0].standardWebhooks.headerPrefix: "),
        (json!({"hmac": merged(hmac(), json!({"signed": []}))}), "[0].hmac.signed: is empty"),
        (
            json!({"hmac": merged(hmac(), json!({"signed": [{"timestamp": {}}]}))}),
            "[0].hmac.signed[0].timestamp: there is no",
        ),
        (
            json!({"hmac": merged(hmac(), json!({"signed": [{"body": {}}, {"expression": "bodi.x"}]}))}),
            "[0].hmac.signed[1].expression: ",
        ),
        (
            json!({"hmac": merged(hmac(), json!({"timestamp": {"element": "t"}}))}),
            "[0].hmac.timestamp.element: the signature is no list",
        ),
        (json!({"hmac": merged(hmac(), json!({"timestamp": {}}))}), "[0].hmac.timestamp: set exactly one of"),
        (json!({"hmac": merged(hmac(), json!({"signed": [{"url": {}}]}))}), "[0].hmac.signed: is the same for every"),
        // An expression is no cover: it can look at what is not signed.
        (
            json!({"hmac": merged(hmac(), json!({"timestamp": {"field": "request.headers['x-time']"}}))}),
            "[0].hmac.signed: does not cover the timestamp",
        ),
        (
            json!({"hmac": merged(hmac(), json!({"signed": [{"header": "x-id"}], "timestamp": {"field": "body.at"}}))}),
            "[0].hmac.signed: does not cover the timestamp",
        ),
    ] {
        let mistakes = compile(with("/callback/verification", json!([verification]))).unwrap_err();
        let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let expected = format!("spec.callback.verification{expected}");
        assert!(lines.iter().any(|line| line.starts_with(&expected)), "{expected} in {lines:?}");
    }
    let beside = json!([{"none": {}}, {"hmac": hmac()}]);
    let mistakes = compile(with("/callback/verification", beside)).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert_eq!(mistakes[0].field, "spec.callback.verification[0].none");
}

/// That a field is there twice counts to Twilio only where its values differ.
#[test]
fn a_field_that_is_there_twice_is_signed_once() {
    use hmac::Mac as _;
    let mut mac = <hmac::Hmac<sha1::Sha1> as hmac::KeyInit>::new_from_slice(b"12345").unwrap();
    mac.update(b"https://mycompany.com/myapp.phpMediaaMediabSid1");
    let code = hex::encode(mac.finalize().into_bytes());
    let plugin = compile(with(
        "/callback/verification",
        json!([{"hmac": {"header": "x-signature", "algorithm": "sha1", "encoding": "hex",
            "signed": [{"urlWithQuery": {}}, {"sortedForm": {}}]}}]),
    ))
    .unwrap();
    let verify = |body: &str| {
        let headers = headers(&[("x-signature", &code), ("content-type", "application/x-www-form-urlencoded")]);
        let request = CallbackRequest::stored("POST", "", &headers, body.as_bytes());
        plugin.verify(&request.registered(Some("https://mycompany.com/myapp.php")), &["12345".into()])
    };
    assert_eq!(verify("Sid=1&Media=b&Media=a"), Ok(()));
    assert_eq!(verify("Media=a&Sid=1&Media=b&Media=a"), Ok(()));
    assert_eq!(verify("Media=a&Sid=1").unwrap_err().label(), "mismatch");
}

#[test]
fn what_takes_a_large_body_apart_is_refused_before_its_sender_is_proven_and_the_raw_body_is_not() {
    const LARGEST: usize = 512 * 1024;
    let verify = |verification: Value, content_type: &str, body: &[u8]| {
        let plugin = compile(with("/callback/verification", json!([verification]))).unwrap();
        let mac = hmac_of(body);
        let headers = [("x-mac".to_owned(), mac), ("content-type".to_owned(), content_type.to_owned())];
        let request = CallbackRequest::stored("POST", "", &headers, body);
        plugin.verify(&request.at(0), &[Secret::from("hunter2")])
    };
    let raw = || json!({"hmac": hmac_hex("x-mac")});
    let token = || json!({"token": {"field": "body.token"}});
    let header = || json!({"token": {"field": "request.headers['content-type']"}});
    let sorted = || json!({"hmac": merged(hmac_hex("x-mac"), json!({"signed": [{"sortedForm": {}}]}))});
    let body = |size: usize| {
        let start = r#"{"token":"hunter2","fill":""#;
        format!("{start}{}\"}}", "x".repeat(size - start.len() - 2))
    };
    for size in [LARGEST, LARGEST + 1, 4 * LARGEST] {
        assert_eq!(verify(raw(), "application/json", body(size).as_bytes()), Ok(()), "{size}");
    }
    assert_eq!(verify(token(), "application/json", body(LARGEST).as_bytes()), Ok(()));
    let refused = verify(token(), "application/json", body(LARGEST + 1).as_bytes()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "`body.token` is in the body, which has 524289 bytes; before its sender is proven, at most 524288 are read"
    );
    // A time in the body is read when the signature has proven all of it, and not before.
    let sent = json!({"timestamp": {"field": "body.sent", "unit": "milliseconds", "tolerance": "1m"}});
    let timed =
        |signed: Value| json!({"hmac": merged(merged(hmac_hex("x-mac"), sent.clone()), json!({"signed": signed}))});
    let at = |time: i64, size: usize| {
        let start = format!(r#"{{"sent":{time},"fill":""#);
        format!("{start}{}\"}}", "x".repeat(size - start.len() - 2))
    };
    let raw_body = || timed(json!([{"body": {}}]));
    for size in [LARGEST, LARGEST + 1, 4 * LARGEST] {
        assert_eq!(verify(raw_body(), "application/json", at(59_000, size).as_bytes()), Ok(()), "{size}");
        let stale = verify(raw_body(), "application/json", at(61_000, size).as_bytes()).unwrap_err();
        assert_eq!(stale.label(), "stale", "{size}");
        let timeless = verify(raw_body(), "application/json", body(size).as_bytes()).unwrap_err();
        assert_eq!(timeless.label(), "missing", "{size}");
    }
    let over_time = || timed(json!([{"timestamp": {}}, {"body": {}}]));
    let refused = verify(over_time(), "application/json", at(0, LARGEST + 1).as_bytes()).unwrap_err();
    assert_eq!(refused.label(), "too_large");
    let plugin = compile(with("/callback/verification", json!([raw_body()]))).unwrap();
    let (large, headers) = (at(0, LARGEST + 1), [("x-mac".to_owned(), hmac_of(b"another"))]);
    let request = CallbackRequest::stored("POST", "", &headers, large.as_bytes());
    assert_eq!(plugin.verify(&request.at(0), &[Secret::from("hunter2")]).unwrap_err().label(), "mismatch");
    // What is not in the body can be read.
    assert_eq!(verify(header(), "hunter2", body(LARGEST + 1).as_bytes()), Ok(()));
    let form = "a".repeat(LARGEST);
    assert_eq!(verify(sorted(), "application/x-www-form-urlencoded", form.as_bytes()), Ok(()));
    let refused = verify(sorted(), "application/x-www-form-urlencoded", format!("{form}b").as_bytes());
    assert_eq!(refused.unwrap_err().label(), "too_large");
}

fn hmac_of(body: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"hunter2").unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}
