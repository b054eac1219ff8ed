//! `/oauth/callback`: the external system sends the browser back, with a code or with a refusal.

use super::browser::{Cookie, parse, same};
use super::html::{Content, page, quoted};
use super::{Pages, Refusal, subscription};
use crate::controller::authorization::tokens::{change, client};
use crate::controller::authorization::{Flow, Problem, ProblemKind, now_millis, redirect_url};
use crate::controller::custody::Custody;
use crate::external::oauth::TokenError;
use crate::plugin::{Plugin, Secret, Token};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use url::Url;
use url::form_urlencoded::parse as parse_form;

/// The longest code that is exchanged, in bytes. RFC 6749 names no limit; some systems' codes are a few kilobytes.
const MAX_CODE: usize = 8 * 1024;

/// What the external system has sent with the browser.
#[derive(Default)]
struct Answer {
    state: String,
    code: Option<String>,
    error: Option<String>,
    description: Option<String>,
    issuer: Option<String>,
}

/// Ends a consent.
pub async fn end(pages: &Arc<Pages>, query: &str, headers: &HeaderMap) -> Response {
    try_end(pages, query, headers).await.unwrap_or_else(Refusal::into_page)
}

async fn try_end(pages: &Arc<Pages>, query: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let answer = read(query).ok_or_else(|| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            "This address is not complete",
            "The external system should send you here with its answer, and this address holds none. Open the link of the \
             Subscription again.",
        )
    })?;
    let (uid, state) = parse(&answer.state).ok_or_else(not_under_way)?;
    let browser = Cookie::of(headers, &pages.public_url).map(|cookie| cookie.digest()).unwrap_or_default();
    // Taken out of custody before the code is used, by a write that only one can win: an answer counts once.
    let taken = change(&pages.vault, uid, |custody| take(custody, state, &browser)).await?;
    let (stored, flow) = taken.ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "The Subscription is gone",
            "It was deleted while you were consenting. Nothing was stored. If there is a new one of the same name, it has a \
             link of its own:",
        )
    })?;
    // What follows is not given up when the browser is: the code can be used once.
    let pages = pages.clone();
    let work = tokio::spawn(async move { finish(&pages, &stored.custody, &flow, &answer).await });
    work.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a consent could not be ended");
        Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "This went wrong",
            "Open the link of the Subscription again.",
        ))
    })
}

/// The answer in a query; nothing if it is none, or has a parameter twice (RFC 6749, section 3.1).
fn read(query: &str) -> Option<Answer> {
    let mut answer = Answer::default();
    let mut seen = Vec::new();
    for (name, value) in parse_form(query.as_bytes()) {
        let value = value.into_owned();
        match &*name {
            "state" => answer.state = value,
            "code" => answer.code = Some(value),
            "error" => answer.error = Some(value),
            "error_description" => answer.description = Some(value),
            "iss" => answer.issuer = Some(value),
            _ => continue,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    let code_fits = answer.code.as_ref().is_none_or(|code| !code.is_empty() && code.len() <= MAX_CODE);
    (code_fits && answer.code.is_some() != answer.error.is_some()).then_some(answer)
}

/// Takes the flow, if this answer belongs to it and comes with the browser that began it.
fn take(custody: &mut Custody, state: &str, browser: &str) -> Result<Flow, Refusal> {
    let flow = custody.authorization.flow.as_ref().filter(|flow| same(&flow.state, state));
    let flow = flow.filter(|flow| now_millis() < flow.expires_at).ok_or_else(not_under_way)?;
    if !same(&flow.browser, browser) {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "The consent was begun in another browser",
            "Only the browser that has begun a consent can end it. If somebody has sent you to the external system's page, \
             they may want your account for their Subscription: nothing was stored. Otherwise open the link of the \
             Subscription again, here, with cookies allowed.",
        ));
    }
    let flow = flow.clone();
    custody.authorization.flow = None;
    Ok(flow)
}

fn not_under_way() -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "This answer belongs to no consent that is under way",
        "It was used already, took longer than ten minutes, or another consent was begun after it. Nothing has changed. Open \
         the link of the Subscription again.",
    )
}

