//! Children that never outlive their parent.
//!
//! A child is started through a few lines of `sh`, which leave a watcher behind and then *become* the program
//! (`exec`), so that the child's process id is the program's. The watcher reads from a pipe that only this process
//! holds open: when this process ends in any way, `kill -9` included, the read ends, and the watcher kills the child's
//! whole process group.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const SUPERVISOR: &str = r#"
exec 3<&0 </dev/null
{ read -r _ <&3; kill -s KILL -- "-$$"; } &
exec 3<&-
exec "$@"
"#;

/// A running program with its own process group and log file. Dropping it kills the whole group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Only held: closing it is what tells the watcher to kill the group.
    _lifeline: ChildStdin,
}

impl Process {
    /// Starts `command` (its program, arguments, environment and folder; its streams are ignored), with standard
    /// output and standard error appended to `log`.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Result<Process> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let mut wrapped = Command::new("/bin/sh");
        wrapped
            .args(["-c", SUPERVISOR, name])
            .arg(command.get_program())
            .args(command.get_args())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        let mut child = wrapped.spawn().with_context(|| format!("cannot start {name}"))?;
        let lifeline = child.stdin.take().context("the child has no standard input")?;
        Ok(Process { name: name.to_owned(), child, log: log.to_owned(), _lifeline: lifeline })
    }

    /// The process id of the program itself; also the id of its process group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that the program's output is appended to.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The exit status, if the program has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills the program and whatever it started, as `kill -9` does, and waits until it is gone.
    pub fn kill9(&mut self) {
        // The program first, by the handle, which is never somebody else's id; then what is left of its group. The
        // watcher is still a member of the group, so its id cannot have gone to anybody else either.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.signal("KILL", &format!("-{}", self.pid()));
    }

    /// Sends SIGTERM to the program and waits for it to end; kills it, and fails, if that takes longer than `timeout`.
    pub async fn terminate(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal("TERM", &self.pid().to_string());
        let status = self.wait(timeout).await;
        self.kill9();
        status.with_context(|| format!("after SIGTERM:\n{}", self.log_tail(30)))
    }

    /// Waits for the program to end by itself.
    pub async fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} did not end within {timeout:?}", self.name);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Polls `probe` until it succeeds. Fails with the last error and the log's last lines on a time-out, and at once
    /// if the program ends.
    pub async fn wait_ready<F>(&mut self, timeout: Duration, mut probe: F) -> Result<()>
    where
        F: AsyncFnMut() -> Result<()>,
    {
        let deadline = Instant::now() + timeout;
        loop {
            let attempt = tokio::time::timeout(Duration::from_secs(5), probe()).await;
            let error = match attempt {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => format!("{error:#}"),
                Err(_) => "no answer within 5 s".to_owned(),
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status} before it was ready; {}", self.name, self.log_tail(30));
            }
            if Instant::now() >= deadline {
                bail!("{} was not ready after {timeout:?}: {error}; {}", self.name, self.log_tail(30));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The last lines of the log, with its path, for an error message.
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log, lines)
    }

    fn signal(&self, signal: &str, target: &str) {
        let _ = Command::new("/bin/sh")
            .args(["-c", r#"kill -s "$1" -- "$2""#, "kill", signal, target])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// The last lines of a log file, with its path, for an error message.
pub fn log_tail(path: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(64 * 1024)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            let tail = all[all.len().saturating_sub(lines)..].join("\n  ");
            format!("last lines of {}:\n  {tail}", path.display())
        }
        Err(error) => format!("no log at {}: {error}", path.display()),
    }
}

/// Runs a command to its end without blocking the runtime, and returns its standard output. Fails with its standard
/// error if it does not succeed.
pub async fn run(command: Command) -> Result<String> {
    let shown = show(&command);
    let mut command = tokio::process::Command::from(command);
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        bail!(
            "`{shown}` ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim(),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it, with the program's file name only and without the credentials of URLs.
pub fn show(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().map(OsString::from).unwrap_or_default();
    std::iter::once(program.as_os_str())
        .chain(command.get_args())
        .map(|word| {
            let mut word = word.to_string_lossy();
            if let Some((scheme, rest)) = word.split_once("://")
                && let Some((_, host)) = rest.split_once('@')
            {
                word = format!("{scheme}://{host}").into();
            }
            if !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c)) {
                word.into_owned()
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}
