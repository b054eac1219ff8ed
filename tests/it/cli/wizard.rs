//! What a person sees and types on a terminal.

use super::terminal::Terminal;
use super::{command, exists};
use crate::oauth::support::{OAuth, plugin_like_gitea};
use crate::support::{SECRET, Workspace, shared};
use anyhow::{Result, ensure};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

const RETURN: &str = "\r";

#[tokio::test]
async fn the_questions_lead_to_a_subscription() -> Result<()> {
    let workspace = Workspace::shared("cli-wizard").await?;
    let mut asked = command(&workspace, &["create", "subscription", "gitea", "-p", "repository=web"]);
    asked.env("NO_COLOR", "1");
    let mut terminal = Terminal::start(asked)?;
    terminal.expect("A Subscription to Gitea, in the namespace cli-wizard-").await?;
    terminal.expect("Name of the Subscription").await?;
    // A name that the API server would refuse is refused at once.
    terminal.type_("Acme\r")?;
    terminal.expect("lower-case letters").await?;
    terminal.type_(&"\u{7f}".repeat(4))?;
    terminal.type_("acme-web\r")?;
    terminal.expect("Where Gitea is, such as").await?;
    terminal.expect("baseURL (string (uri))").await?;
    terminal.type_("nowhere\r")?;
    terminal.expect("does not match").await?;
    terminal.type_(&"\u{7f}".repeat(7))?;
    terminal.type_(&format!("{}\r", workspace.base_url))?;
    terminal.expect("organization (string, may be left empty)").await?;
    terminal.type_(RETURN)?;
    terminal.expect("owner (string, may be left empty)").await?;
    terminal.type_(&format!("{}\r", workspace.user.name))?;
    terminal.expect("Subscribe to all").await?;
    terminal.type_("y")?;
    terminal.expect("How is it authorized?").await?;
    terminal.expect("oauth2   a person consents in a browser").await?;
    terminal.type_(RETURN)?;
    terminal.expect("The Secret with the credentials").await?;
    terminal.expect(&format!("Secret {SECRET}")).await?;
    terminal.type_(RETURN)?;
    terminal.expect("kind: Subscription").await?;
    terminal.expect("Apply it to the namespace cli-wizard-").await?;
    terminal.type_("y")?;
    terminal.expect("subscription.bellhop.dev/acme-web applied").await?;
    ensure!(terminal.end().await? == 0);
    let namespace = &workspace.namespace;
    let expected = [
        &format!("A Subscription to Gitea, in the namespace {namespace}."),
        "✔ Name of the Subscription · acme-web",
        "Where Gitea is, such as https://git.example.com, without a slash at the end",
        &format!("✔ baseURL (string (uri)) · {}", workspace.base_url),
        "Organization, for a webhook of all its repositories; instead of owner and repository",
        "✔ organization (string, may be left empty) ·",
        "Owner of the repository, such as acme",
        &format!("✔ owner (string, may be left empty) · {}", workspace.user.name),
        "✔ Subscribe to all 17 events? (recommended: each WorkflowTrigger chooses its own) · yes",
        "✔ How is it authorized? · apiKey   credentials from a Secret with token",
        &format!("✔ The Secret with the credentials · Secret {SECRET}"),
        "apiVersion: bellhop.dev/v1alpha1",
        "kind: Subscription",
        "metadata:",
        "  name: acme-web",
        &format!("  namespace: {namespace}"),
        "spec:",
        "  authorization:",
        "    apiKey:",
        "      secretRef:",
        &format!("        name: {SECRET}"),
        "  parameters:",
        &format!("    baseURL: {}", workspace.base_url),
        &format!("    owner: {}", workspace.user.name),
        "    repository: web",
        "  pluginRef:",
        "    name: gitea",
        &format!("✔ Apply it to the namespace {namespace}? · yes"),
        "subscription.bellhop.dev/acme-web applied",
    ];
    ensure!(terminal.screen() == expected, "{:#?}", terminal.screen());
    // Whatever turns a colour on turns it off again.
    ensure!(!terminal.shown().contains("\u{1b}[0m"), "NO_COLOR: {:?}", terminal.shown());

    let made = exists(&workspace, "acme-web").await?;
    let expected = json!({"baseURL": workspace.base_url, "owner": workspace.user.name, "repository": "web"});
    ensure!(serde_json::to_value(&made.spec.parameters)? == expected && made.spec.events.is_none(), "{:?}", made.spec);
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;

    let mut terminal = Terminal::start(command(&workspace, &["status"]))?;
    terminal.expect(": \u{1b}[32m1 of 1\u{1b}[0m Subscription and ").await?;
    ensure!(terminal.end().await? == 0);
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn ctrl_c_ends_the_questions_and_makes_nothing() -> Result<()> {
    let workspace = Workspace::shared("cli-ctrl-c").await?;
    let mut terminal = Terminal::start(command(&workspace, &["create", "subscription", "gitea", "--name", "a"]))?;
    terminal.expect("baseURL").await?;
    terminal.type_("\u{3}")?;
    ensure!(terminal.end().await? == 130, "{}", terminal.shown());
    ensure!(terminal.shown().contains("\u{1b}[?25h"), "the cursor is shown again: {:?}", terminal.shown());
    ensure!(workspace.api::<bellhop::api::Subscription>().get_opt("a").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn authorize_opens_the_link_for_somebody_at_a_terminal() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("cli-open").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    plugin_like_gitea(&workspace, "gitea-cli-open", &json!({})).await?;
    oauth.connectable("acme-web", "gitea-cli-open").await?;
    // What opens links on this machine.
    let folder = tempfile::tempdir()?;
    let (opener, opened) = (folder.path().join("xdg-open"), folder.path().join("opened"));
    std::fs::write(&opener, format!("#!/bin/sh\necho \"$1\" > {}\n", opened.display()))?;
    std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH")?);
    let mut authorize = command(&workspace, &["authorize", "acme-web"]);
    authorize.env("PATH", &path);
    let mut terminal = Terminal::start(authorize)?;
    terminal.expect("Consent in the browser that opens").await?;
    let link = crate::oauth::support::link(&workspace, "acme-web").await?;
    ensure!(terminal.shown().contains(&link), "{}", terminal.shown());
    let seen = bellhop_harness::eventually(crate::support::PATIENCE, "the link was opened", async || {
        Ok(std::fs::read_to_string(&opened)?)
    });
    ensure!(seen.await?.trim_end() == link);
    Ok(())
}
