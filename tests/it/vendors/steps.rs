//! Webhooks that take more than one call.

use super::stage::{Stage, condition, webhooks_become};
use crate::support::PATIENCE;
use anyhow::{Result, ensure};
use bellhop_harness::proxy::{Action, Hold, Proxy};
use bellhop_harness::vendor::{calendly, zendesk};
use serde_json::json;
use std::time::Duration;

const CREDENTIALS: [(&str, &str); 2] = [("email", "bot@acme.example"), ("token", zendesk::TOKEN)];

#[tokio::test]
async fn what_a_call_before_create_has_read_is_used() -> Result<()> {
    let stage = Stage::new("calendly", calendly::Calendly, json!({})).await?;
    stage.credentials(&[("token", calendly::TOKEN)]).await?;
    stage.subscribe(&["invitee.created", "invitee.canceled"]).await?;
    let status = stage.ready().await?.status.unwrap_or_default();
    let webhook = stage.one_webhook().await?;
    ensure!(status.webhooks[0].id == webhook.id, "the end of the URI is the id: {:?}", status.webhooks);
    stage.an_event_runs("invitee.created").await?;
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn a_call_before_create_that_fails_creates_nothing_and_is_made_again() -> Result<()> {
    let stage = Stage::new("calendly", calendly::Calendly, json!({})).await?;
    stage.credentials(&[("token", calendly::TOKEN)]).await?;
    // `verify` calls the same URL before.
    stage.vendor.desk().pass_next("GET", "/users/me");
    stage.vendor.desk().fail_next(1, "GET", "/users/me", 503);
    stage.subscribe(&["invitee.created"]).await?;
    stage.ready().await?;
    ensure!(stage.vendor.desk().count("POST", "/webhook_subscriptions") == 1);
    stage.one_webhook().await?;
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn a_call_after_create_reads_the_secret() -> Result<()> {
    let stage = Stage::new("zendesk", zendesk::Zendesk, json!({})).await?;
    stage.credentials(&CREDENTIALS).await?;
    stage.story(&["zen:event-type:ticket.created"], "zen:event-type:ticket.created").await
}

#[tokio::test]
async fn a_call_after_create_that_fails_once_is_made_again_for_the_same_webhook() -> Result<()> {
    let stage = Stage::new("zendesk", zendesk::Zendesk, json!({})).await?;
    stage.credentials(&CREDENTIALS).await?;
    stage.vendor.desk().fail_next(1, "GET", "/signing_secret", 503);
    stage.subscribe(&["zen:event-type:ticket.created"]).await?;
    stage.ready().await?;
    stage.one_webhook().await?;
    ensure!(stage.vendor.desk().count("POST", "/webhooks") == 1, "{:#?}", stage.vendor.desk().calls());
    stage.an_event_runs("zen:event-type:ticket.created").await?;
    stage.ends_with_nothing().await
}

/// Without its secret the webhook is of no use, so it does not stay.
#[tokio::test]
async fn a_webhook_whose_second_call_is_refused_for_good_is_rolled_back() -> Result<()> {
    let stage = Stage::new("zendesk", zendesk::Zendesk, json!({})).await?;
    stage.credentials(&CREDENTIALS).await?;
    stage.vendor.desk().fail_next(100, "GET", "/signing_secret", 422);
    stage.subscribe(&["zen:event-type:ticket.created"]).await?;
    let message = condition(&stage, "WebhookRegistered", "False", "").await?;
    ensure!(message.contains("422"), "{message}");
    webhooks_become(&stage, 0).await?;
    // No hot loop: each attempt leaves nothing, and the next one comes later than the last.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let creates = stage.vendor.desk().count("POST", "/webhooks");
    ensure!(creates <= 8, "{creates} webhooks were made");

    stage.vendor.desk().fail_no_more();
    stage.ready().await?;
    stage.one_webhook().await?;
    stage.an_event_runs("zen:event-type:ticket.created").await?;
    stage.ends_with_nothing().await
}

/// Credentials can be mended, so the webhook waits for it, and is finished then; nothing is made twice.
#[tokio::test]
async fn a_webhook_whose_second_call_lacks_a_right_waits_for_it() -> Result<()> {
    let stage = Stage::new("zendesk", zendesk::Zendesk, json!({})).await?;
    stage.credentials(&CREDENTIALS).await?;
    stage.vendor.desk().fail_next(100, "GET", "/signing_secret", 403);
    stage.subscribe(&["zen:event-type:ticket.created"]).await?;
    let message = condition(&stage, "WebhookRegistered", "False", "CredentialsRefused").await?;
    ensure!(message.contains("403"), "{message}");
    stage.vendor.desk().fail_no_more();
    // Another token is a change of the Secret, which is taken up at once.
    stage.credentials(&[("email", "bot@acme.example"), ("token", zendesk::OTHER_TOKEN)]).await?;
    stage.ready().await?;
    stage.one_webhook().await?;
    ensure!(stage.vendor.desk().count("POST", "/webhooks") == 1, "{:#?}", stage.vendor.desk().calls());
    stage.an_event_runs("zen:event-type:ticket.created").await?;
    stage.ends_with_nothing().await
}

/// What was rolled back may be in the middle of it when the Subscription is deleted.
#[tokio::test]
async fn a_subscription_whose_webhook_is_never_finished_ends_with_nothing() -> Result<()> {
    let stage = Stage::new("zendesk", zendesk::Zendesk, json!({})).await?;
    stage.credentials(&CREDENTIALS).await?;
    stage.vendor.desk().fail_next(100, "GET", "/signing_secret", 500);
    stage.subscribe(&["zen:event-type:ticket.created"]).await?;
    condition(&stage, "WebhookRegistered", "False", "").await?;
    stage.ends_with_nothing().await
}

/// The Secret is mended while the external system is still being asked about what it held before: the answer to that is no
/// reason to leave the external system alone.
#[tokio::test]
async fn credentials_that_are_mended_during_a_pass_are_taken_up_after_it() -> Result<()> {
    let mut stage = Stage::new("calendly", calendly::Calendly, json!({})).await?;
    let proxy = Proxy::start(&stage.vendor.url())?;
    stage.base_url = proxy.url();
    let hold = Hold::new();
    let held = hold.clone();
    proxy.on_call(move |_| Action::HoldThenForward(held.clone()));
    stage.credentials(&[("token", "wrong-key-6a0e")]).await?;
    stage.subscribe(&["invitee.created"]).await?;
    hold.reached(PATIENCE).await?;
    stage.credentials(&[("token", calendly::TOKEN)]).await?;
    hold.release();
    stage.ready().await?;
    stage.one_webhook().await?;
    stage.ends_with_nothing().await
}
