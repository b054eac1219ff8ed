//! Never more than ten live Subscriptions per plugin and workspace, and none of them ever changes.

use crate::support::{PATIENCE, Workspace};
use anyhow::{Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::eventually;
use futures::future::try_join_all;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;

async fn by_acceptance(workspace: &Workspace<'_>) -> Result<(Vec<String>, Vec<String>)> {
    let (mut ready, mut refused) = (Vec::new(), Vec::new());
    for subscription in workspace.api::<Subscription>().list(&ListParams::default()).await? {
        let conditions = subscription.status.clone().unwrap_or_default().conditions;
        let is = |type_: &str, status: &str, reason: &str| {
            conditions.iter().any(|c| c.type_ == type_ && c.status == status && c.reason == reason)
        };
        if is("Ready", "True", "Ready") {
            ready.push(subscription.name_any());
        } else if is("Accepted", "False", "QuotaExceeded") {
            refused.push(subscription.name_any());
        }
    }
    Ok((ready, refused))
}

#[tokio::test]
async fn eleven_at_once_make_ten_and_a_free_slot_lets_the_eleventh_in() -> Result<()> {
    let workspace = Workspace::shared("cap").await?;
    let names: Vec<String> = (0..11).map(|n| format!("sub-{n:02}")).collect();
    try_join_all(names.iter().map(|name| workspace.create_subscription(workspace.subscription(name)))).await?;
    let settled = async |ready: usize, refused: usize| {
        eventually(PATIENCE, &format!("{ready} ready and {refused} refused"), async || {
            let found = by_acceptance(&workspace).await?;
            ensure!((found.0.len(), found.1.len()) == (ready, refused), "{found:?}");
            Ok(found)
        })
        .await
    };
    let (ready, refused) = settled(10, 1).await?;
    let message = workspace.subscription_is(&refused[0], "Accepted", "False", "QuotaExceeded").await?;
    ensure!(message.contains("10 of 10") && message.contains(&ready[0]), "{message}");
    workspace.subscription_is(&refused[0], "Stalled", "True", "QuotaExceeded").await?;
    ensure!(workspace.hooks().await?.len() == 10);

    // A twelfth displaces nobody.
    workspace.create_subscription(workspace.subscription("a-late-one")).await?;
    let (still, _) = settled(10, 2).await?;
    ensure!(still == ready, "{still:?} instead of {ready:?}");

    // The slot goes to the one that has waited longer.
    workspace.delete_subscription(&ready[3]).await?;
    workspace.subscription_is(&refused[0], "Ready", "True", "").await?;
    let (_, waiting) = settled(10, 1).await?;
    ensure!(waiting == ["a-late-one"], "{waiting:?}");
    ensure!(workspace.hooks().await?.len() == 10);
    Ok(())
}

#[tokio::test]
async fn a_subscription_cannot_be_changed() -> Result<()> {
    let workspace = Workspace::shared("immutable").await?;
    let mut object = workspace.subscription("acme-web");
    object["spec"]["parameters"]["repository"] = json!("does-not-matter");
    workspace.create_subscription(object).await?;
    let api = workspace.api::<Subscription>();
    let changes = [
        json!({"spec": {"parameters": {"repository": "other"}}}),
        json!({"spec": {"events": ["push"]}}),
        json!({"spec": {"pluginRef": {"name": "github"}}}),
        json!({"spec": {"parameters": null}}),
        json!({"spec": {"authorization": {"apiKey": {"secretRef": {"name": "other"}}}}}),
    ];
    for change in changes {
        let error =
            api.patch("acme-web", &PatchParams::default(), &Patch::Merge(&change)).await.unwrap_err().to_string();
        ensure!(error.contains("cannot be changed: delete it and create a new one"), "{change}: {error}");
    }
    // The whole spec, removed first to be set again later.
    let error =
        api.patch("acme-web", &PatchParams::default(), &Patch::Merge(&json!({"spec": null}))).await.unwrap_err();
    ensure!(error.to_string().contains("spec"), "{error}");
    Ok(())
}
