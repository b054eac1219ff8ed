//! `bellhop uninstall-notice`: what stays when Bellhop is uninstalled, said before it goes.

use crate::api::{FINALIZER, Subscription};
use crate::config::Common;
use anyhow::Context;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use std::fmt::Write;

/// ConfigMap in Bellhop's namespace that repeats the notice.
const NAME: &str = "bellhop-uninstalled";
/// Subscriptions that are named; of the others, only the number.
const NAMED: usize = 20;

/// Prints the notice, and leaves it in a ConfigMap for whoever comes later.
///
/// # Errors
/// The API server refused or did not answer.
pub async fn run(common: &Common) -> anyhow::Result<()> {
    let client = kube::Client::try_default().await.context("the configuration of the Kubernetes client")?;
    let mut names = Vec::new();
    for api in common.scope().apis::<Subscription>(&client) {
        let list = api.list(&ListParams::default()).await.context("the Subscriptions cannot be listed")?;
        names
            .extend(list.items.iter().map(|one| format!("{}/{}", one.namespace().unwrap_or_default(), one.name_any())));
    }
    names.sort();
    let notice = notice(&names, &common.namespace, &common.ingress_namespace);
    print!("{notice}");
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {"notice": notice},
    });
    let params = PatchParams::apply("bellhop-uninstall-notice").force();
    let api = Api::<ConfigMap>::namespaced(client, &common.namespace);
    let written = api.patch(NAME, &params, &Patch::Apply(map)).await;
    written.map(drop).with_context(|| format!("the ConfigMap {NAME} cannot be written"))
}

/// The words. `subscriptions` are `namespace/name`.
fn notice(subscriptions: &[String], namespace: &str, ingress_namespace: &str) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    if !subscriptions.is_empty() {
        let named = subscriptions.iter().take(NAMED).cloned().collect::<Vec<_>>().join(" ");
        let more = match subscriptions.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = write!(
            text,
            "Subscriptions that still exist ({}): {named}{more}\n\
             Their webhooks stay in the external systems, whose calls nobody answers from now on. Nothing is lost by \
             that: install the chart again with the same release name and namespace, and it takes them over as they \
             are.\n\
             To remove them instead: install the chart again, then\n\
             \x20   kubectl delete subscriptions.bellhop.dev --all --all-namespaces\n\
             and uninstall when the command has ended. Without Bellhop, a Subscription or its namespace that you delete \
             stays in the state Terminating, because the finalizer {FINALIZER} waits for Bellhop to delete the \
             webhook.\n",
            subscriptions.len()
        );
    }
    let _ = write!(
        text,
        "What stays in any case: the CustomResourceDefinitions, and the namespaces {namespace} (the installation key, \
         which makes the callback URLs, and what is needed to delete webhooks) and {ingress_namespace}.\n\
         To remove everything, once no Subscription exists any more:\n\
         \x20   kubectl delete crd triggerplugins.bellhop.dev subscriptions.bellhop.dev workflowtriggers.bellhop.dev\n\
         \x20   kubectl delete namespace {ingress_namespace} {namespace}\n"
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notice_names_subscriptions_and_how_to_finish() {
        let names: Vec<_> = (0..23).map(|n| format!("team-a/sub-{n:02}")).collect();
        let text = notice(&names, "bellhop-system", "bellhop-ingress");
        assert!(text.starts_with("Subscriptions that still exist (23): team-a/sub-00 "), "{text}");
        assert!(text.contains("team-a/sub-19 and 3 more\n") && !text.contains("sub-20"), "{text}");
        assert!(text.contains("kubectl delete subscriptions.bellhop.dev --all --all-namespaces"), "{text}");
        assert!(text.contains(FINALIZER), "{text}");
        let text = notice(&[], "bellhop-system", "bellhop-ingress");
        assert!(text.starts_with("What stays in any case"), "{text}");
    }
}
