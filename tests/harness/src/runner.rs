//! A runner that records what it is asked to run.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::watch;

use crate::server::{Call, Server};

pub use crate::server::Reply;

/// A request as it arrived. Its parts are copies, so that many of them take little memory.
#[derive(Debug)]
pub struct Recorded {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The body.
    pub body: Bytes,
    /// When it had arrived.
    pub time: SystemTime,
    /// `name: value` lines, names in lower case.
    headers: String,
}

impl Recorded {
    fn new(call: &Call) -> Recorded {
        let mut headers = String::new();
        for (name, value) in &call.headers {
            headers.push_str(name.as_str());
            headers.push_str(": ");
            headers.push_str(&String::from_utf8_lossy(value.as_bytes()));
            headers.push('\n');
        }
        headers.shrink_to_fit();
        Recorded {
            method: call.method.to_string(),
            path: call.path.clone(),
            body: Bytes::copy_from_slice(&call.body),
            time: SystemTime::now(),
            headers,
        }
    }

    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All headers, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.lines().filter_map(|line| line.split_once(": "))
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.body)?)
    }
}

type Responder = Box<dyn Fn(&Recorded) -> Reply + Send + Sync>;

struct State {
    requests: RwLock<Vec<Arc<Recorded>>>,
    count: watch::Sender<usize>,
    responder: RwLock<Responder>,
}

/// An HTTP server that records every request, in the order of arrival, and answers 200 unless told otherwise.
pub struct Runner {
    server: Server,
    state: Arc<State>,
}

impl Runner {
    /// Starts a runner on a free port.
    pub fn start() -> Result<Runner> {
        Runner::start_on(crate::ports::free_port()?)
    }

    /// Starts a runner on this port.
    pub fn start_on(port: u16) -> Result<Runner> {
        Runner::start_at((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Starts a runner at this address.
    pub fn start_at(address: SocketAddr) -> Result<Runner> {
        let state = Arc::new(State {
            requests: RwLock::default(),
            count: watch::channel(0).0,
            responder: RwLock::new(Box::new(|_| Reply::ok())),
        });
        let shared = state.clone();
        let server = Server::start_at(
            address,
            Arc::new(move |call| {
                let recorded = Arc::new(Recorded::new(&call));
                let count = {
                    let mut requests = shared.requests.write().expect("no panic while the lock is held");
                    requests.push(recorded.clone());
                    requests.len()
                };
                shared.count.send_if_modified(|old| {
                    let more = count > *old;
                    *old = count.max(*old);
                    more
                });
                let reply = shared.responder.read().expect("responders do not panic")(&recorded);
                std::future::ready(reply).boxed()
            }),
        )?;
        Ok(Runner { server, state })
    }

    /// `http://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// Decides how requests are answered from now on. The closure sees the request after it was recorded.
    pub fn respond_with(&self, responder: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) {
        *self.state.responder.write().expect("responders do not panic") = Box::new(responder);
    }

    /// Everything recorded so far.
    pub fn requests(&self) -> Vec<Arc<Recorded>> {
        self.state.requests.read().expect("no panic while the lock is held").clone()
    }

    /// How many requests were recorded so far.
    pub fn count(&self) -> usize {
        self.state.requests.read().expect("no panic while the lock is held").len()
    }

    /// Waits until at least `count` requests were recorded, and returns all of them.
    pub async fn wait_for(&self, count: usize, timeout: Duration) -> Result<Vec<Arc<Recorded>>> {
        self.wait_until(&format!("{count} requests"), timeout, |requests| requests.len() >= count).await
    }

    /// Waits until what was recorded satisfies `enough`, and returns all of it.
    pub async fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        enough: impl Fn(&[Arc<Recorded>]) -> bool,
    ) -> Result<Vec<Arc<Recorded>>> {
        let mut changes = self.state.count.subscribe();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            changes.mark_unchanged();
            if enough(&self.state.requests.read().expect("no panic while the lock is held")) {
                return Ok(self.requests());
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                bail!("the runner did not get {what} within {timeout:?}; it got {} requests", self.count());
            }
        }
    }

    /// Forgets everything recorded.
    pub fn clear(&self) {
        let mut requests = self.state.requests.write().expect("no panic while the lock is held");
        requests.clear();
        self.state.count.send_replace(0);
    }

    /// Stops listening and closes every connection; what was recorded stays.
    pub fn stop(&self) {
        self.server.stop();
    }

    /// Listens on the same port again.
    pub fn start_again(&self) -> Result<()> {
        self.server.start_again()
    }
}
