//! Which triggers a request starts.

use super::super::matching::match_within;
use super::*;
use crate::api::WorkflowTrigger;
use crate::plugin::work_done;
use crate::spool::SentBy;
use k8s_openapi::jiff::Timestamp;
use std::collections::HashSet;

#[test]
fn every_trigger_of_the_event_is_held_against_it() {
    let mut excluded = trigger(3, "sub-1");
    excluded.spec.parameters = json!({"branch": "release"}).as_object().unwrap().clone();
    let mut filtered = trigger(4, "sub-1");
    filtered.spec.filter = Some("variables.ref == 'other'".into());
    let mut broken = trigger(5, "sub-1");
    broken.spec.filter = Some("variables.".into());
    let mut other = trigger(6, "sub-1");
    other.spec.event = "issue".into();
    let handle = routes([trigger(1, "sub-1"), trigger(2, "sub-1"), excluded, filtered, broken, other]);

    let matched = matched(&handle, &request(1, "push", r#"{"ref": "main"}"#));
    assert_eq!((matched.at, &matched.note, matched.events.len()), (7, &None, 1));
    let event = &matched.events[0];
    assert_eq!((&event.skipped, &event.variables), (&None, &json!({"ref": "main"})));
    let outcomes: Vec<(&str, Option<&str>)> =
        event.triggers.iter().map(|outcome| (&*outcome.trigger, outcome.mismatch.as_deref())).collect();
    assert_eq!(outcomes.len(), 5, "{outcomes:?}");
    assert_eq!(
        outcomes[..4],
        [
            ("trigger-1", None),
            ("trigger-2", None),
            ("trigger-3", Some("parameter branch does not match")),
            ("trigger-4", Some("the filter is false")),
        ]
    );
    assert!(outcomes[4].1.unwrap().starts_with("the trigger is not valid: spec.filter"), "{outcomes:?}");
}

#[test]
fn drafts_capture_while_they_listen_and_a_runner_that_is_gone_gets_nothing() {
    let until = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::from_second(100).unwrap());
    let draft = |n: u128, listens: bool| {
        let listening = listens.then(|| crate::api::Listening { requested: "x".into(), until: until.clone() });
        let mut draft = Trigger { listening, ..trigger(n, "sub-1") };
        draft.spec.mode = crate::api::Mode::Draft;
        draft
    };
    let mut filtered = draft(3, true);
    filtered.spec.filter = Some("false".into());
    let gone = Trigger { gone: true, ..trigger(5, "sub-1") };
    let handle = routes([trigger(1, "sub-1"), draft(2, true), filtered, draft(4, false), gone]);
    let Lookup::Served(route) = handle.by_uid(Uuid::from_u128(1)) else { panic!("not served") };
    let outcomes = |at: u64| {
        let matched = match_request(&route, &request(1, "push", "{}"), at);
        let outcomes = matched.events[0].triggers.iter();
        outcomes.map(|it| (it.trigger.clone(), it.captured, it.mismatch.clone())).collect::<Vec<_>>()
    };
    let expected =
        |name: &str, captured: bool, mismatch: Option<&str>| (name.to_owned(), captured, mismatch.map(str::to_owned));
    let published = [
        expected("trigger-1", false, None),
        expected("trigger-5", false, Some("paused: the runner answered 410 Gone")),
    ];
    let [first, last] = published.clone();
    let drafts = [expected("trigger-2", true, None), expected("trigger-3", false, Some("the filter is false"))];
    assert_eq!(outcomes(99_999), [vec![first], drafts.to_vec(), vec![last]].concat());
    assert_eq!(outcomes(100_000), published);
}

#[test]
fn events_that_go_nowhere_say_why() {
    let handle = routes([trigger(1, "sub-1")]);
    for event in ["issue", "no-such-event", ""] {
        let matched = matched(&handle, &request(1, event, "{}"));
        let outcome = &matched.events[0];
        assert_eq!((outcome.name.as_str(), outcome.skipped.as_deref()), (event, Some("not subscribed")));
        assert!(outcome.triggers.is_empty());
    }
    let mut nameless = request(1, "push", "{}");
    nameless.headers.clear();
    let outcome = matched(&handle, &nameless);
    assert!(outcome.events[0].skipped.as_ref().unwrap().contains("callback.event"), "{outcome:?}");
    let unreadable = matched(&handle, &request(1, "push", "{"));
    assert!(unreadable.events.is_empty() && unreadable.note.unwrap().contains("not JSON"));
}

#[test]
fn items_are_events_with_ids_of_their_own() {
    let handle = routes([trigger(1, "sub-1")]);
    let mut spec = plugin_spec();
    spec.callback.items = Some("body.list".into());
    spec.callback.event = "item.kind".into();
    spec.events[0].variables.get_mut("ref").unwrap().value = "body.large".into();
    spec.events[0].parameters.clear();
    handle.update(|index| index.apply_plugin("forge", &spec));
    let large = "x".repeat(1 << 20);
    let body = json!({"list": vec![json!({"kind": "push"}); 40], "large": large}).to_string();
    let (first, again) = (request(1, "", &body), request(1, "", &body));
    let (first, again) = (matched(&handle, &first), matched(&handle, &again));
    let ids: HashSet<Uuid> = first.events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 40);
    assert!(first.events.iter().zip(&again.events).all(|(first, again)| first.id == again.id));
    // Forty times a mebibyte is more than one request may become.
    let kept = first.events.iter().filter(|event| event.skipped.is_none()).count();
    assert_eq!(kept, 31);
    let expected = format!("{}/3", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&body)));
    assert_eq!(first.events[3].id, Uuid::new_v5(&Uuid::from_u128(1), expected.as_bytes()));
}

