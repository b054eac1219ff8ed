//! How a record lies in a segment, and how records are found again.
//!
//! ```text
//! salt u64 | length u32 | crc32 u32 | kind u8 | meta length u32 | meta (JSON) | body
//!                                     '--------------- length bytes -------------'
//! ```
//! Integers are little-endian. The checksum covers salt, length and content. The salt is random for
//! every life of a segment: what an earlier life left behind in a reused file does not carry it, and
//! no payload can imitate a record, because nobody outside knows it.

use bytes::Bytes;
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::record::{Answered, Attempt, DeliveryKey, Entry, Matched, Next, ReplayLine, Replayed, Request};

/// Bytes before the content of a frame.
pub const HEAD: usize = 16;
/// Bytes of content before the meta part.
const PREFIX: usize = 5;

/// What a record changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An [`Entry`] with its body: a new request, or one that was moved with all its history.
    Entry = 1,
    /// A [`MatchRecord`].
    Match = 2,
    /// An [`AttemptRecord`].
    Attempt = 3,
    /// An [`EndedRecord`].
    Ended = 4,
    /// A [`RequeueRecord`].
    Requeue = 5,
    /// A [`ReplayRecord`].
    Replay = 6,
    /// An [`AnswerRecord`].
    Answer = 7,
}

impl Kind {
    fn from_byte(b: u8) -> Option<Self> {
        Some(match b {
            1 => Self::Entry,
            2 => Self::Match,
            3 => Self::Attempt,
            4 => Self::Ended,
            5 => Self::Requeue,
            6 => Self::Replay,
            7 => Self::Answer,
            _ => return None,
        })
    }
}

/// A match, stored.
#[derive(Serialize, Deserialize)]
pub struct MatchRecord {
    pub request: Uuid,
    pub matched: Matched,
    /// See [`Entry::answered_after`]. It is here because it becomes known only when the request itself is durable, and a
    /// record of its own would cost as much as this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_after: Option<u32>,
}

/// An attempt and what follows it, stored.
#[derive(Serialize, Deserialize)]
pub struct AttemptRecord {
    pub key: DeliveryKey,
    pub attempt: Attempt,
    pub next: Next,
}

/// Whatever of the request was undelivered became a dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndedRecord {
    pub request: Uuid,
    pub at: u64,
    pub reason: String,
}

/// Whatever of the request was dead is pending again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequeueRecord {
    pub request: Uuid,
    pub at: u64,
}

/// At the wish of a person, these deliveries of the request are pending (again).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayRecord {
    pub request: Uuid,
    pub replayed: Replayed,
    pub lines: Vec<ReplayLine>,
}

/// How the sender of the request was answered, where that is not as usual.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerRecord {
    pub request: Uuid,
    pub at: u64,
    pub answered: Answered,
}

/// A record on its way to the disk.
#[derive(Debug)]
pub struct Frame {
    kind: Kind,
    meta: Vec<u8>,
    body: Bytes,
}

impl Frame {
    /// A record without a body.
    pub fn new(kind: Kind, meta: &impl Serialize) -> Self {
        // Room for a usual request's headers, so that the buffer need not grow on the hot path.
        let mut buffer = Vec::with_capacity(2048);
        // These types have string keys only, so JSON can always express them.
        serde_json::to_writer(&mut buffer, meta).expect("a record is expressible in JSON");
        Self { kind, meta: buffer, body: Bytes::new() }
    }

