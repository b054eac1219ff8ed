//! Signers of every scheme, made of `ring` and the encodings alone: nothing of Bellhop has a part in what they sign.

use super::{Sent, URL};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use ring::{digest, hmac};
use serde_json::{Value, json};
use url::form_urlencoded;

/// When everything is sent, in Unix seconds.
pub const TIME: i64 = 1_700_000_000;

/// What is to be signed.
#[derive(Clone, Debug)]
pub struct Message {
    pub body: Vec<u8>,
    pub query: String,
    pub id: String,
}

/// A way of signing.
pub struct Scheme {
    pub name: &'static str,
    /// What a plugin says of it.
    pub verification: Value,
    /// The callback secret that belongs to a seed.
    pub secret: fn(&[u8; 32]) -> String,
    /// Signs with the key that belongs to the seed.
    pub sign: fn(&[u8; 32], &Message) -> Sent,
    /// Headers that are covered, or carry the signature.
    pub headers: &'static [&'static str],
    pub covers_body: bool,
    pub covers_query: bool,
    /// What is the same for requests that mean the same to the signature, where that is not each byte.
    pub meaning: fn(&Sent) -> Sent,
}

fn text_secret(seed: &[u8; 32]) -> String {
    hex::encode(seed)
}

fn mac(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = hmac::Key::new(algorithm, key);
    let mut context = hmac::Context::with_key(&key);
    parts.iter().for_each(|part| context.update(part));
    context.sign().as_ref().to_vec()
}

fn ed25519(seed: &[u8; 32]) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes")
}

/// One of two EC keys, as PKCS#8, and its point: `ring` makes none from a seed, so the seed's first bit says which.
pub fn p256(seed: &[u8; 32]) -> (&'static [u8], &'static [u8]) {
    static KEYS: std::sync::OnceLock<[(Vec<u8>, Vec<u8>); 2]> = std::sync::OnceLock::new();
    let make = || {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("a key");
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).expect("a key");
        (document.as_ref().to_vec(), pair.public_key().as_ref().to_vec())
    };
    let (key, point) = &KEYS.get_or_init(|| [make(), make()])[usize::from(seed[0] >> 7)];
    (key, point)
}

fn spki(point: &[u8]) -> Vec<u8> {
    let head = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").expect("hexadecimal");
    [head.as_slice(), point].concat()
}

