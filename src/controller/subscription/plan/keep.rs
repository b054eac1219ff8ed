//! The steps of an accepted Subscription.

use super::{Step, View};
use crate::api::{ROTATE_ANNOTATION, RenewalMethod, reason, type_};
use crate::controller::authorization::{self, Next};
use crate::controller::custody::{Custody, SecretOrigin, WebhookRecord, WebhookState};
use crate::controller::subscription::Blocked;
use crate::controller::subscription::blocked::Upkeep;
use crate::controller::subscription::times::{alarming, next_look, renewal};
use crate::plugin::Plugin;
use kube::ResourceExt;
use std::time::Duration;

/// The webhooks that a Subscription needs: one for each event, or one.
pub fn wanted(plugin: &Plugin, custody: &Custody) -> Vec<Option<String>> {
    if plugin.per_event() { custody.events.iter().cloned().map(Some).collect() } else { vec![None] }
}

/// A webhook that a person makes: the callback URL has to be live, and the secret known to both sides.
pub fn by_hand(view: &View, custody: &Custody) -> Step {
    if let Some(step) = expired_secret(view, custody) {
        return step;
    }
    let origin = custody.secret_origin;
    if let (SecretOrigin::Given, Some(Ok(given))) = (origin, view.given)
        && let Some(secret) = given.get("secret").filter(|secret| **secret != custody.callback_secret)
    {
        return Step::TakeSecret { secret: secret.clone() };
    }
    if let Some(request) = rotation_request(view, custody) {
        return Step::BeginRotation { request };
    }
    if !view.route_live {
        return Step::Publish;
    }
    let external = origin == SecretOrigin::External && !custody.callback_secret.is_empty();
    if (origin == SecretOrigin::Generated || external) && !view.handed_over {
        return Step::HandOver;
    }
    // The callback URL is live by now, so the person can already enter it.
    if let (SecretOrigin::Given, Some(Err(blocked))) = (origin, view.given) {
        return Step::Blocked(blocked.clone());
    }
    if !custody.has_secret() {
        return Step::Blocked(Blocked::waiting(
            type_::READY,
            reason::SECRET_NOT_CAPTURED,
            "the callback URL in status.address.url is live; make the webhook with it in the external system, which then \
             tells its signing secret in a first request",
        ));
    }
    Step::Finished { next_look: wait(view, secret_ends(custody)) }
}

/// A webhook that Bellhop makes.
pub fn automatic(view: &View, plugin: &Plugin, custody: &Custody) -> Step {
    if let Some(step) = expired_secret(view, custody) {
        return step;
    }
    if !view.route_live {
        return Step::Publish;
    }
    if let Some(step) = authorize(view, plugin, custody) {
        return step;
    }
    let wanted = wanted(plugin, custody);
    if let Some(step) = register(view, plugin, custody, &wanted) {
        return step;
    }
    if let Some(step) = make_room(view, custody) {
        return step;
    }
    if let Some(step) = rotate(view, plugin, custody) {
        return step;
    }
    if let Some(step) = renew(view, plugin, custody) {
        return step;
    }
    // What has still to make room is not mended yet.
    if custody.repaired.is_some() && !custody.webhooks.iter().any(|record| record.making_room) {
        return Step::TellRepair;
    }
    let looks = looks(view, plugin, custody);
    let is_due = |(record, at): &&(&WebhookRecord, i64)| *at <= view.now && !view.failed.contains(&record.event);
    if let Some((record, _)) = looks.iter().find(is_due) {
        return Step::Check { attempt: record.attempt };
    }
    let oauth = plugin.oauth2().filter(|_| view.subscription.spec.authorization.oauth2.is_some());
    let token = oauth.and_then(|oauth| authorization::due(&custody.authorization, oauth.grant, view.now));
    let webhooks = custody.webhooks.iter().flat_map(|record| match record.is_registered() {
        true => [renewal(record), alarming(record), record.expires_at],
        false => [Some(record.retire_at), None, None],
    });
    let due = webhooks.flatten().chain(looks.iter().map(|(_, at)| *at)).chain(secret_ends(custody));
    let due = due.filter(|at| *at > view.now).min();
    Step::Finished { next_look: [wait(view, due), token].into_iter().flatten().min() }
}

