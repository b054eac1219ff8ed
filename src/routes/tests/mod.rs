//! The index, fed in every order.

mod watching;

use super::*;
use crate::api::{Mode, NameRef, Runner, RunnerGone};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A plugin with the events `push` (parameter `branch`, variable `ref`) and `issue`, verified by a token.
pub(crate) fn plugin_spec() -> TriggerPluginSpec {
    serde_json::from_value(json!({
        "displayName": "Forge",
        "allowedOrigins": ["https://forge.example"],
        "callback": {
            "verification": [
                {"hmac": {"header": "X-Signature", "algorithm": "sha256", "encoding": "hex"}},
                {"token": {"header": "X-Token"}},
            ],
            "event": "request.headers['x-event']",
            "deliveryID": "request.headers['x-delivery']",
        },
        "events": [
            {
                "name": "push",
                "title": "Push",
                "parameters": {"branch": {"schema": {"type": "string"}, "match": "body.ref == value"}},
                "variables": {"ref": {"type": "string", "value": "body.ref"}},
            },
            {"name": "issue", "title": "Issue"},
        ],
    }))
    .unwrap()
}

/// A plugin that does not compile.
fn broken_spec() -> TriggerPluginSpec {
    let mut spec = plugin_spec();
    spec.callback.event = "request.headers[".to_owned();
    spec
}

pub(crate) fn published(n: u128) -> PublishedRoute {
    PublishedRoute {
        token: format!("token-{n}"),
        callback_secrets: vec![format!("secret-{n}")],
        uid: Uuid::from_u128(n),
        namespace: "team-a".into(),
        name: format!("sub-{n}"),
        plugin: "forge".into(),
        events: vec!["push".into()],
        url: None,
        awaits_secret: false,
    }
}

pub(crate) fn trigger(n: u128, subscription: &str) -> Trigger {
    let spec = WorkflowTriggerSpec {
        subscription_ref: NameRef { name: subscription.to_owned() },
        event: "push".into(),
        parameters: serde_json::Map::new(),
        filter: None,
        workflow: format!("workflow-{n}"),
        mode: Mode::Published,
        runner: Runner { url: Some("http://127.0.0.1:1/".into()), ..Runner::default() },
        delivery: Default::default(),
    };
    Trigger {
        uid: Uuid::from_u128(1000 + n),
        namespace: "team-a".into(),
        name: format!("trigger-{n}"),
        spec,
        state: RunnerGone { generation: 1, resume: None },
        gone: false,
        listening: None,
    }
}

fn handle() -> Handle {
    Handle::new(Metrics::new())
}