fn sent(message: &Message, headers: Vec<(&'static str, String)>) -> Sent {
    let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    Sent { query: message.query.clone(), headers, body: message.body.clone() }
}

/// The schemes that sign with a secret or a private key.
pub fn all() -> Vec<Scheme> {
    let scheme = |name, verification, sign| Scheme {
        name,
        verification,
        secret: text_secret,
        sign,
        headers: &["x-sig"],
        covers_body: true,
        covers_query: false,
        meaning: Sent::clone,
    };
    vec![
        Scheme {
            meaning: |sent| each_header(sent, lower_digest),
            ..scheme(
                "HMAC SHA-256, hexadecimal, with a prefix",
                json!({"hmac": {"header": "x-sig", "algorithm": "sha256", "encoding": "hex", "prefix": "sha256="}}),
                |seed, m| {
                    let code = mac(hmac::HMAC_SHA256, text_secret(seed).as_bytes(), &[&m.body]);
                    sent(m, vec![("x-sig", format!("sha256={}", hex::encode(code)))])
                },
            )
        },
        Scheme {
            headers: &["x-sig", "x-time", "x-id"],
            meaning: |sent| each_header(sent, without_padding),
            ..scheme(
                "HMAC SHA-512 over time, a header and the body, base64url",
                json!({"hmac": {"header": "x-sig", "algorithm": "sha512", "encoding": "base64url",
                    "signed": [{"timestamp": {}}, {"literal": "."}, {"header": "x-id"}, {"literal": "."}, {"body": {}}],
                    "timestamp": {"header": "x-time", "unit": "milliseconds", "tolerance": "5m"}}}),
                |seed, m| {
                    let time = (TIME * 1000 + 7).to_string();
                    let parts: [&[u8]; 5] = [time.as_bytes(), b".", m.id.as_bytes(), b".", &m.body];
                    let code = mac(hmac::HMAC_SHA512, text_secret(seed).as_bytes(), &parts);
                    sent(
                        m,
                        vec![("x-sig", URL_SAFE_NO_PAD.encode(code)), ("x-time", time.clone()), ("x-id", m.id.clone())],
                    )
                },
            )
        },
        Scheme {
            covers_query: true,
            ..scheme(
                "HMAC SHA-1 over method, URL, query and body, base64",
                json!({"hmac": {"header": "x-sig", "algorithm": "sha1", "encoding": "base64",
                    "signed": [{"method": {}}, {"urlWithQuery": {}}, {"body": {}}]}}),
                |seed, m| {
                    let url = if m.query.is_empty() { URL.to_owned() } else { format!("{URL}?{}", m.query) };
                    let code = mac(
                        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                        text_secret(seed).as_bytes(),
                        &[b"POST", url.as_bytes(), &m.body],
                    );
                    sent(m, vec![("x-sig", STANDARD.encode(code))])
                },
            )
        },
        Scheme {
            meaning: |sent| each_header(sent, |text| entries(&lower_digest(text), ",")),
            ..scheme(
                "HMAC in a list with its time",
                json!({"hmac": {"header": "x-sig", "algorithm": "sha256", "encoding": "hex",
                    "list": {"separator": ",", "key": "v1"},
                    "signed": [{"timestamp": {}}, {"literal": "."}, {"body": {}}],
                    "timestamp": {"element": "t", "tolerance": "5m"}}}),
                |seed, m| {
                    let time = TIME.to_string();
                    let code = mac(hmac::HMAC_SHA256, text_secret(seed).as_bytes(), &[time.as_bytes(), b".", &m.body]);
                    sent(m, vec![("x-sig", format!("t={time},v1={}", hex::encode(code)))])
                },
            )
        },
        Scheme {
            meaning: |sent| each_header(sent, |text| entries(text, " ")),
            secret: |seed| format!("key-{}", STANDARD.encode(seed)),
            ..scheme(
                "HMAC in a list of spaces, the key in base64",
                json!({"hmac": {"header": "x-sig", "algorithm": "sha256", "encoding": "base64",
                    "list": {"separator": " ", "key": "v1", "assignment": ","},
                    "key": {"encoding": "base64", "prefix": "key-"}}}),
                |seed, m| {
                    sent(
                        m,
                        vec![("x-sig", format!("v1,{}", STANDARD.encode(mac(hmac::HMAC_SHA256, seed, &[&m.body]))))],
                    )
                },
            )
        },
        Scheme {
            covers_query: true,
            headers: &[],
            meaning: |sent| parameters(sent, &["sig", "nonce"]),
            ..scheme(
                "HMAC in the query over a parameter and the body, the key in hexadecimal",
                json!({"hmac": {"query": "sig", "algorithm": "sha512", "encoding": "hex", "key": {"encoding": "hex"},
                    "signed": [{"query": "nonce"}, {"literal": "."}, {"body": {}}]}}),
                |seed, m| {
                    let code = mac(hmac::HMAC_SHA512, seed, &[m.id.as_bytes(), b".", &m.body]);
                    let mut query = form_urlencoded::Serializer::new(String::new());
                    query.append_pair("nonce", &m.id).append_pair("sig", &hex::encode(code));
                    Sent { query: query.finish(), ..sent(m, vec![]) }
                },
            )
        },
        Scheme {
            headers: &[],
            meaning: |sent| fields(sent, &["/sig/value", "/sig/time", "/sig/token"]),
            ..scheme(
                "HMAC in a field of the body over other fields",
                json!({"hmac": {"field": "body.sig.value", "algorithm": "sha256", "encoding": "hex",
                    "signed": [{"timestamp": {}}, {"expression": "body.sig.token"}],
                    "timestamp": {"field": "body.sig.time", "tolerance": "5m"}}}),
                |seed, m| {
                    let (time, token) = (TIME.to_string(), hex::encode(&m.body));
                    let code =
                        mac(hmac::HMAC_SHA256, text_secret(seed).as_bytes(), &[time.as_bytes(), token.as_bytes()]);
                    let body = json!({"sig": {"value": hex::encode(code), "time": time, "token": token}});
                    Sent { body: body.to_string().into_bytes(), ..sent(m, vec![]) }
                },
            )
        },
        Scheme {
            meaning: |sent| each_header(sent, lower_digest),
            ..scheme(
                "HMAC over a body with its time in it",
                json!({"hmac": {"header": "x-sig", "algorithm": "sha256", "encoding": "hex",
                    "timestamp": {"field": "body.time", "unit": "milliseconds", "tolerance": "5m"}}}),
                |seed, m| {
                    let body = json!({"time": TIME * 1000, "data": hex::encode(&m.body)}).to_string().into_bytes();
                    let code = mac(hmac::HMAC_SHA256, text_secret(seed).as_bytes(), &[&body]);
                    Sent { body, ..sent(m, vec![("x-sig", hex::encode(code))]) }
                },
            )
        },
        Scheme {
            headers: &["webhook-signature", "webhook-id", "webhook-timestamp"],
            secret: |seed| format!("whsec_{}", STANDARD.encode(seed)),
            ..scheme("Standard Webhooks", json!({"standardWebhooks": {}}), |seed, m| {
                let time = TIME.to_string();
                let code = mac(hmac::HMAC_SHA256, seed, &[m.id.as_bytes(), b".", time.as_bytes(), b".", &m.body]);
                standard(m, "v1", &code)
            })
        },
        Scheme {
            headers: &["webhook-signature", "webhook-id", "webhook-timestamp"],
            secret: |seed| format!("whpk_{}", STANDARD.encode(ed25519(seed).public_key())),
            ..scheme("Standard Webhooks with a public key", json!({"standardWebhooks": {}}), |seed, m| {
                let text = [m.id.as_bytes(), b".", TIME.to_string().as_bytes(), b".", &m.body].concat();
                standard(m, "v1a", ed25519(seed).sign(&text).as_ref())
            })
        },
        Scheme {
            headers: &["x-sig", "x-time"],
            secret: |seed| hex::encode(ed25519(seed).public_key()),
            meaning: |sent| each_header(sent, lower_digest),
            ..scheme(
                "Ed25519",
                json!({"publicKey": {"header": "x-sig", "algorithm": "ed25519", "encoding": "hex", "keyEncoding": "hex",
                    "signed": [{"timestamp": {}}, {"body": {}}],
                    "timestamp": {"header": "x-time", "tolerance": "5m"}}}),
                |seed, m| {
                    let text = [TIME.to_string().as_bytes(), m.body.as_slice()].concat();
                    let signature = hex::encode(ed25519(seed).sign(&text));
                    sent(m, vec![("x-sig", signature), ("x-time", TIME.to_string())])
                },
            )
        },
        Scheme {
            secret: |seed| STANDARD.encode(spki(p256(seed).1)),
            ..scheme(
                "ECDSA P-256",
                json!({"publicKey": {"header": "x-sig", "algorithm": "ecdsaP256Sha256", "encoding": "base64",
                    "keyEncoding": "base64", "signed": [{"body": {}}]}}),
                |seed, m| {
                    let random = SystemRandom::new();
                    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, p256(seed).0, &random);
                    let signature = pair.expect("a key").sign(&random, &m.body).expect("a signature");
                    sent(m, vec![("x-sig", STANDARD.encode(signature.as_ref()))])
                },
            )
        },
        Scheme {
            headers: &["x-sig", "x-time"],
            meaning: |sent| each_header(sent, lower_digest),
            ..scheme(
                "HMAC over the body and a time as RFC 3339 writes it",
                json!({"hmac": {"header": "x-sig", "algorithm": "sha256", "encoding": "hex",
                    "signed": [{"body": {}}, {"timestamp": {}}],
                    "timestamp": {"header": "x-time", "unit": "rfc3339", "tolerance": "5m"}}}),
                |seed, m| {
                    let time = "2023-11-14T22:13:20.5Z";
                    let code = mac(hmac::HMAC_SHA256, text_secret(seed).as_bytes(), &[&m.body, time.as_bytes()]);
                    sent(m, vec![("x-sig", hex::encode(code)), ("x-time", time.to_owned())])
                },
            )
        },
        Scheme {
            covers_query: true,
            meaning: |sent| Sent { body: sorted_form(&sent.body), ..sent.clone() },
            ..scheme(
                "HMAC over URL and sorted form",
                json!({"hmac": {"header": "x-sig", "algorithm": "sha1", "encoding": "base64",
                    "signed": [{"urlWithQuery": {}}, {"sortedForm": {}}]}}),
                |seed, m| {
                    let mut form = form_urlencoded::Serializer::new(String::new());
                    for field in m.body.chunks(7) {
                        let (name, value) = field.split_at(field.len() / 3);
                        form.append_pair(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
                    }
                    let body = form.finish().into_bytes();
                    let url = if m.query.is_empty() { URL.to_owned() } else { format!("{URL}?{}", m.query) };
                    let parts = [url.as_bytes(), &sorted_form(&body)];
                    let code = mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, text_secret(seed).as_bytes(), &parts);
                    let kind = ("content-type", "application/x-www-form-urlencoded".to_owned());
                    Sent { body, ..sent(m, vec![("x-sig", STANDARD.encode(code)), kind]) }
                },
            )
        },
        Scheme {
            covers_body: false,
            meaning: |sent| each_header(sent, basic_credentials),
            ..scheme("password", json!({"token": {"header": "x-sig", "basic": true}}), |seed, m| {
                sent(m, vec![("x-sig", format!("Basic {}", STANDARD.encode(format!(":{}", text_secret(seed)))))])
            })
        },
        Scheme {
            covers_body: false,
            ..scheme("token", json!({"token": {"header": "x-sig", "prefix": "Bearer "}}), |seed, m| {
                sent(m, vec![("x-sig", format!("Bearer {}", text_secret(seed)))])
            })
        },
        scheme(
            "JWT with the hash of the body",
            json!({"jwt": {"header": "x-sig", "algorithms": ["HS256"], "claims": {"hash": {"bodySHA256": "hex"}}}}),
            |seed, m| {
                let claims = json!({"iat": TIME, "exp": TIME + 60, "hash": hex::encode(digest::digest(&digest::SHA256, &m.body))});
                sent(m, vec![("x-sig", hs256(&text_secret(seed), &json!({"alg": "HS256"}), &claims))])
            },
        ),
    ]
}

