//! Google Cloud Pub/Sub: a push subscription is made by hand; each push bears a token that Google has signed for the push
//! subscription's service account, with one of the keys that it publishes and replaces.
//!
//! Facts: cloud.google.com/pubsub/docs/authenticate-push-subscriptions (`Authorization: Bearer` with a JWT; `aud` is the push
//! endpoint unless it is set, `email` the service account, `iss` https://accounts.google.com),
//! cloud.google.com/pubsub/docs/push (the envelope; what is not answered 2xx is sent again),
//! www.googleapis.com/oauth2/v3/certs (a JWK Set with Cache-Control).
//!
//! Instead of: Google signs with RSA (`RS256`). Nothing here can make a key of RSA, so the stand-in signs with P-256
//! (`ES256`).

use super::{Answer, Asked, Delivery, Desk, Vendor, Webhook, answer_error, answer_json, now};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// The issuer of the tokens.
pub const ISSUER: &str = "https://accounts.google.com";
/// Where the public keys are.
pub const CERTS: &str = "/oauth2/v3/certs";

/// A key that tokens are signed with.
#[derive(Clone)]
pub struct Signer {
    id: String,
    pair: Arc<EcdsaKeyPair>,
}

impl Signer {
    /// A new key with this id.
    pub fn new(id: &str) -> Signer {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("there is randomness");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("it was just made");
        Signer { id: id.to_owned(), pair: Arc::new(pair) }
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.id, "typ": "JWT"});
        let encode = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("there is randomness");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id, "x": text(x), "y": text(y)})
    }
}

/// Pub/Sub with one push subscription.
pub struct GooglePubsub {
    /// The service account that pushes.
    pub account: String,
    signer: Mutex<Signer>,
}

impl GooglePubsub {
    /// Pushes as this service account.
    pub fn new(account: &str) -> GooglePubsub {
        GooglePubsub { account: account.to_owned(), signer: Mutex::new(Signer::new("first")) }
    }

    /// Signs with another key from now on; the old one is no longer published.
    pub fn rotate(&self, id: &str) {
        *self.signer.lock().expect("no panic") = Signer::new(id);
    }

    /// The key that tokens are signed with now.
    pub fn signer(&self) -> Signer {
        self.signer.lock().expect("no panic").clone()
    }

    /// The claims of a token for this audience.
    pub fn claims(&self, audience: &str) -> Value {
        let time = now() / 1000;
        json!({"iss": ISSUER, "aud": audience, "email": self.account, "email_verified": true, "sub": "1138",
            "iat": time, "exp": time + 3600})
    }

    /// A push with this token.
    pub fn push(url: &str, token: &str, number: u64) -> Delivery {
        let data = STANDARD.encode(json!({"kind": "published", "document": format!("document-{number}")}).to_string());
        let body = json!({"message": {"data": data, "messageId": number.to_string(),
            "publishTime": "2026-01-02T03:04:05.678Z"}, "subscription": "projects/acme/subscriptions/push"});
        Delivery::json(url, &body).header("authorization", format!("Bearer {token}"))
    }
}

impl Vendor for GooglePubsub {
    fn answer(&self, _: &Arc<Desk>, asked: &Asked) -> Answer {
        match (asked.method.as_str(), asked.segments().as_slice()) {
            ("GET", ["oauth2", "v3", "certs"]) => {
                let keys = answer_json(200, &json!({"keys": [self.signer().jwk()]}));
                keys.header("cache-control", "public, max-age=19765, must-revalidate").into()
            }
            _ => answer_error(404, "Not Found").into(),
        }
    }

    fn delivery(&self, webhook: &Webhook, _: &str, number: u64) -> Delivery {
        GooglePubsub::push(&webhook.url, &self.signer().token(&self.claims(&webhook.url)), number)
    }
}
