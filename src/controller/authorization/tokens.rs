//! Gets access tokens, and gives them back: what the controller that works does with a grant.

use super::clients::Clients;
use super::record::AuthorizationRecord;
use super::{after, now_millis, redirect_url};
use crate::api::{OAuth2Grant, Subscription};
use crate::controller::custody::{Custody, Stored, Vault};
use crate::controller::{Context, Failure};
use crate::external::oauth::{OAuthClient, TokenError};
use crate::plugin::{Plugin, Secret, Token};
use crate::telemetry::Metrics;
use kube::ResourceExt;
use uuid::Uuid;

/// How often a change of a custody is repeated when others write it at the same moment.
const MOST_CONFLICTS: u32 = 8;

/// Chooses the client of a Subscription that is about to be accepted, and gives the record to keep in its custody.
///
/// # Errors
/// [`Failure::Blocked`], on the condition `Accepted`, says which client is missing and how to add it; the API server
/// failed.
pub async fn choose_client(
    context: &Context,
    subscription: &Subscription,
    plugin: &Plugin,
) -> Result<AuthorizationRecord, Failure> {
    let spec = &subscription.spec;
    let Some(wanted) = &spec.authorization.oauth2 else { return Ok(AuthorizationRecord::default()) };
    let workspace = subscription.namespace().unwrap_or_default();
    clients(context).choose(&workspace, wanted, &spec.parameters, plugin).await
}

/// Makes a link where there is none that works.
///
/// # Errors
/// The API server failed.
pub async fn ensure_link(context: &Context, stored: &Stored) -> Result<Stored, Failure> {
    change_existing(&context.vault, &stored.custody, |custody| {
        custody.authorization.ensure_link(now_millis());
        Ok(())
    })
    .await
}

/// Gets the next access token, with the refresh token or, where the plugin says so, with the client alone. What came of
/// it is stored, a failure too; [`next`](super::next) then says how to go on.
///
/// # Errors
/// The API server failed, or another process is at it.
pub async fn refresh(context: &Context, plugin: &Plugin, stored: &Stored) -> Result<Stored, Failure> {
    let custody = &stored.custody;
    let (workspace, parameters) = (custody.namespace.clone(), &custody.accepted.parameters);
    let kind = plugin.oauth2().map(|oauth2| oauth2.grant).unwrap_or_default();
    let used = custody.authorization.grant.as_ref().and_then(|grant| grant.refresh_token.clone());
    let mut record = custody.authorization.clone();
    let client = clients(context).read_again(&mut record, &workspace, parameters, plugin).await;
    let begun = now_millis();
    // Before the request, so that another process, or this one after a crash, does not use the refresh token beside it.
    let stored = change_existing(&context.vault, custody, |custody| {
        let authorization = &mut custody.authorization;
        let busy = authorization.refreshing_since.is_some_and(|since| begun < after(since, super::REQUEST_PATIENCE));
        if busy {
            return Err(Failure::Conflict(format!("the token of {}/{}", custody.namespace, custody.name)));
        }
        authorization.refreshing_since = Some(begun);
        authorization.client_id.clone_from(&record.client_id);
        authorization.client_secret.clone_from(&record.client_secret);
        Ok(())
    })
    .await?;
    let outcome = match client {
        Ok(()) => request(context, plugin, &stored.custody, kind).await,
        Err(Failure::Blocked(blocked)) => Err(TokenError::Forbidden(blocked.message)),
        // Nothing was sent; the mark runs out by itself.
        Err(failure) => return Err(failure),
    };
    let subscription = format!("{workspace}/{}", stored.custody.name);
    match &outcome {
        Ok(_) => tracing::info!(subscription, plugin = plugin.name(), "got an access token"),
        Err(error) => tracing::warn!(subscription, plugin = plugin.name(), %error, "got no access token"),
    }
    let jitter = rand::random();
    change_existing(&context.vault, &stored.custody, |custody| {
        let record = &mut custody.authorization;
        // A person may have consented anew meanwhile, and that counts.
        let current = record.grant.as_ref().and_then(|grant| grant.refresh_token.clone());
        if kind == OAuth2Grant::AuthorizationCode && current != used {
            record.refreshing_since = None;
            return Ok(());
        }
        let now = now_millis();
        match &outcome {
            Ok(token) => record.granted(token, now, jitter),
            Err(TokenError::GrantRefused(message)) => {
                record.grant_ended(format!("the grant is over: {message}"));
            }
            Err(TokenError::Failed { message, retry_after }) => record.token_failed(message.clone(), now, *retry_after),
            Err(error) => record.token_failed(error.to_string(), now, Some(super::CLIENT_PATIENCE)),
        }
        Ok(())
    })
    .await
}

