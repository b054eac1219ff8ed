//! `callback.verification`: proofs of who sent a callback.

use super::JwtVerification;
use kube::{KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One proof of who sent a callback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verification {
    /// HMAC (RFC 2104) of parts of the request, keyed with the callback secret. GitHub's is `{header: x-hub-signature-256,
    /// algorithm: sha256, encoding: hex, prefix: "sha256="}`.
    Hmac(HmacVerification),
    /// A signature as <https://www.standardwebhooks.com> specifies it, which Svix sends too. The callback secret is
    /// `whsec_` and base64 for the signatures `v1` (HMAC-SHA256), `whpk_` and base64 for `v1a` (Ed25519).
    StandardWebhooks(StandardWebhooksVerification),
    /// A signature made with a private key of the external system. The callback secret is the public key. Discord's is
    /// `{header: x-signature-ed25519, algorithm: ed25519, encoding: hex, keyEncoding: hex, signed: [{timestamp: {}}, {body: {}}],
    /// timestamp: {header: x-signature-timestamp}}`.
    PublicKey(PublicKeyVerification),
    /// The callback secret itself. GitLab's is `{header: x-gitlab-token}`.
    Token(TokenVerification),
    /// A JSON Web Token, signed with the callback secret (`HS256`) or with a private key of the external system. Google's is
    /// `{header: authorization, prefix: "Bearer ", algorithms: [RS256], issuer: ["https://accounts.google.com"],
    /// audience: {url: {}}, keys: {jwksURL: "https://www.googleapis.com/oauth2/v3/certs"}}`.
    Jwt(JwtVerification),
    /// No check: whoever knows the callback URL may send events. It stands alone.
    None(NoVerification),
}

/// HMAC of parts of the request.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.header), has(self.query), has(self.field)].filter(set, set).size() == 1").message("set exactly one of header, query and field"))]
pub struct HmacVerification {
    /// Name of the header with the signature, without regard to case. Exactly one of `header`, `query` and `field` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
    /// Name of the query parameter with the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub query: Option<String>,
    /// CEL expression over `request` and `body` that gives the signature as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub field: Option<String>,
    /// Hash function: `sha1`, `sha256` or `sha512`.
    pub algorithm: HmacAlgorithm,
    /// How the signature is written: `hex` digits in either case, `base64` with padding, or `base64url` with or without.
    pub encoding: SignatureEncoding,
    /// What stands before the signature, such as `sha256=`; in a list, before that of each entry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub prefix: String,
    /// The value is a list such as `t=1492774577,v1=5257a869`. Left out: it is one signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<SignatureList>,
    /// How the key is written in the callback secret. Left out: the secret is the key.
    #[serde(default, skip_serializing_if = "HmacKey::is_default")]
    pub key: HmacKey,
    /// What is signed, one part after the other, such as `[{timestamp: {}}, {literal: .}, {body: {}}]`. Left out: the raw
    /// body.
    #[serde(default = "only_the_body", skip_serializing_if = "is_only_the_body")]
    #[schemars(length(min = 1, max = 20))]
    pub signed: Vec<SignedPart>,
    /// When the request was signed. Left out: its age is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<SignatureTimestamp>,
}

/// A signature as Standard Webhooks specifies it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StandardWebhooksVerification {
    /// What the names of the headers `<prefix>-id`, `<prefix>-timestamp` and `<prefix>-signature` begin with.
    #[serde(default = "webhook")]
    #[schemars(length(min = 1, max = 64))]
    pub header_prefix: String,
    /// How far the timestamp may be from now, in the past or in the future.
    #[serde(default = "five_minutes")]
    #[schemars(schema_with = "super::schema::duration")]
    pub tolerance: Duration,
}

impl Default for StandardWebhooksVerification {
    fn default() -> Self {
        Self { header_prefix: webhook(), tolerance: five_minutes() }
    }
}

/// A signature made with a private key of the external system.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.header), has(self.query), has(self.field)].filter(set, set).size() == 1").message("set exactly one of header, query and field"))]
pub struct PublicKeyVerification {
    /// Name of the header with the signature, without regard to case. Exactly one of `header`, `query` and `field` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
    /// Name of the query parameter with the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub query: Option<String>,
    /// CEL expression over `request` and `body` that gives the signature as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub field: Option<String>,
    /// `ed25519` (RFC 8032), whose public key is 32 bytes; or `ecdsaP256Sha256`, ECDSA with P-256 and SHA-256, whose signature
    /// is in ASN.1 DER and whose public key is a SubjectPublicKeyInfo in DER (RFC 5480).
    pub algorithm: PublicKeyAlgorithm,
    /// How the signature is written: `hex` digits in either case, `base64` with padding, or `base64url` with or without.
    pub encoding: SignatureEncoding,
    /// How the bytes of the public key are written in the callback secret: `hex`, `base64` or `base64url`, as above.
    pub key_encoding: SignatureEncoding,
    /// What is signed, one part after the other, such as `[{timestamp: {}}, {literal: .}, {body: {}}]`. Left out: the raw
    /// body.
    #[serde(default = "only_the_body", skip_serializing_if = "is_only_the_body")]
    #[schemars(length(min = 1, max = 20))]
    pub signed: Vec<SignedPart>,
    /// When the request was signed. Left out: its age is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<SignatureTimestamp>,
}

