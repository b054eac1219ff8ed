//! `runner` of a WorkflowTrigger: where an event is sent to, what is sent, and how the runner knows who sends it.

use super::{BodyEncoding, Method, NameRef};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Value of the label [`CREDENTIALS_FOR_LABEL`](super::CREDENTIALS_FOR_LABEL) of a Secret whose content may be sent to, or
/// used to sign for, runners. No TriggerPlugin can have this name: a plugin's Secrets are not for runners.
pub const FOR_RUNNERS: &str = "runners";

/// What runs workflows; exactly one of `service`, `url` and `resource`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.service), has(self.url), has(self.resource)].exists_one(is_set, is_set)")
        .message("set exactly one of service, url and resource"),
    validation = Rule::new("!(has(self.format) && has(self.request))")
        .message("format is how a CloudEvent is written; leave it out beside request"),
    validation = Rule::new(
        "!has(self.resource) || ![has(self.format), has(self.headers), has(self.request), has(self.credentials), \
         has(self.signature)].exists(is_set, is_set)"
    )
    .message("format, headers, request, credentials and signature are about HTTP; leave them out beside resource")
)]
pub struct Runner {
    /// A Service of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRunner>,
    /// A URL; the administrator must have allowed its origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
    /// An object of the cluster that is made for each event; the administrator must have switched this on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ResourceRunner>,
    /// How the CloudEvent is written. Left out: `Binary`. Not together with `request`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<EventFormat>,
    /// Additional headers: name to a CEL expression that gives a string, over `variables`, `event`, `subscription`,
    /// `trigger`, `delivery` and `credentials`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub headers: BTreeMap<String, String>,
    /// What is sent instead of a CloudEvent, for systems with an API of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RunnerRequest>,
    /// What `credentials` is in `headers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<RunnerCredentials>,
    /// Signs every request, so that the runner can tell who sends it: the headers `webhook-id`, `webhook-timestamp` and
    /// `webhook-signature` of Standard Webhooks, with HMAC-SHA256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<RunnerSignature>,
}

impl Runner {
    /// Where the runner is, whatever it is sent.
    pub fn place(&self) -> (&Option<ServiceRunner>, &Option<String>, &Option<ResourceRunner>) {
        (&self.service, &self.url, &self.resource)
    }

    /// Whether nothing may be sent without the content of a Secret.
    pub fn needs_secrets(&self) -> bool {
        self.credentials.is_some() || self.signature.is_some()
    }
}

/// A Service that runs workflows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRunner {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Port of the Service.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Path of the requests, beginning with a slash.
    #[serde(default = "root_path")]
    #[schemars(length(max = 1024), regex(pattern = "^/"))]
    pub path: String,
}

fn root_path() -> String {
    "/".to_owned()
}

/// An object that is made once for each event, in the trigger's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceRunner {
    /// Name of a ServiceAccount of the same namespace with the annotation `bellhop.dev/allow-resource-runners: "true"`. The
    /// object is made under its rights alone.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub service_account_name: String,
    /// The object, as it would be applied, of any kind that lives in a namespace. Its name is derived from the event, its
    /// namespace is the trigger's: of `metadata`, only `labels` and `annotations` are written here.
    #[schemars(schema_with = "super::schema::free_object")]
    pub manifest: serde_json::Map<String, serde_json::Value>,
    /// Fields of the manifest whose values come from the event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub fields: Vec<ResourceField>,
}

/// A field of a manifest, and its value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceField {
    /// Where the field is, as a JSON Pointer (RFC 6901), such as `/spec/template/spec/containers/0/env/0/value`; in a name,
    /// `~1` is a slash and `~0` a tilde. What the field is in must be in the manifest.
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/"))]
    pub path: String,
    /// A CEL expression over `variables`, `event`, `subscription`, `trigger` and `delivery`. What it gives is written there
    /// as JSON.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// How a CloudEvent is written into an HTTP request: `Binary`, the attributes as `ce-` headers and the variables as body, or
/// `Structured`, all in one JSON object. Left out: `Binary`. Not together with `request`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EventFormat {
    /// The attributes are `ce-` headers, the body is the variables.
    #[default]
    Binary,
    /// The body is a JSON object with the attributes and, in `data`, the variables (`application/cloudevents+json`).
    Structured,
}

/// A request that is not a CloudEvent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunnerRequest {
    /// HTTP method.
    #[serde(default = "post")]
    pub method: Method,
    /// Body: a CEL expression over `variables`, `event`, `subscription`, `trigger` and `delivery`. Left out: no body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub body: Option<String>,
    /// How the body is written: as `json`, or as a `form`, for which it must be a map of scalars or lists of scalars.
    #[serde(default)]
    pub encoding: BodyEncoding,
}

fn post() -> Method {
    Method::Post
}

/// The credentials of a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunnerCredentials {
    /// A Secret of the same namespace with the label `bellhop.dev/credentials-for: runners`. Its keys are the fields of
    /// `credentials`.
    pub secret_ref: NameRef,
}

/// The signature of what is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunnerSignature {
    /// Where the signing secret is.
    pub secret_ref: SecretKeyRef,
}

/// A key of a Secret of the same namespace with the label `bellhop.dev/credentials-for: runners`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key. Its value is `whsec_` and the secret in base64, or the secret itself.
    #[serde(default = "secret_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn secret_key() -> String {
    "secret".to_owned()
}
