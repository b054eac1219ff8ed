//! Gitea: the webhook of an organization, with all events that the plugin has.

use crate::support::{PATIENCE, Workspace, callback_url, shared};
use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn the_webhook_of_an_organization_tells_of_all_its_repositories() -> Result<()> {
    let workspace = Workspace::shared("organization").await?;
    let (gitea, user) = (workspace.gitea, &workspace.user);
    let organization = format!("{}-acme", user.name);
    let (status, answer) =
        gitea.api(Method::POST, "/api/v1/orgs", user, Some(&json!({"username": organization}))).await?;
    ensure!(status == 201, "{status}: {answer}");
    let path = format!("/api/v1/orgs/{organization}/hooks");
    let hooks = async || {
        let (_, hooks) = gitea.api(Method::GET, &path, user, None).await?;
        Ok::<_, anyhow::Error>(hooks.as_array().cloned().unwrap_or_default())
    };

    let mut subscription = workspace.subscription("acme");
    subscription["spec"]["parameters"] = json!({"baseURL": workspace.base_url, "organization": organization});
    workspace.create_subscription(subscription).await?;
    let mut trigger = workspace.trigger("welcome", "acme");
    trigger["spec"]["event"] = json!("repository");
    trigger["spec"]["parameters"] = json!({"actions": ["created"], "repositories": ["*/web-*", "!*/web-scratch"]});
    workspace.create_trigger(trigger).await?;
    workspace.subscription_is("acme", "Ready", "True", "").await?;
    workspace.trigger_is("welcome", "True", "Bound").await?;
    let made = hooks().await?;
    let url = callback_url(&workspace.api().get("acme").await?)?;
    ensure!(made.len() == 1 && made[0]["config"]["url"] == json!(url), "{made:?}");
    let events = made[0]["events"].as_array().context("events")?;
    for event in ["push", "repository", "wiki", "pull_request_review", "workflow_job"] {
        ensure!(events.contains(&json!(event)), "{event} is not among {events:?}");
    }

    for name in ["web-scratch", "web-shop"] {
        let path = format!("/api/v1/orgs/{organization}/repos");
        let (status, answer) = gitea.api(Method::POST, &path, user, Some(&json!({"name": name}))).await?;
        ensure!(status == 201, "{status}: {answer}");
    }
    let runs = workspace.runner.wait_for(1, PATIENCE).await?;
    let run: Value = runs[0].json()?;
    ensure!(run.to_string().contains(&format!("{organization}/web-shop")), "{run}");

    workspace.delete_subscription("acme").await?;
    workspace.is_gone("acme").await?;
    ensure!(hooks().await?.is_empty(), "{:?}", hooks().await?);
    ensure!(workspace.runner.count() == 1, "the other repository started a workflow");
    workspace.collect(shared().await).await
}
