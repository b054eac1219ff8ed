//! What is due in the life of a Subscription that is set up: renewal, looks, rotation; and when nothing is.

use super::super::blocked::Upkeep;
use super::super::times::{next_look, renewal};
use super::*;

/// `refresh`, for webhooks whose end is told when they are created.
fn refresh() -> Value {
    let capture = json!({"id": "response.body.id", "expiresAt": "response.body.end"});
    json!({"create": {"capture": capture}, "refresh": get("refresh")})
}

/// Set up, with a webhook that lives for `life` milliseconds.
fn living(calls: Value, life: Option<i64>) -> Case {
    let mut case = Case::authorized(calls);
    let expires_at = life.map(|life| NOON + life);
    case.custody().webhooks = vec![WebhookRecord { expires_at, ..registered(1, None) }];
    case
}

fn finished(case: &Case) -> Option<i64> {
    match case.step() {
        Step::Finished { next_look } => next_look.map(|wait| i64::try_from(wait.as_millis()).unwrap()),
        step => panic!("{step:?} instead of nothing to do"),
    }
}

#[test]
fn a_webhook_is_renewed_at_two_thirds_of_its_life_by_what_the_plugin_says() {
    let attempt = Uuid::from_u128(1);
    let replace = Step::Replace { attempt, upkeep: Upkeep::Renewal };
    for (calls, expected) in [
        (refresh(), Step::Refresh { attempt }),
        (
            json!({"create": {"idempotent": true}, "renewal": {"by": "create", "life": "300h"}}),
            Step::CreateAgain { attempt },
        ),
        (json!({"renewal": {"by": "replace", "life": "300h"}}), replace.clone()),
        (json!({}), replace),
    ] {
        let mut case = living(calls, Some(300 * HOUR));
        let at = renewal(&case.custody().webhooks[0]).unwrap();
        assert!((at - NOON - 200 * HOUR).abs() <= 15 * HOUR);
        assert_eq!(finished(&case), Some(at - NOON));
        case.now = at - 1;
        assert_eq!(finished(&case), Some(1));
        case.now = at;
        assert_eq!(case.step(), expected);
        // One that fails is left for the next pass, which comes at the latest when people should know of it.
        case.failed.insert(None);
        assert_eq!(finished(&case), Some(NOON + 250 * HOUR - at));
        case.now = NOON + 301 * HOUR;
        case.failed.clear();
        assert_eq!(case.step(), expected, "also after its end");
    }
    assert_eq!(finished(&living(refresh(), None)), None, "one without an end lives on");
}

#[test]
fn each_webhook_has_a_life_of_its_own() {
    let mut calls = refresh();
    calls["perEvent"] = json!(true);
    let mut case = Case::authorized(calls);
    let lives = |n: u128, event, life| WebhookRecord { expires_at: Some(NOON + life), ..registered(n, Some(event)) };
    case.custody().webhooks = vec![lives(1, "push", 90 * HOUR), lives(2, "issues", 30 * HOUR)];
    case.now = NOON + 25 * HOUR;
    assert_eq!(case.step(), Step::Refresh { attempt: Uuid::from_u128(2) });
    case.now = NOON + 89 * HOUR;
    assert_eq!(case.step(), Step::Refresh { attempt: Uuid::from_u128(1) });
    case.failed.insert(Some("push".into()));
    assert_eq!(case.step(), Step::Refresh { attempt: Uuid::from_u128(2) }, "one that fails does not hold up others");
}

fn list() -> Value {
    let mut find = get("hooks");
    find["items"] = json!("response.body");
    find["match"] = json!("item.url == callback.url");
    find["id"] = json!("item.id");
    json!({"find": find})
}

#[test]
fn an_idle_subscription_does_nothing_but_look_once_in_an_interval() {
    let mut case = living(list(), None);
    case.drift_interval = Duration::from_secs(3600);
    let (mut looks, attempt) = (Vec::new(), Uuid::from_u128(1));
    // A year, from one thing that is due to the next.
    while case.now < NOON + 365 * 24 * HOUR {
        match case.step() {
            Step::Finished { next_look } => {
                let wait = next_look.expect("it is looked at again");
                assert!(wait >= Duration::from_secs(1), "no hot loop");
                case.now += i64::try_from(wait.as_millis()).unwrap();
            }
            Step::Check { attempt: looked } => {
                assert_eq!(looked, attempt);
                looks.push(case.now);
                case.looked.insert(attempt, case.now);
            }
            step => panic!("{step:?}: an idle Subscription has nothing to do"),
        }
    }
    assert!((8759..=8761).contains(&looks.len()), "{} looks", looks.len());
    assert!(looks.windows(2).all(|two| two[1] - two[0] == HOUR), "an hour apart");
}

