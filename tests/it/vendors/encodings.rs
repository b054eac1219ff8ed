//! Ways to write a call and to tell a failure: forms, Basic authentication, GraphQL, boolean flags.

use super::stage::{Stage, condition, webhooks_become};
use anyhow::{Result, ensure};
use bellhop_harness::vendor::{Webhook, gitlab, linear, pagerduty, stripe};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_form_with_lists_makes_a_webhook_whose_secret_is_told_once() -> Result<()> {
    let stage = Stage::new("stripe", stripe::Stripe, json!({})).await?;
    stage.credentials(&[("key", stripe::KEY)]).await?;
    stage.subscribe(&["charge.succeeded", "charge.failed"]).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.events == ["charge.succeeded", "charge.failed"], "{webhook:?}");
    let run = stage.an_event_runs("charge.succeeded").await?;
    ensure!(run.json()?["amount"].is_u64(), "{}", run.json()?);
    stage.ends_with_nothing().await
}

/// Nobody can tell the secret of a webhook that is there already, so it is of no use.
#[tokio::test]
async fn a_webhook_whose_secret_nobody_knows_is_replaced() -> Result<()> {
    let stage = Stage::new("stripe", stripe::Stripe, json!({})).await?;
    stage.credentials(&[("key", "wrong-key-6a0e")]).await?;
    stage.subscribe(&["charge.succeeded"]).await?;
    condition(&stage, "Authorized", "False", "CredentialsRefused").await?;
    let url = stage.callback_url().await?;
    // On the third page.
    stage.vendor.desk().add_foreign(4);
    stage.vendor.desk().add(Webhook::new("we_old", url).events(["charge.succeeded"]).secret("whsec_nobody-knows"));
    stage.credentials(&[("key", stripe::KEY)]).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.id != "we_old", "{webhook:?}");
    stage.an_event_runs("charge.succeeded").await?;
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn graphql_makes_and_deletes_a_webhook() -> Result<()> {
    let stage = Stage::new("linear", linear::Linear::default(), json!({})).await?;
    stage.credentials(&[("key", linear::KEY)]).await?;
    stage.story(&["Issue", "Comment"], "Issue").await
}

#[tokio::test]
async fn errors_of_graphql_with_the_status_200_are_errors() -> Result<()> {
    let stage = Stage::new("linear", linear::Linear::default(), json!({})).await?;
    stage.vendor.vendor().refuse_to_create(Some("The team has too many webhooks"));
    stage.credentials(&[("key", linear::KEY)]).await?;
    stage.subscribe(&["Issue"]).await?;
    let message = condition(&stage, "WebhookRegistered", "False", "").await?;
    ensure!(message.contains("too many webhooks"), "{message}");
    ensure!(stage.vendor.desk().webhooks().is_empty());
    // No hot loop: verify, find and create a few times, and then less and less often.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = stage.vendor.desk().count("POST", "/graphql");
    ensure!(calls <= 20, "{calls} calls");
    stage.vendor.vendor().refuse_to_create(None);
    stage.ready().await?;
    stage.one_webhook().await?;
    stage.ends_with_nothing().await
}

/// The vendor says that it has deleted nothing, in the words that GraphQL has instead of 404.
#[tokio::test]
async fn a_webhook_that_graphql_does_not_know_any_more_is_no_obstacle() -> Result<()> {
    let stage = Stage::new("linear", linear::Linear::default(), json!({})).await?;
    stage.credentials(&[("key", linear::KEY)]).await?;
    stage.subscribe(&["Issue"]).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(stage.vendor.desk().remove(&webhook.id));
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn a_wrong_key_that_graphql_refuses_with_the_status_200_is_refused() -> Result<()> {
    let stage = Stage::new("linear", linear::Linear::default(), json!({})).await?;
    stage.credentials(&[("key", "wrong-key-6a0e")]).await?;
    stage.subscribe(&["Issue"]).await?;
    let message = condition(&stage, "Authorized", "False", "CredentialsRefused").await?;
    ensure!(message.contains("not authenticated"), "{message}");
    ensure!(stage.vendor.desk().webhooks().is_empty());
    stage.credentials(&[("key", linear::KEY)]).await?;
    stage.ready().await?;
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn flags_are_on_for_the_events_and_off_for_everything_else() -> Result<()> {
    let stage = Stage::new("gitlab", gitlab::GitLab, json!({"project": "acme/web"})).await?;
    stage.credentials(&[("token", gitlab::TOKEN)]).await?;
    stage.subscribe(&["issue"]).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.events == ["issue"], "pushes are on unless they are switched off: {webhook:?}");
    stage.an_event_runs("issue").await?;
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn a_webhook_with_other_flags_is_replaced() -> Result<()> {
    let stage = Stage::new("gitlab", gitlab::GitLab, json!({"project": "acme/web"})).await?;
    stage.credentials(&[("token", "wrong-key-6a0e")]).await?;
    stage.subscribe(&["push", "merge_request"]).await?;
    condition(&stage, "Authorized", "False", "CredentialsRefused").await?;
    let url = stage.callback_url().await?;
    stage.vendor.desk().add(Webhook::new("5", url).events(["issue"]).secret("an old secret"));
    stage.credentials(&[("token", gitlab::TOKEN)]).await?;
    stage.ready().await?;
    webhooks_become(&stage, 1).await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.id != "5" && webhook.events == ["push", "merge_request"], "{webhook:?}");
    stage.an_event_runs("push").await?;
    stage.ends_with_nothing().await
}

/// The webhook of one service, whose secret is in the answer to create alone; one that the vendor has disabled is replaced.
#[tokio::test]
async fn a_filter_names_the_service_and_create_tells_the_secret() -> Result<()> {
    let stage = Stage::new("pagerduty", pagerduty::PagerDuty, json!({"service": "P393ZNQ"})).await?;
    stage.vendor.desk().add_foreign(3);
    stage.credentials(&[("key", pagerduty::KEY)]).await?;
    stage.subscribe(&["incident.triggered", "incident.resolved"]).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.events == ["incident.triggered", "incident.resolved"], "{webhook:?}");
    ensure!(webhook.values["filter"] == "service_reference" && webhook.values["of"] == "P393ZNQ", "{webhook:?}");
    let run = stage.an_event_runs("incident.triggered").await?.json()?;
    ensure!(run["priority"] == "P1" && run["assignees"] == json!(["Ada"]), "{run}");
    stage.ends_with_nothing().await
}
