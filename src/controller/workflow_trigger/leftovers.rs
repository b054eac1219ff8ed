//! Secrets of runners that were published for a WorkflowTrigger which is gone, or needs none any more: they are taken back.
//! A WorkflowTrigger has no finalizer, so nothing else notices; and what is left from before a start is found here too.

use super::secrets::withdraw;
use crate::api::{PublishedRunner, WorkflowTrigger};
use crate::controller::watch::{Changes, stream};
use crate::controller::{Context, Failure, config, uid_of};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Runs the controller until `shutdown`. `changes` is what happens to published Secrets.
pub async fn run(
    changes: Changes<PartialObjectMeta<Secret>>,
    triggers: Changes<WorkflowTrigger>,
    context: Arc<Context>,
    shutdown: CancellationToken,
) {
    let namespace = context.common.ingress_namespace.clone();
    let of_trigger = move |trigger: WorkflowTrigger| {
        let uid = uid_of(&trigger).ok()?;
        Some(ObjectRef::new(&PublishedRunner::secret_name(uid)).within(&namespace))
    };
    Controller::for_stream(stream(changes), context.published.store().clone())
        .with_config(config(4))
        .watches_stream(stream(triggers), of_trigger)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, |secret, failure, context| context.requeue_failed(&*secret, failure), context)
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(secret: Arc<PartialObjectMeta<Secret>>, context: Arc<Context>) -> Result<Action, Failure> {
    let name = secret.name_any();
    let Some(uid) = PublishedRunner::uid_in(&name) else { return Ok(Action::await_change()) };
    let needs = |trigger: &WorkflowTrigger| {
        uid_of(trigger).is_ok_and(|found| found == uid) && trigger.spec.runner.needs_secrets()
    };
    let trigger =
        PublishedRunner::trigger_of(&*secret).filter(|(namespace, _)| context.common.scope().contains(namespace));
    if let Some((namespace, trigger)) = trigger {
        if context.triggers.get(namespace, trigger).is_some_and(|trigger| needs(&trigger)) {
            return Ok(Action::await_change());
        }
        // The cache may be behind; only the API server can say that the trigger is gone.
        let api = Api::<WorkflowTrigger>::namespaced(context.client.clone(), namespace);
        if api.get_opt(trigger).await?.is_some_and(|trigger| needs(&trigger)) {
            return Ok(Action::await_change());
        }
    }
    withdraw(&context, &name).await?;
    Ok(Action::await_change())
}
