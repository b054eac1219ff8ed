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
        (TIME - 400..TIME + 400).prop_map(Value::from),
        prop_oneof![Just("me".to_owned()), Just("HS256".to_owned()), Just("none".to_owned()), ".{0,8}".boxed()]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(Value::from))
}

fn objects(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    proptest::collection::vec((proptest::sample::select(names), values()), 0..6)
        .prop_map(|fields| Value::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

/// A signed token with any claims is accepted only where the claims are right, and never panics.
#[test]
fn jwt_claims() {
    let plugin = plugin(json!({"verification": [{"jwt": {
        "header": "x-sig", "algorithms": ["HS256"], "issuer": ["me"], "tolerance": "1m"}}]}));
    let cases = (objects(&["alg", "kid", "crit", "typ", "jwk"]), objects(&["iss", "aud", "exp", "nbf", "iat", "sub"]));
    hold("tests/fuzz/regressions/claims.txt", &cases, |(mut header, mut claims)| {
        let sent = carrying(hs256(SECRET, &header, &claims));
        if sent.is_accepted(&plugin, TIME * 1000, SECRET) {
            prop_assert_eq!(&header["alg"], "HS256");
            prop_assert!(header.get("crit").is_none());
            prop_assert_eq!(&claims["iss"], "me");
            let number = |name: &str| claims[name].as_f64();
            prop_assert!(number("exp").is_none_or(|end| end > (TIME - 61) as f64), "{}", claims);
            prop_assert!(number("nbf").is_none_or(|begin| begin < (TIME + 61) as f64), "{}", claims);
        }
        // The right ones are accepted, whatever else is there.
        header = json!({"alg": "HS256", "typ": header["typ"]});
        claims["iss"] = json!("me");
        for name in ["exp", "nbf", "iat", "aud"] {
            claims.as_object_mut().unwrap().remove(name);
        }
        claims["exp"] = json!(TIME + 30);
        let sent = carrying(hs256(SECRET, &header, &claims));
        prop_assert!(sent.is_accepted(&plugin, TIME * 1000, SECRET), "{header} {claims}");
        prop_assert!(!sent.is_accepted(&plugin, TIME * 1000, "another"));
        Ok(())
    });
}

/// With a public key, what is not signed by the private one is refused: also if the public key is the key of an HMAC.
#[test]
fn jwt_public_key() {
    let (private, point) = p256();
    let coordinate = |range: std::ops::Range<usize>| URL_SAFE_NO_PAD.encode(&point[range]);
    let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "x": coordinate(1..33), "y": coordinate(33..65)}]});
    let plugin = plugin(json!({"verification": [{"jwt": {
        "header": "x-sig", "algorithms": ["ES256"], "audience": {"oneOf": ["us"]}, "keys": {"jwks": jwks}}}]}));
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private, &random).unwrap();
    let cases = (objects(&["iss", "sub", "x"]), any::<prop::sample::Index>(), 1_u8..=255, header_bytes());
    hold("tests/fuzz/regressions/public_key.txt", &cases, |(mut claims, at, difference, noise)| {
        claims["exp"] = json!(TIME + 30);
        claims["aud"] = json!("us");
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", encode(&json!({"alg": "ES256", "kid": "k"})), encode(&claims));
        let signature = pair.sign(&random, signed.as_bytes()).unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
        let accepted = |token: Vec<u8>| carrying(token).is_accepted(&plugin, TIME * 1000, "");
        prop_assert!(accepted(token.clone().into_bytes()), "{token}");
        let mut changed = token.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] ^= difference;
        prop_assert!(!accepted(changed), "one byte changed at {at} of {token}");
        let unsigned = format!("{signed}.").into_bytes();
        prop_assert!(!accepted(unsigned));
        for key in [point.as_slice(), b"", SECRET.as_bytes()] {
            let forged = hs256(&String::from_utf8_lossy(key), &json!({"alg": "HS256", "kid": "k"}), &claims);
            prop_assert!(!accepted(forged.into_bytes()));
        }
        prop_assert!(!accepted(noise));
        Ok(())
    });
}
