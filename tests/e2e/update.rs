//! Two minutes of traffic, while everything that can be replaced is replaced.

use crate::support::{NAMESPACE, Team, World, bellhop_is_ready, figure, in_system, install, world};
use crate::traffic::{RATE, Traffic, fires};
use anyhow::{Context, Result, ensure};
use bellhop_harness::process;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::EvictParams;
use std::time::{Duration, Instant};

const LENGTH: Duration = Duration::from_secs(120);

#[tokio::test]
async fn updates_deletions_evictions_and_the_loss_of_the_leader_lose_no_request() -> Result<()> {
    let Some((world, _guard)) = world("updates under traffic").await? else { return Ok(()) };
    install(world, &[]).await?;
    let team = Team::new(world, "update").await?;
    team.subscribe("acme-web").await?;
    let (url, secret) = team.callback("acme-web").await?;
    fires(&url, &secret, &team.runner).await?;
    let pods: Api<Pod> = Api::namespaced(world.cluster.control_plane.client().await?, NAMESPACE);

    let started = Instant::now();
    let traffic = Traffic::start(&url, &secret, "update")?;
    traffic.goes_on(50, Duration::from_secs(20)).await?;

    let note = |what: &str| figure(&format!("{:5.1} s: {what}", started.elapsed().as_secs_f64()));
    in_system(world, &["rollout", "restart", "statefulset/bellhop-ingress", "deployment/bellhop-controller"]).await?;
    bellhop_is_ready(world).await?;
    note("ingress and controller were updated one by one");

    in_system(world, &["delete", "pod", "bellhop-ingress-0"]).await?;
    bellhop_is_ready(world).await?;
    note("a pod was deleted and is back");

    let plainly = EvictParams::default();
    pods.evict("bellhop-ingress-1", &plainly).await.context("eviction of the first pod")?;
    // The PodDisruptionBudget lets no second one go. The client would try again, as the API server asks it to, until the
    // first is back.
    let second = pods.evict("bellhop-ingress-0", &plainly);
    let second = tokio::time::timeout(Duration::from_secs(3), second).await;
    ensure!(second.is_err(), "with one pod away, the other may not be evicted: {second:?}");
    let other = pods.get("bellhop-ingress-0").await?;
    ensure!(other.metadata.deletion_timestamp.is_none(), "the other pod was evicted too");
    bellhop_is_ready(world).await?;
    note("a pod was evicted and is back");

    let first = leader(world).await?;
    let lost = Instant::now();
    // Frozen, it cannot give the Lease back, as a node that is cut off cannot. Of an existing cluster, only the API is ours.
    let frozen = match world.cluster.node() {
        Some(node) => {
            let id = ["get", "pod", &first, "-o", "jsonpath={.status.containerStatuses[0].containerID}"];
            let id = in_system(world, &id).await?.trim_start_matches("containerd://").to_owned();
            process::run(node.command("ctr", ["--namespace", "k8s.io", "tasks", "pause", &id])).await?;
            Some((node, id))
        }
        None => {
            in_system(world, &["delete", "pod", &first, "--grace-period=0", "--force"]).await?;
            None
        }
    };
    bellhop_harness::eventually(Duration::from_secs(60), "another leader", async || {
        let now = leader(world).await?;
        ensure!(now != first && !now.is_empty(), "still {now:?}");
        Ok(())
    })
    .await?;
    note(&format!("the leader was lost; another one led after {:.1} s", lost.elapsed().as_secs_f64()));
    team.subscribe("during").await?;
    if let Some((node, id)) = frozen {
        process::run(node.command("ctr", ["--namespace", "k8s.io", "tasks", "resume", &id])).await?;
    }
    bellhop_is_ready(world).await?;
    note("the old leader is back, and stands by");

    tokio::time::sleep(LENGTH.saturating_sub(started.elapsed())).await;
    let length = started.elapsed();
    let tally = traffic.stop().await?;
    let duplicates = tally.all_arrive(&team.runner, Duration::from_secs(120)).await?;
    figure(&format!(
        "{} requests in {:.0} s ({RATE}/s): none lost, none refused, {} connections reset and tried again, {duplicates} \
         delivered twice, the slowest took {:.2} s",
        tally.accepted.len(),
        length.as_secs_f64(),
        tally.resets,
        tally.slowest.as_secs_f64(),
    ));
    ensure!(team.hooks().await?.len() == 2, "one webhook for each of two Subscriptions: {:?}", team.hooks().await?);
    team.delete().await
}

/// The pod that holds the Lease.
async fn leader(world: &World) -> Result<String> {
    in_system(world, &["get", "lease", "bellhop-controller", "-o", "jsonpath={.spec.holderIdentity}"]).await
}
