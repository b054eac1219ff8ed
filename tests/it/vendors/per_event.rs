//! One webhook for each event.

use super::stage::{SUBSCRIPTION, Stage, condition};
use crate::support::{PATIENCE, note_secret};
use anyhow::{Result, ensure};
use bellhop_harness::eventually;
use bellhop_harness::vendor::{Vendor, mailgun, shopify, webflow};
use serde_json::json;
use std::time::Duration;

/// A store with an app's credentials, one of which signs.
async fn shop() -> Result<Stage<'static, shopify::Shopify>> {
    let stage = Stage::new("shopify", shopify::Shopify, json!({"shop": "acme"})).await?;
    stage.credentials(&[("token", shopify::TOKEN), ("clientSecret", shopify::APP_SECRET)]).await?;
    Ok(stage)
}

/// Two events make two webhooks; the status names both; each event runs what it should; nothing is left.
async fn two_webhooks<V: Vendor>(stage: Stage<'_, V>, events: [&str; 2], sent: [&str; 2]) -> Result<()> {
    stage.subscribe(&events).await?;
    let status = stage.ready().await?.status.unwrap_or_default();
    let url = stage.callback_url().await?;
    let webhooks = stage.vendor.desk().webhooks();
    ensure!(webhooks.len() == 2, "{webhooks:?} after {:#?}", stage.vendor.desk().calls());
    for webhook in &webhooks {
        note_secret(&webhook.secret)?;
        ensure!(webhook.url == url, "{webhook:?}");
    }
    for event in sent {
        ensure!(webhooks.iter().filter(|webhook| webhook.events == [event]).count() == 1, "{event}: {webhooks:?}");
    }
    let mut told: Vec<_> = status.webhooks.iter().map(|told| (told.event.as_deref(), told.id.as_str())).collect();
    told.sort_unstable();
    let mut right: Vec<_> = events
        .iter()
        .zip(sent)
        .map(|(event, sent)| {
            let id = webhooks.iter().find(|webhook| webhook.events == [sent]).map_or("", |webhook| webhook.id.as_str());
            (Some(*event), id)
        })
        .collect();
    right.sort_unstable();
    ensure!(told == right, "the status says {told:?}, the vendor {right:?}");

    stage.an_event_runs(sent[0]).await?;
    // It is subscribed, and no trigger wants it.
    stage.vendor.send(sent[1]).await?;
    stage.nothing_runs(1).await?;
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn each_topic_has_a_webhook_of_its_own() -> Result<()> {
    let stage = shop().await?;
    two_webhooks(stage, ["orders/create", "products/update"], ["ORDERS_CREATE", "PRODUCTS_UPDATE"]).await
}

#[tokio::test]
async fn each_event_has_an_entry_of_its_own() -> Result<()> {
    let stage = Stage::new("mailgun", mailgun::Mailgun, json!({"domain": "mail.acme.example"})).await?;
    stage.credentials(&[("key", mailgun::KEY)]).await?;
    two_webhooks(stage, ["delivered", "opened"], ["delivered", "opened"]).await
}

/// The vendor refuses the second one of two, in `userErrors`, with the status 200.
#[tokio::test]
async fn a_topic_that_is_refused_is_said_and_what_was_made_is_deleted_in_the_end() -> Result<()> {
    let stage = shop().await?;
    stage.subscribe(&["orders/create", "orders/fulfilled"]).await?;
    let message = condition(&stage, "WebhookRegistered", "False", "").await?;
    ensure!(message.contains("Topic is invalid"), "{message}");
    ensure!(stage.vendor.desk().webhooks().len() <= 1);
    let ready = stage.workspace.subscription_is(SUBSCRIPTION, "Ready", "False", "").await?;
    ensure!(!ready.is_empty());
    stage.ends_with_nothing().await
}

/// One of two was deleted by hand: that one is a success, the other one is deleted.
#[tokio::test]
async fn what_is_gone_of_several_is_no_obstacle() -> Result<()> {
    let stage = shop().await?;
    stage.subscribe(&["orders/create", "products/update"]).await?;
    stage.ready().await?;
    let webhooks = stage.vendor.desk().webhooks();
    ensure!(stage.vendor.desk().remove(&webhooks[0].id));
    stage.ends_with_nothing().await
}

/// The vendor chooses the secret of each webhook. The second one may send before Bellhop is told its secret, although that
/// of the first one is known.
#[tokio::test]
async fn what_the_second_webhook_sends_before_its_secret_is_told_comes_back() -> Result<()> {
    let stage = Stage::new("webflow", webflow::Webflow, json!({"site": "acme"})).await?;
    stage.credentials(&[("token", webflow::TOKEN)]).await?;
    let events = ["form_submission", "site_publish"];
    // Each create call is answered late.
    stage.vendor.desk().hold_next(2, "POST", "/webhooks", Duration::from_secs(5));
    stage.subscribe(&events).await?;
    let mut trigger = stage.workspace.trigger("publish", SUBSCRIPTION);
    trigger["spec"]["event"] = json!(events[1]);
    stage.workspace.create_trigger(trigger).await?;
    let first = eventually(PATIENCE, "the second webhook", async || {
        let webhooks = stage.vendor.desk().webhooks();
        ensure!(webhooks.len() == 2, "{webhooks:?}");
        Ok(webhooks[0].clone())
    })
    .await?;
    note_secret(&first.secret)?;
    stage.comes_back_until_its_secret_is_told(&[first], events[1]).await?;
    stage.ready().await?;
    stage.an_event_runs(events[0]).await?;
    stage.ends_with_nothing().await
}
