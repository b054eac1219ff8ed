//! Having a request delivered (again), at the wish of a person.
//!
//! | The trigger | What a replay does |
//! |---|---|
//! | has a delivery that was taken or given up | it is pending again |
//! | has one that is pending | nothing: it will be delivered |
//! | did not want the event | nothing: what was decided stays decided |
//! | captured it, as a draft that somebody listened to | it is delivered |
//! | did not exist, or was not published, when the event came | the event is held against it now |
//!
//! The `ce-id` stays the same. With a new identity (deleted and made again under its name), a trigger did not exist then.

use super::Log;
use super::model::{ReplayWish, Replayed, ReplayedDelivery};
use crate::delivery::match_request;
use crate::ingress::now_millis;
use crate::routes::Lookup;
use crate::spool::{DeliveryState, Entry, Matched, ReplayLine, SpoolError, TriggerOutcome};
use crate::turns::in_turn;
use tokio::task::spawn_blocking;
use uuid::Uuid;

/// Why a request is not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such request.
    #[error("there is no such request in the log; it may have been too old")]
    NotFound,
    /// It cannot be done, for a reason that people can read.
    #[error("{0}")]
    Conflict(String),
    /// The spool failed.
    #[error(transparent)]
    Failed(#[from] SpoolError),
}

impl Log {
    /// Makes deliveries of a request pending and says which.
    ///
    /// # Errors
    /// There is nothing to replay, or no room for it, or the disk fails.
    pub async fn replay(&self, namespace: &str, id: Uuid, wish: &ReplayWish) -> Result<Replayed, ReplayError> {
        let spool = self.0.spool.clone();
        let entry = spawn_blocking(move || spool.entry(id)).await.map_err(|_| SpoolError::Stopped)??;
        let Some(entry) = entry.filter(|entry| entry.request.namespace == namespace) else {
            let passing = self.passing(namespace);
            return Err(match passing.iter().find(|request| request.metadata.uid == id) {
                Some(request) => ReplayError::Conflict(format!(
                    "the request was not stored (its outcome is {}), so there is nothing to deliver",
                    request.outcome.as_str()
                )),
                None => ReplayError::NotFound,
            });
        };
        let Some(matched) = &entry.matched else { return self.match_again(&entry, wish).await };
        let lines = match &wish.trigger {
            None => lines_of_all(&entry, wish.dead_letters)?,
            Some(trigger) => {
                let now = self.trigger_now(&entry, trigger).await?;
                lines_of_one(&entry, matched, trigger, now.as_ref(), wish.dead_letters)?
            }
        };
        let replayed = self.0.spool.replay(id, lines.clone(), wish.by.as_deref(), now_millis()).await;
        let keys = match replayed {
            Err(SpoolError::NoRoom(full)) => {
                return conflict(format!("there is no room to deliver it again now: {full}"));
            }
            replayed => replayed?,
        };
        let deliveries = keys.iter().filter_map(|key| {
            let event = matched.events.iter().find(|event| event.item == key.item)?;
            let line = lines.iter().find(|line| line.item == key.item && line.trigger == key.trigger)?;
            let trigger = line.added.as_ref().or_else(|| find(&entry, matched, key.item, key.trigger))?;
            Some(ReplayedDelivery { trigger: trigger.trigger.clone(), event: event.id })
        });
        Ok(Replayed { deliveries: deliveries.collect() })
    }

    /// A request that became a dead letter before it was matched is matched after all.
    async fn match_again(&self, entry: &Entry, wish: &ReplayWish) -> Result<Replayed, ReplayError> {
        if entry.dead.is_none() {
            return conflict("the request waits to be held against the triggers; there is nothing to replay yet");
        }
        if let Some(trigger) = &wish.trigger {
            return conflict(format!(
                "the request was never held against the triggers, {trigger} among them; replay it without naming a trigger"
            ));
        }
        self.0.spool.requeue(entry.request.id, now_millis()).await?;
        Ok(Replayed::default())
    }

    /// The trigger of this name as it is now, and what it says of the request's events; `None` if none is published, or a
    /// draft that listens.
    async fn trigger_now(&self, entry: &Entry, trigger: &str) -> Result<Option<Now>, ReplayError> {
        let route = match self.0.routes.by_uid(entry.request.subscription) {
            Lookup::Served(route) => route,
            Lookup::Waits { reason, .. } => return conflict(format!("the Subscription is not served: {reason}")),
            Lookup::Gone => return conflict("the Subscription was deleted, so nothing can be delivered for it"),
        };
        let at = now_millis();
        let mut awake = route.rules().iter().filter(|rule| rule.trigger.is_awake(at));
        let Some(rule) = awake.find(|rule| rule.trigger.name == trigger) else { return Ok(None) };
        let (uid, request) = (rule.trigger.uid, entry.request.clone());
        let matched = in_turn(&self.0.matches, move || match_request(&route, &request, at)).await;
        Ok(Some(Now { uid, matched: matched.map_err(|_| SpoolError::Stopped)? }))
    }
}