/// The request with each header's text as it is read.
fn each_header(sent: &Sent, read: impl Fn(&str) -> String) -> Sent {
    let mut sent = sent.clone();
    for (_, value) in &mut sent.headers {
        *value = read(&String::from_utf8_lossy(value)).into_bytes();
    }
    sent
}

/// Digits of a digest in hexadecimal may be of either case; what stands around them may not.
fn lower_digest(text: &str) -> String {
    let is_other = |char: char| !char.is_ascii_hexdigit();
    let lower = |part: &str| {
        let (digits, rest) = part.split_at(part.trim_end_matches(is_other).len());
        if digits.len() < 32 { part.to_owned() } else { digits.to_ascii_lowercase() + rest }
    };
    text.split_inclusive(is_other).map(lower).collect()
}

/// Base64 for URLs may have its padding or not.
fn without_padding(text: &str) -> String {
    text.trim_end_matches('=').to_owned()
}

/// A list may have empty entries, and white space around the others.
fn entries(text: &str, separator: &str) -> String {
    text.split(separator).map(str::trim).filter(|entry| !entry.is_empty()).collect::<Vec<_>>().join(separator)
}

/// The scheme's name is read in either case (RFC 7617), with white space behind it, and the user is nobody's concern.
fn basic_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_at_checked(6) else { return text.to_owned() };
    format!("{}{}", scheme.to_ascii_lowercase(), without_padding(rest.trim()))
}

