//! Programs of the tests that need npm packages.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::say;

/// Installs the packages of `tests/cluster/NAME` into `target/cluster/NAME`, once for each version of the lock file, and
/// puts the program beside them. Returns the folder.
pub async fn install(name: &'static str, program: &'static str) -> Result<PathBuf> {
    tokio::task::spawn_blocking(move || prepare(name, program)).await?
}

fn prepare(name: &str, program: &str) -> Result<PathBuf> {
    let (from, to) = (crate::root().join("tests/cluster").join(name), crate::root().join("target/cluster").join(name));
    fs::create_dir_all(&to)?;
    let lock = File::options().create(true).truncate(false).write(true).open(to.join(".lock"))?;
    lock.lock()?;
    let names = ["package.json", "package-lock.json", program];
    let files = names.map(|name| fs::read(from.join(name)).with_context(|| format!("cannot read {name}")));
    let [package, versions, source] = files;
    let (package, versions, source) = (package?, versions?, source?);
    let stamp = to.join(".stamp");
    let wanted = [package.as_slice(), versions.as_slice()].concat();
    fs::write(to.join(program), source)?;
    if fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(to);
    }
    say(&format!("installing the packages of {name} with npm (some seconds the first time)"));
    fs::write(to.join("package.json"), package)?;
    fs::write(to.join("package-lock.json"), versions)?;
    let mut command = Command::new("npm");
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&to);
    let output = command.output().context("npm cannot be started; Node.js is needed for this test")?;
    ensure!(output.status.success(), "npm ci failed: {}", String::from_utf8_lossy(&output.stderr));
    fs::write(stamp, wanted)?;
    Ok(to)
}
