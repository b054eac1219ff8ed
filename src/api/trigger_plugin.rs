//! `TriggerPlugin`: what Bellhop knows of one kind of external system.

use super::{Condition, Definitions, HmacAlgorithm, HmacKey, NameRef, PluginEvent, SignatureEncoding, Verification};
use kube::{CustomResource, KubeSchema, core::Duration};
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

    /// What the plugin covers and what it leaves out, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2000))]
    pub description: Option<String>,

    /// One to three characters that stand for the external system where there is room for no more, such as "GT".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3))]
    pub initials: Option<String>,

    /// The external system's own page about its webhooks.
    #[serde(default, rename = "documentationURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://"))]
    pub documentation_url: Option<String>,

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

    /// Building blocks that events share.
    #[serde(default, skip_serializing_if = "Definitions::is_empty")]
    pub definitions: Definitions,

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
    /// Authorization by OAuth 2.0 (RFC 6749).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2Method>,
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

/// Authorization by OAuth 2.0: how a client gets a token (RFC 6749, section 1.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OAuth2Method {
    /// Which grant is used: `authorizationCode`, where a person consents in the external system (RFC 6749, section 4.1), or
    /// `clientCredentials`, where the client acts for itself (section 4.4).
    #[serde(default)]
    pub grant: OAuth2Grant,
    /// Where a person consents: an RFC 6570 template over `parameters`. Needed for the grant `authorizationCode`.
    #[serde(default, rename = "authorizationURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub authorization_url: Option<String>,
    /// Where tokens are issued and refreshed: an RFC 6570 template over `parameters`; its origin must be one of
    /// `allowedOrigins`.
    #[serde(rename = "tokenURL")]
    #[schemars(length(min = 1, max = 4096))]
    pub token_url: String,
    /// Where a token is revoked when the Subscription is deleted (RFC 7009): an RFC 6570 template over `parameters`.
    /// Left out: it is not revoked.
    #[serde(default, rename = "revocationURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub revocation_url: Option<String>,
    /// The scopes that are asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub scopes: Vec<String>,
    /// What stands between two scopes; RFC 6749 says a space, some systems want a comma.
    #[serde(default = "space")]
    #[schemars(length(min = 1, max = 2))]
    pub scope_separator: String,
    /// Whether the code is bound to this client by PKCE with S256 (RFC 7636).
    #[serde(default)]
    pub pkce: bool,
    /// How the client proves itself where tokens are issued: by HTTP `basic`, or by `client_id` and `client_secret` in the
    /// `body`.
    #[serde(default)]
    pub client_authentication: ClientAuthentication,
    /// Additional parameters of the authorization request, such as `access_type: offline`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub authorize_parameters: BTreeMap<String, String>,
    /// Additional parameters of token requests, such as `resource`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub token_parameters: BTreeMap<String, String>,
    /// Where the fields of a token response are, if not where RFC 6749 has them. Responses in JSON and in form encoding
    /// are read.
    #[serde(default)]
    pub token_response: TokenResponse,
    /// Headers of every call to the external system: name to a CEL expression over `credentials.accessToken` and
    /// `parameters`. Left out: `authorization` with `Bearer` and the token (RFC 6750).
    #[serde(default = "bearer")]
    pub headers: BTreeMap<String, String>,
    /// A client that the administrator has registered, for the Subscriptions that name none and whose workspace has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_client: Option<DefaultClient>,
}

fn space() -> String {
    " ".to_owned()
}

fn bearer() -> BTreeMap<String, String> {
    BTreeMap::from([("authorization".to_owned(), "'Bearer ' + credentials.accessToken".to_owned())])
}

/// A grant of OAuth 2.0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OAuth2Grant {
    /// A person consents in the external system (RFC 6749, section 4.1).
    #[default]
    AuthorizationCode,
    /// The client acts for itself; nobody has to consent (RFC 6749, section 4.4).
    ClientCredentials,
}

/// How an OAuth client proves itself (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ClientAuthentication {
    /// HTTP Basic.
    #[default]
    Basic,
    /// `client_id` and `client_secret` in the body.
    Body,
}

/// Where the fields of a token response are: CEL expressions over `response`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenResponse {
    /// The access token, a string. Left out: `response.body.access_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// The refresh token, a string, or null. Left out: `response.body.refresh_token`, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<String>,
    /// The life of the access token in seconds, or null. Left out: `response.body.expires_in`, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<String>,
}

