//! The support bundle of a Bellhop in pods, made from outside with a kubeconfig.

use crate::support::{NAMESPACE, Team, in_system, kubectl};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellhop_harness::{process, world as files};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;

/// Shorter values of Secrets, such as a type, may be words that are in a bundle for another reason.
const SHORTEST_SECRET: usize = 12;

/// Makes a bundle, looks for what it has to hold of this ready Subscription, and for every secret that there is.
pub async fn is_complete_and_has_no_secret(team: &Team, subscription: &str) -> Result<()> {
    let path = files::dir().join(format!("bundle-{}.tar.gz", team.namespace));
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellhop"));
    command.args(["support-bundle", "--output"]).arg(&path);
    command.env("KUBECONFIG", team.world.cluster.control_plane.kubeconfig());
    process::run(command).await?;
    let bundle = unpack(&path)?;
    let has = |file: &str, words: &[&str]| {
        let text = bundle.get(file).with_context(|| format!("{file} is not among {:?}", bundle.keys()))?;
        let missing: Vec<_> = words.iter().filter(|word| !text.contains(**word)).collect();
        ensure!(missing.is_empty(), "{file} has no {missing:?}:\n{text}");
        anyhow::Ok(())
    };

    let uid = ["get", "subscription.bellhop.dev", subscription, "-o", "jsonpath={.metadata.uid}"];
    let uid = team.kubectl(&uid).await?;
    has("version.txt", &["bellhop 0.", "Kubernetes v1."])?;
    has("triggerplugin.yaml", &["name: gitea"])?;
    has("subscription.yaml", &[subscription, &uid, &team.namespace, "/hooks/[masked]", "Ready"])?;
    has("workflowtrigger.yaml", &[subscription, "Bound"])?;
    has("deployment.yaml", &["bellhop-controller", "BELLHOP_PUBLIC_URL"])?;
    has("statefulset.yaml", &["bellhop-ingress"])?;
    has("service.yaml", &["bellhop-ingress"])?;
    has("endpointslice.yaml", &["kubernetes.io/service-name"])?;
    has("persistentvolumeclaim.yaml", &["spool-bellhop-ingress-0", "Bound"])?;
    has("poddisruptionbudget.yaml", &["bellhop-ingress"])?;
    has("configmap.yaml", &["slots."])?;
    has("lease.yaml", &["holderIdentity: bellhop-controller-"])?;
    has("event.yaml", &["kind: Event"])?;
    has("secrets-of-bellhop-system.txt", &["bellhop-installation-key", &format!("custody-{uid}")])?;
    has("secrets-of-bellhop-ingress.txt", &[&format!("route-{uid}")])?;
    has("errors.txt", &[])?;
    ensure!(bundle["errors.txt"].is_empty(), "not everything was read: {}", bundle["errors.txt"]);
    let pods = in_system(team.world, &["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"]).await?;
    ensure!(pods.split_whitespace().count() == 4, "{pods}");
    for pod in pods.split_whitespace() {
        has("pod.yaml", &[pod])?;
        // The one that stands by may have nothing to say.
        has(&format!("logs/{pod}.log"), &[])?;
        has(&format!("metrics/{pod}.txt"), &["# TYPE bellhop_"])?;
    }
    let logs: String = bundle.iter().filter(|(name, _)| name.starts_with("logs/")).map(|(_, log)| &**log).collect();
    for words in [subscription, "holds the Lease and works", "bellhop::ingress"] {
        ensure!(logs.contains(words), "no log speaks of {words:?}:\n{logs}");
    }

    for (what, secret) in secrets(team, subscription).await? {
        for (file, text) in &bundle {
            ensure!(!text.contains(&secret), "{file} has {what}");
        }
    }
    Ok(())
}

/// The files of a bundle by their names below its folder.
fn unpack(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(path)?));
    let mut files = BTreeMap::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.strip_prefix("bellhop-support")?.display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text)?;
        files.insert(name, text);
    }
    Ok(files)
}

/// What must not be in a bundle, with words for it: every value of a Secret, as it is and in Base64, and the secrets that
/// are parts of larger values.
async fn secrets(team: &Team, subscription: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for namespace in [NAMESPACE, "bellhop-ingress", &team.namespace] {
        let list = kubectl(team.world, &["--namespace", namespace, "get", "secrets", "-o", "json"]).await?;
        let list: Value = serde_json::from_str(&list)?;
        for secret in list["items"].as_array().context("a list has items")? {
            for (key, value) in secret["data"].as_object().into_iter().flatten() {
                let encoded = value.as_str().context("a value is a string")?.to_owned();
                let what = format!("{key} of the Secret {namespace}/{}", secret["metadata"]["name"]);
                if let Ok(text) = String::from_utf8(STANDARD.decode(&encoded)?) {
                    found.push((what.clone(), text));
                }
                found.push((what, encoded));
            }
        }
    }
    ensure!(found.iter().any(|(_, value)| *value == team.user.token), "the token is among the Secrets");
    let (url, secret) = team.callback(subscription).await?;
    let token = url.rsplit('/').next().context("a URL has a last segment")?.to_owned();
    for (what, value) in [("the callback secret", secret), ("the callback token", token)] {
        found.push((format!("{what} in Base64"), STANDARD.encode(&value)));
        found.push((what.to_owned(), value));
    }
    found.retain(|(_, value)| value.len() >= SHORTEST_SECRET);
    ensure!(found.len() > 10, "only {} secrets to look for", found.len());
    Ok(found)
}
