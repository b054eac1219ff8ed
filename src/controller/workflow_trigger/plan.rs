//! Whether a WorkflowTrigger will fire: decided without I/O.

use crate::api::{LISTEN_ANNOTATION, Listening, Mode, RESUME_ANNOTATION, RunnerGone};
use crate::api::{Subscription, WorkflowTrigger, reason, type_};
use crate::controller::PluginState;
use crate::delivery::Runners;
use crate::plugin::{Outgoing, Plugin, TriggerMistake, join};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

/// The answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Nothing is in the way.
    pub ready: bool,
    /// The condition's reason.
    pub reason: &'static str,
    /// The condition's message.
    pub message: String,
    /// Somebody has to change the trigger (kstatus `Stalled`).
    pub stalled: bool,
}

impl Verdict {
    fn waiting(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ready: false, reason, message: message.into(), stalled: false }
    }

    fn mistake(reason: &'static str, message: impl Into<String>) -> Self {
        Self { stalled: true, ..Self::waiting(reason, message) }
    }
}

/// Something that the runner needs and that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The condition's reason.
    pub reason: &'static str,
    /// The condition's message.
    pub message: String,
}

/// What was found of what the runner needs: its Secrets, and its Service. Somebody else makes them, so the trigger waits.
pub type Found = Result<(), Missing>;

/// Looks whether the Service of the runner is among those that are there.
///
/// # Errors
/// The Service is missing.
pub fn service(trigger: &WorkflowTrigger, is_there: impl Fn(&str, &str) -> bool) -> Found {
    let (Some(service), Some(namespace)) = (&trigger.spec.runner.service, trigger.namespace()) else { return Ok(()) };
    if is_there(&namespace, &service.name) {
        return Ok(());
    }
    let message = format!(
        "spec.runner.service.name: there is no Service \"{}\" in the namespace {namespace}; events wait for it, as long as \
         there are attempts",
        service.name
    );
    Err(Missing { reason: reason::RUNNER_NOT_FOUND, message })
}

/// Judges a trigger by what it refers to. `listening` is until when it listens, if it does now.
pub fn judge(
    trigger: &WorkflowTrigger,
    subscription: Option<&Subscription>,
    plugin: &PluginState,
    runners: &Runners,
    found: &Found,
    listening: Option<&Listening>,
) -> Verdict {
    let spec = &trigger.spec;
    let Some(subscription) = subscription else {
        let name = &spec.subscription_ref.name;
        let message = format!("spec.subscriptionRef.name: there is no Subscription \"{name}\" in this namespace");
        return Verdict::waiting(reason::SUBSCRIPTION_NOT_FOUND, message);
    };
    if let PluginState::Ready(plugin) = plugin
        && let Err(verdict) = check_against(trigger, subscription, plugin)
    {
        return verdict;
    }
    let compiled = match plugin {
        PluginState::Ready(plugin) => plugin.compile_runner(&spec.event, &spec.runner),
        _ => Outgoing::compile(&spec.runner, None),
    };
    if let Err(mistakes) = compiled {
        return Verdict::mistake(reason::INVALID_RUNNER, join(&mistakes));
    }
    if let Err(error) = runners.check(&trigger.namespace().unwrap_or_default(), &spec.runner) {
        return Verdict::mistake(reason::RUNNER_NOT_ALLOWED, error.to_string());
    }
    if RunnerGone::pauses(trigger) {
        let message = format!(
            "the runner answered 410 Gone, so nothing fires until the spec is changed or the annotation \
             {RESUME_ANNOTATION} gets another value"
        );
        return Verdict::mistake(reason::RUNNER_GONE, message);
    }
    if let Err(missing) = found {
        return Verdict::waiting(missing.reason, missing.message.clone());
    }
    let ready = subscription.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == type_::READY);
    if ready.is_none_or(|ready| ready.status != "True") {
        let why =
            ready.map(|ready| format!("{}: {}", ready.reason, ready.message)).unwrap_or("not seen yet".to_owned());
        let message = format!("the Subscription \"{}\" is not ready: {why}", spec.subscription_ref.name);
        return Verdict::waiting(reason::SUBSCRIPTION_NOT_READY, message);
    }
    let (reason, message) = match spec.mode {
        Mode::Published => (reason::BOUND, "fires on every event that matches".to_owned()),
        Mode::Draft => draft(trigger, listening),
        Mode::Suspended => (reason::SUSPENDED, "valid; in mode Suspended it never fires".to_owned()),
    };
    Verdict { ready: true, reason, message, stalled: false }
}

