//! Callbacks that must be answered while create is still open.

use super::stage::Stage;
use crate::support::note_secret;
use anyhow::{Result, ensure};
use bellhop_harness::vendor::{Delivery, asana, microsoft_graph};
use serde_json::json;
use std::time::Duration;

fn project() -> serde_json::Value {
    json!({"workspace": "4242", "resource": "8675309"})
}

#[tokio::test]
async fn a_secret_in_a_header_is_echoed_within_create_and_kept() -> Result<()> {
    let stage = Stage::new("asana", asana::Asana, project()).await?;
    stage.credentials(&[("token", asana::TOKEN)]).await?;
    stage.subscribe(&["task.added", "task.changed"]).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    let run = stage.an_event_runs("task.added").await?;
    ensure!(run.json()?["gid"].is_string(), "{}", run.json()?);

    // A heartbeat is signed and has no events; it is accepted and starts nothing.
    stage.vendor.send(asana::HEARTBEAT).await?;
    stage.nothing_runs(1).await?;
    // The secret cannot be changed by whoever knows the callback URL.
    let other = Delivery::empty(&webhook.url).header("x-hook-secret", "another secret").send().await?;
    ensure!(other.status == 401, "{}", other.status);
    // The same one again is harmless: it is known.
    let same = Delivery::empty(&webhook.url).header("x-hook-secret", webhook.secret.clone()).send().await?;
    ensure!(same.status == 200 && same.header("x-hook-secret") == webhook.secret, "{same:?}");
    stage.an_event_runs("task.added").await?;
    // What is not signed with it is refused.
    let forged = Delivery::json(&webhook.url, &json!({"events": []})).signed_hex("x-hook-signature", "", "guessed");
    ensure!(forged.send().await?.status == 401);
    stage.ends_with_nothing().await
}

/// What was found cannot be used, because the secret was sent once, to somebody who has not kept it.
#[tokio::test]
async fn a_webhook_from_an_earlier_life_is_replaced_to_get_its_secret() -> Result<()> {
    let stage = Stage::new("asana", asana::Asana, project()).await?;
    stage.credentials(&[("token", "wrong-key-6a0e")]).await?;
    stage.subscribe(&["task.added"]).await?;
    super::stage::condition(&stage, "Authorized", "False", "CredentialsRefused").await?;
    let url = stage.callback_url().await?;
    let old = bellhop_harness::vendor::Webhook::new("1", url).events(["task.added"]).secret("nobody-knows");
    stage.vendor.desk().add(old);
    stage.credentials(&[("token", asana::TOKEN)]).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.id != "1", "{webhook:?}");
    stage.an_event_runs("task.added").await?;
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn a_token_in_the_query_is_echoed_as_text_within_create() -> Result<()> {
    let vendor = microsoft_graph::MicrosoftGraph::new(Duration::from_secs(3600));
    let stage = Stage::new("microsoft-graph", vendor, json!({"tenant": "common", "resource": "me/messages"})).await?;
    note_secret(microsoft_graph::TOKEN)?;
    let events = ["created", "updated", "missed"];
    stage.subscribe_by_consent(&events, microsoft_graph::CLIENT_ID, microsoft_graph::CLIENT_SECRET).await?;
    let status = stage.ready().await?.status.unwrap_or_default();
    ensure!(status.webhooks[0].expires_at.is_some(), "{:?}", status.webhooks);
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.events == ["created", "updated"], "{webhook:?}");
    let run = stage.an_event_runs("created").await?;
    ensure!(run.json()?["resource"].is_string(), "{}", run.json()?);
    // Two items of one request, of which one is somebody else's: none is believed.
    let item = |state: &str| {
        json!({"subscriptionId": webhook.id, "clientState": state, "changeType": "created",
        "resource": "Users/a/Messages/0", "id": "forged"})
    };
    let mixed = Delivery::json(&webhook.url, &json!({"value": [item(&webhook.secret), item("guessed")]}));
    ensure!(mixed.send().await?.status == 401);
    stage.ends_with_nothing().await
}
