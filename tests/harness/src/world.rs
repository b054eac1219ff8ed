//! What the tests of one binary share: a control plane and a Gitea, started when the first test asks for them, ended
//! when the test process ends.
//!
//! Every `#[tokio::test]` has a runtime of its own, so nothing in here belongs to a runtime: clients are made per test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::sync::OnceCell;

use crate::build::{self, Part, say};
use crate::control_plane::ControlPlane;
use crate::gitea::Gitea;

/// The shared parts.
#[derive(Debug)]
pub struct World {
    /// A control plane; a test that stops the API server starts its own.
    pub control_plane: ControlPlane,
    /// A Gitea; a test that stops it starts its own.
    pub gitea: Gitea,
}

/// The world of this process. Panics if it cannot be started.
pub async fn shared() -> &'static World {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    match WORLD.get_or_try_init(start).await {
        Ok(world) => world,
        Err(error) => panic!("the test world does not start: {error:#}"),
    }
}

async fn start() -> Result<World> {
    build::ensure_async(&Part::CONTROL_PLANE).await?;
    let started = Instant::now();
    let (control_plane, gitea) =
        tokio::try_join!(ControlPlane::start(dir(), "control-plane"), Gitea::start(dir(), "gitea"))?;
    say(&format!("the shared control plane and Gitea started in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(World { control_plane, gitea })
}

/// This process' folder, `target/it/run-PID`. What earlier processes left is removed when it is first asked for; what
/// this one leaves stays to be read.
pub fn dir() -> &'static Path {
    static DIR: OnceLock<(PathBuf, File)> = OnceLock::new();
    &DIR.get_or_init(|| make_dir().expect("a folder for the test run")).0
}

/// Where every log of this process' parts goes.
pub fn log_dir() -> PathBuf {
    dir().join("log")
}

/// A folder's lock is held as long as its process runs, so a folder that can be locked is nobody's.
fn make_dir() -> Result<(PathBuf, File)> {
    let all = crate::root().join("target/it");
    fs::create_dir_all(&all)?;
    // One at a time, so that a folder is not removed between its creation and its locking.
    let guard = open_lock(&all.join(".lock"))?;
    guard.lock()?;
    for entry in fs::read_dir(&all)? {
        let path = entry?.path();
        if path.is_dir() && open_lock(&path.join(".lock")).is_ok_and(|lock| lock.try_lock().is_ok()) {
            // Its processes were killed with their parent, perhaps just now, so this may fail.
            let _ = fs::remove_dir_all(&path);
        }
    }
    let dir = all.join(format!("run-{}", std::process::id()));
    fs::create_dir_all(dir.join("log"))?;
    let lock = open_lock(&dir.join(".lock"))?;
    lock.try_lock().context("another process has this process' folder")?;
    Ok((dir, lock))
}

fn open_lock(path: &Path) -> Result<File> {
    Ok(File::options().create(true).truncate(false).write(true).open(path)?)
}
