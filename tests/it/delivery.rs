//! Runners that are away, busy or say no.

use crate::support::{Own, PATIENCE, Workspace, an_attempt_has_failed, shared};
use anyhow::{Context, Result, bail, ensure};
use bellhop::spool::{DeliveryState, Limits, Spool};
use bellhop_harness::runner::Reply;
use bellhop_harness::{eventually, world};
use kube::ResourceExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[tokio::test]
async fn a_busy_runner_gets_the_same_event_again_when_it_asked_for_it() -> Result<()> {
    let workspace = Workspace::shared("busy").await?;
    let calls = AtomicUsize::new(0);
    workspace.runner.respond_with(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(503).header("retry-after", "2"),
        _ => Reply::ok(),
    });
    workspace.connect("acme-web", "review").await?;
    workspace.push("main", "a.txt").await?;
    let runs = workspace.runner.wait_for(2, PATIENCE).await?;
    ensure!(runs[0].header("ce-id") == runs[1].header("ce-id"), "one event, one id");
    ensure!(runs[0].body == runs[1].body, "and the same variables");
    ensure!(runs[1].header("ce-deliveryattempt") == Some("2"));
    let waited = runs[1].time.duration_since(runs[0].time)?;
    ensure!(waited.as_secs_f64() >= 1.9, "Retry-After is honoured: {waited:?}");
    Ok(())
}

#[tokio::test]
async fn a_refused_event_ends_as_a_dead_letter_that_stays_visible() -> Result<()> {
    let mut own = Own::start("dead", &[]).await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "dead").await?;
    workspace.runner.respond_with(|_| Reply::status(400));
    workspace.connect("acme-web", "review").await?;
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    let is_visible = async |own: &Own| {
        eventually(PATIENCE, "the dead letter is in the metrics", async || {
            let dead = own.bellhop.metric("bellhop_spool_dead", &[]).await?;
            ensure!(dead == 1.0, "bellhop_spool_dead is {dead}");
            Ok(())
        })
        .await
    };
    is_visible(&own).await?;
    own.bellhop.terminate().await?;
    own.bellhop.restart().await?;
    is_visible(&own).await?;
    ensure!(workspace.runner.count() == 1, "a refusal is final");
    Ok(())
}

#[tokio::test]
async fn what_is_undelivered_survives_a_restart() -> Result<()> {
    let mut own = Own::start("restart", &[]).await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "restart").await?;
    workspace.connect("acme-web", "review").await?;
    workspace.runner.stop();
    workspace.push("main", "a.txt").await?;
    an_attempt_has_failed(&own.bellhop).await?;
    let status = own.bellhop.terminate().await?;
    ensure!(status.success(), "it ends in order: {status}");
    workspace.runner.start_again()?;
    own.bellhop.restart().await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn an_attempt_under_way_at_the_end_is_waited_for_and_not_repeated() -> Result<()> {
    let mut own = Own::start("drains", &[]).await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "drains").await?;
    workspace.runner.respond_with(|_| Reply::ok().after(Duration::from_secs(3)));
    let subscription = workspace.connect("acme-web", "review").await?;
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    let status = own.bellhop.terminate().await?;
    ensure!(status.success(), "it ends in order: {status}");
    let uid = subscription.uid().context("it has a UID")?.parse()?;
    let spool = Spool::open(&own.bellhop.data_dir().join("spool"), Limits::default())?;
    let entries = spool.recent(uid, None, 100).into_iter().map(|request| spool.entry(request.id));
    let entries = entries.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
    let deliveries: Vec<_> = entries.flat_map(|entry| entry.deliveries).collect();
    let [delivery] = deliveries.as_slice() else { bail!("one delivery, found {deliveries:?}") };
    ensure!(matches!(delivery.state, DeliveryState::Delivered { attempts: 1, .. }), "{delivery:?}");
    drop(spool);

    own.bellhop.restart().await?;
    workspace.push("main", "b.txt").await?;
    workspace.runner.wait_for(2, PATIENCE).await?;
    // What was pending would have been attempted again before the second event.
    ensure!(workspace.runner.count() == 2, "{} requests for two events", workspace.runner.count());
    Ok(())
}

#[tokio::test]
async fn health_is_told_on_the_private_listener_only() -> Result<()> {
    let bellhop = shared().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let private = reqwest::get(format!("{}{path}", bellhop.private_url())).await?.status();
        let public = reqwest::get(format!("{}{path}", bellhop.url())).await?.status();
        ensure!(private == 200 && public == 404, "{path}: {private} and {public}");
    }
    Ok(())
}
