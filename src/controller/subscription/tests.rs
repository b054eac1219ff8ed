//! The decisions about a Subscription, without a cluster.

use super::plan::{Step, next};
use super::status::{status, workflow_count};
use super::{Blocked, Retry};
use crate::api::{Subscription, TriggerPlugin, WorkflowTrigger, reason, type_};
use crate::controller::PluginState;
use crate::controller::custody::{Custody, WebhookState};
use crate::plugin::Plugin;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

fn gitea() -> PluginState {
    let yaml = include_str!("../../../examples/gitea-push/plugin.yaml");
    let resource: TriggerPlugin = serde_saphyr::from_str(yaml).expect("the example is a TriggerPlugin");
    PluginState::Ready(Arc::new(Plugin::compile("gitea", &resource.spec).expect("the example compiles")))
}

fn subscription(spec: Value) -> Subscription {
    serde_json::from_value(json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
        "metadata": {"name": "web", "namespace": "team-a", "generation": 1},
        "spec": spec,
    }))
    .expect("a Subscription")
}

fn good_spec() -> Value {
    json!({
        "pluginRef": {"name": "gitea"},
        "parameters": {"baseURL": "http://127.0.0.1:3000", "owner": "acme", "repository": "web"},
        "authorization": {"apiKey": {"secretRef": {"name": "token"}}},
    })
}

fn custody(subscription: &Subscription) -> Custody {
    Custody {
        uid: Uuid::nil(),
        namespace: "team-a".into(),
        name: "web".into(),
        accepted: subscription.spec.clone(),
        events: vec!["push".into()],
        token: "token".into(),
        callback_secret: "secret".into(),
        credentials: BTreeMap::new(),
        account: None,
        webhook: WebhookState::None,
        authorization: Default::default(),
    }
}

fn token() -> BTreeMap<String, String> {
    BTreeMap::from([("token".to_owned(), "t".to_owned())])
}

fn blocked(step: Step) -> Blocked {
    match step {
        Step::Blocked(blocked) => blocked,
        step => panic!("{step:?} instead of a reason to wait"),
    }
}

#[test]
fn the_steps_follow_each_other_and_each_is_taken_once() {
    let (subscription, plugin) = (subscription(good_spec()), gitea());
    let credentials = Some(Ok(token()));
    let step = |custody: Option<&Custody>, live| next(&subscription, &plugin, custody, credentials.as_ref(), live);

    let Step::Accept { events } = step(None, false) else { panic!("accepted first") };
    assert!(events.contains(&"push".to_owned()) && events.len() > 1, "all events: {events:?}");
    let mut custody = custody(&subscription);
    assert!(matches!(step(Some(&custody), false), Step::Publish));
    assert!(matches!(step(Some(&custody), true), Step::Authorize { .. }));
    custody.credentials = token();
    assert!(matches!(step(Some(&custody), true), Step::Register));
    custody.webhook = WebhookState::Creating;
    assert!(matches!(step(Some(&custody), true), Step::Register));
    custody.webhook = WebhookState::Registered { id: "17".into() };
    assert!(matches!(step(Some(&custody), true), Step::Finished));
    // A route that was lost is published again, whatever else is done.
    assert!(matches!(step(Some(&custody), false), Step::Publish));
}

#[test]
fn changed_credentials_are_confirmed_again() {
    let subscription = subscription(good_spec());
    let mut custody = custody(&subscription);
    custody.credentials = token();
    custody.webhook = WebhookState::Registered { id: "17".into() };
    let changed = Ok(BTreeMap::from([("token".to_owned(), "new".to_owned())]));
    assert!(matches!(next(&subscription, &gitea(), Some(&custody), Some(&changed), true), Step::Authorize { .. }));
}

#[test]
fn a_spec_that_differs_from_what_was_accepted_stops_everything() {
    let accepted = subscription(good_spec());
    let custody = custody(&accepted);
    let mut spec = good_spec();
    spec["parameters"]["repository"] = json!("other");
    let blocked = blocked(next(&subscription(spec), &gitea(), Some(&custody), None, true));
    assert_eq!((blocked.reason, blocked.stalled), (reason::SPEC_CHANGED, true));
}

