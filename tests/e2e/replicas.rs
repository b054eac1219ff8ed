//! Each replica of the ingress has a spool of its own, which its successor finds.

use crate::support::{Team, bellhop_is_ready, figure, in_system, install, world};
use crate::traffic::{Traffic, fires};
use anyhow::{Result, ensure};
use bellhop_harness::runner::Reply;
use std::time::Duration;

#[tokio::test]
async fn what_a_deleted_pod_had_not_delivered_is_delivered_when_it_is_back() -> Result<()> {
    let Some((world, _guard)) = world("a replica with undelivered events").await? else { return Ok(()) };
    install(world, &[]).await?;
    let team = Team::new(world, "replicas").await?;
    team.subscribe("acme-web").await?;
    let (url, secret) = team.callback("acme-web").await?;
    fires(&url, &secret, &team.runner).await?;

    // Nothing can be delivered, so both replicas collect.
    team.runner.respond_with(|_| Reply::status(503));
    let traffic = Traffic::start(&url, &secret, "replicas")?;
    traffic.goes_on(200, Duration::from_secs(30)).await?;
    in_system(world, &["delete", "pod", "bellhop-ingress-0", "--wait=false"]).await?;
    traffic.goes_on(200, Duration::from_secs(30)).await?;
    bellhop_is_ready(world).await?;
    let tally = traffic.stop().await?;
    team.runner.clear();
    team.runner.respond_with(|_| Reply::ok());
    let duplicates = tally.all_arrive(&team.runner, Duration::from_secs(180)).await?;
    ensure!(tally.accepted.len() >= 400);
    figure(&format!(
        "a replica deleted with undelivered events: all {} arrived, {} connections reset, {duplicates} delivered twice",
        tally.accepted.len(),
        tally.resets
    ));
    team.delete().await
}
