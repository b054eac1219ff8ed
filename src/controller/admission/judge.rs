//! What is said of an object, by what is there; without I/O.

use crate::api::{Subscription, WorkflowTrigger, reason};
use crate::controller::PluginState;
use crate::controller::slots;
use crate::controller::subscription::valid;
use crate::controller::workflow_trigger::plan as trigger_plan;
use crate::delivery::Runners;

/// What is said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Fine,
    /// It is let in, and whoever applied it reads this.
    Warned(String),
    /// It is not let in.
    Refused(String),
}

/// Judges a new Subscription by its plugin.
pub fn judge_subscription(subscription: &Subscription, plugin: &PluginState) -> Verdict {
    match valid::plugin(&subscription.spec.plugin_ref.name, plugin) {
        // The plugin may come later.
        Err(mistake) => Verdict::Warned(mistake.message),
        Ok(plugin) => match valid::events(&subscription.spec, plugin) {
            Ok(_) => Verdict::Fine,
            Err(mistake) => Verdict::Refused(mistake.message),
        },
    }
}

/// Judges a new Subscription by those that are there: who `holds` a slot, and who waits and so comes first.
pub fn judge_crowd(cap: u32, plugin: &str, namespace: &str, holders: &[&str], waiting: &[&str]) -> Verdict {
    let cap_reached = cap as usize;
    if holders.len() + waiting.len() < cap_reached {
        return Verdict::Fine;
    }
    // Those that were created a moment ago are not accepted yet, and will be.
    let free = cap_reached.saturating_sub(holders.len());
    let (accepted, behind) = waiting.split_at(free.min(waiting.len()));
    let mut message = slots::taken(cap, plugin, namespace, holders.iter().chain(accepted).copied());
    if !behind.is_empty() {
        message.push_str(&format!("; {} wait for one ({})", behind.len(), slots::list(behind)));
    }
    Verdict::Refused(format!("{message}; delete one of them first"))
}

/// Judges a WorkflowTrigger by what it refers to, as far as that is there.
///
/// Whether an event is subscribed is no reason to refuse it in a dry run, nor while the Subscription is being deleted:
/// pipelines try all objects before they apply any, so that a new Subscription with another event and its trigger could
/// never be applied together.
pub fn judge_trigger(
    trigger: &WorkflowTrigger,
    subscription: Option<&Subscription>,
    plugin: &PluginState,
    runners: &Runners,
    dry_run: bool,
) -> Verdict {
    let replaced = dry_run || subscription.is_some_and(|found| found.metadata.deletion_timestamp.is_some());
    // Secrets and Services often come with the same `apply`, or later.
    let judged = trigger_plan::judge(trigger, subscription, plugin, runners, &Ok(()), None);
    match judged.reason {
        reason::UNKNOWN_EVENT | reason::INVALID_PARAMETERS | reason::INVALID_FILTER | reason::INVALID_RUNNER => {
            Verdict::Refused(judged.message)
        }
        reason::EVENT_NOT_SUBSCRIBED if !replaced => Verdict::Refused(judged.message),
        reason::EVENT_NOT_SUBSCRIBED | reason::SUBSCRIPTION_NOT_FOUND | reason::RUNNER_NOT_ALLOWED => {
            Verdict::Warned(judged.message)
        }
        _ => match subscription.map(|found| valid::plugin(&found.spec.plugin_ref.name, plugin)) {
            Some(Err(mistake)) => Verdict::Warned(format!(
                "spec.subscriptionRef.name: the Subscription \"{}\" has no plugin yet, so event, parameters and filter \
                 were not checked: {}",
                trigger.spec.subscription_ref.name, mistake.message
            )),
            Some(Ok(_)) | None => Verdict::Fine,
        },
    }
}
