//! What somebody has done to a webhook in the external system is noticed and mended, and looking costs what it has to.

use crate::support::{Own, PATIENCE, REPOSITORY, Workspace};
use anyhow::{Context, Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::proxy::{Action, Proxy};
use bellhop_harness::server::Reply;
use bellhop_harness::{eventually, world};
use reqwest::Method;
use serde_json::json;
use std::time::Duration;

/// Between two looks of the tests.
const INTERVAL: Duration = Duration::from_secs(4);

async fn start(name: &str) -> Result<(Own, Proxy)> {
    let own = Own::start(name, &["--drift-interval", &format!("{}s", INTERVAL.as_secs())]).await?;
    let proxy = Proxy::start(&world::shared().await.gitea.url())?;
    Ok((own, proxy))
}

#[tokio::test]
async fn a_webhook_that_was_deleted_or_disabled_is_mended_with_an_event() -> Result<()> {
    let (own, _) = start("drift").await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "drift").await?;
    workspace.connect("acme-web", "review").await?;
    let first = workspace.hooks().await?[0]["id"].as_u64().context("an id")?;
    workspace.gitea.delete_hook(&workspace.user, REPOSITORY, first).await?;
    let second = eventually(PATIENCE, "another webhook", async || {
        let hooks = workspace.hooks().await?;
        hooks.first().context("none so far")?["id"].as_u64().context("an id")
    })
    .await?;
    let event = async |what: &str| {
        eventually(PATIENCE, what, async || {
            let events = workspace.control_plane.kubectl(["-n", &workspace.namespace, "get", "events"]).await?;
            ensure!(events.contains("WebhookRepaired") && events.contains(what), "{events}");
            Ok(())
        })
        .await
    };
    event(&format!("webhook {first} was not in the external system any more")).await?;

    let path = format!("/api/v1/repos/{}/{REPOSITORY}/hooks/{second}", workspace.user.name);
    let off = json!({"active": false});
    let (status, answer) = workspace.gitea.api(Method::PATCH, &path, &workspace.user, Some(&off)).await?;
    ensure!(status.is_success(), "{status} {answer}");
    eventually(PATIENCE, "one webhook, which is active", async || {
        let hooks = workspace.hooks().await?;
        ensure!(hooks.len() == 1 && hooks[0]["active"] == json!(true), "{hooks:?}");
        Ok(())
    })
    .await?;
    event(&format!("webhook {second} was disabled or changed")).await?;

    workspace.subscription_is("acme-web", "Ready", "True", "Ready").await?;
    let (id, shown) = (workspace.hooks().await?[0]["id"].to_string(), workspace.api::<Subscription>());
    eventually(PATIENCE, "the status has the new id", async || {
        let webhooks = shown.get("acme-web").await?.status.context("a status")?.webhooks;
        ensure!(webhooks.len() == 1 && webhooks[0].id == id, "{webhooks:?}");
        Ok(())
    })
    .await?;
    // The new one has the secret: a push is believed.
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    ensure!(workspace.hooks().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_external_system_that_does_not_answer_is_never_taken_for_a_webhook_that_is_gone() -> Result<()> {
    let (own, proxy) = start("drift-error").await?;
    let mut workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "drift-error").await?;
    workspace.base_url = proxy.url();
    workspace.connect("acme-web", "review").await?;
    let ids = workspace.hook_ids().await?;
    for wrong in [Reply::status(500), Reply::ok().body("<html>proxy</html>"), Reply::status(404), Reply::dropped()] {
        let before = proxy.count("GET", |path| path.ends_with("/hooks"));
        proxy.on_call(move |_| Action::Respond(wrong.clone()));
        eventually(PATIENCE, "it was looked at", async || {
            ensure!(proxy.count("GET", |path| path.ends_with("/hooks")) > before);
            Ok(())
        })
        .await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        ensure!(workspace.hook_ids().await? == ids);
    }
    workspace.subscription_is("acme-web", "Ready", "True", "Ready").await?;
    ensure!(proxy.count("POST", |_| true) == 1, "one create call: {:?}", proxy.counts());
    Ok(())
}

#[tokio::test]
async fn in_two_minutes_there_are_as_many_calls_as_the_interval_says() -> Result<()> {
    let (own, proxy) = start("drift-count").await?;
    let mut workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "drift-count").await?;
    workspace.base_url = proxy.url();
    workspace.connect("acme-web", "review").await?;
    let before = proxy.counts();
    let time = Duration::from_secs(120);
    tokio::time::sleep(time).await;
    let after = proxy.counts();
    let more: Vec<_> = after.iter().map(|(call, count)| (call, count - before.get(call).unwrap_or(&0))).collect();
    let called: usize = more.iter().map(|(_, count)| count).sum();
    let looks = more.iter().filter(|((method, path), _)| method == "GET" && path.ends_with("/hooks"));
    let looked: usize = looks.map(|(_, count)| count).sum();
    let expected = (time.as_secs() / INTERVAL.as_secs()) as usize;
    // A busy machine leaves looks out; nothing makes more of them.
    ensure!((expected * 2 / 3..=expected + 1).contains(&looked), "{looked} looks instead of {expected}");
    ensure!(called == looked, "nothing else: {before:?} {after:?}");
    Ok(())
}
