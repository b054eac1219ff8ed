//! Webhooks that end after half a minute unless they are renewed, while deliveries arrive all the time.

use super::stage::{Stage, brisk, webhooks_become};
use crate::support::{PATIENCE, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use bellhop_harness::vendor::{Vendor, airtable, gmail, google_calendar, microsoft_graph, now};
use serde_json::json;
use std::time::Duration;

/// Renewed at two thirds of it, so there are eight seconds for a busy machine.
const LIFE: Duration = Duration::from_secs(24);
/// Three renewals, and most of a fourth life.
const WATCHED: Duration = Duration::from_secs(60);
/// Between two deliveries.
const PAUSE: Duration = Duration::from_millis(200);

/// For a while, every live webhook gets delivery after delivery. At no moment there is none; each delivery starts the
/// workflow; renewals are made when they are due and not more often; at the end there is one webhook.
async fn renewed_without_a_gap<V: Vendor>(
    stage: Stage<'_, V>,
    event: &str,
    sent: &str,
    renewals: impl Fn(&Stage<'_, V>) -> usize,
) -> Result<()> {
    stage.subscribe(&[event]).await?;
    stays_without_a_gap(stage, sent, renewals).await
}

async fn stays_without_a_gap<V: Vendor>(
    stage: Stage<'_, V>,
    sent: &str,
    renewals: impl Fn(&Stage<'_, V>) -> usize,
) -> Result<()> {
    stage.ready().await?;
    stage.fires(sent).await?;
    let desk = stage.vendor.desk();
    let from = now();
    let before = renewals(&stage);
    let sending = stage.vendor.keep_sending(sent, PAUSE);
    tokio::time::sleep(WATCHED).await;
    let deliveries = sending.stop().await?;
    let to = now();
    let made = renewals(&stage) - before;

    ensure!(desk.gaps(from, to).is_empty(), "gaps {:?} in {:?} until {to}", desk.gaps(from, to), desk.timeline());
    ensure!((2..=5).contains(&made), "{made} renewals in {WATCHED:?} of lives of {LIFE:?}: {:?}", desk.timeline());
    // Two webhooks get two deliveries for the moment in which one replaces the other.
    ensure!(deliveries >= 20, "{deliveries} deliveries in {WATCHED:?}");
    stage.runs_are(deliveries).await?;

    webhooks_become(&stage, 1).await?;
    // It has been renewed meanwhile, perhaps just now.
    eventually(PATIENCE, "the status says when the one webhook ends", async || {
        let status = stage.subscription().await?.status.unwrap_or_default();
        ensure!(status.webhooks.len() == 1, "{:?}", status.webhooks);
        let expires = status.webhooks[0].expires_at.as_ref().context("there is no end")?;
        ensure!(expires.0.as_millisecond() + 1000 >= to, "the status is behind: {expires:?}");
        Ok(())
    })
    .await?;
    stage.one_webhook().await?;
    stage.an_event_runs(sent).await?;
    stage.ends_with_nothing().await
}

async fn a_refresh_call_prolongs_a_webhook() -> Result<()> {
    let stage = Stage::new("airtable", airtable::Airtable { life: LIFE }, json!({"base": "appAcme"})).await?;
    stage.credentials(&[("token", airtable::TOKEN)]).await?;
    renewed_without_a_gap(stage, "tableData", "tableData", |stage| {
        assert_eq!(stage.vendor.desk().timeline().len(), 1, "it is prolonged, not made again");
        stage.vendor.desk().count("POST", "/refresh")
    })
    .await
}

async fn a_patch_prolongs_a_subscription() -> Result<()> {
    let vendor = microsoft_graph::MicrosoftGraph::new(LIFE);
    let stage = Stage::new("microsoft-graph", vendor, json!({"tenant": "common", "resource": "me/messages"})).await?;
    note_secret(microsoft_graph::TOKEN)?;
    stage.subscribe_by_consent(&["created"], microsoft_graph::CLIENT_ID, microsoft_graph::CLIENT_SECRET).await?;
    stays_without_a_gap(stage, "created", |stage| {
        assert_eq!(stage.vendor.desk().timeline().len(), 1, "it is prolonged, not made again");
        stage.vendor.desk().count("PATCH", "/subscriptions/")
    })
    .await
}

async fn calling_create_again_prolongs_a_watch() -> Result<()> {
    let stage = Stage::new("gmail", gmail::Gmail { life: LIFE }, json!({})).await?;
    stage.credentials(&[("token", gmail::TOKEN)]).await?;
    renewed_without_a_gap(stage, "mailboxChanged", "mailboxChanged", |stage| {
        assert_eq!(stage.vendor.desk().timeline().len(), 1, "it is prolonged, not made again");
        stage.vendor.desk().count("POST", "/watch")
    })
    .await
}

async fn a_new_channel_replaces_the_old_one_before_it_ends() -> Result<()> {
    let stage =
        Stage::new("google-calendar", google_calendar::GoogleCalendar { life: LIFE }, json!({"calendar": "primary"}));
    let stage = stage.await?;
    stage.credentials(&[("token", google_calendar::TOKEN)]).await?;
    renewed_without_a_gap(stage, "exists", "exists", |stage| {
        let desk = stage.vendor.desk();
        // What is replaced is stopped, and not left to its end.
        let lives = desk.timeline();
        let left = lives.iter().rev().skip(2).filter(|life| life.until.is_none_or(|until| until > now())).count();
        assert_eq!(left, 0, "old channels are left: {lives:?}");
        desk.count("POST", "/events/watch")
    })
    .await
}

/// The vendor fails for a while: the webhook is prolonged as soon as it works again, before its end.
async fn a_refresh_that_fails_is_tried_again_before_the_end() -> Result<()> {
    let stage =
        Stage::new("airtable", airtable::Airtable { life: Duration::from_secs(45) }, json!({"base": "appAcme"}));
    let stage = stage.await?;
    stage.credentials(&[("token", airtable::TOKEN)]).await?;
    stage.subscribe(&["tableData"]).await?;
    stage.ready().await?;
    stage.vendor.desk().fail_next(2, "POST", "/refresh", 503);
    stage.fires("tableData").await?;
    let from = now();
    let sending = stage.vendor.keep_sending("tableData", PAUSE);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let deliveries = sending.stop().await?;
    let desk = stage.vendor.desk();
    ensure!(desk.gaps(from, now()).is_empty() && desk.timeline().len() == 1, "{:?}", desk.timeline());
    let refreshes = desk.count("POST", "/refresh");
    ensure!((3..=6).contains(&refreshes), "{refreshes} calls: two that fail and one or two that do not");
    stage.runs_are(deliveries).await?;
    stage.ends_with_nothing().await
}

/// All at the same time, because they take a minute each and do little.
#[tokio::test]
async fn webhooks_that_end_are_kept_alive_in_each_way() -> Result<()> {
    tokio::try_join!(
        async { a_refresh_call_prolongs_a_webhook().await.context("a refresh call prolongs a webhook") },
        async { a_patch_prolongs_a_subscription().await.context("a PATCH prolongs a subscription") },
        async { calling_create_again_prolongs_a_watch().await.context("calling create again prolongs a watch") },
        async {
            a_new_channel_replaces_the_old_one_before_it_ends().await.context("a new channel replaces the old one")
        },
        async { a_refresh_that_fails_is_tried_again_before_the_end().await.context("a refresh that fails") },
    )?;
    Ok(())
}

/// Nothing prolongs what is gone: it is made anew, and said so.
#[tokio::test]
async fn a_webhook_that_is_gone_when_it_is_to_be_prolonged_is_made_anew() -> Result<()> {
    let stage = Stage::new("airtable", airtable::Airtable { life: LIFE }, json!({"base": "appAcme"})).await?;
    stage.credentials(&[("token", airtable::TOKEN)]).await?;
    stage.subscribe(&["tableData"]).await?;
    stage.ready().await?;
    let gone = stage.one_webhook().await?;
    ensure!(stage.vendor.desk().remove(&gone.id));
    webhooks_become(&stage, 0).await?;
    webhooks_become(&stage, 1).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.id != gone.id, "{webhook:?}");
    // Its secret came with the answer to create, and is published before the status is written.
    eventually(PATIENCE, "the new webhook is in the status", async || {
        let status = stage.subscription().await?.status.unwrap_or_default();
        ensure!(status.webhooks.iter().any(|told| told.id == webhook.id), "{:?}", status.webhooks);
        Ok(())
    })
    .await?;
    stage.an_event_runs("tableData").await?;
    stage.event_says("WebhookRepaired", "").await?;
    stage.ends_with_nothing().await
}

/// A person has disabled the webhook, and no call can enable it: another one takes its place, whose secret the vendor chooses.
/// What that one sends before Bellhop is told comes back.
#[tokio::test]
async fn what_a_replacement_sends_before_its_secret_is_told_comes_back() -> Result<()> {
    let vendor = airtable::Airtable { life: Duration::from_secs(3600) };
    let stage = Stage::brisk("airtable", vendor, json!({"base": "appAcme"})).await?;
    stage.credentials(&[("token", airtable::TOKEN)]).await?;
    stage.subscribe(&["tableData"]).await?;
    stage.ready().await?;
    let old = stage.one_webhook().await?;
    let desk = stage.vendor.desk();
    desk.hold_next(1, "POST", "/webhooks", Duration::from_secs(5));
    ensure!(desk.change(&old.id, |webhook| webhook.enabled = false));
    // It is disabled, but what it has sent before may still arrive.
    let late = bellhop_harness::vendor::Webhook { enabled: true, ..old };
    stage.comes_back_until_its_secret_is_told(&[late], "tableData").await?;
    stage.event_says("WebhookRepaired", "it was replaced").await?;
    stage.one_webhook().await?;
    stage.ends_with_nothing_at(&brisk().await.bellhop).await
}
