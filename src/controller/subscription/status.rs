//! What is said of a Subscription, computed without I/O.

use super::blocked::{Outcome, Upkeep};
use super::secrets::handed_over_name;
use super::times::alarming;
use crate::api::{
    Address, AuthorizationStatus, Conditions, Is, NameRef, Subscription, SubscriptionStatus, Webhook, WorkflowTrigger,
    reason, type_,
};
use crate::controller::authorization;
use crate::controller::custody::Custody;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use std::collections::HashSet;
use std::sync::Arc;

/// Most ids of webhooks that a message names.
const MOST_NAMED: usize = 5;

/// What a status is made of.
pub struct Facts<'a> {
    /// The object.
    pub subscription: &'a Subscription,
    /// What is stored of it, once it is accepted.
    pub custody: Option<&'a Custody>,
    /// How the last pass has ended.
    pub outcome: &'a Outcome,
    /// The callback URL, once there is one.
    pub callback_url: Option<String>,
    /// For OAuth: the link that a person follows to consent, if one is needed.
    pub link: Option<String>,
    /// Number of workflows that its events may start.
    pub workflow_count: u32,
    /// The time.
    pub now: Time,
}

/// The status of a Subscription.
pub fn status(facts: &Facts) -> SubscriptionStatus {
    let Facts { subscription, custody, outcome, .. } = *facts;
    let blocked = outcome.blocked.as_ref();
    let old = subscription.status.clone().unwrap_or_default();
    let generation = subscription.metadata.generation;
    let mut conditions = Conditions::new(&old.conditions, generation, facts.now.clone());
    let at = |type_: &str| blocked.filter(|blocked| blocked.condition == type_);
    let mut milestone = |type_: &'static str, reached: Option<(&'static str, String)>| {
        match (at(type_), reached) {
            (Some(blocked), _) => conditions.set(type_, Is::False, blocked.reason, blocked.message.clone()),
            (None, Some((reason, message))) => conditions.set(type_, Is::True, reason, message),
            (None, None) => conditions.set(type_, Is::Unknown, reason::PENDING, "not there yet"),
        };
    };
    milestone(
        type_::ACCEPTED,
        custody.map(|custody| (reason::ACCEPTED, format!("accepted with {} events", custody.events.len()))),
    );
    milestone(type_::AUTHORIZED, custody.and_then(authorized));
    let registered = custody.and_then(registered);
    milestone(type_::WEBHOOK_REGISTERED, registered.clone());

    let works = registered.is_some() && custody.is_some_and(Custody::has_secret);
    match blocked {
        None if works => {
            conditions.set(type_::READY, Is::True, reason::READY, ready_message(subscription));
        }
        None => {
            conditions.set(type_::READY, Is::False, reason::PROGRESSING, "being set up");
            conditions.set(type_::RECONCILING, Is::True, reason::PROGRESSING, "being set up");
        }
        Some(blocked) => {
            conditions.set(type_::READY, Is::False, blocked.reason, blocked.message.clone());
            let kind = if blocked.stalled { type_::STALLED } else { type_::RECONCILING };
            conditions.set(kind, Is::True, blocked.reason, blocked.message.clone());
        }
    }
    if let Some((reason, message)) = custody.and_then(|custody| expiring(custody, outcome, &facts.now)) {
        conditions.set(type_::EXPIRING, Is::True, reason, message);
    }
    // What was asked for, or begun, and is not done.
    let open = outcome.troubles.iter().find(|trouble| {
        let asked_for = matches!(trouble.upkeep, Upkeep::Rotation | Upkeep::Removal);
        asked_for || [reason::CREATE_UNCONFIRMED, reason::WEBHOOK_IN_THE_WAY].contains(&trouble.blocked.reason)
    });
    if let (None, Some(trouble)) = (blocked, open) {
        conditions.set(type_::RECONCILING, Is::True, trouble.blocked.reason, trouble.blocked.message.clone());
    }
    let record = custody.map(|custody| &custody.authorization);
    SubscriptionStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        address: facts.callback_url.clone().map(|url| Address { url }),
        authorization: Some(AuthorizationStatus {
            method: subscription.spec.authorization.method().to_owned(),
            account: custody.and_then(|custody| custody.account.clone()),
            url: facts.link.clone(),
            client: record
                .and_then(|record| record.client.as_ref())
                .map(|client| client.describe(subscription.metadata.namespace.as_deref().unwrap_or_default())),
        }),
        webhooks: custody.map(webhooks).unwrap_or_default(),
        events: custody.map(|custody| custody.events.clone()).unwrap_or_default(),
        callback_secret_ref: custody.and_then(callback_secret_ref),
        last_request_time: None,
        workflow_count: Some(facts.workflow_count),
    }
}