    /// The record of a new request with its number in the order of receipt.
    pub fn request(request: &Request, number: u64) -> Self {
        #[derive(Serialize)]
        struct New<'a> {
            request: &'a Request,
            since: u64,
            touched: u64,
            number: u64,
        }
        let at = request.received_at;
        let meta = New { request, since: at, touched: at, number };
        Self { body: request.body.clone(), ..Self::new(Kind::Entry, &meta) }
    }

    /// The record of a request that is moved, with all that happened to it.
    pub fn entry(entry: &Entry) -> Self {
        Self { body: entry.request.body.clone(), ..Self::new(Kind::Entry, entry) }
    }

    /// Bytes that it takes in a segment.
    pub fn len(&self) -> u64 {
        (HEAD + PREFIX + self.meta.len() + self.body.len()) as u64
    }

    /// Appends all but the body to `out` and returns the body, which follows.
    pub fn put(&self, salt: u64, out: &mut Vec<u8>) -> &Bytes {
        let length = (self.len() as usize - HEAD) as u32;
        let mut prefix = [0; PREFIX];
        prefix[0] = self.kind as u8;
        prefix[1..].copy_from_slice(&(self.meta.len() as u32).to_le_bytes());
        let crc = checksum(salt, length, [&prefix[..], &self.meta, &self.body]);
        out.extend_from_slice(&salt.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&crc.to_le_bytes());
        out.extend_from_slice(&prefix);
        out.extend_from_slice(&self.meta);
        &self.body
    }
}

fn checksum<const N: usize>(salt: u64, length: u32, parts: [&[u8]; N]) -> u32 {
    let mut h = Hasher::new();
    h.update(&salt.to_le_bytes());
    h.update(&length.to_le_bytes());
    parts.iter().for_each(|p| h.update(p));
    h.finalize()
}

/// A record that was read back: its kind, and where its parts lie in the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub kind: Kind,
    /// Where the frame begins.
    pub start: usize,
    meta: usize,
    body: usize,
    /// Where it ends.
    pub end: usize,
}

impl Found {
    pub fn meta<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.meta..self.body]
    }

    pub fn body(&self, buffer: &Bytes) -> Bytes {
        buffer.slice(self.body..self.end)
    }
}

/// Reads the frame at `start`; `None` if there is no whole, undamaged one.
pub fn parse(buffer: &[u8], start: usize, salt: u64) -> Option<Found> {
    let head = buffer.get(start..start + HEAD)?;
    if head[..8] != salt.to_le_bytes() {
        return None;
    }
    let word = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("four bytes"));
    let (length, crc) = (word(&head[8..12]), word(&head[12..16]));
    let content_at = start + HEAD;
    let end = content_at.checked_add(length as usize)?;
    let content = buffer.get(content_at..end)?;
    if content.len() < PREFIX || checksum(salt, length, [content]) != crc {
        return None;
    }
    let body = PREFIX.checked_add(word(&content[1..PREFIX]) as usize)?;
    (body <= content.len()).then_some(Found {
        kind: Kind::from_byte(content[0])?,
        start,
        meta: content_at + PREFIX,
        body: content_at + body,
        end,
    })
}

/// What a segment holds.
#[derive(Debug, Default)]
pub struct Scan {
    /// The whole records, in order.
    pub frames: Vec<Found>,
    /// Damaged stretches that are followed by whole records.
    pub damaged: Vec<(usize, usize)>,
    /// Where the last whole record ends.
    pub end: usize,
    /// Whether something begins there that is not whole.
    pub torn: bool,
}

/// Finds every record from `start` on, stepping over damage.
pub fn scan(buffer: &[u8], start: usize, salt: u64) -> Scan {
    let mut s = Scan { end: start, ..Scan::default() };
    let mark = salt.to_le_bytes();
    while s.end < buffer.len() {
        if let Some(f) = parse(buffer, s.end, salt) {
            s.end = f.end;
            s.frames.push(f);
            continue;
        }
        let rest = &buffer[s.end..];
        let mut marks =
            rest.windows(mark.len()).enumerate().filter_map(|(i, w)| (w == mark).then_some(s.end + i)).peekable();
        s.torn = marks.peek().is_some();
        match marks.find(|&at| parse(buffer, at, salt).is_some()) {
            Some(at) => {
                s.damaged.push((s.end, at));
                s.end = at;
                s.torn = false;
            }
            None => break,
        }
    }
    s
}