/// When each webhook should be looked at next.
fn looks<'a>(view: &View, plugin: &Plugin, custody: &'a Custody) -> Vec<(&'a WebhookRecord, i64)> {
    let interval = view.drift_interval;
    if interval.is_zero() || !(plugin.can_find() || plugin.can_read()) {
        return Vec::new();
    }
    let last = |record: &WebhookRecord| {
        let looked = view.looked.get(&record.attempt).copied().unwrap_or(i64::MIN);
        looked.max(record.created_at).max(view.started)
    };
    let registered = custody.webhooks.iter().filter(|record| record.is_registered());
    registered.map(|record| (record, next_look(last(record), interval, custody.uid))).collect()
}

fn wait(view: &View, at: Option<i64>) -> Option<Duration> {
    at.map(|at| Duration::from_millis(u64::try_from(at - view.now).unwrap_or(0)))
}

fn secret_ends(custody: &Custody) -> Option<i64> {
    custody.previous_secrets.iter().filter_map(|retired| retired.until).min()
}

fn expired_secret(view: &View, custody: &Custody) -> Option<Step> {
    secret_ends(custody).filter(|end| *end <= view.now).map(|_| Step::DropSecrets)
}

/// The value of the annotation, if it was not acted on yet.
fn rotation_request(view: &View, custody: &Custody) -> Option<String> {
    let request = view.subscription.annotations().get(ROTATE_ANNOTATION)?;
    (custody.rotated.as_ref() != Some(request)).then(|| request.clone())
}

/// Credentials that the external system has confirmed, or a grant.
fn authorize(view: &View, plugin: &Plugin, custody: &Custody) -> Option<Step> {
    if view.subscription.spec.authorization.oauth2.is_none() {
        return match view.given? {
            Err(blocked) => Some(Step::Blocked(blocked.clone())),
            Ok(credentials) if *credentials != custody.credentials => {
                Some(Step::Authorize { credentials: credentials.clone() })
            }
            Ok(_) => None,
        };
    }
    let Some(oauth) = plugin.oauth2() else {
        return Some(Step::Blocked(Blocked::waiting(
            type_::AUTHORIZED,
            reason::PLUGIN_NOT_READY,
            format!("TriggerPlugin \"{}\" has no spec.authorization.oauth2 any more", plugin.name()),
        )));
    };
    let record = &custody.authorization;
    match authorization::next(record, oauth.grant, view.now) {
        Next::Ready(_) if custody.verified != Some(record.version) => Some(Step::VerifyGrant),
        Next::Ready(_) => None,
        Next::Refresh | Next::FetchClientCredentials => Some(Step::FetchToken),
        Next::NeedsConsent { new_link: true } | Next::Expired { new_link: true } => Some(Step::MakeLink),
        Next::NeedsConsent { new_link: false } | Next::Expired { new_link: false } => {
            Some(Step::Blocked(authorization::consent_needed(record, view.link)))
        }
        Next::Waiting { until } => Some(Step::Blocked(authorization::no_token(record, until, view.now))),
        Next::NeedsClient => Some(Step::Blocked(Blocked::stalled(
            type_::AUTHORIZED,
            reason::CLIENT_NOT_FOUND,
            "no OAuth client was chosen at acceptance; delete this Subscription and create it anew",
        ))),
    }
}

