//! Custodies whose Subscription is gone without its finalizer having run, because somebody removed the finalizer or
//! restored the cluster without the object: their webhooks are deleted all the same.

use super::custody::{self, Custody};
use super::watch::{Changes, stream};
use super::{Context, Failure, subscription, uid_of};
use crate::api::Subscription;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Runs the controller until `shutdown`. `custodies` are all that are kept, `changes` what happens to them.
pub async fn run(
    custodies: Store<PartialObjectMeta<Secret>>,
    changes: Changes<PartialObjectMeta<Secret>>,
    subscriptions: Changes<Subscription>,
    context: Arc<Context>,
    shutdown: CancellationToken,
) {
    let namespace = context.common.namespace.clone();
    let of_subscription = move |subscription: Subscription| {
        let uid = uid_of(&subscription).ok()?;
        Some(ObjectRef::new(&Custody::secret_name(uid)).within(&namespace))
    };
    Controller::for_stream(stream(changes), custodies)
        .with_config(super::config(4))
        .watches_stream(stream(subscriptions), of_subscription)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |secret, failure, context| context.requeue_failed(&*secret, failure), context)
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(secret: Arc<PartialObjectMeta<Secret>>, context: Arc<Context>) -> Result<Action, Failure> {
    let uid = secret.name_any().strip_prefix("custody-").and_then(|uid| uid.parse::<uuid::Uuid>().ok());
    if uid
        .is_some_and(|uid| context.subscriptions.find(|known| uid_of(known).is_ok_and(|known| known == uid)).is_some())
    {
        return Ok(Action::await_change());
    }
    let api = Api::<Secret>::namespaced(context.client.clone(), &context.common.namespace);
    let Some(secret) = api.get_opt(&secret.name_any()).await? else { return Ok(Action::await_change()) };
    let stored = custody::read(&secret)?;
    let custody = stored.custody.clone();
    // The cache may be behind; only the API server can say that the Subscription is gone.
    let live =
        Api::<Subscription>::namespaced(context.client.clone(), &custody.namespace).get_opt(&custody.name).await?;
    if live.as_ref().is_some_and(|live| uid_of(live).is_ok_and(|uid| uid == custody.uid)) {
        return Ok(Action::await_change());
    }
    // A Subscription that was made anew has the same callback URL; if it looks in the same place, it finds the webhook
    // and adopts it.
    let successor = live.is_some_and(|live| {
        live.spec.plugin_ref == custody.accepted.plugin_ref && live.spec.parameters == custody.accepted.parameters
    });
    if !successor && !subscription::delete_webhooks(&context, stored).await? {
        return Ok(Action::requeue(Duration::ZERO));
    }
    subscription::leftovers(&context, custody.uid, &custody.namespace, &custody.accepted.plugin_ref.name).await?;
    tracing::warn!(
        namespace = custody.namespace,
        subscription = custody.name,
        "the Subscription was gone without its finalizer; its webhook is deleted"
    );
    Ok(Action::await_change())
}
