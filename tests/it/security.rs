//! What somebody who may create Subscriptions must not be able to do.

use crate::support::{SECRET, Workspace, note_secret, shared};
use anyhow::{Result, ensure};
use bellhop::api::TriggerPlugin;
use bellhop_harness::runner::Runner;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_secret_that_is_not_labelled_for_the_plugin_is_never_sent_anywhere() -> Result<()> {
    let mut workspace = Workspace::shared("not-mine").await?;
    let thief = Runner::start()?;
    workspace.base_url = thief.url();
    note_secret("a-database-password")?;
    workspace.put_secret("database", None, &[("token", "a-database-password")]).await?;
    workspace.put_secret("of-another-plugin", Some("github"), &[("token", "a-database-password")]).await?;
    for name in ["database", "of-another-plugin"] {
        let mut object = workspace.subscription(name);
        object["spec"]["authorization"]["apiKey"]["secretRef"]["name"] = json!(name);
        workspace.create_subscription(object).await?;
        let message = workspace.subscription_is(name, "Authorized", "False", "SecretNotLabelled").await?;
        ensure!(!message.contains("a-database-password"), "{message}");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(thief.count() == 0, "nothing was sent to the origin of the author's choice");
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn credentials_go_only_to_the_origins_of_the_plugin() -> Result<()> {
    let workspace = Workspace::shared("origins").await?;
    let thief = Runner::start()?;
    let plugins = Api::<TriggerPlugin>::all(workspace.client.clone());
    let mut plugin = plugins.get("gitea").await?;
    let name = format!("fixed-{}", workspace.namespace);
    plugin.metadata = ObjectMeta { name: Some(name.clone()), ..Default::default() };
    plugin.status = None;
    // An administrator who fixes the origin: what a Subscription names is then of no use to a thief.
    plugin.spec.allowed_origins = vec![workspace.gitea.url()];
    plugins.create(&PostParams::default(), &plugin).await?;
    workspace.put_secret(SECRET, Some(&name), &[("token", &workspace.user.token)]).await?;
    let mut object = workspace.subscription("thief");
    object["spec"]["pluginRef"]["name"] = json!(name);
    object["spec"]["parameters"]["baseURL"] = json!(thief.url());
    workspace.create_subscription(object).await?;
    let message = workspace.subscription_is("thief", "Authorized", "False", "OriginNotAllowed").await?;
    ensure!(message.contains(&thief.url()), "{message}");
    ensure!(thief.count() == 0);
    Ok(())
}

#[tokio::test]
async fn an_external_system_that_sends_credentials_back_is_not_quoted() -> Result<()> {
    let mut workspace = Workspace::shared("echo").await?;
    let echo = Runner::start()?;
    workspace.base_url = echo.url();
    echo.respond_with(|request| {
        let all: Vec<_> = request.headers().map(|(name, value)| format!("{name}={value}")).collect();
        bellhop_harness::runner::Reply::status(403).body(all.join(" "))
    });
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    let message = workspace.subscription_is("acme-web", "Authorized", "False", "CredentialsRefused").await?;
    ensure!(message.contains("[redacted]") && !message.contains(&workspace.user.token), "{message}");
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn loopback_is_refused_unless_the_administrator_allows_it() -> Result<()> {
    let mut workspace = Workspace::shared("metadata").await?;
    for (name, url) in [
        ("metadata", "http://169.254.169.254"),
        ("mapped", "http://[::ffff:169.254.169.254]"),
        ("private", "http://10.0.0.1:3000"),
    ] {
        workspace.base_url = url.to_owned();
        workspace.create_subscription(workspace.subscription(name)).await?;
        let message = workspace.subscription_is(name, "Authorized", "False", "OriginNotAllowed").await?;
        ensure!(message.contains("--allow-address"), "{name}: {message}");
    }
    Ok(())
}
