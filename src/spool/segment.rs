//! One file of the log.
//!
//! Segments are filled one after the other and given free oldest first. A freed file is overwritten
//! rather than removed: writing over blocks that exist needs no journal commit of the file system,
//! which halves the cost of a durable append.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use uuid::Uuid;

use super::{OpenError, frame};

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;
/// Bytes at the beginning of a segment.
pub const HEADER: usize = 64;
const MAGIC: &[u8; 8] = b"BELLHOP\n";

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loc {
    /// Sequence number of the segment.
    pub segment: u64,
    pub start: u32,
    pub len: u32,
}

/// An open segment. Its number and salt hold for one life of the file.
#[derive(Debug)]
pub struct Segment {
    pub sequence: u64,
    pub salt: u64,
    pub path: PathBuf,
    pub file: File,
}

impl Segment {
    /// Makes a new file, durable in its directory, or takes over `spare`. Its header is not written
    /// yet: it goes with the first records.
    pub fn begin(dir: &Path, sequence: u64, spare: Option<PathBuf>) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let (path, file) = match spare {
            Some(path) => {
                let file = options.open(&path)?;
                (path, file)
            }
            None => {
                let path = dir.join(format!("segment-{sequence:010}.log"));
                // A file of this name can only be the rest of an interrupted beginning: numbers are
                // never used twice.
                let file = options.create(true).truncate(true).open(&path)?;
                File::open(dir)?.sync_all()?;
                (path, file)
            }
        };
        Ok(Self { sequence, salt: Uuid::new_v4().as_u64_pair().0 ^ Uuid::new_v4().as_u64_pair().1, path, file })
    }

    /// The header's bytes.
    pub fn header(&self) -> [u8; HEADER] {
        let mut h = [0; HEADER];
        h[..8].copy_from_slice(MAGIC);
        h[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        h[12..20].copy_from_slice(&self.sequence.to_le_bytes());
        h[20..28].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&h[..28]);
        h[28..32].copy_from_slice(&crc.to_le_bytes());
        h
    }

    /// The sequence number in a file's header; `None` if it has no whole header.
    ///
    /// # Errors
    /// If it cannot be read, or was written by a newer version.
    pub fn sequence_of(path: &Path) -> Result<Option<u64>, OpenError> {
        let file = File::open(path).map_err(|e| OpenError::io(path, e))?;
        let mut h = [0; HEADER];
        match file.read_exact_at(&mut h, 0) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(|e| OpenError::io(path, e))?,
        }
        Ok(parse(path, &h)?.map(|(sequence, _)| sequence))
    }

    /// Opens an existing file and reads all of it. `None` if it has no whole header.
    ///
    /// # Errors
    /// If it cannot be read, or was written by a newer version.
    pub fn open(path: &Path) -> Result<Option<(Self, Bytes)>, OpenError> {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.map_err(|e| OpenError::io(path, e))?;
        let content = fs::read(path).map_err(|e| OpenError::io(path, e))?;
        let Some(header) = content.first_chunk() else {
            return Ok(None);
        };
        let Some((sequence, salt)) = parse(path, header)? else {
            return Ok(None);
        };
        let path = path.to_owned();
        let segment = Self { sequence, salt, path, file };
        Ok(Some((segment, content.into())))
    }

    /// Reads one record: its meta part and its body. `None` if it is damaged, or if the file has
    /// begun another life.
    pub fn read(&self, loc: Loc) -> io::Result<Option<(Bytes, Bytes)>> {
        let mut buffer = vec![0; loc.len as usize];
        match self.file.read_exact_at(&mut buffer, loc.start.into()) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let buffer = Bytes::from(buffer);
        Ok(frame::parse(&buffer, 0, self.salt).map(|f| (buffer.slice_ref(f.meta(&buffer)), f.body(&buffer))))
    }

    /// Overwrites everything from `from` on with zeros, durably, so that nothing half-written before
    /// a crash can later be taken for a record.
    pub fn scrub(&self, from: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        let (mut at, end) = (from, self.file.metadata()?.len());
        while at < end {
            let n = (end - at).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..n as usize], at)?;
            at += n;
        }
        self.file.sync_data()
    }
}

/// Sequence number and salt of a header; `None` if it is not whole.
fn parse(path: &Path, h: &[u8; HEADER]) -> Result<Option<(u64, u64)>, OpenError> {
    let word = |at: usize| u32::from_le_bytes(h[at..at + 4].try_into().expect("four bytes"));
    let long = |at: usize| u64::from_le_bytes(h[at..at + 8].try_into().expect("eight bytes"));
    if &h[..8] != MAGIC {
        return Ok(None);
    }
    // The version comes before the checksum, whose place a newer version may have moved.
    if word(8) > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found: word(8), supported: FORMAT });
    }
    Ok((crc32fast::hash(&h[..28]) == word(28)).then(|| (long(12), long(20))))
}