/// An OAuth client that the administrator has registered with the external system. Its Secret needs the label
/// `bellhop.dev/credentials-for: <plugin>`, as every Secret that a plugin uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefaultClient {
    /// The Secret with `clientID` and `clientSecret`, in Bellhop's own namespace. It must carry the label
    /// `bellhop.dev/credentials-for` with the plugin's name.
    pub secret_ref: NameRef,
    /// The only origins that this client may be used with, such as https://git.example.com. A user chooses parameters,
    /// and must not be able to have the client's secret sent elsewhere.
    #[schemars(length(min = 1, max = 20))]
    pub origins: Vec<String>,
}

/// The calls that make, keep and remove a webhook.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookCalls {
    /// Whether the external system needs a webhook of its own for each event. Then `find`, `create` and the calls about
    /// a webhook are made once for each event of the Subscription, which is `event` in their expressions.
    #[serde(default)]
    pub per_event: bool,
    /// Asks the external system whether the credentials are good, before anything is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<VerifyCall>,
    /// Calls before the first `create`, in this order, which read what it needs, such as the id of the account. They may be
    /// repeated. What they capture is `setup` in all later calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub before: Vec<StepCall>,
    /// Lists the webhooks, to find those with this Subscription's callback URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub find: Option<FindCall>,
    /// Reads one webhook, where the external system cannot list them or where the list does not say enough. The answers
    /// 404 and 410 say that it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<ReadCall>,
    /// Creates the webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<CreateCall>,
    /// Calls after each `create`, in this order, such as one that reads the signing secret. They may be repeated. What
    /// they capture belongs to the webhook: `secret` is the callback secret, `expiresAt` the end of its life, everything
    /// else is `webhook.<name>` in later calls. If one of them is refused for good, the webhook is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub after: Vec<StepCall>,
    /// Rewrites the webhook in place, with its events and its secret, and enables it. Left out: a webhook that needs a
    /// change is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Call>,
    /// Prolongs the life of a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<RefreshCall>,
    /// How a webhook that expires is renewed. Left out: by `refresh` if it is there, else by `replace`, and only where
    /// an expiry was captured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<Renewal>,
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
    /// URL: an RFC 6570 template over `parameters`, `credentials`, `setup`, `callback.name`, `event` (with `perEvent`),
    /// `page` (in find) and `webhook` (in the calls about a webhook). Values are percent-encoded.
    #[schemars(length(min = 1, max = 4096))]
    pub url: String,
    /// Other URLs, where a Subscription has one of these parameters: name of a parameter to a template as `url`. Of several,
    /// the first by its name counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 5))]
    pub url_with: BTreeMap<String, String>,
    /// Additional headers: name to a CEL expression that gives a string.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Body: a CEL expression over `parameters`, `events`, `event` (with `perEvent`), `setup`, `callback.url`,
    /// `callback.name` (a name that is this Subscription's alone, for systems in which the caller names a webhook),
    /// `callback.secret` and `callback.attempt` (in create and update only; a UUID that is new for each create call), `page`
    /// (in find), `webhook` (in the calls about a webhook) and `now` (the time of the call, a timestamp).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// How the body is written: as `json`, or as a `form`, for which it must be a map of scalars or lists of scalars.
    #[serde(default)]
    pub encoding: BodyEncoding,
    /// CEL expression over `response` that says whether an answer with a 2xx status is a success, such as
    /// `response.body.ok` or `!has(response.body.errors)`. Left out: every one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<String>,
}

/// A call that reads something which other calls need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepCall {
    /// The call.
    #[serde(flatten)]
    pub call: Call,
    /// What is kept: name to a CEL expression over `response` that gives a string.
    pub capture: BTreeMap<String, String>,
}

/// Reads one webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadCall {
    /// The call. The answers 404 and 410 say that the webhook is gone.
    #[serde(flatten)]
    pub call: Call,
    /// CEL expression over `response`, `parameters`, `events`, `event` and `callback.url` that says whether the webhook
    /// exists. Left out: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exists: Option<String>,
    /// CEL expression over the same that says whether the webhook is as it was made: enabled, with its events. Left out:
    /// it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<String>,
}

/// Prolongs the life of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefreshCall {
    /// The call. The answers 404 and 410 say that the webhook is gone; then it is created anew.
    #[serde(flatten)]
    pub call: Call,
    /// CEL expression over `response` that gives the new end of the webhook's life, as `capture.expiresAt` of `create`.
    /// Left out: the life begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

