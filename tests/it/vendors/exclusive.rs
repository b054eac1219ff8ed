//! A system that refuses a second webhook with the same URL and cannot change the one that is there: what has to be replaced is
//! deleted first, and no controller that is killed in between leaves none.

use super::stage::{SUBSCRIPTION, Stage, brisk, condition};
use crate::support::{Own, PATIENCE, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use bellhop_harness::proxy::{Action, Hold, Proxy};
use bellhop_harness::server::Call;
use bellhop_harness::vendor::calendly::{self, Calendly};
use bellhop_harness::vendor::{Vendor, Webhook, shopify};
use serde_json::json;
use std::time::Duration;

const EVENT: &str = "invitee.created";
const HOOKS: &str = "/webhook_subscriptions";

/// Waits until the vendor has one webhook, enabled, with another secret than the old one.
async fn another_than(stage: &Stage<'_, Calendly>, old: &Webhook) -> Result<Webhook> {
    eventually(PATIENCE, "one webhook, with another secret", async || {
        let webhooks = stage.vendor.desk().webhooks();
        let [new] = webhooks.as_slice() else { anyhow::bail!("{webhooks:?}") };
        ensure!(new.enabled && new.id != old.id, "{new:?}");
        note_secret(&new.secret)?;
        Ok(new.clone())
    })
    .await
}

/// Created, delivered, rotated, repaired twice, deleted.
#[tokio::test]
async fn what_may_not_be_doubled_lives_its_whole_life() -> Result<()> {
    let stage = Stage::brisk("calendly", Calendly, json!({})).await?;
    stage.credentials(&[("token", calendly::TOKEN)]).await?;
    stage.subscribe(&[EVENT]).await?;
    stage.ready().await?;
    let (first, url) = (stage.one_webhook().await?, stage.callback_url().await?);
    stage.fires(EVENT).await?;
    stage.an_event_runs(EVENT).await?;

    let before = stage.workspace.runner.count();
    let sending = stage.vendor.keep_sending(EVENT, Duration::from_millis(100));
    stage.ask_for_rotation("2026-01-01T00:00:00Z").await?;
    let second = another_than(&stage, &first).await?;
    ensure!(second.secret != first.secret && second.url == url, "{second:?}");
    // What the old one has sent last is believed.
    let late = Calendly.delivery(&first, EVENT, 1_000_000).send().await?;
    ensure!((200..300).contains(&late.status), "{}", late.status);
    let deliveries = sending.stop().await?;
    stage.runs_are(before + deliveries + 1).await?;
    let lives = stage.vendor.desk().timeline();
    let gap = lives[1].from - lives[0].until.unwrap_or(i64::MAX);
    ensure!((0..60_000).contains(&gap), "the gap is a moment: {gap} ms, {lives:?}");
    stage.event_says("WebhookInterrupted", &first.id).await?;
    eventually(PATIENCE, "the old secret is refused after the grace period", async || {
        let status = Calendly.delivery(&first, EVENT, 2_000_000).send().await?.status;
        ensure!(status == 401, "{status}");
        Ok(())
    })
    .await?;

    // Switched off by the vendor, as it does after a day of failures.
    ensure!(stage.vendor.desk().change(&second.id, |webhook| webhook.enabled = false));
    let third = another_than(&stage, &second).await?;
    stage.event_says("WebhookRepaired", &format!("webhook {} was disabled", second.id)).await?;
    stage.event_says("WebhookInterrupted", &second.id).await?;
    // Deleted by hand.
    ensure!(stage.vendor.desk().remove(&third.id));
    let fourth = another_than(&stage, &third).await?;
    stage.event_says("WebhookRepaired", &format!("webhook {} was not in the external", third.id)).await?;
    stage.workspace.subscription_is(SUBSCRIPTION, "Ready", "True", "Ready").await?;
    ensure!(fourth.url == url);
    stage.an_event_runs(EVENT).await?;
    stage.ends_with_nothing_at(&brisk().await.bellhop).await
}

/// One webhook for each event; each makes room for its successor alone. Shopify signs with its app's secret, which Bellhop does
/// not choose; here, a key comes with each webhook.
#[tokio::test]
async fn each_event_has_its_own_gap() -> Result<()> {
    let mut stage = Stage::brisk("shopify", shopify::Shopify, json!({"shop": "acme"})).await?;
    stage
        .change_plugin("vendor-shopify-keys", |spec| {
            let create = &mut spec["webhook"]["create"];
            let body = create["body"].as_str().expect("a body");
            let format = "\"format\": \"JSON\"";
            assert!(body.contains(format), "{body}");
            create["body"] = json!(body.replace(format, &format!("{format}, \"signingKey\": callback.secret")));
            create["capture"].as_object_mut().expect("captures").remove("secret");
        })
        .await?;
    stage.credentials(&[("token", shopify::TOKEN), ("clientSecret", shopify::APP_SECRET)]).await?;
    stage.subscribe(&["orders/create", "products/update"]).await?;
    stage.ready().await?;
    let old = stage.vendor.desk().webhooks();
    stage.ask_for_rotation("2026-01-01T00:00:00Z").await?;
    eventually(PATIENCE, "both have the new secret", async || {
        let new = stage.vendor.desk().webhooks();
        ensure!(new.len() == 2 && new[0].secret == new[1].secret && new[0].secret != old[0].secret, "{new:?}");
        note_secret(&new[0].secret)
    })
    .await?;
    note_secret(&old[0].secret)?;
    let now = bellhop_harness::vendor::now();
    ensure!(stage.vendor.desk().gaps(now - 1, now).is_empty());
    let lives = stage.vendor.desk().timeline();
    ensure!(lives.len() == 4, "two, and one more for each: {lives:?}");
    ensure!(lives[2].from <= lives[1].until.unwrap_or(i64::MAX), "one is there before the other one goes: {lives:?}");
    stage.workspace.subscription_is(SUBSCRIPTION, "Ready", "True", "Ready").await?;
    stage.an_event_runs("ORDERS_CREATE").await?;
    stage.ends_with_nothing_at(&brisk().await.bellhop).await
}

/// The deletion fails for a while: the webhook is there and delivers, and the Subscription says what is under way.
#[tokio::test]
async fn a_deletion_that_fails_is_no_gap() -> Result<()> {
    let stage = Stage::brisk("calendly", Calendly, json!({})).await?;
    stage.credentials(&[("token", calendly::TOKEN)]).await?;
    stage.subscribe(&[EVENT]).await?;
    stage.ready().await?;
    let old = stage.one_webhook().await?;
    stage.vendor.desk().fail_next(1000, "DELETE", HOOKS, 503);
    stage.ask_for_rotation("2026-01-01T00:00:00Z").await?;
    let message = condition(&stage, "Reconciling", "True", "ExternalSystemFailed").await?;
    ensure!(message.contains("delete") && message.contains("503"), "{message}");
    condition(&stage, "Ready", "True", "Ready").await?;
    stage.an_event_runs(EVENT).await?;
    stage.vendor.desk().fail_no_more();
    another_than(&stage, &old).await?;
    condition(&stage, "Ready", "True", "Ready").await?;
    stage.an_event_runs(EVENT).await?;
    stage.ends_with_nothing_at(&brisk().await.bellhop).await
}

/// The plugin does not say that webhooks may not be doubled: nothing is deleted on suspicion, and the condition says what to
/// write into the plugin, which helps at once.
#[tokio::test]
async fn where_it_is_not_declared_nothing_is_deleted_and_the_condition_says_what_to_write() -> Result<()> {
    let mut stage = Stage::brisk("calendly", Calendly, json!({})).await?;
    let plugin = "vendor-calendly-undeclared";
    stage.change_plugin(plugin, |spec| spec["webhook"]["create"]["exclusive"] = json!(false)).await?;
    stage.credentials(&[("token", calendly::TOKEN)]).await?;
    stage.subscribe(&[EVENT]).await?;
    stage.ready().await?;
    let old = stage.one_webhook().await?;
    stage.ask_for_rotation("2026-01-01T00:00:00Z").await?;
    let message = condition(&stage, "Reconciling", "True", "WebhookInTheWay").await?;
    for told in ["409", "Hook with this url already exists", &old.id, plugin, "webhook.create.exclusive: true"] {
        ensure!(message.contains(told), "{told} is not in {message}");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    condition(&stage, "Ready", "True", "Ready").await?;
    let desk = stage.vendor.desk();
    ensure!(desk.count("DELETE", HOOKS) == 0 && desk.webhooks() == [old.clone()], "{:?}", desk.calls());
    ensure!(desk.count("POST", HOOKS) <= 8, "with growing pauses: {:?}", desk.calls());
    stage.an_event_runs(EVENT).await?;

    stage.change_plugin(plugin, |spec| spec["webhook"]["create"]["exclusive"] = json!(true)).await?;
    another_than(&stage, &old).await?;
    eventually(PATIENCE, "nothing is under way any more", async || {
        let conditions = stage.subscription().await?.status.unwrap_or_default().conditions;
        ensure!(!conditions.iter().any(|condition| condition.type_ == "Reconciling"), "{conditions:?}");
        Ok(())
    })
    .await?;
    stage.an_event_runs(EVENT).await?;
    stage.ends_with_nothing_at(&brisk().await.bellhop).await
}

/// What the webhook is replaced for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Rotation,
    Repair,
}

/// Killed (kill -9) when the vendor has deleted the old webhook and nobody has heard of it, before it sees the create call,
/// and when it has created the new one and nobody has heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_the_deletion_and_the_creation_it_goes_on() -> Result<()> {
    let mut own = Own::start("exclusive-kills", &["--drift-interval", "4s", "--rotation-grace", "5s"]).await?;
    let mut stage = Stage::on(&own.control_plane, "calendly", Calendly, json!({})).await?;
    let proxy = Proxy::start(&stage.vendor.url())?;
    stage.base_url = proxy.url();
    stage.credentials(&[("token", calendly::TOKEN)]).await?;
    stage.subscribe(&[EVENT]).await?;
    stage.ready().await?;
    let mut old = stage.one_webhook().await?;
    let moments = [("DELETE", true), ("POST", false), ("POST", true)];
    for (number, (why, (method, acted))) in
        [Reason::Rotation, Reason::Repair].into_iter().flat_map(|why| moments.map(|moment| (why, moment))).enumerate()
    {
        let hold = Hold::new();
        let held = hold.clone();
        proxy.on_call(move |call: &Call| match call.method == method && call.path.contains(HOOKS) {
            true if acted => Action::ForwardThenHold(held.clone()),
            true => Action::HoldThenForward(held.clone()),
            false => Action::Pass,
        });
        let before = stage.vendor.desk().count("DELETE", &old.id);
        match why {
            Reason::Rotation => stage.ask_for_rotation(&format!("2026-01-01T00:00:0{number}Z")).await?,
            Reason::Repair => {
                ensure!(stage.vendor.desk().change(&old.id, |webhook| webhook.enabled = false));
            }
        }
        hold.reached(PATIENCE).await?;
        own.bellhop.kill9();
        proxy.pass();
        own.bellhop.restart().await?;
        let new = another_than(&stage, &old).await.with_context(|| format!("{why:?}: killed at {method}, {acted}"))?;
        ensure!((new.secret != old.secret) == (why == Reason::Rotation), "{why:?}: the secret");
        // It is deleted once more because that was begun, and not taken for one that somebody else has deleted.
        let deletions = stage.vendor.desk().count("DELETE", &old.id) - before;
        ensure!(deletions == if method == "DELETE" { 2 } else { 1 }, "{why:?}, {method}: {deletions} deletions");
        stage.workspace.subscription_is(SUBSCRIPTION, "Ready", "True", "Ready").await?;
        stage.an_event_runs(EVENT).await?;
        old = new;
    }
    let lives = stage.vendor.desk().timeline();
    ensure!(lives.len() == 7, "one more each time, and no other: {lives:?}");
    stage.ends_with_nothing_at(&own.bellhop).await
}
