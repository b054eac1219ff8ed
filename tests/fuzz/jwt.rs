//! Tokens: the key decides the algorithm, and every claim counts.

use super::schemes::{TIME, hs256, p256};
use super::{Sent, header_bytes, hold, plugin};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

const SECRET: &str = "q7Zk2Lw9Vt4Xb8Rm";

fn carrying(token: impl Into<Vec<u8>>) -> Sent {
    Sent { headers: vec![("x-sig", token.into())], ..Sent::default() }
}

/// JSON of any kind, small.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(Value::from))
}

/// A field that is not there, has one of these values, has them in a list, or has any.
fn field(likely: Vec<Value>) -> impl Strategy<Value = Option<Value>> {
    let likely = proptest::sample::select(likely);
    prop_oneof![
        2 => Just(None),
        6 => likely.clone().prop_map(Some),
        1 => (likely, values()).prop_map(|(one, other)| Some(json!([other, one]))),
        1 => values().prop_map(Some),
    ]
}

/// Times around now, also those at which it turns.
fn times() -> impl Strategy<Value = Option<Value>> {
    let near = (-200_i64..=200).prop_map(|seconds| Some(json!(TIME + seconds)));
    let turns = [-120, -60, 0, 60, 120].into_iter().flat_map(|turn| [turn - 1, turn, turn + 1]);
    prop_oneof![1 => near, 4 => field(turns.map(|seconds| json!(TIME + seconds)).collect())]
}

/// What is right, most of the time: a token is good only if all of it is.
fn mostly(
    right: Option<Value>,
    other: impl Strategy<Value = Option<Value>> + 'static,
) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![4 => Just(right), 1 => other]
}

fn object(fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(fields.collect())
}

/// What a plugin asks of a token besides its issuer.
const ASKED: [&str; 4] = [
    r#"{}"#,
    r#"{"audience": {"oneOf": ["us"]}}"#,
    r#"{"maxAge": "1m"}"#,
    r#"{"claims": {"hash": {"bodySHA256": "hex"}}}"#,
];

/// Whether a token is good, as docs/plugins.md says; with a tolerance of a minute, and an empty body.
fn is_good(asked: &Value, header: &Value, claims: &Value) -> bool {
    let is = |name: &str, text: &str| {
        let values = claims.get(name).map(|value| value.as_array().cloned().unwrap_or(vec![value.clone()]));
        values.is_some_and(|values| values.iter().any(|value| value == text))
    };
    // What is no number is no time.
    let time = |name: &str| claims.get(name).map_or(Some(None), |value| value.as_f64().map(Some));
    let (Some(expires), Some(begins), Some(issued)) = (time("exp"), time("nbf"), time("iat")) else { return false };
    let now = TIME as f64;
    let (has_age, has_hash) = (asked.get("maxAge").is_some(), asked.get("claims").is_some());
    header["alg"] == "HS256"
        && header.get("crit").is_none()
        && header.get("kid").is_none_or(Value::is_string)
        && is("iss", "me")
        && if asked.get("audience").is_some() { is("aud", "us") } else { claims.get("aud").is_none() }
        && expires.map_or(has_age || has_hash, |expires| now < expires + 60.0)
        && begins.is_none_or(|begins| now >= begins - 60.0)
        && issued.is_none_or(|issued| now >= issued - 60.0)
        && (!has_age || issued.is_some_and(|issued| now - issued <= 120.0))
        && (!has_hash || is("hash", EMPTY))
}

