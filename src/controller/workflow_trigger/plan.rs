//! Whether a WorkflowTrigger will fire: decided without I/O.

use crate::api::{Mode, Subscription, WorkflowTrigger, reason, type_};
use crate::controller::PluginState;
use crate::delivery::Runners;
use crate::plugin::{Plugin, TriggerMistake};
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

/// Judges a trigger by what it refers to.
pub fn judge(
    trigger: &WorkflowTrigger,
    subscription: Option<&Subscription>,
    plugin: &PluginState,
    runners: &Runners,
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
    if let Err(error) = runners.url(&trigger.namespace().unwrap_or_default(), &spec.runner) {
        return Verdict::mistake(reason::RUNNER_NOT_ALLOWED, error.to_string());
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
