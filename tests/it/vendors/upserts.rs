//! Calls that may be made twice: one webhook for each bot, one webhook for each name.

use super::stage::{Stage, condition};
use anyhow::{Result, ensure};
use bellhop_harness::proxy::{Action, Proxy};
use bellhop_harness::vendor::{Webhook, telegram, typeform};
use serde_json::json;

#[tokio::test]
async fn a_token_in_the_path_sets_the_one_webhook_of_a_bot() -> Result<()> {
    let stage = Stage::new("telegram", telegram::Telegram, json!({})).await?;
    // It is in URLs, so it is looked for in everything that is logged.
    stage.credentials(&[("token", telegram::TOKEN)]).await?;
    stage.subscribe(&["message"]).await?;
    let status = stage.ready().await?.status.unwrap_or_default();
    ensure!(status.authorization.is_some_and(|found| found.account.as_deref() == Some("acme_bot")));
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.events == ["message"] && !webhook.secret.is_empty(), "{webhook:?}");
    let run = stage.an_event_runs("message").await?;
    ensure!(run.json()?["text"].as_str().is_some_and(|text| text.starts_with("hello")), "{}", run.json()?);
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn ok_false_is_a_failure_although_the_status_is_200() -> Result<()> {
    let stage = Stage::new("telegram", telegram::Telegram, json!({})).await?;
    stage.credentials(&[("token", "110201543:wrong")]).await?;
    stage.subscribe(&["message"]).await?;
    let message = condition(&stage, "Authorized", "False", "CredentialsRefused").await?;
    ensure!(message.contains("Unauthorized"), "{message}");
    ensure!(stage.vendor.desk().count("POST", "setWebhook") == 0);
    stage.credentials(&[("token", telegram::TOKEN)]).await?;
    stage.ready().await?;
    stage.one_webhook().await?;
    stage.ends_with_nothing().await
}

/// The bot has somebody else's webhook: the one that there can be is set to the Subscription's.
#[tokio::test]
async fn what_a_bot_had_before_is_overwritten() -> Result<()> {
    let stage = Stage::new("telegram", telegram::Telegram, json!({})).await?;
    stage.vendor.desk().add(Webhook::new("bot", "https://elsewhere.example/").secret("theirs"));
    stage.credentials(&[("token", telegram::TOKEN)]).await?;
    stage.story(&["message", "callback_query"], "message").await
}

#[tokio::test]
async fn the_caller_names_the_webhook() -> Result<()> {
    let stage = Stage::new("typeform", typeform::Typeform, json!({"form": "feedback"})).await?;
    stage.credentials(&[("token", typeform::TOKEN)]).await?;
    stage.subscribe(&["form_response"]).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.id.starts_with("bellhop-") && webhook.enabled, "{webhook:?}");
    stage.an_event_runs("form_response").await?;
    stage.ends_with_nothing().await
}

/// The vendor has acted, and its answer is lost: the call is made again, and there is one webhook.
#[tokio::test]
async fn an_upsert_without_an_answer_is_made_again() -> Result<()> {
    let mut stage = Stage::new("telegram", telegram::Telegram, json!({})).await?;
    let proxy = Proxy::start(&stage.vendor.url())?;
    stage.base_url = proxy.url();
    let lost = std::sync::atomic::AtomicBool::new(false);
    proxy.on_call(move |call| {
        let first = call.path.ends_with("/setWebhook") && !lost.swap(true, std::sync::atomic::Ordering::Relaxed);
        if first { Action::ForwardThenDrop } else { Action::Pass }
    });
    stage.credentials(&[("token", telegram::TOKEN)]).await?;
    stage.subscribe(&["message"]).await?;
    stage.ready().await?;
    stage.one_webhook().await?;
    let calls = stage.vendor.desk().count("POST", "setWebhook");
    ensure!((1..=2).contains(&calls), "{calls} calls");
    stage.an_event_runs("message").await?;
    stage.ends_with_nothing().await
}
