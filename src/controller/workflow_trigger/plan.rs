//! Whether a WorkflowTrigger will fire: decided without I/O.

use crate::api::{Mode, Subscription, WorkflowTrigger, reason, type_};
use crate::controller::PluginState;
use crate::delivery::Runners;
use crate::plugin::{Outgoing, Plugin, TriggerMistake, join};
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

/// Judges a trigger by what it refers to.
pub fn judge(
    trigger: &WorkflowTrigger,
    subscription: Option<&Subscription>,
    plugin: &PluginState,
    runners: &Runners,
    found: &Found,
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
    if let Err(error) = runners.url(&trigger.namespace().unwrap_or_default(), &spec.runner) {
        return Verdict::mistake(reason::RUNNER_NOT_ALLOWED, error.to_string());
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
        Mode::Published => (reason::BOUND, "fires on every event that matches"),
        Mode::Draft => (reason::DRAFT, "valid; in mode Draft it fires only while somebody listens"),
        Mode::Suspended => (reason::SUSPENDED, "valid; in mode Suspended it never fires"),
    };
    Verdict { ready: true, reason, message: message.to_owned(), stalled: false }
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
    use serde_json::{Value, json};

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
            let verdict = judge(&trigger(runner), Some(&subscription), &PluginState::NotFound, &runners, found);
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
