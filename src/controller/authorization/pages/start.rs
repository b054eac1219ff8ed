//! `/oauth/start/<link>`: what will be consented to, and the way to the external system.

use super::browser::{Cookie, is_own_form, parse, same};
use super::html::{Content, answer, page};
use super::{Pages, Refusal, subscription};
use crate::controller::authorization::tokens::{change, client};
use crate::controller::authorization::{FLOW_LIFE, Flow, after, now_millis, random_text, redirect_url};
use crate::controller::custody::Custody;
use crate::external::oauth::new_verifier;
use crate::plugin::{CallError, Secret};
use axum::body::Body;
use axum::response::Response;
use http::header::{LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use url::Url;
use uuid::Uuid;

/// Shows what a link is for. Nothing happens before the button is pressed, so that a link which somebody else has sent
/// cannot be consented to unseen, and a program that only looks at it does not use it up.
pub async fn show(pages: &Pages, link: &str, headers: &HeaderMap) -> Response {
    try_show(pages, link, headers).await.unwrap_or_else(Refusal::into_page)
}

async fn try_show(pages: &Pages, link: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let (uid, secret) = parse(link).ok_or_else(Refusal::unknown_link)?;
    let custody = pages.vault.get(uid).await?.ok_or_else(Refusal::unknown_link)?.custody;
    check(&custody, secret)?;
    let (resource, plugin) = pages.plugin(&custody).await?;
    let title = resource.spec.display_name;
    let url = plugin.authorization_url(&custody.accepted.parameters).map_err(|error| broken(&error))?;
    let host = host(&url);
    let record = &custody.authorization;
    let oauth2 = plugin.oauth2();
    let content = Content::default()
        .paragraph(&format!(
            "The Subscription below asks to make a webhook in {title} with your account. Continue only if you know it: \
             who made it will be able to start workflows on events that your account can see."
        ))
        .facts(&[
            ("Workspace", &custody.namespace),
            ("Subscription", &custody.name),
            ("Plugin", &format!("{title} ({})", plugin.name())),
            ("External system", &url.origin().ascii_serialization()),
            ("OAuth client", &record.client.as_ref().map(|c| c.describe(&custody.namespace)).unwrap_or_default()),
            ("Scopes", &oauth2.map(|oauth2| oauth2.scopes.join(", ")).unwrap_or_default()),
        ])
        .button(&format!("Continue to {host}"))
        .paragraph("If you do not want this, close the page: then nothing happens.");
    let mut response = page(StatusCode::OK, &format!("Connect {title} to {}", subscription(&custody)), content);
    // With `no-referrer`, browsers would send the form without its origin.
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    // A browser that has a cookie keeps it: another consent may be under way in it.
    if Cookie::of(headers, &pages.public_url).is_none() {
        response.headers_mut().insert(SET_COOKIE, Cookie::new().set(&pages.public_url));
    }
    Ok(response)
}

/// Begins a consent and sends the browser to the external system.
pub async fn begin(pages: &Pages, link: &str, headers: &HeaderMap) -> Response {
    try_begin(pages, link, headers).await.unwrap_or_else(Refusal::into_page)
}

async fn try_begin(pages: &Pages, link: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let (uid, secret) = parse(link).ok_or_else(Refusal::unknown_link)?;
    if !is_own_form(headers, &pages.public_url) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "This form comes from another site",
            "Another site has tried to begin a consent in your name. Nothing has happened. If you want to begin one, open \
             the link of the Subscription yourself.",
        ));
    }
    let cookie = Cookie::of(headers, &pages.public_url).ok_or_else(|| {
        Refusal::new(
            StatusCode::FORBIDDEN,
            "Your browser has sent no cookie",
            "Bellhop sets one cookie to recognise your browser when it comes back from the external system. Allow cookies \
             for this site, open the link again, and press the button there.",
        )
    })?;
    let flow = Flow {
        state: random_text(),
        browser: cookie.digest(),
        pkce_verifier: None,
        expires_at: after(now_millis(), FLOW_LIFE),
    };
    let url = store(pages, uid, secret, flow).await?;
    let mut response = answer(StatusCode::SEE_OTHER, Body::empty());
    let location = HeaderValue::from_str(url.as_str());
    let location = location.map_err(|_| broken(&CallError::NoSuchCall("authorization.oauth2.authorizationURL")))?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// Stores the flow, and gives the address of the external system's page.
async fn store(pages: &Pages, uid: Uuid, secret: &str, mut flow: Flow) -> Result<Url, Refusal> {
    let custody = pages.vault.get(uid).await?.ok_or_else(Refusal::unknown_link)?.custody;
    check(&custody, secret)?;
    let (_, plugin) = pages.plugin(&custody).await?;
    if plugin.oauth2().is_some_and(|oauth2| oauth2.pkce) {
        flow.pkce_verifier = Some(new_verifier());
    }
    let mut record = custody.authorization;
    let parameters = &custody.accepted.parameters;
    pages.clients.read_again(&mut record, &custody.namespace, parameters, &plugin).await?;
    let stored = change(&pages.vault, uid, |custody| {
        check(custody, secret)?;
        let authorization = &mut custody.authorization;
        authorization.flow = Some(flow.clone());
        authorization.client_id.clone_from(&record.client_id);
        authorization.client_secret.clone_from(&record.client_secret);
        Ok::<_, Refusal>(())
    });
    let custody = stored.await?.ok_or_else(Refusal::unknown_link)?.0.custody;
    let (client_secret, redirect) =
        (Secret::from(custody.authorization.client_secret.as_str()), redirect_url(&pages.public_url));
    let state = format!("{}.{}", uid.simple(), flow.state);
    let url = client(&plugin, &custody, &client_secret, &redirect, &pages.metrics);
    let url = url.authorization_url(&state, flow.pkce_verifier.as_deref()).map_err(|error| broken(&error))?;
    tracing::info!(subscription = subscription(&custody), "a consent was begun");
    Ok(url)
}

/// Whether the link is the one that works now.
fn check(custody: &Custody, secret: &str) -> Result<(), Refusal> {
    let link = custody.authorization.link.as_ref();
    match link.is_some_and(|link| same(&link.secret, secret) && link.works(now_millis())) {
        true => Ok(()),
        false => Err(Refusal::unknown_link()),
    }
}

fn broken(error: &CallError) -> Refusal {
    let text = format!("The way to the external system cannot be found: {error}. Ask the administrator of Bellhop.");
    Refusal::new(StatusCode::CONFLICT, "The plugin cannot be used now", &text)
}

/// Host and port, as people know a site.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
