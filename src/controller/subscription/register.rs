//! Makes sure that exactly one webhook with the callback URL exists for an event, and that it has the callback secret.
//!
//! What is about to be done is stored before each call, and what came of it after it.

use super::calls::{Calls, Changed, NotCreated};
use super::desk::Desk;
use super::times::{OVERLAP, millis};
use super::upkeep::retire;
use super::{Blocked, accept};
use crate::api::{reason, type_};
use crate::controller::Failure;
use crate::controller::custody::{Custody, SecretOrigin, Stored, WebhookRecord, WebhookState};
use crate::plugin::{Captured, Found, Plugin};
use uuid::Uuid;

/// Most superfluous webhooks that one step deletes.
const MOST_SUPERFLUOUS: usize = 10;

/// Makes one of the calls before the first `create`.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words.
pub async fn prepare(desk: &Desk<'_>, stored: &Stored, index: usize) -> Result<Stored, Failure> {
    let captured = Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).before(index).await?;
    let store = |custody: &mut Custody| {
        custody.setup.extend(captured.clone());
        custody.prepared = index + 1;
    };
    desk.context.vault.record(stored, store).await
}

/// Finds the webhook for this event, or creates it.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words.
pub async fn register(desk: &Desk<'_>, stored: &Stored, event: Option<&str>) -> Result<Stored, Failure> {
    let custody = &stored.custody;
    let begun = custody.of_event(event).find(|record| record.state == WebhookState::Creating).cloned();
    let calls = Calls::new(desk, custody, type_::WEBHOOK_REGISTERED).of_event(event);
    let Some(found) = calls.find().await? else {
        let ends_by_itself = custody.of_event(event).any(|other| other.is_registered() && other.expires_at.is_some());
        return match begun {
            None => create(desk, stored, WebhookRecord::creating(event.map(str::to_owned)), None).await,
            // Repeated as it was, it makes no second webhook; or the one that it may make ends by itself, while the one
            // that it is to replace must not end before it.
            Some(record) if desk.plugin.create_is_idempotent() || ends_by_itself => {
                create(desk, stored, record.clone(), Some(&record)).await
            }
            Some(_) => Err(Blocked::stalled(
                type_::WEBHOOK_REGISTERED,
                reason::CREATE_UNCONFIRMED,
                "create: a call was made and its answer is not known, and the plugin cannot list webhooks; look for one \
                 with this callback URL in the external system and remove it, then delete this Subscription and create it \
                 anew",
            )
            .into()),
        };
    };
    let unknown = unknown(custody, found);
    let Some((first, superfluous)) = unknown.split_first() else {
        let anew = WebhookRecord::creating(event.map(str::to_owned));
        return create(desk, stored, anew, begun.as_ref()).await;
    };
    // More than one can only come from races that Bellhop did not win; the callback URL is nobody else's.
    for superfluous in superfluous.iter().take(MOST_SUPERFLUOUS) {
        Calls::new(desk, custody, type_::WEBHOOK_REGISTERED).of_event(event).about_found(superfluous).delete().await?;
    }
    match begun {
        // Nothing was found before the call, so what is found now came from it and has the secret.
        Some(record) => settle_found(desk, stored, record, first).await,
        None => adopt(desk, stored, event, first).await,
    }
}

/// The webhooks with the callback URL that no record speaks of.
pub fn unknown(custody: &Custody, mut found: Vec<Found>) -> Vec<Found> {
    found.retain(|found| custody.webhooks.iter().all(|record| record.id() != Some(&found.id)));
    found
}

/// Takes over a webhook that was there before: it gets the secret, or it is made anew.
async fn adopt(desk: &Desk<'_>, stored: &Stored, event: Option<&str>, found: &Found) -> Result<Stored, Failure> {
    let calls = Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).of_event(event).about_found(found);
    let record = WebhookRecord::creating(event.map(str::to_owned));
    // A secret that the external system has chosen cannot be read again.
    if stored.custody.secret_origin != SecretOrigin::External && calls.update().await? == Changed::Done(()) {
        return settle_found(desk, stored, record, found).await;
    }
    calls.delete().await?;
    create(desk, stored, record, None).await
}

/// Notes that a webhook was found, and is one of Bellhop's.
async fn settle_found(
    desk: &Desk<'_>,
    stored: &Stored,
    record: WebhookRecord,
    found: &Found,
) -> Result<Stored, Failure> {
    let captured =
        Captured { id: found.id.clone(), secret: None, expires_at: found.expires_at, values: found.values.clone() };
    let version = stored.custody.secret_version;
    settle(desk, stored, &WebhookRecord { secret_version: version, ..record }, captured).await
}