/// What is said when nothing is missing.
pub fn ready_message(subscription: &Subscription) -> &'static str {
    if subscription.spec.authorization.manual.is_some() {
        "the callback URL is live"
    } else {
        "the webhook is registered; events are received"
    }
}

fn authorized(custody: &Custody) -> Option<(&'static str, String)> {
    let method = &custody.accepted.authorization;
    if method.manual.is_some() {
        return Some((reason::MANUAL, "nothing has to be authorized: a person makes the webhook".to_owned()));
    }
    let (confirmed, what) = match method.oauth2 {
        Some(_) => (custody.verified == Some(custody.authorization.version), "grant"),
        None => (!custody.credentials.is_empty(), "token"),
    };
    confirmed.then(|| {
        let message = match &custody.account {
            Some(account) => format!("{what} of {account}"),
            None => "the credentials are in use".to_owned(),
        };
        (reason::AUTHORIZED, message)
    })
}

fn registered(custody: &Custody) -> Option<(&'static str, String)> {
    if custody.accepted.authorization.manual.is_some() {
        let with_secret = match callback_secret_ref(custody) {
            Some(secret) => format!(" and the key `secret` of the Secret {}", secret.name),
            None => String::new(),
        };
        let message = format!("a person makes the webhook, with status.address.url{with_secret}");
        return Some((reason::MANUAL, message));
    }
    let records: Vec<_> = custody.webhooks.iter().filter(|record| record.is_registered()).collect();
    let per_event = records.iter().any(|record| record.event.is_some());
    let complete = match per_event {
        true => custody.events.iter().all(|event| records.iter().any(|record| record.event.as_ref() == Some(event))),
        false => !records.is_empty(),
    };
    let ids: Vec<&str> = records.iter().filter_map(|record| record.id()).collect();
    complete.then(|| {
        let message = match ids.as_slice() {
            [id] => format!("webhook {id}"),
            ids if ids.len() <= MOST_NAMED => format!("webhooks {}", ids.join(", ")),
            ids => format!("webhooks {} and {} more", ids[..MOST_NAMED].join(", "), ids.len() - MOST_NAMED),
        };
        (reason::REGISTERED, message)
    })
}

/// Why the Subscription may soon receive nothing any more.
fn expiring(custody: &Custody, outcome: &Outcome, now: &Time) -> Option<(&'static str, String)> {
    let now = now.0.as_millisecond();
    let renewals = outcome.troubles.iter().filter(|trouble| trouble.upkeep == Upkeep::Renewal);
    for trouble in renewals {
        let mut records = custody.of_event(trouble.event.as_deref()).filter(|record| record.is_registered());
        if let Some(record) = records.find(|record| alarming(record).is_some_and(|at| at <= now)) {
            let end = record.expires_at.and_then(time).map(|end| end.0.to_string()).unwrap_or_default();
            let id = record.id().unwrap_or_default();
            let message =
                format!("webhook {id} expires at {end} and could not be renewed so far: {}", trouble.blocked.message);
            return Some((reason::RENEWAL_FAILED, message));
        }
    }
    authorization::expiring(&custody.authorization, now).map(|message| (reason::RENEWAL_FAILED, message))
}

/// The webhooks that exist, those in use first. The API server wants each id once.
fn webhooks(custody: &Custody) -> Vec<Webhook> {
    let mut records: Vec<_> = custody.webhooks.iter().filter(|record| record.id().is_some()).collect();
    records.sort_by_key(|record| !record.is_registered());
    let mut seen = HashSet::new();
    records
        .into_iter()
        .filter_map(|record| Some((record.id()?, record)))
        .filter(|(id, _)| seen.insert(*id))
        .map(|(id, record)| Webhook {
            id: id.to_owned(),
            event: record.event.clone(),
            expires_at: record.expires_at.and_then(time),
        })
        .collect()
}

/// A time in whole seconds, as Kubernetes writes it.
fn time(millis: i64) -> Option<Time> {
    Timestamp::from_second(millis.div_euclid(1000)).ok().map(Time)
}

/// The Secret of the workspace that holds the callback secret, for a webhook that is made by hand.
fn callback_secret_ref(custody: &Custody) -> Option<NameRef> {
    let manual = custody.accepted.authorization.manual.as_ref()?;
    manual.secret_ref.clone().or_else(|| handed_over_name(custody).map(|name| NameRef { name }))
}

/// Number of distinct pairs of runner and workflow among these triggers that are published.
pub fn workflow_count(triggers: &[Arc<WorkflowTrigger>]) -> u32 {
    let published = triggers.iter().filter(|trigger| trigger.spec.mode == crate::api::Mode::Published);
    let pairs: HashSet<_> = published.map(|trigger| (trigger.spec.runner.place(), &trigger.spec.workflow)).collect();
    u32::try_from(pairs.len()).unwrap_or(u32::MAX)
}