/// A trigger as it is now.
struct Now {
    uid: Uuid,
    matched: Matched,
}

fn conflict<T>(why: impl Into<String>) -> Result<T, ReplayError> {
    Err(ReplayError::Conflict(why.into()))
}

fn is_open(state: &DeliveryState, dead_letters: bool) -> bool {
    match state {
        DeliveryState::Pending { .. } => false,
        DeliveryState::Dead { .. } => true,
        DeliveryState::Delivered { .. } => !dead_letters,
    }
}

/// Every delivery that there is.
fn lines_of_all(entry: &Entry, dead_letters: bool) -> Result<Vec<ReplayLine>, ReplayError> {
    let open = entry.deliveries.iter().filter(|delivery| is_open(&delivery.state, dead_letters));
    let lines: Vec<ReplayLine> = open.map(|delivery| line(delivery.key.item, delivery.key.trigger)).collect();
    match (lines.is_empty(), dead_letters) {
        (false, _) => Ok(lines),
        (true, true) => conflict("the request has no dead letters"),
        (true, false) if entry.deliveries.is_empty() => {
            conflict("no trigger wanted the request; name the one that it is to be held against")
        }
        (true, false) => conflict("every delivery of the request is pending already"),
    }
}

/// The deliveries of one trigger, and those that it gets now.
fn lines_of_one(
    entry: &Entry,
    matched: &Matched,
    trigger: &str,
    now: Option<&Now>,
    dead_letters: bool,
) -> Result<Vec<ReplayLine>, ReplayError> {
    let (mut lines, mut refusals) = (Vec::new(), Vec::new());
    for event in matched.events.iter().filter(|event| event.skipped.is_none()) {
        // The identity that the name has now, else the one that it had.
        let added = entry.deliveries.iter().filter(|delivery| delivery.key.item == event.item);
        let added = added.filter_map(|delivery| delivery.added.as_ref());
        let then = event.triggers.iter().chain(added).filter(|t| t.trigger == trigger);
        let then: Vec<&TriggerOutcome> = then.collect();
        let known = match now {
            Some(now) => then.iter().find(|t| t.uid == now.uid),
            None => then.last(),
        };
        let Some(known) = known else {
            match now.map(|now| outcome_now(now, event.item)) {
                Some(Ok(outcome)) if !dead_letters => {
                    lines.push(ReplayLine { item: event.item, trigger: outcome.uid, added: Some(outcome) });
                }
                Some(Err(why)) => refusals.push(why),
                _ => {}
            }
            continue;
        };
        let of_trigger = |d: &&crate::spool::Delivery| d.key.item == event.item && d.key.trigger == known.uid;
        match (entry.deliveries.iter().find(of_trigger), &known.mismatch) {
            (Some(delivery), _) if is_open(&delivery.state, dead_letters) => lines.push(line(event.item, known.uid)),
            (Some(delivery), _) if matches!(delivery.state, DeliveryState::Pending { .. }) => {
                refusals.push(format!("its delivery to {trigger} is pending already"));
            }
            (Some(_), _) => refusals.push(format!("its delivery to {trigger} is no dead letter")),
            (None, Some(why)) => refusals.push(format!("{trigger} did not want the event {}: {why}", event.name)),
            (None, None) if dead_letters => refusals.push(format!("{trigger} has no dead letter of it")),
            (None, None) => lines.push(line(event.item, known.uid)),
        }
    }
    if !lines.is_empty() {
        return Ok(lines);
    }
    if refusals.is_empty() {
        return conflict(match now {
            None => format!(
                "the Subscription has no trigger {trigger} that is published, or a draft that listens, and the request was \
                 never held against it"
            ),
            Some(_) => format!("the request has nothing for the trigger {trigger}"),
        });
    }
    conflict(refusals.join("; "))
}

/// What the trigger says now of an event that it was not held against before.
fn outcome_now(now: &Now, item: u32) -> Result<TriggerOutcome, String> {
    let event = now.matched.events.iter().find(|event| event.item == item);
    let event = event.ok_or("the plugin reads the request in another way now")?;
    let trigger = event.triggers.iter().find(|trigger| trigger.uid == now.uid);
    let trigger = trigger.ok_or_else(|| format!("the trigger is for another event than {}", event.name))?;
    match &trigger.mismatch {
        Some(why) => Err(format!("{} does not want the event {}: {why}", trigger.trigger, event.name)),
        None => Ok(TriggerOutcome { captured: false, ..trigger.clone() }),
    }
}

fn find<'a>(entry: &'a Entry, matched: &'a Matched, item: u32, trigger: Uuid) -> Option<&'a TriggerOutcome> {
    let event = matched.events.iter().find(|event| event.item == item)?;
    let delivery = entry.deliveries.iter().find(|d| d.key.item == item && d.key.trigger == trigger);
    let added = delivery.and_then(|delivery| delivery.added.as_ref());
    added.or_else(|| event.triggers.iter().find(|t| t.uid == trigger))
}

fn line(item: u32, trigger: Uuid) -> ReplayLine {
    ReplayLine { item, trigger, added: None }
}
