//! Removes what a Subscription has left in the external system and in Bellhop's namespaces.

use super::calls::{Calls, Changed};
use super::desk::{Desk, Tally};
use super::{Blocked, oauth, secrets};
use crate::api::{DELETION_POLICY_ANNOTATION, PublishedRoute, Subscription, reason, type_};
use crate::controller::custody::{Custody, Stored, WebhookRecord};
use crate::controller::{Context, Failure, PluginState, ignore_not_found};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// ConfigMap in Bellhop's namespace that lists the webhooks which were given up.
pub const ORPHANS: &str = "bellhop-orphaned-webhooks";

/// Deletes what the Subscription has in the external system, or gives it up where the user's annotation or the deadline
/// says so. Says whether nothing is left to be done; if not, the next pass goes on.
///
/// # Errors
/// [`Failure::Blocked`] says why a webhook is still there.
pub async fn webhooks(context: &Context, subscription: &Subscription, stored: Stored) -> Result<bool, Failure> {
    let custody = &stored.custody;
    if subscription.annotations().get(DELETION_POLICY_ANNOTATION).is_some_and(|policy| policy == "Orphan") {
        give_up(context, custody, "the annotation bellhop.dev/deletion-policy asks for it").await?;
        return Ok(true);
    }
    let failed = match delete(context, stored.clone()).await {
        Ok(done) => return Ok(done),
        Err(Failure::Blocked(blocked)) => *blocked,
        Err(failure) => return Err(failure),
    };
    // Some may be gone by now.
    let Some(stored) = context.vault.get(custody.uid).await? else { return Ok(true) };
    let custody = &stored.custody;
    let deadline = deadline(context, &custody.namespace).await?;
    let waited = waited(subscription);
    if waited >= deadline {
        let why = format!("it could not be deleted within {} s: {}", deadline.as_secs(), failed.message);
        give_up(context, custody, &why).await?;
        return Ok(true);
    }
    let what = match custody.webhooks.as_slice() {
        [record, rest @ ..] => match (record.id(), rest.len()) {
            (Some(id), 0) => format!("webhook {id}"),
            (Some(id), more) => format!("webhook {id} (and {more} more)"),
            (None, _) => "a webhook that may have been created".to_owned(),
        },
        [] => "a webhook".to_owned(),
    };
    Err(Blocked {
        message: format!(
            "{what} could not be deleted: {}; tried again until the deadline of {} s, then given up",
            failed.message,
            deadline.as_secs()
        ),
        condition: type_::READY,
        reason: reason::DELETION_FAILED,
        stalled: false,
        // What the external system asks for ends where the deadline does.
        retry_after: failed.retry_after.map(|after| after.min(deadline - waited)),
        ..failed
    }
    .into())
}

/// Deletes the webhooks with the credentials in custody, or with those that the user has put in their place since, and
/// gives the grant of OAuth back. Says whether that is done; if not, it was enough for one pass.
///
/// # Errors
/// [`Failure::Blocked`] says why a webhook is still there.
pub async fn delete(context: &Context, stored: Stored) -> Result<bool, Failure> {
    if stored.custody.webhooks.is_empty() && stored.custody.authorization.grant.is_none() {
        return Ok(true);
    }
    let name = &stored.custody.accepted.plugin_ref.name;
    let plugin = match context.plugins.get(name) {
        PluginState::Ready(plugin) => plugin,
        PluginState::NotFound => return Err(plugin_missing(format!("there is no TriggerPlugin \"{name}\" any more"))),
        PluginState::Broken(mistakes) => {
            return Err(plugin_missing(format!("TriggerPlugin \"{name}\" has mistakes: {mistakes}")));
        }
    };
    let tally = Tally::default();
    let desk = Desk { context, plugin: &plugin, tally: &tally, now: crate::controller::now() };
    let mut stored = oauth::fresh(&desk, stored).await?;
    while let Some(record) = stored.custody.webhooks.first().cloned() {
        if tally.is_full() {
            return Ok(false);
        }
        stored = delete_one(&desk, stored, &record).await?;
        stored = context.vault.record(&stored, |custody| custody.forget(record.attempt, None)).await?;
    }
    oauth::give_back(&desk, &stored.custody).await?;
    Ok(true)
}

