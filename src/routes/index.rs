//! What the three kinds of objects add up to. Plain and synchronous: objects go in, in any order, and after each of them
//! the table that readers see is right.

use super::shards::Shards;
use super::traffic::Traffic;
use super::{Compiled, Lookup, Route, Rule, Target, Trigger, WaitReason};
use crate::api::{
    Listening, Mode, PublishedController, PublishedRoute, PublishedRunner, RunnerGone, TriggerPluginSpec,
};
use crate::plugin::{KeySet, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::watch;
use tracing::warn;
use uuid::Uuid;

/// A token is looked up by its hash: how long the comparison of two hashes takes says nothing about the token.
pub(super) type TokenKey = [u8; 32];

pub(super) fn token_key(token: &str) -> TokenKey {
    Sha256::digest(token.as_bytes()).into()
}

/// What readers see. [`Index`] is its only writer.
pub(super) struct Table {
    pub by_token: Shards<TokenKey, Arc<Route>>,
    pub by_uid: Shards<Uuid, Lookup>,
    pub targets: Shards<Uuid, Target>,
    pub secrets: Shards<Uuid, Arc<PublishedRunner>>,
    /// Triggers that were paused here, until their status says it.
    pub paused: Shards<Uuid, RunnerGone>,
    /// Public keys of external systems, by the URL of their JWK Set.
    pub keys: Shards<String, Arc<KeySet>>,
}

impl Table {
    pub fn new() -> Self {
        Self {
            by_token: Shards::new(),
            by_uid: Shards::new(),
            targets: Shards::new(),
            secrets: Shards::new(),
            paused: Shards::new(),
            keys: Shards::new(),
        }
    }
}

/// Namespace and name.
type Named = (Arc<str>, Arc<str>);

struct PluginState {
    spec: TriggerPluginSpec,
    compiled: Option<Arc<Compiled>>,
}

struct RouteState {
    published: Arc<PublishedRoute>,
    secrets: Arc<[Secret]>,
    plugin: Arc<str>,
    subscription: Named,
    traffic: Arc<Traffic>,
    served: bool,
}

struct TriggerState {
    trigger: Arc<Trigger>,
    /// Until when its annotation asks it to listen; the trigger may listen longer, because of who follows it.
    asked: Option<Listening>,
    /// Compiled against the plugin that stands beside it; made when a route needs it.
    rule: Option<(Arc<Compiled>, Arc<Rule>)>,
}

impl TriggerState {
    fn is_invalid(&self) -> bool {
        self.rule.as_ref().is_some_and(|(_, rule)| rule.compiled.is_err())
    }
}

/// Numbers of what is and is not in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Routes that are served.
    pub served: usize,
    /// Routes that are not, because their plugin is missing or invalid.
    pub unserved: usize,
    /// TriggerPlugins that do not compile.
    pub plugins_invalid: usize,
    /// Published WorkflowTriggers that do not fit their plugin.
    pub triggers_invalid: usize,
}

/// See the module's documentation.
pub struct Index {
    table: Arc<Table>,
    counts: Counts,
    controller: watch::Sender<Option<PublishedController>>,
    plugins: HashMap<Arc<str>, PluginState>,
    routes: HashMap<Uuid, RouteState>,
    /// Those whose secrets are published, by the UID of their trigger.
    runners: HashSet<Uuid>,
    /// URLs of the JWK Sets whose keys are published, by the name of their Secret.
    keys: HashMap<String, String>,
    triggers: HashMap<Named, TriggerState>,
    /// Who follows which trigger, and until when.
    ears: HashMap<Named, HashMap<Uuid, Timestamp>>,
    /// Routes by what they depend on. A Subscription that was deleted and created again can have two for a moment.
    routes_of_plugin: HashMap<Arc<str>, HashSet<Uuid>>,
    routes_of_subscription: HashMap<Named, HashSet<Uuid>>,
    routes_of_token: HashMap<TokenKey, Vec<Uuid>>,
    /// Names of the triggers of a Subscription, in the order in which they are tried.
    triggers_of_subscription: HashMap<Named, BTreeSet<Arc<str>>>,
}

