//! Upgrade, rollback, uninstall while Subscriptions exist, and an installation that takes them over.

use crate::bundle;
use crate::support::{
    NAMESPACE, Team, bellhop_is_ready, figure, in_system, install, install_charts, public_url, uninstall, world,
};
use anyhow::{Result, ensure};
use bellhop_harness::eventually;
use std::time::Duration;

/// The charts of an earlier commit; `tests/charts/upgrade.rs` compares what is in the cluster before and after.
const EARLIER: [&str; 2] =
    ["tests/charts/recorded/bellhop-2556332.tgz", "tests/charts/recorded/bellhop-plugins-2556332.tgz"];

#[tokio::test]
async fn webhooks_survive_upgrade_rollback_and_reinstallation() -> Result<()> {
    let Some((world, _guard)) = world("upgrade, rollback and reinstallation").await? else { return Ok(()) };
    // Today's image with the options, probes and rights that the earlier chart gives it.
    install_charts(world.cluster, EARLIER, world.cluster.host(), &[&public_url(world)]).await?;
    bellhop_is_ready(world).await?;
    install(world, &[]).await?;
    let team = Team::new(world, "lifecycle").await?;
    team.subscribe("acme-web").await?;
    let hooks = team.hooks().await?;
    ensure!(hooks.len() == 1, "{hooks:?}");
    let callback = team.callback("acme-web").await?;
    team.push_arrives("installed.txt").await?;
    bundle::is_complete_and_has_no_secret(&team, "acme-web").await?;

    // The plugins first: the earlier definitions do not have all fields that today's plugins use.
    for release in ["bellhop-plugins", "bellhop"] {
        world.cluster.helm(["rollback", release, "--namespace", NAMESPACE, "--wait", "--timeout=3m"]).await?;
    }
    bellhop_is_ready(world).await?;
    team.push_arrives("rolled-back.txt").await?;
    install(world, &[]).await?;
    bellhop_is_ready(world).await?;
    team.is_ready("acme-web").await?;
    team.push_arrives("upgraded.txt").await?;
    ensure!(team.hooks().await? == hooks, "the same webhook, and no other");

    // It says what stays, and keeps it.
    let said = uninstall(world).await?;
    ensure!(said.contains(&format!("{}/acme-web", team.namespace)), "the notice names the Subscription: {said}");
    let recorded = in_system(world, &["get", "configmap", "bellhop-uninstalled", "-o", "yaml"]).await?;
    ensure!(recorded.contains("acme-web"), "{recorded}");
    ensure!(team.hooks().await? == hooks, "the webhook stays");

    let took = install(world, &[]).await?;
    figure(&format!("helm install until every pod is ready: {:.1} s", took.as_secs_f64()));
    team.is_ready("acme-web").await?;
    ensure!(team.hooks().await? == hooks, "the same webhook, and no other");
    ensure!(team.callback("acme-web").await? == callback, "the same URL and secret");
    team.push_arrives("reinstalled.txt").await?;

    team.kubectl(&["delete", "subscription.bellhop.dev", "acme-web", "--timeout=60s"]).await?;
    eventually(Duration::from_secs(10), "the webhook is gone", async || {
        let hooks = team.hooks().await?;
        ensure!(hooks.is_empty(), "{hooks:?}");
        Ok(())
    })
    .await?;
    team.delete().await
}