async fn delete_one(desk: &Desk<'_>, stored: Stored, record: &WebhookRecord) -> Result<Stored, Failure> {
    let custody = &stored.custody;
    let Err(failure) = delete_with(desk, custody, record).await else { return Ok(stored) };
    let refused = matches!(&failure, Failure::Blocked(blocked) if blocked.reason == reason::CREDENTIALS_REFUSED);
    if !refused {
        return Err(failure);
    }
    if let Some(method) = &custody.accepted.authorization.api_key {
        let name = &method.secret_ref.name;
        let current = secrets::read_credentials(desk.context, &custody.namespace, name, desk.plugin).await;
        return match current {
            Ok(credentials) if credentials != custody.credentials => {
                delete_with(desk, &Custody { credentials: credentials.clone(), ..custody.clone() }, record).await?;
                // They are good: the other webhooks go with them.
                desk.context.vault.record(&stored, |custody| custody.credentials.clone_from(&credentials)).await
            }
            _ => Err(failure),
        };
    }
    let (stored, doubted) = oauth::doubt(desk.context, &stored).await?;
    if !doubted {
        return Err(failure);
    }
    let stored = oauth::fresh(desk, stored).await?;
    delete_with(desk, &stored.custody, record).await?;
    Ok(stored)
}

async fn delete_with(desk: &Desk<'_>, custody: &Custody, record: &WebhookRecord) -> Result<(), Failure> {
    let calls = Calls::new(desk, custody, type_::READY).about(record);
    if record.id().is_some() {
        return match calls.delete().await? {
            Changed::NoSuchCall => note_left(desk.context, custody, record, "the plugin cannot delete webhooks").await,
            Changed::Done(()) | Changed::Gone => Ok(()),
        };
    }
    let Some(found) = calls.find().await? else {
        let why = "a create call was not confirmed, and the plugin cannot list";
        return note_left(desk.context, custody, record, why).await;
    };
    for found in super::register::unknown(custody, found) {
        let of_event = Calls::new(desk, custody, type_::READY).of_event(record.event.as_deref());
        of_event.about_found(&found).delete().await?;
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

/// Gives up all webhooks that are known.
async fn give_up(context: &Context, custody: &Custody, why: &str) -> Result<(), Failure> {
    for record in &custody.webhooks {
        note_left(context, custody, record, why).await?;
    }
    Ok(())
}

/// Records that a webhook may stay in the external system.
///
/// # Errors
/// The API server failed.
pub async fn note_left(context: &Context, custody: &Custody, record: &WebhookRecord, why: &str) -> Result<(), Failure> {
    let id = record.id().unwrap_or("unknown");
    let plugin = &custody.accepted.plugin_ref.name;
    let entry = json!({
        "namespace": custody.namespace, "name": custody.name, "plugin": plugin, "webhook": id, "event": record.event,
        "why": why, "parameters": custody.accepted.parameters,
    });
    let orphans = Api::<ConfigMap>::namespaced(context.client.clone(), &context.common.namespace);
    // One field of the map for each orphan, so that records do not overwrite each other.
    let key = format!("{}.{}", custody.uid, &record.attempt.simple().to_string()[..8]);
    let manager = format!("bellhop-orphan-{key}");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ORPHANS}, "data": {key: entry.to_string()},
    });
    orphans.patch(ORPHANS, &PatchParams::apply(&manager).force(), &Patch::Apply(&map)).await?;
    let note = format!("webhook {id} of {plugin} may stay in the external system: {why}");
    tracing::warn!(namespace = custody.namespace, subscription = custody.name, webhook = id, why, "gave a webhook up");
    context.warn_anew(&subject(custody), "WebhookOrphaned", note).await;
    Ok(())
}

/// The Subscription as what an event is about; it may be gone already.
pub fn subject(custody: &Custody) -> Subscription {
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
