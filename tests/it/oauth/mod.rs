//! Authorization by OAuth at the real Gitea, through its login and consent pages.

mod late;
mod rotation;
mod strict;
pub mod support;

use crate::support::{Own, PATIENCE, REPOSITORY, Workspace, callback_url, shared};
use anyhow::{Context, Result, ensure};
use bellhop_harness::bellhop::Bellhop;
use bellhop_harness::browser::Browser;
use bellhop_harness::gitea::Gitea;
use bellhop_harness::{eventually, world};
use serde_json::json;
use support::{OAuth, consent_at_gitea, custody, link, make_default, plugin_like_gitea};

#[tokio::test]
async fn one_click_with_the_default_client_connects_a_subscription() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oauth-default").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    let redirect = oauth.redirect_url();
    let (id, secret) = workspace.gitea.create_oauth_application(&workspace.user, &redirect).await?;
    oauth.put_default_client("oauth-default-client", "gitea-default", &id, &secret).await?;
    let origin = workspace.gitea.url();
    let default = json!({"secretRef": {"name": "oauth-default-client"}, "origins": [origin]});
    plugin_like_gitea(&workspace, "gitea-default", &json!({"defaultClient": default})).await?;
    oauth.redirect_url_is_shown("gitea-default").await?;

    workspace.create_subscription(oauth.subscription("acme-web", "gitea-default", json!({}))).await?;
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    let message = workspace.subscription_is("acme-web", "Authorized", "False", "AuthorizationRequired").await?;
    let link = link(&workspace, "acme-web").await?;
    ensure!(message.contains(&link), "{message}");
    ensure!(workspace.hooks().await?.is_empty(), "nothing is made before somebody has consented");

    let mut browser = Browser::new();
    let start = browser.open(&link).await?;
    for told in [workspace.namespace.as_str(), "acme-web", "gitea-default", &origin, "write:repository"] {
        ensure!(start.text().contains(told), "the page does not name {told}: {}", start.text());
    }
    // PKCE, state and scopes are what Gitea is asked with.
    browser.stop_before(&origin);
    let asked = browser.submit(&start.form("/oauth/start/")?, &[]).await?;
    ensure!(asked.parameter("code_challenge_method").as_deref() == Some("S256"), "{}", asked.url);
    ensure!(asked.parameter("redirect_uri").as_deref() == Some(redirect.as_str()), "{}", asked.url);
    ensure!(asked.parameter("scope").as_deref() == Some("write:repository read:user"), "{}", asked.url);
    browser.stop_nowhere();
    let done = consent_at_gitea(&workspace, &mut browser, &link, true).await?;
    ensure!(done.status == 200 && done.text().contains("You can close this page"), "{}", done.text());

    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let message = workspace.subscription_is("acme-web", "Authorized", "True", "").await?;
    ensure!(message.contains(&workspace.user.name), "{message}");
    let subscription = workspace.api::<bellhop::api::Subscription>().get("acme-web").await?;
    let status = subscription.status.clone().and_then(|status| status.authorization).context("it has a status")?;
    ensure!(status.url.is_none(), "there is nothing to click any more: {status:?}");
    ensure!(status.client.as_deref() == Some("the plugin's default client"), "{status:?}");
    ensure!(workspace.hooks().await?.len() == 1, "one webhook");
    workspace.push("main", "hello.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;

    // The link has done what it was for.
    let again = browser.open(&link).await?;
    ensure!(again.status == 404 && again.text().contains("This link does not work"), "{}", again.text());
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    ensure!(workspace.hooks().await?.is_empty(), "the webhook went with the Subscription");
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn a_default_client_is_not_used_with_parameters_that_lead_elsewhere() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oauth-origin").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    oauth.put_default_client("oauth-origin-client", "gitea-origin", "an-id", "a-secret-of-the-administrator").await?;
    let default = json!({"secretRef": {"name": "oauth-origin-client"}, "origins": ["https://git.example.com"]});
    plugin_like_gitea(&workspace, "gitea-origin", &json!({"defaultClient": default})).await?;
    workspace.create_subscription(oauth.subscription("elsewhere", "gitea-origin", json!({}))).await?;
    let message = workspace.subscription_is("elsewhere", "Accepted", "False", "ClientNotAllowed").await?;
    ensure!(message.contains("https://git.example.com only"), "{message}");
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn a_client_of_ones_own_is_named_or_is_the_workspaces_default() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oauth-custom").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    plugin_like_gitea(&workspace, "gitea-custom", &json!({})).await?;
    let (id, secret) = workspace.gitea.create_oauth_application(&workspace.user, &oauth.redirect_url()).await?;

    // None: how to add one.
    workspace.create_subscription(oauth.subscription("by-default", "gitea-custom", json!({}))).await?;
    let message = workspace.subscription_is("by-default", "Accepted", "False", "ClientNotFound").await?;
    ensure!(message.contains("bellhop.dev/is-default-client=true"), "{message}");
    // One that lacks a key, then one that is right.
    let named = json!({"clientSecretRef": {"name": "mine"}});
    workspace.create_subscription(oauth.subscription("by-name", "gitea-custom", named)).await?;
    workspace.subscription_is("by-name", "Accepted", "False", "SecretNotFound").await?;
    workspace.put_secret("mine", Some("gitea-custom"), &[("clientID", &id)]).await?;
    let message = workspace.subscription_is("by-name", "Accepted", "False", "SecretKeyMissing").await?;
    ensure!(message.contains("`clientSecret`"), "{message}");
    let client = [("clientID", id.as_str()), ("clientSecret", secret.as_str())];
    workspace.put_secret("mine", Some("gitea-custom"), &client).await?;
    let mut browser = Browser::new();
    let link_by_name = link(&workspace, "by-name").await?;
    consent_at_gitea(&workspace, &mut browser, &link_by_name, true).await?;
    workspace.subscription_is("by-name", "Ready", "True", "").await?;

    // Two defaults are both named; with one, it goes on.
    for name in ["ours", "theirs"] {
        workspace.put_secret(name, Some("gitea-custom"), &client).await?;
        make_default(&workspace, name, true).await?;
    }
    let message = workspace.subscription_is("by-default", "Accepted", "False", "ClientAmbiguous").await?;
    ensure!(message.contains("the Secrets ours, theirs"), "{message}");
    make_default(&workspace, "theirs", false).await?;
    let link_by_default = link(&workspace, "by-default").await?;
    // Gitea asks a person once for each application, and Bellhop's page asks each time.
    let start = browser.open(&link_by_default).await?;
    ensure!(start.text().contains(&format!("Secret {}/ours (the workspace's default)", workspace.namespace)));
    let done = browser.submit(&start.form("/oauth/start/")?, &[]).await?;
    ensure!(done.text().contains("You can close this page"), "{}", done.text());
    workspace.subscription_is("by-default", "Ready", "True", "").await?;
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn a_refused_consent_is_told_and_may_be_given_later() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oauth-refused").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    plugin_like_gitea(&workspace, "gitea-refused", &json!({})).await?;
    oauth.connectable("acme-web", "gitea-refused").await?;
    let link = link(&workspace, "acme-web").await?;
    let mut browser = Browser::new();
    let page = consent_at_gitea(&workspace, &mut browser, &link, false).await?;
    ensure!(page.text().contains("Nothing was granted") && page.text().contains("access_denied"), "{}", page.text());
    let message = workspace.subscription_is("acme-web", "Authorized", "False", "ConsentRefused").await?;
    ensure!(message.contains("access_denied") && message.contains(&link), "{message}");
    ensure!(workspace.hooks().await?.is_empty());
    consent_at_gitea(&workspace, &mut browser, &link, true).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn what_is_forwarded_replayed_or_forged_is_refused() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oauth-forged").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    plugin_like_gitea(&workspace, "gitea-forged", &json!({})).await?;
    oauth.connectable("acme-web", "gitea-forged").await?;
    let link = link(&workspace, "acme-web").await?;
    // Somebody begins a consent and sends Gitea's page on to another person, who consents there.
    let (mut attacker, mut victim) = (Browser::new(), Browser::new());
    let start = attacker.open(&link).await?;
    attacker.stop_before(&workspace.gitea.url());
    let forwarded = attacker.submit(&start.form("/oauth/start/")?, &[]).await?;
    let login = victim.open(forwarded.url.as_str()).await?;
    let consent = workspace.gitea.log_in(&mut victim, login, &workspace.user).await?;
    let end = workspace.gitea.consent(&mut victim, &consent, true).await?;
    ensure!(end.status == 403 && end.text().contains("another browser"), "{}", end.text());
    ensure!(custody(&workspace, "acme-web").await?["authorization"]["grant"].is_null(), "nothing was stored");
    // A form of another site begins nothing, whatever cookies it comes with.
    let start = victim.open(&link).await?;
    let mut forged = start.clone();
    forged.url.set_host(Some("localhost"))?;
    forged.html = forged.html.replace("<form ", &format!("<form action=\"{link}\" "));
    let refused = victim.submit(&forged.form("/oauth/start/")?, &[]).await?;
    ensure!(refused.status == 403 && refused.text().contains("another site"), "{}", refused.text());
    // The answer of a consent counts once.
    victim.stop_before(&oauth.redirect_url());
    let answer = victim.submit(&start.form("/oauth/start/")?, &[]).await?;
    victim.stop_nowhere();
    let changed = answer.url.as_str().replace("state=", "state=0");
    ensure!(victim.open(&changed).await?.status == 400, "a state that was never given out");
    ensure!(victim.open(answer.url.as_str()).await?.status == 200, "the answer itself");
    let again = victim.open(answer.url.as_str()).await?;
    ensure!(again.status == 400 && again.text().contains("used already"), "{}", again.text());
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    // A link of a Subscription that was deleted and made again leads nowhere.
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    ensure!(victim.open(&link).await?.status == 404);
    let log = bellhop.log()?;
    let code = answer.parameter("code").context("the answer has a code")?;
    let state = answer.parameter("state").context("the answer has a state")?;
    ensure!(!log.contains(&code) && !log.contains(&state), "an address of the pages was logged");
    ensure!(!log.contains(link.rsplit('.').next().unwrap_or(&link)), "a link was logged");
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn a_short_lived_token_is_refreshed_and_a_revoked_grant_asks_for_a_click() -> Result<()> {
    // The life of a token is Gitea's configuration; each refresh token works once.
    let more = "\n[oauth2]\nACCESS_TOKEN_EXPIRATION_TIME = 15\nINVALIDATE_REFRESH_TOKENS = true\n";
    let gitea = Gitea::start_with(world::dir(), "gitea-oauth", more).await?;
    let own = Own::start("oauth-refresh", &["--drift-interval", "0s"]).await?;
    let workspace = Workspace::new(&own.control_plane, &gitea, "oauth-refresh").await?;
    let bellhop: &Bellhop = &own.bellhop;
    let oauth = OAuth::new(&workspace, bellhop);
    plugin_like_gitea(&workspace, "gitea-short", &json!({})).await?;
    oauth.connectable("acme-web", "gitea-short").await?;
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    let mut browser = Browser::new();
    let first_link = link(&workspace, "acme-web").await?;
    consent_at_gitea(&workspace, &mut browser, &first_link, true).await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    // Two refreshes, so that the second one is made with what the first one gave.
    let mut tokens = vec![custody(&workspace, "acme-web").await?["authorization"]["grant"].clone()];
    for _ in 0..2 {
        let last = tokens.last().cloned().unwrap_or_default();
        let next = eventually(PATIENCE, "another access token", async || {
            let grant = custody(&workspace, "acme-web").await?["authorization"]["grant"].clone();
            ensure!(grant["accessToken"] != last["accessToken"] && grant["refreshToken"] != last["refreshToken"]);
            Ok(grant)
        });
        tokens.push(next.await?);
    }
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let hooks = workspace.hooks().await?;
    ensure!(hooks.len() == 1, "refreshing makes no webhook: {hooks:?}");

    gitea.revoke_grants(&mut browser, &workspace.user).await?;
    let message = workspace.subscription_is("acme-web", "Authorized", "False", "AuthorizationExpired").await?;
    let second_link = link(&workspace, "acme-web").await?;
    ensure!(second_link != first_link && message.contains(&second_link), "{message}");
    // The webhook keeps receiving meanwhile.
    workspace.push("main", "after.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    let subscription = workspace.api::<bellhop::api::Subscription>().get("acme-web").await?;
    let before = callback_url(&subscription)?;
    consent_at_gitea(&workspace, &mut browser, &second_link, true).await?;
    workspace.subscription_is("acme-web", "Authorized", "True", "").await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let hooks = workspace.hooks().await?;
    ensure!(hooks.len() == 1 && hooks[0]["config"]["url"] == before.as_str(), "the same webhook: {hooks:?}");
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    ensure!(gitea.hooks(&workspace.user, REPOSITORY).await?.is_empty());
    workspace.collect(bellhop).await
}
