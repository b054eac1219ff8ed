//! What is said of a Subscription, computed without I/O.

use super::Blocked;
use crate::api::{
    Address, AuthorizationStatus, Conditions, Is, Subscription, SubscriptionStatus, Webhook, WorkflowTrigger, reason,
    type_,
};
use crate::controller::custody::{Custody, WebhookState};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::HashSet;
use std::sync::Arc;

/// The status of a Subscription.
///
/// `blocked` is why the last pass has not come to its end, `callback_url` the callback URL once there is one.
pub fn status(
    subscription: &Subscription,
    custody: Option<&Custody>,
    blocked: Option<&Blocked>,
    callback_url: Option<String>,
    workflow_count: u32,
    now: Time,
) -> SubscriptionStatus {
    let old = subscription.status.clone().unwrap_or_default();
    let generation = subscription.metadata.generation;
    let mut conditions = Conditions::new(&old.conditions, generation, now);
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
    milestone(
        type_::AUTHORIZED,
        custody.filter(|custody| !custody.credentials.is_empty()).map(|custody| {
            let message = match &custody.account {
                Some(account) => format!("token of {account}"),
                None => "the credentials are in use".to_owned(),
            };
            (reason::AUTHORIZED, message)
        }),
    );
    let webhook = custody.and_then(|custody| match &custody.webhook {
        WebhookState::Registered { id } => Some(id.clone()),
        _ => None,
    });
    milestone(type_::WEBHOOK_REGISTERED, webhook.as_ref().map(|id| (reason::REGISTERED, format!("webhook {id}"))));

    match blocked {
        None if webhook.is_some() => {
            conditions.set(type_::READY, Is::True, reason::READY, "events are received");
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
    SubscriptionStatus {
        observed_generation: generation,
        conditions: conditions.finish(),
        address: callback_url.map(|url| Address { url }),
        authorization: Some(AuthorizationStatus {
            method: subscription.spec.authorization.method().to_owned(),
            account: custody.and_then(|custody| custody.account.clone()),
            url: None,
            client: None,
        }),
        webhooks: webhook.map(|id| Webhook { id, event: None, expires_at: None }).into_iter().collect(),
        events: custody.map(|custody| custody.events.clone()).unwrap_or_default(),
        callback_secret_ref: None,
        last_request_time: None,
        workflow_count: Some(workflow_count),
    }
}

/// Number of distinct pairs of runner and workflow among these triggers that are published.
pub fn workflow_count(triggers: &[Arc<WorkflowTrigger>]) -> u32 {
    let published = triggers.iter().filter(|trigger| trigger.spec.mode == crate::api::Mode::Published);
    let pairs: HashSet<_> = published.map(|trigger| (&trigger.spec.runner, &trigger.spec.workflow)).collect();
    u32::try_from(pairs.len()).unwrap_or(u32::MAX)
}
