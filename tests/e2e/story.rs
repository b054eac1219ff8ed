//! The demo's story with everything in pods, from an empty cluster to an empty cluster.

use crate::support::{
    NAMESPACE, REPOSITORY, Team, apply, figure, install, kubectl, namespace_is_gone, restricted_namespace, uninstall,
    world,
};
use anyhow::{Result, bail, ensure};
use bellhop_harness::cluster::PATIENCE;
use bellhop_harness::{eventually, git, world as files};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Admission, which the API server reaches through the chart's Service, or not at all: then everything is let in.
async fn the_api_server_asks_the_controller(team: &Team) -> Result<()> {
    let trigger = json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "WorkflowTrigger",
        "metadata": {"name": "on-what-there-is-not"},
        "spec": {
            "subscriptionRef": {"name": "acme-web"},
            "event": "pushed",
            "workflow": "review",
            "runner": {"service": {"name": "runner", "port": 8090, "path": "/runs"}},
        },
    });
    let Err(error) = team.apply(trigger).await else { bail!("an event that the plugin does not have was let in") };
    let words = format!("{error:#}");
    ensure!(words.contains("denied the request") && words.contains("did you mean"), "{words}");
    Ok(())
}

/// The most bytes that the image may have as a registry keeps and sends it, and unpacked.
const IMAGE_LIMITS: (u64, u64) = (15_000_000, 25_000_000);

#[tokio::test]
async fn a_push_runs_a_workflow_and_nothing_is_left_in_the_end() -> Result<()> {
    let Some((world, _guard)) = world("the story in pods").await? else { return Ok(()) };
    let (sent, unpacked) = (world.image.size()?, world.image.unpacked()?);
    figure(&format!("image: {:.1} MB as an archive, {:.1} MB unpacked", sent as f64 / 1e6, unpacked as f64 / 1e6));
    let (most_sent, most_unpacked) = IMAGE_LIMITS;
    ensure!(sent <= most_sent, "the image has {sent} bytes as an archive, which is more than {most_sent}");
    ensure!(unpacked <= most_unpacked, "the image has {unpacked} bytes unpacked, which is more than {most_unpacked}");
    let before = cluster_scoped(world).await?;
    install(world, &[]).await?;

    // The runner is a pod, too.
    let team = Team::new(world, "story").await?;
    team.kubectl(&["delete", "service/runner", "endpointslice/runner"]).await?;
    for object in runner() {
        team.apply(object).await?;
    }
    team.kubectl(&["rollout", "status", "deployment/runner", "--timeout=90s"]).await?;
    let started = Instant::now();
    team.subscribe("acme-web").await?;
    figure(&format!("a Subscription until it is ready: {:.1} s", started.elapsed().as_secs_f64()));
    ensure!(team.hooks().await?.len() == 1, "one webhook");
    the_api_server_asks_the_controller(&team).await?;

    let clone = git::Checkout::clone_of(
        &world.gitea.clone_url(&team.user, REPOSITORY),
        &files::dir().join(format!("clone-{}", team.namespace)),
    )
    .await?;
    let commit = clone.commit("hello.txt", "hello\n", "Say hello").await?;
    clone.push("main").await?;
    eventually(PATIENCE, "the runner is asked to run a workflow", async || {
        let log = team.kubectl(&["logs", "deployment/runner"]).await?;
        ensure!(log.contains(&commit), "{log}");
        Ok(())
    })
    .await?;

    team.kubectl(&["delete", "subscription.bellhop.dev", "acme-web", "--timeout=60s"]).await?;
    ensure!(team.hooks().await?.is_empty(), "the webhook is gone with its Subscription");

    // In one go, with two live Subscriptions.
    team.subscribe("one").await?;
    team.subscribe("two").await?;
    ensure!(team.hooks().await?.len() == 2);
    let started = Instant::now();
    kubectl(world, &["delete", "namespace", &team.namespace, "--wait=false"]).await?;
    namespace_is_gone(world, &team.namespace, Duration::from_secs(60)).await?;
    figure(&format!("a workspace with two Subscriptions is gone after {:.1} s", started.elapsed().as_secs_f64()));
    ensure!(team.hooks().await?.is_empty(), "the webhooks are gone with the workspace");

    uninstall(world).await?;
    world.cluster.helm(["uninstall", "bellhop-plugins", "--namespace", NAMESPACE, "--wait"]).await?;
    let left: Vec<_> = cluster_scoped(world).await?.difference(&before).cloned().collect();
    let allowed = |name: &String| {
        let definition = name.starts_with("customresourcedefinition") || name.starts_with("apiservice");
        (definition && name.ends_with("bellhop.dev")) || name == "namespace/bellhop-ingress" || name.starts_with("node")
    };
    let strange: Vec<_> = left.iter().filter(|name| !allowed(name)).collect();
    ensure!(strange.is_empty(), "uninstalled, but these are left: {strange:?}");
    // Whatever was there before this test.
    let kinds = "clusterroles,clusterrolebindings,triggerplugins.bellhop.dev,priorityclasses,apiservices";
    let ours = kubectl(world, &["get", kinds, "-o", "name"]).await?;
    let ours: Vec<_> = ours.lines().filter(|name| name.contains("bellhop") && !allowed(&(*name).to_owned())).collect();
    ensure!(ours.is_empty(), "uninstalled, but these are left: {ours:?}");
    let definition = kubectl(world, &["get", "crd", "subscriptions.bellhop.dev", "-o", "name"]).await?;
    ensure!(!definition.is_empty(), "definitions are never deleted");
    // What is kept can be deleted by hand, and nothing holds it.
    kubectl(world, &["delete", "namespace", "bellhop-ingress", NAMESPACE, "--timeout=60s"]).await?;
    apply(world.cluster, &restricted_namespace()).await
}

/// The names of all objects without a namespace.
async fn cluster_scoped(world: &crate::support::World) -> Result<BTreeSet<String>> {
    let kinds = kubectl(world, &["api-resources", "--namespaced=false", "--verbs=list", "-o", "name"]).await?;
    let kinds = kinds.lines().collect::<Vec<_>>().join(",");
    let names = kubectl(world, &["get", &kinds, "-o", "name"]).await?;
    Ok(names.lines().filter(|name| !name.starts_with("namespace/story")).map(str::to_owned).collect())
}

/// The example runner behind a Service.
fn runner() -> [serde_json::Value; 2] {
    let container = json!({
        "name": "runner",
        "image": "localhost/bellhop-test/runner:1",
        "imagePullPolicy": "IfNotPresent",
        "args": ["--listen", "0.0.0.0:8090"],
        "ports": [{"name": "http", "containerPort": 8090}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
    });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "runner"},
        "spec": {
            "selector": {"matchLabels": {"app": "runner"}},
            "template": {
                "metadata": {"labels": {"app": "runner"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
            },
        },
    });
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "runner"},
        "spec": {"selector": {"app": "runner"}, "ports": [{"port": 8090, "targetPort": "http"}]},
    });
    [deployment, service]
}
