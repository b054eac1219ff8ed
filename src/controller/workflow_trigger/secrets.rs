//! What a runner needs of the workspace's Secrets: read, published for the ingress, and withdrawn.

use super::plan::Missing;
use crate::api::{CREDENTIALS_FOR_LABEL, FOR_RUNNERS, PublishedRunner, WorkflowTrigger, reason};
use crate::controller::labelled::{self, Content, Labelled};
use crate::controller::{Context, Failure, ignore_not_found, uid_of};
use crate::plugin::Outgoing;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};

/// Publishes what the ingress needs to send to the trigger's runner. What it must not have any more, it loses.
///
/// # Errors
/// The API server failed. What is missing is no error.
pub async fn publish(context: &Context, trigger: &WorkflowTrigger) -> Result<Result<(), Missing>, Failure> {
    let (uid, namespace) = (uid_of(trigger)?, trigger.namespace().unwrap_or_default());
    let (runner, name) = (&trigger.spec.runner, PublishedRunner::secret_name(uid));
    if !runner.needs_secrets() {
        if context.published.get(&context.common.ingress_namespace, &name).is_some() {
            withdraw(context, &name).await?;
        }
        return Ok(Ok(()));
    }
    // A mistake is told by its own condition.
    let Ok(outgoing) = Outgoing::compile(runner, None) else {
        withdraw(context, &name).await?;
        return Ok(Ok(()));
    };
    let mut published = PublishedRunner::new(uid, &namespace, &trigger.name_any(), runner);
    match gather(context, trigger, &outgoing, &mut published).await? {
        Ok(()) => write(context, &published).await.map(Ok),
        Err(missing) => {
            withdraw(context, &name).await?;
            Ok(Err(missing))
        }
    }
}

async fn gather(
    context: &Context,
    trigger: &WorkflowTrigger,
    outgoing: &Outgoing,
    published: &mut PublishedRunner,
) -> Result<Result<(), Missing>, Failure> {
    let (runner, namespace) = (&trigger.spec.runner, &published.namespace);
    if let Some(credentials) = &runner.credentials {
        let (field, name) = ("spec.runner.credentials.secretRef", &credentials.secret_ref.name);
        let content = match read(context, namespace, field, name).await? {
            Ok(content) => content,
            Err(missing) => return Ok(Err(missing)),
        };
        for key in outgoing.credential_keys() {
            match text(&content, field, name, key) {
                Ok(value) => drop(published.credentials.insert(key.clone(), value)),
                Err(missing) => return Ok(Err(missing)),
            }
        }
    }
    if let Some(signature) = &runner.signature {
        let (field, reference) = ("spec.runner.signature.secretRef", &signature.secret_ref);
        let content = match read(context, namespace, field, &reference.name).await? {
            Ok(content) => content,
            Err(missing) => return Ok(Err(missing)),
        };
        let secret = match text(&content, field, &reference.name, &reference.key) {
            Ok(secret) => secret,
            Err(missing) => return Ok(Err(missing)),
        };
        if let Err(problem) = published.set_signing_secret(&secret) {
            let message = format!(
                "{field}: the Secret \"{}\" has no signing secret under the key `{}`: {problem}; write whsec_ and base64, \
                 or the secret itself",
                reference.name, reference.key
            );
            return Ok(Err(Missing { reason: reason::SECRET_KEY_MISSING, message }));
        }
    }
    Ok(Ok(()))
}

async fn read(
    context: &Context,
    namespace: &str,
    field: &str,
    name: &str,
) -> Result<Result<Content, Missing>, Failure> {
    Ok(match labelled::read(&context.client, namespace, name, FOR_RUNNERS).await? {
        Labelled::Content(content) => Ok(content),
        Labelled::Missing => {
            let message = format!("{field}.name: there is no Secret \"{name}\" in the namespace {namespace}");
            Err(Missing { reason: reason::SECRET_NOT_FOUND, message })
        }
        Labelled::ForOthers => {
            let message = format!(
                "{field}.name: the Secret \"{name}\" is not meant for runners; \
                 add the label {CREDENTIALS_FOR_LABEL}={FOR_RUNNERS} to it"
            );
            Err(Missing { reason: reason::SECRET_NOT_LABELLED, message })
        }
    })
}

fn text(content: &Content, field: &str, name: &str, key: &str) -> Result<String, Missing> {
    content.text(key).ok_or_else(|| {
        let keys = content.keys();
        let message = format!("{field}: the Secret \"{name}\" must have text under the key `{key}`; it has {keys}");
        Missing { reason: reason::SECRET_KEY_MISSING, message }
    })
}

async fn write(context: &Context, published: &PublishedRunner) -> Result<(), Failure> {
    let namespace = &context.common.ingress_namespace;
    let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
    let secret = published.to_secret(namespace);
    let name = secret.name_any();
    let there = api.get_opt(&name).await?;
    let same = |there: Secret| {
        there.labels() == secret.labels() && PublishedRunner::from_secret(&there).is_ok_and(|found| found == *published)
    };
    if there.is_some_and(same) {
        return Ok(());
    }
    api.patch(&name, &PatchParams::apply(super::FIELD_MANAGER).force(), &Patch::Apply(&secret)).await?;
    Ok(())
}

/// Takes back what the ingress had.
pub async fn withdraw(context: &Context, name: &str) -> Result<(), Failure> {
    let api = Api::<Secret>::namespaced(context.client.clone(), &context.common.ingress_namespace);
    ignore_not_found(api.delete(name, &DeleteParams::default()).await)
}
