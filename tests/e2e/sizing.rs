//! What docs/operations.md says about the size of a pod: idle, and with 500 requests a second.

use crate::support::{Team, figure, install, world};
use crate::traffic::{Traffic, fires};
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

const RATE: u32 = 500;
const LENGTH: Duration = Duration::from_secs(30);
/// How long the pods are left alone before they are called idle.
const IDLE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn the_memory_of_each_pod_is_measured() -> Result<()> {
    let Some((world, _guard)) = world("the memory of pods").await? else { return Ok(()) };
    if world.cluster.is_external() {
        figure("left out: the memory of pods, because an existing cluster's processes are not on this machine");
        return Ok(());
    }
    install(world, &[]).await?;
    let team = Team::new(world, "sizing").await?;
    team.subscribe("acme-web").await?;
    let (url, secret) = team.callback("acme-web").await?;
    tokio::time::sleep(IDLE).await;
    report("idle", &memory().await?);

    fires(&url, &secret, &team.runner).await?;
    let traffic = Traffic::at_rate(RATE, &url, &secret, "sizing")?;
    tokio::time::sleep(LENGTH).await;
    report(&format!("at {RATE} requests/s"), &memory().await?);
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

/// The resident memory of each of Bellhop's processes, in MiB, as this machine sees them: the kubelet of the test cluster
/// has no statistics.
async fn memory() -> Result<BTreeMap<String, f64>> {
    let mut ps = std::process::Command::new("ps");
    ps.args(["-eo", "rss=,args="]);
    let mut found = BTreeMap::new();
    for line in bellhop_harness::process::run(ps).await?.lines() {
        let Some((kib, command)) = line.trim().split_once(' ') else { continue };
        for part in ["controller", "ingress"] {
            if command.trim() == format!("/bellhop {part}") {
                let number = found.keys().filter(|name: &&String| name.starts_with(part)).count();
                found.insert(format!("{part} {number}"), kib.parse::<f64>()? / 1024.0);
            }
        }
    }
    ensure!(found.len() >= 4, "two of the controller and two of the ingress, not {found:?}");
    Ok(found)
}
