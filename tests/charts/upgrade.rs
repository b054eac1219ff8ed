//! From earlier charts to these and back, on a real API server: what a team has survives it.
//!
//! The earlier charts are those that were recorded, and, where git knows it, those of the previous commit.

use crate::install::CLUSTER_SCOPED;
use crate::support::{NAMESPACE, PUBLIC_URL, chart, cluster, ensure_gone, file, get, helm_on, kubectl_with};
use anyhow::{Context, Result, ensure};
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::{eventually, process, root, world};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

/// The commit whose charts are in `tests/charts/recorded`.
const RECORDED: &str = "2556332";
const KINDS: [&str; 3] = ["triggerplugins", "subscriptions", "workflowtriggers"];

/// Archives of the charts `bellhop` and `bellhop-plugins`, which Helm takes as they are.
struct Earlier {
    bellhop: String,
    plugins: String,
}

impl Earlier {
    fn recorded() -> Earlier {
        let archive = |name| file(&format!("tests/charts/recorded/{name}-{RECORDED}.tgz")).display().to_string();
        Earlier { bellhop: archive("bellhop"), plugins: archive("bellhop-plugins") }
    }

    /// Those of the previous commit. A shallow clone and an unpacked archive have none.
    async fn previous() -> Result<Earlier> {
        let archive = async |name: &str| {
            let path = world::dir().join(format!("{name}-previous.tgz")).display().to_string();
            let mut git = Command::new("git");
            git.current_dir(root()).args(["archive", "--format=tgz", &format!("--prefix={name}/"), "-o", &path]);
            git.arg(format!("HEAD~1:charts/{name}"));
            process::run(git).await?;
            anyhow::Ok(path)
        };
        Ok(Earlier { bellhop: archive("bellhop").await?, plugins: archive("bellhop-plugins").await? })
    }
}

#[tokio::test]
async fn from_the_recorded_charts_and_back() -> Result<()> {
    let differ = there_and_back(&Earlier::recorded()).await?;
    ensure!(differ, "the recorded charts have these definitions already, so upgrading from them shows nothing");
    Ok(())
}

#[tokio::test]
async fn from_the_charts_of_the_previous_commit_and_back() -> Result<()> {
    match Earlier::previous().await {
        Ok(earlier) => there_and_back(&earlier).await.map(drop),
        Err(error) => {
            eprintln!("left out: the upgrade from the previous commit's charts, because {error:#}");
            Ok(())
        }
    }
}

/// What the API server has of the definitions.
async fn definitions(cluster: &ControlPlane) -> Result<Vec<Value>> {
    let mut schemas = Vec::new();
    for kind in KINDS {
        let definition = get(cluster, &["crd", &format!("{kind}.bellhop.dev")]).await?;
        schemas.push(definition["spec"]["versions"].clone());
    }
    Ok(schemas)
}

/// A Subscription and a WorkflowTrigger as they could be written from the beginning.
fn of_a_team() -> Value {
    let metadata = |name: &str| json!({"name": name, "namespace": "default"});
    let subscription = json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "Subscription",
        "metadata": metadata("web"),
        "spec": {
            "pluginRef": {"name": "gitea"},
            "parameters": {"baseURL": "https://git.example.com", "owner": "acme", "repository": "web"},
            "events": ["push"],
            "authorization": {"apiKey": {"secretRef": {"name": "token"}}},
        },
    });
    let trigger = json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "WorkflowTrigger",
        "metadata": metadata("review"),
        "spec": {
            "subscriptionRef": {"name": "web"},
            "event": "push",
            "parameters": {"branches": ["main"]},
            "workflow": "review",
            "runner": {"service": {"name": "runner", "port": 8090, "path": "/runs"}},
        },
    });
    json!({"apiVersion": "v1", "kind": "List", "items": [subscription, trigger]})
}

/// UID and spec of what the team has, and the UIDs of the plugin and of what is kept.
async fn belongings(cluster: &ControlPlane) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for object in [["subscriptions.bellhop.dev", "web"], ["workflowtriggers.bellhop.dev", "review"]] {
        let object = get(cluster, &[&["-n", "default"], &object[..]].concat()).await?;
        found.push(json!([object["metadata"]["uid"], object["spec"]]));
    }
    let kept: [&[&str]; 3] = [
        &["triggerplugins.bellhop.dev", "gitea"],
        &["namespace", "bellhop-ingress"],
        &["-n", NAMESPACE, "secret", "bellhop-installation-key"],
    ];
    for args in kept {
        let object = get(cluster, args).await?;
        found.push(json!([object["metadata"]["uid"], object["data"]]));
    }
    Ok(found)
}

