//! The internal listener: what the API server and the ingress ask the controller. Every replica answers, whether it holds
//! the Lease or not.
//!
//! | Path | Who asks | Answer |
//! |---|---|---|
//! | `POST /admission/<token>` | the API server | an AdmissionReview |
//! | `POST /internal/activity` | the ingress | 204; 503 if this replica does not hold the Lease: ask another |
//! | `POST /internal/secrets` | the ingress | 204 if the secret is stored; 409 if another one is; 404 if nothing waits for one |
//! | `POST /internal/resources` | the ingress | what came of the object that an event is to make: `resource_runner/` |
//! | `/apis/log.bellhop.dev/…` | the API server's front proxy | the request log: `log/api/` |
//!
//! `/internal/` needs the key that is published for the ingress, `/admission/` a token, which only the API server is told,
//! and the request log the front proxy's certificate. Whoever else reaches the listener is answered 401 and 404.

use super::Failure;
use super::activity::Desk;
use super::admission::Admission;
use super::certificates::{Keeper, Lives, Newest, Resolver, Whoever};
use super::resource_runner::{self, Resources};
use crate::api::Report;
use crate::config;
use crate::delivery::Runners;
use crate::plugin::Secret;
use crate::telemetry::Metrics;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::future::BoxFuture;
use http::StatusCode;
use http::header::AUTHORIZATION;
use kube::api::DynamicObject;
use kube::core::admission::AdmissionReview;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// The largest question of the API server, in bytes: it takes objects of up to 3 MiB.
const MAX_REVIEW: usize = 4 * 1024 * 1024;
/// The largest question of the ingress, in bytes.
const MAX_INTERNAL: usize = 256 * 1024;
/// The longest secret that is stored, in bytes.
const MAX_SECRET: usize = 4096;

/// What came of a secret that an external system has told in a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Captured {
    /// It is stored, perhaps since before.
    Stored,
    /// Another one is stored, and stays.
    Other,
    /// No Subscription with this UID waits for a secret.
    Unwanted,
}

/// Stores a secret for the Subscription with this UID.
pub type Capture = Arc<dyn Fn(Uuid, Secret) -> BoxFuture<'static, Result<Captured, Failure>> + Send + Sync>;

/// What an ingress sends to `/internal/secrets`.
#[derive(Serialize, Deserialize)]
pub struct CapturedSecret {
    /// UID of the Subscription.
    pub uid: Uuid,
    /// The secret.
    pub secret: String,
}

/// What the controller answers, and with which certificate.
pub struct Listener {
    keeper: Keeper,
    newest: Newest,
    desk: Desk,
    network: Router,
    here: Router,
    asks_for_certificates: bool,
}

impl Listener {
    /// Answers with `capture` what is asked about secrets, and with `extra` what is asked besides.
    ///
    /// # Errors
    /// An option is wrong.
    pub fn new(
        client: kube::Client,
        common: &config::Common,
        options: &config::Controller,
        metrics: Metrics,
        capture: Capture,
        extra: Router,
    ) -> anyhow::Result<Self> {
        let runners = Runners::new(&common.cluster_domain, &common.allow_runner_origins).map_err(anyhow::Error::msg)?;
        let runners = runners.with_resources(options.resource_runners);
        let resources = Resources::new(client.clone(), common.scope(), options.resource_runners);
        let lives = Lives { authority: options.authority_life, leaf: options.certificate_life };
        let names = names(common, options);
        let (keeper, newest) = Keeper::new(client.clone(), &common.namespace, names, lives, metrics.clone());
        let (scope, cap) = (common.scope(), options.max_subscriptions);
        let admission = Arc::new(Admission::new(client, &common.namespace, scope, runners, cap, metrics));
        let desk = Desk::default();
        let internal = internal(desk.clone(), capture).merge(resource_runner::router(resources));
        let network = Router::new()
            .merge(for_api_server(newest.clone(), move |request| review(admission.clone(), request)))
            .merge(guarded(internal.clone(), newest.clone()))
            .merge(extra.clone());
        // Nobody but the ingress in the same process can ask there.
        let here = internal.merge(extra);
        Ok(Self { keeper, newest, desk, network, here, asks_for_certificates: false })
    }

