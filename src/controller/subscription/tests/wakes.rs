//! Which Subscriptions a change of something else wakes.

use super::super::by_secret;
use crate::api::{Subscription, TriggerPlugin};
use crate::controller::cache::Cache;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

fn filled<K>(objects: Vec<Value>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + 'static,
{
    let (reader, mut writer) = store();
    for object in objects {
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(object).expect("an object")));
    }
    reader
}

fn subscription(namespace: &str, name: &str, plugin: &str, authorization: Value) -> Value {
    json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"pluginRef": {"name": plugin}, "authorization": authorization},
    })
}

fn plugin(name: &str, default_client: Option<&str>) -> Value {
    let mut object = json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "TriggerPlugin", "metadata": {"name": name},
        "spec": {
            "displayName": "Forge", "allowedOrigins": ["https://forge.example"],
            "authorization": {"oauth2": {
                "authorizationURL": "https://forge.example/authorize", "tokenURL": "https://forge.example/token",
            }},
            "callback": {"verification": [{"none": {}}], "event": "body.event"},
            "events": [{"name": "push", "title": "Push"}],
        },
    });
    if let Some(secret) = default_client {
        let client = json!({"secretRef": {"name": secret}, "origins": ["https://forge.example"]});
        object["spec"]["authorization"]["oauth2"]["defaultClient"] = client;
    }
    object
}

/// Who is woken by the Secret `client` in this namespace, with this label.
fn woken(namespace: &str, label: &str) -> Vec<String> {
    let subscriptions = Cache::new(filled::<Subscription>(vec![
        subscription("team-a", "takes-default", "forge", json!({"oauth2": {}})),
        subscription("team-b", "takes-default", "forge", json!({"oauth2": {}})),
        subscription("team-a", "brings-its-own", "forge", json!({"oauth2": {"clientSecretRef": {"name": "mine"}}})),
        subscription(
            "team-a",
            "names-one-like-it",
            "forge",
            json!({"oauth2": {"clientSecretRef": {"name": "client"}}}),
        ),
        subscription("team-a", "has-a-token", "forge", json!({"apiKey": {"secretRef": {"name": "client"}}})),
        subscription("team-a", "of-another-plugin", "other", json!({"oauth2": {}})),
    ]));
    let all: Vec<_> =
        subscriptions.store().state().iter().map(|subscription| ObjectRef::from_obj(&**subscription)).collect();
    subscriptions.replace(&all);
    let plugins: Store<TriggerPlugin> = filled(vec![plugin("forge", Some("client")), plugin("other", None)]);
    let secret: PartialObjectMeta<Secret> = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "client", "namespace": namespace, "labels": {"bellhop.dev/credentials-for": label}},
    }))
    .expect("metadata");
    let refs = by_secret(subscriptions, plugins, "bellhop-system".to_owned())(secret);
    let mut names: Vec<_> =
        refs.into_iter().map(|found| format!("{}/{}", found.namespace.unwrap_or_default(), found.name)).collect();
    names.sort();
    names
}

#[test]
fn a_default_client_wakes_those_that_take_it_wherever_they_are() {
    let takers = ["team-a/takes-default", "team-b/takes-default"];
    assert_eq!(woken("bellhop-system", "forge"), takers);
    // It was theirs, or will be: they have to say so.
    assert_eq!(woken("bellhop-system", "other"), takers);
}

#[test]
fn a_secret_of_a_workspace_wakes_nobody_elsewhere() {
    let own = ["team-a/brings-its-own", "team-a/has-a-token", "team-a/names-one-like-it", "team-a/takes-default"];
    assert_eq!(woken("team-a", "forge"), own);
    assert_eq!(woken("team-b", "forge"), ["team-b/takes-default"]);
}