/// The SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A token with any header and any claims is accepted exactly where it is good.
#[test]
fn jwt_claims() {
    let compile = |asked: &str| {
        let asked: Value = serde_json::from_str(asked).unwrap();
        let mut jwt = json!({"header": "x-sig", "algorithms": ["HS256"], "issuer": ["me"], "tolerance": "1m"});
        jwt.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
        (asked, plugin(json!({"verification": [{"jwt": jwt}]})))
    };
    let plugins = ASKED.map(compile);
    let text = |text: &str| field(vec![json!(text)]);
    let algorithms = ["none", "hs256", "HS512", "RS256"].map(Value::from).to_vec();
    let header = (
        mostly(Some(json!("HS256")), field(algorithms)),
        mostly(None, text("k")),
        mostly(None, field(vec![json!(["exp"])])),
        mostly(None, field(vec![json!({"kty": "oct"})])),
    );
    let header =
        header.prop_map(|(alg, kid, crit, jwk)| object([("alg", alg), ("kid", kid), ("crit", crit), ("jwk", jwk)]));
    let ends = prop_oneof![Just(None), Just(Some(json!(TIME + 30))), times()];
    let claims = (
        mostly(Some(json!("me")), text("me")),
        text("us"),
        ends,
        mostly(None, times()),
        mostly(Some(json!(TIME)), times()),
        mostly(Some(json!(EMPTY)), text(EMPTY)),
    );
    let claims = claims.prop_map(|(iss, aud, exp, nbf, iat, hash)| {
        object([("iss", iss), ("aud", aud), ("exp", exp), ("nbf", nbf), ("iat", iat), ("hash", hash)])
    });
    let cases = (0..plugins.len(), header, claims);
    hold("tests/fuzz/regressions/claims.txt", &cases, |(number, header, claims)| {
        let (asked, plugin) = &plugins[number];
        let sent = carrying(hs256(SECRET, &header, &claims));
        let accepted = sent.is_accepted(plugin, TIME * 1000, SECRET);
        // Times so far away are none: more than thirty thousand years.
        let far = |name: &str| claims[name].as_f64().is_some_and(|time| time.abs() >= 1e12);
        prop_assume!(!["exp", "nbf", "iat"].into_iter().any(far) || accepted);
        prop_assert_eq!(accepted, is_good(asked, &header, &claims), "{} for {}", claims, asked);
        prop_assert!(!sent.is_accepted(plugin, TIME * 1000, "another"));
        Ok(())
    });
}

/// With a public key, what is not signed by the private one is refused: also if the public key is the key of an HMAC.
#[test]
fn jwt_public_key() {
    let (private, point) = p256(&[0; 32]);
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": coordinate(1..33), "y": coordinate(33..65)}]});
    let plugin = plugin(json!({"verification": [{"jwt": {
        "header": "x-sig", "algorithms": ["ES256"], "audience": {"oneOf": ["us"]}, "keys": {"jwks": jwks}}}]}));
    let random = SystemRandom::new();
    let pair = |key: &[u8]| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random).unwrap();
    let (pair, other) = (pair(private), pair(p256(&[0xff; 32]).0));
    let claims = (field(vec![json!("me")]), field(vec![json!("me")]), field(vec![json!(1)]));
    let claims = claims.prop_map(|(iss, sub, x)| object([("iss", iss), ("sub", sub), ("x", x)]));
    let cases = (claims, any::<prop::sample::Index>(), 1_u8..=255, header_bytes());
    hold("tests/fuzz/regressions/public_key.txt", &cases, |(mut claims, at, difference, noise)| {
        claims["exp"] = json!(TIME + 30);
        claims["aud"] = json!("us");
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": "ES256", "kid": "k"})), encode(&claims));
        let sign = |pair: &EcdsaKeyPair| {
            let signature = pair.sign(&random, signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
        };
        let token = sign(&pair);
        let accepted = |token: Vec<u8>| carrying(token).is_accepted(&plugin, TIME * 1000, "");
        prop_assert!(accepted(token.clone().into_bytes()), "{token}");
        let mut changed = token.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] ^= difference;
        prop_assert!(!accepted(changed), "one byte changed at {at} of {token}");
        prop_assert!(!accepted(sign(&other).into_bytes()), "signed with another key");
        let unsigned = format!("{signed}.").into_bytes();
        prop_assert!(!accepted(unsigned));
        for key in [point, b"", SECRET.as_bytes()] {
            let forged = hs256(&String::from_utf8_lossy(key), &json!({"alg": "HS256", "kid": "k"}), &claims);
            prop_assert!(!accepted(forged.into_bytes()));
        }
        prop_assert!(!accepted(noise));
        Ok(())
    });
}