    /// Answers over the network, besides, what this router does, which sees the certificates of clients.
    pub fn with_certificates_of_clients(mut self, router: Router) -> Self {
        self.network = self.network.merge(router);
        self.asks_for_certificates = true;
        self
    }

    /// What is answered over the network.
    pub fn network(&self) -> Router {
        self.network.clone()
    }

    /// What is answered to an ingress in the same process, which need not prove itself.
    pub fn here(&self) -> Router {
        self.here.clone()
    }

    /// What serves with the newest certificate.
    pub fn tls(&self) -> Arc<rustls::ServerConfig> {
        let resolver = Resolver::follow(self.newest.clone());
        let builder = rustls::ServerConfig::builder();
        let builder = match self.asks_for_certificates {
            true => builder.with_client_cert_verifier(Arc::new(Whoever::default())),
            false => builder.with_no_client_auth(),
        };
        Arc::new(builder.with_cert_resolver(resolver))
    }

    /// Where the certificates of now are found.
    pub fn newest(&self) -> Newest {
        self.newest.clone()
    }

    /// Where reports of the ingress are taken.
    pub fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Makes and renews the certificates, for ever.
    pub async fn keep(self) {
        self.keeper.run().await;
    }
}

/// The names that the listener can be reached under.
fn names(common: &config::Common, options: &config::Controller) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = options.internal_names.iter().filter(|name| !name.is_empty()).cloned().collect();
    if names.is_empty() {
        names.insert(format!("bellhop-internal.{}.svc", common.namespace));
    }
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names
}

fn internal(desk: Desk, capture: Capture) -> Router {
    Router::new()
        .route("/internal/activity", post(async move |body: Body| activity(&desk, body).await))
        .route("/internal/secrets", post(async move |body: Body| secret(&capture, body).await))
}