#[test]
fn an_item_with_an_id_is_the_same_event_in_every_request() {
    let handle = routes([trigger(1, "sub-1")]);
    let mut spec = plugin_spec();
    spec.callback.items = Some("body".into());
    spec.callback.item_id = Some("item.id".into());
    spec.callback.event = "item.kind".into();
    handle.update(|index| index.apply_plugin("forge", &spec));
    let ids = |items: serde_json::Value| {
        let matched = matched(&handle, &request(1, "", &items.to_string()));
        matched.events.iter().map(|event| event.id).collect::<Vec<Uuid>>()
    };
    let item = |id: &str| json!({"kind": "push", "id": id});
    let first = ids(json!([item("a"), item("b")]));
    // Sent again alone, and in another order.
    assert_eq!(ids(json!([item("b"), item("c"), item("a")])), [first[1], ids(json!([item("c")]))[0], first[0]]);
    // Nothing is lost that has no id, an empty one, one that is no text, or the same as another of its request.
    let odd = ids(json!([item("a"), item("a"), item(""), {"kind": "push"}, {"kind": "push", "id": 7}]));
    assert_eq!(odd.iter().collect::<HashSet<_>>().len(), 5);
    assert_eq!(odd[0], first[0]);
    // Nor is a sample the same event as the one before, or as a real one.
    let sample = |n: u128| {
        let sent = Some(SentBy { by: "jane".into(), unsigned: None });
        let sample = Request { id: Uuid::from_u128(n), sent, ..request(1, "", &json!([item("a")]).to_string()) };
        matched(&handle, &sample).events[0].id
    };
    assert_eq!(HashSet::from([sample(1), sample(2), first[0]]).len(), 3);
    assert_eq!(sample(1), sample(1));
}

