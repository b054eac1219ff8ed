//! How much the spool may hold, and how much it holds.

use std::time::Duration;

use super::{books::Totals, error::OpenError, index::Index, record::Status};

/// Smallest segment.
const MIN_SEGMENT: u64 = 64 << 10;
/// Largest segment, unless a single record needs more.
const MAX_SEGMENT: u64 = 64 << 20;
/// Segments that fit into the spool, if they are not larger or smaller than allowed.
const SEGMENTS: u64 = 32;

/// How much the spool may hold.
///
/// Half of `max_bytes` is for what is undelivered and for dead letters. The rest is for finished
/// requests, which make room oldest first, and for moving things about. A request counts with the
/// bytes of its records, and with at least 4096.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of disk for everything; at least 2 MiB. Default: 2 GiB. The index in memory takes at
    /// most about a tenth of this, if all requests are small; 4 % if they have 10 KB.
    pub max_bytes: u64,
    /// Bytes that may be held by what is undelivered of one subscription, and by its dead letters,
    /// which may be half of it. Default: 256 MiB. Independently of this, a subscription may hold at
    /// most as much as is still free for all.
    pub max_bytes_per_subscription: u64,
    /// How long after its receipt, or its last requeue, what is undelivered becomes a dead letter.
    /// Default: 3 days.
    pub max_age: Duration,
    /// How long a request is kept after the last thing that happened to it; as long, redeliveries of
    /// it are recognised. Finished ones may have to make room earlier. Default: 7 days.
    pub retention: Duration,
    /// Finished requests that are kept of one subscription, so that one that is flooded does not drive out the others';
    /// the newest always stays. What is undelivered and dead letters do not count. Default: 50,000.
    pub max_finished_per_subscription: usize,
    /// Bytes of them. Default: 256 MiB.
    pub max_finished_bytes_per_subscription: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            max_bytes: 2 << 30,
            max_bytes_per_subscription: 256 << 20,
            max_age: 3 * DAY,
            retention: 7 * DAY,
            max_finished_per_subscription: 50_000,
            max_finished_bytes_per_subscription: 256 << 20,
        }
    }
}

impl Limits {
    /// When the oldest finished requests that are still kept at `now` may have ended; both in Unix milliseconds.
    pub(super) fn oldest(&self, now: u64) -> u64 {
        now.saturating_sub(u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX))
    }

    /// # Errors
    /// If no spool could work with them.
    pub(super) fn check(&self) -> Result<(), OpenError> {
        let least = MIN_SEGMENT * SEGMENTS;
        if self.max_bytes < least {
            return Err(OpenError::Limits(format!(
                "the whole spool needs at least {least} bytes, not {}",
                self.max_bytes
            )));
        }
        if self.max_bytes_per_subscription < MIN_SEGMENT {
            return Err(OpenError::Limits(format!(
                "a subscription needs at least {MIN_SEGMENT} bytes, not {}",
                self.max_bytes_per_subscription
            )));
        }
        Ok(())
    }

    /// Bytes that undelivered requests and dead letters may hold.
    pub fn max_undelivered(&self) -> u64 {
        self.max_bytes / 2
    }

    /// Bytes of one segment.
    pub(super) fn segment_size(&self) -> u64 {
        (self.max_bytes / SEGMENTS).clamp(MIN_SEGMENT, MAX_SEGMENT)
    }
}

/// How full the spool is, and what happened since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of disk that are set aside for segments in use.
    pub disk_bytes: u64,
    /// Bytes that undelivered requests and dead letters are charged.
    pub held_bytes: u64,
    /// Bytes that they may be charged.
    pub held_limit: u64,
    /// Requests that are not matched.
    pub unmatched: u64,
    /// Requests with pending deliveries.
    pub pending: u64,
    /// Requests that are dead letters.
    pub dead: u64,
    /// Requests of which nothing is left to do.
    pub finished: u64,
    /// Commits since it was opened.
    pub commits: u64,
    /// Records in these commits.
    pub records: u64,
    /// Finished requests that made room before their retention ended.
    pub evicted: u64,
    /// Dead letters that were dropped because there were too many.
    pub dead_dropped: u64,
    /// Damaged stretches and records that were found.
    pub damaged: u64,
    /// Segments that ended in an incomplete record when it was opened.
    pub torn: u64,
}

impl Usage {
    pub(super) fn of(index: &Index) -> Self {
        let t = &index.books.totals;
        Self {
            disk_bytes: index.parts.values().map(|p| p.size).sum(),
            held_bytes: t.held(),
            held_limit: index.limits.max_undelivered(),
            unmatched: t.count(Status::Unmatched),
            pending: t.count(Status::Pending),
            dead: t.count(Status::Dead),
            finished: t.count(Status::Finished),
            ..index.usage
        }
    }
}

/// How much one subscription holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionUsage {
    /// Bytes that its undelivered requests are charged.
    pub undelivered_bytes: u64,
    /// Bytes that its dead letters are charged.
    pub dead_bytes: u64,
    /// Requests that are not matched.
    pub unmatched: u64,
    /// Requests with pending deliveries.
    pub pending: u64,
    /// Requests that are dead letters.
    pub dead: u64,
    /// Requests of which nothing is left to do.
    pub finished: u64,
}

impl From<&Totals> for SubscriptionUsage {
    fn from(t: &Totals) -> Self {
        let dead_bytes = t.bytes(Status::Dead);
        Self {
            undelivered_bytes: t.held() - dead_bytes,
            dead_bytes,
            unmatched: t.count(Status::Unmatched),
            pending: t.count(Status::Pending),
            dead: t.count(Status::Dead),
            finished: t.count(Status::Finished),
        }
    }
}