fn rule_names(handle: &Handle, n: u128) -> Vec<String> {
    match handle.by_uid(Uuid::from_u128(n)) {
        Lookup::Served(route) => route.rules().iter().map(|rule| rule.trigger.name.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    let steps: [fn(&mut Index); 3] = [
        |index| index.apply_plugin("forge", &plugin_spec()),
        |index| index.apply_route(published(1)),
        |index| index.apply_trigger(trigger(1, "sub-1")),
    ];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let handle = handle();
        for step in order {
            handle.update(steps[step]);
        }
        assert!(handle.serves(&published(1).version()), "{order:?}");
        assert_eq!(rule_names(&handle, 1), ["trigger-1"], "{order:?}");
        assert!(handle.trigger(Uuid::from_u128(1001)).is_some());
        let counts = handle.update(|index| index.counts());
        assert_eq!(counts, Counts { served: 1, ..Counts::default() }, "{order:?}");
    }
}

#[test]
fn a_route_without_a_valid_plugin_is_unknown() {
    let handle = handle();
    handle.update(|index| index.apply_route(published(1)));
    assert!(handle.by_token("token-1").is_none());
    assert!(matches!(handle.by_uid(Uuid::from_u128(1)), Lookup::Waits { reason: WaitReason::PluginMissing, .. }));

    handle.update(|index| index.apply_plugin("forge", &plugin_spec()));
    assert!(handle.by_token("token-1").is_some());

    handle.update(|index| index.apply_plugin("forge", &broken_spec()));
    assert!(handle.by_token("token-1").is_none());
    assert!(matches!(handle.by_uid(Uuid::from_u128(1)), Lookup::Waits { reason: WaitReason::PluginInvalid, .. }));
    let counts = handle.update(|index| index.counts());
    assert_eq!(counts, Counts { unserved: 1, plugins_invalid: 1, ..Counts::default() });

    handle.update(|index| index.apply_plugin("forge", &plugin_spec()));
    assert!(handle.by_token("token-1").is_some());
    handle.update(|index| index.delete_plugin("forge"));
    assert!(handle.by_token("token-1").is_none());
    assert_eq!(handle.update(|index| index.counts()), Counts { unserved: 1, ..Counts::default() });
}

#[test]
fn a_changed_token_or_secret_replaces_the_old_one_at_once() {
    let handle = handle();
    handle.update(|index| index.apply_plugin("forge", &plugin_spec()));
    handle.update(|index| index.apply_route(published(1)));
    let rotated = PublishedRoute { callback_secrets: vec!["new".into(), "secret-1".into()], ..published(1) };
    assert!(!handle.serves(&rotated.version()));
    handle.update(|index| index.apply_route(rotated.clone()));
    assert!(handle.serves(&rotated.version()) && !handle.serves(&published(1).version()));

    let moved = PublishedRoute { token: "elsewhere".into(), ..published(1) };
    handle.update(|index| index.apply_route(moved.clone()));
    assert!(handle.serves(&moved.version()) && handle.by_token("token-1").is_none());
    handle.update(|index| index.delete_route(moved.uid));
    assert!(handle.by_token("elsewhere").is_none() && matches!(handle.by_uid(moved.uid), Lookup::Gone));
    assert_eq!(handle.update(|index| index.counts()), Counts::default());
}

#[test]
fn a_recreated_subscription_keeps_its_url() {
    let handle = handle();
    handle.update(|index| index.apply_plugin("forge", &plugin_spec()));
    let (old, new) = (published(1), PublishedRoute { uid: Uuid::from_u128(2), ..published(1) });
    handle.update(|index| index.apply_trigger(trigger(1, "sub-1")));
    handle.update(|index| index.apply_route(old.clone()));
    handle.update(|index| index.apply_route(new.clone()));
    assert!(handle.serves(&new.version()));
    handle.update(|index| index.delete_route(old.uid));
    assert!(handle.serves(&new.version()));
    assert_eq!(rule_names(&handle, 2), ["trigger-1"]);

    // The other way round: what is left is served, too.
    handle.update(|index| index.apply_route(old.clone()));
    handle.update(|index| index.delete_route(old.uid));
    assert!(handle.serves(&new.version()));
}

#[test]
fn triggers_follow_their_spec() {
    let handle = handle();
    handle.update(|index| index.apply_plugin("forge", &plugin_spec()));
    handle.update(|index| index.apply_route(published(1)));
    handle.update(|index| index.apply_route(published(2)));
    handle.update(|index| index.apply_trigger(trigger(1, "sub-1")));

    let mut changed = trigger(1, "sub-1");
    for mode in [Mode::Suspended, Mode::Draft] {
        changed.spec.mode = mode;
        handle.update(|index| index.apply_trigger(changed.clone()));
        assert!(rule_names(&handle, 1).is_empty(), "{mode:?}");
        assert!(handle.trigger(changed.uid).is_some(), "its deliveries go on");
    }
    handle.update(|index| index.apply_trigger(trigger(1, "sub-2")));
    assert!(rule_names(&handle, 1).is_empty());
    assert_eq!(rule_names(&handle, 2), ["trigger-1"]);

    // The same name in another workspace is another trigger, and no Subscription of this one is its.
    let foreign = Trigger { namespace: "team-b".into(), uid: Uuid::from_u128(7), ..trigger(1, "sub-1") };
    handle.update(|index| index.apply_trigger(foreign));
    assert!(rule_names(&handle, 1).is_empty());

    handle.update(|index| index.delete_trigger("team-a", "trigger-1"));
    assert!(rule_names(&handle, 2).is_empty());
    assert!(handle.trigger(Uuid::from_u128(1001)).is_none() && handle.trigger(Uuid::from_u128(7)).is_some());
}

#[test]
fn a_trigger_that_does_not_fit_says_why() {
    let handle = handle();
    handle.update(|index| index.apply_plugin("forge", &plugin_spec()));
    handle.update(|index| index.apply_route(published(1)));
    let mut wrong = trigger(1, "sub-1");
    wrong.spec.filter = Some("variables.".into());
    handle.update(|index| index.apply_trigger(wrong));
    let Lookup::Served(route) = handle.by_uid(Uuid::from_u128(1)) else { panic!() };
    let problem = route.rules()[0].compiled.as_ref().unwrap_err();
    assert!(problem.contains("spec.filter"), "{problem}");
    assert_eq!(handle.update(|index| index.counts().triggers_invalid), 1);

    // A plugin that offers what the trigger asks for makes it right.
    let mut asks = trigger(1, "sub-1");
    asks.spec.event = "release".into();
    handle.update(|index| index.apply_trigger(asks));
    assert_eq!(handle.update(|index| index.counts().triggers_invalid), 1);
    let mut spec = plugin_spec();
    spec.events[1].name = "release".into();
    handle.update(|index| index.apply_plugin("forge", &spec));
    assert_eq!(handle.update(|index| index.counts().triggers_invalid), 0);
    handle.update(|index| index.delete_trigger("team-a", "trigger-1"));
    assert_eq!(handle.update(|index| index.counts()), Counts { served: 1, ..Counts::default() });
}

#[test]
fn a_new_list_drops_what_vanished_meanwhile() {
    let handle = handle();
    handle.update(|index| {
        index.apply_plugin("forge", &plugin_spec());
        index.apply_plugin("other", &broken_spec());
        for n in 1..=3 {
            index.apply_route(published(n));
            index.apply_trigger(trigger(n, &format!("sub-{n}")));
        }
        index.retain_routes(&HashSet::from([Uuid::from_u128(2)]));
        index.retain_triggers(&HashSet::from([("team-a".to_owned(), "trigger-2".to_owned())]));
        index.retain_plugins(&HashSet::from(["forge".to_owned()]));
    });
    assert_eq!(handle.update(|index| index.counts()), Counts { served: 1, ..Counts::default() });
    assert!(handle.serves(&published(2).version()) && handle.by_token("token-1").is_none());
    assert!(handle.trigger(Uuid::from_u128(1003)).is_none());
}

#[test]
fn ten_thousand_routes_change_cheaply() {
    let handle = handle();
    for n in 0..10_000 {
        handle.update(|index| index.apply_route(published(n)));
    }
    handle.update(|index| index.apply_plugin("forge", &plugin_spec()));
    assert_eq!(handle.update(|index| index.counts().served), 10_000);

    let started = Instant::now();
    for n in 0..1000 {
        let rotated = PublishedRoute { callback_secrets: vec!["new".into()], ..published(n) };
        handle.update(|index| index.apply_route(rotated));
    }
    let each = started.elapsed() / 1000;
    assert!(each < Duration::from_millis(2), "{each:?}");
    assert!(handle.by_token("token-9999").is_some() && handle.by_token("token-10000").is_none());
}

#[tokio::test]
async fn what_is_awaited_is_told() {
    let handle = handle();
    handle.update(|index| index.apply_plugin("forge", &plugin_spec()));
    let waits = {
        let handle = handle.clone();
        tokio::spawn(async move {
            handle.synced().await;
            handle.confirmed(&published(1).version()).await;
            handle.forgotten(published(1).uid).await;
        })
    };
    for step in 0..4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(!waits.is_finished(), "{step}");
        match step {
            0 => handle.set_synced(),
            1 => handle.update(|index| {
                index.apply_route(PublishedRoute { callback_secrets: Vec::new(), ..published(1) });
            }),
            2 => handle.update(|index| index.apply_route(published(1))),
            _ => handle.update(|index| index.delete_route(published(1).uid)),
        }
    }
    tokio::time::timeout(Duration::from_secs(5), waits).await.unwrap().unwrap();
}

