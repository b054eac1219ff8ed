//! `TriggerPlugin`: what Bellhop knows of one kind of external system.

use super::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A TriggerPlugin says how one kind of external system works: how to authorize, how to make, find and remove
/// a webhook, how to prove who sent a callback, which events a callback can mean and which variables they give.
///
/// Expressions are CEL; URLs are RFC 6570 templates.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "bellhop.dev",
    version = "v1alpha1",
    kind = "TriggerPlugin",
    plural = "triggerplugins",
    shortname = "tp",
    category = "bellhop",
    derive = "PartialEq",
    status = "TriggerPluginStatus",
    doc = "What Bellhop knows of one kind of external system",
    printcolumn(name = "Title", type_ = "string", json_path = ".spec.displayName"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Subscriptions", type_ = "integer", json_path = ".status.subscriptionCount"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("metadata.name: at most 63 characters, because it is used as a label's value")
)]
#[serde(rename_all = "camelCase")]
pub struct TriggerPluginSpec {
    /// Name that people read, such as "Gitea".
    #[schemars(length(min = 1, max = 100))]
    pub display_name: String,

    /// The only origins (scheme, host, port) that credentials may be sent to. Each is a URL template over `parameters`.
    #[schemars(length(min = 1, max = 20))]
    pub allowed_origins: Vec<String>,

    /// JSON schema of `Subscription.spec.parameters`. Left out: a Subscription has no parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::free_object")]
    pub parameters: Option<serde_json::Map<String, serde_json::Value>>,

    /// The ways in which a Subscription can be authorized for automatic creation of its webhook.
    #[serde(default)]
    pub authorization: PluginAuthorization,

    /// The calls that make, keep and remove a webhook. Left out: webhooks are made by hand only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookCalls>,

    /// How a callback is verified and read.
    pub callback: Callback,

    /// The events of the external system.
    #[schemars(length(min = 1, max = 500))]
    pub events: Vec<PluginEvent>,
}

/// The ways in which a Subscription can be authorized.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginAuthorization {
    /// Authorization by credentials that the external system issued once and the user stored in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyMethod>,
}

/// Authorization by an API key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyMethod {
    /// Keys that the user's Secret must have; they are the fields of `credentials`.
    #[schemars(length(min = 1, max = 20))]
    pub keys: Vec<String>,

    /// Headers of every call to the external system: name to a CEL expression over `credentials` and `parameters`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// The calls that make, keep and remove a webhook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCalls {
    /// Asks the external system whether the credentials are good, before anything is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyCall>,
    /// Lists the webhooks, to find those with this Subscription's callback URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find: Option<FindCall>,
    /// Creates the webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateCall>,
    /// Rewrites the webhook in place. Left out: a webhook that needs a change is deleted and created again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Call>,
    /// Deletes the webhook. The answers 404 and 410 are success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete: Option<Call>,
}

/// One HTTP call to the external system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// HTTP method.
    pub method: Method,
    /// URL: an RFC 6570 template over `parameters` and, for update and delete, `webhook`. Values are percent-encoded.
    #[schemars(length(min = 1, max = 4096))]
    pub url: String,
    /// Additional headers: name to a CEL expression that gives a string.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Body: a CEL expression over `parameters`, `events`, `callback.url`, `callback.secret` (in create and update only)
    /// and, for update and delete, `webhook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How the body is written.
    #[serde(default)]
    pub encoding: BodyEncoding,
}

/// Asks the external system whether the credentials are good.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerifyCall {
    /// The call. Every 2xx status says that the credentials are good.
    #[serde(flatten)]
    pub call: Call,
    /// CEL expression over `response` that gives the name of the account, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
}

/// Lists the webhooks of the external system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindCall {
    /// The call. Every answer that is not 2xx is an error, never "there is none".
    #[serde(flatten)]
    pub call: Call,
    /// CEL expression over `response` that gives the list of webhooks.
    pub items: String,
    /// CEL expression over `item`, `parameters` and `callback.url` that says whether this is the Subscription's webhook.
    #[serde(rename = "match")]
    pub matches: String,
    /// CEL expression over `item` that gives the webhook's id as a string.
    pub id: String,
}