fn draft(trigger: &WorkflowTrigger, listening: Option<&Listening>) -> (&'static str, String) {
    if let Some(listening) = listening {
        let until = listening.until.0;
        return (reason::LISTENING, format!("captures every event that matches until {until}, and delivers none"));
    }
    let valid = "valid; in mode Draft it captures events only while somebody listens";
    let asked = trigger.metadata.annotations.as_ref().and_then(|annotations| annotations.get(LISTEN_ANNOTATION));
    let message = match asked.map(|asked| (asked, asked.parse::<Timestamp>())) {
        Some((asked, Err(_))) => {
            format!(
                "{valid}; the annotation {LISTEN_ANNOTATION} is {asked:?}, expected a time like 2026-01-31T12:00:00Z"
            )
        }
        _ => valid.to_owned(),
    };
    (reason::DRAFT, message)
}

/// Checks what the plugin has a say in: event, parameters and filter.
fn check_against(trigger: &WorkflowTrigger, subscription: &Subscription, plugin: &Plugin) -> Result<(), Verdict> {
    let spec = &trigger.spec;
    match plugin.compile_trigger(&spec.event, &spec.parameters, spec.filter.as_deref()) {
        Ok(_) => {}
        Err(mistake @ TriggerMistake::UnknownEvent { .. }) => {
            return Err(Verdict::mistake(reason::UNKNOWN_EVENT, mistake.to_string()));
        }
        Err(mistake @ TriggerMistake::InvalidParameters(_)) => {
            return Err(Verdict::mistake(reason::INVALID_PARAMETERS, mistake.to_string()));
        }
        Err(mistake @ TriggerMistake::InvalidFilter(_)) => {
            return Err(Verdict::mistake(reason::INVALID_FILTER, mistake.to_string()));
        }
    }
    let pinned = subscription.status.as_ref().map(|status| &status.events).filter(|events| !events.is_empty());
    let subscribed = pinned.or(subscription.spec.events.as_ref());
    if let Some(events) = subscribed
        && !events.contains(&spec.event)
    {
        let message = format!(
            "spec.event: \"{}\" is not among the events of the Subscription \"{}\" ({}); a Subscription cannot be \
             changed, so create one with this event",
            spec.event,
            spec.subscription_ref.name,
            events.join(", ")
        );
        return Err(Verdict::mistake(reason::EVENT_NOT_SUBSCRIBED, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    fn judged(mode: &str, annotations: Value, gone: Option<i64>, listening: Option<&Listening>) -> Verdict {
        let trigger: WorkflowTrigger = serde_json::from_value(json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "WorkflowTrigger",
            "metadata": {"name": "t", "namespace": "team-a", "generation": 3, "annotations": annotations},
            "spec": {
                "subscriptionRef": {"name": "s"}, "event": "push", "workflow": "w", "mode": mode,
                "runner": {"service": {"name": "runner", "port": 80}},
            },
            "status": {"runnerGone": gone.map(|generation| json!({"generation": generation}))},
        }))
        .unwrap();
        let subscription: Subscription = serde_json::from_value(json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription", "metadata": {"name": "s"},
            "spec": {"pluginRef": {"name": "p"}, "authorization": {"manual": {}}},
            "status": {"conditions": [{
                "type": "Ready", "status": "True", "reason": "Ready", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        }))
        .unwrap();
        let runners = Runners::new("cluster.local", &[]).unwrap();
        judge(&trigger, Some(&subscription), &PluginState::NotFound, &runners, &Ok(()), listening)
    }

    #[test]
    fn a_draft_says_until_when_it_listens_and_what_is_wrong_with_the_time() {
        let listening = Listening { requested: "x".into(), until: Time("2026-01-01T10:00:00Z".parse().unwrap()) };
        let listens = judged("Draft", json!({}), None, Some(&listening));
        assert_eq!((listens.ready, listens.reason), (true, "Listening"));
        assert!(listens.message.contains("2026-01-01T10:00:00Z"), "{}", listens.message);
        let wrong = judged("Draft", json!({LISTEN_ANNOTATION: "in 5 minutes"}), None, None);
        assert_eq!((wrong.ready, wrong.reason), (true, "Draft"));
        assert!(
            wrong.message.contains(LISTEN_ANNOTATION) && wrong.message.contains("in 5 minutes"),
            "{}",
            wrong.message
        );
        let over = judged("Draft", json!({LISTEN_ANNOTATION: "2020-01-01T00:00:00Z"}), None, None);
        assert_eq!(over, judged("Draft", json!({}), None, None));
    }

    #[test]
    fn a_runner_that_is_gone_is_gone_for_one_state_of_the_trigger() {
        let paused = judged("Published", json!({}), Some(3), None);
        assert_eq!((paused.ready, paused.stalled, paused.reason), (false, true, "RunnerGone"));
        assert!(paused.message.contains(RESUME_ANNOTATION), "{}", paused.message);
        for resumed in [
            judged("Published", json!({}), Some(2), None),
            judged("Published", json!({RESUME_ANNOTATION: "1"}), Some(3), None),
            judged("Published", json!({}), None, None),
        ] {
            assert_eq!((resumed.ready, resumed.reason), (true, "Bound"));
        }
    }

    fn trigger(runner: Value) -> WorkflowTrigger {
        let object = json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "WorkflowTrigger",
            "metadata": {"name": "t", "namespace": "team-a"},
            "spec": {"subscriptionRef": {"name": "web"}, "event": "push", "workflow": "w", "runner": runner},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_service_is_looked_for_in_the_triggers_namespace() {
        let there = |namespace: &str, name: &str| (namespace, name) == ("team-a", "runner");
        assert_eq!(service(&trigger(json!({"service": {"name": "runner", "port": 80}})), there), Ok(()));
        assert_eq!(service(&trigger(json!({"url": "https://runner.example/"})), |_, _| false), Ok(()));
        let missing = service(&trigger(json!({"service": {"name": "runer", "port": 80}})), there).unwrap_err();
        assert_eq!(missing.reason, reason::RUNNER_NOT_FOUND);
        assert!(missing.message.contains("spec.runner.service.name") && missing.message.contains("\"runer\""));
    }

    #[test]
    fn what_somebody_else_has_to_make_is_waited_for_and_a_mistake_is_not() {
        let runners = Runners::new("cluster.local", &[]).unwrap();
        let subscription: Subscription = serde_json::from_value(json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription", "metadata": {"name": "web"},
            "spec": {"pluginRef": {"name": "forge"}, "authorization": {"manual": {}}},
        }))
        .unwrap();
        let judge = |runner: Value, found: &Found| {
            let verdict = judge(&trigger(runner), Some(&subscription), &PluginState::NotFound, &runners, found, None);
            (verdict.reason, verdict.stalled)
        };
        let service = json!({"service": {"name": "runner", "port": 80}});
        assert_eq!(judge(service.clone(), &Ok(())), (reason::SUBSCRIPTION_NOT_READY, false));
        let missing = Err(Missing { reason: reason::SECRET_NOT_FOUND, message: String::new() });
        assert_eq!(judge(service, &missing), (reason::SECRET_NOT_FOUND, false));
        let wrong = json!({"service": {"name": "runner", "port": 80}, "headers": {"host": "'x'"}});
        assert_eq!(judge(wrong, &missing), (reason::INVALID_RUNNER, true));
        assert_eq!(judge(json!({"url": "https://x.example"}), &missing), (reason::RUNNER_NOT_ALLOWED, true));
    }
}
