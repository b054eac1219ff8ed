//! `Subscription`: one webhook in one external system, with its callback URL.

use super::{Condition, NameRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Subscription is one webhook in one external system. It cannot be changed: delete it and create a new one.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "bellhop.dev",
    version = "v1alpha1",
    kind = "Subscription",
    plural = "subscriptions",
    shortname = "bsub",
    category = "bellhop",
    namespaced,
    derive = "PartialEq",
    status = "SubscriptionStatus",
    doc = "One webhook in one external system, with its callback URL; immutable",
    selectable = ".spec.pluginRef.name",
    printcolumn(name = "Plugin", type_ = "string", json_path = ".spec.pluginRef.name"),
    printcolumn(name = "Method", type_ = "string", json_path = ".status.authorization.method"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Workflows", type_ = "integer", json_path = ".status.workflowCount"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.address.url", priority = 1),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.webhooks[0].expiresAt", priority = 1),
    printcolumn(name = "Authorize", type_ = "string", json_path = ".status.authorization.url", priority = 1),
    validation = Rule::new("self.spec == oldSelf.spec").message(
        "a Subscription cannot be changed: delete it and create a new one; \
         the same namespace, name and plugin get the same callback URL"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionSpec {
    /// The TriggerPlugin of the external system.
    pub plugin_ref: NameRef,

    /// Names of the plugin's events. Left out: all of the plugin's events at the time of acceptance, the recommended choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500), extend("x-kubernetes-list-type" = "set"))]
    pub events: Option<Vec<String>>,

    /// The plugin's parameters, checked against its JSON schema.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schemars(schema_with = "super::schema::free_object")]
    pub parameters: serde_json::Map<String, serde_json::Value>,

    /// How Bellhop is authorized to make the webhook; exactly one of the methods.
    pub authorization: Authorization,
}

/// How Bellhop is authorized to make the webhook.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.apiKey), has(self.oauth2), has(self.manual)].filter(m, m).size() == 1")
    .message("set exactly one of apiKey, oauth2 and manual"))]
pub struct Authorization {
    /// With credentials from a Secret of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKeyAuthorization>,
    /// By OAuth 2.0: a person follows the link in the status and consents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2Authorization>,
    /// By nobody: a person makes the webhook by hand, with the callback URL in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manual: Option<ManualAuthorization>,
}

impl Authorization {
    /// The field that is set, as users write it: `apiKey`, `oauth2` or `manual`.
    pub fn method(&self) -> &'static str {
        match self {
            Authorization { api_key: Some(_), .. } => "apiKey",
            Authorization { oauth2: Some(_), .. } => "oauth2",
            _ => "manual",
        }
    }
}

/// Authorization with credentials from a Secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyAuthorization {
    /// The Secret, in the same namespace. It must carry the label `bellhop.dev/credentials-for` with the plugin's name.
    pub secret_ref: NameRef,
}

/// Authorization by OAuth 2.0.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OAuth2Authorization {
    /// Secret with `clientID` and `clientSecret` of an OAuth client, in the same namespace. It must carry the label
    /// `bellhop.dev/credentials-for` with the plugin's name. Left out: the workspace's default client, which has the
    /// annotation `bellhop.dev/is-default-client: "true"`, else the plugin's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_ref: Option<NameRef>,
}

/// A webhook made by hand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManualAuthorization {
    /// Secret with the signing secret under `secret`, in the same namespace. It must carry the label
    /// `bellhop.dev/credentials-for` with the plugin's name. Left out: Bellhop generates one and says where in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
}

/// What Bellhop says of a Subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionStatus {
    /// The generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `Authorized`, `WebhookRegistered`, `Ready`, and abnormal-true `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Where the external system sends its callbacks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// How the Subscription is authorized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<AuthorizationStatus>,
    /// The webhooks in the external system; some systems need one for each event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"]))]
    pub webhooks: Vec<Webhook>,
    /// The subscribed events, pinned at acceptance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// For a webhook made by hand: the Secret, in the same namespace, whose key `secret` is the signing secret to enter in
    /// the external system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_secret_ref: Option<NameRef>,
    /// When the last request arrived at the callback URL that was proven or belongs to a handshake. Written at most once a
    /// minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request_time: Option<Time>,
    /// Number of distinct pairs of runner and workflow among the published WorkflowTriggers of this Subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow_count: Option<u32>,
}

/// An address, as Knative's Addressable has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Address {
    /// The callback URL. Whoever knows it can send requests to it; the plugin's verification decides what is believed.
    pub url: String,
}

/// How a Subscription is authorized.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationStatus {
    /// `apiKey`, `oauth2` or `manual`.
    pub method: String,
    /// The account that the credentials belong to, as the external system names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// For OAuth: where a person consents. Open it in a browser. It is there only while a consent is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// For OAuth: the client that was chosen at acceptance, such as `Secret team-a/my-client`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// A webhook in the external system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// The external system's id of the webhook.
    pub id: String,
    /// The event that it is for, where the external system needs one webhook for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// When the external system forgets it, unless it is renewed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
}
