//! Programs of the tests that need npm packages.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::build::say;

/// Gives a question to a program beside its packages, as [`install`] puts them, on its standard input; returns its answer.
///
/// # Errors
/// Node.js is missing, a package cannot be installed, the program fails, or its answer is no such JSON.
pub async fn ask<T: DeserializeOwned>(name: &'static str, program: &'static str, question: &Value) -> Result<T> {
    let folder = install(name, program).await?;
    let mut process = tokio::process::Command::new("node")
        .arg(program)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("node cannot be started; Node.js is needed for this test")?;
    let mut stdin = process.stdin.take().context("a pipe")?;
    stdin.write_all(question.to_string().as_bytes()).await?;
    drop(stdin);
    let output = process.wait_with_output().await?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Installs the packages of `tests/cluster/NAME` into `target/cluster/NAME`, once for each version of the lock file, and
/// puts the program beside them. Returns the folder.
pub async fn install(name: &'static str, program: &'static str) -> Result<PathBuf> {
    tokio::task::spawn_blocking(move || prepare(name, Some(program))).await?
}

/// The same where the packages are data.
pub async fn install_data(name: &'static str) -> Result<PathBuf> {
    tokio::task::spawn_blocking(move || prepare(name, None)).await?
}

fn prepare(name: &str, program: Option<&str>) -> Result<PathBuf> {
    let (from, to) = (crate::root().join("tests/cluster").join(name), crate::root().join("target/cluster").join(name));
    fs::create_dir_all(&to)?;
    let lock = File::options().create(true).truncate(false).write(true).open(to.join(".lock"))?;
    lock.lock()?;
    let read = |name: &str| fs::read(from.join(name)).with_context(|| format!("cannot read {name}"));
    let (package, versions) = (read("package.json")?, read("package-lock.json")?);
    let stamp = to.join(".stamp");
    let wanted = [package.as_slice(), versions.as_slice()].concat();
    if let Some(program) = program {
        fs::write(to.join(program), read(program)?)?;
    }
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
