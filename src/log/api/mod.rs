//! The request log as Kubernetes serves what is not in etcd: an aggregated API. The API server authenticates its user and
//! passes the question on to any replica of the controller, which lets the cluster's Roles decide and asks every replica
//! of the ingress.
//!
//! | Path below `/apis/log.bellhop.dev/v1alpha1` | Verb | Right |
//! |---|---|---|
//! | `requests`, `namespaces/NS/requests` | GET | `list requests` |
//! | the same with `watch=true` | GET | `watch requests` |
//! | `namespaces/NS/requests/NAME` | GET | `get requests` |
//! | `namespaces/NS/requests/NAME/replay` | POST | `create requests/replay` |
//! | `namespaces/NS/captures` with `watch=true` and `fieldSelector=metadata.name=TRIGGER` | GET | `watch captures` |
//! | `namespaces/NS/subscriptions/NAME/send` | POST | `create subscriptions/send` |
//!
//! What is asked is a value (`question.rs`), and so are what a page has (`page.rs`), a table (`table.rs`), a selector
//! (`selector.rs`) and who asks (`front_proxy.rs`). `list.rs`, `watch.rs`, `replay.rs` and `send.rs` answer.

mod accept;
mod access;
mod discovery;
mod entry;
mod front_proxy;
mod list;
mod object;
mod openapi;
mod page;
mod question;
mod replay;
mod replicas;
mod selector;
mod send;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod watch;

pub use front_proxy::{Known, follow};
pub use replicas::{Here, Remote, Replicas};

use crate::ingress::PeerCertificates;
use crate::log::ALL;
use crate::log::model::{GROUP, KIND, VERSION};
use crate::log::places::{Hall, Places};
use accept::Form;
use access::{Access, Review};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::header::{ACCEPT, CONTENT_TYPE, WARNING};
use http::{HeaderValue, Method, StatusCode};
use question::Question;
use serde_json::Value;
use status::Refusal;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// The resource.
pub const RESOURCE: &str = "requests";
/// What `send` is a subresource of; there is nothing else of it here.
pub const SUBSCRIPTIONS: &str = "subscriptions";
/// What drafts capture while somebody follows it, and its kind.
pub const CAPTURES: &str = "captures";
/// The kind of what is followed there: a request that a draft has captured.
pub const CAPTURE: &str = "Capture";

/// Watches at the same time, of all users; those of all namespaces share as those of one do.
const MAX_WATCHES: Places = Places { total: 256, each: 16 };
/// Other questions, and first lists of watches, that are answered at the same time; further ones wait.
const MAX_AT_ONCE: usize = 16;

/// What answers.
pub struct Server {
    known: Known,
    access: Access,
    replicas: Replicas,
    watches: Hall,
    turns: Arc<Semaphore>,
}

impl Server {
    /// `known` is who is believed to tell users, `client` reaches the API server that says what they may do.
    pub fn new(client: kube::Client, known: Known, replicas: Replicas) -> Self {
        Self::with(access::review_by(client), known, replicas)
    }

    fn with(review: Review, known: Known, replicas: Replicas) -> Self {
        Self {
            known,
            access: Access::new(review),
            replicas,
            watches: Hall::new(MAX_WATCHES),
            turns: Arc::new(Semaphore::new(MAX_AT_ONCE)),
        }
    }

