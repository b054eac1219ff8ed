//! What docs/operations.md says about the size of a pod: idle, and with 500 requests a second.

use crate::support::{NAMESPACE, Team, figure, install, kubectl, world};
use crate::traffic::Traffic;
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const RATE: u32 = 500;
const LENGTH: Duration = Duration::from_secs(30);
/// The kubelet looks at a pod every ten to twenty seconds.
const LOOK: Duration = Duration::from_secs(25);

#[tokio::test]
async fn the_memory_of_each_pod_is_measured() -> Result<()> {
    let Some((world, _guard)) = world("the memory of pods").await? else { return Ok(()) };
    install(world, &[]).await?;
    let team = Team::new(world, "sizing").await?;
    team.subscribe("acme-web").await?;
    let (url, secret) = team.callback("acme-web").await?;
    tokio::time::sleep(LOOK).await;
    report("idle", &memory(world).await?);

    let traffic = Traffic::at_rate(RATE, &url, &secret, "sizing")?;
    tokio::time::sleep(LENGTH).await;
    report(&format!("at {RATE} requests/s"), &memory(world).await?);
    let tally = traffic.stop().await?;
    let rate = tally.accepted.len() as f64 / LENGTH.as_secs_f64();
    figure(&format!("{rate:.0} requests/s were accepted, the slowest after {:.2} s", tally.slowest.as_secs_f64()));
    tally.all_arrive(&team.runner, Duration::from_secs(120)).await?;
    team.delete().await
}

fn report(when: &str, pods: &BTreeMap<String, f64>) {
    for (pod, mib) in pods {
        figure(&format!("memory {when}: {pod} {mib:.1} MiB"));
    }
}

/// The working set of each of Bellhop's pods, in MiB, as the kubelet sees it.
async fn memory(world: &crate::support::World) -> Result<BTreeMap<String, f64>> {
    eventually(Duration::from_secs(60), "the kubelet knows every pod's memory", async || {
        let nodes = kubectl(world, &["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]).await?;
        let mut found = BTreeMap::new();
        for node in nodes.split_whitespace() {
            let path = format!("/api/v1/nodes/{node}/proxy/stats/summary");
            let summary: Value = serde_json::from_str(&kubectl(world, &["get", "--raw", &path]).await?)?;
            let pods = summary["pods"].as_array().context("the summary has pods")?;
            for pod in pods.iter().filter(|pod| pod["podRef"]["namespace"] == NAMESPACE) {
                let name = pod["podRef"]["name"].as_str().context("a pod has a name")?;
                let container = &pod["containers"][0]["memory"]["workingSetBytes"];
                let bytes = container.as_f64().with_context(|| format!("{name} has no memory yet"))?;
                found.insert(name.to_owned(), bytes / f64::from(1 << 20));
            }
        }
        ensure!(found.len() == 4, "two of the controller and two of the ingress, not {found:?}");
        Ok(found)
    })
    .await
}
