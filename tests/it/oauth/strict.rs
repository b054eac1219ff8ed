//! Authorization by OAuth at a strict server that is not Gitea: what it refuses is refused, and its rotation of refresh
//! tokens is followed.

use super::support::{OAuth, apply_plugin, custody, link};
use crate::support::{PATIENCE, Workspace, shared};
use anyhow::{Context, Result, ensure};
use bellhop_harness::browser::{Browser, Page};
use bellhop_harness::oidc::{Client, Oidc};
use bellhop_harness::proxy::{Action, Proxy};
use bellhop_harness::server::Reply;
use bellhop_harness::{eventually, world};
use serde_json::{Value, json};
use std::time::Duration;

const CLIENT: Client<'static> = Client { id: "bellhop", secret: "a-secret-for-the-strict-server" };
/// Long enough that nothing is refreshed by itself.
const LONG: Duration = Duration::from_secs(3600);

/// Makes the plugin of this server, the workspace's default client, and a Subscription.
async fn connectable(
    oauth: &OAuth<'_>,
    workspace: &Workspace<'_>,
    oidc: &Oidc,
    plugin: &str,
    grant: &str,
) -> Result<()> {
    connectable_at(oauth, workspace, oidc.url(), plugin, grant).await
}

/// The same, with a URL that leads to the server.
async fn connectable_at(
    oauth: &OAuth<'_>,
    workspace: &Workspace<'_>,
    url: &str,
    plugin: &str,
    grant: &str,
) -> Result<()> {
    let mut oauth2 = json!({
        "grant": grant, "tokenURL": "{+parameters.baseURL}/token", "scopes": ["hooks"],
        "revocationURL": "{+parameters.baseURL}/token/revocation",
    });
    if grant == "authorizationCode" {
        oauth2["authorizationURL"] = "{+parameters.baseURL}/auth".into();
        oauth2["pkce"] = true.into();
    }
    let hooks = "{+parameters.baseURL}/api/hooks";
    let spec = json!({
        "displayName": "Strict",
        "allowedOrigins": ["{+parameters.baseURL}"],
        "parameters": {"type": "object", "required": ["baseURL"], "properties": {"baseURL": {"type": "string"}}},
        "authorization": {"oauth2": oauth2},
        "webhook": {
            "verify": {"method": "GET", "url": "{+parameters.baseURL}/api/me", "account": "response.body.login"},
            "find": {"method": "GET", "url": hooks, "items": "response.body", "match": "item.url == callback.url",
                "id": "item.id"},
            "create": {"method": "POST", "url": hooks, "body": "{'url': callback.url}",
                "capture": {"id": "response.body.id"}},
            "delete": {"method": "DELETE", "url": format!("{hooks}/{{webhook.id}}")},
        },
        "callback": {"verification": [{"none": {}}], "event": "'push'"},
        "events": [{"name": "push", "title": "Push"}],
    });
    apply_plugin(workspace, plugin, &spec).await?;
    oauth.put_workspace_client("strict-client", plugin, CLIENT.id, CLIENT.secret).await?;
    let mut object = oauth.subscription("acme-web", plugin, json!({}));
    object["spec"]["parameters"] = json!({"baseURL": url});
    workspace.create_subscription(object).await?;
    Ok(())
}

/// Follows the link to the server's login page.
async fn to_login(browser: &mut Browser, link: &str) -> Result<Page> {
    let start = browser.open(link).await?;
    browser.submit(&start.form("/oauth/start/")?, &[]).await
}

