//! Removes what a Subscription has left in the external system and in Bellhop's namespaces.

use super::{Blocked, apply, calls};
use crate::api::{DELETION_POLICY_ANNOTATION, PublishedRoute, Subscription, reason, type_};
use crate::controller::custody::{Custody, WebhookState};
use crate::controller::{Context, Failure, PluginState, ignore_not_found};
use crate::plugin::Plugin;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// ConfigMap in Bellhop's namespace that lists the webhooks which were given up.
pub const ORPHANS: &str = "bellhop-orphaned-webhooks";

/// Deletes the webhook, or gives it up where the user's annotation or the deadline says so.
///
/// # Errors
/// [`Failure::Blocked`] says why the webhook is still there.
pub async fn webhook(context: &Context, subscription: &Subscription, custody: &Custody) -> Result<(), Failure> {
    if subscription.annotations().get(DELETION_POLICY_ANNOTATION).is_some_and(|policy| policy == "Orphan") {
        return give_up(context, custody, "the annotation bellhop.dev/deletion-policy asks for it").await;
    }
    let Err(failure) = delete(context, custody).await else { return Ok(()) };
    let Failure::Blocked(mut blocked) = failure else { return Err(failure) };
    let deadline = deadline(context, &custody.namespace).await?;
    let waited = waited(subscription);
    if waited >= deadline {
        let why = format!("it could not be deleted within {} s: {}", deadline.as_secs(), blocked.message);
        return give_up(context, custody, &why).await;
    }
    let what = match &custody.webhook {
        WebhookState::Registered { id } => format!("webhook {id}"),
        _ => "a webhook that may have been created".to_owned(),
    };
    blocked.message = format!(
        "{what} could not be deleted: {}; tried again until the deadline of {} s, then given up",
        blocked.message,
        deadline.as_secs()
    );
    blocked.condition = type_::READY;
    blocked.reason = reason::DELETION_FAILED;
    blocked.stalled = false;
    // What the external system asks for ends where the deadline does.
    blocked.retry_after = blocked.retry_after.map(|after| after.min(deadline - waited));
    Err(Failure::Blocked(blocked))
}

/// Deletes the webhook with the credentials in custody, or with those that the user has put in their place since.
///
/// # Errors
/// [`Failure::Blocked`] says why the webhook is still there.
pub async fn delete(context: &Context, custody: &Custody) -> Result<(), Failure> {
    if custody.webhook == WebhookState::None {
        return Ok(());
    }
    let name = &custody.accepted.plugin_ref.name;
    let plugin = match context.plugins.get(name) {
        PluginState::Ready(plugin) => plugin,
        PluginState::NotFound => return Err(plugin_missing(format!("there is no TriggerPlugin \"{name}\" any more"))),
        PluginState::Broken(mistakes) => {
            return Err(plugin_missing(format!("TriggerPlugin \"{name}\" has mistakes: {mistakes}")));
        }
    };
    let first = delete_with(context, &plugin, custody).await;
    let refused = matches!(&first, Err(Failure::Blocked(blocked)) if blocked.reason == reason::CREDENTIALS_REFUSED);
    if !refused {
        return first;
    }
    let Some(method) = &custody.accepted.authorization.api_key else { return first };
    match apply::read_credentials(context, &custody.namespace, &method.secret_ref.name, &plugin).await {
        Ok(credentials) if credentials != custody.credentials => {
            delete_with(context, &plugin, &Custody { credentials, ..custody.clone() }).await
        }
        _ => first,
    }
}

async fn delete_with(context: &Context, plugin: &Plugin, custody: &Custody) -> Result<(), Failure> {
    let ids = match &custody.webhook {
        WebhookState::Registered { id } => vec![id.clone()],
        _ => match calls::find(context, plugin, custody, type_::READY).await? {
            Some(ids) => ids,
            None => {
                return give_up(context, custody, "a create call was not confirmed, and the plugin cannot list").await;
            }
        },
    };
    for id in ids {
        calls::delete(context, plugin, custody, &id).await?;
    }
    Ok(())
}

fn plugin_missing(message: String) -> Failure {
    Blocked::retrying(type_::READY, reason::DELETION_FAILED, message).into()
}

/// Removes the published route, the custody and the slot, in this order: what is needed last goes last.
///
/// # Errors
/// The API server failed.
pub async fn leftovers(context: &Context, uid: Uuid, workspace: &str, plugin: &str) -> Result<(), Failure> {
    let published = Api::<Secret>::namespaced(context.client.clone(), &context.common.ingress_namespace);
    ignore_not_found(published.delete(&PublishedRoute::secret_name(uid), &DeleteParams::default()).await)?;
    context.vault.remove(uid).await?;
    context.ledgers.release(workspace, plugin, uid).await
}

async fn give_up(context: &Context, custody: &Custody, why: &str) -> Result<(), Failure> {
    let id = match &custody.webhook {
        WebhookState::None => return Ok(()),
        WebhookState::Creating => "unknown".to_owned(),
        WebhookState::Registered { id } => id.clone(),
    };
    let plugin = &custody.accepted.plugin_ref.name;
    let record = json!({
        "namespace": custody.namespace, "name": custody.name, "plugin": plugin, "webhook": id, "why": why,
        "parameters": custody.accepted.parameters,
    });
    let orphans = Api::<ConfigMap>::namespaced(context.client.clone(), &context.common.namespace);
    // One field of the map for each orphan, so that records do not overwrite each other.
    let manager = format!("bellhop-orphan-{}", custody.uid);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ORPHANS},
        "data": {custody.uid.to_string(): record.to_string()},
    });
    orphans.patch(ORPHANS, &PatchParams::apply(&manager).force(), &Patch::Apply(&map)).await?;
    let note = format!("webhook {id} of {plugin} may stay in the external system: {why}");
    tracing::warn!(namespace = custody.namespace, subscription = custody.name, webhook = id, why, "gave a webhook up");
    context.warn(&subject(custody), "WebhookOrphaned", note).await;
    Ok(())
}

/// The Subscription as what an event is about; it may be gone already.
fn subject(custody: &Custody) -> Subscription {
    let mut subscription = Subscription::new(&custody.name, custody.accepted.clone());
    subscription.metadata.namespace = Some(custody.namespace.clone());
    subscription.metadata.uid = Some(custody.uid.to_string());
    subscription
}

fn waited(subscription: &Subscription) -> Duration {
    let Some(since) = &subscription.metadata.deletion_timestamp else { return Duration::ZERO };
    let seconds = k8s_openapi::jiff::Timestamp::now().as_second() - since.0.as_second();
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

async fn deadline(context: &Context, namespace: &str) -> Result<Duration, Failure> {
    let namespace = Api::<Namespace>::all(context.client.clone()).get_metadata_opt(namespace).await?;
    let terminating = namespace.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some());
    let options = &context.options;
    Ok(if terminating {
        options.deletion_deadline.min(options.namespace_deletion_deadline)
    } else {
        options.deletion_deadline
    })
}
