//! JSON Web Tokens: the examples of RFC 7515, Appendix A, are accepted as they are and refused with one byte changed
//! anywhere; keys are never mistaken for each other; claims are held against what is expected.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use std::sync::{Arc, Mutex};

const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const HS256: [&str; 2] = ["eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"];
/// The octets of A.1.1, in base64 as a callback secret has them.
const HS256_KEY: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ+EstJQLr/T+1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow==";
const RS256: [&str; 2] = [
    "eyJhbGciOiJSUzI1NiJ9",
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjb\
     KBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZES\
     c6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
];
const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_Yp\
     RPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxv\
     b3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const ES256: [&str; 2] =
    ["eyJhbGciOiJFUzI1NiJ9", "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"];
/// A second before the examples expire.
const TIME: i64 = 1_300_819_379_000;
const URL: &str = "https://hooks.example.com/hooks/t0ken";

fn rsa_key() -> Value {
    json!({"kty": "RSA", "n": RSA_N, "e": "AQAB"})
}

fn ec_key() -> Value {
    json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    })
}

fn jwt(settings: Value) -> Value {
    let mut jwt = json!({"header": "authorization", "prefix": "Bearer "});
    jwt.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    with("/callback/verification", json!([{ "jwt": jwt }]))
}

fn public(algorithm: &str, keys: Value) -> Value {
    json!({
        "algorithms": [algorithm], "keys": {"jwks": {"keys": keys}}, "issuer": ["jane", "joe"],
        "claims": {"http://example.com/is_root": {"oneOf": ["true"]}}
    })
}

fn secret() -> Value {
    json!({"algorithms": ["HS256"], "key": {"encoding": "base64"}, "issuer": ["joe"]})
}

fn ask(plugin: &Plugin, token: &str, secret: &str, at: i64) -> Result<(), Refusal> {
    let pairs = headers(&[("Authorization", &format!("Bearer {token}"))]);
    let request = CallbackRequest::stored("POST", "", &pairs, b"{}").at(at).registered(Some(URL));
    plugin.verify(&request, &[Secret::from(secret)])
}

fn joined([header, signature]: [&str; 2]) -> String {
    format!("{header}.{PAYLOAD}.{signature}")
}

