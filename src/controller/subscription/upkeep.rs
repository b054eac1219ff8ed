//! Keeps the webhooks of a Subscription as they were made: renewal, another secret, removal of what was replaced, and
//! looks at the external system.

use super::Blocked;
use super::calls::{Calls, Changed};
use super::delete::subject;
use super::desk::Desk;
use super::register::{create, end_of_life};
use super::times::{MANUAL_GRACE, millis};
use crate::api::{reason, type_};
use crate::controller::custody::{Custody, SecretOrigin, Stored, WebhookRecord};
use crate::controller::{Failure, installation};
use crate::plugin::{Found, WebhookReading};
use uuid::Uuid;

/// Until when a secret that no webhook has any more is accepted.
fn grace(desk: &Desk<'_>) -> i64 {
    desk.time().saturating_add(millis(desk.context.options.rotation_grace))
}

/// Deletes a webhook that was replaced, or whose creation was not completed.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words.
pub async fn retire(desk: &Desk<'_>, stored: &Stored, attempt: Uuid) -> Result<Stored, Failure> {
    let Some(record) = stored.custody.webhook(attempt) else { return Ok(stored.clone()) };
    let outcome = Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).about(record).delete().await?;
    if outcome == Changed::NoSuchCall {
        super::delete::note_left(desk.context, &stored.custody, record, "the plugin cannot delete webhooks").await?;
    }
    let until = grace(desk);
    desk.context.vault.record(stored, |custody| custody.forget(attempt, Some(until))).await
}

/// Creates a webhook that takes the place of another one, which goes on until the new one is complete. Where the external
/// system refuses a second one with the same URL, the old one is deleted instead, and the next step creates the new one.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words.
pub async fn replace(desk: &Desk<'_>, stored: &Stored, attempt: Uuid) -> Result<Stored, Failure> {
    let Some(record) = stored.custody.webhook(attempt) else { return Ok(stored.clone()) };
    if desk.plugin.create_is_exclusive() {
        return make_room(desk, stored, record, None).await;
    }
    create(desk, stored, WebhookRecord::creating(record.event.clone()), None).await
}

/// Deletes a webhook so that another one can be created. That this is begun is stored first: a pass that ends in between
/// is followed by one that goes on. `repair` is what was found wrong with it.
async fn make_room(
    desk: &Desk<'_>,
    stored: &Stored,
    record: &WebhookRecord,
    repair: Option<&str>,
) -> Result<Stored, Failure> {
    let attempt = record.attempt;
    let begin = |custody: &mut Custody| {
        custody.make_room(attempt);
        if let Some(note) = repair {
            custody.note_repair(note);
        }
    };
    let begun = desk.context.vault.record(stored, begin).await?;
    if !record.making_room {
        let note = format!(
            "webhook {} is deleted before another one takes its place, because {} refuses two with the same URL; events of \
             the moment in between are missed",
            id(record),
            desk.plugin.name()
        );
        desk.context.warn_anew(&subject(&begun.custody), "WebhookInterrupted", note).await;
    }
    Calls::new(desk, &begun.custody, type_::WEBHOOK_REGISTERED).about(record).delete().await?;
    let until = grace(desk);
    desk.context.vault.record(&begun, |custody| custody.lose(attempt, until)).await
}

/// Begins to replace the callback secret, as the annotation asks for.
///
/// # Errors
/// The API server failed.
pub async fn begin_rotation(desk: &Desk<'_>, stored: &Stored, request: &str) -> Result<Stored, Failure> {
    let (secret, by_hand) = (installation::random_secret(), stored.custody.accepted.authorization.manual.is_some());
    // A person has to enter the new one, and may take some days.
    let until = by_hand.then(|| desk.now.saturating_add(millis(MANUAL_GRACE)));
    let change = |custody: &mut Custody| {
        custody.rotated = Some(request.to_owned());
        match custody.secret_origin {
            SecretOrigin::Generated => custody.replace_secret(secret.clone(), until),
            SecretOrigin::External if by_hand => custody.replace_secret(String::new(), until),
            // Each webhook is replaced, and gets another one from the external system.
            SecretOrigin::External => custody.secret_version += 1,
            // The user replaces it by changing the Secret.
            SecretOrigin::Given | SecretOrigin::NotNeeded => {}
        }
    };
    desk.context.vault.record(stored, change).await
}

