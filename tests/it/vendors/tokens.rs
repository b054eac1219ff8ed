//! Callbacks that bear a token, signed with keys that the external system publishes and replaces.

use super::stage::{Stage, brisk};
use crate::support::{INGRESS_NAMESPACE, PATIENCE, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop::api::{PublishedKeys, TriggerPlugin};
use bellhop_harness::eventually;
use bellhop_harness::vendor::Webhook;
use bellhop_harness::vendor::google_pubsub::{CERTS, GooglePubsub, Signer};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use std::time::Duration;

const ACCOUNT: &str = "pusher-5e1c@acme.iam.gserviceaccount.example";

#[tokio::test]
async fn tokens_are_proven_with_keys_that_are_fetched_and_follow_their_rotation() -> Result<()> {
    let mut stage = Stage::new("google-pubsub", GooglePubsub::new(ACCOUNT), json!({})).await?;
    note_secret(ACCOUNT)?;
    let certs = format!("{}{CERTS}", stage.base_url);
    let change = |spec: &mut Value| spec["callback"]["verification"][0]["jwt"]["keys"]["jwksURL"] = json!(certs);
    stage.change_plugin("vendor-google-pubsub", change).await?;
    stage.workspace.put_secret("account", Some("vendor-google-pubsub"), &[("secret", ACCOUNT)]).await?;
    stage.subscribe_by(&["published"], json!({"manual": {"secretRef": {"name": "account"}}})).await?;
    stage.ready().await?;
    let url = stage.callback_url().await?;
    stage.vendor.desk().add(Webhook::new("push", &url));

    // The keys are fetched because the plugin names them, before anything was sent.
    eventually(PATIENCE, "the keys are published", async || {
        let api = Api::<Secret>::namespaced(stage.workspace.client.clone(), INGRESS_NAMESPACE);
        api.get(&PublishedKeys::secret_name(&certs)).await?;
        Ok(())
    })
    .await?;
    eventually(PATIENCE, "a push is accepted", async || stage.vendor.send("published").await).await?;
    let runs = stage.workspace.runner.wait_for(1, PATIENCE).await?;
    let document = runs[0].json()?["document"].clone();
    ensure!(document.as_str().is_some_and(|document| document.starts_with("document-")), "{document}");

    let vendor = stage.vendor.vendor();
    let claims = |change: fn(&mut Value)| {
        let mut claims = vendor.claims(&url);
        change(&mut claims);
        claims
    };
    let (signer, stranger) = (vendor.signer(), Signer::new("first"));
    for (what, token) in [
        ("the right claims, signed by a stranger", stranger.token(&claims(|_| ()))),
        ("for another URL", signer.token(&vendor.claims("https://hooks.example.com/hooks/other"))),
        ("of another account", signer.token(&claims(|claims| claims["email"] = json!("evil@evil.example")))),
        (
            "of an account that nobody has verified",
            signer.token(&claims(|claims| claims["email_verified"] = json!(false))),
        ),
        ("of another issuer", signer.token(&claims(|claims| claims["iss"] = json!("https://evil.example")))),
        ("expired", signer.token(&claims(|claims| claims["exp"] = json!(claims["iat"].as_i64().unwrap_or(0) - 100)))),
        ("none at all", String::new()),
    ] {
        let answered = GooglePubsub::push(&url, &token, 7000).send().await?;
        ensure!(answered.status == 401, "{what}: {answered:?}");
    }

    // Tokens with keys that nobody knows bring about one call, and not one each.
    let before = stage.vendor.desk().count("GET", CERTS);
    for number in 0..50 {
        let token = Signer::new("unknown").token(&claims(|_| ()));
        let answered = GooglePubsub::push(&url, &token, 8000 + number).send().await?;
        ensure!(answered.status == 401, "{answered:?}");
    }
    // Google signs with another key: refused at first, and sent again as Pub/Sub does.
    vendor.rotate("second");
    let patience = PATIENCE + Duration::from_secs(60);
    eventually(patience, "a push with the new key is accepted", async || stage.vendor.send("published").await).await?;
    let calls = stage.vendor.desk().count("GET", CERTS) - before;
    ensure!((1..=3).contains(&calls), "{calls} calls for keys");
    stage.workspace.runner.wait_for(2, PATIENCE).await?;
    let old = GooglePubsub::push(&url, &signer.token(&claims(|_| ())), 9000).send().await?;
    ensure!(old.status == 401, "the old key counts: {old:?}");

    stage.vendor.desk().remove("push");
    let client = stage.workspace.client.clone();
    stage.ends_with_nothing().await?;
    // Without the plugin, nobody needs the keys.
    Api::<TriggerPlugin>::all(client.clone()).delete("vendor-google-pubsub", &DeleteParams::default()).await?;
    eventually(PATIENCE, "the keys are removed", async || {
        let api = Api::<Secret>::namespaced(client.clone(), INGRESS_NAMESPACE);
        let left = api.get_opt(&PublishedKeys::secret_name(&certs)).await?;
        ensure!(left.is_none(), "they are still there");
        Ok(())
    })
    .await
}

/// Keys that cannot be fetched show on the plugin, with the place and what it has answered; what they would prove comes back.
#[tokio::test]
async fn keys_that_cannot_be_fetched_show_on_the_plugin_and_callbacks_come_back() -> Result<()> {
    let name = "vendor-google-pubsub-late";
    let mut stage = Stage::brisk("google-pubsub", GooglePubsub::new(ACCOUNT), json!({})).await?;
    note_secret(ACCOUNT)?;
    let certs = format!("{}{CERTS}?late", stage.base_url);
    let desk = stage.vendor.desk();
    desk.fail_next(1000, "GET", "?late", 418);
    let change = |spec: &mut Value| spec["callback"]["verification"][0]["jwt"]["keys"]["jwksURL"] = json!(certs);
    stage.change_plugin(name, change).await?;
    let plugins = Api::<TriggerPlugin>::all(stage.workspace.client.clone());
    plugins.delete("vendor-google-pubsub", &DeleteParams::default()).await?;
    stage.workspace.put_secret("account", Some(name), &[("secret", ACCOUNT)]).await?;
    stage.subscribe_by(&["published"], json!({"manual": {"secretRef": {"name": "account"}}})).await?;
    stage.ready().await?;
    let url = stage.callback_url().await?;
    let condition = async |type_: &str| -> Result<Option<(String, String, String)>> {
        let conditions = plugins.get(name).await?.status.context("a status")?.conditions;
        let mut found = conditions.into_iter().filter(|condition| condition.type_ == type_);
        Ok(found.next().map(|condition| (condition.status, condition.reason, condition.message)))
    };
    eventually(PATIENCE, "the condition says what was answered", async || {
        let (status, reason, message) = condition("KeysNotFetched").await?.context("none yet")?;
        ensure!((status.as_str(), reason.as_str()) == ("True", "KeysNotKnown"), "{status} {reason}");
        ensure!(message.contains(&certs) && message.contains("418"), "{message}");
        Ok(())
    })
    .await?;
    let ready = condition("Ready").await?.context("it has one")?;
    ensure!(ready.0 == "True", "{ready:?}");

    let vendor = stage.vendor.vendor();
    let (right, stranger) = (vendor.signer(), Signer::new("first"));
    for signer in [&right, &stranger] {
        let answered = GooglePubsub::push(&url, &signer.token(&vendor.claims(&url)), 1).send().await?;
        ensure!(answered.status == 503 && !answered.header("retry-after").is_empty(), "{answered:?}");
    }
    // What no keys could prove is refused.
    let answered = GooglePubsub::push(&url, "", 2).send().await?;
    ensure!(answered.status == 401, "{answered:?}");
    stage.nothing_runs(0).await?;

    stage.vendor.desk().fail_no_more();
    eventually(PATIENCE, "it is accepted when the keys are known", async || {
        GooglePubsub::push(&url, &right.token(&vendor.claims(&url)), 1).send().await?.accepted()
    })
    .await?;
    stage.workspace.runner.wait_for(1, PATIENCE).await?;
    let answered = GooglePubsub::push(&url, &stranger.token(&vendor.claims(&url)), 3).send().await?;
    ensure!(answered.status == 401, "{answered:?}");
    eventually(PATIENCE, "the condition is gone", async || {
        let condition = condition("KeysNotFetched").await?;
        ensure!(condition.is_none(), "{condition:?}");
        Ok(())
    })
    .await?;
    stage.ends_with_nothing_at(&brisk().await.bellhop).await
}