/// Creates a webhook. `unconfirmed` is an earlier attempt of which it is known, or does not matter, that it did not arrive.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words.
pub async fn create(
    desk: &Desk<'_>,
    stored: &Stored,
    record: WebhookRecord,
    unconfirmed: Option<&WebhookRecord>,
) -> Result<Stored, Failure> {
    let handshake = desk.plugin.captures_secret_by_handshake();
    let record = WebhookRecord { secret_version: stored.custody.secret_version, ..record };
    let begin = |custody: &mut Custody| {
        custody.webhooks.retain(|other| Some(other.attempt) != unconfirmed.map(|record| record.attempt));
        if custody.webhook(record.attempt).is_none() {
            custody.webhooks.push(record.clone());
        }
        if custody.secret_origin == SecretOrigin::External && handshake {
            custody.await_secret();
        }
    };
    announce(desk, &stored.custody, begin).await?;
    let stored = desk.context.vault.record(stored, begin).await?;
    match Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).about(&record).create().await {
        Ok(captured) => settle(desk, &stored, &record, captured).await,
        Err(NotCreated::Perhaps(failure)) => Err(failure),
        // That the second of two attempts is refused says nothing of the first.
        Err(NotCreated::Certainly { failure, .. })
            if unconfirmed.is_some_and(|first| first.attempt == record.attempt) =>
        {
            Err(failure)
        }
        Err(NotCreated::Certainly { failure, conflict }) => {
            let undo = |custody: &mut Custody| {
                custody.forget(record.attempt, None);
                custody.stop_awaiting_secret();
            };
            let stored = desk.context.vault.record(&stored, undo).await?;
            let beside = stored.custody.of_event(record.event.as_deref()).find(|other| other.is_registered());
            Err(match beside.and_then(WebhookRecord::id).filter(|_| conflict) {
                Some(id) => in_the_way(desk.plugin, failure, id),
                None => failure,
            })
        }
    }
}

/// Lets the ingress know that a secret will be told, if it does not yet, before anything can be signed with it: what arrives
/// before the secret does is to come back, and not to be refused. `begin` is what is about to be stored; if the ingress
/// cannot be told, nothing is begun.
async fn announce(desk: &Desk<'_>, custody: &Custody, begin: impl Fn(&mut Custody)) -> Result<(), Failure> {
    let mut begun = custody.clone();
    begin(&mut begun);
    if begun.awaits_secret() && !custody.awaits_secret() {
        desk.note_publication();
        accept::publish(desk.context, &begun).await?;
    }
    Ok(())
}

/// Says what may be done where the webhook that is to be replaced may be why another one is refused. It is not deleted on
/// that suspicion: it delivers, and nobody knows whether the next create call would be taken.
fn in_the_way(plugin: &Plugin, failure: Failure, id: &str) -> Failure {
    let note = format!(
        "webhook {id} stays until there is another one; if the external system refuses a second webhook with the same URL, \
         TriggerPlugin \"{}\" has to say so by spec.webhook.create.exclusive: true, and then webhook {id} is deleted first",
        plugin.name()
    );
    match failure {
        Failure::Blocked(blocked) => {
            let message = format!("{}; {note}", blocked.message);
            Blocked { message, reason: reason::WEBHOOK_IN_THE_WAY, ..*blocked }.into()
        }
        other => other,
    }
}

/// Stores what a create call, or a list, has said of a webhook.
async fn settle(
    desk: &Desk<'_>,
    stored: &Stored,
    record: &WebhookRecord,
    captured: Captured,
) -> Result<Stored, Failure> {
    let now = desk.time();
    let store = |custody: &mut Custody| {
        if custody.webhook(record.attempt).is_none() {
            custody.webhooks.push(record.clone());
        }
        let found = custody.webhook_mut(record.attempt).expect("it was just made sure that it is there");
        found.state = WebhookState::Created { id: captured.id.clone() };
        found.secret_version = record.secret_version;
        (found.created_at, found.renewed_at) = (now, now);
        found.values.extend(captured.values.clone());
        found.expires_at = end_of_life(desk.plugin, captured.expires_at, now);
        take_secret(custody, desk.plugin, record.attempt, captured.secret.as_ref().and_then(|s| s.expose_str()));
        finish(custody, desk.plugin, record.attempt, now);
    };
    let stored = desk.context.vault.record(stored, store).await?;
    check_secret(desk, &stored, record.attempt, "create").await?;
    Ok(stored)
}

