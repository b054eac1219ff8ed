//! The snapshot that the ingress serves from: which callback URLs there are, with which plugin and secrets, and which
//! triggers wait for their events.
//!
//! [`Index`] puts it together from objects, without I/O; [`watch`] feeds it from the API server; readers ask a
//! [`Handle`] and never wait, neither for a lock nor for the API server.

mod index;
mod shards;
mod tally;
#[cfg(test)]
pub(crate) mod tests;
mod traffic;
mod watch;

pub use index::{Counts, Index};
pub use tally::Tallies;
pub use traffic::{Activity, LogGate, Traffic, Untold};
pub use watch::watch;

use crate::api::{
    Listening, Mode, PublishedController, PublishedRoute, PublishedRunner, RouteVersion, RunnerGone, TriggerPluginSpec,
    WorkflowTrigger, WorkflowTriggerSpec,
};
use crate::plugin::{self, KeySet, Mistake, Outgoing, Plugin, PublicKeys, Secret};
use crate::telemetry::Metrics;
use arc_swap::ArcSwap;
use index::{Table, token_key};
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// The longest token that is looked up, in bytes; it keeps a flood of long paths from costing time.
const MAX_TOKEN: usize = 256;

/// A TriggerPlugin that compiles.
struct Compiled {
    plugin: Plugin,
    /// Names, in lower case, of the headers in which senders present or tell the callback secret itself.
    secret_headers: Vec<String>,
    /// Names of the query parameters in which they do.
    secret_queries: Vec<String>,
}

impl Compiled {
    fn new(name: &str, spec: &TriggerPluginSpec) -> Result<Self, Vec<Mistake>> {
        let plugin = Plugin::compile(name, spec)?;
        Ok(Self { secret_headers: plugin.secret_headers(), secret_queries: plugin.secret_queries(), plugin })
    }
}

/// A callback URL that is served.
pub struct Route {
    published: Arc<PublishedRoute>,
    secrets: Arc<[Secret]>,
    plugin: Arc<Compiled>,
    plugin_name: Arc<str>,
    workspace: Arc<str>,
    rules: Vec<Arc<Rule>>,
    traffic: Arc<Traffic>,
}

impl Route {
    /// UID of the Subscription.
    pub fn uid(&self) -> Uuid {
        self.published.uid
    }

    /// Namespace of the Subscription.
    pub fn namespace(&self) -> &Arc<str> {
        &self.workspace
    }

    /// Name of the Subscription.
    pub fn name(&self) -> &str {
        &self.published.name
    }

    /// The callback secrets, any of which proves the sender.
    pub fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// The compiled TriggerPlugin.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin.plugin
    }

    /// Whether the header (in lower case) carries a callback secret.
    pub fn is_secret_header(&self, name: &str) -> bool {
        self.plugin.secret_headers.iter().any(|secret| secret == name)
    }

    /// Names, in lower case, of the headers that carry a callback secret.
    pub fn secret_headers(&self) -> &[String] {
        &self.plugin.secret_headers
    }

    /// Names of the query parameters that carry a callback secret.
    pub fn secret_queries(&self) -> &[String] {
        &self.plugin.secret_queries
    }

    /// The callback URL as it was registered, where the external system signs it.
    pub fn url(&self) -> Option<&str> {
        self.published.url.as_deref()
    }

    /// Whether the secret that callbacks are signed with from now on has still to be told.
    pub fn awaits_secret(&self) -> bool {
        self.published.awaits_secret
    }

    /// Name of the TriggerPlugin.
    pub fn plugin_name(&self) -> &Arc<str> {
        &self.plugin_name
    }

    /// Whether the event belongs to the subscribed ones.
    pub fn is_subscribed(&self, event: &str) -> bool {
        self.published.events.iter().any(|subscribed| subscribed == event)
    }

    /// The triggers of the Subscription that may fire, by name: the published ones, and drafts that are asked to listen.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// What the route has under way.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Route").field(&self.published).finish()
    }
}

/// A WorkflowTrigger, whatever its mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Its UID.
    pub uid: Uuid,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: String,
    /// What its author wants.
    pub spec: WorkflowTriggerSpec,
    /// What a runner that is gone is gone for.
    pub state: RunnerGone,
    /// Whether its runner is gone, so that nothing fires until the state is another one.
    pub gone: bool,
    /// Until when it listens, if it is a draft that is asked to.
    pub listening: Option<Listening>,
}

impl Trigger {
    /// Takes what is needed from an object of the API server that is seen at `now`. An object without a name or a UID is
    /// none.
    pub fn from_object(object: WorkflowTrigger, now: Timestamp) -> Option<Self> {
        let known = object.status.as_ref().and_then(|status| status.listening.as_ref());
        let listening = Listening::of(&object, known, now);
        let (state, gone) = (RunnerGone::state_of(&object), RunnerGone::pauses(&object));
        Some(Self {
            state,
            gone,
            listening,
            uid: object.metadata.uid?.parse().ok()?,
            namespace: object.metadata.namespace?.into(),
            name: object.metadata.name?,
            spec: object.spec,
        })
    }
}