/// The callback secret itself.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.header), has(self.query), has(self.field)].filter(set, set).size() == 1").message("set exactly one of header, query and field"))]
pub struct TokenVerification {
    /// Name of the header with the token, without regard to case. Exactly one of `header`, `query` and `field` is set.
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
    /// The token is the password of HTTP Basic credentials (RFC 7617), whatever the user's name; `prefix` is left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub basic: bool,
}

/// No check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NoVerification {}

/// Hash function of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum HmacAlgorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// How a signature or a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignatureEncoding {
    /// Hexadecimal digits, in either case.
    Hex,
    /// RFC 4648 base64 with padding.
    Base64,
    /// RFC 4648 base64 with the alphabet for URLs, with or without padding.
    Base64url,
}

/// Algorithm of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PublicKeyAlgorithm {
    /// Ed25519 (RFC 8032); the key is its 32 bytes.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA with P-256 and SHA-256, the signature in ASN.1 DER (RFC 3279); the key is a SubjectPublicKeyInfo in DER
    /// (RFC 5480).
    #[serde(rename = "ecdsaP256Sha256")]
    EcdsaP256Sha256,
}

/// How the entries of a list of signatures are told apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignatureList {
    /// What stands between two entries, such as `,` or a space. Spaces around an entry do not count.
    #[schemars(length(min = 1, max = 8))]
    pub separator: String,
    /// Entries are pairs, of which those with this key are signatures, such as `v1`; any of them may match. Left out:
    /// every entry is a signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub key: Option<String>,
    /// What stands between key and value of a pair.
    #[serde(default = "equals")]
    #[schemars(length(min = 1, max = 8))]
    pub assignment: String,
}

/// How the key of an HMAC is written in the callback secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HmacKey {
    /// How the rest is written: `utf8`, where the bytes of the text are the key; `base64` with or without padding; or `hex` digits
    /// in either case.
    #[serde(default)]
    pub encoding: KeyEncoding,
    /// What stands before it, such as `whsec_`; a secret without it is taken as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub prefix: String,
}

impl HmacKey {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyEncoding {
    /// The bytes of the text are the key.
    #[default]
    Utf8,
    /// RFC 4648 base64, with or without padding.
    Base64,
    /// Hexadecimal digits, in either case.
    Hex,
}

/// One part of what is signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SignedPart {
    /// This text.
    Literal(String),
    /// The value of the header with this name.
    Header(String),
    /// The value of the query parameter with this name, decoded.
    Query(String),
    /// The timestamp, as it is written where `timestamp` says.
    Timestamp(NoSettings),
    /// The method, in upper case.
    Method(NoSettings),
    /// The callback URL as it was registered, without the request's query. Signed with its port or without is
    /// the same.
    Url(NoSettings),
    /// The same, with the request's query.
    UrlWithQuery(NoSettings),
    /// The raw body.
    Body(NoSettings),
    /// The fields of the form in the body, sorted by name and value, each as name and value with nothing in between; one that
    /// is there twice with the same value counts once.
    SortedForm(NoSettings),
    /// The value of the field with this name of the form in the body, decoded.
    FormField(String),
    /// What a CEL expression over `request` and `body` gives as text.
    Expression(String),
}

/// A choice without settings, written `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoSettings {}

/// When a request was signed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.header), has(self.element), has(self.field)].filter(set, set).size() == 1").message("set exactly one of header, element and field"))]
pub struct SignatureTimestamp {
    /// Name of the header with the timestamp, without regard to case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub header: Option<String>,
    /// Key of the list's entry with the timestamp, such as `t`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub element: Option<String>,
    /// CEL expression over `request` and `body` that gives the timestamp, as text or as a number. It proves something only
    /// if what is signed covers it: with `timestamp: {}`, or with the body if it looks at nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub field: Option<String>,
    /// How it is written: as `seconds` or `milliseconds` since the Unix epoch, or as `rfc3339`, a date and time with an offset such
    /// as `2026-01-31T12:00:00Z`.
    #[serde(default)]
    pub unit: TimestampUnit,
    /// How far it may be from now, in the past or in the future.
    #[serde(default = "five_minutes")]
    #[schemars(schema_with = "super::schema::duration")]
    pub tolerance: Duration,
}

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    /// Seconds since the Unix epoch.
    #[default]
    Seconds,
    /// Milliseconds since the Unix epoch.
    Milliseconds,
    /// A date and time with an offset, as in RFC 3339.
    Rfc3339,
}

fn only_the_body() -> Vec<SignedPart> {
    vec![SignedPart::Body(NoSettings {})]
}

fn is_only_the_body(parts: &[SignedPart]) -> bool {
    matches!(parts, [SignedPart::Body(_)])
}

fn webhook() -> String {
    "webhook".to_owned()
}

fn equals() -> String {
    "=".to_owned()
}

fn five_minutes() -> Duration {
    Duration::from(std::time::Duration::from_secs(300))
}
