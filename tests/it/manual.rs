//! Webhooks that a person makes.

use crate::bad_input::sign;
use crate::support::{PATIENCE, REPOSITORY, Workspace, callback_url, note_secret, shared};
use anyhow::{Context, Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::eventually;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

fn manual(workspace: &Workspace<'_>, name: &str, manual: Value) -> Value {
    let mut subscription = workspace.subscription(name);
    subscription["spec"]["authorization"] = json!({"manual": manual});
    subscription
}

async fn secret_of(workspace: &Workspace<'_>, name: &str) -> Result<String> {
    let secret = workspace.api::<Secret>().get(name).await?;
    let value = secret.data.and_then(|mut data| data.remove("secret")).context("the key `secret`")?;
    let value = String::from_utf8(value.0)?;
    note_secret(&value)?;
    Ok(value)
}

/// How the callback URL answers a push that is signed with this secret.
async fn answer(url: &str, secret: &str) -> Result<u16> {
    let body = json!({"ref": "refs/heads/main", "id": uuid::Uuid::new_v4()}).to_string();
    let request = bellhop_harness::http::client()
        .post(url)
        .header("x-gitea-event", "push")
        .header("x-gitea-delivery", uuid::Uuid::new_v4().to_string())
        .header("x-gitea-signature", sign(secret, body.as_bytes()))
        .header("content-type", "application/json")
        .body(body);
    Ok(request.send().await?.status().as_u16())
}

#[tokio::test]
async fn a_webhook_made_by_hand_with_the_generated_secret_is_believed() -> Result<()> {
    let workspace = Workspace::shared("manual").await?;
    workspace.create_subscription(manual(&workspace, "acme-web", json!({}))).await?;
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    let message = workspace.subscription_is("acme-web", "Ready", "True", "Ready").await?;
    ensure!(message.contains("live"), "{message}");
    for step in ["Authorized", "WebhookRegistered"] {
        workspace.subscription_is("acme-web", step, "True", "Manual").await?;
    }
    workspace.trigger_is("review", "True", "Bound").await?;
    ensure!(workspace.hooks().await?.is_empty(), "Bellhop makes none");

    let subscription = workspace.api::<Subscription>().get("acme-web").await?;
    let url = callback_url(&subscription)?;
    let named = subscription.status.context("a status")?.callback_secret_ref.context("the Secret is named")?.name;
    ensure!(named == "acme-web-callback-secret", "{named}");
    let secret = secret_of(&workspace, &named).await?;
    workspace.gitea.create_hook(&workspace.user, REPOSITORY, &url, &secret, &["push"]).await?;
    workspace.push("main", "a.txt").await?;
    let run = &workspace.runner.wait_for(1, PATIENCE).await?[0];
    ensure!(run.json()?["ref"] == "refs/heads/main");
    ensure!(answer(&url, "another").await? == 401);

    // A person deletes the Secret: it is made again, with the same content, because the webhook has it.
    workspace.api::<Secret>().delete(&named, &DeleteParams::default()).await?;
    eventually(PATIENCE, "the Secret is there again", async || {
        ensure!(secret_of(&workspace, &named).await? == secret);
        Ok(())
    })
    .await?;
    // One that was changed is set right.
    let change = Patch::Merge(json!({"stringData": {"secret": "changed-by-somebody-8f2c"}}));
    workspace.api::<Secret>().patch(&named, &PatchParams::default(), &change).await?;
    eventually(PATIENCE, "the Secret is right again", async || {
        ensure!(secret_of(&workspace, &named).await? == secret);
        Ok(())
    })
    .await?;

    // With another Subscription's deletion, its Secret goes; the webhook was never Bellhop's.
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    eventually(PATIENCE, "the Secret goes with its owner", async || {
        ensure!(workspace.api::<Secret>().get_opt(&named).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    ensure!(workspace.hooks().await?.len() == 1);
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn a_secret_of_the_users_own_is_taken_once_it_may_be_and_followed() -> Result<()> {
    let workspace = Workspace::shared("own-secret").await?;
    let reference = json!({"secretRef": {"name": "mine"}});
    workspace.create_subscription(manual(&workspace, "acme-web", reference)).await?;
    let message = workspace.subscription_is("acme-web", "Ready", "False", "SecretNotFound").await?;
    ensure!(message.contains("spec.authorization.manual.secretRef.name") && message.contains("\"mine\""), "{message}");
    // The URL is live already: whoever makes the webhook can enter it, and nothing is believed yet, nor lost.
    let url = callback_url(&workspace.api::<Subscription>().get("acme-web").await?)?;
    ensure!(answer(&url, "first-of-mine-77a0").await? == 503);

    workspace.put_secret("mine", Some("github"), &[("token", "first-of-mine-77a0")]).await?;
    workspace.subscription_is("acme-web", "Ready", "False", "SecretNotLabelled").await?;
    workspace.put_secret("mine", Some("gitea"), &[("token", "first-of-mine-77a0")]).await?;
    let message = workspace.subscription_is("acme-web", "Ready", "False", "SecretKeyMissing").await?;
    ensure!(message.contains("`secret`"), "{message}");
    workspace.put_secret("mine", Some("gitea"), &[("secret", "first-of-mine-77a0")]).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "Ready").await?;
    ensure!(answer(&url, "first-of-mine-77a0").await? == 200);
    ensure!(workspace.api::<Secret>().get_opt("acme-web-callback-secret").await?.is_none(), "none is generated");

    // Another secret is taken up without any annotation; the old one is accepted while a person enters the new one.
    workspace.put_secret("mine", Some("gitea"), &[("secret", "second-of-mine-1b7d")]).await?;
    eventually(PATIENCE, "the new secret is taken", async || {
        let status = answer(&url, "second-of-mine-1b7d").await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await?;
    ensure!(answer(&url, "first-of-mine-77a0").await? == 200);
    ensure!(answer(&url, "third").await? == 401);
    Ok(())
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_not_overwritten() -> Result<()> {
    let workspace = Workspace::shared("occupied").await?;
    workspace.put_secret("acme-web-callback-secret", None, &[("secret", "precious-of-theirs-03c9")]).await?;
    workspace.create_subscription(manual(&workspace, "acme-web", json!({}))).await?;
    let message = workspace.subscription_is("acme-web", "Ready", "False", "SecretExists").await?;
    ensure!(message.contains("\"acme-web-callback-secret\""), "{message}");
    ensure!(secret_of(&workspace, "acme-web-callback-secret").await? == "precious-of-theirs-03c9");
    workspace.api::<Secret>().delete("acme-web-callback-secret", &DeleteParams::default()).await?;
    // Nothing says that a Secret without the label is gone, so somebody has to touch the Subscription, or wait.
    let touch = Patch::Merge(json!({"metadata": {"annotations": {"example.com/touched": "1"}}}));
    workspace.api::<Subscription>().patch("acme-web", &PatchParams::default(), &touch).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "Ready").await?;
    Ok(())
}

#[tokio::test]
async fn a_rotation_by_hand_leaves_a_person_the_time_to_enter_the_new_secret() -> Result<()> {
    let workspace = Workspace::shared("manual-rotation").await?;
    workspace.create_subscription(manual(&workspace, "acme-web", json!({}))).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "Ready").await?;
    let url = callback_url(&workspace.api::<Subscription>().get("acme-web").await?)?;
    let old = secret_of(&workspace, "acme-web-callback-secret").await?;
    let annotation = json!({"metadata": {"annotations": {"bellhop.dev/rotate-requested-at": "now"}}});
    workspace.api::<Subscription>().patch("acme-web", &PatchParams::default(), &Patch::Merge(annotation)).await?;
    let new = eventually(PATIENCE, "the Secret has another value", async || {
        let new = secret_of(&workspace, "acme-web-callback-secret").await?;
        ensure!(new != old, "it is the same");
        Ok(new)
    })
    .await?;
    ensure!(answer(&url, &new).await? == 200 && answer(&url, &old).await? == 200, "both are accepted");
    workspace.subscription_is("acme-web", "Ready", "True", "Ready").await?;
    Ok(())
}
