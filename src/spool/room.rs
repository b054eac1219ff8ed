//! Keeps room at the end of the log by emptying its oldest segment: what is finished there is
//! forgotten, what is not is moved to the end. A little goes with every commit, so that no commit
//! has to wait for all of it.

use tracing::error;
use uuid::Uuid;

use super::{
    files::{Files, Spare},
    frame::Frame,
    index::{Change, Index},
    reader,
    record::Status,
    writer::{Batch, Writer},
};

/// Below this many free segments the oldest one is emptied bit by bit, …
const EASY: u64 = 6;
/// … and below this many all at once.
const TIGHT: u64 = 3;
/// The least that is moved with one commit.
const STEP: u64 = 1 << 20;
/// Most requests that are looked at with one commit; more than can come in with one.
const STEP_REQUESTS: usize = 1024;

impl Writer {
    /// Adds to a new batch what has to be moved.
    pub fn make_room(&mut self, batch: &mut Batch) {
        let size = self.shared.limits.segment_size();
        loop {
            let (room, moving) = {
                let mut index = self.shared.index();
                let room = room(&index);
                if room >= EASY * size {
                    return;
                }
                let budget =
                    if room < TIGHT * size { (u64::MAX, usize::MAX) } else { (STEP.min(size / 4), STEP_REQUESTS) };
                let moving = self.empty_oldest(&mut index, budget);
                if moving.is_empty() {
                    self.files.release(&mut index);
                }
                (room, moving)
            };
            let found_any = !moving.is_empty();
            for (segment, id) in moving {
                batch.moving.push((segment, id));
                self.move_request(id, batch);
            }
            // Only what could be forgotten without moving anything gave room at once.
            let gained = self::room(&self.shared.index()) > room;
            if found_any || !gained || room >= TIGHT * size {
                return;
            }
        }
    }

    fn move_request(&self, id: Uuid, batch: &mut Batch) {
        match reader::load(&self.shared, id) {
            Ok(Some(mut entry)) => {
                let frame = Frame::entry(&entry);
                entry.request.body = Default::default();
                batch.push(frame, Change::Entry(Box::new(entry)));
            }
            Ok(None) => {}
            Err(e) => {
                // Its segment is about to be overwritten, and there is nothing left to save.
                error!(request = %id, error = %e, "a request is lost: its record cannot be read");
                let mut index = self.shared.index();
                index.remove(id);
                index.usage.damaged += 1;
            }
        }
    }

    /// Takes requests out of the oldest segment until about `budget` bytes have to be moved, or
    /// that many were looked at, and returns those to be moved, with the segment. Finished ones are forgotten.
    fn empty_oldest(&self, index: &mut Index, budget: (u64, usize)) -> Vec<(u64, Uuid)> {
        let mut moving = Vec::new();
        let (mut bytes, mut seen) = (0, 0);
        let Some((&segment, _)) = index.parts.first_key_value() else {
            return moving;
        };
        if Some(segment) == self.files.active_sequence() {
            return moving;
        }
        while bytes < budget.0 && seen < budget.1 {
            seen += 1;
            let part = index.parts.get_mut(&segment).expect("just seen");
            let Some(id) = part.homes.pop_front() else {
                break;
            };
            match index.slots.get(&id) {
                Some(s) if s.base.segment == segment && s.status() == Status::Finished => {
                    index.remove(id);
                    index.usage.evicted += 1;
                }
                Some(s) if s.base.segment == segment => {
                    bytes += s.bytes();
                    moving.push((segment, id));
                }
                _ => {}
            }
        }
        moving
    }

    /// Undoes [`Self::empty_oldest`] for requests whose move failed.
    pub fn put_back(&self, moving: &[(u64, Uuid)]) {
        let mut index = self.shared.index();
        for (segment, id) in moving {
            if let Some(part) = index.parts.get_mut(segment) {
                part.homes.push_back(*id);
            }
        }
    }
}

impl Files {
    /// Frees the oldest segments as far as nothing is left in them.
    pub fn release(&mut self, index: &mut Index) {
        while let Some(first) = index.parts.first_entry()
            && first.get().homes.is_empty()
            && Some(*first.key()) != self.active_sequence()
        {
            let part = first.remove();
            self.spare.push_back(Spare { path: part.segment.path.clone(), size: part.size });
        }
    }

    /// Frees the oldest segments as far as everything in them was forgotten or moved.
    pub fn reclaim_empty(&mut self, index: &mut Index) {
        let active = self.active_sequence();
        for (&sequence, part) in &mut index.parts {
            if Some(sequence) == active {
                break;
            }
            let slots = &index.slots;
            let here = |id: &Uuid| slots.get(id).is_some_and(|s| s.base.segment == sequence);
            while part.homes.front().is_some_and(|id| !here(id)) {
                part.homes.pop_front();
            }
            if !part.homes.is_empty() {
                break;
            }
        }
        self.release(index);
    }
}

/// Bytes that segments in use leave free.
fn room(index: &Index) -> u64 {
    let used = index.parts.values().map(|p| p.size).sum();
    index.limits.max_bytes.saturating_sub(used)
}