#[tokio::test]
async fn refusals_and_replays_at_a_strict_server() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oidc-refusals").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    let oidc = Oidc::start(world::dir(), "oidc-refusals", &oauth.redirect_url(), LONG, &[CLIENT]).await?;
    connectable(&oauth, &workspace, &oidc, "strict-refusals", "authorizationCode").await?;
    let link = link(&workspace, "acme-web").await?;
    // Refused where one logs in.
    let mut browser = Browser::new();
    let login = to_login(&mut browser, &link).await?;
    let page = oidc.refuse(&mut browser, &login).await?;
    ensure!(page.text().contains("Nothing was granted") && page.text().contains("access_denied"), "{}", page.text());
    workspace.subscription_is("acme-web", "Authorized", "False", "ConsentRefused").await?;
    // A code counts once, at Bellhop and at the server.
    let login = to_login(&mut browser, &link).await?;
    let consent = oidc.log_in(&mut browser, login, "somebody").await?;
    browser.stop_before(&oauth.redirect_url());
    let answer = oidc.consent(&mut browser, &consent).await?;
    browser.stop_nowhere();
    let done = browser.open(answer.url.as_str()).await?;
    ensure!(done.status == 200 && done.text().contains("You can close this page"), "{}", done.text());
    let message = workspace.subscription_is("acme-web", "Authorized", "True", "").await?;
    ensure!(message.contains("somebody"), "{message}");
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let again = browser.open(answer.url.as_str()).await?;
    ensure!(again.status == 400 && again.text().contains("used already"), "{}", again.text());
    ensure!(oidc.requests("authorization_code").await? == 1 && oidc.requests("refused").await? == 0);
    workspace.collect(bellhop).await
}

/// Logs in and consents; the Subscription becomes ready. Gives its access token and its refresh token.
async fn consented(oidc: &Oidc, workspace: &Workspace<'_>) -> Result<[String; 2]> {
    let mut browser = Browser::new();
    let login = to_login(&mut browser, &link(workspace, "acme-web").await?).await?;
    let consent = oidc.log_in(&mut browser, login, "somebody").await?;
    let done = oidc.consent(&mut browser, &consent).await?;
    ensure!(done.status == 200 && done.text().contains("You can close this page"), "{}", done.text());
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let grant = custody(workspace, "acme-web").await?["authorization"]["grant"].clone();
    let token = |name: &str| grant[name].as_str().map(str::to_owned).with_context(|| format!("a grant has {name}"));
    Ok([token("accessToken")?, token("refreshToken")?])
}

#[tokio::test]
async fn deleting_gives_the_grant_back() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oidc-revoked").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    let oidc = Oidc::start(world::dir(), "oidc-revoked", &oauth.redirect_url(), LONG, &[CLIENT]).await?;
    connectable(&oauth, &workspace, &oidc, "strict-revoked", "authorizationCode").await?;
    let tokens = consented(&oidc, &workspace).await?;
    for token in &tokens {
        ensure!(oidc.is_active(CLIENT, token).await?, "it is taken while the Subscription is there");
    }
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    for token in &tokens {
        ensure!(!oidc.is_active(CLIENT, token).await?, "it is taken although the grant was given back");
    }
    let form = [("grant_type", "refresh_token"), ("refresh_token", tokens[1].as_str())];
    let (status, answer) = oidc.token(CLIENT, &form).await?;
    ensure!(status == 400 && answer["error"] == "invalid_grant", "{status} {answer}");
    workspace.collect(bellhop).await
}

