//! The request log: what became of every request, for people and programs.
//!
//! What is stored is read from the spool; what is not (`passing`) is kept in memory. `model` is what readers see, `convert`
//! and `mask` make it, `query`, `watch` and `replay` answer questions of a namespace, and `serve` is how the controller asks
//! them, at a listener of its own (`tls`) or, in one process, by calling its router. `api` is how people ask the controller.

pub mod api;
pub mod convert;
pub mod mask;
pub mod model;
pub mod passing;
mod places;
mod query;
mod replay;
pub mod sending;
mod serve;
#[cfg(test)]
mod tests;
mod tls;
mod watch;

pub use query::{ALL, Question};
pub use replay::ReplayError;
pub use serve::{network, router};
pub use tls::{SERVER_NAME, server_config};

use crate::ingress::now_millis;
use crate::routes::{Handle, Lookup};
use crate::spool::{Spool, SpoolError};
use crate::turns::in_turn;
use mask::Mask;
use model::Request;
use passing::Passing;
use places::{Hall, Places};
use std::sync::Arc;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Questions that read the disk at the same time; further ones wait.
const READERS: usize = 4;
/// Watches at the same time; questions about all namespaces share as one does.
const WATCHES: Places = Places { total: 64, each: 16 };

/// The request log of one replica of the ingress. Clones are the same.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    routes: Handle,
    spool: Spool,
    passing: Arc<Passing>,
    replica: Arc<str>,
    readers: Arc<Semaphore>,
    /// Of replays that hold a request against a trigger, one after the other: how many people ask for it is up to them.
    matches: Arc<Semaphore>,
    watches: Hall,
}

impl Log {
    /// The log of the replica with this number.
    pub fn new(routes: Handle, spool: Spool, passing: Arc<Passing>, replica: Arc<str>) -> Self {
        let (readers, matches) = (Arc::new(Semaphore::new(READERS)), Arc::new(Semaphore::new(1)));
        Self(Arc::new(Inner { routes, spool, passing, replica, readers, matches, watches: Hall::new(WATCHES) }))
    }

    /// Reads the disk on a thread that may wait for it, when it is its turn.
    async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Log) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, SpoolError> {
        let log = self.clone();
        in_turn(&self.0.readers, move || work(&log)).await.unwrap_or(Err(SpoolError::Stopped))
    }

    /// What is kept of a namespace's requests that are not stored, newest first.
    fn passing(&self, namespace: &str) -> Vec<Arc<Request>> {
        let oldest = self.0.spool.oldest(now_millis());
        self.0.passing.forget(oldest, |uid| matches!(self.0.routes.by_uid(uid), Lookup::Gone));
        self.0.passing.of_namespace(namespace)
    }

    /// What is known of a Subscription now: its plugin, and what must not be shown, as far as that is known.
    fn about(&self, subscription: Uuid) -> (Option<Arc<str>>, Option<Mask>) {
        match self.0.routes.by_uid(subscription) {
            Lookup::Served(route) => (Some(route.plugin_name().clone()), Some(Mask::of(Some(&route)))),
            Lookup::Waits { plugin, .. } => (Some(plugin), None),
            Lookup::Gone => (None, None),
        }
    }
}

/// The number of the replica whose host is called so: what the name of a StatefulSet's pod ends in; else `0`.
pub fn replica(host: &str) -> String {
    let number = host.rsplit_once('-').map(|(_, number)| number).unwrap_or_default();
    let decimal = !number.is_empty() && number.len() <= 5 && number.bytes().all(|b| b.is_ascii_digit());
    if decimal { number.to_owned() } else { "0".to_owned() }
}
