//! Tells those that talk to the internal listener what they have to know: the ingress, which authorities to believe and
//! what to prove itself with; the API server, which authorities to believe.

use super::Newest;
use crate::api::PublishedController;
use crate::controller::{Failure, backoff, ignore_not_found};
use crate::telemetry::Metrics;
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};
use std::time::Duration;

/// Field manager of what is written here.
const FIELD_MANAGER: &str = "bellhop-certificates";
/// How often it is written again, in case that somebody has removed it.
const AGAIN: Duration = Duration::from_secs(300);

/// Publishes every new identity, for ever; to stop it, drop it. Only the controller that holds the Lease does so.
///
/// `configuration` is the name of the ValidatingWebhookConfiguration that gets the authorities; without one, none does.
pub async fn publish(
    client: kube::Client,
    ingress_namespace: &str,
    configuration: Option<&str>,
    newest: Newest,
    metrics: Metrics,
) {
    let api_server = async {
        match configuration {
            Some(name) => to_api_server(&client, name, newest.clone(), &metrics).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(to_ingress(&client, ingress_namespace, newest.clone()), api_server);
}

async fn to_ingress(client: &kube::Client, namespace: &str, mut newest: Newest) {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let mut failures = 0;
    loop {
        let identity = newest.borrow_and_update().clone();
        let mut pause = AGAIN;
        if let Some(identity) = identity {
            match tell_ingress(&api, &identity.published(), namespace).await {
                Ok(()) => failures = 0,
                Err(failure) => {
                    failures += 1;
                    tracing::warn!(error = %failure, "the ingress cannot be told how the controller is reached");
                    pause = backoff(failures);
                }
            }
        }
        wait(pause, &mut newest).await;
    }
}

async fn to_api_server(client: &kube::Client, name: &str, mut newest: Newest, metrics: &Metrics) {
    let api = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let kind = "ValidatingWebhookConfiguration";
    let mut events = std::pin::pin!(crate::watch::watch(vec![api.clone()], &config, kind, metrics));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let (mut known, mut failures) = (None, 0);
    loop {
        let identity = newest.borrow_and_update().clone();
        let mut pause = AGAIN;
        let behind = known.as_ref().zip(identity).and_then(|(known, identity)| patch(known, &identity.bundle()));
        if let Some(patch) = behind {
            match ignore_not_found(api.patch(name, &params, &Patch::Strategic(patch)).await) {
                Ok(()) => failures = 0,
                Err(failure) => {
                    failures += 1;
                    tracing::warn!(error = %failure, "{kind} {name}: it cannot be told which authority to believe");
                    pause = backoff(failures);
                }
            }
        }
        tokio::select! {
            () = wait(pause, &mut newest) => {}
            event = events.next() => match event {
                Some(Event::Apply(found) | Event::InitApply(found)) => known = Some(found),
                Some(Event::Init | Event::Delete(_)) => known = None,
                Some(Event::InitDone) | None => {}
            },
        }
    }
}

async fn wait(pause: Duration, newest: &mut Newest) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        // Without a keeper, nothing new will come.
        ended = newest.changed() => if ended.is_err() { std::future::pending().await },
    }
}

async fn tell_ingress(api: &Api<Secret>, published: &PublishedController, namespace: &str) -> Result<(), Failure> {
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let secret = published.to_secret(namespace);
    api.patch(PublishedController::SECRET, &params, &Patch::Apply(&secret)).await?;
    Ok(())
}

/// What makes every webhook of the configuration believe these authorities, if that is not so already.
fn patch(configuration: &ValidatingWebhookConfiguration, bundle: &str) -> Option<Value> {
    let wanted = ByteString(bundle.as_bytes().to_vec());
    let webhooks = configuration.webhooks.iter().flatten();
    let behind: Vec<Value> = webhooks
        .filter(|webhook| webhook.client_config.ca_bundle.as_ref() != Some(&wanted))
        .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": wanted}}))
        .collect();
    (!behind.is_empty()).then(|| json!({"webhooks": behind}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_webhooks_that_are_behind_are_patched() {
        let webhook = |name: &str, bundle: Value| {
            json!({
                "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": {"url": "https://127.0.0.1:1/admission", "caBundle": bundle},
            })
        };
        let configuration = |webhooks: Value| {
            let object = json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": "bellhop"}, "webhooks": webhooks,
            });
            serde_json::from_value::<ValidatingWebhookConfiguration>(object).unwrap()
        };
        let known = json!(ByteString(b"PEM".to_vec()));
        let both = configuration(json!([webhook("a", known.clone()), webhook("b", Value::Null)]));
        let expected = json!({"webhooks": [{"name": "b", "clientConfig": {"caBundle": known}}]});
        assert_eq!(patch(&both, "PEM"), Some(expected));
        assert_eq!(patch(&configuration(json!([webhook("a", known)])), "PEM"), None);
        assert_eq!(patch(&configuration(json!([])), "PEM"), None);
    }
}
