//! What the ingress may not do itself and asks the controller for: pages of an authorization, captured secrets, statuses.

use crate::api::PublishedController;
use axum::Router;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tower::ServiceExt;
use url::Url;

/// The longest time that an answer is waited for.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest time until a connection is there.
const CONNECT: Duration = Duration::from_secs(5);
/// The largest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// Beginning of the paths that the controller answers to the ingress alone, which proves itself there.
pub const INTERNAL: &str = "/internal/";

/// Why the controller has not answered.
#[derive(Debug, thiserror::Error)]
#[error("the controller cannot be reached: {0}")]
pub struct Unreachable(String);

/// How the controller is reached.
#[derive(Clone)]
pub enum Controller {
    /// It is in this process.
    Here(Router),
    /// It is behind a Service.
    Service(Service),
    /// There is none.
    Absent,
}

impl Controller {
    /// Asks the controller; paths are those of its internal listener.
    ///
    /// # Errors
    /// It is not there, does not answer within 30 seconds, or answers with more than 1 MiB.
    pub async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unreachable> {
        let answer = async {
            match self {
                Controller::Here(router) => here(router.clone(), request).await,
                Controller::Service(service) => service.call(request).await,
                Controller::Absent => Err(Unreachable("there is none".to_owned())),
            }
        };
        let timeout = |_| Err(Unreachable(format!("no answer within {TIMEOUT:?}")));
        tokio::time::timeout(TIMEOUT, answer).await.unwrap_or_else(timeout)
    }
}

async fn here(router: Router, request: Request<Bytes>) -> Result<Response<Bytes>, Unreachable> {
    let response = match router.oneshot(request.map(Body::from)).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| Unreachable(error.to_string()))?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

/// The controllers behind a Service. Clones are the same.
#[derive(Clone)]
pub struct Service {
    url: Url,
    published: watch::Receiver<Option<PublishedController>>,
    /// What was made of what is published, to be used again.
    link: Arc<Mutex<Option<Link>>>,
}

#[derive(Clone)]
struct Link {
    published: PublishedController,
    http: reqwest::Client,
}

impl Service {
    /// The controllers at `url` (of which only scheme, host and port count), believed and proven to as `published` says.
    pub fn new(url: Url, published: watch::Receiver<Option<PublishedController>>) -> Self {
        Self { url, published, link: Arc::default() }
    }

    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unreachable> {
        let link = self.link()?;
        let (parts, body) = request.into_parts();
        let mut url = self.url.clone();
        url.set_path(parts.uri.path());
        url.set_query(parts.uri.query());
        let mut headers = parts.headers;
        headers.remove(HOST);
        headers.remove(AUTHORIZATION);
        if parts.uri.path().starts_with(INTERNAL) {
            let mut key = HeaderValue::try_from(format!("Bearer {}", link.published.key))
                .map_err(|_| Unreachable("its published key is no header's value".to_owned()))?;
            key.set_sensitive(true);
            headers.insert(AUTHORIZATION, key);
        }
        let sent = link.http.request(parts.method, url).headers(headers).body(body).send().await;
        let mut answer = sent.map_err(|error| unreachable(&error))?;
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        let mut body = BytesMut::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(Unreachable(format!("it answered with more than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        *response.body_mut() = body.freeze();
        Ok(response)
    }

    fn link(&self) -> Result<Link, Unreachable> {
        let Some(published) = self.published.borrow().clone() else {
            return Err(Unreachable("no controller has published how it is reached".to_owned()));
        };
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        match &*link {
            Some(known) if known.published == published => Ok(known.clone()),
            _ => Ok(link.insert(Link::new(published)?).clone()),
        }
    }
}

impl Link {
    fn new(published: PublishedController) -> Result<Self, Unreachable> {
        let roots = reqwest::Certificate::from_pem_bundle(published.authorities.as_bytes());
        let roots = roots.map_err(|_| Unreachable("its published authorities are no certificates".to_owned()))?;
        let http = reqwest::Client::builder()
            .tls_certs_only(roots)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            // Calls are rare. With a connection each, they are spread over the replicas, one that is gone costs one call,
            // and one that does not hold the Lease is not asked again and again.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| unreachable(&error))?;
        Ok(Self { published, http })
    }
}

/// The causes too: the error itself says only that a request was not sent.
fn unreachable(error: &reqwest::Error) -> Unreachable {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    Unreachable(text)
}