impl Trigger {
    /// Whether events are held against it at this time (Unix milliseconds).
    pub fn is_awake(&self, at: u64) -> bool {
        match self.spec.mode {
            Mode::Published => true,
            Mode::Draft => self.listening.as_ref().is_some_and(|listening| {
                u64::try_from(listening.until.0.as_millisecond()).is_ok_and(|until| at < until)
            }),
            Mode::Suspended => false,
        }
    }
}

/// A trigger that may fire, compiled against the plugin of its Subscription.
pub struct Rule {
    /// The trigger.
    pub trigger: Arc<Trigger>,
    /// The compiled form, or why there is none: such a trigger never fires, and the request log says why.
    pub compiled: Result<plugin::Trigger, String>,
}

impl Rule {
    fn compile(trigger: Arc<Trigger>, plugin: &Plugin) -> Self {
        let spec = &trigger.spec;
        let compiled = plugin
            .compile_trigger(&spec.event, &spec.parameters, spec.filter.as_deref())
            .map_err(|mistake| format!("the trigger is not valid: {mistake}"));
        Self { trigger, compiled }
    }
}

/// A WorkflowTrigger and everything that sending to its runner needs.
#[derive(Clone)]
pub struct Target {
    /// The trigger.
    pub trigger: Arc<Trigger>,
    /// What its runner is sent, or why that cannot be.
    pub outgoing: Arc<Result<Outgoing, String>>,
    /// What is published of its runner's secrets. They may be those of the runner that the trigger had before.
    pub secrets: Option<Arc<PublishedRunner>>,
}

impl Target {
    fn new(trigger: Arc<Trigger>) -> Self {
        let outgoing = Outgoing::compile(&trigger.spec.runner, None).map_err(|mistakes| plugin::join(&mistakes));
        Self { trigger, outgoing: Arc::new(outgoing), secrets: None }
    }
}

/// Why a published route is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitReason {
    /// There is no such TriggerPlugin.
    #[error("there is no such TriggerPlugin")]
    PluginMissing,
    /// The TriggerPlugin does not compile.
    #[error("the TriggerPlugin does not compile")]
    PluginInvalid,
}

/// What is known of a Subscription.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// It is served.
    Served(Arc<Route>),
    /// It is published, but cannot be served for now.
    Waits {
        /// Name of its TriggerPlugin.
        plugin: Arc<str>,
        /// Why.
        reason: WaitReason,
    },
    /// Nothing is published.
    Gone,
}

/// That a draft listens because somebody follows it; ends when it is dropped.
pub struct Following {
    routes: Handle,
    namespace: String,
    trigger: String,
    who: Uuid,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.routes.update(|index| index.unfollow(&self.namespace, &self.trigger, self.who));
    }
}

/// Access to the snapshot. Clones see the same one.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    table: Arc<Table>,
    index: Mutex<Index>,
    synced: tokio::sync::watch::Sender<bool>,
    /// Counts the changes.
    version: tokio::sync::watch::Sender<u64>,
    metrics: Metrics,
    tallies: Tallies,
    away: ArcSwap<HashMap<Uuid, u64>>,
    /// URLs of JWK Sets of which a key was missed, until the controller is told.
    missed_keys: Mutex<BTreeSet<String>>,
}

impl Handle {
    /// An empty snapshot that is not synced.
    pub fn new(metrics: Metrics) -> Self {
        let table = Arc::new(Table::new());
        Self(Arc::new(Shared {
            index: Mutex::new(Index::new(table.clone())),
            table,
            synced: tokio::sync::watch::Sender::new(false),
            version: tokio::sync::watch::Sender::new(0),
            metrics,
            tallies: Tallies::default(),
            away: ArcSwap::default(),
            missed_keys: Mutex::default(),
        }))
    }

