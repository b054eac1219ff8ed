//! What the tests of this module share: an API server in memory, a token endpoint, a plugin.

use super::AuthorizationRecord;
use super::pages::Pages;
use super::record::PinnedClient;
use crate::api::TriggerPluginSpec;
use crate::controller::custody::{Custody, Vault};
use crate::external::{self, address::AddressPolicy};
use crate::plugin::Plugin;
use crate::telemetry::Metrics;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use uuid::Uuid;

pub const UID: Uuid = Uuid::from_u128(0xbe11);

/// What is done before a write.
type BeforeWrite = Box<dyn FnOnce(&ApiServer) + Send>;

/// An API server that keeps objects by their path.
#[derive(Default)]
pub struct ApiServer {
    objects: Mutex<BTreeMap<String, Value>>,
    /// Paths whose whole content was asked for.
    pub read: Mutex<Vec<String>>,
    /// Done once before the next write, as if somebody else were faster.
    pub before_write: Mutex<Option<BeforeWrite>>,
}

impl ApiServer {
    pub fn client(self: &Arc<Self>) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub fn put(&self, path: &str, mut object: Value) {
        let mut objects = self.objects.lock().unwrap();
        let version = objects.get(path).and_then(|old| old["metadata"]["resourceVersion"].as_str()?.parse().ok());
        object["metadata"]["resourceVersion"] = (version.unwrap_or(0) + 1).to_string().into();
        objects.insert(path.to_owned(), object);
    }

    pub fn object(&self, path: &str) -> Value {
        self.objects.lock().unwrap()[path].clone()
    }

    pub fn remove(&self, path: &str) {
        self.objects.lock().unwrap().remove(path);
    }

    pub fn secret(&self, namespace: &str, name: &str, label: &str, default: bool, data: &[(&str, &str)]) {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let data: Map<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), encode(value).into())).collect();
        let annotations = if default { json!({"bellhop.dev/is-default-client": "true"}) } else { json!({}) };
        let labels = if label.is_empty() { json!({}) } else { json!({"bellhop.dev/credentials-for": label}) };
        self.put(
            &format!("/api/v1/namespaces/{namespace}/secrets/{name}"),
            json!({
                "apiVersion": "v1", "kind": "Secret", "data": data,
                "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations},
            }),
        );
    }

    async fn answer(&self, request: http::Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let metadata_only =
            parts.headers.get("accept").is_some_and(|accept| accept.to_str().unwrap().contains("PartialObject"));
        let error = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
                "reason": reason, "message": format!("{path}: {reason}")});
            respond(StatusCode::from_u16(code).unwrap(), &status)
        };
        match parts.method {
            Method::GET if path.ends_with("/secrets") => {
                let objects = self.objects.lock().unwrap();
                let wanted = parts.uri.query().unwrap().replace("%2F", "/").replace("%3D", "=");
                let items: Vec<_> = objects
                    .iter()
                    .filter(|(key, object)| {
                        let label = object["metadata"]["labels"]["bellhop.dev/credentials-for"].as_str();
                        let selector = format!("labelSelector=bellhop.dev/credentials-for={}", label.unwrap_or("-"));
                        key.starts_with(&format!("{path}/")) && wanted.contains(&selector)
                    })
                    .map(|(_, object)| json!({"metadata": object["metadata"]}))
                    .collect();
                respond(StatusCode::OK, &json!({"metadata": {}, "items": items}))
            }
            Method::GET => {
                if !metadata_only {
                    self.read.lock().unwrap().push(path.clone());
                }
                match self.objects.lock().unwrap().get(&path) {
                    Some(object) if metadata_only => respond(StatusCode::OK, &json!({"metadata": object["metadata"]})),
                    Some(object) => respond(StatusCode::OK, object),
                    None => error(404, "NotFound"),
                }
            }
            Method::PUT => {
                if let Some(other) = self.before_write.lock().unwrap().take() {
                    other(self);
                }
                let body = body.collect().await.unwrap().to_bytes();
                let object: Value = serde_json::from_slice(&body).unwrap();
                let current = self.objects.lock().unwrap().get(&path).cloned();
                match current {
                    None => error(404, "NotFound"),
                    Some(current)
                        if current["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] =>
                    {
                        error(409, "Conflict")
                    }
                    Some(_) => {
                        self.put(&path, object);
                        respond(StatusCode::OK, &self.objects.lock().unwrap()[&path])
                    }
                }
            }
            _ => error(405, "MethodNotAllowed"),
        }
    }
}

fn respond(status: StatusCode, body: &Value) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body.to_string())).unwrap()
}

/// A request that the token endpoint got: its headers and its form.
pub type TokenRequest = (HeaderMap, BTreeMap<String, String>);

/// An external system's token endpoint, on loopback.
pub struct TokenEndpoint {
    pub url: String,
    /// What it answers.
    pub answer: Arc<Mutex<(u16, String)>>,
    /// What it was asked.
    pub requests: Arc<Mutex<Vec<TokenRequest>>>,
    /// Done once before the next answer.
    pub before_answer: Arc<Mutex<Option<Action>>>,
}

pub type Action = Box<dyn FnOnce() + Send>;

