//! What a Subscription says.

use super::super::blocked::{Trouble, Upkeep};
use super::super::status::{Facts, status, workflow_count};
use super::*;
use crate::api::{SubscriptionStatus, WorkflowTrigger, reason, type_};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

fn at(millis: i64) -> Time {
    Time(Timestamp::from_millisecond(millis).unwrap())
}

fn said(subscription: &Subscription, custody: Option<&Custody>, outcome: &Outcome, now: i64) -> SubscriptionStatus {
    let callback_url = custody.map(|_| "http://x/hooks/y".to_owned());
    status(&Facts { subscription, custody, outcome, callback_url, link: None, workflow_count: 1, now: at(now) })
}

/// Status and reason of a condition.
fn condition<'a>(status: &'a SubscriptionStatus, type_: &str) -> Option<(&'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
    Some((&found.status, &found.reason))
}

fn ready() -> Case {
    let mut case = Case::authorized(json!({}));
    case.custody().account = Some("acme-bot".into());
    case.custody().webhooks = vec![registered(17, None)];
    case
}

#[test]
fn a_status_that_says_the_same_is_the_same() {
    let mut case = ready();
    let outcome = Outcome::default();
    let first = said(&case.subscription, case.custody.as_ref(), &outcome, NOON);
    let text = serde_json::to_string(&first).unwrap();
    assert!(text.contains("token of acme-bot") && text.contains("webhook 17") && !text.contains("secret"), "{text}");
    assert_eq!(condition(&first, type_::READY), Some(("True", reason::READY)));
    case.subscription.status = Some(first.clone());
    // Otherwise each pass would write, and each write would start a pass.
    assert_eq!(said(&case.subscription, case.custody.as_ref(), &outcome, NOON + HOUR), first);
}

#[test]
fn what_holds_up_an_accepted_one_takes_nothing_back() {
    let case = ready();
    let blocked = Blocked::waiting(type_::READY, reason::PLUGIN_NOT_FOUND, "there is none");
    let outcome = Outcome { blocked: Some(blocked), ..Outcome::default() };
    let status = said(&case.subscription, case.custody.as_ref(), &outcome, NOON);
    assert_eq!(condition(&status, type_::ACCEPTED), Some(("True", reason::ACCEPTED)));
    assert_eq!(condition(&status, type_::READY), Some(("False", reason::PLUGIN_NOT_FOUND)));
    assert_eq!(condition(&status, type_::RECONCILING), Some(("True", reason::PLUGIN_NOT_FOUND)));
    assert_eq!(condition(&status, type_::STALLED), None);
}

#[test]
fn by_hand_nothing_is_authorized_or_registered_and_the_secret_is_named() {
    let case = Case::new(plugin_with(json!({})), manual_spec(json!({})));
    let generated = custody(&case.subscription);
    let status = said(&case.subscription, Some(&generated), &Outcome::default(), NOON);
    for type_ in [type_::AUTHORIZED, type_::WEBHOOK_REGISTERED] {
        assert_eq!(condition(&status, type_), Some(("True", reason::MANUAL)));
    }
    assert_eq!(condition(&status, type_::READY), Some(("True", reason::READY)));
    assert_eq!(status.callback_secret_ref.unwrap().name, "web-callback-secret");
    let waits = Custody { secret_origin: SecretOrigin::External, callback_secret: String::new(), ..generated };
    let status = said(&case.subscription, Some(&waits), &Outcome::default(), NOON);
    assert_eq!((status.callback_secret_ref.is_none(), condition(&status, type_::READY).unwrap().0), (true, "False"));
}