#[test]
fn nothing_is_looked_at_where_that_is_off_or_impossible() {
    let mut off = living(list(), None);
    off.now = NOON + 1000 * HOUR;
    assert_eq!(finished(&off), None);
    let mut impossible = living(json!({}), None);
    impossible.drift_interval = Duration::from_secs(3600);
    impossible.now = NOON + 1000 * HOUR;
    assert_eq!(finished(&impossible), None);
}

#[test]
fn a_look_that_fails_and_a_repair_that_was_not_told_are_not_forgotten() {
    let mut case = living(list(), None);
    case.drift_interval = Duration::from_secs(3600);
    case.now = next_look(NOON, case.drift_interval, Uuid::nil());
    assert_eq!(case.step(), Step::Check { attempt: Uuid::from_u128(1) });
    case.failed.insert(None);
    assert!(matches!(case.step(), Step::Finished { .. }));
    case.failed.clear();
    assert_eq!(case.step(), Step::Check { attempt: Uuid::from_u128(1) });
    // It was gone: another one is made first, and then it is told.
    case.custody().forget(Uuid::from_u128(1), None);
    case.custody().note_repair("webhook 1 was not there any more");
    assert_eq!(case.step(), Step::Register { event: None });
    case.custody().webhooks = vec![WebhookRecord { created_at: case.now, ..registered(2, None) }];
    assert_eq!(case.step(), Step::TellRepair);
    case.custody().repaired = None;
    let wait = finished(&case).unwrap();
    assert!((HOUR / 2..=3 * HOUR / 2).contains(&wait), "the new one is looked at in its turn");
}

#[test]
fn a_rotation_has_its_phases_and_both_secrets_are_accepted_in_all_of_them() {
    let attempt = Uuid::from_u128(1);
    for (calls, expected) in [
        (json!({"update": get("update")}), Step::Rewrite { attempt }),
        (json!({}), Step::Replace { attempt, upkeep: Upkeep::Rotation }),
    ] {
        let mut case = living(calls, None);
        case.annotate("2026-01-01");
        assert_eq!(case.step(), Step::BeginRotation { request: "2026-01-01".into() });
        case.custody().replace_secret("new".into(), None);
        case.custody().rotated = Some("2026-01-01".into());
        case.route_live = false;
        assert_eq!(case.step(), Step::Publish, "both are published before the external system gets the new one");
        case.route_live = true;
        assert_eq!(case.step(), expected);
        // Another request waits for the end of this one.
        case.annotate("2026-01-02");
        assert_eq!(case.step(), expected);
        case.custody().webhooks[0].secret_version = 1;
        assert_eq!(case.step(), Step::EndRotation);
        assert_eq!(case.custody().secrets(), ["new", "secret"]);
        case.custody().end_rotation(NOON + 600_000);
        case.annotate("2026-01-01");
        assert_eq!(finished(&case), Some(600_000));
        case.now = NOON + 600_000;
        assert_eq!(case.step(), Step::DropSecrets);
        let now = case.now;
        case.custody().drop_retired(now);
        assert_eq!(case.custody().secrets(), ["new"]);
        assert_eq!(finished(&case), None);
    }
}

