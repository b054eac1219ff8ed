//! The main path: a push runs a workflow.

use crate::support::{PATIENCE, Workspace, shared};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_push_runs_the_workflow_with_its_variables() -> Result<()> {
    let workspace = Workspace::shared("story").await?;
    let subscription = workspace.connect("acme-web", "review").await?;

    let hooks = workspace.hooks().await?;
    ensure!(hooks.len() == 1, "one webhook, found {hooks:?}");
    let status = subscription.status.expect("a ready Subscription has a status");
    ensure!(hooks[0]["config"]["url"] == json!(status.address.expect("and an address").url));
    ensure!(status.webhooks[0].id == hooks[0]["id"].to_string());
    ensure!(status.authorization.is_some_and(|a| a.account.as_deref() == Some(&workspace.user.name)));
    ensure!(status.events.contains(&"push".to_owned()), "all events are pinned: {:?}", status.events);
    let message = workspace.subscription_is("acme-web", "Authorized", "True", "Authorized").await?;
    ensure!(message == format!("token of {}", workspace.user.name), "{message}");

    workspace.event_says("", "events are received").await?;
    // What is finished is not written again: a status that changed on each pass would start the next one.
    let version = workspace.api::<bellhop::api::Subscription>().get("acme-web").await?.metadata.resource_version;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(workspace.api::<bellhop::api::Subscription>().get("acme-web").await?.metadata.resource_version == version);

    let commit = workspace.push("main", "hello.txt").await?;
    let run = &workspace.runner.wait_for(1, PATIENCE).await?[0];
    ensure!(run.method == "POST" && run.path == "/runs", "{} {}", run.method, run.path);
    ensure!(run.header("ce-specversion") == Some("1.0"));
    ensure!(run.header("ce-type") == Some("dev.bellhop.gitea.push"), "{:?}", run.header("ce-type"));
    let source = format!("/namespaces/{}/subscriptions/acme-web", workspace.namespace);
    ensure!(run.header("ce-source") == Some(&source), "{:?}", run.header("ce-source"));
    ensure!(run.header("ce-workflow") == Some("review"));
    ensure!(run.header("ce-trigger") == Some("review"));
    ensure!(run.header("ce-id").is_some_and(|id| id.parse::<uuid::Uuid>().is_ok()));
    let variables = run.json()?;
    ensure!(variables["ref"] == "refs/heads/main", "{variables}");
    ensure!(variables["commits"][0]["id"] == json!(commit), "{variables}");
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn two_triggers_both_run_and_an_excluded_push_does_not() -> Result<()> {
    let workspace = Workspace::shared("variations").await?;
    workspace.connect("acme-web", "every-push").await?;
    let mut limited = workspace.trigger("only-release", "acme-web");
    limited["spec"]["parameters"] = json!({"branches": ["release/*"]});
    workspace.create_trigger(limited).await?;
    let mut same_workflow = workspace.trigger("every-push-too", "acme-web");
    same_workflow["spec"]["workflow"] = json!("every-push");
    workspace.create_trigger(same_workflow).await?;
    workspace.trigger_is("only-release", "True", "Bound").await?;
    workspace.trigger_is("every-push-too", "True", "Bound").await?;

    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(2, PATIENCE).await?;
    // Long enough for a third delivery to arrive, were there one.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut triggers: Vec<_> =
        workspace.runner.requests().iter().filter_map(|run| run.header("ce-trigger").map(str::to_owned)).collect();
    triggers.sort();
    ensure!(triggers == ["every-push", "every-push-too"], "{triggers:?}");
    let ids: Vec<_> = workspace.runner.requests().iter().map(|run| run.header("ce-id").map(str::to_owned)).collect();
    ensure!(ids[0] == ids[1], "one event, one id: {ids:?}");

    let subscription = workspace.api::<bellhop::api::Subscription>();
    bellhop_harness::eventually(PATIENCE, "two workflows are counted", async || {
        let count = subscription.get("acme-web").await?.status.and_then(|status| status.workflow_count);
        ensure!(count == Some(2), "workflowCount is {count:?}");
        Ok(())
    })
    .await?;
    for (selector, expected) in [
        ("spec.subscriptionRef.name=acme-web", &["every-push", "every-push-too", "only-release"][..]),
        ("spec.subscriptionRef.name=acme-web,spec.workflow=every-push", &["every-push", "every-push-too"]),
        ("spec.subscriptionRef.name=other", &[]),
    ] {
        let args = ["-n", &workspace.namespace, "get", "workflowtriggers", "--field-selector", selector, "-o", "name"];
        let names = workspace.control_plane.kubectl(args).await?;
        let names: Vec<_> = names.lines().filter_map(|line| line.rsplit('/').next()).collect();
        ensure!(names == expected, "{selector}: {names:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_trigger_for_an_event_that_is_not_subscribed_says_so_and_never_runs() -> Result<()> {
    let workspace = Workspace::shared("unsubscribed").await?;
    let mut subscription = workspace.subscription("issues-only");
    subscription["spec"]["events"] = json!(["issues"]);
    workspace.create_subscription(subscription).await?;
    workspace.create_trigger(workspace.trigger("on-push", "issues-only")).await?;
    workspace.subscription_is("issues-only", "Ready", "True", "").await?;
    let message = workspace.trigger_is("on-push", "False", "EventNotSubscribed").await?;
    ensure!(message.contains("push") && message.contains("issues"), "{message}");

    workspace.push("main", "a.txt").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(workspace.runner.count() == 0, "nothing may run");
    Ok(())
}

#[tokio::test]
async fn a_runner_that_is_a_service_gets_what_it_is_asked_to_run() -> Result<()> {
    let workspace = Workspace::shared("service").await?;
    let mut trigger = workspace.trigger("review", "acme-web");
    // With the cluster domain `localhost`, the Service's name is a name of the loopback interface (RFC 6761).
    trigger["spec"]["runner"] = json!({"service": {"name": "runner", "port": workspace.runner.port(), "path": "/svc"}});
    workspace.put_service("runner", workspace.runner.port()).await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.create_trigger(trigger).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    workspace.trigger_is("review", "True", "Bound").await?;
    workspace.push("main", "a.txt").await?;
    let run = &workspace.runner.wait_for(1, PATIENCE).await?[0];
    ensure!(run.path == "/svc");
    let host = format!("runner.{}.svc.localhost:{}", workspace.namespace, workspace.runner.port());
    ensure!(run.header("host") == Some(&host), "{:?}", run.header("host"));
    Ok(())
}

#[tokio::test]
async fn a_suspended_trigger_never_fires_and_a_filter_decides() -> Result<()> {
    let workspace = Workspace::shared("modes").await?;
    workspace.connect("acme-web", "always").await?;
    let mut suspended = workspace.trigger("suspended", "acme-web");
    suspended["spec"]["mode"] = json!("Suspended");
    workspace.create_trigger(suspended).await?;
    let mut filtered = workspace.trigger("filtered", "acme-web");
    filtered["spec"]["filter"] = json!("variables.ref == 'refs/heads/other'");
    workspace.create_trigger(filtered).await?;
    workspace.trigger_is("suspended", "True", "Suspended").await?;
    workspace.trigger_is("filtered", "True", "Bound").await?;
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ran: Vec<_> =
        workspace.runner.requests().iter().map(|run| run.header("ce-trigger").map(str::to_owned)).collect();
    ensure!(ran == [Some("always".to_owned())], "{ran:?}");
    Ok(())
}
