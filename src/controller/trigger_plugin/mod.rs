//! The controller of TriggerPlugins: says whether they compile, and holds those that are in use.

use super::subscription::Blocked;
use super::watch::{Changes, stream};
use super::{Context, Failure, authorization, uid_of};
use crate::api::{
    Conditions, FINALIZER, Is, OAuth2Grant, Subscription, TriggerPlugin, TriggerPluginStatus, reason, type_,
};
use crate::plugin::Mistake;
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use serde_json::json;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Field manager of what this controller writes.
const FIELD_MANAGER: &str = "bellhop-triggerplugin";
/// TriggerPlugins that are worked on at once.
const CONCURRENCY: u16 = 4;

/// The changes that the controller follows.
pub struct Followed {
    /// Its own kind.
    pub plugins: Changes<TriggerPlugin>,
    /// What refers to its TriggerPlugins.
    pub subscriptions: Changes<Subscription>,
}

/// What a change of a plugin has to touch for anybody to be told: its spec, its deletion, its finalizers.
///
/// Not its status: that counts the Subscriptions, so each new one would wake all others and their triggers, and those
/// that fail would call their external system once more.
pub fn worth_a_pass(plugin: &TriggerPlugin) -> Vec<u8> {
    let metadata = &plugin.metadata;
    let relevant = (metadata.generation, metadata.deletion_timestamp.is_some(), &metadata.finalizers);
    serde_json::to_vec(&relevant).unwrap_or_default()
}

/// Runs the controller until `shutdown`.
pub async fn run(followed: Followed, context: Arc<Context>, shutdown: CancellationToken) {
    let of_subscription =
        |subscription: Subscription| [ObjectRef::<TriggerPlugin>::new(&subscription.spec.plugin_ref.name)];
    Controller::for_stream(stream(followed.plugins), context.plugins.store().clone())
        .with_config(super::config(CONCURRENCY))
        .watches_stream(stream(followed.subscriptions), of_subscription)
        .reconcile_all_on(context.key_troubles.changes())
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |plugin, failure, context| context.requeue_failed(&*plugin, failure), context)
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(plugin: Arc<TriggerPlugin>, context: Arc<Context>) -> Result<Action, Failure> {
    context.pass("TriggerPlugin", keep(&context, &plugin)).await
}

async fn keep(context: &Context, plugin: &TriggerPlugin) -> Result<Action, Failure> {
    let users = users(context, &plugin.name_any());
    // Before the status, whose write would make the version that was read an old one.
    if users.is_empty() && is_held(plugin) {
        set_held(context, plugin, false).await?;
    }
    let compiled = context.plugins.compile(plugin);
    let keys = compiled.as_ref().ok().and_then(|plugin| context.key_troubles.condition(plugin.jwks_urls()));
    let mut status = status(plugin, &users, compiled.err().as_deref(), keys, Time(Timestamp::now()));
    status.oauth_redirect_url = redirect_url(plugin, &context.options.public_url);
    if plugin.status.as_ref() != Some(&status) {
        let api = Api::<TriggerPlugin>::all(context.client.clone());
        context.apply_status(FIELD_MANAGER, &api, plugin, &status).await?;
    }
    Ok(context.requeue(uid_of(plugin)?, None))
}

/// The Subscriptions of a plugin: those that are accepted or about to be. Those that are being deleted still need it, those
/// that were refused do not.
fn users(context: &Context, plugin: &str) -> Vec<Arc<Subscription>> {
    context.subscriptions.store().state_filter(|subscription| {
        let mut conditions = subscription.status.iter().flat_map(|status| &status.conditions);
        subscription.spec.plugin_ref.name == plugin
            && !conditions.any(|c| c.type_ == type_::ACCEPTED && c.status == Is::False.as_str())
    })
}