#[test]
fn the_work_of_a_request_is_bounded_however_many_events_and_triggers_it_has() {
    let handle = routes((1..=10).map(|n| {
        let mut filtered = trigger(n, "sub-1");
        filtered.spec.parameters.clear();
        filtered.spec.filter = Some("variables.ref == 'main'".into());
        filtered
    }));
    let mut spec = plugin_spec();
    spec.callback.items = Some("body".into());
    spec.callback.event = "item.kind".into();
    spec.events[0].variables.get_mut("ref").unwrap().value = "item.ref".into();
    spec.events[0].parameters.clear();
    handle.update(|index| index.apply_plugin("forge", &spec));
    let Lookup::Served(route) = handle.by_uid(Uuid::from_u128(1)) else { panic!("not served") };
    let many = request(1, "", &Value::from(vec![json!({"kind": "push", "ref": "main"}); 100]).to_string());
    let all = match_within(1_000_000, &route, &many, 7);
    assert!(all.events.iter().flat_map(|event| &event.triggers).all(|t| t.mismatch.is_none()), "{all:?}");
    let some = match_within(10_000, &route, &many, 7);
    let (fired, told): (Vec<_>, Vec<_>) =
        some.events.iter().flat_map(|event| &event.triggers).partition(|t| t.mismatch.is_none());
    assert!(!fired.is_empty() && fired.len() < 500, "{}", fired.len());
    assert!(told.iter().all(|t| t.mismatch.as_ref().unwrap().contains("more than 10000 steps together")), "{told:?}");
    let last = some.events.last().unwrap();
    assert!(last.triggers.is_empty() && last.skipped.as_ref().unwrap().contains("10000 steps"), "{last:?}");
    // The next request has all of it again.
    assert!(match_within(1_000_000, &route, &many, 7).events.last().unwrap().skipped.is_none());
}

#[test]
fn names_and_ids_of_events_count_as_work_before_all_of_them_are_known() {
    let handle = routes([trigger(1, "sub-1")]);
    let mut spec = plugin_spec();
    spec.callback.items = Some("body".into());
    spec.callback.item_id = Some("item.id".into());
    spec.callback.event = "item.kind".into();
    handle.update(|index| index.apply_plugin("forge", &spec));
    let Lookup::Served(route) = handle.by_uid(Uuid::from_u128(1)) else { panic!("not served") };
    let items = (0..10_000).map(|n| json!({"kind": "push", "id": n.to_string()})).collect::<Vec<_>>();
    let many = request(1, "", &Value::from(items).to_string());
    let before = work_done();
    let matched = match_within(100_000, &route, &many, 7);
    let done = work_done() - before;
    assert!(done < 200_000, "{done}");
    assert_eq!(matched.events.len(), 10_000);
    let last = matched.events.last().unwrap();
    let why = last.skipped.as_ref().unwrap();
    assert!(last.name.is_empty() && why.contains("spec.callback.event is not evaluated: the events of"), "{why}");
    // What it has done before that is enough for none of the triggers.
    assert!(matched.events.iter().all(|event| event.skipped.is_some()));
}

#[test]
fn objects_of_the_api_server_become_triggers() {
    let object: WorkflowTrigger = serde_json::from_value(json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "WorkflowTrigger",
        "metadata": {"name": "t", "namespace": "team-a", "uid": "00000000-0000-0000-0000-000000000007"},
        "spec": {
            "subscriptionRef": {"name": "s"}, "event": "push", "workflow": "w",
            "runner": {"service": {"name": "r", "port": 80}},
        },
    }))
    .unwrap();
    let trigger = Trigger::from_object(object.clone(), Timestamp::now()).unwrap();
    assert_eq!((trigger.uid, &*trigger.namespace, trigger.name.as_str()), (Uuid::from_u128(7), "team-a", "t"));
    let mut nameless = object;
    nameless.metadata.uid = None;
    assert!(Trigger::from_object(nameless, Timestamp::now()).is_none());
}

#[test]
fn a_ping_has_no_events_and_is_no_failure() {
    let mut spec = plugin_spec();
    spec.callback.ping = Some("body.events.size() == 0".into());
    let handle = routes([trigger(1, "sub-1")]);
    handle.update(|index| index.apply_plugin("forge", &spec));
    let ping = matched(&handle, &request(1, "push", r#"{"events": []}"#));
    assert_eq!((ping.events.len(), ping.note.as_deref()), (0, Some(Matched::PING)));
    // What the expression cannot be asked of is an event like any other.
    for body in [r#"{"events": [1]}"#, "{}"] {
        let event = matched(&handle, &request(1, "push", body));
        assert_eq!((event.events.len(), event.note), (1, None), "{body}");
    }
}