/// Every webhook that is wanted, and no other.
fn register(view: &View, plugin: &Plugin, custody: &Custody, wanted: &[Option<String>]) -> Option<Step> {
    let failed = |record: &&WebhookRecord| !view.failed.contains(&record.event);
    // First, so that a system that allows few webhooks has room.
    let over = |record: &&WebhookRecord| record.is_retiring() && record.retire_at <= view.now;
    if let Some(record) = custody.webhooks.iter().filter(failed).find(over) {
        return Some(Step::Retire { attempt: record.attempt });
    }
    for event in wanted.iter().filter(|event| !view.failed.contains(*event)) {
        let records: Vec<&WebhookRecord> = custody.of_event(event.as_deref()).collect();
        if let Some(record) = records.iter().find(|record| matches!(record.state, WebhookState::Created { .. })) {
            return Some(Step::Complete { attempt: record.attempt });
        }
        let creating = records.iter().any(|record| record.state == WebhookState::Creating);
        if creating || !records.iter().any(|record| record.is_registered()) {
            if custody.prepared < plugin.before_count() {
                return Some(Step::Prepare { index: custody.prepared });
            }
            return Some(Step::Register { event: event.clone() });
        }
    }
    // A plugin that has changed may need others than it did.
    let surplus =
        |record: &&WebhookRecord| record.id().is_some() && !record.is_retiring() && !wanted.contains(&record.event);
    if let Some(record) = custody.webhooks.iter().filter(failed).find(surplus) {
        return Some(Step::Retire { attempt: record.attempt });
    }
    (!custody.has_secret()).then(|| {
        Step::Blocked(Blocked::waiting(
            type_::READY,
            reason::SECRET_NOT_CAPTURED,
            "the webhook exists, and the external system has still to tell its signing secret, which it does in a request \
             to the callback URL; until then no event can be believed",
        ))
    })
}

/// A webhook whose deletion was begun, so that another one can be created.
fn make_room(view: &View, custody: &Custody) -> Option<Step> {
    let begun =
        |record: &&WebhookRecord| record.is_registered() && record.making_room && !view.failed.contains(&record.event);
    let attempt = custody.webhooks.iter().find(begun)?.attempt;
    Some(Step::Replace { attempt, upkeep: Upkeep::Removal })
}

/// The callback secret that the annotation asks for.
fn rotate(view: &View, plugin: &Plugin, custody: &Custody) -> Option<Step> {
    let behind: Vec<&WebhookRecord> =
        custody.webhooks.iter().filter(|record| record.secret_version < custody.secret_version).collect();
    let next = behind.iter().find(|record| record.is_registered() && !view.failed.contains(&record.event));
    if let Some(record) = next {
        let attempt = record.attempt;
        let in_place = plugin.can_update() && custody.secret_origin != SecretOrigin::External;
        return Some(match in_place {
            true => Step::Rewrite { attempt },
            false => Step::Replace { attempt, upkeep: Upkeep::Rotation },
        });
    }
    if !behind.is_empty() {
        return None;
    }
    if custody.previous_secrets.iter().any(|retired| retired.until.is_none()) {
        return Some(Step::EndRotation);
    }
    rotation_request(view, custody).map(|request| Step::BeginRotation { request })
}

/// Webhooks whose life is two thirds over.
fn renew(view: &View, plugin: &Plugin, custody: &Custody) -> Option<Step> {
    let due = |record: &&WebhookRecord| {
        record.is_registered()
            && !view.failed.contains(&record.event)
            && renewal(record).is_some_and(|at| at <= view.now)
    };
    let attempt = custody.webhooks.iter().find(due)?.attempt;
    let method = match plugin.renewal() {
        Some((method, _)) => method,
        // What a plugin does not renew, and has an end all the same, is made anew.
        None => RenewalMethod::Replace,
    };
    Some(match method {
        RenewalMethod::Refresh => Step::Refresh { attempt },
        RenewalMethod::Create => Step::CreateAgain { attempt },
        RenewalMethod::Replace => Step::Replace { attempt, upkeep: Upkeep::Renewal },
    })
}