fn encode(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn hs256(header: &Value, claims: &Value, key: &[u8]) -> String {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let signed = format!("{}.{}", encode(header), encode(claims));
    let mac = Hmac::<sha2::Sha256>::new_from_slice(key).unwrap().chain_update(&signed);
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

/// A key of P-256 with its JWK.
struct Signer(EcdsaKeyPair, Value);

impl Signer {
    fn new(id: &str) -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk =
            json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256", "x": text(x), "y": text(y)});
        Self(pair, jwk)
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[test]
fn the_examples_of_the_rfc_are_accepted_and_nothing_else() {
    for (name, settings, example, key) in [
        ("HS256", secret(), HS256, HS256_KEY),
        ("RS256", public("RS256", json!([rsa_key()])), RS256, ""),
        ("ES256", public("ES256", json!([rsa_key(), ec_key()])), ES256, ""),
    ] {
        let plugin = compile(jwt(settings)).unwrap();
        let token = joined(example);
        assert_eq!(ask(&plugin, &token, key, TIME), Ok(()), "{name}");
        // A minute after it has expired, and not later.
        assert_eq!(ask(&plugin, &token, key, TIME + 60_999), Ok(()), "{name}");
        assert_eq!(ask(&plugin, &token, key, TIME + 61_000).unwrap_err().label(), "stale", "{name}");
        for at in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(ask(&plugin, &changed, key, TIME).is_err(), "{name}: {changed}");
            assert!(ask(&plugin, &token[..at], key, TIME).is_err(), "{name}: cut at {at}");
        }
        let noise = "x".repeat(20_000);
        for wrong in [format!("{token}."), format!(".{token}"), format!(" {token}"), format!("{token}="), noise] {
            assert_eq!(ask(&plugin, &wrong, key, TIME).unwrap_err().label(), "malformed", "{name}: {wrong:.60}");
        }
        for wrong in [format!("{token}A"), String::new(), "..".to_owned(), joined([example[0], ""])] {
            assert!(ask(&plugin, &wrong, key, TIME).is_err(), "{name}: {wrong}");
        }
    }
    let hs = compile(jwt(secret())).unwrap();
    assert_eq!(ask(&hs, &joined(HS256), "b3RoZXI=", TIME).unwrap_err().label(), "mismatch");
    assert_eq!(ask(&hs, &joined(HS256), "", TIME), Err(Refusal::NoSecret));
}

#[test]
fn what_a_token_says_of_its_algorithm_and_key_is_not_believed() {
    let (rsa, ec, hs) = (
        compile(jwt(public("RS256", json!([rsa_key()])))).unwrap(),
        compile(jwt(public("ES256", json!([ec_key()])))).unwrap(),
        compile(jwt(json!({"algorithms": ["HS256"]}))).unwrap(),
    );
    let claims = json!({"iss": "joe", "exp": 4_000_000_000_i64, "http://example.com/is_root": true});
    let none = |algorithm: &str, end: &str| format!("{}.{}.{end}", encode(&json!({"alg": algorithm})), encode(&claims));
    for plugin in [&rsa, &ec, &hs] {
        for algorithm in ["none", "None", "NONE", "", "HS384", "ES384", "PS256", "hs256"] {
            for end in ["", "AA", HS256[1]] {
                assert!(ask(plugin, &none(algorithm, end), "key", TIME).is_err(), "{algorithm}");
            }
        }
        let silent = format!("{}.{}.{}", encode(&json!({"typ": "JWT"})), encode(&claims), HS256[1]);
        assert_eq!(ask(plugin, &silent, "key", TIME).unwrap_err().label(), "malformed");
    }
    // A public key is known to everybody, in each of its forms.
    let modulus = URL_SAFE_NO_PAD.decode(RSA_N.replace(' ', "")).unwrap();
    let set = json!({"keys": [rsa_key()]}).to_string();
    let pem = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----\n";
    for key in [&modulus[..], RSA_N.as_bytes(), set.as_bytes(), rsa_key().to_string().as_bytes(), pem.as_bytes(), b""] {
        for algorithm in ["HS256", "RS256", "ES256"] {
            let forged = hs256(&json!({"alg": algorithm}), &claims, key);
            for plugin in [&rsa, &ec] {
                assert!(ask(plugin, &forged, "", TIME).is_err(), "{algorithm}");
                assert!(ask(plugin, &forged, "secret", TIME).is_err(), "{algorithm}");
            }
        }
    }
    // A token of another algorithm than the one of the plugin, and keys that it brings itself.
    assert!(ask(&rsa, &joined(ES256), "", TIME).is_err() && ask(&ec, &joined(RS256), "", TIME).is_err());
    let own = Signer::new("own");
    for header in
        [json!({"alg": "ES256", "jwk": own.1}), json!({"alg": "ES256", "jku": "https://evil.example", "kid": "own"})]
    {
        assert!(ask(&ec, &own.sign(&header, &claims), "", TIME).is_err());
    }
    // Extensions that must be understood.
    let key = b"key";
    assert_eq!(ask(&hs, &hs256(&json!({"alg": "HS256"}), &claims, key), "key", TIME), Ok(()));
    for header in [json!({"alg": "HS256", "crit": ["b64"], "b64": false}), json!({"alg": "HS256", "kid": 7})] {
        assert_eq!(ask(&hs, &hs256(&header, &claims, key), "key", TIME).unwrap_err().label(), "malformed");
    }
}

#[test]
fn claims_are_held_against_what_is_expected() {
    let check = |settings: Value, claims: Value| {
        let mut all = json!({"algorithms": ["HS256"]});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let plugin = compile(jwt(all)).unwrap();
        ask(&plugin, &hs256(&json!({"alg": "HS256"}), &claims, b"key"), "key", TIME).map_err(|why| why.to_string())
    };
    let now = TIME / 1000;
    let end = now + 100;
    // SHA-256 of {}, by sha256sum
    let hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    for (settings, claims) in [
        (json!({}), json!({"exp": end})),
        (json!({}), json!({"exp": end as f64 + 0.5, "nbf": now, "iat": now + 50})),
        (json!({"maxAge": "5m"}), json!({"iat": now - 350})),
        (json!({"audience": {"url": {}}}), json!({"exp": end, "aud": URL})),
        (json!({"audience": {"url": {}}}), json!({"exp": end, "aud": ["https://other.example", URL]})),
        (json!({"audience": {"oneOf": ["a", "b"]}}), json!({"exp": end, "aud": "b"})),
        (json!({"claims": {"email": {"secret": {}}}}), json!({"exp": end, "email": "key"})),
        (json!({"claims": {"n": {"oneOf": ["7"]}}}), json!({"exp": end, "n": 7})),
        (json!({"claims": {"sha256": {"bodySHA256": "hex"}}}), json!({"sha256": hash})),
    ] {
        assert_eq!(check(settings.clone(), claims.clone()), Ok(()), "{settings} {claims}");
    }
    for (settings, claims, problem) in [
        (json!({}), json!({}), "exp is missing"),
        (json!({}), json!({"exp": now - 61}), "has expired"),
        (json!({}), json!({"exp": "4000000000"}), "exp is not a number"),
        (json!({}), json!({"exp": 1e300}), "exp is not a number"),
        (json!({}), json!({"exp": end, "nbf": now + 61}), "not valid yet"),
        (json!({}), json!({"exp": end, "iat": now + 62}), "from the future"),
        (json!({"maxAge": "5m"}), json!({"exp": end}), "iat is missing"),
        (json!({"maxAge": "5m"}), json!({"iat": now - 361}), "too old"),
        (json!({}), json!({"exp": end, "aud": URL}), "aud names an audience"),
        (json!({"audience": {"url": {}}}), json!({"exp": end}), "aud is missing"),
        (
            json!({"audience": {"url": {}}}),
            json!({"exp": end, "aud": "https://other.example"}),
            "aud is not the callback",
        ),
        (json!({"audience": {"url": {}}}), json!({"exp": end, "aud": []}), "aud is not the callback"),
        (json!({"audience": {"url": {}}}), json!({"exp": end, "aud": {"a": URL}}), "aud is not the callback"),
        (json!({"issuer": ["joe"]}), json!({"exp": end}), "iss is not the issuer"),
        (json!({"issuer": ["joe"]}), json!({"exp": end, "iss": "joey"}), "iss is not the issuer"),
        (
            json!({"claims": {"email": {"secret": {}}}}),
            json!({"exp": end, "email": "ke"}),
            "email is not the callback secret",
        ),
        (
            json!({"claims": {"email": {"secret": {}}}}),
            json!({"exp": end, "email": null}),
            "email is not the callback secret",
        ),
        (json!({"claims": {"v": {"oneOf": ["true"]}}}), json!({"exp": end, "v": false}), "v is not what"),
        (json!({"claims": {"sha256": {"bodySHA256": "hex"}}}), json!({"sha256": "00"}), "sha256 is not the SHA-256"),
        (json!({"claims": {"sha256": {"bodySHA256": "hex"}}}), json!({"exp": end}), "sha256 is missing"),
    ] {
        let refusal = check(settings.clone(), claims.clone()).unwrap_err();
        assert!(refusal.contains(problem), "{settings} {claims}: {refusal}");
    }
}

/// Keys as they were fetched.
#[derive(Default)]
struct Fetched(Mutex<Option<Arc<KeySet>>>, Mutex<Vec<String>>);

impl PublicKeys for Fetched {
    fn keys(&self, url: &str) -> Option<Arc<KeySet>> {
        assert_eq!(url, "https://keys.example/jwks");
        self.0.lock().unwrap().clone()
    }

    fn misses_key(&self, url: &str) {
        self.1.lock().unwrap().push(url.to_owned());
    }
}

#[test]
fn keys_are_those_that_were_fetched_last() {
    let keys = json!({"jwksURL": "https://keys.example/jwks"});
    let settings = json!({"algorithms": ["RS256", "ES256"], "keys": keys, "audience": {"url": {}}});
    let plugin = compile(jwt(settings)).unwrap();
    assert_eq!(plugin.jwks_urls().collect::<Vec<_>>(), ["https://keys.example/jwks"]);
    assert!(plugin.verification_needs_url());
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let claims = json!({"exp": TIME / 1000 + 100, "aud": URL});
    let token = |signer: &Signer, id: &str| signer.sign(&json!({"alg": "ES256", "kid": id}), &claims);
    let fetched = Fetched::default();
    let ask = |token: &str| {
        let pairs = headers(&[("authorization", &format!("Bearer {token}"))]);
        let request = CallbackRequest::stored("POST", "", &pairs, b"{}").at(TIME).registered(Some(URL));
        // The callback secret has no part in it, and need not be there.
        plugin.verify(&request.with_keys(&fetched), &[])
    };
    assert_eq!(ask(&token(&old, "old")), Err(Refusal::NoKeys));
    let publish = |keys: &[&Signer]| {
        let set = json!({"keys": keys.iter().map(|signer| &signer.1).collect::<Vec<_>>()});
        let set = KeySet::read(set.to_string().as_bytes()).unwrap();
        // As it is published.
        let again = KeySet::read(set.to_json().to_string().as_bytes()).unwrap();
        assert!(set == again);
        *fetched.0.lock().unwrap() = Some(Arc::new(set));
    };
    publish(&[&old]);
    assert_eq!(ask(&token(&old, "old")), Ok(()));
    assert!(fetched.1.lock().unwrap().is_empty());
    // The issuer has another key, which is fetched because it is missed.
    assert_eq!(ask(&token(&new, "new")), Err(Refusal::UnknownKey));
    assert_eq!(*fetched.1.lock().unwrap(), ["https://keys.example/jwks"]);
    publish(&[&old, &new]);
    assert_eq!((ask(&token(&old, "old")), ask(&token(&new, "new"))), (Ok(()), Ok(())));
    // A key proves what it has signed, whatever the token says.
    assert_eq!(ask(&token(&old, "new")).unwrap_err().label(), "mismatch");
    // A token without a key id is tried with all.
    assert_eq!(ask(&new.sign(&json!({"alg": "ES256"}), &claims)), Ok(()));
    publish(&[&new]);
    assert_eq!(ask(&token(&old, "old")), Err(Refusal::UnknownKey));
}

#[test]
fn only_public_keys_for_signatures_are_read() {
    let read = |keys: Value| KeySet::read(json!({ "keys": keys }).to_string().as_bytes());
    let merged = |mut key: Value, more: Value| {
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    };
    for key in [
        json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}),
        merged(rsa_key(), json!({"use": "enc"})),
        merged(rsa_key(), json!({"alg": "PS256"})),
        merged(rsa_key(), json!({"alg": "HS256"})),
        merged(rsa_key(), json!({"n": "AQAB"})),
        merged(rsa_key(), json!({"e": ""})),
        merged(ec_key(), json!({"crv": "P-384"})),
        merged(ec_key(), json!({"x": "AQAB"})),
        json!("key"),
    ] {
        assert!(read(json!([key])).unwrap_err().contains("no public key"), "{key}");
    }
    let set =
        read(json!([json!({"kty": "oct", "k": "AA"}), merged(rsa_key(), json!({"d": "AQAB", "kid": "1"}))])).unwrap();
    assert_eq!(set.to_json(), json!({"keys": [merged(rsa_key(), json!({"kid": "1"}))]}));
    for wrong in ["", "[]", "{}", r#"{"keys": {}}"#, r#"{"keys": []}"#] {
        assert!(KeySet::read(wrong.as_bytes()).is_err(), "{wrong}");
    }
    assert!(KeySet::read(&vec![b' '; 300_000]).unwrap_err().contains("larger"));
}

