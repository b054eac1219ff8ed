//! The operator's process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ports::free_port;
use crate::process::Process;

const START_TIMEOUT: Duration = Duration::from_secs(90);

/// How to run `bellhop run`.
#[derive(Debug, Clone)]
pub struct Options {
    /// The binary: `env!("CARGO_BIN_EXE_bellhop")` in a test of the root crate.
    pub binary: PathBuf,
    /// State goes to `dir/NAME`, the log to `dir/log/NAME.log`.
    pub dir: PathBuf,
    /// The process' name, for its folder and its log.
    pub name: String,
    /// Which cluster.
    pub kubeconfig: PathBuf,
    /// Bellhop's own namespace.
    pub namespace: String,
    /// The namespace with what is published for the ingress.
    pub ingress_namespace: String,
    /// The public listener's port; a free one if left out.
    pub port: Option<u16>,
    /// The private listener's port; a free one if left out.
    pub private_port: Option<u16>,
    /// The internal listener's port; a free one if left out.
    pub internal_port: Option<u16>,
    /// What external systems call; the public listener if left out.
    pub public_url: Option<String>,
    /// More arguments.
    pub args: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
}

impl Options {
    /// Free ports, no more arguments.
    pub fn new(
        binary: impl Into<PathBuf>,
        dir: &Path,
        name: &str,
        kubeconfig: &Path,
        namespace: &str,
        ingress_namespace: &str,
    ) -> Options {
        Options {
            binary: binary.into(),
            dir: dir.to_owned(),
            name: name.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            namespace: namespace.to_owned(),
            ingress_namespace: ingress_namespace.to_owned(),
            port: None,
            private_port: None,
            internal_port: None,
            public_url: None,
            args: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Adds arguments.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Options {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Options {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running (or killed) Bellhop. Dropping it kills it.
#[derive(Debug)]
pub struct Bellhop {
    options: Options,
    port: u16,
    private_port: u16,
    internal_port: u16,
    data_dir: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Bellhop {
    /// Starts Bellhop and waits until it is ready.
    pub async fn start(options: Options) -> Result<Bellhop> {
        let mut bellhop = Bellhop::prepare(options)?;
        bellhop.restart().await?;
        Ok(bellhop)
    }

    /// Starts Bellhop without waiting, for a test of what happens before it is ready.
    pub fn start_without_waiting(options: Options) -> Result<Bellhop> {
        let mut bellhop = Bellhop::prepare(options)?;
        bellhop.spawn()?;
        Ok(bellhop)
    }

    fn prepare(options: Options) -> Result<Bellhop> {
        let data_dir = options.dir.join(&options.name);
        fs::create_dir_all(&data_dir)?;
        let or_free = |port: Option<u16>| port.map_or_else(free_port, Ok);
        Ok(Bellhop {
            port: or_free(options.port)?,
            private_port: or_free(options.private_port)?,
            internal_port: or_free(options.internal_port)?,
            data_dir,
            log: options.dir.join("log").join(format!("{}.log", options.name)),
            process: None,
            options,
        })
    }

    /// Kills Bellhop if it runs, starts it on the same ports and data, and waits until it is ready.
    pub async fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready().await
    }

    /// Kills Bellhop if it runs, and starts it on the same ports and data.
    pub fn spawn(&mut self) -> Result<()> {
        self.process = None;
        self.process = Some(Process::spawn(&self.options.name, &self.command(), &self.log)?);
        Ok(())
    }

    /// Waits until the private listener says that Bellhop is ready.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let url = format!("{}/readyz", self.private_url());
        let process = self.process.as_mut().context("bellhop does not run")?;
        process.wait_ready(START_TIMEOUT, async || crate::http::get_ok(&url).await.map(drop)).await
    }

    /// Ends Bellhop as `kill -9` does.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Asks Bellhop to end (SIGTERM) and waits for it.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("bellhop does not run")?;
        process.terminate(Duration::from_secs(60)).await
    }

    /// Whether the process is there; it may have ended by itself.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// The process id, if it was started and not ended by this object.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The public listener: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The private listener: `http://127.0.0.1:PORT`.
    pub fn private_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.private_port)
    }

    /// The internal listener's port.
    pub fn internal_port(&self) -> u16 {
        self.internal_port
    }

    /// The internal listener: `https://127.0.0.1:PORT`.
    pub fn internal_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.internal_port)
    }

    /// The data folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The log file, of all its runs.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What was logged so far.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// The metrics page.
    pub async fn metrics(&self) -> Result<String> {
        crate::http::get_ok(&format!("{}/metrics", self.private_url())).await
    }

    /// The sum of a metric's samples whose line contains every one of `labels` (`outcome="accepted"`); 0 if there are
    /// none.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let page = self.metrics().await?;
        let samples = page.lines().filter(|line| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label))
        });
        samples.map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?)).sum()
    }

    fn command(&self) -> Command {
        let options = &self.options;
        let mut command = Command::new(&options.binary);
        command
            .arg("run")
            .args(["--public-url", options.public_url.as_ref().unwrap_or(&self.url())])
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(["--private-listen", &format!("127.0.0.1:{}", self.private_port)])
            .args(["--internal-listen", &format!("127.0.0.1:{}", self.internal_port)])
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--log-format", "json"])
            .args(["--namespace", &options.namespace])
            .args(["--ingress-namespace", &options.ingress_namespace])
            .args(["--log-api-service", "v1alpha1.log.bellhop.dev"])
            .args(["--cluster-domain", "localhost"])
            .args(["--allow-address", "127.0.0.0/8"])
            .args(["--allow-runner-origin", "http://127.0.0.1:*"])
            .args(&options.args)
            .env("KUBECONFIG", &options.kubeconfig)
            .envs(options.env.iter().map(|(name, value)| (name, value)));
        command
    }
}
