//! A stand-in for an API server that serves the request log: what no cluster can be made to do at a given moment, such as a
//! request that changes while somebody looks. It answers what the commands ask, as
//! `/apis/log.bellhop.dev/v1alpha1` is documented, and keeps what it was asked.

use anyhow::Result;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::broadcast;

const LOG: &str = "/apis/log.bellhop.dev/v1alpha1/namespaces/team-a/requests";
const CAPTURES: &str = "/apis/log.bellhop.dev/v1alpha1/namespaces/team-a/captures";
const OWN: &str = "/apis/bellhop.dev/v1alpha1/namespaces/team-a/";

/// The stand-in, until it is dropped.
pub struct StandIn {
    known: Arc<Known>,
    folder: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

struct Known {
    state: Mutex<World>,
    changes: broadcast::Sender<String>,
}

/// What there is, and what was asked.
#[derive(Default)]
pub struct World {
    /// The requests, newest first.
    pub requests: Vec<Value>,
    /// The WorkflowTrigger `draft`.
    pub draft: Value,
    /// Selectors of lists and watches of requests.
    pub selectors: Vec<String>,
    /// Names and bodies of replays.
    pub replays: Vec<(String, Value)>,
    /// Whether the log is not registered. What is answered then is what a real API server answers.
    pub unserved: bool,
    /// Whether every replica of the ingress has answered.
    pub whole: bool,
    /// How many times the content of a request cannot be read.
    pub unreadable: usize,
    /// How long it takes until a draft listens, or is refused.
    pub delay: Duration,
    /// Whether nobody may have a draft listen.
    pub forbidden: bool,
    /// Whether somebody follows the requests.
    pub followed: bool,
    /// Whether the draft listens.
    pub listens: bool,
}

impl StandIn {
    pub async fn start() -> Result<StandIn> {
        let draft = json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "WorkflowTrigger",
            "metadata": {"name": "draft", "namespace": "team-a", "resourceVersion": "1"},
            "spec": {"mode": "Draft"},
        });
        let known = Arc::new(Known {
            state: Mutex::new(World { draft, ..World::default() }),
            changes: broadcast::channel(16).0,
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(known.clone());
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        let folder = tempfile::tempdir()?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here", "users": [{"name": "me", "user": {}}],
            "clusters": [{"name": "here", "cluster": {"server": format!("http://{address}")}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "team-a"}}],
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string())?;
        Ok(StandIn { known, folder, server })
    }

    /// The command, for somebody whose kubeconfig names this server.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_bellhop")));
        command.args(args).env("KUBECONFIG", self.folder.path().join("kubeconfig")).env_remove("NO_COLOR");
        command
    }

    /// Looks at what there is, or changes it.
    pub fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        self.known.with(work)
    }

    /// Puts a request into the log, and tells those who follow it.
    pub fn tell(&self, request: &Value) {
        self.with(|world| {
            world.requests.retain(|one| one["metadata"]["name"] != request["metadata"]["name"]);
            world.requests.insert(0, request.clone());
        });
        let change = json!({"type": "MODIFIED", "object": without_content(request)});
        // Nobody may be following.
        let _ = self.known.changes.send(format!("{change}\n"));
    }

    /// Whether the draft listens.
    pub fn listens(&self) -> bool {
        self.with(|world| world.listens)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Known {
    fn with<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As lists and watches have it.
fn without_content(request: &Value) -> Value {
    let mut request = request.clone();
    if let Some(received) = request["received"].as_object_mut() {
        received.remove("headers");
        received.remove("body");
    }
    for event in request["events"].as_array_mut().into_iter().flatten() {
        event.as_object_mut().map(|event| event.remove("variables"));
    }
    request
}

async fn answer(State(known): State<Arc<Known>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let query: HashMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let body = to_bytes(body, 1 << 20).await.ok().and_then(|body| serde_json::from_slice::<Value>(&body).ok());
    let path = parts.uri.path();
    let selector = query.get("fieldSelector").cloned().unwrap_or_default();
    let watches = query.contains_key("watch");
    if path.starts_with("/apis/log.") && known.with(|world| world.unserved) {
        return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
    }
    match (parts.method, path) {
        (Method::GET, LOG) if watches => {
            let changes = tokio_stream(known.changes.subscribe());
            known.with(|world| {
                world.selectors.push(selector);
                world.followed = true;
            });
            Body::from_stream(changes).into_response()
        }
        (Method::GET, CAPTURES) if watches && selector == "metadata.name=draft" => {
            tokio::time::sleep(known.with(|world| world.delay)).await;
            if known.with(|world| world.forbidden) {
                return failure(StatusCode::FORBIDDEN, "you may not watch captures", "draft");
            }
            let begin = json!({"type": "BOOKMARK", "object": {"apiVersion": "log.bellhop.dev/v1alpha1",
                "kind": "Capture", "metadata": {"resourceVersion": "7"}}});
            let begin = futures::stream::once(std::future::ready(Ok(format!("{begin}\n"))));
            let changes = begin.chain(tokio_stream(known.changes.subscribe()));
            known.with(|world| world.listens = true);
            let listening = Listening(known.clone());
            Body::from_stream(changes.map(move |line| {
                // It lives as long as the stream.
                let _ = &listening;
                line
            }))
            .into_response()
        }
        (Method::GET, LOG) => {
            let items: Vec<_> = known.with(|world| {
                world.selectors.push(selector);
                world.requests.iter().map(without_content).collect()
            });
            let list = json!({"kind": "RequestList", "metadata": {"resourceVersion": "7"}, "items": items});
            if known.with(|world| world.whole) {
                return list.to_string().into_response();
            }
            ([("warning", "299 - \"replica 1 of the ingress has not answered\"")], list.to_string()).into_response()
        }
        (Method::GET, path) if path.starts_with(LOG) => {
            let name = &path[LOG.len() + 1..];
            let readable = known.with(|world| {
                let left = world.unreadable.checked_sub(1);
                world.unreadable = left.unwrap_or_default();
                left.is_none()
            });
            if !readable {
                return failure(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong", name);
            }
            let found = known.with(|world| world.requests.iter().find(|one| one["metadata"]["name"] == name).cloned());
            found.map_or_else(|| missing(name), |request| request.to_string().into_response())
        }
        (Method::POST, path) if path.starts_with(LOG) && path.ends_with("/replay") => {
            let name = path[LOG.len() + 1..].trim_end_matches("/replay").to_owned();
            let body = body.unwrap_or_default();
            let trigger = body["spec"]["trigger"].as_str().unwrap_or("review").to_owned();
            let event = &name[2..];
            let status = json!({"deliveries": [{"trigger": trigger, "event": event}]});
            let replay = json!({"kind": "Replay", "spec": body["spec"], "status": status}).to_string();
            known.with(|world| world.replays.push((name, body)));
            replay.into_response()
        }
        (_, path) => match path.strip_prefix(OWN) {
            Some("subscriptions/acme-web") => {
                json!({"apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription", "metadata": {"name": "acme-web"}})
                    .to_string()
                    .into_response()
            }
            Some("workflowtriggers/draft") => known.with(|world| world.draft.clone()).to_string().into_response(),
            _ => missing(path.rsplit('/').next().unwrap_or_default()),
        },
    }
}

/// That somebody follows the draft, until it is dropped.
struct Listening(Arc<Known>);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.with(|world| world.listens = false);
    }
}

fn missing(name: &str) -> Response {
    failure(StatusCode::NOT_FOUND, &format!("\"{name}\" not found"), name)
}

fn failure(code: StatusCode, message: &str, name: &str) -> Response {
    let reason = code.canonical_reason().unwrap_or_default().replace(' ', "");
    let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason,
        "message": message, "details": {"name": name}});
    (code, status.to_string()).into_response()
}

fn tokio_stream(changes: broadcast::Receiver<String>) -> impl futures::Stream<Item = Result<String>> {
    futures::stream::unfold(changes, async |mut changes| Some((changes.recv().await, changes)))
        .take_while(|change| std::future::ready(change.is_ok()))
        .map(|change| Ok(change?))
}
