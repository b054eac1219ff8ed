//! Another callback secret while deliveries arrive, in each way in which a webhook can get one.

use super::stage::{SUBSCRIPTION, Stage, brisk};
use crate::support::{PATIENCE, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::eventually;
use bellhop_harness::vendor::{Vendor, Webhook, asana, github, gitlab, stripe, telegram, webflow, zendesk};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Numbers of deliveries that a test makes by itself: none that the vendor counts to.
const OWN_NUMBERS: u64 = 1_000_000;

/// When the vendor tells the secret of another webhook.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Before that webhook sends anything, or Bellhop has chosen it.
    InTime,
    /// With the answer to `create` or later: until then the webhook signs with what only the vendor knows. Or in a handshake
    /// of `create`: that the controller has stored it then does not mean that the ingress knows it already.
    Late,
}

/// Sends each event to every webhook that wants it, again and again, until `done` and until ten were accepted; gives how many
/// were. None may be refused. Where the vendor tells a secret late, a new webhook is told to come back until it has done so, beside an old one that
/// delivers the same; it does, and is accepted then.
async fn traffic<V: Vendor>(stage: &Stage<'_, V>, sent: &[&str], told: Told, done: &AtomicBool) -> Result<usize> {
    let ids = |webhooks: &[Webhook]| webhooks.iter().map(|webhook| webhook.id.clone()).collect::<BTreeSet<_>>();
    let old = ids(&stage.vendor.desk().webhooks());
    let (mut number, mut accepted) = (10 * OWN_NUMBERS, 0);
    let began = Instant::now();
    while !done.load(Ordering::Acquire) || (accepted < 10 && began.elapsed() < 2 * PATIENCE) {
        for webhook in stage.vendor.desk().webhooks() {
            for event in sent.iter().filter(|event| webhook.wants(event)) {
                number += 1;
                let send = async || {
                    let delivery = stage.vendor.vendor().delivery(&webhook, event, number);
                    delivery.send().await.with_context(|| format!("{event} of webhook {}", webhook.id))
                };
                let others = stage.vendor.desk().webhooks();
                let answered = send().await?;
                if answered.clone().accepted().is_err() {
                    let beside = others.iter().any(|other| other.wants(event) && old.contains(&other.id));
                    let late = told == Told::Late && !old.contains(&webhook.id) && beside;
                    // It is told to come back, and not that nobody believes it.
                    ensure!(late && answered.status == 503, "{answered:?} to {event} of webhook {}", webhook.id);
                    let again = async || send().await?.accepted();
                    eventually(PATIENCE, "it is accepted when its secret is known", again).await?;
                }
                accepted += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(accepted)
}

/// While the secret is replaced, [`traffic`] goes on; the URL stays; what is signed with the old secret is accepted until the
/// grace period is over, and not after it. `wanted` webhooks are there before and after. Gives the old ones and the new ones.
async fn rotated_under_traffic<V: Vendor>(
    stage: &Stage<'_, V>,
    sent: &[&str],
    told: Told,
    wanted: usize,
) -> Result<(Vec<Webhook>, Vec<Webhook>)> {
    let url = stage.callback_url().await?;
    let desk = stage.vendor.desk();
    let old = desk.webhooks();
    ensure!(old.len() == wanted, "{old:?}");
    let before = stage.workspace.runner.count();
    let signed_with = async |webhooks: &[Webhook], number: u64| -> Result<Vec<u16>> {
        let mut statuses = Vec::new();
        for webhook in webhooks {
            let event = sent.iter().find(|event| webhook.wants(event)).context("an event of this webhook")?;
            statuses.push(stage.vendor.vendor().delivery(webhook, event, number).send().await?.status);
        }
        Ok(statuses)
    };
    let done = AtomicBool::new(false);
    let rotation = async {
        let result = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            stage.ask_for_rotation("2026-01-01T00:00:00Z").await?;
            let new = eventually(PATIENCE, "every webhook has another secret", async || {
                let new = desk.webhooks();
                let is_old = |webhook: &Webhook| old.iter().any(|old| old.secret == webhook.secret);
                ensure!(new.len() == wanted && !new.iter().any(is_old), "{new:?}");
                Ok(new)
            })
            .await?;
            // What was signed before is on its way for a while.
            let late = signed_with(&old, OWN_NUMBERS).await?;
            ensure!(late.iter().all(|status| (200..300).contains(status)), "in the grace period: {late:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok((new, late.len()))
        }
        .await;
        done.store(true, Ordering::Release);
        result
    };
    let (accepted, rotated) = tokio::join!(traffic(stage, sent, told, &done), rotation);
    let (accepted, (new, late)) = (accepted.context("a delivery was refused")?, rotated?);
    ensure!(accepted >= 10, "deliveries all the while: {accepted}");
    ensure!(stage.callback_url().await? == url && new.iter().all(|webhook| webhook.url == url), "the URL stays");

    let (mut number, mut more) = (OWN_NUMBERS, late);
    eventually(PATIENCE, "the old secret is refused after the grace period", async || {
        number += 1;
        let (of_old, of_new) = (signed_with(&old, number).await?, signed_with(&new, 2 * OWN_NUMBERS + number).await?);
        more += of_new.len() + of_old.iter().filter(|status| **status != 401).count();
        ensure!(of_new.iter().all(|status| (200..300).contains(status)), "new {of_new:?}");
        ensure!(of_old.iter().all(|status| *status == 401), "old {of_old:?}");
        Ok(())
    })
    .await?;
    stage.runs_are(before + accepted + more).await?;
    for webhook in old.iter().chain(&new) {
        note_secret(&webhook.secret)?;
    }
    stage.workspace.subscription_is(SUBSCRIPTION, "Ready", "True", "Ready").await?;
    stage.event_says("SecretRotation", "").await?;
    Ok((old, new))
}

async fn one_is_rotated<V: Vendor>(
    stage: Stage<'_, V>,
    events: &[&str],
    sent: &str,
    told: Told,
) -> Result<(Webhook, Webhook)> {
    stage.subscribe(events).await?;
    stage.ready().await?;
    stage.fires(sent).await?;
    let (old, new) = rotated_under_traffic(&stage, &[sent], told, 1).await?;
    stage.one_webhook().await?;
    stage.an_event_runs(sent).await?;
    stage.ends_with_nothing_at(&brisk().await.bellhop).await?;
    Ok((old[0].clone(), new[0].clone()))
}

#[tokio::test]
async fn a_token_is_replaced_in_place() -> Result<()> {
    let stage = Stage::brisk("github", github::GitHub, json!({"owner": "acme", "repository": "web"})).await?;
    stage.credentials(&[("token", github::TOKEN)]).await?;
    let (old, new) = one_is_rotated(stage, &["push", "issues"], "push", Told::InTime).await?;
    ensure!(old.id == new.id, "it was made anew: {new:?}");
    Ok(())
}

/// What cannot be changed in place is replaced, though Bellhop chooses the secret.
#[tokio::test]
async fn a_token_is_replaced_with_its_webhook() -> Result<()> {
    let stage = Stage::brisk("gitlab", gitlab::GitLab, json!({"project": "acme/web"})).await?;
    stage.credentials(&[("token", gitlab::TOKEN)]).await?;
    let (old, new) = one_is_rotated(stage, &["push", "issue"], "push", Told::InTime).await?;
    ensure!(old.id != new.id, "it was changed in place: {new:?}");
    Ok(())
}

/// The one webhook of a bot is set anew, and what was there before is not deleted after it.
#[tokio::test]
async fn an_upsert_is_made_again_and_stays() -> Result<()> {
    let stage = Stage::brisk("telegram", telegram::Telegram, json!({})).await?;
    stage.credentials(&[("token", telegram::TOKEN)]).await?;
    one_is_rotated(stage, &["message"], "message", Told::InTime).await?;
    Ok(())
}

#[tokio::test]
async fn a_secret_that_is_told_by_create_is_taken_from_another_webhook() -> Result<()> {
    let stage = Stage::brisk("stripe", stripe::Stripe, json!({})).await?;
    stage.credentials(&[("key", stripe::KEY)]).await?;
    let (old, new) = one_is_rotated(stage, &["charge.succeeded"], "charge.succeeded", Told::Late).await?;
    ensure!(old.id != new.id);
    Ok(())
}

#[tokio::test]
async fn a_secret_that_is_told_after_create_is_taken_from_another_webhook() -> Result<()> {
    let stage = Stage::brisk("zendesk", zendesk::Zendesk, json!({})).await?;
    stage.credentials(&[("email", "bot@acme.example"), ("token", zendesk::TOKEN)]).await?;
    let event = "zen:event-type:ticket.created";
    let (old, new) = one_is_rotated(stage, &[event], event, Told::Late).await?;
    ensure!(old.id != new.id);
    Ok(())
}

#[tokio::test]
async fn a_secret_that_is_told_in_a_handshake_is_taken_from_another_webhook() -> Result<()> {
    let stage = Stage::brisk("asana", asana::Asana, json!({"workspace": "4242", "resource": "8675309"})).await?;
    stage.credentials(&[("token", asana::TOKEN)]).await?;
    let (old, new) = one_is_rotated(stage, &["task.added"], "task.added", Told::Late).await?;
    ensure!(old.id != new.id);
    Ok(())
}

/// One webhook for each event, and each has a secret of its own that the vendor has chosen.
#[tokio::test]
async fn each_of_several_webhooks_gets_another_secret_of_its_own() -> Result<()> {
    let stage = Stage::brisk("webflow", webflow::Webflow, json!({"site": "acme"})).await?;
    stage.credentials(&[("token", webflow::TOKEN)]).await?;
    let events = ["form_submission", "site_publish"];
    stage.subscribe(&events).await?;
    let mut trigger = stage.workspace.trigger("publish", SUBSCRIPTION);
    trigger["spec"]["event"] = json!(events[1]);
    stage.workspace.create_trigger(trigger).await?;
    stage.ready().await?;
    stage.workspace.trigger_is("publish", "True", "Bound").await?;
    for event in events {
        stage.an_event_runs(event).await?;
    }
    let (old, new) = rotated_under_traffic(&stage, &events, Told::Late, 2).await?;
    let mut secrets: Vec<&str> = old.iter().chain(&new).map(|webhook| webhook.secret.as_str()).collect();
    secrets.sort_unstable();
    secrets.dedup();
    ensure!(secrets.len() == 4, "each has its own: {secrets:?}");
    for event in events {
        ensure!(new.iter().filter(|webhook| webhook.events == [event]).count() == 1, "{event}: {new:?}");
        stage.an_event_runs(event).await?;
    }
    let status = stage.workspace.api::<Subscription>().get(SUBSCRIPTION).await?.status.context("a status")?;
    let mut told: Vec<_> = status.webhooks.iter().map(|webhook| webhook.id.as_str()).collect();
    let mut right: Vec<_> = new.iter().map(|webhook| webhook.id.as_str()).collect();
    told.sort_unstable();
    right.sort_unstable();
    ensure!(told == right, "the status says {told:?}, the vendor {right:?}");
    stage.ends_with_nothing_at(&brisk().await.bellhop).await
}