async fn request(
    context: &Context,
    plugin: &Plugin,
    custody: &Custody,
    kind: OAuth2Grant,
) -> Result<Token, TokenError> {
    let record = &custody.authorization;
    let (secret, redirect_url) =
        (Secret::from(record.client_secret.as_str()), redirect_url(&context.options.public_url));
    let client = client(plugin, custody, &secret, &redirect_url, &context.metrics);
    match (kind, record.grant.as_ref().and_then(|grant| grant.refresh_token.as_deref())) {
        (OAuth2Grant::ClientCredentials, _) => client.client_credentials(&context.external).await,
        (OAuth2Grant::AuthorizationCode, Some(token)) => client.refresh(&context.external, &Secret::from(token)).await,
        (OAuth2Grant::AuthorizationCode, None) => {
            Err(TokenError::GrantRefused("the external system has given no refresh token".to_owned()))
        }
    }
}

/// Tells the external system that the grant is not needed any more, where the plugin knows how. That there is none, or no
/// way to tell, is success.
///
/// # Errors
/// Why the grant may still be there, in words.
pub async fn revoke(context: &Context, plugin: &Plugin, custody: &Custody) -> Result<(), String> {
    let record = &custody.authorization;
    let Some(grant) = &record.grant else { return Ok(()) };
    let (secret, redirect_url) =
        (Secret::from(record.client_secret.as_str()), redirect_url(&context.options.public_url));
    let client = client(plugin, custody, &secret, &redirect_url, &context.metrics);
    // Revoking the refresh token ends the access tokens that it gave, too (RFC 7009, section 2.1).
    let (token, hint) = match &grant.refresh_token {
        Some(token) => (token, "refresh_token"),
        None => (&grant.access_token, "access_token"),
    };
    match client.revoke(&context.external, &Secret::from(token.as_str()), hint).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The client of a custody.
pub(super) fn client<'a>(
    plugin: &'a Plugin,
    custody: &'a Custody,
    secret: &'a Secret,
    redirect_url: &'a url::Url,
    metrics: &'a Metrics,
) -> OAuthClient<'a> {
    let parameters = &custody.accepted.parameters;
    OAuthClient { plugin, parameters, id: &custody.authorization.client_id, secret, redirect_url, metrics }
}

fn clients(context: &Context) -> Clients {
    Clients::new(context.client.clone(), &context.common.namespace)
}

/// [`change`] of a custody that has to be there.
async fn change_existing(
    vault: &Vault,
    custody: &Custody,
    decide: impl FnMut(&mut Custody) -> Result<(), Failure>,
) -> Result<Stored, Failure> {
    match change(vault, custody.uid, decide).await? {
        Some((stored, ())) => Ok(stored),
        None => Err(Failure::Conflict(format!("custody of {}/{}", custody.namespace, custody.name))),
    }
}

/// Reads a custody, lets `decide` change it, and writes it if nobody else has written it meanwhile; else all of it again.
/// `None` if there is no custody.
///
/// # Errors
/// What `decide` says; the API server failed.
pub(super) async fn change<T, E: From<Failure>>(
    vault: &Vault,
    uid: Uuid,
    mut decide: impl FnMut(&mut Custody) -> Result<T, E>,
) -> Result<Option<(Stored, T)>, E> {
    for _ in 0..MOST_CONFLICTS {
        let Some(stored) = vault.get(uid).await? else { return Ok(None) };
        let mut custody = stored.custody.clone();
        let decided = decide(&mut custody)?;
        if custody == stored.custody {
            return Ok(Some((stored, decided)));
        }
        match vault.replace(&stored, custody).await {
            Ok(stored) => return Ok(Some((stored, decided))),
            Err(Failure::Conflict(_)) => {}
            // Removed meanwhile.
            Err(Failure::Api(error)) if matches!(&*error, kube::Error::Api(status) if status.is_not_found()) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(Failure::Conflict(format!("custody {uid}")).into())
}
