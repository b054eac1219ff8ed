//! The request path never waits for the API server.

use crate::bad_input::sign;
use crate::support::{Own, PATIENCE, Workspace, an_attempt_has_failed, callback_secret, callback_url};
use anyhow::{Context, Result, ensure};
use bellhop_harness::{eventually, world};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[tokio::test]
async fn without_the_api_server_events_are_accepted_and_delivered() -> Result<()> {
    let own = Own::start("outage", &[]).await?;
    if own.control_plane.is_external() {
        eprintln!("left out: the API server of an existing cluster is not stopped");
        return Ok(());
    }
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "outage").await?;
    let subscription = workspace.connect("acme-web", "review").await?;
    let url = callback_url(&subscription)?;
    let secret = callback_secret(&workspace.client, &subscription).await?;

    own.control_plane.stop_api_server().await?;
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    let body = br#"{"ref": "refs/heads/main"}"#;
    for n in 0..20 {
        let answer = reqwest::Client::new()
            .post(&url)
            .header("x-gitea-event", "push")
            .header("x-gitea-delivery", format!("outage-{n}"))
            .header("x-gitea-signature", sign(&secret, body))
            .header("content-type", "application/json")
            .body(body.to_vec())
            .send()
            .await?;
        ensure!(answer.status() == 200, "{}", answer.status());
    }
    workspace.runner.wait_for(21, PATIENCE).await?;

    own.control_plane.start_api_server().await?;
    // What was watched before is watched again.
    workspace.create_trigger(workspace.trigger("after", "acme-web")).await?;
    workspace.trigger_is("after", "True", "Bound").await?;
    // The ingress has a watch of its own, which comes back when its pause is over.
    let count = AtomicU32::new(0);
    eventually(PATIENCE, "the new trigger runs", async || {
        workspace.push("main", &format!("b-{}.txt", count.fetch_add(1, Ordering::Relaxed))).await?;
        workspace
            .runner
            .wait_until("the new trigger runs", Duration::from_secs(3), |runs| {
                runs.iter().any(|run| run.header("ce-trigger") == Some("after"))
            })
            .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_process_that_starts_without_the_api_server_waits_for_it() -> Result<()> {
    let mut own = Own::start("late", &[]).await?;
    if own.control_plane.is_external() {
        eprintln!("left out: the API server of an existing cluster is not stopped");
        return Ok(());
    }
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "late").await?;
    workspace.connect("acme-web", "review").await?;
    workspace.runner.stop();
    workspace.push("main", "a.txt").await?;
    an_attempt_has_failed(&own.bellhop).await?;

    own.bellhop.kill9();
    own.control_plane.stop_api_server().await?;
    own.bellhop.spawn()?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(own.bellhop.is_running(), "it must not end");
    let readiness = format!("{}/readyz", own.bellhop.private_url());
    eventually(PATIENCE, "it says what is missing", async || {
        let ready = reqwest::get(&readiness).await?;
        ensure!(ready.status() == 503, "nor say that it is ready: {}", ready.status());
        ensure!(ready.text().await?.contains("route"), "but what is missing");
        Ok(())
    })
    .await?;

    own.control_plane.start_api_server().await?;
    workspace.runner.start_again()?;
    own.bellhop.wait_ready().await.context("after the API server is back")?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    Ok(())
}
