//! One webhook for each Subscription, whatever crashes.

use crate::support::{Own, PATIENCE, REPOSITORY, Workspace, callback_secret, callback_url};
use anyhow::{Result, ensure};
use bellhop_harness::proxy::{Action, Hold, Proxy};
use bellhop_harness::server::Call;
use bellhop_harness::world;
use serde_json::json;

fn is_create(call: &Call) -> bool {
    call.method == "POST" && call.path.contains("/hooks")
}

#[tokio::test]
async fn a_controller_killed_right_after_the_create_call_makes_no_second_webhook() -> Result<()> {
    let mut own = Own::start("creation-crash", &[]).await?;
    let gitea = &world::shared().await.gitea;
    let proxy = Proxy::start(&gitea.url())?;
    let mut workspace = Workspace::new(&own.control_plane, gitea, "creation").await?;
    workspace.base_url = proxy.url();
    let hold = Hold::new();
    let held = hold.clone();
    proxy.on_call(move |call| if is_create(call) { Action::ForwardThenHold(held.clone()) } else { Action::Pass });

    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    hold.reached(PATIENCE).await?;
    ensure!(workspace.hooks().await?.len() == 1, "Gitea has acted");
    own.bellhop.kill9();
    hold.release();
    proxy.pass();
    own.bellhop.restart().await?;

    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let hooks = workspace.hooks().await?;
    ensure!(hooks.len() == 1, "exactly one webhook: {hooks:?}");
    ensure!(proxy.count("POST", |path| path.contains("/hooks")) == 1, "one create call was enough");
    // The secret of the webhook is the one in custody: a real push is believed.
    workspace.trigger_is("review", "True", "Bound").await?;
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn a_create_call_without_an_answer_makes_no_second_webhook() -> Result<()> {
    let mut workspace = Workspace::shared("no-answer").await?;
    let proxy = Proxy::start(&workspace.base_url)?;
    workspace.base_url = proxy.url();
    proxy.on_call(|call| if is_create(call) { Action::ForwardThenDrop } else { Action::Pass });
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    ensure!(workspace.hooks().await?.len() == 1);
    ensure!(proxy.count("POST", |path| path.contains("/hooks")) == 1);
    Ok(())
}

#[tokio::test]
async fn a_webhook_that_is_there_already_is_adopted_with_the_right_secret() -> Result<()> {
    let workspace = Workspace::shared("adoption").await?;
    // The address is known before the webhook is: make the Subscription wait at its authorization.
    workspace.put_secret(crate::support::SECRET, Some("gitea"), &[("token", "wrong")]).await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    workspace.subscription_is("acme-web", "Authorized", "False", "CredentialsRefused").await?;
    let subscription = workspace.api().get("acme-web").await?;
    let url = callback_url(&subscription)?;
    for _ in 0..2 {
        workspace.gitea.create_hook(&workspace.user, REPOSITORY, &url, "an old secret", &["issues"]).await?;
    }
    workspace.put_secret(crate::support::SECRET, Some("gitea"), &[("token", &workspace.user.token)]).await?;

    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let hooks = workspace.hooks().await?;
    ensure!(hooks.len() == 1, "one is adopted, the other removed: {hooks:?}");
    let events = hooks[0]["events"].as_array().cloned().unwrap_or_default();
    ensure!(events.contains(&json!("push")), "the events are rewritten: {events:?}");
    ensure!(!callback_secret(&workspace.client, &subscription).await?.is_empty());
    workspace.trigger_is("review", "True", "Bound").await?;
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn the_same_name_gets_the_same_callback_url_again() -> Result<()> {
    let workspace = Workspace::shared("same-url").await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let before = callback_url(&workspace.api().get("acme-web").await?)?;
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    ensure!(callback_url(&workspace.api().get("acme-web").await?)? == before);
    Ok(())
}
