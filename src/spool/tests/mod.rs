//! Tests of the spool on a real disk.

mod basics;
mod crash;
mod damage;
mod fair;
mod recorded;
mod replayed;
mod room;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use uuid::Uuid;

use super::*;

/// A failure of the disk that is to happen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The write fails: no space.
    Write,
    /// The sync fails: input/output error.
    Sync,
}

impl Fault {
    /// Fails if this fault is due.
    pub fn strike(self, due: &Arc<Mutex<Option<Self>>>) -> io::Result<()> {
        let mut due = due.lock().unwrap();
        if *due != Some(self) {
            return Ok(());
        }
        *due = None;
        Err(io::Error::from_raw_os_error(match self {
            Self::Write => 28,
            Self::Sync => 5,
        }))
    }
}

const MIB: u64 = 1 << 20;
const HOUR: u64 = 3_600_000;
/// Some day in 2025.
const NOW: u64 = 1_750_000_000_000;

/// A small spool: segments of 128 KiB.
fn small() -> Limits {
    Limits {
        max_bytes: 4 * MIB,
        max_bytes_per_subscription: MIB,
        max_age: Duration::from_secs(3 * 3600),
        retention: Duration::from_secs(10 * 3600),
        ..Limits::default()
    }
}

fn open(dir: &Path) -> Spool {
    Spool::open(dir, small()).unwrap()
}

/// The `n`th request of subscription `s`, with a body of `size` bytes.
fn request(s: u128, n: u64, size: usize) -> Request {
    Request {
        id: id(s, n),
        subscription: Uuid::from_u128(s),
        namespace: "team-a".into(),
        name: format!("sub-{s}"),
        received_at: NOW + n,
        delivery_id: Some(n.to_string()),
        method: "POST".into(),
        query: "a=b".into(),
        headers: vec![("x-event".into(), "push".into())],
        sent: None,
        body: vec![n as u8; size].into(),
    }
}

fn id(s: u128, n: u64) -> Uuid {
    Uuid::from_u128((s << 64) | u128::from(n))
}

/// One event; `triggers` triggers match it and another one does not.
fn matched(n: u64, triggers: u128) -> Matched {
    let outcome = |t: u128| TriggerOutcome {
        trigger: format!("trigger-{t}"),
        uid: Uuid::from_u128(t),
        workflow: "review".into(),
        mismatch: (t >= triggers).then(|| "branches: main is not in the list".into()),
        captured: false,
    };
    Matched {
        at: NOW + n,
        events: vec![EventOutcome {
            id: Uuid::from_u128(n.into()),
            item: 0,
            name: "push".into(),
            skipped: None,
            variables: json!({"ref": "refs/heads/main", "n": n}),
            notes: Vec::new(),
            triggers: (0..=triggers).map(outcome).collect(),
        }],
        note: None,
    }
}

fn attempt(at: u64) -> Attempt {
    let (url, error) = ("http://runner/runs".into(), Some("busy".into()));
    Attempt { at, url, status: Some(503), error, duration_ms: 7, answer: None }
}

/// Stores a request and matches it with one trigger.
async fn pend(spool: &Spool, r: Request) -> DeliveryKey {
    let id = r.id;
    let n = r.received_at - NOW;
    assert_eq!(spool.append(r).await.unwrap(), Appended::Stored);
    let pending = spool.store_match(id, matched(n, 1)).await.unwrap();
    assert_eq!(pending.len(), 1);
    pending[0].key
}

async fn deliver(spool: &Spool, key: DeliveryKey, at: u64) {
    spool.record_attempt(key, attempt(at), Next::Delivered).await.unwrap();
}

async fn kill(spool: &Spool, key: DeliveryKey, at: u64) {
    let reason = "12 attempts failed".into();
    spool.record_attempt(key, attempt(at), Next::Dead { reason }).await.unwrap();
}

/// The next unmatched request, or `None` if there is none within a moment.
async fn next(spool: &Spool) -> Option<Arc<Request>> {
    tokio::time::timeout(Duration::from_millis(200), spool.next_unmatched()).await.ok()
}

/// The spool's segments, in the order in which they were first made.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "log"))
        .collect();
    all.sort();
    all
}
