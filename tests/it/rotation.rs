//! Another callback secret, while events arrive.

use crate::bad_input::sign;
use crate::support::{Own, PATIENCE, Workspace, callback_secret, callback_url, note_secret};
use anyhow::{Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::{eventually, world};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test]
async fn no_push_is_refused_or_lost_while_the_secret_is_replaced() -> Result<()> {
    let own = Own::start("rotation", GRACE).await?;
    let gitea = &world::shared().await.gitea;
    let workspace = Workspace::new(&own.control_plane, gitea, "rotation").await?;
    workspace.connect("acme-web", "review").await?;
    rotated_under_pushes(&own, &workspace).await
}

/// The options of a Bellhop that accepts an old secret for a time that a test can wait for.
pub const GRACE: &[&str] = &["--rotation-grace", "15s"];

/// The Subscription `acme-web`, with a trigger for pushes, gets another secret while pushes arrive: none is refused or lost,
/// the URL stays, and the old secret is refused in the end.
pub async fn rotated_under_pushes(own: &Own, workspace: &Workspace<'_>) -> Result<()> {
    let api = workspace.api::<Subscription>();
    let before = api.get("acme-web").await?;
    let (url, old) = (callback_url(&before)?, callback_secret(&workspace.client, &before).await?);
    let old_hook = workspace.hooks().await?[0]["id"].clone();

    let done = AtomicBool::new(false);
    let pushes = async {
        let mut commits = BTreeSet::new();
        let mut number = 0;
        while !done.load(Ordering::Relaxed) || commits.len() < 6 {
            number += 1;
            commits.insert(workspace.push("main", &format!("{number}.txt")).await?);
        }
        anyhow::Ok(commits)
    };
    let rotation = async {
        let result = async {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let patch =
                json!({"metadata": {"annotations": {"bellhop.dev/rotate-requested-at": "2026-01-01T00:00:00Z"}}});
            api.patch("acme-web", &PatchParams::default(), &Patch::Merge(patch)).await?;
            eventually(PATIENCE, "the old webhook is gone, and the new one is there", async || {
                let hooks = workspace.hooks().await?;
                ensure!(hooks.len() == 1 && hooks[0]["id"] != old_hook, "{hooks:?}");
                Ok(())
            })
            .await?;
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            anyhow::Ok(())
        }
        .await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let (commits, rotated) = tokio::join!(pushes, rotation);
    rotated?;
    let commits = commits?;

    eventually(PATIENCE, "every push has run its workflow", async || {
        let ran: BTreeSet<String> = workspace
            .runner
            .requests()
            .iter()
            .filter_map(|run| run.json().ok()?["commits"][0]["id"].as_str().map(str::to_owned))
            .collect();
        let lost: Vec<&String> = commits.difference(&ran).collect();
        ensure!(lost.is_empty(), "{} of {} are missing", lost.len(), commits.len());
        Ok(())
    })
    .await?;
    ensure!(own.bellhop.metric("bellhop_requests_total", &["answer=\"unverified\""]).await? == 0.0, "none was refused");

    let after = api.get("acme-web").await?;
    ensure!(callback_url(&after)? == url, "the URL stays");
    let new = callback_secret(&workspace.client, &after).await?;
    note_secret(&old)?;
    ensure!(new != old);
    workspace.subscription_is("acme-web", "Ready", "True", "Ready").await?;
    let answer = async |secret: &str| {
        let body = json!({"ref": "refs/heads/main", "secret": secret.len()}).to_string();
        let request = bellhop_harness::http::client()
            .post(&url)
            .header("x-gitea-event", "issues")
            .header("x-gitea-delivery", uuid::Uuid::new_v4().to_string())
            .header("x-gitea-signature", sign(secret, body.as_bytes()))
            .header("content-type", "application/json")
            .body(body);
        anyhow::Ok(request.send().await?.status().as_u16())
    };
    eventually(PATIENCE, "the old secret is refused after the grace period", async || {
        let (of_old, of_new) = (answer(&old).await?, answer(&new).await?);
        ensure!(of_old == 401 && of_new == 200, "old {of_old}, new {of_new}");
        Ok(())
    })
    .await?;
    // The same value asks for nothing.
    let ids = workspace.hook_ids().await?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    ensure!(workspace.hook_ids().await? == ids);
    workspace.event_says("SecretRotation", "").await?;
    workspace.collect(&own.bellhop).await
}