#[test]
fn long_tokens_are_not_looked_up() {
    let handle = handle();
    handle.update(|index| {
        index.apply_plugin("forge", &plugin_spec());
        index.apply_route(PublishedRoute { token: "x".repeat(257), ..published(1) });
    });
    assert!(handle.by_token(&"x".repeat(257)).is_none());
}

#[test]
fn a_trigger_whose_runner_is_gone_rests_until_it_is_changed() {
    let handle = handle();
    let first = trigger(1, "sub-1");
    handle.update(|index| index.apply_trigger(first.clone()));
    let gone = || handle.trigger(first.uid).unwrap().gone;
    assert!(handle.pause(first.uid, &first.state) && gone());
    assert_eq!(handle.paused(10), [(first.uid, first.state.clone())]);
    // A change of its status that does not say it yet.
    handle.update(|index| index.apply_trigger(first.clone()));
    assert!(gone());
    let resumed = RunnerGone { resume: Some("1".into()), ..first.state.clone() };
    handle.update(|index| index.apply_trigger(Trigger { state: resumed.clone(), ..first.clone() }));
    assert!(!gone() && handle.paused(10).is_empty());
    assert!(handle.pause(first.uid, &resumed) && gone());
    // Somebody else's trigger of the same name.
    let other = Trigger { uid: Uuid::from_u128(5), ..first.clone() };
    handle.update(|index| index.apply_trigger(other));
    assert!(handle.paused(10).is_empty() && !handle.trigger(Uuid::from_u128(5)).unwrap().gone);
}

