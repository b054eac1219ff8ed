//! The steps of an authorization by OAuth, as far as the pass of a Subscription makes them.

use super::calls::Calls;
use super::desk::Desk;
use crate::api::{Subscription, type_};
use crate::controller::authorization::{self, AuthorizationRecord, Next};
use crate::controller::custody::{Custody, Stored};
use crate::controller::{Context, Failure};

/// Chooses the OAuth client, at acceptance. For the other methods, there is nothing to choose.
///
/// # Errors
/// [`Failure::Blocked`] if there is no client, or more than one default; the API server failed.
pub async fn choose_client(desk: &Desk<'_>, subscription: &Subscription) -> Result<AuthorizationRecord, Failure> {
    if subscription.spec.authorization.oauth2.is_none() {
        return Ok(AuthorizationRecord::default());
    }
    authorization::choose_client(desk.context, subscription, desk.plugin).await
}

/// Asks the external system whether the grant is good, and stores that it is.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words if it is not.
pub async fn verify(desk: &Desk<'_>, stored: &Stored) -> Result<Stored, Failure> {
    let version = stored.custody.authorization.version;
    let account = Calls::new(desk, &stored.custody, type_::AUTHORIZED).verify().await?;
    let store = |custody: &mut Custody| {
        custody.account.clone_from(&account);
        custody.verified = Some(version);
    };
    desk.context.vault.record(stored, store).await
}

/// Takes note that the external system has refused a call with the access token; says whether it is worth another pass
/// with another token.
///
/// # Errors
/// The API server failed.
pub async fn doubt(context: &Context, stored: &Stored) -> Result<(Stored, bool), Failure> {
    let Some(token) = stored.custody.authorization.access_token().map(str::to_owned) else {
        return Ok((stored.clone(), false));
    };
    let (now, mut believed) = (crate::controller::now(), false);
    let note = |custody: &mut Custody| believed = custody.authorization.doubt(&token, now);
    let stored = context.vault.record(stored, note).await?;
    Ok((stored, believed))
}

/// The link that a person follows to consent; empty if there is none.
pub fn link(context: &Context, custody: &Custody) -> String {
    custody.authorization.link_url(&context.options.public_url, custody.uid).unwrap_or_default()
}

/// Gets another access token before a deletion, if the one that is there is over. Without one, the old one is tried.
///
/// # Errors
/// The API server failed.
pub async fn fresh(desk: &Desk<'_>, stored: Stored) -> Result<Stored, Failure> {
    let oauth = desk.plugin.oauth2().filter(|_| stored.custody.accepted.authorization.oauth2.is_some());
    let Some(oauth) = oauth else { return Ok(stored) };
    match authorization::next(&stored.custody.authorization, oauth.grant, crate::controller::now()) {
        Next::Refresh | Next::FetchClientCredentials => {
            authorization::refresh(desk.context, desk.plugin, &stored).await
        }
        _ => Ok(stored),
    }
}

/// Gives a grant back to the external system, where the plugin knows how. If that fails, it is told, and the deletion
/// goes on: a token without a webhook does no harm that would be worth an object that cannot be deleted.
///
/// # Errors
/// The API server failed.
pub async fn give_back(desk: &Desk<'_>, custody: &Custody) -> Result<(), Failure> {
    if custody.authorization.grant.is_none() {
        return Ok(());
    }
    if let Err(why) = authorization::revoke(desk.context, desk.plugin, custody).await {
        tracing::warn!(namespace = custody.namespace, subscription = custody.name, why, "a grant was not revoked");
        let note = format!("the grant of {} may stay in the external system: {why}", desk.plugin.name());
        desk.context.warn(&super::delete::subject(custody), "AuthorizationNotRevoked", note).await;
    }
    Ok(())
}