    /// The route with this token.
    pub fn by_token(&self, token: &str) -> Option<Arc<Route>> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return None;
        }
        self.0.table.by_token.get(&token_key(token))
    }

    /// The route of the Subscription with this UID.
    pub fn by_uid(&self, uid: Uuid) -> Lookup {
        self.0.table.by_uid.get(&uid).unwrap_or(Lookup::Gone)
    }

    /// The route of the Subscription of this name. One that was deleted and made again can have two for a moment; then it is
    /// one that is served, if there is any.
    pub fn by_name(&self, namespace: &str, name: &str) -> Lookup {
        let uids = self.0.index.lock().unwrap_or_else(PoisonError::into_inner).of_subscription(namespace, name);
        let mut found = Lookup::Gone;
        for uid in uids {
            match self.by_uid(uid) {
                served @ Lookup::Served(_) => return served,
                waits @ Lookup::Waits { .. } => found = waits,
                Lookup::Gone => {}
            }
        }
        found
    }

    /// The WorkflowTrigger with this UID, whatever its mode.
    pub fn trigger(&self, uid: Uuid) -> Option<Arc<Trigger>> {
        self.target(uid).map(|target| target.trigger)
    }

    /// The WorkflowTrigger with this UID, with what sending to its runner needs.
    pub fn target(&self, uid: Uuid) -> Option<Target> {
        let target = self.0.table.targets.get(&uid)?;
        Some(Target { secrets: self.0.table.secrets.get(&uid), ..target })
    }

    /// Changes the snapshot. May take milliseconds where something has to be compiled; readers do not wait for it.
    pub fn update<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        let mut index = self.0.index.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut index);
        let counts = index.counts();
        drop(index);
        self.0.metrics.routes(counts.served, counts.unserved, counts.plugins_invalid, counts.triggers_invalid);
        self.0.version.send_modify(|version| *version += 1);
        result
    }

    /// Says that the snapshot is complete; from now on what is not in it does not exist.
    pub fn set_synced(&self) {
        self.0.synced.send_replace(true);
    }

    /// Whether the snapshot has been complete once.
    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until the snapshot is complete.
    pub async fn synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.0.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether exactly this version of the route is served: the same token, secrets and events.
    pub fn serves(&self, version: &RouteVersion) -> bool {
        match self.by_uid(version.uid) {
            Lookup::Served(route) => route.published.version() == *version,
            Lookup::Waits { .. } | Lookup::Gone => false,
        }
    }

    /// Has a draft listen until then, or until the answer is dropped. It need not be there yet, and what is no draft does
    /// nothing of it.
    pub fn follow(&self, namespace: &str, trigger: &str, until: Timestamp) -> Following {
        let who = Uuid::new_v4();
        self.update(|index| index.follow(namespace, trigger, who, until));
        Following { routes: self.clone(), namespace: namespace.to_owned(), trigger: trigger.to_owned(), who }
    }

    /// Waits until exactly this version is served. Give it a time limit: a route whose plugin does not compile is never
    /// served.
    pub async fn confirmed(&self, version: &RouteVersion) {
        self.until(|| self.serves(version)).await;
    }

    /// Waits until the route of the Subscription with this UID is no longer served.
    pub async fn forgotten(&self, uid: Uuid) {
        self.until(|| matches!(self.by_uid(uid), Lookup::Gone)).await;
    }

    /// How the controller is reached, as far as it is published, and every change of that.
    pub fn controller(&self) -> tokio::sync::watch::Receiver<Option<PublishedController>> {
        self.0.index.lock().unwrap_or_else(PoisonError::into_inner).controller()
    }

    /// Requests of which the controller has still to be told at `now`: `most` Subscriptions at most, each once in
    /// `interval` (both in milliseconds).
    pub fn untold(&self, now: u64, interval: u64, most: usize) -> Vec<Untold> {
        let mut untold = Vec::new();
        self.0.table.by_uid.for_each(|uid, lookup| {
            if let Lookup::Served(route) = lookup
                && untold.len() < most
                && let Some(at) = route.traffic.activity.untold(now, interval)
            {
                untold.push(Untold { uid: *uid, at, traffic: route.traffic.clone() });
            }
        });
        untold
    }

    /// What triggers have done since the controller was told.
    pub fn tallies(&self) -> &Tallies {
        &self.0.tallies
    }

    /// Pauses a trigger whose runner was gone when it was in this state; false if it is in another one by now.
    pub fn pause(&self, trigger: Uuid, state: &RunnerGone) -> bool {
        self.update(|index| index.pause(trigger, state))
    }

    /// The triggers that are paused here and in whose status that is not seen yet: `most` at most.
    pub fn paused(&self, most: usize) -> Vec<(Uuid, RunnerGone)> {
        let mut paused = Vec::new();
        self.0.table.paused.for_each(|uid, state| {
            if paused.len() < most {
                paused.push((*uid, state.clone()));
            }
        });
        paused
    }

    /// The triggers whose runner is left alone because it does not answer, and since when (Unix milliseconds).
    pub fn away(&self) -> Arc<HashMap<Uuid, u64>> {
        self.0.away.load_full()
    }

    /// Says which they are.
    pub fn set_away(&self, away: HashMap<Uuid, u64>) {
        self.0.away.store(Arc::new(away));
    }

    /// Calls `each` with every WorkflowTrigger, whatever its mode.
    pub fn each_trigger(&self, mut each: impl FnMut(&Trigger)) {
        self.0.table.targets.for_each(|_, target| each(&target.trigger));
    }

    /// The JWK Sets of which keys were missed since it was asked last.
    pub fn take_missed_keys(&self) -> Vec<String> {
        std::mem::take(&mut *self.missed_keys()).into_iter().collect()
    }

    fn missed_keys(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.missed_keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change of the snapshot.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    async fn until(&self, condition: impl Fn() -> bool) {
        let mut version = self.0.version.subscribe();
        while !condition() {
            if version.changed().await.is_err() {
                return;
            }
        }
    }
}

impl PublicKeys for Handle {
    fn keys(&self, url: &str) -> Option<Arc<KeySet>> {
        self.0.table.keys.get(&url.to_owned())
    }

    fn misses_key(&self, url: &str) {
        // URLs are those of plugins, not of senders.
        let mut missed = self.missed_keys();
        if !missed.contains(url) {
            missed.insert(url.to_owned());
        }
    }
}
