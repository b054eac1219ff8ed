//! Which deliveries the scheduler has, and which of an ordered trigger may start. Plain and synchronous.
//!
//! A trigger's deliveries are known by their place in the order of receipt. With `delivery.ordered`, only the first of
//! them may start, and only while none is under way: so a delivery that waits for its next attempt holds back the rest of
//! its trigger, and of no other. One that comes late, or that was dead and is requeued, takes its place before those that
//! were received after it.

use crate::spool::PendingDelivery;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// The place of a delivery among those of its trigger. Before requests had numbers there was only their time.
type Place = (u64, u64, Uuid, u32);

fn place(delivery: &PendingDelivery) -> Place {
    (delivery.number, delivery.received_at, delivery.key.request, delivery.key.item)
}

/// The deliveries of one trigger.
#[derive(Debug, Default)]
struct Line {
    /// Every one that is neither delivered nor dead, and whether it came again meanwhile.
    known: BTreeMap<Place, bool>,
    /// Those that are due and may not start yet.
    held: BTreeMap<Place, PendingDelivery>,
    /// How many of them were let go and have not ended.
    under_way: usize,
}

/// The deliveries of all triggers.
#[derive(Debug, Default)]
pub struct Lines {
    lines: HashMap<Uuid, Line>,
    /// Triggers with deliveries that are held.
    holding: HashSet<Uuid>,
}

impl Lines {
    /// Takes note of a delivery; false if it is known, which is remembered until it ends.
    pub fn enter(&mut self, delivery: &PendingDelivery) -> bool {
        let line = self.lines.entry(delivery.key.trigger).or_default();
        match line.known.get_mut(&place(delivery)) {
            Some(again) => {
                *again = true;
                false
            }
            None => {
                line.known.insert(place(delivery), false);
                true
            }
        }
    }

    /// Lets a delivery go that is due.
    pub fn start(&mut self, delivery: &PendingDelivery) {
        self.lines.entry(delivery.key.trigger).or_default().under_way += 1;
    }

    /// Forgets a delivery that was let go; true if it came again meanwhile.
    pub fn end(&mut self, delivery: &PendingDelivery) -> bool {
        let trigger = delivery.key.trigger;
        let Some(line) = self.lines.get_mut(&trigger) else { return false };
        line.under_way = line.under_way.saturating_sub(1);
        let again = line.known.remove(&place(delivery)).unwrap_or_default();
        if line.known.is_empty() {
            self.lines.remove(&trigger);
            self.holding.remove(&trigger);
        }
        again
    }

    /// Keeps a delivery that is due until it may start.
    pub fn hold(&mut self, delivery: PendingDelivery) {
        let trigger = delivery.key.trigger;
        self.lines.entry(trigger).or_default().held.insert(place(&delivery), delivery);
        self.holding.insert(trigger);
    }

    /// The delivery of an ordered trigger that may start, if it is due.
    pub fn head(&self, trigger: Uuid) -> Option<&PendingDelivery> {
        let line = self.lines.get(&trigger).filter(|line| line.under_way == 0)?;
        let (first, _) = line.known.first_key_value()?;
        line.held.get(first)
    }

    /// Takes that delivery out of those that are held.
    pub fn take_head(&mut self, trigger: Uuid) -> Option<PendingDelivery> {
        let first = place(self.head(trigger)?);
        self.take(trigger, first)
    }

    /// Takes any of those that are held, for a trigger that is not ordered any more.
    pub fn take_any(&mut self, trigger: Uuid) -> Option<PendingDelivery> {
        let first = *self.lines.get(&trigger)?.held.first_key_value()?.0;
        self.take(trigger, first)
    }

    fn take(&mut self, trigger: Uuid, place: Place) -> Option<PendingDelivery> {
        let line = self.lines.get_mut(&trigger)?;
        let taken = line.held.remove(&place);
        if line.held.is_empty() {
            self.holding.remove(&trigger);
        }
        taken
    }