#[test]
fn what_makes_room_is_deleted_before_anything_else_is_done_and_told_after_the_next_is_there() {
    let attempt = Uuid::from_u128(1);
    let mut case = living(json!({"create": {"exclusive": true}}), None);
    // A rotation asks for it as everywhere; what is done is for the plugin to say.
    case.custody().replace_secret("new".into(), None);
    assert_eq!(case.step(), Step::Replace { attempt, upkeep: Upkeep::Rotation });
    // A controller that was killed after it has begun goes on, whatever it was for.
    let mut case = living(json!({"create": {"exclusive": true}}), None);
    case.custody().make_room(attempt);
    case.custody().note_repair("webhook 1 was disabled; it was replaced");
    case.route_live = false;
    assert_eq!(case.step(), Step::Publish, "the secrets are published before");
    case.route_live = true;
    let replace = Step::Replace { attempt, upkeep: Upkeep::Removal };
    assert_eq!(case.step(), replace);
    case.annotate("now");
    assert_eq!(case.step(), replace, "a rotation waits");
    // The deletion fails: the webhook is there and delivers, and nothing is told as done.
    case.failed.insert(None);
    case.custody().rotated = Some("now".into());
    assert_eq!(finished(&case), None);
    case.failed.clear();
    case.custody().forget(attempt, None);
    assert_eq!(case.step(), Step::Register { event: None });
    case.custody().webhooks = vec![record(2, None, WebhookState::Creating)];
    assert_eq!(case.step(), Step::Register { event: None });
    case.custody().webhooks = vec![registered(2, None)];
    assert_eq!(case.step(), Step::TellRepair);
}

#[test]
fn one_of_several_that_makes_room_leaves_the_others_alone() {
    let mut case = Case::authorized(json!({"perEvent": true, "create": {"exclusive": true}}));
    case.custody().webhooks = vec![registered(1, Some("push")), registered(2, Some("issues"))];
    case.custody().replace_secret("new".into(), None);
    assert_eq!(case.step(), Step::Replace { attempt: Uuid::from_u128(1), upkeep: Upkeep::Rotation });
    case.custody().forget(Uuid::from_u128(1), None);
    assert_eq!(
        case.step(),
        Step::Register { event: Some("push".into()) },
        "the gap of one ends before the next begins"
    );
    case.custody().webhooks.push(WebhookRecord { secret_version: 1, ..registered(3, Some("push")) });
    assert_eq!(case.step(), Step::Replace { attempt: Uuid::from_u128(2), upkeep: Upkeep::Rotation });
    assert_eq!(case.custody().secrets(), ["new", "secret"], "both are accepted all the while");
}

#[test]
fn a_rotation_of_several_webhooks_goes_on_where_it_stopped() {
    let mut case = Case::authorized(json!({"perEvent": true, "update": get("update")}));
    case.custody().webhooks = vec![registered(1, Some("push")), registered(2, Some("issues"))];
    case.custody().replace_secret("new".into(), None);
    case.custody().webhooks[0].secret_version = 1;
    assert_eq!(case.step(), Step::Rewrite { attempt: Uuid::from_u128(2) });
    case.failed.insert(Some("issues".into()));
    assert_eq!(finished(&case), None, "the old secret stays accepted");
    assert_eq!(case.custody().secrets().len(), 2);
}

#[test]
fn a_secret_that_the_external_system_chooses_is_rotated_by_another_webhook() {
    let mut case = living(json!({"update": get("update")}), None);
    case.custody().secret_origin = SecretOrigin::External;
    case.annotate("now");
    assert!(matches!(case.step(), Step::BeginRotation { .. }));
    case.custody().rotated = Some("now".into());
    case.custody().secret_version = 1;
    assert_eq!(case.step(), Step::Replace { attempt: Uuid::from_u128(1), upkeep: Upkeep::Rotation });
}

#[test]
fn by_hand_a_rotation_ends_after_the_days_that_a_person_may_take() {
    let mut case = Case::new(plugin_with(json!({})), manual_spec(json!({})));
    case.custody = Some(custody(&case.subscription));
    (case.route_live, case.handed_over) = (true, true);
    case.annotate("now");
    assert!(matches!(case.step(), Step::BeginRotation { .. }));
    case.custody().replace_secret("new".into(), Some(NOON + 168 * HOUR));
    case.custody().rotated = Some("now".into());
    (case.route_live, case.handed_over) = (false, false);
    assert_eq!(case.step(), Step::Publish);
    case.route_live = true;
    assert_eq!(case.step(), Step::HandOver);
    case.handed_over = true;
    assert_eq!(finished(&case), Some(168 * HOUR));
    case.now += 168 * HOUR;
    assert_eq!(case.step(), Step::DropSecrets);
}
