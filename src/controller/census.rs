//! Numbers about the cluster as a whole, read when the metrics are exported.

use super::Context;
use super::subscription::ORPHANS;
use crate::api::{Condition, Is, Subscription, type_};
use crate::telemetry::Metrics;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Name of the reading.
const SUBSCRIPTIONS: &str = "subscriptions";

/// Counts the Subscriptions as long as it lives.
pub struct Census(Metrics);

impl Census {
    /// Begins to count what the controllers know.
    pub fn start(context: &Arc<Context>) -> Self {
        let (store, plugins) = (context.subscriptions.store().clone(), context.plugins.store().clone());
        context.metrics.before_export(SUBSCRIPTIONS, move |metrics| {
            let is_plugin = |name: &str| plugins.get(&ObjectRef::new(name)).is_some();
            let subscriptions = store.state();
            let all = || subscriptions.iter().map(|subscription| &**subscription);
            metrics.subscriptions(count(all(), is_plugin));
            metrics.subscriptions_expiring(expiring(all(), is_plugin));
            metrics.webhook_expiry(ends(all(), is_plugin));
        });
        Self(context.metrics.clone())
    }
}

impl Drop for Census {
    /// A controller that has lost the Lease knows nothing any more.
    fn drop(&mut self) {
        self.0.forget_reading(SUBSCRIPTIONS);
        self.0.subscriptions(BTreeMap::new());
        self.0.subscriptions_expiring(BTreeMap::new());
        self.0.webhook_expiry(BTreeMap::new());
        self.0.orphaned_webhooks(0);
    }
}

/// Counts the webhooks that were given up, for ever; to stop it, drop it. Whoever has removed one by hand removes its line
/// from the ConfigMap.
pub async fn orphans(context: &Context) {
    let api = Api::<ConfigMap>::namespaced(context.client.clone(), &context.common.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={ORPHANS}"));
    let mut events = std::pin::pin!(crate::watch::watch(vec![api], &config, "ConfigMap", &context.metrics));
    while let Some(event) = events.next().await {
        match event {
            Event::Init | Event::Delete(_) => context.metrics.orphaned_webhooks(0),
            Event::InitApply(map) | Event::Apply(map) => {
                context.metrics.orphaned_webhooks(map.data.unwrap_or_default().len());
            }
            Event::InitDone => {}
        }
    }
}

/// By plugin (empty if there is none with that name: labels are not for users to fill) and reason of the condition
/// `Ready`; one that nobody has looked at yet counts as `Pending`.
fn count<'a>(
    subscriptions: impl Iterator<Item = &'a Subscription>,
    is_plugin: impl Fn(&str) -> bool,
) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for subscription in subscriptions {
        let mut conditions = subscription.status.iter().flat_map(|status| &status.conditions);
        let reason = match conditions.find(|condition| condition.type_ == type_::READY) {
            Some(ready) if ready.status == Is::True.as_str() => "Ready",
            Some(ready) => &ready.reason,
            None => "Pending",
        };
        *counts.entry((plugin_of(subscription, &is_plugin), reason.to_owned())).or_insert(0) += 1;
    }
    counts
}

/// By plugin and reason of the condition `Expiring`, where it is true.
fn expiring<'a>(
    subscriptions: impl Iterator<Item = &'a Subscription>,
    is_plugin: impl Fn(&str) -> bool,
) -> BTreeMap<(String, String), usize> {
    let mut counts = BTreeMap::new();
    for subscription in subscriptions {
        let mut conditions = subscription.status.iter().flat_map(|status| &status.conditions);
        let is_expiring =
            |condition: &&Condition| condition.type_ == type_::EXPIRING && condition.status == Is::True.as_str();
        if let Some(expiring) = conditions.find(is_expiring) {
            *counts.entry((plugin_of(subscription, &is_plugin), expiring.reason.clone())).or_insert(0) += 1;
        }
    }
    counts
}

fn plugin_of(subscription: &Subscription, is_plugin: impl Fn(&str) -> bool) -> String {
    let name = &subscription.spec.plugin_ref.name;
    if is_plugin(name) { name.clone() } else { String::new() }
}

/// When the first webhook of each plugin ends, in seconds since the Unix epoch; not those of plugins that do not exist.
fn ends<'a>(
    subscriptions: impl Iterator<Item = &'a Subscription>,
    is_plugin: impl Fn(&str) -> bool,
) -> BTreeMap<String, i64> {
    let mut ends = BTreeMap::new();
    for subscription in subscriptions.filter(|subscription| is_plugin(&subscription.spec.plugin_ref.name)) {
        let webhooks = subscription.status.iter().flat_map(|status| &status.webhooks);
        let Some(first) = webhooks.filter_map(|webhook| webhook.expires_at.as_ref()).min() else { continue };
        let end = ends.entry(subscription.spec.plugin_ref.name.clone()).or_insert(i64::MAX);
        *end = first.0.as_second().min(*end);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn subscription(plugin: &str, status: serde_json::Value) -> Subscription {
        serde_json::from_value(json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription", "metadata": {"name": "x"},
            "spec": {"pluginRef": {"name": plugin}, "authorization": {"manual": {}}},
            "status": status,
        }))
        .unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> serde_json::Value {
        let time = "2026-01-01T00:00:00Z";
        json!({"type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": time})
    }

    fn lines(counts: BTreeMap<(String, String), usize>) -> Vec<String> {
        counts.into_iter().map(|((plugin, reason), count)| format!("{plugin} {reason} {count}")).collect()
    }

    #[test]
    fn the_first_end_of_a_plugins_webhooks_is_told() {
        let subscription = |plugin: &str, webhooks| subscription(plugin, json!({"webhooks": webhooks}));
        let all = [
            subscription("graph", json!([{"id": "1", "expiresAt": "2026-01-02T00:00:00Z"}])),
            subscription("graph", json!([{"id": "2"}, {"id": "3", "expiresAt": "2026-01-01T00:00:00Z"}])),
            subscription("gitea", json!([{"id": "4"}])),
            subscription("no-such-plugin", json!([{"id": "5", "expiresAt": "2025-01-01T00:00:00Z"}])),
        ];
        let ends = ends(all.iter(), |name| name != "no-such-plugin");
        assert_eq!(ends.into_iter().collect::<Vec<_>>(), [("graph".to_owned(), 1_767_225_600)]);
    }

    #[test]
    fn subscriptions_are_counted_by_plugin_and_reason() {
        let subscription = |plugin: &str, conditions| subscription(plugin, json!({"conditions": conditions}));
        let ready = |status: &str, reason: &str| condition("Ready", status, reason);
        let expiring = condition("Expiring", "True", "RenewalFailed");
        let all = [
            subscription("gitea", json!([ready("True", "Ready")])),
            subscription("gitea", json!([ready("True", "Ready"), condition("Expiring", "False", "RenewalFailed")])),
            subscription("gitea", json!([expiring, ready("False", "CredentialsRefused")])),
            subscription("github", json!([])),
            subscription("no-such-plugin", json!([ready("False", "PluginNotReady")])),
        ];
        let is_plugin = |name: &str| name != "no-such-plugin";
        assert_eq!(
            lines(count(all.iter(), is_plugin)),
            [" PluginNotReady 1", "gitea CredentialsRefused 1", "gitea Ready 2", "github Pending 1"]
        );
        assert_eq!(lines(super::expiring(all.iter(), is_plugin)), ["gitea RenewalFailed 1"]);
    }
}
