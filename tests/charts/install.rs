//! The charts on a real API server: taken, upgraded, rolled back, uninstalled, installed again.

use crate::render::VARIANTS;
use crate::support::{
    NAMESPACE, PUBLIC_URL, bellhop, chart, cluster, ensure_gone, file, get, helm_on, kind, kubectl_with, name,
    pod_templates, read,
};
use anyhow::{Context, Result, ensure};
use bellhop_harness::build::copy_tree;
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::{eventually, world};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::Mutex;

/// Definitions and names of cluster-scoped objects are of the whole cluster: one at a time.
pub static CLUSTER_SCOPED: Mutex<()> = Mutex::const_new(());
const KEY: &str = "YTJGb2FXeGhhMlZ5ZEhsMWFXOXdZWE5rWm1kb2FtdHM=";

/// The namespaces that the renderings speak of, closed to pods that are not restricted.
async fn namespaces(cluster: &ControlPlane) -> Result<()> {
    for name in [NAMESPACE, "bellhop-ingress", "team-a", "team-b"] {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        });
        kubectl_with(cluster, &format!("namespace-{name}"), &namespace.to_string(), &["apply", "--server-side"])
            .await?;
    }
    Ok(())
}

/// A pod as its controller would make it.
fn pod(template: &Value) -> Result<Pod> {
    let mut pod = template.clone();
    pod["metadata"]["generateName"] = json!("pod-");
    pod["metadata"]["namespace"] = json!(NAMESPACE);
    let mounts_spool = pod["spec"]["containers"][0]["volumeMounts"].to_string().contains("spool");
    if mounts_spool && !pod["spec"]["volumes"].to_string().contains("spool") {
        let claim = json!({"name": "spool", "persistentVolumeClaim": {"claimName": "spool-0"}});
        match pod["spec"]["volumes"].as_array_mut() {
            Some(volumes) => volumes.push(claim),
            None => pod["spec"]["volumes"] = json!([claim]),
        }
    }
    Ok(serde_json::from_value(pod)?)
}

#[tokio::test]
async fn the_api_server_takes_every_rendering_and_admits_every_pod_as_restricted() -> Result<()> {
    let _guard = CLUSTER_SCOPED.lock().await;
    let cluster = cluster().await;
    namespaces(cluster).await?;
    let accounts = ["bellhop-controller", "bellhop-ingress", "bellhop-standalone"];
    for account in accounts {
        cluster.kubectl(["-n", NAMESPACE, "create", "serviceaccount", account]).await?;
    }
    let pods: Api<Pod> = Api::namespaced(cluster.client().await?, NAMESPACE);
    let try_out = PostParams { dry_run: true, ..PostParams::default() };
    let mut admitted = 0;
    for mode in ["distributed", "standalone"] {
        for (variant, args) in VARIANTS {
            let mode = format!("--set=mode={mode}");
            let args = [&[mode.as_str()], args].concat();
            let objects = bellhop(&args);
            // The API server does not know kinds of other products.
            let foreign = ["HTTPRoute", "ServiceMonitor", "PrometheusRule"];
            let own: Vec<&Value> = objects.iter().filter(|object| !foreign.contains(&kind(object))).collect();
            let list = json!({"apiVersion": "v1", "kind": "List", "items": own}).to_string();
            let apply = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-o", "name"];
            let taken = kubectl_with(cluster, "rendering", &list, &apply).await.context(variant)?;
            ensure!(taken.lines().count() == own.len(), "{variant}: {taken}");
            for (object, template) in pod_templates(&objects) {
                pods.create(&try_out, &pod(template)?).await.with_context(|| format!("{variant}: {}", name(object)))?;
                admitted += 1;
            }
        }
    }
    ensure!(admitted > 60, "only {admitted} pods were tried");

    // That this says anything: a pod with fewer restrictions is refused.
    let objects = bellhop(&["--set=securityContext.allowPrivilegeEscalation=true"]);
    let (_, template) = pod_templates(&objects)[0];
    let refused = pods.create(&try_out, &pod(template)?).await.expect_err("it is privileged").to_string();
    ensure!(refused.contains("violates PodSecurity \"restricted"), "{refused}");
    for account in accounts {
        cluster.kubectl(["-n", NAMESPACE, "delete", "serviceaccount", account]).await?;
    }
    // The next test makes them itself.
    cluster.kubectl(["delete", "namespace", NAMESPACE, "bellhop-ingress", "--wait=true", "--timeout=60s"]).await?;
    Ok(())
}