    async fn answer(self: Arc<Self>, request: Request) -> Result<Response, Refusal> {
        let proxy = self.known.borrow().clone();
        let proxy = proxy.ok_or_else(|| {
            let why = "whose certificate the API server's front proxy has is not known (yet); see the controller's log";
            Refusal::new(StatusCode::UNAUTHORIZED, why)
        })?;
        let user = proxy.authenticate(request.extensions().get::<PeerCertificates>(), request.headers())?;
        let uri = request.uri();
        let question = Question::parse(request.method(), uri.path(), uri.query().unwrap_or_default())?;
        if let Some(wish) = question.wish() {
            self.access.check(&user, wish).await?;
        }
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let form = |offered: &[Form]| {
            accept::negotiate(accept.as_deref(), offered).ok_or_else(|| {
                let why = "Accept: JSON can be given, and lists as a Table of meta.k8s.io/v1";
                Refusal::new(StatusCode::NOT_ACCEPTABLE, why)
            })
        };
        let objects_or_table = || form(&[Form::Objects, Form::Table]);
        match question {
            Question::Groups => {
                let form = form(&[Form::Discovery("v2"), Form::Discovery("v2beta1"), Form::Objects])?;
                let (content_type, document) = discovery::groups(form);
                Ok(([(CONTENT_TYPE, content_type)], document.to_string()).into_response())
            }
            Question::Group => Ok(json(StatusCode::OK, &discovery::group())),
            Question::Resources => Ok(json(StatusCode::OK, &discovery::resources())),
            Question::OpenApi2 => Ok(json(StatusCode::OK, &openapi::version_2())),
            Question::OpenApi3 => Ok(json(StatusCode::OK, &openapi::documents())),
            Question::OpenApi3Group => Ok(json(StatusCode::OK, &openapi::version_3())),
            Question::List(place, page, include) => {
                let form = objects_or_table()?;
                let _turn = self.turn().await;
                let (merged, warnings) = list::list(&self.replicas, &place, &page).await?;
                let mut response = json(StatusCode::OK, &list::render(merged, form, include));
                warn(&mut response, &warnings);
                Ok(response)
            }
            Question::Get(one, include) => {
                let form = objects_or_table()?;
                let _turn = self.turn().await;
                let entry = list::get(&self.replicas, &one).await?;
                Ok(json(StatusCode::OK, &list::render_one(entry, form, include)))
            }
            Question::Watch(place, wanted, include) => {
                let form = objects_or_table()?;
                let slot = self.watches.enter(place.namespace.as_deref().unwrap_or(ALL)).map_err(Refusal::too_many)?;
                let from = watch::Source { replicas: self.replicas.clone(), turns: self.turns.clone() };
                let lines = watch::watch(from, place, wanted, form, include, slot)?;
                Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
            }
            Question::Listen(ear) => {
                let slot = self.watches.enter(&ear.namespace).map_err(Refusal::too_many)?;
                let (namespace, trigger) = (&ear.namespace, &ear.trigger);
                tracing::info!(namespace, trigger, user = user.name, "a draft is listened to");
                let from = watch::Source { replicas: self.replicas.clone(), turns: self.turns.clone() };
                let lines = watch::listen(from, ear, slot)?;
                Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
            }
            Question::Replay(one) => {
                // Before the turn: how long it takes is up to who asks.
                let replay = object::read(request.into_body(), "Replay", replay::MAX_BODY).await?;
                let _turn = self.turn().await;
                let user = &user.name;
                let answer = replay::replay(&self.replicas, &one, replay, user).await;
                let replayed = answer.as_ref().map(drop).map_err(Refusal::message);
                tracing::info!(namespace = one.namespace, name = one.name, user, ?replayed, "a replay was asked for");
                Ok(json(StatusCode::CREATED, &answer?))
            }
            Question::Send(target) => {
                let spec = object::read(request.into_body(), "Send", send::MAX_BODY).await?;
                let _turn = self.turn().await;
                let user = &user.name;
                let answer = send::send(&self.replicas, &target, spec, user).await;
                let sent = answer.as_ref().map(drop).map_err(Refusal::message);
                tracing::info!(
                    namespace = target.namespace,
                    subscription = target.name,
                    user,
                    ?sent,
                    "a request is sent"
                );
                Ok(json(StatusCode::CREATED, &answer?))
            }
        }
    }

    async fn turn(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.turns.acquire().await.expect("it is never closed")
    }
}

/// Answers below `/apis` and `/openapi`, to the front proxy alone.
pub fn router(server: Server) -> Router {
    let routes = ["/apis", "/apis/{*rest}", "/openapi/{*rest}"];
    let router = routes.into_iter().fold(Router::new(), |router, path| router.route(path, any(answer)));
    router.with_state(Arc::new(server))
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    server.answer(request).await.unwrap_or_else(|refusal| refused(&method, &path, refusal))
}

fn refused(method: &Method, path: &str, refusal: Refusal) -> Response {
    tracing::debug!(%method, path, code = refusal.code().as_u16(), message = refusal.message(), "the log is refused");
    refusal.into_response()
}

fn json(code: StatusCode, document: &Value) -> Response {
    (code, [(CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

/// Lines that kubectl prints before the answer (RFC 7234, 5.5, as the API server writes them).
fn warn(response: &mut Response, warnings: &[String]) {
    for warning in warnings {
        let plain: String = warning.chars().filter(|c| matches!(c, ' '..='~')).take(512).collect();
        let quoted = plain.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::try_from(format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
