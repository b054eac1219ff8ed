//! Reads a request back from the log, with all that happened to it.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{
    Shared, SpoolError,
    frame::{AttemptRecord, MatchRecord},
    index::Index,
    record::{ATTEMPTS_KEPT, Delivery, Entry},
    segment::{Loc, Segment},
};

/// A record to read.
type Place = (Arc<Segment>, Loc);

/// What the index says about a request: enough to read it without holding the lock.
struct Plan {
    base: Place,
    matched: Option<Place>,
    deliveries: Vec<(Delivery, Vec<Place>)>,
    dead: Option<String>,
    since: u64,
    touched: u64,
    number: u64,
}

fn plan(index: &Index, id: Uuid) -> Option<Plan> {
    let slot = index.slots.get(&id)?;
    let place = |loc: &Loc| Some((index.parts.get(&loc.segment)?.segment.clone(), *loc));
    let deliveries = slot.lines.iter().map(|line| {
        let places = line.attempts.iter().filter_map(place).collect();
        (slot.delivery(line), places)
    });
    Some(Plan {
        base: place(&slot.base)?,
        matched: slot.matched_at.as_ref().and_then(place),
        deliveries: deliveries.collect(),
        dead: slot.dead.as_deref().map(str::to_owned),
        since: slot.since(),
        touched: slot.touched(),
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
    for (mut delivery, places) in plan.deliveries {
        if let Some(e) = earlier.iter().find(|e| e.key == delivery.key) {
            delivery.attempts.clone_from(&e.attempts);
        }
        for place in &places {
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
    entry.number = plan.number;
    Ok(Some(entry))
}

fn record<T: DeserializeOwned>((segment, loc): &Place) -> Result<Option<T>, SpoolError> {
    Ok(segment.read(*loc)?.and_then(|(meta, _)| serde_json::from_slice(&meta).ok()))
}