/// How a webhook that expires is renewed, at two thirds of its life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Renewal {
    /// What is done: the call `refresh`; the call `create` once more, which prolongs what is there (an upsert); or `replace`: a
    /// new webhook is created, then the old one is deleted, so that there is no gap.
    pub by: RenewalMethod,
    /// The life of a webhook where no expiry is captured, such as `168h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::duration")]
    pub life: Option<Duration>,
}

/// What is done to renew a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RenewalMethod {
    /// The call `refresh`.
    Refresh,
    /// The call `create` once more, which prolongs what is there (an upsert).
    Create,
    /// A new webhook is created, then the old one is deleted, so that there is no gap.
    Replace,
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
    /// How the list goes on. Left out: it has one page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pagination: Option<Pagination>,
    /// CEL expression over `response` that gives the list of webhooks.
    pub items: String,
    /// CEL expression over `item`, `parameters`, `setup`, `event`, `callback.url` and `callback.name` that says whether
    /// this is the Subscription's webhook.
    #[serde(rename = "match")]
    pub matches: String,
    /// CEL expression over `item` that gives the webhook's id as a string.
    pub id: String,
    /// CEL expression over `item`, `parameters`, `setup`, `events`, `event` and `callback.url` that says whether the
    /// webhook is as it was made: enabled, with its events. Left out: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<String>,
    /// CEL expression over `item` that gives the end of the webhook's life, as `capture.expiresAt` of `create`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// What else later calls need to know of the webhook: name to a CEL expression over `item` that gives a string, the
    /// same names as in `capture.values` of `create`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// How a list goes on; exactly one of `next` and `nextURL`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.next) != has(self.nextURL)").message("set exactly one of next and nextURL"))]
pub struct Pagination {
    /// `page` in the first call. Left out: null, which a template leaves away in the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<i64>,
    /// CEL expression over `response` and `page` that gives `page` for the next call: a number or a cursor. Null and an
    /// empty string end the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// CEL expression over `response` that gives the URL of the next page, absolute or relative to this one. Its origin
    /// must be the call's. Null and an empty string end the list.
    #[serde(default, rename = "nextURL", skip_serializing_if = "Option::is_none")]
    pub next_url: Option<String>,
}

/// Creates the webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateCall {
    /// The call. Every 2xx status says that the webhook was created.
    #[serde(flatten)]
    pub call: Call,
    /// Whether the call may be repeated without making a second webhook (an upsert). Then one without an answer is made
    /// again, although the plugin has no `find`.
    #[serde(default)]
    pub idempotent: bool,
    /// Whether the external system refuses a second webhook with the same URL (with `perEvent`: for the same event). Then
    /// one that has to be replaced is deleted before the new one is created, and what happens in between is missed.
    /// Otherwise the new one is made first.
    #[serde(default)]
    pub exclusive: bool,
    /// What later calls need to know of the webhook.
    pub capture: Capture,
}

/// What later calls need to know of a webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// CEL expression over `response`, `callback.name`, `callback.attempt` and `event` that gives the webhook's id as a
    /// string.
    pub id: String,
    /// CEL expression over `response` and `credentials` that gives the callback secret, where the external system chooses
    /// it: in its answer, or where it signs with one of the credentials, such as `credentials.clientSecret`. With OAuth,
    /// that is the secret of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// CEL expression over `response` that gives the end of the webhook's life: a string in RFC 3339, or a number of
    /// seconds or milliseconds since the Unix epoch. Null: it does not end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// What else later calls need: name to a CEL expression over `response` that gives a string. It is `webhook.<name>`
    /// there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
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
    /// Networks that the external system sends from, in CIDR notation such as `54.187.174.0/24`, or single addresses. A
    /// request from elsewhere is refused, however it is proven, and a handshake too. The address is that of the connection,
    /// or what the proxies say that the administrator trusts (`--trusted-proxy`). Left out: every address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(length(min = 1, max = 50)))]
    pub from: Vec<String>,
    /// Requests by which the external system makes sure of the callback URL, such as a challenge to be echoed. They are
    /// answered at once and are no events. The first whose `when` is true counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub handshakes: Vec<Handshake>,

    /// Where a form-encoded callback (`application/x-www-form-urlencoded`) carries JSON: the name of that field.
    /// Left out: `body` is a map of the form's fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form_payload_field: Option<String>,

    /// CEL expression over `request` and `body` that gives the list of events of a request that carries several; each
    /// becomes `item` in the other expressions. Left out: a request carries one event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<String>,

    /// CEL expression over `request` and `body`: whether a request means nothing, such as the ping after the creation of a
    /// webhook, or a heartbeat. It has no events, and the request log calls it a `Ping`. What cannot be evaluated is none. Left
    /// out: no request is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub ping: Option<String>,

    /// CEL expression over `request`, `body` and `item` that gives the event's name in the external system.
    pub event: String,

    /// CEL expression over `request`, `body` and `item` that gives the id of one event of a request that carries several,
    /// the same whenever the external system sends that event again, also together with others. Left out, or for an item
    /// that has none: the id of the request and the place of the item in it.
    #[serde(default, rename = "itemID", skip_serializing_if = "Option::is_none")]
    pub item_id: Option<String>,

    /// CEL expression over `request` and `body` that gives the id which stays the same when the external system sends
    /// the request again. Left out: a hash of the body.
    #[serde(default, rename = "deliveryID", skip_serializing_if = "Option::is_none")]
    pub delivery_id: Option<String>,

    /// How requests that are no handshakes are answered, where the external system makes something of the answer. Left out:
    /// with status 200 and the request's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<CallbackAnswer>,
}