/// Makes the next call after the creation of a webhook.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words; if it is refused for good, the webhook will be deleted.
pub async fn complete(desk: &Desk<'_>, stored: &Stored, attempt: Uuid) -> Result<Stored, Failure> {
    let Some(record) = stored.custody.webhook(attempt) else { return Ok(stored.clone()) };
    let index = record.completed;
    let vault = &desk.context.vault;
    if index >= desk.plugin.after_count() {
        let now = desk.time();
        let stored = vault.record(stored, |custody| finish(custody, desk.plugin, attempt, now)).await?;
        check_secret(desk, &stored, attempt, "create").await?;
        return Ok(stored);
    }
    match Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).about(record).after(index).await {
        Ok(captured) => {
            let now = desk.time();
            let store = |custody: &mut Custody| {
                let Some(record) = custody.webhook_mut(attempt) else { return };
                record.completed = index + 1;
                record.values.extend(captured.values.clone());
                if let Some(end) = captured.expires_at {
                    record.expires_at = end_of_life(desk.plugin, Some(end), now);
                }
                take_secret(custody, desk.plugin, attempt, captured.secret.as_ref().and_then(|s| s.expose_str()));
                finish(custody, desk.plugin, attempt, now);
            };
            let stored = vault.record(stored, store).await?;
            check_secret(desk, &stored, attempt, "after").await?;
            Ok(stored)
        }
        Err(not) if not.for_good => {
            let stored = vault.record(stored, |custody| custody.reject(attempt)).await?;
            roll_back(desk, &stored, attempt).await;
            Err(with_note(not.failure, "the webhook is deleted again"))
        }
        Err(not) => Err(not.failure),
    }
}

/// Where a webhook's life ends, as the external system says, or as the plugin does.
pub fn end_of_life(plugin: &Plugin, told: Option<i64>, now: i64) -> Option<i64> {
    // An end that is over already cannot be meant; kept to, it would be renewed for ever.
    let told = told.filter(|end| *end > now);
    let life = plugin.renewal().and_then(|(_, life)| life);
    told.or_else(|| life.map(|life| now.saturating_add(millis(life))))
}

/// Takes the secret that the external system has chosen for this webhook.
fn take_secret(custody: &mut Custody, plugin: &Plugin, attempt: Uuid, secret: Option<&str>) {
    let Some(secret) = secret.filter(|secret| !secret.is_empty()) else { return };
    if custody.secret_origin != SecretOrigin::External {
        return;
    }
    if let Some(record) = custody.webhook_mut(attempt) {
        record.secret = Some(secret.to_owned());
    }
    if !plugin.per_event() {
        secret.clone_into(&mut custody.callback_secret);
    }
}

/// Takes a webhook into use when nothing is missing any more; one whose secret was told once and is lost is deleted.
fn finish(custody: &mut Custody, plugin: &Plugin, attempt: Uuid, now: i64) {
    let Some(record) = custody.webhook(attempt) else { return };
    if !matches!(record.state, WebhookState::Created { .. }) || record.completed < plugin.after_count() {
        return;
    }
    let told_later = plugin.captures_secret_by_handshake();
    if custody.secret_origin == SecretOrigin::External && record.secret.is_none() && !told_later {
        custody.reject(attempt);
    } else {
        custody.complete(attempt, now.saturating_add(millis(OVERLAP)));
    }
}

/// Deletes a webhook that was rejected, so that it does not stay while the next attempt is waited for. If that fails, the
/// next pass does it.
async fn roll_back(desk: &Desk<'_>, stored: &Stored, attempt: Uuid) {
    if retire(desk, stored, attempt).await.is_err() {
        tracing::debug!(%attempt, "a webhook that cannot be used could not be deleted; the next pass tries again");
    }
}

async fn check_secret(desk: &Desk<'_>, stored: &Stored, attempt: Uuid, call: &str) -> Result<(), Failure> {
    if !stored.custody.webhook(attempt).is_some_and(WebhookRecord::is_retiring) {
        return Ok(());
    }
    roll_back(desk, stored, attempt).await;
    let message = format!(
        "{call}: the webhook exists, but its signing secret is not known, which the external system tells only once; it is \
         deleted and created anew"
    );
    Err(Blocked::retrying(type_::WEBHOOK_REGISTERED, reason::SECRET_NOT_CAPTURED, message).into())
}

fn with_note(failure: Failure, note: &str) -> Failure {
    match failure {
        Failure::Blocked(blocked) => {
            let message = format!("{}; {note}", blocked.message);
            // Tried again after a while: the system may be mended, and nobody is told that it was.
            Blocked { message, stalled: false, retry: true, ..*blocked }.into()
        }
        other => other,
    }
}
