//! Another callback secret for a webhook that was made with a grant of OAuth.

use super::support::{OAuth, consent_at_gitea, custody, link, plugin_like_gitea};
use crate::rotation::{GRACE, rotated_under_pushes};
use crate::support::{Own, Workspace};
use anyhow::{Result, ensure};
use bellhop_harness::browser::Browser;
use bellhop_harness::world;

#[tokio::test]
async fn no_push_is_refused_or_lost_while_the_secret_is_replaced_and_nobody_is_asked_again() -> Result<()> {
    let own = Own::start("oauth-rotation", GRACE).await?;
    let gitea = &world::shared().await.gitea;
    let workspace = Workspace::new(&own.control_plane, gitea, "oauth-rotation").await?;
    let oauth = OAuth::new(&workspace, &own.bellhop);
    plugin_like_gitea(&workspace, "gitea-rotation", &serde_json::json!({})).await?;
    oauth.connectable("acme-web", "gitea-rotation").await?;
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    let link = link(&workspace, "acme-web").await?;
    consent_at_gitea(&workspace, &mut Browser::new(), &link, true).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    workspace.trigger_is("review", "True", "Bound").await?;
    let before = custody(&workspace, "acme-web").await?["authorization"]["grant"]["accessToken"].clone();
    rotated_under_pushes(&own, &workspace).await?;
    let after = custody(&workspace, "acme-web").await?["authorization"].clone();
    ensure!(
        after["grant"]["accessToken"] == before && after["link"].is_null(),
        "the grant is the same, without a click"
    );
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    ensure!(workspace.hooks().await?.is_empty());
    workspace.collect(&own.bellhop).await
}
