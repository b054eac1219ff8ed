//! Tells those that talk to the internal listener what they have to know: the ingress, which authorities to believe and
//! what to prove itself with; the API server, which authorities to believe and under which path to ask.

use super::{Identity, Newest};
use crate::api::PublishedController;
use crate::controller::{Failure, backoff, ignore_not_found};
use crate::telemetry::Metrics;
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use k8s_openapi::{ByteString, ClusterResourceScope};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::Duration;
use url::Url;

/// Field manager of what is written here.
const FIELD_MANAGER: &str = "bellhop-certificates";
/// How often it is written again, in case that somebody has removed it.
const AGAIN: Duration = Duration::from_secs(300);

/// Names of the objects by which the API server knows the internal listener; nothing: there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Objects<'a> {
    /// The ValidatingWebhookConfiguration, which gets authorities and path.
    pub configuration: Option<&'a str>,
    /// The APIService, which gets authorities.
    pub api_service: Option<&'a str>,
}

/// Publishes every new identity, for ever; to stop it, drop it. Only the controller that holds the Lease does so.
pub async fn publish(
    client: kube::Client,
    ingress_namespace: &str,
    objects: Objects<'_>,
    newest: Newest,
    metrics: Metrics,
) {
    tokio::join!(
        to_ingress(&client, ingress_namespace, newest.clone()),
        to_api_server(&client, objects.configuration, of_configuration, newest.clone(), &metrics),
        to_api_server(&client, objects.api_service, of_api_service, newest.clone(), &metrics),
    );
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

/// Keeps one object of a kind: `patch` is what makes it tell what it has to, if it does not already.
async fn to_api_server<K>(
    client: &kube::Client,
    name: Option<&str>,
    patch: fn(&K, &Identity) -> Option<Patch<Value>>,
    mut newest: Newest,
    metrics: &Metrics,
) where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + Sync + k8s_openapi::Resource + 'static,
{
    let Some(name) = name else { return };
    let (api, kind) = (Api::<K>::all(client.clone()), <K as k8s_openapi::Resource>::KIND);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(crate::watch::watch(vec![api.clone()], &config, kind, metrics));
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let (mut known, mut failures) = (None, 0);
    loop {
        let identity = newest.borrow_and_update().clone();
        let mut pause = AGAIN;
        let behind = known.as_ref().zip(identity).and_then(|(known, identity)| patch(known, &identity));
        if let Some(patch) = behind {
            match ignore_not_found(api.patch(name, &params, &patch).await) {
                Ok(()) => failures = 0,
                Err(failure) => {
                    failures += 1;
                    tracing::warn!(error = %failure, "{kind} {name}: it cannot be told whom to believe and where to ask");
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

fn of_configuration(configuration: &ValidatingWebhookConfiguration, identity: &Identity) -> Option<Patch<Value>> {
    let told = Told { bundle: ByteString(identity.bundle().into_bytes()), path: identity.admission_path() };
    told.patch(configuration).map(Patch::Strategic)
}

fn of_api_service(service: &APIService, identity: &Identity) -> Option<Patch<Value>> {
    let wanted = ByteString(identity.bundle().into_bytes());
    let known = service.spec.as_ref().and_then(|spec| spec.ca_bundle.as_ref());
    (known != Some(&wanted)).then(|| Patch::Merge(json!({"spec": {"caBundle": wanted}})))
}

/// What the API server has to know.
struct Told {
    bundle: ByteString,
    path: String,
}

impl Told {
    /// What makes every webhook of the configuration believe these authorities and ask under this path, if that is not so
    /// already.
    fn patch(&self, configuration: &ValidatingWebhookConfiguration) -> Option<Value> {
        let webhooks = configuration.webhooks.iter().flatten();
        let behind: Vec<Value> = webhooks
            .filter_map(|webhook| {
                let config = &webhook.client_config;
                let mut change = json!({});
                if config.ca_bundle.as_ref() != Some(&self.bundle) {
                    change["caBundle"] = json!(self.bundle);
                }
                if config.service.as_ref().is_some_and(|service| service.path.as_ref() != Some(&self.path)) {
                    change["service"] = json!({"path": self.path});
                }
                if let Some(url) = config.url.as_deref().and_then(|url| self.moved(url)) {
                    change["url"] = json!(url);
                }
                (change != json!({})).then(|| json!({"name": webhook.name, "clientConfig": change}))
            })
            .collect();
        (!behind.is_empty()).then(|| json!({"webhooks": behind}))
    }

    /// The URL with this path after whatever a proxy needs before `/admission`; nothing if it is that already, or no URL.
    fn moved(&self, url: &str) -> Option<String> {
        let mut moved: Url = url.parse().ok()?;
        let before = moved.path().rsplit_once("/admission").map_or(moved.path(), |(before, _)| before);
        let path = format!("{}{}", before.trim_end_matches('/'), self.path);
        moved.set_path(&path);
        (moved.as_str() != url).then(|| moved.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        Told { bundle: ByteString(b"PEM".to_vec()), path: "/admission/t0ken".to_owned() }
    }

    fn configuration(configs: &[Value]) -> ValidatingWebhookConfiguration {
        let webhooks = ["a", "b"].iter().zip(configs).map(|(name, config)| {
            json!({"name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None", "clientConfig": config})
        });
        let object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "bellhop"}, "webhooks": webhooks.collect::<Vec<_>>(),
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_webhooks_that_are_behind_are_patched() {
        let bundle = json!(told().bundle);
        let service = |path: Value| json!({"namespace": "bellhop-system", "name": "bellhop-internal", "path": path});
        // As the chart renders it, without both.
        let new = json!({"service": service(Value::Null)});
        let done = json!({"service": service(json!("/admission/t0ken")), "caBundle": bundle});
        let change = json!({"service": {"path": "/admission/t0ken"}, "caBundle": bundle});
        let expected = json!({"webhooks": [{"name": "b", "clientConfig": change}]});
        assert_eq!(told().patch(&configuration(&[done.clone(), new])), Some(expected));
        assert_eq!(told().patch(&configuration(&[done])), None);
        assert_eq!(told().patch(&configuration(&[])), None);
        // One of a release before this one.
        let old = json!({"service": service(json!("/admission")), "caBundle": bundle});
        let change = json!({"service": {"path": "/admission/t0ken"}});
        let expected = json!({"webhooks": [{"name": "a", "clientConfig": change}]});
        assert_eq!(told().patch(&configuration(&[old])), Some(expected));
    }

    #[test]
    fn a_url_keeps_its_beginning() {
        let url = |url: &str| {
            let patch = told().patch(&configuration(&[json!({"url": url, "caBundle": told().bundle})]))?;
            patch["webhooks"][0]["clientConfig"]["url"].as_str().map(str::to_owned)
        };
        let moved = Some("https://192.0.2.1:9443/admission/t0ken".to_owned());
        for before in
            ["https://192.0.2.1:9443", "https://192.0.2.1:9443/admission", "https://192.0.2.1:9443/admission/old"]
        {
            assert_eq!(url(before), moved, "{before}");
        }
        assert_eq!(url("https://192.0.2.1:9443/admission/t0ken"), None);
        let behind_a_proxy = url("https://proxy.example/bellhop/admission");
        assert_eq!(behind_a_proxy.as_deref(), Some("https://proxy.example/bellhop/admission/t0ken"));
    }

    #[test]
    fn an_api_service_is_patched_if_it_is_behind() {
        let identity = crate::controller::certificates::made_for_tests();
        let known = ByteString(identity.bundle().into_bytes());
        let patch = |bundle: Value| {
            let service = serde_json::from_value(json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {},
                "spec": {"caBundle": bundle, "groupPriorityMinimum": 1, "versionPriority": 1},
            }));
            of_api_service(&service.unwrap(), &identity).map(|patch| match patch {
                Patch::Merge(content) => content,
                other => panic!("{other:?}"),
            })
        };
        let expected = Some(json!({"spec": {"caBundle": known}}));
        assert_eq!(patch(Value::Null), expected);
        assert_eq!(patch(json!(ByteString(b"x".to_vec()))), expected);
        assert_eq!(patch(json!(known)), None);
    }
}