/// Answers under the path that the API server is told, and nowhere else: it can send no other proof, short of an
/// AdmissionConfiguration, which is a file on each control plane.
fn for_api_server<F>(newest: Newest, answer: impl Fn(Request) -> F + Clone + Send + Sync + 'static) -> Router
where
    F: Future<Output = Response> + Send + 'static,
{
    let route = move |request: Request| {
        let path = newest.borrow().as_ref().map(|identity| identity.admission_path());
        let answer = answer.clone();
        async move {
            match path {
                None => (StatusCode::SERVICE_UNAVAILABLE, "starting; come back soon\n").into_response(),
                Some(path) if bool::from(path.as_bytes().ct_eq(request.uri().path().as_bytes())) => {
                    answer(request).await
                }
                Some(_) => StatusCode::NOT_FOUND.into_response(),
            }
        }
    };
    Router::new().route("/admission/{token}", post(route))
}

/// Lets only those through that have the key.
fn guarded(router: Router, newest: Newest) -> Router {
    router.layer(middleware::from_fn(move |request, next| {
        let key = newest.borrow().as_ref().map(|identity| identity.key().to_owned());
        guard(key, request, next)
    }))
}

async fn guard(key: Option<String>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    match (key, given) {
        (None, _) => (StatusCode::SERVICE_UNAVAILABLE, "starting; come back soon\n").into_response(),
        (Some(key), Some(given)) if bool::from(key.as_bytes().ct_eq(given)) => next.run(request).await,
        _ => (StatusCode::UNAUTHORIZED, "the key is missing or wrong\n").into_response(),
    }
}

async fn review(admission: Arc<Admission>, request: Request) -> Response {
    let _turn = admission.turn().await;
    match read::<AdmissionReview<DynamicObject>>(request.into_body(), MAX_REVIEW).await {
        Ok(review) => axum::Json(admission.review(review).await).into_response(),
        Err(refusal) => refusal,
    }
}

async fn activity(desk: &Desk, body: Body) -> Response {
    match read::<Report>(body, MAX_INTERNAL).await {
        Ok(report) if desk.take(&report) => StatusCode::NO_CONTENT.into_response(),
        Ok(_) => (StatusCode::SERVICE_UNAVAILABLE, "this replica does not hold the Lease\n").into_response(),
        Err(refusal) => refusal,
    }
}

async fn secret(capture: &Capture, body: Body) -> Response {
    let told = match read::<CapturedSecret>(body, MAX_INTERNAL).await {
        Ok(told) => told,
        Err(refusal) => return refusal,
    };
    if told.secret.is_empty() || told.secret.len() > MAX_SECRET {
        let why = format!("secret: must have 1 to {MAX_SECRET} bytes\n");
        return (StatusCode::BAD_REQUEST, why).into_response();
    }
    match capture(told.uid, Secret::from(told.secret)).await {
        Ok(Captured::Stored) => StatusCode::NO_CONTENT.into_response(),
        Ok(Captured::Other) => (StatusCode::CONFLICT, "another secret is stored\n").into_response(),
        Ok(Captured::Unwanted) => (StatusCode::NOT_FOUND, "no Subscription waits for it\n").into_response(),
        Err(failure) => {
            tracing::warn!(subscription = %told.uid, error = %failure, "a captured secret could not be stored");
            (StatusCode::SERVICE_UNAVAILABLE, "it cannot be stored now\n").into_response()
        }
    }
}

/// Reads what is asked, of at most so many bytes.
///
/// # Errors
/// The answer: it is larger, or not what is expected.
pub(super) async fn read<T: serde::de::DeserializeOwned>(body: Body, most: usize) -> Result<T, Response> {
    let refusal = |status: StatusCode, why: String| (status, why).into_response();
    let body = to_bytes(body, most).await;
    let body = body.map_err(|_| refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("at most {most} bytes are read\n")))?;
    // The position, and nothing of the content.
    serde_json::from_slice(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        refusal(StatusCode::BAD_REQUEST, format!("not what is expected here, at line {line} column {column}\n"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PublishedController;
    use crate::controller::certificates::{Identity, made_for_tests};
    use crate::ingress::{Controller, Limits, Service, serve_tls};
    use bytes::Bytes;
    use http::header::COOKIE;
    use serde_json::{Value, json};
    use std::sync::Mutex;
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt;

    /// Knows the secret of one Subscription, 1, and of no other.
    fn capture() -> Capture {
        let stored: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
        Arc::new(move |uid, secret| {
            let mut stored = stored.lock().unwrap();
            let answer = match (uid == Uuid::from_u128(1), &*stored) {
                (false, _) => Captured::Unwanted,
                (true, Some(known)) if known != secret.expose() => Captured::Other,
                (true, _) => {
                    *stored = Some(secret.expose().to_vec());
                    Captured::Stored
                }
            };
            Box::pin(async move { Ok(answer) })
        })
    }

    fn told(uid: u128, secret: &str) -> http::Request<Bytes> {
        let body = json!({"uid": Uuid::from_u128(uid), "secret": secret}).to_string();
        http::Request::post("/internal/secrets").body(body.into()).unwrap()
    }

    async fn status(controller: &Controller, request: http::Request<Bytes>) -> u16 {
        controller.call(request).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn a_secret_is_stored_once() {
        let here = Controller::Here(internal(Desk::default(), capture()));
        let ask = async |uid: u128, secret: &str| status(&here, told(uid, secret)).await;
        assert_eq!([ask(1, "a").await, ask(1, "a").await, ask(1, "b").await, ask(2, "a").await], [204, 204, 409, 404]);
        assert_eq!([ask(1, "").await, ask(1, &"x".repeat(5000)).await], [400, 400]);
        let broken = here.call(http::Request::post("/internal/secrets").body("{\"hunter2\"".into()).unwrap()).await;
        let broken = broken.unwrap();
        assert_eq!(broken.status(), StatusCode::BAD_REQUEST);
        assert!(!String::from_utf8_lossy(broken.body()).contains("hunter2"));
        let large = http::Request::post("/internal/activity").body(vec![b' '; MAX_INTERNAL + 1].into()).unwrap();
        assert_eq!(status(&here, large).await, 413);
    }

    #[tokio::test]
    async fn a_replica_without_the_lease_sends_reports_elsewhere() {
        let here = Controller::Here(internal(Desk::default(), capture()));
        let report = http::Request::post("/internal/activity").body(r#"{"requests": []}"#.into()).unwrap();
        assert_eq!(status(&here, report).await, 503);
    }

    #[tokio::test]
    async fn only_the_key_opens() {
        let identity = Arc::new(made_for_tests());
        let (newest, receiver) = watch::channel(None);
        let router = guarded(internal(Desk::default(), capture()), receiver);
        let ask = async |value: Option<String>| {
            let mut request = told(1, "a").map(Body::from);
            if let Some(value) = value {
                request.headers_mut().insert(AUTHORIZATION, value.parse().unwrap());
            }
            router.clone().oneshot(request).await.unwrap().status().as_u16()
        };
        assert_eq!(ask(Some(format!("Bearer {}", identity.key()))).await, 503);
        newest.send_replace(Some(identity.clone()));
        let wrong =
            [String::new(), "Bearer ".to_owned(), identity.key().to_owned(), format!("Bearer {}x", identity.key())];
        assert_eq!(ask(None).await, 401);
        for value in wrong {
            assert_eq!(ask(Some(value.clone())).await, 401, "{value:?}");
        }
        assert_eq!(ask(Some(format!("Bearer {}", identity.key()))).await, 204);
    }

    #[tokio::test]
    async fn only_the_api_server_is_told_of_objects() {
        let identity = Arc::new(made_for_tests());
        let (newest, receiver) = watch::channel(None);
        let router = for_api_server(receiver, async |_| StatusCode::NO_CONTENT.into_response());
        let ask = async |path: &str| {
            let request = Request::post(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap().status().as_u16()
        };
        let path = identity.admission_path();
        assert_eq!([ask(&path).await, ask("/admission").await], [503, 404]);
        newest.send_replace(Some(identity.clone()));
        assert_eq!(ask(&path).await, 204);
        let other = made_for_tests().admission_path();
        let key = format!("/admission/{}", identity.key());
        for wrong in ["/admission", "/admission/", "/admission/x", &other, &key, &path[..path.len() - 1]] {
            assert_eq!(ask(wrong).await, 404, "{wrong}");
        }
    }

    fn published(identity: &Identity) -> PublishedController {
        identity.published()
    }

    #[tokio::test]
    async fn the_ingress_believes_what_is_published_and_nothing_else() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (first, second) = (Arc::new(made_for_tests()), Arc::new(made_for_tests()));
        let (newest, receiver) = watch::channel(Some(first.clone()));
        let echo = async |request: Request| {
            let has = |name| request.headers().contains_key(name);
            axum::Json(json!([request.uri().to_string(), has(AUTHORIZATION), has(COOKIE)]))
        };
        let extra = Router::new().route("/oauth/start", axum::routing::get(echo));
        let router = guarded(internal(Desk::default(), capture()), receiver.clone()).merge(extra);
        let resolver = Resolver::follow(receiver);
        let tls = Arc::new(rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: url::Url = format!("https://{}", socket.local_addr().unwrap()).parse().unwrap();
        let end = CancellationToken::new();
        let served = tokio::spawn(serve_tls(socket, tls, router, Limits::default(), end.clone()));

        let (publish, known) = watch::channel(None);
        let controller = Controller::Service(Service::new(url.clone(), known));
        let why = controller.call(told(1, "a")).await.unwrap_err().to_string();
        assert!(why.contains("no controller has published"), "{why}");
        publish.send_replace(Some(published(&first)));
        assert_eq!(status(&controller, told(1, "a")).await, 204);

        // The key goes nowhere where it is not needed, and what the caller says of itself is not passed on.
        let page = http::Request::get("/oauth/start?a=%2F").header(COOKIE, "c=1").header(AUTHORIZATION, "Bearer x");
        let page = controller.call(page.body(Bytes::new()).unwrap()).await.unwrap();
        let seen: Value = serde_json::from_slice(page.body()).unwrap();
        assert_eq!(seen, json!(["/oauth/start?a=%2F", false, true]));

        publish.send_replace(Some(PublishedController { key: "wrong".to_owned(), ..published(&first) }));
        assert_eq!(status(&controller, told(1, "a")).await, 401);
        publish.send_replace(Some(published(&second)));
        let why = controller.call(told(1, "a")).await.unwrap_err().to_string();
        assert!(why.contains("certificate"), "{why}");
        // The listener takes up a new certificate without a restart.
        newest.send_replace(Some(second));
        let mut last = 0;
        for _ in 0..50 {
            last = controller.call(told(1, "a")).await.map_or(0, |answer| answer.status().as_u16());
            if last == 204 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(last, 204);
        end.cancel();
        served.await.unwrap();
    }
}
