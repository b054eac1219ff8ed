//! Free ports on loopback.
//!
//! A port from outside the range that the kernel gives to outgoing connections is not taken between the moment it is
//! chosen and the moment a child binds it, nor while a test has a server stopped and wants it back. A lock file for each
//! port keeps two test processes on one machine apart.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

use anyhow::{Result, bail};

/// Below Linux' usual range for outgoing connections (32768 and up), above what services usually listen on.
const RANGE: std::ops::Range<u16> = 20000..30000;

static TAKEN: Mutex<BTreeMap<u16, Option<File>>> = Mutex::new(BTreeMap::new());

/// A port that nothing listens on, and that this process gives to nobody else as long as it runs.
pub fn free_port() -> Result<u16> {
    let mut taken = TAKEN.lock().expect("no panic while the lock is held");
    let size = RANGE.end - RANGE.start;
    let random = u16::from_be_bytes([uuid::Uuid::new_v4().as_bytes()[0], uuid::Uuid::new_v4().as_bytes()[0]]);
    for step in 0..size {
        let port = RANGE.start + (random % size + step) % size;
        if taken.contains_key(&port) {
            continue;
        }
        let Some(lock) = lock(port) else { continue };
        if is_free(port) {
            taken.insert(port, lock);
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end - 1)
}

/// Whether a server could listen on the port now.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// `None`: another process has the port. `Some(None)`: there can be no lock file here, which is no reason to fail.
fn lock(port: u16) -> Option<Option<File>> {
    let folder = std::env::temp_dir().join("bellhop-ports");
    let _ = fs::create_dir_all(&folder);
    match File::options().create(true).truncate(false).write(true).open(folder.join(port.to_string())) {
        Ok(file) => match file.try_lock() {
            Ok(()) => Some(Some(file)),
            Err(fs::TryLockError::WouldBlock) => None,
            Err(fs::TryLockError::Error(_)) => Some(None),
        },
        Err(_) => Some(None),
    }
}
