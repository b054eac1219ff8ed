//! The replicas of the ingress, each of which keeps the log of the requests that it has received.

use crate::controller::certificates::{Identity, Newest};
use crate::controller::replicas::Service;
use axum::Router;
use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, StatusCode};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tower::ServiceExt;

/// The largest answer that is read, in bytes: a page of requests without bodies, or one request with its body.
const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// The longest line of a watch, in bytes.
const MAX_LINE: usize = 8 * 1024 * 1024;
/// The longest time until a connection is there.
const CONNECT: Duration = Duration::from_secs(2);

/// Where the log of an ingress in the same process will be found, once it has started. Clones are the same.
pub type Here = Arc<OnceLock<Router>>;

/// Every replica.
#[derive(Clone)]
pub enum Replicas {
    /// The one in this process.
    Here(Here),
    /// The endpoints of a Service.
    Service(Remote),
}

/// The endpoints of a Service, and what they are believed by and asked with.
#[derive(Clone)]
pub struct Remote {
    service: Service,
    newest: Newest,
    links: Arc<Mutex<Links>>,
}

/// Clients that were made for the identity of now, to be used again.
#[derive(Default)]
struct Links {
    identity: Option<Arc<Identity>>,
    clients: HashMap<SocketAddr, reqwest::Client>,
}

/// One replica.
#[derive(Clone)]
pub struct Replica {
    /// Its number, the first part of the names of its requests.
    pub number: String,
    link: Result<Link, String>,
}

#[derive(Clone)]
enum Link {
    Here(Router),
    At { http: reqwest::Client, address: SocketAddr, identity: Arc<Identity> },
}

/// An answer whose body is still to come.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    body: Chunks,
    read: BytesMut,
}

enum Chunks {
    Here(BodyDataStream),
    At(Box<reqwest::Response>),
}

impl Replicas {
    /// Those that there are now, whether they can be asked or not, by their numbers.
    pub fn all(&self) -> Vec<Replica> {
        match self {
            Replicas::Here(here) => {
                let link = here.get().cloned().map(Link::Here).ok_or_else(|| "it starts".to_owned());
                vec![Replica { number: "0".to_owned(), link }]
            }
            Replicas::Service(remote) => remote.all(),
        }
    }

