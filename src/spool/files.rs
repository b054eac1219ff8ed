//! The physical end of the log: puts records into the active segment, makes them durable, and goes
//! on to the next segment when one is full.

use std::{collections::VecDeque, fs, fs::File, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc};

use super::{
    frame::Frame,
    segment::{HEADER, Loc, Segment},
};

/// Bodies from this size on are written from where they are; smaller ones are gathered first.
const GATHER: usize = 256 << 10;
/// How many bytes are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// The segment that is being filled.
#[derive(Debug)]
pub struct Active {
    pub segment: Arc<Segment>,
    /// Where the last acknowledged record ends.
    pub end: u64,
}

/// A file that holds nothing of value and may be overwritten.
#[derive(Debug)]
pub struct Spare {
    pub path: PathBuf,
    pub size: u64,
}

/// A commit that succeeded.
#[derive(Debug, Default)]
pub struct Written {
    /// Where each record lies.
    pub locs: Vec<Loc>,
    /// Segments that were begun for it, with the size that is set aside for them.
    pub begun: Vec<(Arc<Segment>, u64)>,
}

/// See the module's documentation. The lock is held as long as this lives.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    _lock: File,
    pub active: Option<Active>,
    /// In the order in which they were freed. The oldest is overwritten first: whatever is found
    /// again at the next start is then never without the records that followed it.
    pub spare: VecDeque<Spare>,
    next: u64,
    buffer: Vec<u8>,
    #[cfg(test)]
    pub fault: Arc<std::sync::Mutex<Option<super::tests::Fault>>>,
}

impl Files {
    pub fn new(dir: PathBuf, lock: File, active: Option<Active>, spare: Vec<Spare>, next: u64) -> Self {
        Self {
            dir,
            _lock: lock,
            active,
            spare: spare.into(),
            next,
            buffer: Vec::with_capacity(BUFFER),
            #[cfg(test)]
            fault: Arc::default(),
        }
    }

    /// The number of the active segment.
    pub fn active_sequence(&self) -> Option<u64> {
        self.active.as_ref().map(|a| a.segment.sequence)
    }

    /// Writes records and makes them durable, filling segments of `segment_size` bytes. A record
    /// that is larger than that gets a segment of its own.
    ///
    /// # Errors
    /// If any of it failed. Then none of it counts, and nothing more is written into the segments
    /// that were touched: after a failed sync nobody can tell what is on the disk.
    pub fn write(&mut self, frames: &[Frame], segment_size: u64) -> io::Result<Written> {
        let mut written = Written::default();
        match self.try_write(frames, segment_size, &mut written) {
            Ok(()) => Ok(written),
            Err(e) => {
                self.active = None;
                self.buffer.clear();
                for (segment, size) in written.begun.drain(..) {
                    let path = segment.path.clone();
                    self.spare.push_front(Spare { path, size });
                }
                Err(e)
            }
        }
    }

    fn try_write(&mut self, frames: &[Frame], segment_size: u64, written: &mut Written) -> io::Result<()> {
        let mut at = self.active.as_ref().map_or(0, |a| a.end);
        for frame in frames {
            let full = at + frame.len() > segment_size && at > HEADER as u64;
            if full || self.active.is_none() {
                if self.active.is_some() {
                    self.flush(at)?;
                    self.sync()?;
                }
                at = self.begin(segment_size.max(HEADER as u64 + frame.len()), written)?;
            }
            let active = self.active.as_ref().expect("just begun");
            written.locs.push(Loc { segment: active.segment.sequence, start: at as u32, len: frame.len() as u32 });
            at += frame.len();
            let body = frame.put(active.segment.salt, &mut self.buffer);
            if body.len() < GATHER {
                self.buffer.extend_from_slice(body);
                if self.buffer.len() >= BUFFER - GATHER {
                    self.flush(at)?;
                }
            } else {
                self.flush(at - body.len() as u64)?;
                let active = self.active.as_ref().expect("just begun");
                active.segment.file.write_all_at(body, at - body.len() as u64)?;
            }
        }
        self.flush(at)?;
        self.sync()?;
        if let Some(active) = &mut self.active {
            active.end = at;
        }
        Ok(())
    }

    /// Writes what was gathered so that it ends at `end`.
    fn flush(&mut self, end: u64) -> io::Result<()> {
        #[cfg(test)]
        super::tests::Fault::Write.strike(&self.fault)?;
        let active = self.active.as_ref().expect("something was gathered for it");
        let at = end - self.buffer.len() as u64;
        active.segment.file.write_all_at(&self.buffer, at)?;
        self.buffer.clear();
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        super::tests::Fault::Sync.strike(&self.fault)?;
        let active = self.active.as_ref().expect("something was written to it");
        active.segment.file.sync_data()
    }

    /// Begins a segment; returns where its first record goes.
    fn begin(&mut self, size: u64, written: &mut Written) -> io::Result<u64> {
        self.active = None;
        let spare = self.spare.pop_front();
        let path = spare.as_ref().map(|s| s.path.clone());
        let segment = match Segment::begin(&self.dir, self.next, path) {
            Ok(segment) => Arc::new(segment),
            Err(e) => {
                self.spare.extend(spare);
                return Err(e);
            }
        };
        self.next += 1;
        written.begun.push((segment.clone(), size));
        if spare.is_some_and(|s| s.size > size) {
            segment.file.set_len(size)?;
        }
        self.buffer.extend_from_slice(&segment.header());
        self.active = Some(Active { segment, end: 0 });
        Ok(HEADER as u64)
    }

    /// Removes spare files until at most `keep` bytes of them are left, the oldest first. Returns
    /// how many bytes went.
    pub fn trim(&mut self, keep: u64) -> u64 {
        let mut held: u64 = self.spare.iter().map(|s| s.size).sum();
        let before = held;
        while held > keep
            && let Some(s) = self.spare.pop_front()
        {
            held -= s.size;
            if let Err(e) = fs::remove_file(&s.path) {
                tracing::warn!(path = %s.path.display(), error = %e, "cannot remove a spare segment");
            }
        }
        before - held
    }
}
