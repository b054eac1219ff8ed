//! Lists of several pages: the webhook that is there already is found on the last one.

use super::stage::{Stage, condition};
use anyhow::{Result, ensure};
use bellhop_harness::vendor::{Vendor, Webhook, bitbucket, calendly, github, harbor, linear};
use serde_json::json;

/// The vendor has three pages of webhooks, of which the last one of the last page is the Subscription's, from an earlier
/// life: with an old secret and not all of the events. It is adopted and not doubled.
async fn adopted<V: Vendor>(
    stage: Stage<'_, V>,
    right: &[(&str, &str)],
    id: &str,
    events: &[&str],
    sent: &str,
) -> Result<()> {
    let wrong: Vec<(&str, &str)> = right.iter().map(|(key, _)| (*key, "wrong-key-6a0e")).collect();
    // The callback URL is known before the webhook is: the Subscription waits at its authorization.
    stage.credentials(&wrong).await?;
    stage.subscribe(events).await?;
    condition(&stage, "Authorized", "False", "CredentialsRefused").await?;
    let url = stage.callback_url().await?;
    stage.vendor.desk().add_foreign(4);
    stage.vendor.desk().add(Webhook::new(id, url).events(["something-else"]).secret("an old secret"));
    stage.credentials(right).await?;

    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.id == id, "the webhook was made again: {webhook:?}");
    ensure!(webhook.enabled && !webhook.secret.is_empty() && webhook.secret != "an old secret", "{webhook:?}");
    ensure!(events.iter().all(|event| webhook.events.iter().any(|have| have == event)), "{webhook:?}");
    ensure!(stage.vendor.desk().timeline().len() == 1, "another one was made: {:?}", stage.vendor.desk().timeline());
    stage.an_event_runs(sent).await?;
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn numbered_pages_are_read_to_the_last() -> Result<()> {
    let stage = Stage::new("github", github::GitHub, json!({"owner": "acme", "repository": "web"})).await?;
    adopted(stage, &[("token", github::TOKEN)], "17", &["push", "issues"], "push").await
}

#[tokio::test]
async fn one_page_without_a_link_header_is_the_whole_list() -> Result<()> {
    let stage = Stage::new("github", github::GitHub, json!({"owner": "acme", "repository": "web"})).await?;
    stage.credentials(&[("token", github::TOKEN)]).await?;
    stage.story(&["push"], "push").await
}

#[tokio::test]
async fn the_next_url_in_a_body_is_followed_to_the_last() -> Result<()> {
    let stage =
        Stage::new("bitbucket", bitbucket::Bitbucket, json!({"workspace": "acme", "repository": "web"})).await?;
    adopted(stage, &[("token", bitbucket::TOKEN)], "an-old-uuid", &["repo:push"], "repo:push").await
}

#[tokio::test]
async fn an_id_in_braces_is_used_without_them() -> Result<()> {
    let stage =
        Stage::new("bitbucket", bitbucket::Bitbucket, json!({"workspace": "acme", "repository": "web"})).await?;
    stage.credentials(&[("token", bitbucket::TOKEN)]).await?;
    stage.subscribe(&["repo:push"]).await?;
    let status = stage.ready().await?.status.unwrap_or_default();
    let webhook = stage.one_webhook().await?;
    ensure!(status.webhooks[0].id == webhook.id && !webhook.id.contains('{'), "{:?}", status.webhooks);
    stage.an_event_runs("repo:push").await?;
    stage.ends_with_nothing().await
}

#[tokio::test]
async fn a_cursor_in_a_graphql_answer_is_followed_to_the_last() -> Result<()> {
    let stage = Stage::new("linear", linear::Linear::default(), json!({})).await?;
    let key = [("key", linear::KEY)];
    adopted(stage, &key, "an-old-uuid", &["Issue", "Comment"], "Issue").await
}

#[tokio::test]
async fn a_relative_link_header_is_followed_to_the_last() -> Result<()> {
    let stage = Stage::new("harbor", harbor::Harbor, json!({"project": "web"})).await?;
    let right = [("user", harbor::USER), ("password", harbor::PASSWORD)];
    adopted(stage, &right, "7", &["PUSH_ARTIFACT"], "PUSH_ARTIFACT").await
}

#[tokio::test]
async fn the_end_of_a_location_header_is_the_id() -> Result<()> {
    let stage = Stage::new("harbor", harbor::Harbor, json!({"project": "web"})).await?;
    stage.credentials(&[("user", harbor::USER), ("password", harbor::PASSWORD)]).await?;
    stage.subscribe(&["PUSH_ARTIFACT"]).await?;
    let status = stage.ready().await?.status.unwrap_or_default();
    ensure!(status.webhooks[0].id == stage.one_webhook().await?.id, "{:?}", status.webhooks);
    stage.an_event_runs("PUSH_ARTIFACT").await?;
    stage.ends_with_nothing().await
}

/// Calendly cannot change a webhook and refuses a second one with the same URL, so what is found has to go first.
#[tokio::test]
async fn what_cannot_be_updated_is_found_on_the_last_page_and_made_again() -> Result<()> {
    let stage = Stage::new("calendly", calendly::Calendly, json!({})).await?;
    stage.credentials(&[("token", "wrong-key-6a0e")]).await?;
    stage.subscribe(&["invitee.created"]).await?;
    condition(&stage, "Authorized", "False", "CredentialsRefused").await?;
    let url = stage.callback_url().await?;
    stage.vendor.desk().add_foreign(4);
    stage.vendor.desk().add(Webhook::new("an-old-uuid", url).events(["invitee.created"]).secret("an old secret"));
    stage.credentials(&[("token", calendly::TOKEN)]).await?;

    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    ensure!(webhook.id != "an-old-uuid" && webhook.secret != "an old secret", "{webhook:?}");
    stage.an_event_runs("invitee.created").await?;
    stage.ends_with_nothing().await
}
