//! What the tests of OAuth share: clients in Secrets, plugins with OAuth, and a person who follows a link.

use crate::support::{NAMESPACE, PATIENCE, Workspace, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop::api::{Subscription, TriggerPlugin};
use bellhop_harness::bellhop::Bellhop;
use bellhop_harness::browser::{Browser, Page};
use bellhop_harness::eventually;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

/// A workspace in which Subscriptions are authorized by OAuth.
pub struct OAuth<'a> {
    workspace: &'a Workspace<'a>,
    bellhop: &'a Bellhop,
}

impl<'a> OAuth<'a> {
    pub fn new(workspace: &'a Workspace<'a>, bellhop: &'a Bellhop) -> Self {
        Self { workspace, bellhop }
    }

    /// The redirect URL of this Bellhop.
    pub fn redirect_url(&self) -> String {
        format!("{}/oauth/callback", self.bellhop.url())
    }

    /// A Subscription to the workspace's repository.
    pub fn subscription(&self, name: &str, plugin: &str, oauth2: Value) -> Value {
        let mut object = self.workspace.subscription(name);
        object["spec"]["pluginRef"]["name"] = plugin.into();
        object["spec"]["authorization"] = json!({"oauth2": oauth2});
        object
    }

    /// A Subscription whose workspace has an application in Gitea as its default client.
    pub async fn connectable(&self, name: &str, plugin: &str) -> Result<()> {
        let workspace = self.workspace;
        let (id, secret) = workspace.gitea.create_oauth_application(&workspace.user, &self.redirect_url()).await?;
        self.put_workspace_client("client", plugin, &id, &secret).await?;
        workspace.create_subscription(self.subscription(name, plugin, json!({}))).await?;
        Ok(())
    }

    /// Makes a client the workspace's default for a plugin.
    pub async fn put_workspace_client(&self, name: &str, plugin: &str, id: &str, secret: &str) -> Result<()> {
        note_secret(secret)?;
        let data = [("clientID", id), ("clientSecret", secret)];
        self.workspace.put_secret(name, Some(plugin), &data).await?;
        make_default(self.workspace, name, true).await
    }

    /// Stores a client in Bellhop's own namespace, as an administrator does.
    pub async fn put_default_client(&self, name: &str, plugin: &str, id: &str, secret: &str) -> Result<()> {
        note_secret(secret)?;
        self.put_for_default_client(name, Some(plugin), &[("clientID", id), ("clientSecret", secret)]).await
    }

    /// Stores a Secret in Bellhop's own namespace, whatever is in it and with or without the label.
    pub async fn put_for_default_client(&self, name: &str, plugin: Option<&str>, data: &[(&str, &str)]) -> Result<()> {
        let data: serde_json::Map<_, _> = data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let labels = plugin.map_or(json!({}), |plugin| json!({"bellhop.dev/credentials-for": plugin}));
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "stringData": data, "metadata": {"name": name, "labels": labels},
        });
        let api = Api::<Secret>::namespaced(self.workspace.client.clone(), NAMESPACE);
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// Waits until the plugin's status shows the redirect URL to register.
    pub async fn redirect_url_is_shown(&self, plugin: &str) -> Result<()> {
        let api = Api::<TriggerPlugin>::all(self.workspace.client.clone());
        eventually(PATIENCE, "the redirect URL is in the status", async || {
            let status = api.get(plugin).await?.status.unwrap_or_default();
            ensure!(status.oauth_redirect_url.as_ref() == Some(&self.redirect_url()), "{status:?}");
            Ok(())
        })
        .await
    }
}

/// Applies a plugin that is Gitea's, under another name; `more` is merged into its `oauth2`.
pub async fn plugin_like_gitea(workspace: &Workspace<'_>, name: &str, more: &Value) -> Result<()> {
    let api = Api::<TriggerPlugin>::all(workspace.client.clone());
    let mut plugin = serde_json::to_value(api.get("gitea").await?.spec)?;
    for (key, value) in more.as_object().context("a map")? {
        plugin["authorization"]["oauth2"][key] = value.clone();
    }
    // The page shows it.
    plugin["displayName"] = format!("Gitea {name}").into();
    apply_plugin(workspace, name, &plugin).await
}

/// Applies a plugin.
pub async fn apply_plugin(workspace: &Workspace<'_>, name: &str, spec: &Value) -> Result<()> {
    let object = json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "TriggerPlugin", "metadata": {"name": name}, "spec": spec,
    });
    let api = Api::<TriggerPlugin>::all(workspace.client.clone());
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// Marks a Secret as the workspace's default client, or takes the mark away.
pub async fn make_default(workspace: &Workspace<'_>, name: &str, is: bool) -> Result<()> {
    let value = if is { json!("true") } else { Value::Null };
    let patch = json!({"metadata": {"annotations": {"bellhop.dev/is-default-client": value}}});
    workspace.api::<Secret>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

/// Waits until the status has a link, and gives it.
pub async fn link(workspace: &Workspace<'_>, name: &str) -> Result<String> {
    let api = workspace.api::<Subscription>();
    eventually(PATIENCE, &format!("Subscription {name} has a link"), async || {
        let authorization = api.get(name).await?.status.and_then(|status| status.authorization);
        authorization.and_then(|authorization| authorization.url).context("no link yet")
    })
    .await
}

/// The custody of a Subscription, as only a test with all rights can read it.
pub async fn custody(workspace: &Workspace<'_>, name: &str) -> Result<Value> {
    let uid = workspace.api::<Subscription>().get(name).await?.uid().context("it has a UID")?;
    let api = Api::<Secret>::namespaced(workspace.client.clone(), NAMESPACE);
    let secret = api.get(&format!("custody-{uid}")).await?;
    let json = &secret.data.as_ref().and_then(|data| data.get("custody.json")).context("a custody has content")?.0;
    let custody: Value = serde_json::from_slice(json)?;
    let grant = &custody["authorization"]["grant"];
    for secret in [&grant["accessToken"], &grant["refreshToken"]].into_iter().filter_map(Value::as_str) {
        note_secret(secret)?;
    }
    Ok(custody)
}

/// Follows a link, presses the button, logs in at Gitea if need be, and says yes or no there.
pub async fn consent_at_gitea(
    workspace: &Workspace<'_>,
    browser: &mut Browser,
    link: &str,
    granted: bool,
) -> Result<Page> {
    let start = browser.open(link).await?;
    ensure!(start.status == 200, "the link: {} {}", start.status, start.text());
    let page = browser.submit(&start.form("/oauth/start/")?, &[]).await?;
    let page = workspace.gitea.log_in(browser, page, &workspace.user).await?;
    // Whoever has consented before is sent back at once.
    if page.form("/login/oauth/grant").is_err() {
        return Ok(page);
    }
    workspace.gitea.consent(browser, &page, granted).await
}