/// Nothing is gone or another; a new field may have come, with its default.
fn is_as_it_was(now: &[Value], had: &[Value]) -> Result<()> {
    fn holds(now: &Value, had: &Value) -> bool {
        match (now, had) {
            (Value::Object(now), Value::Object(had)) => {
                had.iter().all(|(key, had)| now.get(key).is_some_and(|now| holds(now, had)))
            }
            (Value::Array(now), Value::Array(had)) => {
                now.len() == had.len() && now.iter().zip(had).all(|(now, had)| holds(now, had))
            }
            _ => now == had,
        }
    }
    ensure!(
        now.len() == had.len() && now.iter().zip(had).all(|(now, had)| holds(now, had)),
        "what is there has changed: {had:?} is {now:?}"
    );
    Ok(())
}

/// Returns whether the definitions differ.
async fn there_and_back(earlier: &Earlier) -> Result<bool> {
    let _guard = CLUSTER_SCOPED.lock().await;
    let cluster = cluster().await;
    // As docs/operations.md says it.
    let upgrade = async |release: &str, chart: &str| {
        let args = ["upgrade", release, chart, "-n", NAMESPACE, "--reset-then-reuse-values"];
        helm_on(cluster, &args).await.map(drop)
    };
    let install = ["install", "bellhop", &earlier.bellhop, "-n", NAMESPACE, "--create-namespace", "--take-ownership"];
    let key = "--set=installationKey.value=YTJGb2FXeGhhMlZ5ZEhsMWFXOXdZWE5rWm1kb2FtdHM=";
    helm_on(cluster, &[&install[..], &[PUBLIC_URL, key, "--set=ingress.replicas=3"]].concat()).await?;
    cluster.crds_established(&file("crds")).await?;
    helm_on(cluster, &["install", "bellhop-plugins", &earlier.plugins, "-n", NAMESPACE]).await?;
    kubectl_with(cluster, "of-a-team", &of_a_team().to_string(), &["apply", "--server-side"]).await?;
    let (before, had) = (definitions(cluster).await?, belongings(cluster).await?);

    upgrade("bellhop", &chart("bellhop")).await?;
    upgrade("bellhop-plugins", &chart("bellhop-plugins")).await?;
    // It fails if there is a difference.
    let crds = file("crds").display().to_string();
    let diff = ["diff", "--server-side", "--force-conflicts", "-f", &crds];
    cluster.kubectl(diff).await.context("helm upgrade has not upgraded the definitions")?;
    let differ = definitions(cluster).await? != before;
    let set = get(cluster, &["-n", NAMESPACE, "statefulset", "bellhop-ingress"]).await?;
    ensure!(set["spec"]["replicas"] == 3, "what was set is still set");
    is_as_it_was(&belongings(cluster).await?, &had).context("after the upgrade")?;
    // What was written before is still right by the new definitions: as a whole, and when a controller writes to it.
    let objects = of_a_team().to_string();
    kubectl_with(cluster, "of-a-team", &objects, &["apply", "--server-side", "--dry-run=server"]).await?;
    let annotate =
        ["annotate", "--overwrite", "-n", "default", "subscriptions.bellhop.dev/web", "example.com/seen=yes"];
    cluster.kubectl(annotate).await?;

    for release in ["bellhop-plugins", "bellhop"] {
        helm_on(cluster, &["rollback", release, "1", "-n", NAMESPACE]).await.context(release)?;
    }
    ensure!(definitions(cluster).await? == before, "helm rollback has not rolled back the definitions");
    ensure!(belongings(cluster).await? == had, "the rollback has changed what is there");

    upgrade("bellhop", &chart("bellhop")).await.context("once more")?;
    is_as_it_was(&belongings(cluster).await?, &had).context("after the second upgrade")?;
    helm_on(cluster, &["uninstall", "bellhop-plugins", "bellhop", "-n", NAMESPACE, "--no-hooks"]).await?;
    let of_bellhop = ["clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/instance=bellhop"];
    let gone = async || ensure_gone(cluster, &of_bellhop).await;
    eventually(Duration::from_secs(60), "what is not kept is gone", gone).await?;
    cluster.kubectl(["delete", "crd", "-l", "app.kubernetes.io/part-of=bellhop", "--timeout=60s"]).await?;
    cluster.kubectl(["delete", "namespace", NAMESPACE, "bellhop-ingress", "--wait=true", "--timeout=60s"]).await?;
    Ok(differ)
}