/// Notes that every webhook has the current secret; the old one is accepted for the grace period.
///
/// # Errors
/// The API server failed.
pub async fn end_rotation(desk: &Desk<'_>, stored: &Stored) -> Result<Stored, Failure> {
    let until = grace(desk);
    desk.context.vault.record(stored, |custody| custody.end_rotation(until)).await
}

/// Takes the secret that the user has put into a Secret.
///
/// # Errors
/// The API server failed.
pub async fn take_secret(desk: &Desk<'_>, stored: &Stored, secret: &str) -> Result<Stored, Failure> {
    let until = desk.now.saturating_add(millis(MANUAL_GRACE));
    desk.context.vault.record(stored, |custody| custody.replace_secret(secret.to_owned(), Some(until))).await
}

/// Gives a webhook the current callback secret, in place.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words.
pub async fn rewrite(desk: &Desk<'_>, stored: &Stored, attempt: Uuid) -> Result<Stored, Failure> {
    let Some(record) = stored.custody.webhook(attempt) else { return Ok(stored.clone()) };
    let version = stored.custody.secret_version;
    match Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).about(record).update().await? {
        Changed::Done(()) => {
            let change = |custody: &mut Custody| {
                if let Some(record) = custody.webhook_mut(attempt) {
                    record.secret_version = version;
                }
            };
            desk.context.vault.record(stored, change).await
        }
        Changed::Gone => gone(desk, stored, record).await,
        Changed::NoSuchCall => replace(desk, stored, attempt).await,
    }
}

/// Prolongs the life of a webhook by `refresh`.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words, or because the life was not prolonged.
pub async fn refresh(desk: &Desk<'_>, stored: &Stored, attempt: Uuid) -> Result<Stored, Failure> {
    let Some(record) = stored.custody.webhook(attempt) else { return Ok(stored.clone()) };
    let told = match Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).about(record).refresh().await? {
        Changed::Done(told) => told,
        Changed::Gone => return gone(desk, stored, record).await,
        Changed::NoSuchCall => return replace(desk, stored, attempt).await,
    };
    renewed(desk, stored, record, told, "refresh", |_| {}).await
}

/// Prolongs the life of a webhook by `create`, which changes what is there.
///
/// # Errors
/// As [`refresh`].
pub async fn create_again(desk: &Desk<'_>, stored: &Stored, attempt: Uuid) -> Result<Stored, Failure> {
    use super::calls::NotCreated;
    let Some(record) = stored.custody.webhook(attempt) else { return Ok(stored.clone()) };
    let calls = Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).about(record);
    let captured = calls.create().await.map_err(|not| match not {
        NotCreated::Certainly { failure, .. } | NotCreated::Perhaps(failure) => failure,
    })?;
    let change = |record: &mut WebhookRecord| {
        record.state = crate::controller::custody::WebhookState::Registered { id: captured.id.clone() };
        record.values.extend(captured.values.clone());
        if let (Some(_), Some(secret)) =
            (&record.secret, captured.secret.as_ref().and_then(|secret| secret.expose_str()))
        {
            record.secret = Some(secret.to_owned());
        }
    };
    renewed(desk, stored, record, captured.expires_at, "create", change).await
}

