//! No webhook outlives its Subscription unseen, and no deletion hangs for ever.

use crate::support::{NAMESPACE, Own, PATIENCE, REPOSITORY, SECRET, Workspace};
use anyhow::{Context, Result, ensure};
use bellhop::api::{Subscription, TriggerPlugin};
use bellhop_harness::gitea::Gitea;
use bellhop_harness::proxy::Proxy;
use bellhop_harness::{eventually, world};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

#[tokio::test]
async fn while_the_external_system_is_down_the_object_stays_and_says_why() -> Result<()> {
    let bellhop = crate::support::shared().await;
    let gitea = Gitea::start(world::dir(), "gitea-down").await?;
    let workspace = Workspace::new(&world::shared().await.control_plane, &gitea, "down").await?;
    workspace.connect("acme-web", "review").await?;
    let id = workspace.hooks().await?[0]["id"].to_string();

    gitea.stop().await?;
    workspace.delete_subscription("acme-web").await?;
    let message = workspace.subscription_is("acme-web", "Ready", "False", "DeletionFailed").await?;
    ensure!(message.contains(&format!("webhook {id}")) && message.contains("could not be reached"), "{message}");
    workspace.event_says("DeletionFailed", &format!("webhook {id}")).await?;

    gitea.start_again().await?;
    workspace.is_gone("acme-web").await?;
    ensure!(workspace.hooks().await?.is_empty());
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn a_webhook_deleted_by_hand_is_no_obstacle() -> Result<()> {
    let workspace = Workspace::shared("by-hand").await?;
    workspace.connect("acme-web", "review").await?;
    let id = workspace.hooks().await?[0]["id"].as_u64().context("an id")?;
    workspace.gitea.delete_hook(&workspace.user, REPOSITORY, id).await?;
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await
}

#[tokio::test]
async fn a_workspace_is_deleted_in_one_go_secrets_first() -> Result<()> {
    let workspace = Workspace::shared("in-one-go").await?;
    workspace.connect("acme-web", "review").await?;
    workspace.api::<Secret>().delete(SECRET, &DeleteParams::default()).await?;
    let namespaces = Api::<Namespace>::all(workspace.client.clone());
    namespaces.delete(&workspace.namespace, &DeleteParams::default()).await?;
    eventually(PATIENCE, "the namespace is gone", async || {
        ensure!(namespaces.get_opt(&workspace.namespace).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    ensure!(workspace.hooks().await?.is_empty(), "the webhook is gone too");
    let custodies = Api::<Secret>::namespaced(workspace.client.clone(), NAMESPACE).list(&Default::default()).await?;
    let of_workspace = custodies.iter().filter(|secret| {
        let of = secret.metadata.annotations.as_ref().and_then(|a| a.get("bellhop.dev/subscription"));
        of.is_some_and(|of| of.starts_with(&format!("{}/", workspace.namespace)))
    });
    ensure!(of_workspace.count() == 0, "nothing of it is kept");
    Ok(())
}

#[tokio::test]
async fn a_deletion_ends_at_the_deadline_and_the_orphan_is_recorded() -> Result<()> {
    let own = Own::start("deadline", &["--deletion-deadline", "3s"]).await?;
    let gitea = &world::shared().await.gitea;
    let mut workspace = Workspace::new(&own.control_plane, gitea, "deadline").await?;
    let proxy = Proxy::start(&gitea.url())?;
    workspace.base_url = proxy.url();
    workspace.connect("acme-web", "review").await?;
    let id = workspace.hooks().await?[0]["id"].to_string();
    proxy.stop();
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    let orphans =
        Api::<ConfigMap>::namespaced(workspace.client.clone(), NAMESPACE).get("bellhop-orphaned-webhooks").await?;
    let record = orphans.data.unwrap_or_default().into_values().next().context("one orphan")?;
    ensure!(record.contains(&format!("\"webhook\":\"{id}\"")) && record.contains("acme-web"), "{record}");
    Ok(())
}

#[tokio::test]
async fn an_annotation_leaves_the_webhook_on_purpose() -> Result<()> {
    let workspace = Workspace::shared("orphan").await?;
    workspace.connect("acme-web", "review").await?;
    let patch = json!({"metadata": {"annotations": {"bellhop.dev/deletion-policy": "Orphan"}}});
    let api = workspace.api::<Subscription>();
    api.patch("acme-web", &PatchParams::default(), &Patch::Merge(patch)).await?;
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    ensure!(workspace.hooks().await?.len() == 1);
    Ok(())
}

#[tokio::test]
async fn a_subscription_whose_finalizer_was_removed_leaves_no_webhook() -> Result<()> {
    let workspace = Workspace::shared("forced").await?;
    workspace.connect("acme-web", "review").await?;
    let api = workspace.api::<Subscription>();
    // What people do when a deletion takes too long for them, in one go so that the finalizer cannot run first.
    let patch = json!({"metadata": {"finalizers": null}});
    api.patch("acme-web", &PatchParams::default(), &Patch::Merge(&patch)).await?;
    workspace.delete_subscription("acme-web").await?;
    let _ = api.patch("acme-web", &PatchParams::default(), &Patch::Merge(&patch)).await;
    workspace.is_gone("acme-web").await?;
    eventually(PATIENCE, "the webhook is deleted from custody", async || {
        ensure!(workspace.hooks().await?.is_empty(), "it is still there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_plugin_in_use_is_held() -> Result<()> {
    let own = Own::start("held", &[]).await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "held").await?;
    workspace.connect("acme-web", "review").await?;
    let plugins = Api::<TriggerPlugin>::all(workspace.client.clone());
    plugins.delete("gitea", &DeleteParams::default()).await?;
    eventually(PATIENCE, "the plugin says by whom it is held", async || {
        let conditions = plugins.get("gitea").await?.status.unwrap_or_default().conditions;
        let ready = conditions.iter().find(|c| c.type_ == "Ready").context("Ready")?;
        ensure!(ready.reason == "InUse" && ready.message.contains("/acme-web"), "{ready:?}");
        Ok(())
    })
    .await?;
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    ensure!(workspace.hooks().await?.is_empty(), "the plugin was there to delete the webhook");
    eventually(PATIENCE, "the plugin goes", async || {
        ensure!(plugins.get_opt("gitea").await?.is_none(), "it is still there");
        Ok(())
    })
    .await
}
