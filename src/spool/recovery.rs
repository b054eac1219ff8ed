//! Opens a spool: takes its lock, reads the whole log and applies it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tracing::{error, info, warn};

use super::{
    Limits, OpenError,
    files::{Active, Files, Spare},
    frame::{self, AttemptRecord, Found, Kind, MatchRecord},
    index::{Change, Index, Part},
    segment::{HEADER, Loc, Segment},
};

/// Opens the spool in `dir`, which is made if it is missing.
///
/// # Errors
/// If another process has it open, if it was written by a newer version, or if it cannot be read.
pub fn open(dir: &Path, limits: Limits) -> Result<(Index, Files), OpenError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |e: io::Error| OpenError::io(&path, e)
    };
    limits.check()?;
    fs::create_dir_all(dir).map_err(at(dir))?;
    let lock = lock(dir)?;
    let mut paths: Vec<PathBuf> =
        fs::read_dir(dir).and_then(|entries| entries.map(|e| Ok(e?.path())).collect()).map_err(at(dir))?;
    paths.retain(|p| number(p).is_some());
    let mut next = paths.iter().filter_map(|p| number(p)).max().unwrap_or(0) + 1;

    // Only the headers decide on the order, and segments are big: read them one by one.
    let (mut order, mut spare) = (Vec::new(), Vec::new());
    for path in paths {
        match Segment::sequence_of(&path)? {
            Some(sequence) => order.push((sequence, path)),
            None => {
                let size = fs::metadata(&path).map_err(at(&path))?.len();
                if size > 0 {
                    warn!(segment = %path.display(), "a segment has no readable header: either the \
                        process was stopped while it began the segment, and nothing in it had been \
                        acknowledged, or the file is damaged");
                }
                spare.push(Spare { path, size });
            }
        }
    }
    order.sort_unstable();
    next = next.max(order.last().map_or(0, |o| o.0 + 1));

    let mut index = Index::new(limits);
    let mut active = None;
    for (i, (_, path)) in order.iter().enumerate() {
        let Some((segment, content)) = Segment::open(path)? else {
            continue;
        };
        let last = i + 1 == order.len();
        let segment = Arc::new(segment);
        let end = replay(&mut index, &segment, content, last);
        if last {
            segment.scrub(end).map_err(at(path))?;
            active = Some(Active { segment, end });
        }
    }
    // What the log says while it is read is history.
    index.usage.evicted = 0;
    index.usage.dead_dropped = 0;
    index.announce_unmatched();
    info!(
        directory = %dir.display(),
        segments = index.parts.len(),
        requests = index.slots.len(),
        "the spool is open"
    );
    let files = Files::new(dir.to_owned(), lock, active, spare, next);
    Ok((index, files))
}

fn number(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("segment-")?.strip_suffix(".log")?;
    digits.parse().ok()
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("lock");
    let fail = |e| OpenError::io(&path, e);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Locked { path: dir.to_owned() }),
        Err(fs::TryLockError::Error(e)) => Err(fail(e)),
    }
}

/// Applies every record of a segment; returns where the last one ends.
fn replay(index: &mut Index, segment: &Arc<Segment>, content: Bytes, last: bool) -> u64 {
    let path = segment.path.display();
    let part = Part { segment: segment.clone(), size: content.len() as u64, homes: Default::default() };
    index.parts.insert(segment.sequence, part);
    let scan = frame::scan(&content, HEADER, segment.salt);
    for &(from, to) in &scan.damaged {
        index.usage.damaged += 1;
        error!(segment = %path, from, to, "the spool is damaged: the records between these \
            positions cannot be read and are skipped");
    }
    if scan.torn {
        index.usage.torn += 1;
        if last {
            warn!(segment = %path, position = scan.end, "the log ends in an incomplete record: a \
                write was interrupted before it was acknowledged; it is discarded");
        } else {
            warn!(segment = %path, position = scan.end, "the segment ends in an incomplete record: \
                a write failed, and the log went on in the next segment");
        }
    }
    for found in &scan.frames {
        let loc = Loc { segment: segment.sequence, start: found.start as u32, len: (found.end - found.start) as u32 };
        match change(found, &content) {
            Ok(change) => index.apply(change, loc),
            Err(e) => {
                index.usage.damaged += 1;
                error!(segment = %path, position = found.start, error = %e, "a record of the spool \
                    cannot be understood and is skipped");
            }
        }
    }
    scan.end as u64
}

fn change(found: &Found, content: &[u8]) -> Result<Change, serde_json::Error> {
    let meta = found.meta(content);
    Ok(match found.kind {
        Kind::Entry => Change::Entry(serde_json::from_slice(meta)?),
        Kind::Match => {
            let r: MatchRecord = serde_json::from_slice(meta)?;
            Change::matched(r.request, &r.matched, r.answered_after)
        }
        Kind::Attempt => {
            let r: AttemptRecord = serde_json::from_slice(meta)?;
            Change::Attempt(r.key, r.attempt.at, r.next)
        }
        Kind::Ended => Change::Ended(serde_json::from_slice(meta)?),
        Kind::Requeue => Change::Requeue(serde_json::from_slice(meta)?),
        Kind::Replay => Change::Replay(serde_json::from_slice(meta)?),
        Kind::Answer => Change::Answer(serde_json::from_slice(meta)?),
    })
}