async fn finish(pages: &Pages, custody: &Custody, flow: &Flow, answer: &Answer) -> Result<Response, Refusal> {
    let (_, plugin) = pages.plugin(custody).await?;
    let code = match verdict(&plugin, custody, answer) {
        Ok(code) => code,
        Err(message) => return Ok(refused(pages, custody, ProblemKind::ConsentRefused, message).await),
    };
    let mut custody = custody.clone();
    let parameters = custody.accepted.parameters.clone();
    // The plugin may have changed since the consent was begun; its default client is not sent where it may not go.
    pages.clients.read_again(&mut custody.authorization, &custody.namespace, &parameters, &plugin).await?;
    let (secret, redirect) =
        (Secret::from(custody.authorization.client_secret.as_str()), redirect_url(&pages.public_url));
    let client = client(&plugin, &custody, &secret, &redirect, &pages.metrics);
    let outcome = client.exchange(&pages.external, &code, flow.pkce_verifier.as_deref()).await;
    let token = match outcome {
        Ok(token) => token,
        Err(error) => {
            let kind = match &error {
                TokenError::ClientRefused(_) | TokenError::Forbidden(_) => ProblemKind::ClientRefused,
                TokenError::GrantRefused(_) | TokenError::Failed { .. } => ProblemKind::NoToken,
            };
            return Ok(refused(pages, &custody, kind, format!("no token was given: {error}")).await);
        }
    };
    if !store(pages, &custody, &token).await? {
        // Nobody will ever use it.
        let token = token.refresh_token.as_ref().unwrap_or(&token.access_token);
        if let Err(error) = client.revoke(&pages.external, token, "refresh_token").await {
            tracing::warn!(subscription = subscription(&custody), %error, "a token that is not needed stays");
        }
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "The Subscription is gone",
            "It was deleted while you were consenting. Nothing was stored. You may remove the grant in the external system.",
        ));
    }
    tracing::info!(subscription = subscription(&custody), "a person has consented");
    let content = Content::default()
        .paragraph(&format!(
            "Bellhop may now make the webhook of the Subscription {} in the workspace {}, and goes on by itself. You can \
             close this page.",
            custody.name, custody.namespace
        ))
        .paragraph("To see how far it is:")
        .command(&format!("kubectl get subscriptions.bellhop.dev {} --namespace {}", custody.name, custody.namespace));
    Ok(page(StatusCode::OK, "Done", content))
}

/// The code, or why there is none.
fn verdict(plugin: &Plugin, custody: &Custody, answer: &Answer) -> Result<Secret, String> {
    if let Some(error) = &answer.error {
        let words = answer.description.as_deref().map(|text| format!(": {}", quoted(text))).unwrap_or_default();
        return Err(format!("the external system answered \"{}\"{words}", quoted(error)));
    }
    // RFC 9207: an answer of another system than the one that was asked must not reach the one that was asked.
    if let Some(issuer) = &answer.issuer {
        let asked = plugin.authorization_url(&custody.accepted.parameters).map_err(|error| error.to_string())?;
        let issuer_host = Url::parse(issuer).ok().and_then(|url| url.host_str().map(str::to_owned));
        if issuer_host.as_deref() != asked.host_str() {
            return Err(format!(
                "the answer is one of {} and not of {}, which was asked",
                quoted(issuer),
                asked.host_str().unwrap_or_default()
            ));
        }
    }
    Ok(Secret::from(answer.code.clone().unwrap_or_default()))
}

/// Stores what a consent has given; `false` if there is no custody any more.
async fn store(pages: &Pages, custody: &Custody, token: &Token) -> Result<bool, Refusal> {
    let jitter = rand::random();
    let (id, secret) = (&custody.authorization.client_id, &custody.authorization.client_secret);
    let stored = change(&pages.vault, custody.uid, |custody| {
        let record = &mut custody.authorization;
        record.consented(token, now_millis(), jitter);
        record.client_id.clone_from(id);
        record.client_secret.clone_from(secret);
        Ok::<_, Refusal>(())
    });
    Ok(stored.await?.is_some())
}

/// Stores why nothing was granted, and says it. The link still works.
async fn refused(pages: &Pages, custody: &Custody, kind: ProblemKind, message: String) -> Response {
    tracing::warn!(subscription = subscription(custody), message, "a consent has led to nothing");
    let problem = Problem { kind, message: message.clone() };
    let stored = change(&pages.vault, custody.uid, |custody| {
        custody.authorization.not_consented(problem.clone());
        Ok::<_, Refusal>(())
    });
    if let Err(refusal) = stored.await {
        return refusal.into_page();
    }
    Refusal {
        status: match kind {
            ProblemKind::ConsentRefused => StatusCode::OK,
            _ => StatusCode::BAD_GATEWAY,
        },
        title: "Nothing was granted".to_owned(),
        text: format!("The Subscription {} is not connected: {message}.", subscription(custody)),
        link: custody.authorization.link_url(&pages.public_url, custody.uid),
    }
    .into_page()
}