/// How a request is answered once it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallbackAnswer {
    /// CEL expression over `request` and `body`: whether a request is answered like this. Left out: every one is. What
    /// cannot be evaluated is answered with status 200 and its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub when: Option<String>,
    /// How long the sender waits for the answer of a runner whose trigger has `delivery.answer`, counted from the head of
    /// the request, from 100ms to 10s. Left out: it does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::deadline")]
    pub deadline: Option<Duration>,
    /// The answer if no runner gives one in time.
    #[serde(default)]
    pub default: PluginAnswer,
}

/// A request by which the external system makes sure of the callback URL.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Handshake {
    /// CEL expression over `request` and `body` that says whether a request is this handshake. What cannot be evaluated
    /// is not.
    pub when: String,
    /// Whether the request must prove its sender as every other does. Only where the external system signs it.
    #[serde(default)]
    pub verified: bool,
    /// CEL expression over `request` and `body` that gives a callback secret which the external system has chosen. It is
    /// taken while none is known, and else only if it is the one that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// An HMAC by which the answer shows that Bellhop knows the callback secret. It is `hmac` in the expressions of `answer`.
    /// Until a secret is known, there is no such handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hmac: Option<HandshakeHmac>,
    /// The answer.
    #[serde(default)]
    pub answer: PluginAnswer,
}

/// An HMAC in the answer to a handshake, keyed with the callback secret: with the one that the request is signed with if it
/// has to be `verified`, else with the current one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandshakeHmac {
    /// CEL expression over `request` and `body` that gives the text whose HMAC is answered, such as
    /// `body.payload.plainToken`. If the handshake is not `verified`, anybody can ask for it, so only what cannot be taken
    /// for a payload is signed: 1 to 256 characters of base64 or base64url.
    #[schemars(length(min = 1, max = 4096))]
    pub of: String,
    /// Hash function: `sha1`, `sha256` or `sha512`.
    pub algorithm: HmacAlgorithm,
    /// How `hmac` is written: `hex` in lower case, `base64` with padding, `base64url` without.
    pub encoding: SignatureEncoding,
    /// How the key is written in the callback secret.
    #[serde(default, skip_serializing_if = "HmacKey::is_default")]
    pub key: HmacKey,
}

/// An answer as the plugin writes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginAnswer {
    /// HTTP status.
    #[serde(default = "ok")]
    #[schemars(range(min = 200, max = 299))]
    pub status: u16,
    /// Headers: name to a CEL expression over `request` and `body`, and in a handshake `hmac`, that gives a string.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// CEL expression over the same that gives the body: a string is sent as `text/plain`, everything else as JSON. Left
    /// out: it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl Default for PluginAnswer {
    fn default() -> Self {
        Self { status: ok(), headers: BTreeMap::new(), body: None }
    }
}

fn ok() -> u16 {
    200
}

/// What Bellhop says of a TriggerPlugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerPluginStatus {
    /// The generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: every expression, template and schema compiles. A mistake is named with its field and position.
    /// `KeysNotFetched`: public keys that it names could not be fetched; absent if they were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Number of Subscriptions, in all namespaces, that refer to this plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_count: Option<u32>,
    /// The redirect URL to register in the external system for an OAuth client of this plugin; one for the installation.
    #[serde(default, rename = "oauthRedirectURL", skip_serializing_if = "Option::is_none")]
    pub oauth_redirect_url: Option<String>,
}
