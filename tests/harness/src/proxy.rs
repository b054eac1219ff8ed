//! A proxy in front of an external system, or of the API server, that loses, holds or answers calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use futures::FutureExt;
use tokio::sync::{OnceCell, watch};

use crate::server::{Call, Reply, Server};

/// What happens to a call.
#[derive(Debug, Clone)]
pub enum Action {
    /// It goes through.
    Pass,
    /// It does not reach the upstream; this is the answer.
    Respond(Reply),
    /// It does not reach the upstream; the connection is closed.
    Drop,
    /// The upstream acts on it, but the caller never gets the answer: the connection is closed.
    ForwardThenDrop,
    /// The upstream acts on it, but this is the answer.
    ForwardThenRespond(Reply),
    /// The upstream acts on it; the answer is kept until the test releases it.
    ForwardThenHold(Hold),
    /// It is kept, before the upstream has seen it, until the test releases it.
    HoldThenForward(Hold),
}

/// A meeting point of a test and a call that is on its way.
#[derive(Debug, Clone)]
pub struct Hold {
    reached: Arc<watch::Sender<usize>>,
    released: Arc<watch::Sender<bool>>,
}

impl Default for Hold {
    fn default() -> Hold {
        Hold { reached: Arc::new(watch::channel(0).0), released: Arc::new(watch::channel(false).0) }
    }
}

impl Hold {
    /// A hold that no call has reached.
    pub fn new() -> Hold {
        Hold::default()
    }

    /// Waits until a call is held.
    pub async fn reached(&self, timeout: Duration) -> Result<()> {
        let mut reached = self.reached.subscribe();
        tokio::time::timeout(timeout, reached.wait_for(|count| *count > 0))
            .await
            .with_context(|| format!("no call was held within {timeout:?}"))??;
        Ok(())
    }

    /// Lets every held call, and every later one, go on.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    async fn wait(&self) {
        self.reached.send_modify(|count| *count += 1);
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }
}

type Hook = Box<dyn Fn(&Call) -> Action + Send + Sync>;

enum Upstream {
    Http(String),
    /// The client belongs to the server's runtime, so it is made there.
    Kubernetes(Box<kube::Config>, OnceCell<kube::Client>),
}

struct State {
    upstream: Upstream,
    hook: RwLock<Hook>,
    counts: Mutex<BTreeMap<(String, String), usize>>,
}

/// An HTTP/1.1 proxy on a free loopback port. Calls pass unless told otherwise.
pub struct Proxy {
    server: Server,
    state: Arc<State>,
}

impl Proxy {
    /// Starts a proxy in front of `upstream` (`http://host:port`).
    pub fn start(upstream: &str) -> Result<Proxy> {
        Proxy::start_for(Upstream::Http(upstream.trim_end_matches('/').to_owned()))
    }

    /// Starts a proxy in front of an API server, which sees every call as one of `config`'s user. Answers are passed on
    /// as they come, so that watches work. It cannot be stopped and started again.
    pub fn start_for_api_server(config: kube::Config) -> Result<Proxy> {
        Proxy::start_for(Upstream::Kubernetes(Box::new(config), OnceCell::new()))
    }

    fn start_for(upstream: Upstream) -> Result<Proxy> {
        let state =
            Arc::new(State { upstream, hook: RwLock::new(Box::new(|_| Action::Pass)), counts: Mutex::default() });
        let shared = state.clone();
        let server = Server::start(Arc::new(move |call| handle(shared.clone(), call).boxed()))?;
        Ok(Proxy { server, state })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Writes a kubeconfig for this proxy, without credentials.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<()> {
        // JSON is YAML.
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "clusters": [{"name": "proxy", "cluster": {"server": self.url()}}],
            "users": [{"name": "proxy", "user": {}}],
        });
        Ok(std::fs::write(path, config.to_string())?)
    }

    /// Decides what happens to calls from now on.
    pub fn on_call(&self, hook: impl Fn(&Call) -> Action + Send + Sync + 'static) {
        *self.state.hook.write().expect("hooks do not panic") = Box::new(hook);
    }

    /// Lets calls pass again.
    pub fn pass(&self) {
        self.on_call(|_| Action::Pass);
    }

    /// How many calls came with this method and a path (without its query) that satisfies `path`.
    pub fn count(&self, method: &str, path: impl Fn(&str) -> bool) -> usize {
        self.counts().iter().filter(|((m, p), _)| m == method && path(p)).map(|(_, count)| count).sum()
    }

    /// How many calls came, by method and path (without its query).
    pub fn counts(&self) -> BTreeMap<(String, String), usize> {
        self.state.counts.lock().expect("no panic while the lock is held").clone()
    }

    /// Stops listening and closes every connection.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Listens on the same port again.
    pub fn start_again(&self) -> Result<()> {
        self.server.start_again()
    }
}

async fn handle(state: Arc<State>, call: Call) -> Reply {
    let path = call.path.split('?').next().unwrap_or_default().to_owned();
    *state
        .counts
        .lock()
        .expect("no panic while the lock is held")
        .entry((call.method.to_string(), path))
        .or_default() += 1;
    let action = state.hook.read().expect("hooks do not panic")(&call);
    match action {
        Action::Pass => forward(&state, call).await,
        Action::Respond(reply) => reply,
        Action::Drop => Reply::dropped(),
        Action::ForwardThenDrop => {
            forward(&state, call).await;
            Reply::dropped()
        }
        Action::ForwardThenRespond(reply) => {
            forward(&state, call).await;
            reply
        }
        Action::ForwardThenHold(hold) => {
            let reply = forward(&state, call).await;
            hold.wait().await;
            reply
        }
        Action::HoldThenForward(hold) => {
            hold.wait().await;
            forward(&state, call).await
        }
    }
}

/// These belong to one connection, or are made anew for each.
const OWN: [&str; 5] = ["connection", "content-length", "host", "keep-alive", "transfer-encoding"];

async fn forward(state: &State, call: Call) -> Reply {
    let forwarded = match &state.upstream {
        Upstream::Http(url) => forward_http(url, call).await,
        Upstream::Kubernetes(config, client) => forward_to_api_server(config, client, call).await,
    };
    forwarded.unwrap_or_else(|error| Reply::status(502).body(format!("proxy: {error:#}")))
}

async fn forward_http(upstream: &str, call: Call) -> Result<Reply> {
    let mut request = crate::http::client().request(call.method, format!("{upstream}{}", call.path)).body(call.body);
    for (name, value) in &call.headers {
        if !OWN.contains(&name.as_str()) {
            request = request.header(name, value);
        }
    }
    let response = request.send().await?;
    Ok(head(response.status().as_u16(), response.headers()).body(response.bytes().await?))
}

async fn forward_to_api_server(config: &kube::Config, client: &OnceCell<kube::Client>, call: Call) -> Result<Reply> {
    let client = client.get_or_try_init(async || kube::Client::try_from(config.clone())).await?;
    let mut request = Request::builder().method(call.method).uri(call.path);
    for (name, value) in &call.headers {
        if !OWN.contains(&name.as_str()) {
            request = request.header(name, value);
        }
    }
    let response = client.send(request.body(kube::client::Body::from(call.body.to_vec()))?).await?;
    let (parts, body) = response.into_parts();
    Ok(head(parts.status.as_u16(), &parts.headers).stream(Body::new(body)))
}

fn head(status: u16, headers: &HeaderMap) -> Reply {
    headers
        .iter()
        .filter(|(name, _)| !OWN.contains(&name.as_str()))
        .fold(Reply::status(status), |reply, (name, value)| {
            reply.header(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))
        })
}
