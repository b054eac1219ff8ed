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

/// Whether the custody belongs to a Subscription that is known. It says itself which one to look for, and has its UID in
/// its name.
fn is_kept_for(custody: &PartialObjectMeta<Secret>, known: impl Fn(&str, &str) -> Option<Arc<Subscription>>) -> bool {
    let named = custody.annotations().get(custody::SUBSCRIPTION_ANNOTATION);
    let Some((namespace, name)) = named.and_then(|named| named.split_once('/')) else { return false };
    let uid = known(namespace, name).and_then(|known| uid_of(&*known).ok());
    uid.is_some_and(|uid| Custody::secret_name(uid) == custody.name_any())
}

async fn reconcile(secret: Arc<PartialObjectMeta<Secret>>, context: Arc<Context>) -> Result<Action, Failure> {
    if is_kept_for(&secret, |namespace, name| context.subscriptions.get(namespace, name)) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_custody_is_kept_for_the_subscription_with_its_name_and_uid() {
        let uid = "00000000-0000-0000-0000-000000000007";
        let custody = |name: &str, subscription: &str| -> PartialObjectMeta<Secret> {
            let annotations = json!({"bellhop.dev/subscription": subscription});
            serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}})).unwrap()
        };
        let known = |namespace: &str, name: &str| {
            let subscription = json!({
                "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
                "metadata": {"namespace": namespace, "name": name, "uid": uid},
                "spec": {"pluginRef": {"name": "p"}, "authorization": {"manual": {}}},
            });
            (namespace == "team" && name == "web").then(|| Arc::new(serde_json::from_value(subscription).unwrap()))
        };
        let own = format!("custody-{uid}");
        assert!(is_kept_for(&custody(&own, "team/web"), known));
        assert!(!is_kept_for(&custody("custody-00000000-0000-0000-0000-000000000008", "team/web"), known));
        assert!(!is_kept_for(&custody(&own, "team/other"), known));
        assert!(!is_kept_for(&custody(&own, "team"), known));
    }
}