#[test]
fn who_reads_waits_for_nobody_who_changes_something() {
    let handle = handle();
    let first = trigger(1, "sub-1");
    handle.update(|index| index.apply_trigger(first.clone()));
    assert!(handle.pause(first.uid, &first.state));
    // What is asked on the threads that accept requests, while something is compiled.
    let reader = handle.clone();
    let read = handle.update(|_| {
        let (sender, answer) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let paused = reader.paused(10).len();
            let _ = sender.send((reader.untold(0, 0, 10).len(), reader.tallies().take(0, 0, 10).len(), paused));
        });
        answer.recv_timeout(Duration::from_secs(10))
    });
    assert_eq!(read, Ok((0, 0, 1)));
    assert!(handle.paused(0).is_empty());
}

#[test]
fn the_hour_of_a_draft_begins_when_it_is_first_seen() {
    let handle = handle();
    let listening = |minute: i64| {
        let until = k8s_openapi::jiff::Timestamp::from_second(minute * 60).unwrap();
        Some(Listening { requested: "2100-01-01T00:00:00Z".into(), until: Time(until) })
    };
    let mut draft = Trigger { listening: listening(60), ..trigger(1, "sub-1") };
    draft.spec.mode = Mode::Draft;
    handle.update(|index| index.apply_trigger(draft.clone()));
    handle.update(|index| index.apply_trigger(Trigger { listening: listening(90), ..draft.clone() }));
    let seen = handle.trigger(draft.uid).unwrap();
    assert!(seen.is_awake(60 * 60_000 - 1) && !seen.is_awake(60 * 60_000));
    handle.update(|index| index.apply_trigger(Trigger { listening: None, ..draft.clone() }));
    assert!(!handle.trigger(draft.uid).unwrap().is_awake(0));
}

#[test]
fn a_draft_listens_while_it_is_followed() {
    let handle = handle();
    let at = |minute: i64| k8s_openapi::jiff::Timestamp::from_second(minute * 60).unwrap();
    let listening = |minute: i64| Some(Listening { requested: format!("{minute}"), until: Time(at(minute)) });
    let mut draft = trigger(1, "sub-1");
    draft.spec.mode = Mode::Draft;
    // Before there is such a trigger, and of another one.
    let early = handle.follow("team-a", &draft.name, at(50));
    let _other = handle.follow("team-b", &draft.name, at(90));
    handle.update(|index| {
        index.apply_plugin("forge", &plugin_spec());
        index.apply_route(published(1));
        index.apply_trigger(draft.clone());
    });
    let awake = |minute: u64| {
        let Lookup::Served(route) = handle.by_uid(Uuid::from_u128(1)) else { panic!("it is served") };
        route.rules().iter().any(|rule| rule.trigger.is_awake(minute * 60_000))
    };
    assert!(awake(49) && !awake(50));
    let later = handle.follow("team-a", &draft.name, at(60));
    drop(early);
    assert!(awake(59) && !awake(60));
    // An annotation that ends later counts, and stays when nobody follows any more.
    handle.update(|index| index.apply_trigger(Trigger { listening: listening(70), ..draft.clone() }));
    assert!(awake(69) && !awake(70));
    handle.update(|index| index.apply_trigger(Trigger { listening: listening(40), ..draft.clone() }));
    assert!(awake(59));
    drop(later);
    assert!(awake(39) && !awake(40));
    handle.update(|index| index.apply_trigger(draft.clone()));
    assert!(!awake(0));
}