#[test]
fn what_cannot_be_accepted_says_which_field_is_wrong() {
    let cases = [
        (
            json!({"baseURL": "http://127.0.0.1:3000", "owner": 7, "repository": "web"}),
            None,
            reason::INVALID_PARAMETERS,
            "spec.parameters.owner",
        ),
        (json!({"baseURL": "http://127.0.0.1:3000", "owner": "acme"}), None, reason::INVALID_PARAMETERS, "repository"),
        (good_spec()["parameters"].clone(), Some(json!(["pusch"])), reason::UNKNOWN_EVENT, "push"),
    ];
    for (parameters, events, reason, named) in cases {
        let mut spec = good_spec();
        spec["parameters"] = parameters;
        if let Some(events) = events {
            spec["events"] = events;
        }
        let blocked = blocked(next(&subscription(spec), &gitea(), None, None, false));
        assert_eq!((blocked.condition, blocked.reason, blocked.stalled), (type_::ACCEPTED, reason, true));
        assert!(blocked.message.contains(named), "{}", blocked.message);
    }
    for method in ["oauth2", "manual"] {
        let mut spec = good_spec();
        spec["authorization"] = json!({method: {}});
        let blocked = blocked(next(&subscription(spec), &gitea(), None, None, false));
        assert_eq!(blocked.reason, reason::METHOD_NOT_OFFERED);
        assert!(blocked.message.contains(&format!("spec.authorization.{method}")), "{}", blocked.message);
    }
}

#[test]
fn a_plugin_that_is_missing_or_broken_is_waited_for_and_costs_an_accepted_one_nothing() {
    let subscription = subscription(good_spec());
    let custody = custody(&subscription);
    for (plugin, reason) in [
        (PluginState::NotFound, reason::PLUGIN_NOT_FOUND),
        (PluginState::Broken("spec.callback.event: no".into()), reason::PLUGIN_NOT_READY),
    ] {
        let waiting = blocked(next(&subscription, &plugin, None, None, false));
        assert_eq!((waiting.condition, waiting.reason, waiting.stalled), (type_::ACCEPTED, reason, false));
        let accepted = blocked(next(&subscription, &plugin, Some(&custody), None, true));
        assert_eq!(accepted.condition, type_::READY);
        let now = Time(Timestamp::UNIX_EPOCH);
        let status = status(&subscription, Some(&custody), Some(&accepted), None, 0, now);
        let is = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.clone());
        assert_eq!(is(type_::ACCEPTED).as_deref(), Some("True"));
        assert_eq!(is(type_::READY).as_deref(), Some("False"));
        assert_eq!(is(type_::RECONCILING).as_deref(), Some("True"));
        assert_eq!(is(type_::STALLED), None);
    }
}

#[test]
fn a_status_that_says_the_same_is_the_same() {
    let mut subscription = subscription(good_spec());
    let mut custody = custody(&subscription);
    custody.credentials = token();
    custody.account = Some("acme-bot".into());
    custody.webhook = WebhookState::Registered { id: "17".into() };
    let at = |second| Time(Timestamp::from_second(second).unwrap());
    let first = status(&subscription, Some(&custody), None, Some("http://x/hooks/y".into()), 1, at(1));
    let text = serde_json::to_string(&first).unwrap();
    assert!(text.contains("token of acme-bot") && !text.contains("secret"), "{text}");
    subscription.status = Some(first.clone());
    // Otherwise each pass would write, and each write would start a pass.
    assert_eq!(status(&subscription, Some(&custody), None, Some("http://x/hooks/y".into()), 1, at(2)), first);
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

#[test]
fn only_what_time_can_mend_is_tried_again_by_time() {
    let blocked = |reason| Blocked::stalled(type_::AUTHORIZED, reason, "");
    assert_eq!(Retry::from(&blocked(reason::INVALID_PARAMETERS)), Retry::OnChange);
    assert_eq!(Retry::from(&blocked(reason::CREDENTIALS_REFUSED)), Retry::Slow);
    let failed = Blocked::retrying(type_::AUTHORIZED, reason::EXTERNAL_SYSTEM_FAILED, "");
    assert_eq!(Retry::from(&failed), Retry::Backoff);
    let busy = Blocked { retry_after: Some(std::time::Duration::from_secs(30)), ..failed };
    assert_eq!(Retry::from(&busy), Retry::After(std::time::Duration::from_secs(30)));
}