#[test]
fn every_event_needs_its_webhook_and_each_id_is_listed_once() {
    let mut case = Case::authorized(json!({"perEvent": true}));
    case.custody().webhooks = vec![registered(1, Some("push"))];
    let status = said(&case.subscription, case.custody.as_ref(), &Outcome::default(), NOON);
    assert_eq!(condition(&status, type_::WEBHOOK_REGISTERED).unwrap().0, "Unknown");
    assert_eq!(condition(&status, type_::READY).unwrap().0, "False");
    let same_id = WebhookRecord { attempt: Uuid::from_u128(9), event: Some("issues".into()), ..registered(1, None) };
    case.custody().webhooks.push(same_id);
    let status = said(&case.subscription, case.custody.as_ref(), &Outcome::default(), NOON);
    assert_eq!(condition(&status, type_::READY).unwrap().0, "True");
    // The API server refuses a list that has a key twice.
    assert_eq!(status.webhooks.len(), 1);
}

#[test]
fn the_end_of_a_life_is_shown_and_a_renewal_that_fails_is_told_in_the_last_sixth() {
    let mut case = ready();
    case.custody().webhooks[0].expires_at = Some(NOON + 60 * HOUR);
    let blocked = Blocked::retrying(type_::WEBHOOK_REGISTERED, reason::EXTERNAL_SYSTEM_FAILED, "refresh: answered 500");
    let trouble = Trouble { upkeep: Upkeep::Renewal, event: None, blocked };
    let outcome = Outcome { troubles: vec![trouble], ..Outcome::default() };
    let early = said(&case.subscription, case.custody.as_ref(), &outcome, NOON + 49 * HOUR);
    assert_eq!(early.webhooks[0].expires_at, Some(at(NOON + 60 * HOUR)));
    assert_eq!((condition(&early, type_::EXPIRING), condition(&early, type_::READY).unwrap().0), (None, "True"));
    assert_eq!(condition(&early, type_::RECONCILING), None, "there is time");
    let late = said(&case.subscription, case.custody.as_ref(), &outcome, NOON + 50 * HOUR);
    assert_eq!(condition(&late, type_::EXPIRING), Some(("True", reason::RENEWAL_FAILED)));
    assert_eq!(condition(&late, type_::READY).unwrap().0, "True", "events are received");
    let message = &late.conditions.iter().find(|condition| condition.type_ == type_::EXPIRING).unwrap().message;
    assert!(message.contains("webhook 17 expires at 20") && message.contains("answered 500"), "{message}");
    let mended = said(&case.subscription, case.custody.as_ref(), &Outcome::default(), NOON + 50 * HOUR);
    assert_eq!(condition(&mended, type_::EXPIRING), None);
}

#[test]
fn a_rotation_that_is_not_done_yet_is_work_under_way() {
    let case = ready();
    let blocked = Blocked::retrying(type_::WEBHOOK_REGISTERED, reason::EXTERNAL_SYSTEM_FAILED, "update: answered 500");
    for (upkeep, expected) in [(Upkeep::Rotation, true), (Upkeep::Removal, true), (Upkeep::Check, false)] {
        let trouble = Trouble { upkeep, event: None, blocked: blocked.clone() };
        let outcome = Outcome { troubles: vec![trouble], ..Outcome::default() };
        let status = said(&case.subscription, case.custody.as_ref(), &outcome, NOON);
        assert_eq!(condition(&status, type_::READY).unwrap().0, "True");
        assert_eq!(condition(&status, type_::RECONCILING).is_some(), expected, "{upkeep:?}");
    }
}

#[test]
fn workflows_are_counted_by_runner_and_name_and_only_if_published() {
    let trigger = |workflow: &str, url: &str, mode: &str| -> Arc<WorkflowTrigger> {
        let spec = json!({
            "subscriptionRef": {"name": "web"}, "event": "push", "workflow": workflow, "mode": mode,
            "runner": {"url": url},
        });
        Arc::new(WorkflowTrigger::new("t", serde_json::from_value(spec).unwrap()))
    };
    let triggers = [
        trigger("a", "http://r/", "Published"),
        trigger("a", "http://r/", "Published"),
        trigger("a", "http://other/", "Published"),
        trigger("b", "http://r/", "Suspended"),
        trigger("c", "http://r/", "Draft"),
    ];
    assert_eq!(workflow_count(&triggers), 2);
}
