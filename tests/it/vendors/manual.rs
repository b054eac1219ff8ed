//! Webhooks that a person makes by hand, in a system that makes sure of the callback URL.

use super::stage::{SUBSCRIPTION, Stage, condition};
use crate::support::{PATIENCE, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use bellhop_harness::vendor::{Delivery, notion, sentry, slack, zoom};
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;

/// The secret comes in the first callback, unsigned; a person finds it where the status says, and pastes it.
#[tokio::test]
async fn a_token_from_the_first_callback_is_the_key_of_all_later_ones() -> Result<()> {
    const TOKEN: &str = "secret_standin-verification-token";
    let stage = Stage::new("notion", notion::Notion, json!({})).await?;
    note_secret(TOKEN)?;
    stage.subscribe_by(&["page.created"], json!({"manual": {}})).await?;
    // The route is live before the Subscription is ready: the secret has still to come.
    let url = eventually(PATIENCE, "a callback URL", async || stage.callback_url().await).await?;
    condition(&stage, "Ready", "False", "SecretNotCaptured").await?;

    let answered = stage.vendor.vendor().enter_url(&url, TOKEN).await?;
    ensure!(answered.status == 200, "{answered:?}");
    stage.ready().await?;
    let name = eventually(PATIENCE, "the status names the Secret", async || {
        let status = stage.subscription().await?.status.unwrap_or_default();
        status.callback_secret_ref.context("no callbackSecretRef")
    })
    .await?;
    let secret = stage.workspace.api::<Secret>().get(&name.name).await?;
    let pasted = secret.data.as_ref().and_then(|data| data.get("secret")).context("a key `secret`")?.0.clone();
    let pasted = String::from_utf8(pasted)?;
    ensure!(
        stage.vendor.vendor().paste(stage.vendor.desk(), &url, TOKEN, &pasted),
        "another token is in {}",
        name.name
    );

    stage.an_event_runs("page.created").await?;
    // Another token is not taken, whoever sends it, and the known one still counts.
    let other = stage.vendor.vendor().enter_url(&url, "secret_of-somebody-else").await?;
    ensure!(other.status == 401, "{other:?}");
    stage.an_event_runs("page.created").await?;
    stage.vendor.desk().remove(&stage.vendor.desk().webhooks()[0].id);
    stage.ends_with_nothing().await
}

/// Slack chooses the signing secret, which a person has stored; a challenge that is signed with it is echoed.
#[tokio::test]
async fn a_signed_challenge_is_echoed_and_an_unsigned_one_is_not() -> Result<()> {
    const SIGNING_SECRET: &str = "8f742231b10e8888abcd99yyyzzz85a5";
    let vendor = slack::Slack { signing_secret: SIGNING_SECRET.to_owned() };
    let stage = Stage::new("slack", vendor, json!({})).await?;
    note_secret(SIGNING_SECRET)?;
    stage.workspace.put_secret("slack-app", Some("vendor-slack"), &[("secret", SIGNING_SECRET)]).await?;
    stage.subscribe_by(&["message"], json!({"manual": {"secretRef": {"name": "slack-app"}}})).await?;
    stage.ready().await?;
    let url = stage.callback_url().await?;
    stage.vendor.vendor().enter_url(stage.vendor.desk(), &url).await?;
    let run = stage.an_event_runs("message").await?;
    ensure!(run.json()?["text"].is_string(), "{}", run.json()?);

    let challenge = json!({"type": "url_verification", "challenge": "of somebody else"});
    let forged = Delivery::json(&url, &challenge).signed_hex("x-slack-signature", "v0=", "guessed").send().await?;
    ensure!(forged.status == 401 && !String::from_utf8_lossy(&forged.body).contains("somebody"), "{forged:?}");
    ensure!(Delivery::json(&url, &challenge).send().await?.status == 401);
    ensure!(stage.subscription().await?.spec.authorization.manual.is_some(), "{SUBSCRIPTION} is made by hand");
    stage.vendor.desk().remove(&stage.vendor.desk().webhooks()[0].id);
    stage.ends_with_nothing().await
}

/// Zoom asks when the URL is entered, and again every 72 hours, for the HMAC of a token with the secret that a person has
/// stored. A question that Zoom has not signed gets none: its answer could be the signature of something else.
#[tokio::test]
async fn a_token_is_answered_with_its_hmac_whenever_it_is_asked_for() -> Result<()> {
    const SECRET_TOKEN: &str = "Wq7PlvZc3kTn9sXu2RbE1A";
    let vendor = zoom::Zoom { secret_token: SECRET_TOKEN.to_owned() };
    let stage = Stage::new("zoom", vendor, json!({})).await?;
    note_secret(SECRET_TOKEN)?;
    stage.workspace.put_secret("zoom-app", Some("vendor-zoom"), &[("secret", SECRET_TOKEN)]).await?;
    stage.subscribe_by(&["meeting.started"], json!({"manual": {"secretRef": {"name": "zoom-app"}}})).await?;
    stage.ready().await?;
    let url = stage.callback_url().await?;
    stage.vendor.vendor().enter_url(stage.vendor.desk(), &url).await?;
    let run = stage.an_event_runs("meeting.started").await?;
    ensure!(run.json()?["topic"] == "Planning", "{}", run.json()?);

    // 72 hours later, and once more; neither is an event.
    stage.vendor.vendor().validate(&url, "n5vQ0mC4TtKhP9l2XwJ7sg").await?;
    stage.vendor.vendor().validate(&url, "Zk3-_bR8yD1fGq6LwN0eUA").await?;
    stage.nothing_runs(1).await?;

    let question = json!({"event": "endpoint.url_validation", "payload": {"plainToken": "v0:1700000000:{}"}});
    let stolen = hex::encode(Delivery::empty(&url).hmac_after("v0:1700000000:{}", SECRET_TOKEN.as_bytes()));
    for forged in [
        Delivery::json(&url, &question),
        Delivery::json(&url, &question).signed_hex("x-zm-signature", "v0=", SECRET_TOKEN),
        zoom::Zoom { secret_token: "guessed-4b1c".to_owned() }.question(&url, "n5vQ0mC4TtKhP9l2XwJ7sg"),
    ] {
        let answered = forged.send().await?;
        ensure!(answered.status == 401, "{answered:?}");
        ensure!(!String::from_utf8_lossy(&answered.body).contains(&stolen), "{answered:?}");
    }
    stage.an_event_runs("meeting.started").await?;
    stage.vendor.desk().remove(&stage.vendor.desk().webhooks()[0].id);
    stage.ends_with_nothing().await
}

/// Sentry asks nothing of the URL that a person enters; each request is signed with the integration's client secret.
#[tokio::test]
async fn an_integration_is_made_by_hand_and_its_secret_signs() -> Result<()> {
    const CLIENT_SECRET: &str = "c0ffb5d9a77f41e6a2be4d4c9e8f7a31";
    let vendor = sentry::Sentry { client_secret: CLIENT_SECRET.to_owned() };
    let stage = Stage::new("sentry", vendor, json!({})).await?;
    note_secret(CLIENT_SECRET)?;
    stage.workspace.put_secret("sentry-app", Some("vendor-sentry"), &[("secret", CLIENT_SECRET)]).await?;
    stage.subscribe_by(&["issue", "error"], json!({"manual": {"secretRef": {"name": "sentry-app"}}})).await?;
    stage.ready().await?;
    let url = stage.callback_url().await?;
    stage.vendor.vendor().enter_url(stage.vendor.desk(), &url);
    let run = stage.an_event_runs("issue").await?.json()?;
    ensure!(run["action"] == "created" && run["actor"] == "Sentry", "{run}");
    let forged = Delivery::json(&url, &json!({"action": "created", "data": {}}))
        .header("sentry-hook-resource", "issue")
        .signed_hex("sentry-hook-signature", "", "guessed");
    ensure!(forged.send().await?.status == 401);
    stage.vendor.desk().remove(&stage.vendor.desk().webhooks()[0].id);
    stage.ends_with_nothing().await
}