impl TokenEndpoint {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let good = json!({"access_token": "access-1", "token_type": "Bearer", "refresh_token": "refresh-1", "expires_in": 3600});
        let answer = Arc::new(Mutex::new((200, good.to_string())));
        let requests: Arc<Mutex<Vec<TokenRequest>>> = Arc::default();
        let before_answer: Arc<Mutex<Option<Action>>> = Arc::default();
        let (answers, asked, before) = (answer.clone(), requests.clone(), before_answer.clone());
        let handle = async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let form = url::form_urlencoded::parse(&body).into_owned().collect();
            asked.lock().unwrap().push((parts.headers, form));
            if let Some(action) = before.lock().unwrap().take() {
                action();
            }
            let (status, text) = answers.lock().unwrap().clone();
            let response = Response::builder().status(status).header("content-type", "application/json");
            response.body(Body::from(text)).unwrap()
        };
        let router = Router::new().fallback(handle);
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, answer, requests, before_answer }
    }

    pub fn answer(&self, status: u16, json: &Value) {
        *self.answer.lock().unwrap() = (status, json.to_string());
    }
}

/// A plugin with OAuth. `more` is merged into `spec.authorization.oauth2`.
pub fn spec(more: &Value) -> TriggerPluginSpec {
    let mut oauth2 = json!({
        "authorizationURL": "{+parameters.baseURL}/authorize", "tokenURL": "{+parameters.baseURL}/token",
        "scopes": ["hooks", "read"], "pkce": true,
    });
    for (key, value) in more.as_object().unwrap() {
        oauth2[key] = value.clone();
    }
    let spec = json!({
        "displayName": "Forge <b>",
        "allowedOrigins": ["{+parameters.baseURL}"],
        "parameters": {"type": "object", "properties": {"baseURL": {"type": "string"}}},
        "authorization": {"oauth2": oauth2},
        "webhook": {"create": {
            "method": "POST", "url": "{+parameters.baseURL}/hooks", "body": "{'url': callback.url}",
            "capture": {"id": "string(response.body.id)"},
        }, "delete": {"method": "DELETE", "url": "{+parameters.baseURL}/hooks/{webhook.id}"}},
        "callback": {"verification": [{"none": {}}], "event": "body.event"},
        "events": [{"name": "push", "title": "Push"}],
    });
    serde_json::from_value(spec).unwrap()
}

pub fn plugin(more: &Value) -> Plugin {
    Plugin::compile("forge", &spec(more)).unwrap_or_else(|mistakes| panic!("{}", crate::plugin::join(&mistakes)))
}

pub fn http() -> external::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    external::Client::new(external::Settings {
        addresses: AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap()]),
        authorities: Vec::new(),
        timeout: Duration::from_secs(5),
        calls_per_second: 1000.0,
    })
    .unwrap()
}

/// Pages over an API server in memory, with a custody whose client is pinned and whose link works.
pub struct World {
    pub server: Arc<ApiServer>,
    pub endpoint: TokenEndpoint,
    pub router: Router,
    pub vault: Vault,
    pub link: String,
    pub metrics: Metrics,
}

impl World {
    /// `more` is merged into the plugin's `oauth2`.
    pub async fn new(public_url: &str, more: &Value) -> Self {
        let (server, endpoint) = (Arc::new(ApiServer::default()), TokenEndpoint::start().await);
        let resource = json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "TriggerPlugin", "spec": spec(more),
            "metadata": {"name": "forge", "uid": Uuid::from_u128(1), "generation": 1},
        });
        server.put("/apis/bellhop.dev/v1alpha1/triggerplugins/forge", resource);
        server.secret("team-a", "my-client", "forge", false, &[("clientID", "the-id"), ("clientSecret", "the-secret")]);
        let mut record = AuthorizationRecord {
            client: Some(PinnedClient::Named { secret: "my-client".into() }),
            client_id: "the-id".into(),
            client_secret: "the-secret".into(),
            ..AuthorizationRecord::default()
        };
        record.ensure_link(super::now_millis());
        let link = format!("{}.{}", UID.simple(), record.link.as_ref().unwrap().secret);
        put_custody(&server, &custody(&endpoint.url, record));
        let (public_url, metrics) = (public_url.parse().unwrap(), Metrics::new());
        let pages = Pages::new(server.client(), "bellhop-system", http(), public_url, metrics.clone());
        let router = super::pages::router(Arc::new(pages));
        let vault = Vault::new(server.client(), "bellhop-system");
        Self { server, endpoint, router, vault, link, metrics }
    }

    pub async fn record(&self) -> AuthorizationRecord {
        self.vault.get(UID).await.unwrap().expect("a custody").custody.authorization
    }
}

pub fn custody(base_url: &str, authorization: AuthorizationRecord) -> Custody {
    let accepted = json!({
        "pluginRef": {"name": "forge"}, "parameters": {"baseURL": base_url}, "authorization": {"oauth2": {}},
    });
    let custody = json!({
        "uid": UID, "namespace": "team-a", "name": "acme-web", "accepted": accepted, "events": ["push"],
        "token": "the-token", "callbackSecret": "the-callback-secret", "authorization": authorization,
    });
    serde_json::from_value(custody).unwrap()
}

pub fn custody_path() -> String {
    format!("/api/v1/namespaces/bellhop-system/secrets/{}", Custody::secret_name(UID))
}

pub fn put_custody(server: &ApiServer, custody: &Custody) {
    let json = serde_json::to_string(custody).unwrap();
    server.secret("bellhop-system", &Custody::secret_name(UID), "", false, &[("custody.json", &json)]);
}
