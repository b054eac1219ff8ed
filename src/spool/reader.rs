//! Reads a request back from the log, with all that happened to it.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{
    Shared, SpoolError,
    frame::{AttemptRecord, MatchRecord, ReplayRecord},
    index::Index,
    record::{ATTEMPTS_KEPT, Answered, Delivery, Entry, ReplayLine},
    segment::{Loc, Segment},
};

/// A record to read.
type Place = (Arc<Segment>, Loc);

/// What the index says about a request: enough to read it without holding the lock.
struct Plan {
    base: Place,
    matched: Option<Place>,
    deliveries: Vec<Lines>,
    dead: Option<String>,
    since: u64,
    touched: u64,
    answered_after: Option<u32>,
    answered: Option<Box<Answered>>,
    number: u64,
}

/// The records of a delivery: of its attempts, its last replay, and the one that added it.
struct Lines {
    delivery: Delivery,
    attempts: Vec<Place>,
    replayed: Option<Place>,
    added: Option<Place>,
}

fn plan(index: &Index, id: Uuid) -> Option<Plan> {
    let slot = index.slots.get(&id)?;
    let place = |loc: &Loc| Some((index.parts.get(&loc.segment)?.segment.clone(), *loc));
    let deliveries = slot.lines.iter().map(|line| Lines {
        delivery: slot.delivery(line),
        attempts: line.attempts.iter().filter_map(place).collect(),
        replayed: line.replayed_at.as_ref().and_then(place),
        added: line.added_at.as_ref().and_then(place),
    });
    Some(Plan {
        base: place(&slot.base)?,
        matched: slot.matched_at.as_ref().and_then(place),
        deliveries: deliveries.collect(),
        dead: slot.dead.as_deref().map(str::to_owned),
        since: slot.since(),
        touched: slot.touched(),
        answered_after: slot.answered_after,
        answered: slot.answered.clone(),
        number: slot.number(),
    })
}

/// Reads a request; `None` if it is not in the spool.
///
/// # Errors
/// If the disk fails, or what is on it is damaged.
pub fn load(shared: &Shared, id: Uuid) -> Result<Option<Entry>, SpoolError> {
    loop {
        let Some(plan) = plan(&shared.index(), id) else {
            return Ok(None);
        };
        let base = plan.base.1;
        if let Some(entry) = read(plan)? {
            return Ok(Some(entry));
        }
        // Not whole: either the request was moved and its segment reused while we read, or it is
        // damaged.
        let moved = |i: &Index| i.slots.get(&id).is_none_or(|s| s.base != base);
        if !moved(&shared.index()) {
            return Err(SpoolError::Damaged { request: id });
        }
    }
}

fn read(plan: Plan) -> Result<Option<Entry>, SpoolError> {
    let Some((meta, body)) = plan.base.0.read(plan.base.1)? else {
        return Ok(None);
    };
    let Ok(mut entry) = serde_json::from_slice::<Entry>(&meta) else {
        return Ok(None);
    };
    entry.request.body = body;
    if let Some(place) = plan.matched {
        let Some(record) = record::<MatchRecord>(&place)? else {
            return Ok(None);
        };
        entry.matched = Some(record.matched);
    }
    let earlier = std::mem::take(&mut entry.deliveries);
    for Lines { mut delivery, attempts, replayed, added } in plan.deliveries {
        if let Some(e) = earlier.iter().find(|e| e.key == delivery.key) {
            delivery.attempts.clone_from(&e.attempts);
            delivery.replayed.clone_from(&e.replayed);
            delivery.added.clone_from(&e.added);
        }
        if let Some(place) = replayed {
            let Some(record) = record::<ReplayRecord>(&place)? else { return Ok(None) };
            delivery.replayed = Some(record.replayed);
        }
        if let Some(place) = added {
            let Some(record) = record::<ReplayRecord>(&place)? else { return Ok(None) };
            let own = |l: &ReplayLine| l.item == delivery.key.item && l.trigger == delivery.key.trigger;
            delivery.added = record.lines.into_iter().find(own).and_then(|l| l.added);
        }
        for place in &attempts {
            let Some(record) = record::<AttemptRecord>(place)? else {
                return Ok(None);
            };
            delivery.attempts.push(record.attempt);
        }
        let surplus = delivery.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        delivery.attempts.drain(..surplus);
        entry.deliveries.push(delivery);
    }
    (entry.dead, entry.since, entry.touched) = (plan.dead, plan.since, plan.touched);
    (entry.answered_after, entry.answered) = (plan.answered_after, plan.answered);
    entry.number = plan.number;
    Ok(Some(entry))
}

fn record<T: DeserializeOwned>((segment, loc): &Place) -> Result<Option<T>, SpoolError> {
    Ok(segment.read(*loc)?.and_then(|(meta, _)| serde_json::from_slice(&meta).ok()))
}