impl Index {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self {
            table,
            counts: Counts::default(),
            controller: watch::Sender::new(None),
            plugins: HashMap::new(),
            routes: HashMap::new(),
            runners: HashSet::new(),
            keys: HashMap::new(),
            triggers: HashMap::new(),
            ears: HashMap::new(),
            routes_of_plugin: HashMap::new(),
            routes_of_subscription: HashMap::new(),
            routes_of_token: HashMap::new(),
            triggers_of_subscription: HashMap::new(),
        }
    }

    /// Numbers of what is and is not in order.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// UIDs of the routes of the Subscription of this name.
    pub fn of_subscription(&self, namespace: &str, name: &str) -> Vec<Uuid> {
        let named: Named = (namespace.into(), name.into());
        self.routes_of_subscription.get(&named).into_iter().flatten().copied().collect()
    }

    /// Takes what is published of the controller, or forgets it.
    pub fn apply_controller(&mut self, controller: Option<PublishedController>) {
        self.controller.send_if_modified(|known| {
            let changed = *known != controller;
            *known = controller;
            changed
        });
    }

    /// Takes what is published of a runner's secrets.
    pub fn apply_runner(&mut self, published: PublishedRunner) {
        self.runners.insert(published.uid);
        self.table.secrets.insert(published.uid, Arc::new(published));
    }

    /// Forgets the secrets of the runner of the WorkflowTrigger with this UID.
    pub fn delete_runner(&mut self, uid: Uuid) {
        self.runners.remove(&uid);
        self.table.secrets.remove(&uid);
    }

    /// Forgets the secrets of runners of WorkflowTriggers whose UID is not in `uids`.
    pub fn retain_runners(&mut self, uids: &HashSet<Uuid>) {
        let gone: Vec<Uuid> = self.runners.iter().filter(|uid| !uids.contains(uid)).copied().collect();
        gone.into_iter().for_each(|uid| self.delete_runner(uid));
    }

    /// Takes the public keys of one place, published by the Secret with this name.
    pub fn apply_keys(&mut self, secret: &str, url: String, keys: KeySet) {
        self.table.keys.insert(url.clone(), Arc::new(keys));
        self.keys.insert(secret.to_owned(), url);
    }

    /// Forgets the public keys that the Secret with this name has published.
    pub fn delete_keys(&mut self, secret: &str) {
        if let Some(url) = self.keys.remove(secret) {
            self.table.keys.remove(&url);
        }
    }

    /// Forgets the public keys of all other Secrets than these.
    pub fn retain_keys(&mut self, secrets: &HashSet<&str>) {
        let gone: Vec<String> = self.keys.keys().filter(|name| !secrets.contains(name.as_str())).cloned().collect();
        gone.iter().for_each(|name| self.delete_keys(name));
    }

    /// Tells of every change of what is published of the controller.
    pub(super) fn controller(&self) -> watch::Receiver<Option<PublishedController>> {
        self.controller.subscribe()
    }

    /// Takes a TriggerPlugin. One that does not compile takes its routes out of service: they answer as unknown ones.
    pub fn apply_plugin(&mut self, name: &str, spec: &TriggerPluginSpec) {
        if self.plugins.get(name).is_some_and(|known| known.spec == *spec) {
            return; // A change of its status.
        }
        self.forget_plugin(name);
        let compiled = match Compiled::new(name, spec) {
            Ok(plugin) => Some(Arc::new(plugin)),
            Err(mistakes) => {
                let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
                warn!(plugin = name, mistakes = mistakes.len(), first, "a TriggerPlugin does not compile: not served");
                self.counts.plugins_invalid += 1;
                None
            }
        };
        self.plugins.insert(name.into(), PluginState { spec: spec.clone(), compiled });
        self.rebuild_all(self.routes_of_plugin.get(name).cloned());
    }

    /// Forgets a TriggerPlugin; its routes go out of service.
    pub fn delete_plugin(&mut self, name: &str) {
        self.forget_plugin(name);
        self.rebuild_all(self.routes_of_plugin.get(name).cloned());
    }

    fn forget_plugin(&mut self, name: &str) {
        if self.plugins.remove(name).is_some_and(|plugin| plugin.compiled.is_none()) {
            self.counts.plugins_invalid -= 1;
        }
    }

    /// Forgets the TriggerPlugins that are not in `names`.
    pub fn retain_plugins(&mut self, names: &HashSet<String>) {
        let gone: Vec<Arc<str>> = self.plugins.keys().filter(|name| !names.contains(&***name)).cloned().collect();
        gone.iter().for_each(|name| self.delete_plugin(name));
    }

    /// Takes a published route.
    pub fn apply_route(&mut self, published: PublishedRoute) {
        let uid = published.uid;
        let known = self.routes.get(&uid);
        if known.is_some_and(|known| *known.published == published) {
            return;
        }
        let traffic = known.map(|known| known.traffic.clone()).unwrap_or_default();
        self.unlink_route(uid);
        let state = RouteState {
            secrets: published.callback_secrets.iter().map(|secret| Secret::from(secret.as_str())).collect(),
            plugin: published.plugin.as_str().into(),
            subscription: (published.namespace.as_str().into(), published.name.as_str().into()),
            traffic,
            served: false,
            published: Arc::new(published),
        };
        self.counts.unserved += 1;
        self.routes_of_plugin.entry(state.plugin.clone()).or_default().insert(uid);
        self.routes_of_subscription.entry(state.subscription.clone()).or_default().insert(uid);
        self.routes_of_token.entry(token_key(&state.published.token)).or_default().push(uid);
        self.routes.insert(uid, state);
        self.rebuild(uid);
    }

    /// Forgets the published route of the Subscription with this UID.
    pub fn delete_route(&mut self, uid: Uuid) {
        let Some(old) = self.unlink_route(uid) else { return };
        self.table.by_uid.remove(&uid);
        self.release_token(uid, token_key(&old.published.token));
        for trigger in self.trigger_names(&old.subscription) {
            self.drop_unused_rule(&old.subscription, &trigger);
        }
    }

    /// Forgets the published routes of Subscriptions whose UID is not in `uids`.
    pub fn retain_routes(&mut self, uids: &HashSet<Uuid>) {
        let gone: Vec<Uuid> = self.routes.keys().filter(|uid| !uids.contains(*uid)).copied().collect();
        gone.into_iter().for_each(|uid| self.delete_route(uid));
    }

    /// Takes a route out of the books, but not out of the table.
    fn unlink_route(&mut self, uid: Uuid) -> Option<RouteState> {
        let old = self.routes.remove(&uid)?;
        *(if old.served { &mut self.counts.served } else { &mut self.counts.unserved }) -= 1;
        unlink(&mut self.routes_of_plugin, &old.plugin, &uid);
        unlink(&mut self.routes_of_subscription, &old.subscription, &uid);
        let key = token_key(&old.published.token);
        if let Some(claims) = self.routes_of_token.get_mut(&key) {
            claims.retain(|claim| *claim != uid);
            if claims.is_empty() {
                self.routes_of_token.remove(&key);
            }
        }
        Some(old)
    }

    /// Stops serving a token, if it is this route's, and gives it to the route that claimed it last.
    fn release_token(&mut self, uid: Uuid, key: TokenKey) {
        if self.table.by_token.get(&key).is_some_and(|route| route.uid() == uid) {
            self.table.by_token.remove(&key);
            let heir = self.routes_of_token.get(&key).and_then(|claims| claims.last()).copied();
            if let Some(heir) = heir.filter(|heir| *heir != uid) {
                self.rebuild(heir);
            }
        }
    }

    /// Takes a WorkflowTrigger.
    pub fn apply_trigger(&mut self, mut trigger: Trigger) {
        let named: Named = (trigger.namespace.clone(), trigger.name.as_str().into());
        let paused = self.table.paused.get(&trigger.uid);
        if paused.as_ref().is_some_and(|state| trigger.gone || *state != trigger.state) {
            self.table.paused.remove(&trigger.uid);
        } else {
            trigger.gone |= paused.is_some();
        }
        if let Some(known) = self.triggers.get(&named).and_then(|known| known.asked.as_ref())
            && trigger.listening.as_ref().is_some_and(|listening| listening.requested == known.requested)
        {
            // Seen before: its hour has begun then.
            trigger.listening = Some(known.clone());
        }
        let asked = trigger.listening.take();
        trigger.listening = self.heard(&named, asked.clone());
        if self.triggers.get(&named).is_some_and(|known| *known.trigger == trigger && known.asked == asked) {
            return; // A change of its status.
        }
        let before = self.unlink_trigger(&named);
        if let Some((uid, _)) = before.as_ref().filter(|(uid, _)| *uid != trigger.uid) {
            self.table.targets.remove(uid);
            self.table.paused.remove(uid);
        }
        let subscription: Named = (trigger.namespace.clone(), trigger.spec.subscription_ref.name.as_str().into());
        let trigger = Arc::new(trigger);
        self.table.targets.insert(trigger.uid, Target::new(trigger.clone()));
        self.triggers_of_subscription.entry(subscription.clone()).or_default().insert(named.1.clone());
        self.triggers.insert(named, TriggerState { trigger, asked, rule: None });
        if let Some((_, before)) = before.filter(|(_, before)| *before != subscription) {
            self.rebuild_all(self.routes_of_subscription.get(&before).cloned());
        }
        self.rebuild_all(self.routes_of_subscription.get(&subscription).cloned());
    }

    /// Pauses a trigger, if it is in this state.
    pub(super) fn pause(&mut self, uid: Uuid, state: &RunnerGone) -> bool {
        let target = self.table.targets.get(&uid);
        let Some(trigger) = target.map(|target| target.trigger).filter(|trigger| trigger.state == *state) else {
            return false;
        };
        if !trigger.gone {
            self.table.paused.insert(uid, state.clone());
            self.apply_again(&(trigger.namespace.clone(), trigger.name.as_str().into()));
        }
        true
    }

    /// The draft of this name listens until then (at the latest until it is no longer followed by `who`).
    pub(super) fn follow(&mut self, namespace: &str, name: &str, who: Uuid, until: Timestamp) {
        let named: Named = (namespace.into(), name.into());
        self.ears.entry(named.clone()).or_default().insert(who, until);
        self.apply_again(&named);
    }

    /// The draft of this name is no longer followed by `who`.
    pub(super) fn unfollow(&mut self, namespace: &str, name: &str, who: Uuid) {
        let named: Named = (namespace.into(), name.into());
        if let Some(ears) = self.ears.get_mut(&named) {
            ears.remove(&who);
            if ears.is_empty() {
                self.ears.remove(&named);
            }
        }
        self.apply_again(&named);
    }

    /// Takes a trigger as it is once more, because something that belongs to it has changed.
    fn apply_again(&mut self, named: &Named) {
        if let Some(state) = self.triggers.get(named) {
            // That it was paused here does not mean that its status says so.
            let gone = state.trigger.gone && self.table.paused.get(&state.trigger.uid).is_none();
            let trigger = Trigger { listening: state.asked.clone(), gone, ..Trigger::clone(&state.trigger) };
            self.apply_trigger(trigger);
        }
    }

    /// How long a trigger listens: as long as it is asked to, or as it is followed.
    fn heard(&self, named: &Named, asked: Option<Listening>) -> Option<Listening> {
        let followed = self.ears.get(named).and_then(|ears| ears.values().max()).copied();
        match (asked, followed) {
            (asked, None) => asked,
            (Some(asked), Some(followed)) if asked.until.0 >= followed => Some(asked),
            (_, Some(followed)) => Some(Listening { requested: String::new(), until: Time(followed) }),
        }
    }

    /// Forgets a WorkflowTrigger.
    pub fn delete_trigger(&mut self, namespace: &str, name: &str) {
        if let Some((uid, subscription)) = self.unlink_trigger(&(namespace.into(), name.into())) {
            self.table.paused.remove(&uid);
            self.table.targets.remove(&uid);
            self.rebuild_all(self.routes_of_subscription.get(&subscription).cloned());
        }
    }

    /// Forgets the WorkflowTriggers that are not in `names` (namespace and name).
    pub fn retain_triggers(&mut self, names: &HashSet<(String, String)>) {
        let names: HashSet<(&str, &str)> = names.iter().map(|(namespace, name)| (&**namespace, &**name)).collect();
        let gone = self.triggers.keys().filter(|(namespace, name)| !names.contains(&(&**namespace, &**name)));
        for (namespace, name) in gone.cloned().collect::<Vec<_>>() {
            self.delete_trigger(&namespace, &name);
        }
    }

    /// Takes a trigger out of the books, but not out of the table, and says its UID and its Subscription.
    ///
    /// A trigger that changes must stay in the table all the time: a delivery whose trigger is gone is given up.
    fn unlink_trigger(&mut self, named: &Named) -> Option<(Uuid, Named)> {
        let old = self.triggers.remove(named)?;
        if old.is_invalid() {
            self.counts.triggers_invalid -= 1;
        }
        let subscription: Named = (named.0.clone(), old.trigger.spec.subscription_ref.name.as_str().into());
        if let Some(names) = self.triggers_of_subscription.get_mut(&subscription) {
            names.remove(&named.1);
            if names.is_empty() {
                self.triggers_of_subscription.remove(&subscription);
            }
        }
        Some((old.trigger.uid, subscription))
    }

    fn trigger_names(&self, subscription: &Named) -> Vec<Arc<str>> {
        self.triggers_of_subscription.get(subscription).into_iter().flatten().cloned().collect()
    }

    fn drop_unused_rule(&mut self, subscription: &Named, trigger: &Arc<str>) {
        if self.routes_of_subscription.contains_key(subscription) {
            return;
        }
        if let Some(state) = self.triggers.get_mut(&(subscription.0.clone(), trigger.clone())) {
            if state.is_invalid() {
                self.counts.triggers_invalid -= 1;
            }
            state.rule = None;
        }
    }

    fn rebuild_all(&mut self, uids: Option<HashSet<Uuid>>) {
        uids.into_iter().flatten().for_each(|uid| self.rebuild(uid));
    }

    /// Brings what readers see of one route in line with the books.
    fn rebuild(&mut self, uid: Uuid) {
        let Some(state) = self.routes.get(&uid) else { return };
        let (published, secrets, name, subscription, traffic, was_served) = (
            state.published.clone(),
            state.secrets.clone(),
            state.plugin.clone(),
            state.subscription.clone(),
            state.traffic.clone(),
            state.served,
        );
        let key = token_key(&published.token);
        let plugin = match self.plugins.get(&name) {
            Some(PluginState { compiled: Some(plugin), .. }) => Ok(plugin.clone()),
            Some(_) => Err(WaitReason::PluginInvalid),
            None => Err(WaitReason::PluginMissing),
        };
        // A route that changed its token must not be reachable by the old one.
        if let Some(Lookup::Served(before)) = self.table.by_uid.get(&uid) {
            let old = token_key(&before.published.token);
            if old != key || plugin.is_err() {
                self.release_token(uid, old);
            }
        }
        let serves = plugin.is_ok();
        match plugin {
            Ok(plugin) => {
                let rules = self.rules(&subscription, &plugin);
                let workspace = subscription.0;
                let route =
                    Arc::new(Route { published, secrets, plugin, plugin_name: name, workspace, rules, traffic });
                self.table.by_uid.insert(uid, Lookup::Served(route.clone()));
                if self.routes_of_token.get(&key).and_then(|claims| claims.last()) == Some(&uid) {
                    self.table.by_token.insert(key, route);
                }
            }
            Err(reason) => self.table.by_uid.insert(uid, Lookup::Waits { plugin: name, reason }),
        }
        if was_served != serves {
            let (more, less) = match serves {
                true => (&mut self.counts.served, &mut self.counts.unserved),
                false => (&mut self.counts.unserved, &mut self.counts.served),
            };
            *more += 1;
            *less -= 1;
            if let Some(state) = self.routes.get_mut(&uid) {
                state.served = serves;
            }
        }
    }

    /// The rules of the triggers of a Subscription that may fire; compiles what is not compiled against this plugin yet.
    fn rules(&mut self, subscription: &Named, plugin: &Arc<Compiled>) -> Vec<Arc<Rule>> {
        let mut rules = Vec::new();
        for name in self.trigger_names(subscription) {
            let Some(state) = self.triggers.get_mut(&(subscription.0.clone(), name)) else { continue };
            match state.trigger.spec.mode {
                Mode::Published => {}
                Mode::Draft if state.trigger.listening.is_some() => {}
                Mode::Draft | Mode::Suspended => continue,
            }
            let was_invalid = state.is_invalid();
            let rule = match &state.rule {
                Some((compiled_with, rule)) if Arc::ptr_eq(compiled_with, plugin) => rule.clone(),
                _ => {
                    let rule = Arc::new(Rule::compile(state.trigger.clone(), &plugin.plugin));
                    state.rule = Some((plugin.clone(), rule.clone()));
                    rule
                }
            };
            match (was_invalid, rule.compiled.is_err()) {
                (false, true) => self.counts.triggers_invalid += 1,
                (true, false) => self.counts.triggers_invalid -= 1,
                _ => {}
            }
            rules.push(rule);
        }
        rules
    }
}

fn unlink<K, V>(map: &mut HashMap<K, HashSet<V>>, key: &K, value: &V)
where
    K: std::hash::Hash + Eq,
    V: std::hash::Hash + Eq,
{
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