    /// The deliveries that are held, those of each trigger together; none is empty.
    pub fn held(&self) -> impl Iterator<Item = impl Iterator<Item = &PendingDelivery> + Clone> {
        self.holding.iter().filter_map(|trigger| self.lines.get(trigger)).map(|line| line.held.values())
    }

    /// Triggers with deliveries that are held.
    pub fn holding(&self) -> &HashSet<Uuid> {
        &self.holding
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::DeliveryKey;

    const TRIGGER: Uuid = Uuid::from_u128(1);

    fn delivery(number: u64, item: u32) -> PendingDelivery {
        // Ids say nothing of the order.
        let request = Uuid::from_u128(1000 - u128::from(number));
        let key = DeliveryKey { request, item, trigger: TRIGGER };
        PendingDelivery { key, subscription: Uuid::nil(), number, received_at: 0, attempts: 0, due_at: 0 }
    }

    fn next(lines: &mut Lines) -> Option<(u64, u32)> {
        let next = lines.take_head(TRIGGER)?;
        lines.start(&next);
        Some((next.number, next.key.item))
    }

    fn enter_due(lines: &mut Lines, delivery: PendingDelivery) {
        assert!(lines.enter(&delivery));
        lines.hold(delivery);
    }

    #[test]
    fn one_at_a_time_in_the_order_of_receipt() {
        let mut lines = Lines::default();
        for (number, item) in [(3, 0), (1, 1), (2, 0), (1, 0)] {
            enter_due(&mut lines, delivery(number, item));
        }
        for expected in [(1, 0), (1, 1), (2, 0), (3, 0)] {
            assert_eq!(next(&mut lines), Some(expected));
            assert_eq!(next(&mut lines), None, "one is under way");
            lines.end(&delivery(expected.0, expected.1));
        }
        assert!(lines.lines.is_empty() && lines.holding.is_empty());
    }

    #[test]
    fn one_that_waits_for_its_next_attempt_holds_back_the_others() {
        let mut lines = Lines::default();
        enter_due(&mut lines, delivery(1, 0));
        enter_due(&mut lines, delivery(2, 0));
        assert_eq!(next(&mut lines), Some((1, 0)));
        lines.end(&delivery(1, 0));
        assert!(lines.enter(&delivery(1, 0)), "it failed, and is not due yet");
        assert_eq!(next(&mut lines), None);
        lines.hold(delivery(1, 0));
        assert_eq!(next(&mut lines), Some((1, 0)));
        lines.end(&delivery(1, 0));
        assert_eq!(next(&mut lines), Some((2, 0)), "it was delivered, or given up");
    }

    #[test]
    fn a_late_one_takes_its_place() {
        let mut lines = Lines::default();
        for number in [5, 6] {
            enter_due(&mut lines, delivery(number, 0));
        }
        assert_eq!(next(&mut lines), Some((5, 0)));
        enter_due(&mut lines, delivery(2, 0));
        lines.end(&delivery(5, 0));
        assert_eq!(next(&mut lines), Some((2, 0)));
    }

    #[test]
    fn what_comes_twice_is_there_once() {
        let mut lines = Lines::default();
        enter_due(&mut lines, delivery(1, 0));
        assert!(!lines.enter(&delivery(1, 0)));
        assert_eq!(next(&mut lines), Some((1, 0)));
        assert!(lines.end(&delivery(1, 0)), "it came again");
        assert!(lines.enter(&delivery(1, 0)));
    }

    #[test]
    fn a_trigger_that_is_ordered_no_more_lets_all_go() {
        let mut lines = Lines::default();
        (1..=3).for_each(|number| enter_due(&mut lines, delivery(number, 0)));
        assert_eq!(std::iter::from_fn(|| lines.take_any(TRIGGER)).count(), 3);
        assert!(lines.holding().is_empty());
    }
}