/// A copy of the chart as an earlier version of it could have been: a definition has a column less.
fn earlier_chart() -> Result<String> {
    let to = world::dir().join("earlier-chart");
    copy_tree(&file("charts/bellhop"), &to)?;
    let path = to.join("files/crds/workflowtriggers.bellhop.dev.yaml");
    let definition = std::fs::read_to_string(&path)?;
    let column = "    - jsonPath: .spec.mode\n      name: Mode\n      type: string\n";
    ensure!(definition.contains(column), "the definition has the column no longer; choose another one");
    std::fs::write(&path, definition.replace(column, ""))?;
    Ok(to.to_string_lossy().into_owned())
}

async fn uid(cluster: &ControlPlane, args: &[&str]) -> Result<String> {
    Ok(get(cluster, args).await?["metadata"]["uid"].as_str().context("an uid")?.to_owned())
}

async fn columns(cluster: &ControlPlane) -> Result<String> {
    let definition = get(cluster, &["crd", "workflowtriggers.bellhop.dev"]).await?;
    Ok(definition["spec"]["versions"][0]["additionalPrinterColumns"].to_string())
}

/// What the controller makes, and what a team has: none of it is Helm's.
fn not_of_helm() -> String {
    let secret = |namespace: &str, name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}});
    let subscription = json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "Subscription",
        "metadata": {"name": "web", "namespace": "default", "finalizers": ["bellhop.dev/finalizer"]},
        "spec": {
            "pluginRef": {"name": "gitea"},
            "parameters": {"baseURL": "https://git.example.com", "owner": "acme", "repository": "web"},
            "authorization": {"apiKey": {"secretRef": {"name": "token"}}},
        },
    });
    let items = [secret(NAMESPACE, "custody-1"), secret("bellhop-ingress", "route-1"), subscription];
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