/// Nothing of the query counts but these parameters, each of which must be there once.
fn parameters(sent: &Sent, names: &[&str]) -> Sent {
    let all = form_urlencoded::parse(sent.query.as_bytes()).filter(|(name, _)| names.contains(&name.as_ref()));
    let mut all: Vec<_> = all.map(|(name, value)| (name.into_owned(), lower_digest(&value))).collect();
    all.sort();
    Sent { query: format!("{all:?}"), ..sent.clone() }
}

/// Nothing of the body counts but these fields, if it can be read.
fn fields(sent: &Sent, pointers: &[&str]) -> Sent {
    let Ok(body) = serde_json::from_slice::<Value>(&sent.body) else { return sent.clone() };
    let found = pointers.iter().map(|pointer| body.pointer(pointer).and_then(Value::as_str).map(lower_digest));
    Sent { body: format!("{:?}", found.collect::<Vec<_>>()).into_bytes(), ..sent.clone() }
}

/// Names and values of a form, sorted, each pair once, with nothing in between: so Twilio signs it, and two forms may mean the
/// same to it.
fn sorted_form(body: &[u8]) -> Vec<u8> {
    let mut fields: Vec<_> = form_urlencoded::parse(body).collect();
    fields.sort();
    fields.dedup();
    fields.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()].concat()).collect()
}

fn standard(m: &Message, version: &str, signature: &[u8]) -> Sent {
    let headers = vec![
        ("webhook-signature", format!("{version},{}", STANDARD.encode(signature))),
        ("webhook-id", m.id.clone()),
        ("webhook-timestamp", TIME.to_string()),
    ];
    sent(m, headers)
}

/// A token that is signed with HS256, whatever its header says.
pub fn hs256(secret: &str, header: &Value, claims: &Value) -> String {
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let code = mac(hmac::HMAC_SHA256, secret.as_bytes(), &[signed.as_bytes()]);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(code))
}
