//! `jwt` of `callback.verification`: a signed token of claims.

use super::{HmacKey, NoSettings, SignatureEncoding};
use kube::{KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A JSON Web Token (RFC 7519) in the compact form of a JWS (RFC 7515).
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.header), has(self.query), has(self.field)].filter(set, set).size() == 1").message("set exactly one of header, query and field"))]
pub struct JwtVerification {
    /// Name of the header with the token, without regard to case, such as `authorization`. Exactly one of `header`, `query` and
    /// `field` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
    /// Name of the query parameter with the token. It is masked where a request is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub query: Option<String>,
    /// CEL expression over `request` and `body` that gives the token as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub field: Option<String>,
    /// What stands before the token, such as `Bearer `.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub prefix: String,
    /// The algorithms that a token may be signed with; what the token itself says must be one of them. `HS256` (HMAC with
    /// SHA-256) stands alone: its key is the callback secret. The public keys of `RS256` (RSASSA-PKCS1-v1_5 with SHA-256, 2048 to
    /// 8192 bits) and `ES256` (ECDSA with P-256 and SHA-256) are `keys`.
    #[schemars(length(min = 1, max = 3))]
    pub algorithms: Vec<JwtAlgorithm>,
    /// How the key of `HS256` is written in the callback secret.
    #[serde(default, skip_serializing_if = "HmacKey::is_default")]
    pub key: HmacKey,
    /// The public keys of `RS256` and `ES256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<JwtKeys>,
    /// The claim `iss` must be one of these, such as `https://accounts.google.com`. Left out: it is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub issuer: Vec<String>,
    /// What the claim `aud`, or one of its values, must be. Left out: a token that names an audience is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<ExpectedClaim>,
    /// What other claims must be, by name. A claim that is a list holds each of its values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 20))]
    pub claims: BTreeMap<String, ExpectedClaim>,
    /// How old a token may be, by its claim `iat`, which must then be there. Left out: the token must have `exp`, unless one of
    /// `claims` is the hash of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::duration")]
    pub max_age: Option<Duration>,
    /// By how much the sender's clock may differ where `exp`, `nbf` and `iat` are looked at.
    #[serde(default = "one_minute")]
    #[schemars(schema_with = "super::schema::duration")]
    pub tolerance: Duration,
}

/// Algorithm of a token's signature (RFC 7518, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256; keys of 2048 to 8192 bits.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
}

/// Where the public keys are that tokens are signed with.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.jwksURL) != has(self.jwks)").message("set exactly one of jwksURL and jwks"))]
pub struct JwtKeys {
    /// URL of a JWK Set (RFC 7517), such as https://www.googleapis.com/oauth2/v3/certs. The controller fetches it: within
    /// hours again, as its Cache-Control says, and when a token names a key that is not known. It must be https, or http on
    /// loopback; addresses that are not public are called only if the administrator allows them.
    #[serde(default, rename = "jwksURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub jwks_url: Option<String>,
    /// The JWK Set itself: an object with the list `keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::free_object")]
    pub jwks: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExpectedClaim {
    /// One of these texts; a number and a boolean are written out.
    OneOf(Vec<String>),
    /// The callback secret, such as the name of the account that sends.
    Secret(NoSettings),
    /// The callback URL as it was registered.
    Url(NoSettings),
    /// The SHA-256 of the body, written as `hex`, `base64` or `base64url`.
    #[serde(rename = "bodySHA256")]
    BodySha256(SignatureEncoding),
}

fn one_minute() -> Duration {
    Duration::from(std::time::Duration::from_secs(60))
}
