//! Real git, for real pushes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process;

/// A git command that reads nobody's settings and asks nobody for a password.
pub fn command<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("git");
    command.args(args);
    command
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE");
    command
}

/// A clone on disk.
#[derive(Debug)]
pub struct Checkout {
    folder: PathBuf,
}

impl Checkout {
    /// `git clone`; commits in it are made by `Tester`, by whoever types there later, too.
    pub async fn clone_of(url: &str, folder: &Path) -> Result<Checkout> {
        let settings = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"];
        process::run(command(
            ["clone", "--quiet"].into_iter().chain(settings).chain([url, &folder.display().to_string()]),
        ))
        .await?;
        Ok(Checkout { folder: folder.to_owned() })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Runs git in the clone.
    pub async fn git(&self, args: &[&str]) -> Result<String> {
        let mut command = command(args);
        command.current_dir(&self.folder);
        process::run(command).await
    }

    /// Writes a file and commits it; returns the commit's id.
    pub async fn commit(&self, path: &str, content: &str, message: &str) -> Result<String> {
        let file = self.folder.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(file, content)?;
        self.git(&["add", "--", path]).await?;
        self.git(&["commit", "--quiet", "-m", message]).await?;
        Ok(self.git(&["rev-parse", "HEAD"]).await?.trim().to_owned())
    }

    /// Pushes the current commit to a branch.
    pub async fn push(&self, branch: &str) -> Result<()> {
        self.git(&["push", "--quiet", "origin", &format!("HEAD:refs/heads/{branch}")]).await?;
        Ok(())
    }
}
