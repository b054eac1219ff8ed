//! A Bellhop that looks after some namespaces only.

use crate::support::{Own, PATIENCE, Workspace};
use anyhow::{Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::{eventually, world};
use std::time::Duration;

#[tokio::test]
async fn only_the_named_namespaces_are_looked_after() -> Result<()> {
    let world = world::shared().await;
    let own = Own::start("narrow", &["--watch-namespace", "team-one,team-two"]).await?;
    let mut workspaces = Vec::new();
    for name in ["team-one", "team-two", "team-three"] {
        own.control_plane.kubectl(["create", "namespace", name]).await?;
        let mut workspace = Workspace::new(&own.control_plane, &world.gitea, "narrow").await?;
        workspace.move_to(name).await?;
        workspaces.push(workspace);
    }
    for workspace in &workspaces[..2] {
        workspace.connect("acme-web", "review").await?;
        workspace.push("main", "a.txt").await?;
        workspace.runner.wait_for(1, PATIENCE).await?;
    }
    let elsewhere = &workspaces[2];
    elsewhere.create_subscription(elsewhere.subscription("acme-web")).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let untouched = elsewhere.api::<Subscription>().get("acme-web").await?;
    ensure!(untouched.metadata.finalizers.is_none(), "{untouched:?}");
    ensure!(elsewhere.hooks().await?.is_empty());

    workspaces[0].delete_subscription("acme-web").await?;
    workspaces[0].is_gone("acme-web").await?;
    eventually(PATIENCE, "the other workspace's webhook stays", async || {
        ensure!(workspaces[0].hooks().await?.is_empty() && workspaces[1].hooks().await?.len() == 1);
        Ok(())
    })
    .await
}
