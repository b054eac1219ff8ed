//! Many Subscriptions at once: the cap holds, and the external system is asked no more often than it takes.

use crate::support::{Workspace, shared};
use anyhow::{Context, Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::proxy::Proxy;
use bellhop_harness::{eventually, world};
use futures::future::try_join_all;
use kube::api::ListParams;
use std::time::Duration;
use tokio::time::Instant;

const WORKSPACES: usize = 10;
/// In each workspace; the cap is ten.
const ASKED_FOR: usize = 12;
const CAP: usize = 10;

/// How many are ready, and how many are told that the cap is reached.
async fn settled(workspace: &Workspace<'_>) -> Result<(usize, usize)> {
    let (mut ready, mut refused) = (0, 0);
    for subscription in workspace.api::<Subscription>().list(&ListParams::default()).await? {
        let conditions = subscription.status.unwrap_or_default().conditions;
        let is = |type_, status, reason| {
            conditions.iter().any(|c| c.type_ == type_ && c.status == status && c.reason == reason)
        };
        ready += usize::from(is("Ready", "True", "Ready"));
        refused += usize::from(is("Accepted", "False", "QuotaExceeded"));
    }
    Ok((ready, refused))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_twenty_at_once_keep_the_cap_and_cost_the_fewest_calls() -> Result<()> {
    shared().await;
    let world = world::shared().await;
    let proxy = Proxy::start(&world.gitea.url())?;
    let workspaces = try_join_all((0..WORKSPACES).map(async |_| {
        let mut workspace = Workspace::new(&world.control_plane, &world.gitea, "scale").await?;
        workspace.base_url = proxy.url();
        anyhow::Ok(workspace)
    }))
    .await?;

    let began = Instant::now();
    let create = |(workspace, number): (&Workspace<'static>, usize)| {
        let object = workspace.subscription(&format!("sub-{number:02}"));
        let workspace = workspace.client.clone();
        async move {
            let subscription: Subscription = serde_json::from_value(object)?;
            let namespace = subscription.metadata.namespace.clone().context("a namespace")?;
            let api = kube::Api::<Subscription>::namespaced(workspace, &namespace);
            api.create(&kube::api::PostParams::default(), &subscription).await.context(namespace)
        }
    };
    let all = (0..ASKED_FOR).flat_map(|number| workspaces.iter().map(move |workspace| (workspace, number)));
    try_join_all(all.map(create)).await?;
    eventually(Duration::from_secs(120), "each workspace has its ten", async || {
        for workspace in &workspaces {
            let found = settled(workspace).await?;
            ensure!(found == (CAP, ASKED_FOR - CAP), "{}: {found:?} are ready and refused", workspace.namespace);
        }
        Ok(())
    })
    .await?;
    let took = began.elapsed();
    // Whoever would go on calling would do so now.
    tokio::time::sleep(Duration::from_secs(3)).await;

    for workspace in &workspaces {
        let hooks = workspace.hooks().await?;
        ensure!(hooks.len() == CAP, "{}: {} webhooks", workspace.namespace, hooks.len());
        ensure!(settled(workspace).await? == (CAP, ASKED_FOR - CAP), "{}: it has changed", workspace.namespace);
    }
    // verify, find, create
    let fewest = WORKSPACES * CAP * 3;
    let counts = proxy.counts();
    let calls: usize = counts.values().sum();
    eprintln!("{} ready after {:.1} s, {calls} calls, {fewest} are the fewest", WORKSPACES * CAP, took.as_secs_f64());
    ensure!(calls >= fewest && calls * 10 <= fewest * 11, "{calls} calls instead of {fewest}: {counts:#?}");
    Ok(())
}