/// The first ten by name.
fn named(users: &[Arc<Subscription>]) -> String {
    let name = |user: &Arc<Subscription>| format!("{}/{}", user.namespace().unwrap_or_default(), user.name_any());
    let mut names: Vec<_> = users.iter().map(name).collect();
    names.sort();
    names.truncate(10);
    names.join(", ")
}

fn status(
    plugin: &TriggerPlugin,
    users: &[Arc<Subscription>],
    mistakes: Option<&Vec<Mistake>>,
    keys: Option<(&'static str, String)>,
    now: Time,
) -> TriggerPluginStatus {
    let old = plugin.status.clone().unwrap_or_default();
    let mut conditions = Conditions::new(&old.conditions, plugin.metadata.generation, now);
    let deleting = plugin.metadata.deletion_timestamp.is_some();
    match mistakes {
        _ if deleting && !users.is_empty() => {
            let message = format!("deleted when its {} Subscriptions are gone: {}", users.len(), named(users));
            conditions.set(type_::READY, Is::False, reason::IN_USE, message);
        }
        Some(mistakes) => {
            let message = crate::plugin::join(mistakes);
            conditions.set(type_::READY, Is::False, reason::INVALID_PLUGIN, message.clone());
            conditions.set(type_::STALLED, Is::True, reason::INVALID_PLUGIN, message);
        }
        None => {
            let message = format!("{} events can be subscribed", plugin.spec.events.len());
            conditions.set(type_::READY, Is::True, reason::READY, message);
        }
    }
    if let Some((reason, message)) = keys {
        conditions.set(type_::KEYS_NOT_FETCHED, Is::True, reason, message);
    }
    TriggerPluginStatus {
        observed_generation: plugin.metadata.generation,
        conditions: conditions.finish(),
        subscription_count: Some(u32::try_from(users.len()).unwrap_or(u32::MAX)),
        oauth_redirect_url: None,
    }
}

/// The redirect URL to register for an OAuth client, where a person's browser comes back by it.
fn redirect_url(plugin: &TriggerPlugin, public_url: &url::Url) -> Option<String> {
    let oauth2 = plugin.spec.authorization.oauth2.as_ref()?;
    let by_browser = oauth2.grant == OAuth2Grant::AuthorizationCode;
    by_browser.then(|| authorization::redirect_url(public_url).to_string())
}

/// Makes sure that the plugin stays as long as a Subscription needs it to delete its webhook.
///
/// The Subscription that is about to be accepted asks for it; this kind's own controller lets go when nobody is left.
///
/// # Errors
/// [`Failure::Blocked`] if the plugin is being deleted, [`Failure::Conflict`] if it was changed at the same moment.
pub async fn hold(context: &Context, name: &str) -> Result<(), Failure> {
    let Some(plugin) = context.plugins.resource(name) else {
        return Err(Failure::Conflict(format!("TriggerPlugin {name}")));
    };
    if plugin.metadata.deletion_timestamp.is_some() {
        let message = format!("TriggerPlugin \"{name}\" is being deleted");
        return Err(Blocked::waiting(type_::ACCEPTED, reason::PLUGIN_NOT_READY, message).into());
    }
    if is_held(&plugin) { Ok(()) } else { set_held(context, &plugin, true).await }
}

fn is_held(plugin: &TriggerPlugin) -> bool {
    plugin.finalizers().iter().any(|name| name == FINALIZER)
}

/// Sets or removes the finalizer; with the version that was read, so that another controller's finalizer is safe, and
/// so that a hold which was set meanwhile is not removed.
async fn set_held(context: &Context, plugin: &TriggerPlugin, held: bool) -> Result<(), Failure> {
    let mut finalizers = plugin.finalizers().to_vec();
    finalizers.retain(|name| name != FINALIZER);
    if held {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({"metadata": {"resourceVersion": plugin.resource_version(), "finalizers": finalizers}});
    let api = Api::<TriggerPlugin>::all(context.client.clone());
    let written = api.patch_metadata(&plugin.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
    super::ignore_not_found(written)
}
