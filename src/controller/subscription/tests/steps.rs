//! The order of the steps until a Subscription is set up.

use super::*;
use crate::api::{reason, type_};

#[test]
fn the_steps_follow_each_other_and_each_is_taken_once() {
    let mut case = Case::new(gitea(), good_spec());
    case.given = Some(Ok(token()));
    let Step::Accept { events, origin } = case.step() else { panic!("accepted first") };
    assert!(events.contains(&"push".to_owned()) && events.len() > 1, "all events: {events:?}");
    assert_eq!(origin, SecretOrigin::Generated);
    case.custody = Some(custody(&case.subscription));
    assert_eq!(case.step(), Step::Publish);
    case.route_live = true;
    assert_eq!(case.step(), Step::Authorize { credentials: token() });
    case.custody().credentials = token();
    assert_eq!(case.step(), Step::Register { event: None });
    case.custody().webhooks = vec![record(1, None, WebhookState::Creating)];
    assert_eq!(case.step(), Step::Register { event: None });
    case.custody().webhooks = vec![registered(1, None)];
    assert_eq!(case.step(), Step::Finished { next_look: None });
    // A route that was lost is published again, whatever else is done.
    case.route_live = false;
    assert_eq!(case.step(), Step::Publish);
}

#[test]
fn changed_credentials_are_confirmed_again() {
    let mut case = Case::authorized(json!({}));
    case.custody().webhooks = vec![registered(1, None)];
    let changed = BTreeMap::from([("token".to_owned(), "new".to_owned())]);
    case.given = Some(Ok(changed.clone()));
    assert_eq!(case.step(), Step::Authorize { credentials: changed });
}

#[test]
fn calls_before_and_after_the_creation_are_made_in_their_order() {
    let step =
        |name: &str| json!({"method": "GET", "url": "https://api.example.com/x", "capture": {name: "response.body.x"}});
    let mut case = Case::authorized(json!({"before": [step("account"), step("team")], "after": [step("link")]}));
    assert_eq!(case.step(), Step::Prepare { index: 0 });
    case.custody().prepared = 1;
    assert_eq!(case.step(), Step::Prepare { index: 1 });
    case.custody().prepared = 2;
    assert_eq!(case.step(), Step::Register { event: None });
    case.custody().webhooks = vec![record(1, None, WebhookState::Created { id: "17".into() })];
    assert_eq!(case.step(), Step::Complete { attempt: Uuid::from_u128(1) });
    // One whose completion was refused is deleted before there is another one.
    case.custody().reject(Uuid::from_u128(1));
    assert_eq!(case.step(), Step::Retire { attempt: Uuid::from_u128(1) });
    case.custody().forget(Uuid::from_u128(1), None);
    assert_eq!(case.step(), Step::Register { event: None });
}

#[test]
fn there_is_a_webhook_for_each_event_where_the_system_needs_that() {
    let mut case = Case::authorized(json!({"perEvent": true}));
    let event = |name: &str| Some(name.to_owned());
    assert_eq!(case.step(), Step::Register { event: event("push") });
    case.custody().webhooks = vec![registered(1, Some("push"))];
    assert_eq!(case.step(), Step::Register { event: event("issues") });
    case.custody().webhooks.push(registered(2, Some("issues")));
    assert_eq!(case.step(), Step::Finished { next_look: None });
    // One for an event that is not wanted, or for all of them, is superfluous once the others are there.
    case.custody().webhooks.push(registered(3, None));
    assert_eq!(case.step(), Step::Retire { attempt: Uuid::from_u128(3) });
}

