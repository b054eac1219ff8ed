//! A default client that comes after the Subscriptions that take it, as when a pipeline applies in any order.

use super::support::{OAuth, link, plugin_like_gitea};
use crate::support::{Own, Workspace, note_secret, shared};
use anyhow::{Result, ensure};
use bellhop_harness::bellhop::Bellhop;
use bellhop_harness::world;
use serde_json::json;

/// Every step has to be noticed by itself: nothing of this is tried again later.
async fn the_default_client_comes_late(bellhop: &Bellhop, workspace: &Workspace<'_>, plugin: &str) -> Result<()> {
    let oauth = OAuth::new(workspace, bellhop);
    let name = format!("{plugin}-client");
    let default = json!({"secretRef": {"name": name}, "origins": [workspace.gitea.url()]});
    plugin_like_gitea(workspace, plugin, &json!({"defaultClient": default})).await?;
    workspace.create_subscription(oauth.subscription("acme-web", plugin, json!({}))).await?;
    let message = workspace.subscription_is("acme-web", "Accepted", "False", "SecretNotFound").await?;
    ensure!(message.contains(&name) && message.contains("bellhop-system"), "{message}");

    let (id, secret) = workspace.gitea.create_oauth_application(&workspace.user, &oauth.redirect_url()).await?;
    note_secret(&secret)?;
    // Without the label it is none of Bellhop's business; with that of another plugin it is said.
    oauth.put_for_default_client(&name, None, &[("clientID", &id)]).await?;
    oauth.put_for_default_client(&name, Some("another"), &[("clientID", &id)]).await?;
    let message = workspace.subscription_is("acme-web", "Accepted", "False", "SecretNotLabelled").await?;
    ensure!(message.contains(&format!("bellhop.dev/credentials-for={plugin}")), "{message}");
    oauth.put_for_default_client(&name, Some(plugin), &[("clientID", &id)]).await?;
    let message = workspace.subscription_is("acme-web", "Accepted", "False", "SecretKeyMissing").await?;
    ensure!(message.contains("`clientSecret`"), "{message}");
    oauth.put_default_client(&name, plugin, &id, &secret).await?;
    workspace.subscription_is("acme-web", "Authorized", "False", "AuthorizationRequired").await?;
    link(workspace, "acme-web").await?;
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn a_default_client_that_comes_later_is_noticed() -> Result<()> {
    let workspace = Workspace::shared("oauth-late").await?;
    the_default_client_comes_late(shared().await, &workspace, "gitea-late").await
}

#[tokio::test]
async fn it_is_noticed_where_bellhops_namespace_is_not_among_those_looked_after() -> Result<()> {
    let own = Own::start("oauth-narrow", &["--watch-namespace", "team-one"]).await?;
    own.control_plane.kubectl(["create", "namespace", "team-one"]).await?;
    let gitea = &world::shared().await.gitea;
    let mut workspace = Workspace::new(&own.control_plane, gitea, "oauth-narrow").await?;
    workspace.move_to("team-one").await?;
    the_default_client_comes_late(&own.bellhop, &workspace, "gitea-narrow").await
}