    /// Ends when replicas may have come or gone.
    pub async fn changed(&self, changes: &mut Option<watch::Receiver<()>>) {
        let Replicas::Service(remote) = self else { return std::future::pending().await };
        let changes = changes.get_or_insert_with(|| remote.service.changes());
        if changes.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Remote {
    /// The endpoints of `service`; what they show is believed, and they are asked, as the identity says.
    pub fn new(service: Service, newest: Newest) -> Self {
        Self { service, newest, links: Arc::default() }
    }

    fn all(&self) -> Vec<Replica> {
        let identity = self.newest.borrow().clone();
        let endpoints = self.service.log_listeners();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.identity != identity {
            *links = Links { identity: identity.clone(), clients: HashMap::new() };
        }
        let addresses: Vec<_> = endpoints.iter().filter_map(|(_, address)| *address).collect();
        links.clients.retain(|address, _| addresses.contains(address));
        let replicas = endpoints.into_iter().map(|(number, address)| {
            let link = match (address, &identity) {
                (None, _) => Err("it is not ready".to_owned()),
                (_, None) => Err("this controller has no certificate yet".to_owned()),
                (Some(address), Some(identity)) => links.link(address, identity),
            };
            Replica { number, link }
        });
        replicas.collect()
    }
}

impl Links {
    fn link(&mut self, address: SocketAddr, identity: &Arc<Identity>) -> Result<Link, String> {
        let http = match self.clients.get(&address) {
            Some(http) => http.clone(),
            None => self.clients.entry(address).or_insert(client(address, identity)?).clone(),
        };
        Ok(Link::At { http, address, identity: identity.clone() })
    }
}

fn client(address: SocketAddr, identity: &Identity) -> Result<reqwest::Client, String> {
    let roots = reqwest::Certificate::from_pem_bundle(identity.bundle().as_bytes());
    let roots = roots.map_err(|_| "the authorities of this controller are no certificates".to_owned())?;
    let made = reqwest::Client::builder()
        .tls_certs_only(roots)
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        // The certificate is for the name, whatever address the pod has.
        .resolve(crate::log::SERVER_NAME, address)
        .build();
    made.map_err(|error| error.to_string())
}

impl Replica {
    /// Whether anything can be asked of it now.
    pub fn can_be_asked(&self) -> bool {
        self.link.is_ok()
    }

    /// Asks; `path` begins with `/log/`. What comes back has no body yet.
    ///
    /// # Errors
    /// It cannot be asked, or its answer has not begun after `patience`; a line for people.
    pub async fn ask(&self, method: Method, path: &str, body: Bytes, patience: Duration) -> Result<Answer, String> {
        let asked = async {
            match self.link.clone()? {
                Link::Here(router) => {
                    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
                    let request = request.body(Body::from(body)).map_err(|error| error.to_string())?;
                    let (parts, body) =
                        router.oneshot(request).await.unwrap_or_else(|never| match never {}).into_parts();
                    let body = Chunks::Here(body.into_data_stream());
                    Ok(Answer { status: parts.status, body, read: BytesMut::new() })
                }
                Link::At { http, address, identity } => {
                    let url = format!("https://{}:{}{path}", crate::log::SERVER_NAME, address.port());
                    let mut headers = HeaderMap::new();
                    headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
                    let request = http.request(method, url).bearer_auth(identity.key()).headers(headers).body(body);
                    let response = request.send().await.map_err(|error| with_causes(&error))?;
                    let status = response.status();
                    Ok(Answer { status, body: Chunks::At(Box::new(response)), read: BytesMut::new() })
                }
            }
        };
        let late = |_| Err(format!("no answer within {patience:?}"));
        tokio::time::timeout(patience, asked).await.unwrap_or_else(late)
    }
}

impl Answer {
    async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        match &mut self.body {
            Chunks::Here(stream) => stream.next().await.transpose().map_err(|error| error.to_string()),
            Chunks::At(response) => response.chunk().await.map_err(|error| with_causes(&error)),
        }
    }

    /// The whole body, which may take this long.
    ///
    /// # Errors
    /// It breaks off, takes longer, or is larger than 32 MiB.
    pub async fn whole(mut self, patience: Duration) -> Result<Bytes, String> {
        let read = async {
            while let Some(piece) = self.chunk().await? {
                if self.read.len() + piece.len() > MAX_ANSWER {
                    return Err(format!("its answer has more than {MAX_ANSWER} bytes"));
                }
                self.read.extend_from_slice(&piece);
            }
            Ok(std::mem::take(&mut self.read).freeze())
        };
        let late = |_| Err(format!("its answer takes longer than {patience:?}"));
        tokio::time::timeout(patience, read).await.unwrap_or_else(late)
    }

    /// The next line, without its end; nothing: there are no more.
    ///
    /// # Errors
    /// The body breaks off, or a line is longer than 8 MiB.
    pub async fn line(&mut self) -> Result<Option<Bytes>, String> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.read[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.read.split_to(searched + end + 1);
                line.truncate(searched + end);
                return Ok(Some(line.freeze()));
            }
            searched = self.read.len();
            if searched > MAX_LINE {
                return Err(format!("a line has more than {MAX_LINE} bytes"));
            }
            match self.chunk().await? {
                Some(piece) => self.read.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// The causes too: the error itself says only that a request was not sent.
fn with_causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::certificates::made_for_tests;
    use crate::controller::replicas::log_service_for_tests;
    use crate::ingress::{Limits, serve_tls};
    use crate::log::api::list::list;
    use crate::log::api::question::{Page, Where};
    use crate::log::api::selector::Selector;
    use axum::routing::get;
    use http::header::AUTHORIZATION;
    use serde_json::json;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    /// A replica that has one request, tells it to who has the key, and says so for `/log/lines` line by line.
    async fn replica(number: u32, identity: &Identity, end: &CancellationToken) -> SocketAddr {
        let expected = format!("Bearer {}", identity.key());
        let list = async move |headers: HeaderMap| match headers[AUTHORIZATION] == expected {
            true => {
                let metadata = json!({"name": format!("{number}-a"), "namespace": "team-a", "resourceVersion": "7"});
                (StatusCode::OK, json!({"items": [{"metadata": metadata}]}).to_string())
            }
            false => (StatusCode::UNAUTHORIZED, json!({"error": "who are you"}).to_string()),
        };
        let lines = async || Body::from_stream(futures::stream::iter(["o", "ne\ntw", "o\nrest"].map(Ok::<_, String>)));
        let router = Router::new().route("/log/team-a/requests", get(list)).route("/log/lines", get(lines));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let tls = crate::log::server_config(watch::channel(Some(identity.published())).1);
        tokio::spawn(serve_tls(socket, tls, router, Limits::default(), end.clone()));
        address
    }

    #[tokio::test]
    async fn every_replica_is_asked_and_who_has_not_answered_is_named() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (own, other) = (made_for_tests(), made_for_tests());
        let end = CancellationToken::new();
        let first = replica(0, &own, &end).await;
        // Another installation, whose authority is not believed; and nobody.
        let strange = replica(1, &other, &end).await;
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        let last = replica(3, &own, &end).await;
        let (service, _kept) = log_service_for_tests(&[first, strange, nobody, last]);
        let (newest, known) = watch::channel(None);
        let replicas = Replicas::Service(Remote::new(service, known));
        let place = Where { namespace: Some("team-a".to_owned()), selector: Selector::default() };
        let page = Page { limit: 10, place: None };
        assert!(list(&replicas, &place, &page).await.is_err(), "without an identity, nobody can be asked");

        newest.send_replace(Some(Arc::new(own)));
        let (merged, warnings) = list(&replicas, &place, &page).await.unwrap();
        let mut names: Vec<_> = merged.entries.iter().map(|entry| entry.name()).collect();
        names.sort_unstable();
        assert_eq!(names, ["0-a", "3-a"]);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("replica 1 ") && warnings[0].contains("certificate"), "{warnings:?}");
        assert!(warnings[1].contains("replica 2 "), "{warnings:?}");

        let all = replicas.all();
        let mut answer = all[0].ask(Method::GET, "/log/lines", Bytes::new(), CONNECT).await.unwrap();
        let mut lines = Vec::new();
        while let Some(line) = answer.line().await.unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["one", "two"], "what has no end is no line");
        end.cancel();
    }
}