#[test]
fn while_a_webhook_is_replaced_the_old_one_stays_until_the_new_one_is_complete() {
    let mut case = Case::authorized(json!({}));
    let (old, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
    case.custody().webhooks = vec![registered(1, None), record(2, None, WebhookState::Creating)];
    assert_eq!(case.step(), Step::Register { event: None });
    case.custody().webhook_mut(new).unwrap().state = WebhookState::Created { id: "2".into() };
    assert_eq!(case.step(), Step::Complete { attempt: new });
    case.custody().complete(new, NOON + 5000);
    assert_eq!(case.step(), Step::Finished { next_look: Some(Duration::from_secs(5)) }, "what is on its way arrives");
    case.now += 5000;
    assert_eq!(case.step(), Step::Retire { attempt: old });
    // What fails is left for the next pass, and the rest goes on.
    case.failed.insert(None);
    assert_eq!(case.step(), Step::Finished { next_look: None });
}

#[test]
fn a_secret_that_the_external_system_has_still_to_tell_is_waited_for() {
    let mut case = Case::authorized(json!({}));
    case.custody().secret_origin = SecretOrigin::External;
    case.custody().callback_secret = String::new();
    assert_eq!(case.step(), Step::Register { event: None }, "the handshake arrives while the create call is open");
    case.custody().webhooks = vec![registered(1, None)];
    let blocked = case.blocked();
    assert_eq!(
        (blocked.condition, blocked.reason, blocked.stalled),
        (type_::READY, reason::SECRET_NOT_CAPTURED, false)
    );
    case.custody().capture_secret("theirs");
    case.route_live = false;
    assert_eq!(case.step(), Step::Publish);
    case.route_live = true;
    assert_eq!(case.step(), Step::Finished { next_look: None });
}

#[test]
fn by_hand_the_secret_is_published_before_a_person_reads_it() {
    let mut case = Case::new(plugin_with(json!({})), manual_spec(json!({})));
    case.custody = Some(custody(&case.subscription));
    assert_eq!(case.step(), Step::Publish);
    case.route_live = true;
    assert_eq!(case.step(), Step::HandOver);
    case.handed_over = true;
    assert_eq!(case.step(), Step::Finished { next_look: None });
    case.drift_interval = Duration::from_secs(3600);
    case.now = NOON + 1000 * HOUR;
    assert_eq!(case.step(), Step::Finished { next_look: None }, "nothing is ever looked up");
    // What somebody has deleted is made again.
    case.handed_over = false;
    assert_eq!(case.step(), Step::HandOver);
}

#[test]
fn by_hand_the_users_own_secret_is_taken_and_waited_for_with_the_url_live() {
    let mut case = Case::new(plugin_with(json!({})), manual_spec(json!({"secretRef": {"name": "mine"}})));
    let missing = Blocked::waiting(type_::READY, reason::SECRET_NOT_FOUND, "there is no Secret");
    case.custody = Some(Custody {
        secret_origin: SecretOrigin::Given,
        callback_secret: String::new(),
        ..custody(&case.subscription)
    });
    case.given = Some(Err(missing.clone()));
    assert_eq!(case.step(), Step::Publish, "the person needs the URL to get the secret");
    case.route_live = true;
    assert_eq!(case.blocked(), missing);
    case.given = Some(Ok(BTreeMap::from([("secret".to_owned(), "mine".to_owned())])));
    assert_eq!(case.step(), Step::TakeSecret { secret: "mine".into() });
    case.custody().replace_secret("mine".into(), Some(NOON + 1));
    assert_eq!(case.step(), Step::Finished { next_look: None });
}

#[test]
fn by_hand_a_handshake_is_waited_for() {
    let mut case = Case::new(plugin_with(json!({})), manual_spec(json!({})));
    case.custody = Some(Custody {
        secret_origin: SecretOrigin::External,
        callback_secret: String::new(),
        ..custody(&case.subscription)
    });
    assert_eq!(case.step(), Step::Publish);
    case.route_live = true;
    let blocked = case.blocked();
    assert_eq!((blocked.reason, blocked.stalled), (reason::SECRET_NOT_CAPTURED, false));
    assert!(blocked.message.contains("status.address.url"));
    case.custody().capture_secret("theirs");
    // Where a person has to enter it once more, they find it where a generated one would be.
    assert_eq!(case.step(), Step::HandOver);
    case.handed_over = true;
    assert_eq!(case.step(), Step::Finished { next_look: None });
}