async fn renewed(
    desk: &Desk<'_>,
    stored: &Stored,
    record: &WebhookRecord,
    told: Option<i64>,
    call: &str,
    mut change: impl FnMut(&mut WebhookRecord) + Send,
) -> Result<Stored, Failure> {
    let (now, attempt) = (desk.time(), record.attempt);
    if told.is_some_and(|end| end <= now) {
        let message = format!("{call}: the external system did not prolong the life of the webhook");
        return Err(Blocked::retrying(type_::WEBHOOK_REGISTERED, reason::EXTERNAL_SYSTEM_FAILED, message).into());
    }
    // Where nothing is told, the life begins anew.
    let end = end_of_life(desk.plugin, told, now).or_else(|| record.life().map(|life| now.saturating_add(life)));
    let store = |custody: &mut Custody| {
        let Some(record) = custody.webhook_mut(attempt) else { return };
        (record.renewed_at, record.expires_at) = (now, end);
        change(record);
    };
    desk.context.vault.record(stored, store).await
}

/// Looks at a webhook in the external system, and mends what is not as it was made.
///
/// # Errors
/// [`Failure::Blocked`] with the external system's own words. That it cannot be looked at never means that it is gone.
pub async fn check(desk: &Desk<'_>, stored: &Stored, attempt: Uuid) -> Result<Stored, Failure> {
    let Some(record) = stored.custody.webhook(attempt) else { return Ok(stored.clone()) };
    let calls = Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).about(record);
    let (reading, told) = match calls.read().await? {
        Some(reading) => (reading, None),
        None => match calls.find().await? {
            Some(found) => judge(record, &found),
            None => (WebhookReading::Healthy, None),
        },
    };
    match reading {
        WebhookReading::Gone => gone(desk, stored, record).await,
        WebhookReading::Unhealthy => mend(desk, stored, record).await,
        WebhookReading::Healthy => {
            let store = |custody: &mut Custody| {
                // Some systems prolong a life by themselves.
                if let (Some(record), Some(end)) = (custody.webhook_mut(attempt), told) {
                    record.expires_at = Some(end);
                }
            };
            desk.context.vault.record(stored, store).await
        }
    }
}

fn judge(record: &WebhookRecord, found: &[Found]) -> (WebhookReading, Option<i64>) {
    match found.iter().find(|found| record.id() == Some(&found.id)) {
        None => (WebhookReading::Gone, None),
        Some(found) if found.healthy => (WebhookReading::Healthy, found.expires_at),
        Some(_) => (WebhookReading::Unhealthy, None),
    }
}

/// Notes that a webhook is gone; the next step makes another one.
async fn gone(desk: &Desk<'_>, stored: &Stored, record: &WebhookRecord) -> Result<Stored, Failure> {
    let (attempt, until) = (record.attempt, grace(desk));
    let note = format!("webhook {} was not in the external system any more; another one was made", id(record));
    let change = |custody: &mut Custody| {
        custody.lose(attempt, until);
        custody.note_repair(&note);
    };
    desk.context.vault.record(stored, change).await
}

/// Makes a webhook what it was, in place, or by another one.
async fn mend(desk: &Desk<'_>, stored: &Stored, record: &WebhookRecord) -> Result<Stored, Failure> {
    let changed = format!("webhook {} was disabled or changed in the external system", id(record));
    match Calls::new(desk, &stored.custody, type_::WEBHOOK_REGISTERED).about(record).update().await? {
        Changed::Done(()) => {
            let note = format!("{changed}; it was set right");
            desk.context.vault.record(stored, |custody| custody.note_repair(&note)).await
        }
        Changed::Gone => gone(desk, stored, record).await,
        Changed::NoSuchCall if desk.plugin.create_is_exclusive() => {
            make_room(desk, stored, record, Some(&format!("{changed}; it was replaced"))).await
        }
        Changed::NoSuchCall => {
            let stored = replace(desk, stored, record.attempt).await?;
            let note = format!("{changed}; it was replaced");
            desk.context.vault.record(&stored, |custody| custody.note_repair(&note)).await
        }
    }
}

fn id(record: &WebhookRecord) -> &str {
    record.id().unwrap_or("with an unknown id")
}