#[tokio::test]
async fn install_upgrade_roll_back_uninstall_and_install_again() -> Result<()> {
    let _guard = CLUSTER_SCOPED.lock().await;
    let cluster = cluster().await;
    let (path, earlier) = (chart("bellhop"), earlier_chart()?);
    let key = format!("--set=installationKey.value={KEY}");

    // Install. Definitions of other tests may be on an existing cluster.
    let install = ["install", "bellhop", &earlier, "-n", NAMESPACE, "--create-namespace", "--take-ownership"];
    let notes = helm_on(cluster, &[&install[..], &[PUBLIC_URL, &key]].concat()).await?;
    for expected in
        ["rollout status statefulset/bellhop-ingress", "bellhop-plugins", "port 80 of the Service bellhop-ingress"]
    {
        ensure!(notes.contains(expected), "the notes do not say {expected:?}:\n{notes}");
    }
    ensure!(!columns(cluster).await?.contains("Mode"), "the earlier chart has the column");
    cluster.crds_established(&file("crds")).await?;
    kubectl_with(cluster, "not-of-helm", &not_of_helm(), &["apply"]).await?;
    let kept: [&[&str]; 7] = [
        &["crd", "subscriptions.bellhop.dev"],
        &["crd", "workflowtriggers.bellhop.dev"],
        &["namespace", "bellhop-ingress"],
        &["-n", NAMESPACE, "secret", "bellhop-installation-key"],
        &["-n", NAMESPACE, "secret", "custody-1"],
        &["-n", "bellhop-ingress", "secret", "route-1"],
        &["-n", "default", "subscriptions.bellhop.dev", "web"],
    ];
    let mut uids = Vec::new();
    for args in kept {
        uids.push(uid(cluster, args).await?);
    }

    // Upgrade: definitions are upgraded, and a key that is given no longer stays.
    helm_on(cluster, &["upgrade", "bellhop", &path, "-n", NAMESPACE, PUBLIC_URL, "--set=ingress.replicas=3"]).await?;
    ensure!(columns(cluster).await?.contains("Mode"), "helm upgrade has not upgraded the definition");
    let replicas = async || -> Result<Value> {
        Ok(get(cluster, &["-n", NAMESPACE, "statefulset", "bellhop-ingress"]).await?["spec"]["replicas"].clone())
    };
    ensure!(replicas().await? == 3);
    let secret = get(cluster, &["-n", NAMESPACE, "secret", "bellhop-installation-key"]).await?;
    ensure!(secret["data"]["key"] == KEY, "the installation key is another one");

    // To one process and back, without a refusal of what is immutable.
    for mode in ["--set=mode=standalone", "--set=mode=distributed"] {
        helm_on(cluster, &["upgrade", "bellhop", &path, "-n", NAMESPACE, PUBLIC_URL, mode]).await?;
    }
    helm_on(cluster, &["rollback", "bellhop", "2", "-n", NAMESPACE]).await?;
    ensure!(replicas().await? == 3, "helm rollback has not rolled back");

    // Uninstall: what is kept, and nothing else.
    let said = helm_on(cluster, &["uninstall", "bellhop", "-n", NAMESPACE, "--no-hooks"]).await?;
    ensure!(said.contains("[CustomResourceDefinition] subscriptions.bellhop.dev"), "{said}");
    ensure!(said.contains("[Namespace] bellhop-ingress"), "{said}");
    for (args, expected) in kept.iter().zip(&uids) {
        ensure!(uid(cluster, args).await? == *expected, "{args:?} is another one");
    }
    for gone in ["deployment,statefulset,service,serviceaccount,pdb,networkpolicy,role,rolebinding,job"] {
        let of_bellhop = ["-A", gone, "-l", "app.kubernetes.io/instance=bellhop"];
        eventually(Duration::from_secs(60), "what is not kept is gone", async || {
            ensure_gone(cluster, &of_bellhop).await
        })
        .await?;
    }
    ensure_gone(
        cluster,
        &["clusterrole,clusterrolebinding,validatingwebhookconfiguration", "-l", "app.kubernetes.io/instance=bellhop"],
    )
    .await?;

    // Install again: what was kept is taken over.
    helm_on(cluster, &["install", "bellhop", &path, "-n", NAMESPACE, PUBLIC_URL]).await?;
    for (args, expected) in kept.iter().zip(&uids) {
        ensure!(uid(cluster, args).await? == *expected, "{args:?} is another one after the second installation");
    }

    // An uninstall whose notice cannot run, here for want of a node, fails in time and leaves no Job.
    helm_on(
        cluster,
        &["upgrade", "bellhop", &path, "-n", NAMESPACE, PUBLIC_URL, "--set=uninstallNotice.timeoutSeconds=2"],
    )
    .await?;
    let failed = helm_on(cluster, &["uninstall", "bellhop", "-n", NAMESPACE, "--timeout=60s"]).await;
    let failed = failed.err().context("the notice has run without a node")?.to_string();
    ensure!(failed.contains("DeadlineExceeded") || failed.contains("deadline"), "{failed}");
    ensure_gone(cluster, &["-n", NAMESPACE, "job"]).await?;
    get(cluster, &["-n", NAMESPACE, "statefulset", "bellhop-ingress"]).await.context("nothing is deleted yet")?;
    helm_on(cluster, &["uninstall", "bellhop", "-n", NAMESPACE, "--no-hooks"]).await?;

    // Another name does not take it over unasked, and does when asked.
    let other = ["install", "other", &path, "-n", NAMESPACE, PUBLIC_URL];
    let refused = helm_on(cluster, &other).await.err().context("another release takes what is kept")?.to_string();
    ensure!(refused.contains("cannot be imported into the current release"), "{refused}");
    helm_on(cluster, &[&other[..], &["--take-ownership"]].concat()).await?;
    ensure!(uid(cluster, kept[2]).await? == uids[2]);

    the_catalogue(cluster).await?;
    helm_on(cluster, &["uninstall", "other", "-n", NAMESPACE, "--no-hooks"]).await?;
    let release = ["-n", "default", "patch", "subscriptions.bellhop.dev", "web", "--type=merge", "-p"];
    cluster.kubectl(release.into_iter().chain([r#"{"metadata":{"finalizers":null}}"#])).await?;
    cluster.kubectl(["delete", "crd", "-l", "app.kubernetes.io/part-of=bellhop", "--timeout=60s"]).await?;
    cluster.kubectl(["delete", "namespace", NAMESPACE, "bellhop-ingress", "--wait=true", "--timeout=60s"]).await?;
    Ok(())
}

/// The other chart, while the definitions are there.
async fn the_catalogue(cluster: &ControlPlane) -> Result<()> {
    let path = chart("bellhop-plugins");
    let notes = helm_on(cluster, &["install", "plugins", &path, "-n", "default", "--set=plugins={gitea}"]).await?;
    ensure!(notes.contains("Installed: gitea") && !notes.contains("github"), "{notes}");
    let plugin = get(cluster, &["triggerplugins.bellhop.dev", "gitea"]).await?;
    ensure_gone(cluster, &["triggerplugins.bellhop.dev", "github"]).await?;
    let expected: Value = serde_saphyr::from_str(&read("examples/gitea-push/plugin.yaml"))?;
    // Not all of it, because the API server adds defaults.
    ensure!(plugin["spec"]["events"][0]["parameters"] == expected["spec"]["events"][0]["parameters"]);

    helm_on(cluster, &["upgrade", "plugins", &path, "-n", "default", "--set=plugins={github}"]).await?;
    get(cluster, &["triggerplugins.bellhop.dev", "github"]).await?;
    let kept = uid(cluster, &["triggerplugins.bellhop.dev", "gitea"]).await.context("chosen no longer, and kept")?;
    ensure!(kept == plugin["metadata"]["uid"]);
    let said = helm_on(cluster, &["uninstall", "plugins", "-n", "default"]).await?;
    ensure!(said.contains("[TriggerPlugin] github"), "{said}");
    helm_on(cluster, &["install", "plugins", &path, "-n", "default", "--set=keep=false"]).await?;
    ensure!(uid(cluster, &["triggerplugins.bellhop.dev", "gitea"]).await? == kept, "it is another one");
    helm_on(cluster, &["uninstall", "plugins", "-n", "default"]).await?;
    ensure_gone(cluster, &["triggerplugins.bellhop.dev"]).await
}

#[tokio::test]
async fn the_version_of_kubernetes_that_is_supported_is_the_one_that_runs_here() -> Result<()> {
    let cluster = cluster().await;
    if cluster.is_external() {
        eprintln!("left out: which version of Kubernetes is supported, because an existing cluster may have any");
        return Ok(());
    }
    let version: Value = serde_json::from_str(&cluster.kubectl(["version", "-o", "json"]).await?)?;
    let version = version["serverVersion"]["gitVersion"].as_str().context("the server's version")?.to_owned();
    let (version, _) = version.trim_start_matches('v').rsplit_once('.').context("a version of three numbers")?;
    for (file, words) in [
        ("README.md", "on Kubernetes VERSION, which the tests run on"),
        ("docs/quickstart.md", "with Kubernetes VERSION,"),
    ] {
        let (text, words) = (read(file), words.replace("VERSION", version));
        ensure!(text.contains(&words), "{file} does not say {words:?}");
        for other in text.split("Kubernetes 1.").skip(1) {
            ensure!(other.starts_with(&version["1.".len()..]), "{file} speaks of Kubernetes 1.{:.4}", other);
        }
    }
    Ok(())
}
