//! Upgrade, rollback, uninstall while Subscriptions exist, and an installation that takes them over.

use crate::support::{Team, bellhop_is_ready, in_system, install, uninstall, world};
use anyhow::{Result, ensure};
use bellhop_harness::eventually;
use std::time::Duration;

#[tokio::test]
async fn webhooks_survive_upgrade_rollback_and_reinstallation() -> Result<()> {
    let Some((world, _guard)) = world("upgrade, rollback and reinstallation").await? else { return Ok(()) };
    install(world, &[]).await?;
    let team = Team::new(world, "lifecycle").await?;
    team.subscribe("acme-web").await?;
    let hooks = team.hooks().await?;
    ensure!(hooks.len() == 1, "{hooks:?}");
    let callback = team.callback("acme-web").await?;
    team.push_arrives("installed.txt").await?;

    install(world, &["podAnnotations.changed=yes"]).await?;
    team.push_arrives("upgraded.txt").await?;
    world
        .cluster
        .helm(["rollback", "bellhop", "--namespace", crate::support::NAMESPACE, "--wait", "--timeout=3m"])
        .await?;
    bellhop_is_ready(world).await?;
    let annotations = ["get", "statefulset", "bellhop-ingress", "-o", "jsonpath={.spec.template.metadata.annotations}"];
    ensure!(!in_system(world, &annotations).await?.contains("changed"), "rolled back");
    team.push_arrives("rolled-back.txt").await?;

    // It says what stays, and keeps it.
    let said = uninstall(world).await?;
    ensure!(said.contains(&format!("{}/acme-web", team.namespace)), "the notice names the Subscription: {said}");
    let recorded = in_system(world, &["get", "configmap", "bellhop-uninstalled", "-o", "yaml"]).await?;
    ensure!(recorded.contains("acme-web"), "{recorded}");
    ensure!(team.hooks().await? == hooks, "the webhook stays");

    install(world, &[]).await?;
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