#[test]
fn mistakes_in_tokens_are_named() {
    let keys = json!({"jwks": {"keys": [rsa_key()]}});
    let url = |url: &str| json!({"algorithms": ["RS256"], "audience": {"url": {}}, "keys": {"jwksURL": url}});
    for (settings, field, problem) in [
        (json!({"algorithms": []}), "algorithms", "is empty"),
        (json!({"algorithms": ["HS256", "RS256"], "keys": keys}), "algorithms", "must not be the key of an HMAC"),
        (json!({"algorithms": ["HS256"], "keys": keys}), "keys", "leave `keys` out"),
        (json!({"algorithms": ["RS256"], "audience": {"url": {}}}), "keys", "is missing"),
        (json!({"algorithms": ["RS256"], "keys": keys}), "audience", "made for somebody else"),
        (json!({"algorithms": ["ES256"], "keys": keys, "audience": {"url": {}}}), "keys.jwks", "no key for ES256"),
        (json!({"algorithms": ["RS256"], "keys": {}, "audience": {"url": {}}}), "keys", "exactly one"),
        (
            json!({"algorithms": ["RS256"], "keys": keys, "audience": {"url": {}}, "key": {"encoding": "hex"}}),
            "key",
            "of HS256 alone",
        ),
        (json!({"algorithms": ["HS256"], "claims": {"exp": {"oneOf": ["1"]}}}), "claims.exp", "not looked at here"),
        (json!({"algorithms": ["HS256"], "claims": {"a": {"oneOf": []}}}), "claims.a.oneOf", "1 to 20"),
        (json!({"algorithms": ["HS256"], "query": "t"}), "", "exactly one of header, query and field"),
        (url("http://keys.example/jwks"), "keys.jwksURL", "must begin with https://"),
        (url("https://user@keys.example/jwks"), "keys.jwksURL", "no user"),
        (url("keys"), "keys.jwksURL", "is no URL"),
        (url("file:///etc/passwd"), "keys.jwksURL", "must begin with https://"),
    ] {
        let mistakes = compile(jwt(settings.clone())).unwrap_err();
        let field = format!("spec.callback.verification[0].jwt.{field}");
        let field = field.trim_end_matches('.');
        let found = mistakes.iter().any(|mistake| mistake.field == field && mistake.problem.contains(problem));
        assert!(found, "{settings}: {mistakes:?}");
    }
    for fine in ["https://keys.example/jwks", "http://127.0.0.1:1/jwks", "http://[::1]/jwks", "http://localhost/jwks"] {
        compile(jwt(url(fine))).unwrap();
    }
}

/// Whatever stands there, nobody panics and nothing is accepted.
#[test]
fn noise_is_refused() {
    let plugin = compile(jwt(secret())).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let alphabet = b"eyJ.AQ-_{}\":,=0 \\\xff";
    for _ in 0..20_000 {
        let mut text = Vec::new();
        for _ in 0..state % 60 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push(alphabet[(state >> 33) as usize % alphabet.len()]);
        }
        state = state.wrapping_add(0x9e37_79b9).rotate_left(7);
        let text = String::from_utf8_lossy(&text).into_owned();
        let token = if state.is_multiple_of(3) {
            text
        } else {
            format!("{}.{}.{}", HS256[0], URL_SAFE_NO_PAD.encode(&text), HS256[1])
        };
        assert!(ask(&plugin, &token, HS256_KEY, TIME).is_err(), "{token}");
    }
}