/// The server fails at the revocation alone: the webhook goes, the Subscription goes, and an Event says what is left.
#[tokio::test]
async fn a_grant_that_cannot_be_given_back_holds_nothing_up_and_is_told() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oidc-unrevoked").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    let oidc = Oidc::start(world::dir(), "oidc-unrevoked", &oauth.redirect_url(), LONG, &[CLIENT]).await?;
    let proxy = Proxy::start(oidc.url())?;
    connectable_at(&oauth, &workspace, &proxy.url(), "strict-unrevoked", "authorizationCode").await?;
    let tokens = consented(&oidc, &workspace).await?;
    proxy.on_call(|call| match call.path.as_str() {
        "/token/revocation" => Action::Respond(Reply::status(500).body("out of order")),
        _ => Action::Pass,
    });
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    let asked = proxy.count("POST", |path| path == "/token/revocation");
    ensure!(asked == 1, "it is tried once: {asked}");
    ensure!(proxy.count("DELETE", |path| path.starts_with("/api/hooks/")) == 1, "{:?}", proxy.counts());
    eventually(PATIENCE, "an Event says that the grant may be left", async || {
        let events = workspace.control_plane.kubectl(["-n", &workspace.namespace, "get", "events"]).await?;
        let told =
            |line: &str| line.contains("AuthorizationNotRevoked") && line.contains("may stay") && line.contains("500");
        ensure!(events.lines().any(told), "{events}");
        Ok(())
    })
    .await?;
    for token in &tokens {
        ensure!(oidc.is_active(CLIENT, token).await?, "nothing else has ended it");
    }
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn a_redirect_url_that_is_not_registered_leads_nowhere() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oidc-redirect").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    // Of a loopback URL the port may be any (RFC 8252, section 7.3), so the path is another one.
    let other = "http://127.0.0.1:1/elsewhere";
    let oidc = Oidc::start(world::dir(), "oidc-redirect", other, LONG, &[CLIENT]).await?;
    connectable(&oauth, &workspace, &oidc, "strict-redirect", "authorizationCode").await?;
    let link = link(&workspace, "acme-web").await?;
    let refused = to_login(&mut Browser::new(), &link).await?;
    ensure!(refused.status == 400 && refused.url.as_str().starts_with(oidc.url()), "{}", refused.text());
    ensure!(refused.html.contains("redirect_uri"), "{}", refused.text());
    workspace.subscription_is("acme-web", "Authorized", "False", "AuthorizationRequired").await?;
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn rotated_refresh_tokens_are_followed_and_a_stolen_one_ends_the_grant() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oidc-rotation").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    let life = Duration::from_secs(15);
    let oidc = Oidc::start(world::dir(), "oidc-rotation", &oauth.redirect_url(), life, &[CLIENT]).await?;
    connectable(&oauth, &workspace, &oidc, "strict-rotation", "authorizationCode").await?;
    let first_link = link(&workspace, "acme-web").await?;
    let mut browser = Browser::new();
    let login = to_login(&mut browser, &first_link).await?;
    let consent = oidc.log_in(&mut browser, login, "somebody").await?;
    let done = oidc.consent(&mut browser, &consent).await?;
    ensure!(done.status == 200 && done.text().contains("You can close this page"), "{}", done.text());
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    let refresh_token = async || -> Result<String> {
        let custody = custody(&workspace, "acme-web").await?;
        Ok(custody["authorization"]["grant"]["refreshToken"].as_str().context("a refresh token")?.to_owned())
    };
    let first = refresh_token().await?;
    // Each works once, so three in a row show that the new one is used each time.
    eventually(PATIENCE, "three refreshes", async || {
        let made = oidc.requests("refresh_token").await?;
        ensure!(made >= 3, "{made} so far");
        Ok(())
    })
    .await?;
    ensure!(oidc.requests("refused").await? == 0, "no refresh token was used twice");
    ensure!(refresh_token().await? != first);
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    // Somebody uses an old one: the server takes it for stolen, and ends the grant.
    let (status, answer) = oidc.token(CLIENT, &[("grant_type", "refresh_token"), ("refresh_token", &first)]).await?;
    ensure!(status == 400 && answer["error"] == "invalid_grant", "{status} {answer}");
    let message = workspace.subscription_is("acme-web", "Authorized", "False", "AuthorizationExpired").await?;
    ensure!(message.contains("invalid_grant"), "{message}");
    let second_link = link(&workspace, "acme-web").await?;
    ensure!(second_link != first_link && message.contains(&second_link), "{message}");
    let refused = oidc.requests("refused").await?;
    tokio::time::sleep(life).await;
    ensure!(oidc.requests("refused").await? == refused, "a grant that is over is not asked for again and again");
    workspace.collect(bellhop).await
}

#[tokio::test]
async fn a_client_that_acts_for_itself_needs_no_click() -> Result<()> {
    let (bellhop, workspace) = (shared().await, Workspace::shared("oidc-itself").await?);
    let oauth = OAuth::new(&workspace, bellhop);
    let life = Duration::from_secs(15);
    let oidc = Oidc::start(world::dir(), "oidc-itself", &oauth.redirect_url(), life, &[CLIENT]).await?;
    connectable(&oauth, &workspace, &oidc, "strict-itself", "clientCredentials").await?;
    let message = workspace.subscription_is("acme-web", "Authorized", "True", "").await?;
    ensure!(message.contains(CLIENT.id), "{message}");
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    ensure!(custody(&workspace, "acme-web").await?["authorization"]["link"] == Value::Null);
    eventually(PATIENCE, "another token", async || {
        let made = oidc.requests("client_credentials").await?;
        ensure!(made >= 2, "{made} so far");
        Ok(())
    })
    .await?;
    workspace.delete_subscription("acme-web").await?;
    workspace.is_gone("acme-web").await?;
    workspace.collect(bellhop).await
}