/// Creates the webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateCall {
    /// The call. Every 2xx status says that the webhook was created.
    #[serde(flatten)]
    pub call: Call,
    /// What later calls need to know of the webhook.
    pub capture: Capture,
}

/// What later calls need to know of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// CEL expression over `response` that gives the webhook's id as a string.
    pub id: String,
}

/// An HTTP method of a call to the external system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

/// How the body of a call is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BodyEncoding {
    /// `application/json`
    #[default]
    #[serde(rename = "json")]
    Json,
    /// `application/x-www-form-urlencoded`; the body must be a map of scalars or lists of scalars.
    #[serde(rename = "form")]
    Form,
}

/// How a callback is verified and read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Callback {
    /// Proofs of who sent the callback; any one of the list is enough. No check at all must be written as `none: {}`.
    #[schemars(length(min = 1, max = 10))]
    pub verification: Vec<Verification>,

    /// Where a form-encoded callback (`application/x-www-form-urlencoded`) carries JSON: the name of that field.
    /// Left out: `body` is a map of the form's fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form_payload_field: Option<String>,

    /// CEL expression over `request` and `body` that gives the list of events of a request that carries several; each
    /// becomes `item` in the other expressions. Left out: a request carries one event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<String>,

    /// CEL expression over `request`, `body` and `item` that gives the event's name in the external system.
    pub event: String,

    /// CEL expression over `request` and `body` that gives the id which stays the same when the external system sends
    /// the request again. Left out: a hash of the body.
    #[serde(default, rename = "deliveryID", skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,
}

/// One proof of who sent a callback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verification {
    /// HMAC (RFC 2104) of the raw body, keyed with the callback secret.
    Hmac(HmacVerification),
    /// The callback secret itself, in a header.
    Token(TokenVerification),
    /// No check: whoever knows the callback URL may send events.
    None(NoVerification),
}

/// HMAC of the raw body in a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HmacVerification {
    /// Name of the header, without regard to case.
    #[schemars(length(min = 1, max = 256))]
    pub header: String,
    /// Hash function.
    pub algorithm: HmacAlgorithm,
    /// How the signature is written in the header.
    pub encoding: SignatureEncoding,
    /// What stands before the signature, such as `sha256=`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

/// The callback secret itself, in a header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenVerification {
    /// Name of the header, without regard to case.
    #[schemars(length(min = 1, max = 256))]
    pub header: String,
    /// What stands before the token, such as `Bearer `.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
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

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SignatureEncoding {
    /// Hexadecimal digits, in either case.
    Hex,
    /// RFC 4648 base64 with padding.
    Base64,
}

/// One event of the external system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginEvent {
    /// The event's name: what `callback.event` gives, and what Subscriptions and WorkflowTriggers name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Name that people read.
    #[schemars(length(min = 1, max = 200))]
    pub title: String,
    /// Parameters that a WorkflowTrigger may set, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, EventParameter>,
    /// Variables that the event hands to a workflow, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Variable>,
}

/// A parameter of an event that a WorkflowTrigger may set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventParameter {
    /// JSON schema of the value; `default` in it is used where a trigger does not set the parameter.
    #[schemars(schema_with = "super::schema::free_object")]
    pub schema: serde_json::Map<String, serde_json::Value>,
    /// CEL expression over `value`, `request`, `body` and `item`: whether the event passes. Asked only for a parameter
    /// that has a value. What cannot be evaluated does not pass.
    #[serde(rename = "match")]
    pub matches: String,
    /// What the parameter is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A variable that an event hands to a workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// JSON type of the value.
    #[serde(rename = "type")]
    pub type_: VariableType,
    /// CEL expression over `request`, `body` and `item`. A value that cannot be evaluated is `null`.
    pub value: String,
    /// What the variable means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// JSON type of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum VariableType {
    String,
    Integer,
    Number,
    Boolean,
    Array,
    Object,
}

/// What Bellhop says of a TriggerPlugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerPluginStatus {
    /// The generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: every expression, template and schema compiles. A mistake is named with its field and position.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of Subscriptions, in all namespaces, that refer to this plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_count: Option<u32>,
}
