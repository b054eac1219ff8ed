//! What can be accepted, and what an accepted Subscription is held up by.

use super::*;
use crate::api::{reason, type_};

#[test]
fn a_spec_that_differs_from_what_was_accepted_stops_everything() {
    let mut case = Case::new(gitea(), good_spec());
    case.custody = Some(custody(&case.subscription));
    let mut spec = good_spec();
    spec["parameters"]["repository"] = json!("other");
    case.subscription = subscription(spec);
    let blocked = case.blocked();
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
        let blocked = Case::new(gitea(), spec).blocked();
        assert_eq!((blocked.condition, blocked.reason, blocked.stalled), (type_::ACCEPTED, reason, true));
        assert!(blocked.message.contains(named), "{}", blocked.message);
    }
}

#[test]
fn a_method_that_is_not_offered_is_refused_with_those_that_are() {
    let mut spec = good_spec();
    spec["parameters"] = json!({});
    spec["authorization"] = json!({"oauth2": {}});
    let blocked = Case::new(plugin_with(json!({})), spec).blocked();
    assert_eq!(blocked.reason, reason::METHOD_NOT_OFFERED);
    assert!(blocked.message.contains("spec.authorization.oauth2") && blocked.message.contains("apiKey, manual"));
}

#[test]
fn by_hand_a_secret_is_generated_given_or_told_by_the_external_system() {
    let origin = |plugin: PluginState, manual: Value| {
        let mut spec = manual_spec(manual);
        spec["parameters"] = json!({});
        match Case::new(plugin, spec).step() {
            Step::Accept { origin, .. } => Ok(origin),
            Step::Blocked(blocked) => Err(blocked),
            step => panic!("{step:?}"),
        }
    };
    let given = json!({"secretRef": {"name": "mine"}});
    assert_eq!(origin(plugin_with(json!({})), json!({})), Ok(SecretOrigin::Generated));
    assert_eq!(origin(plugin_with(json!({})), given.clone()), Ok(SecretOrigin::Given));
    // Stripe shows the secret where the webhook is made: only the person can bring it.
    let tells = || {
        let capture = json!({"id": "response.body.id", "secret": "response.body.secret"});
        plugin_with(json!({"create": {"body": "{'url': callback.url}", "capture": capture}}))
    };
    let blocked = origin(tells(), json!({})).unwrap_err();
    assert_eq!((blocked.condition, blocked.reason), (type_::ACCEPTED, reason::METHOD_NOT_OFFERED));
    assert!(blocked.message.contains("spec.authorization.manual.secretRef") && blocked.message.contains("gitea"));
    assert_eq!(origin(tells(), given), Ok(SecretOrigin::Given));
}

#[test]
fn a_plugin_that_is_missing_or_broken_is_waited_for_and_costs_an_accepted_one_nothing() {
    for (plugin, reason) in [
        (PluginState::NotFound, reason::PLUGIN_NOT_FOUND),
        (PluginState::Broken("spec.callback.event: no".into()), reason::PLUGIN_NOT_READY),
    ] {
        let mut case = Case::new(plugin, good_spec());
        let waiting = case.blocked();
        assert_eq!((waiting.condition, waiting.reason, waiting.stalled), (type_::ACCEPTED, reason, false));
        case.custody = Some(custody(&case.subscription));
        assert_eq!(case.blocked().condition, type_::READY);
    }
}
