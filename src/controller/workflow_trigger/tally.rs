//! Writes what the ingress has counted, and which runners are gone, into the statuses of WorkflowTriggers.

use crate::api::{Counts, RunnerGone, Tally, WorkflowTrigger, WorkflowTriggerStatus};
use crate::controller::{Context, Failure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// Field manager of the counts. They have one of their own, so that it need not know the rest of the status.
const COUNTER: &str = "bellhop-tally";
/// Field manager of what is said of a runner that is gone.
const PAUSER: &str = "bellhop-pause";
/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was written last. The store may be behind it.
#[derive(Default)]
pub struct Totals(HashMap<Uuid, (Counts, i64)>);

impl Totals {
    /// Adds to the counts of these triggers; gives back what could not be written. A trigger that is gone needs none.
    pub async fn write(&mut self, context: &Context, due: Vec<(Uuid, Tally)>) -> Vec<(Uuid, Tally)> {
        let mut unwritten = Vec::new();
        for (uid, tally) in due {
            let Some(trigger) = context.triggers.by_uid(uid) else { continue };
            let (counts, last) = sum(trigger.status.as_ref(), self.0.get(&uid), &tally);
            let last_fired = Timestamp::from_millisecond(last).ok().filter(|_| last > 0);
            // The API has seconds.
            let last_fired = last_fired.and_then(|time| Timestamp::from_second(time.as_second()).ok()).map(Time);
            let status = WorkflowTriggerStatus { counts: Some(counts), last_fired, ..Default::default() };
            match write(context, COUNTER, &trigger, &status).await {
                Ok(()) => drop(self.0.insert(uid, (counts, last))),
                Err(failure) => {
                    tracing::debug!(name = trigger.name_any(), %failure, "counts were not written; they come again");
                    unwritten.push((uid, tally));
                }
            }
        }
        if self.0.len() > 2 * context.triggers.store().len() + 100 {
            self.0.retain(|uid, _| context.triggers.by_uid(*uid).is_some());
        }
        unwritten
    }
}

/// The counts after `tally`, and when the trigger last fired (Unix milliseconds; 0 is never): what is in the status or was
/// written last, whichever is more, and what comes on top.
fn sum(status: Option<&WorkflowTriggerStatus>, written: Option<&(Counts, i64)>, tally: &Tally) -> (Counts, i64) {
    let shown = status.and_then(|status| status.counts).unwrap_or_default();
    let shown_last = status.and_then(|status| status.last_fired.as_ref()).map_or(0, |time| time.0.as_millisecond());
    let (written, written_last) = written.copied().unwrap_or_default();
    let count = |shown: i64, written: i64, more: u64| {
        shown.max(written).saturating_add(i64::try_from(more).unwrap_or(i64::MAX))
    };
    let counts = Counts {
        fired: count(shown.fired, written.fired, tally.fired),
        filtered: count(shown.filtered, written.filtered, tally.filtered),
        failed: count(shown.failed, written.failed, tally.failed),
    };
    (counts, shown_last.max(written_last).max(i64::try_from(tally.last_fired).unwrap_or_default()))
}

/// Notes on these triggers that their runner is gone. What cannot be written is reported again.
pub async fn write_gone(context: &Context, gone: &HashMap<Uuid, RunnerGone>) {
    for (uid, state) in gone {
        let Some(trigger) = context.triggers.by_uid(*uid) else { continue };
        let shown = trigger.status.as_ref().and_then(|status| status.runner_gone.as_ref());
        // The trigger may have changed meanwhile; then it is not paused any more.
        if shown == Some(state) || RunnerGone::state_of(&trigger) != *state {
            continue;
        }
        let status = WorkflowTriggerStatus { runner_gone: Some(state.clone()), ..Default::default() };
        if let Err(failure) = write(context, PAUSER, &trigger, &status).await {
            tracing::warn!(name = trigger.name_any(), %failure, "that a runner is gone was not written yet");
        }
    }
}

/// Forgets that the runner was gone, once the trigger is in another state: it could come back to the old one.
///
/// # Errors
/// The API server failed.
pub async fn forget_gone(context: &Context, trigger: &WorkflowTrigger) -> Result<(), Failure> {
    write(context, PAUSER, trigger, &WorkflowTriggerStatus::default()).await
}

/// Applies a part of the status, as this field manager.
///
/// # Errors
/// The API server failed, or took too long.
pub async fn write(
    context: &Context,
    manager: &str,
    trigger: &WorkflowTrigger,
    status: &WorkflowTriggerStatus,
) -> Result<(), Failure> {
    let api = Api::<WorkflowTrigger>::namespaced(context.client.clone(), &trigger.namespace().unwrap_or_default());
    let written = tokio::time::timeout(PATIENCE, context.apply_status(manager, &api, trigger, status)).await;
    written.unwrap_or(Err(Failure::TooLong(PATIENCE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_grow_whatever_the_store_knows() {
        let tally = Tally { fired: 2, filtered: 1, failed: 0, last_fired: 9_000 };
        assert_eq!(sum(None, None, &tally), (Counts { fired: 2, filtered: 1, failed: 0 }, 9_000));
        let shown = Counts { fired: 10, filtered: 0, failed: 3 };
        let last_fired = Some(Time(Timestamp::from_second(20).unwrap()));
        let status = WorkflowTriggerStatus { counts: Some(shown), last_fired, ..Default::default() };
        assert_eq!(sum(Some(&status), None, &tally), (Counts { fired: 12, filtered: 1, failed: 3 }, 20_000));
        // The store has not seen the last write yet.
        let written = (Counts { fired: 15, filtered: 0, failed: 3 }, 30_500);
        assert_eq!(sum(Some(&status), Some(&written), &tally), (Counts { fired: 17, filtered: 1, failed: 3 }, 30_500));
    }
}
