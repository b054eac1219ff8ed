//! `make demo`: the whole story on real parts, from `kubectl apply` to a workflow that starts on a git push. Every step
//! is checked; the exit status is 0 only if each of them was seen to work. All state is in `target/demo`.
//!
//! Environment: `KEEP=1` leaves everything running at the end, until Ctrl-C. `DEMO_GITEA_PORT` (3000),
//! `DEMO_RUNNER_PORT` (8090), `DEMO_PORT` (8080) and `DEMO_PRIVATE_PORT` (9090) change the ports.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bellhop_harness::bellhop::{Bellhop, Options};
use bellhop_harness::build::{self, Part};
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::gitea::{Gitea, User};
use bellhop_harness::process::{self, Process};
use bellhop_harness::{eventually, git, ports};
use serde_json::Value;

const STEPS: usize = 5;
const EXAMPLE: &str = "examples/gitea-push";
/// As in the example's files.
const TEAM: &str = "team-a";
const SUBSCRIPTION: &str = "subscription.bellhop.dev/acme-web";
const OWNER: &str = "acme";
const REPOSITORY: &str = "web";

#[tokio::main]
async fn main() -> ExitCode {
    let state = bellhop_harness::root().join("target/demo");
    match demo(&state).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe demo failed: {error:#}");
            if state.join("log").exists() {
                println!("Logs are in {}", state.join("log").display());
            }
            ExitCode::FAILURE
        }
    }
}

async fn demo(state: &Path) -> Result<()> {
    let started = Instant::now();
    // First: a demo that still runs has these ports, and its state in the same folder.
    let ports = Ports::from_env()?;
    if state.exists() {
        fs::remove_dir_all(state).with_context(|| format!("cannot empty {}", state.display()))?;
    }
    fs::create_dir_all(state.join("log"))?;

    let binaries = step(1, "build the parts", build_parts()).await?;
    let demo = step(2, "start the parts", Demo::start(state, ports, &binaries)).await?;
    let owner = step(3, "declare what should start a workflow", demo.declare()).await?;
    step(4, "push, and see the workflow start", demo.push(&owner)).await?;
    step(5, "delete the Subscription, and see the webhook go", demo.delete(&owner)).await?;
    println!("\nAll {STEPS} steps were seen to work, in {:.0} s.", started.elapsed().as_secs_f64());

    if std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty() && keep != "0") {
        demo.keep(&owner).await?;
    }
    Ok(())
}

async fn step<T>(number: usize, title: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    println!("\n== {number} of {STEPS}: {title}");
    let started = Instant::now();
    let value = work.await.with_context(|| format!("step {number}, {title}"))?;
    println!("   step {number} took {:.1} s", started.elapsed().as_secs_f64());
    Ok(value)
}

fn note(text: impl AsRef<str>) {
    for line in text.as_ref().lines() {
        println!("   {line}");
    }
}

fn note_time(what: &str, started: Instant) {
    note(format!("{what} ({:.1} s)", started.elapsed().as_secs_f64()));
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    gitea: u16,
    runner: u16,
    public: u16,
    private: u16,
}

impl Ports {
    /// The ports that the example's files name: these are looked for and replaced if the user wants others.
    const USUAL: Ports = Ports { gitea: 3000, runner: 8090, public: 8080, private: 9090 };

    fn from_env() -> Result<Ports> {
        let port = |variable: &str, usual: u16, whose: &str| {
            let port = match std::env::var(variable) {
                Ok(text) if !text.is_empty() => {
                    text.parse().with_context(|| format!("{variable}={text} is not a port"))?
                }
                _ => usual,
            };
            ensure!(
                ports::is_free(port),
                "port {port}, for {whose}, is taken (by another demo, perhaps); set {variable} to another one"
            );
            Ok(port)
        };
        Ok(Ports {
            gitea: port("DEMO_GITEA_PORT", Ports::USUAL.gitea, "Gitea")?,
            runner: port("DEMO_RUNNER_PORT", Ports::USUAL.runner, "the runner")?,
            public: port("DEMO_PORT", Ports::USUAL.public, "Bellhop's public listener")?,
            private: port("DEMO_PRIVATE_PORT", Ports::USUAL.private, "Bellhop's private listener")?,
        })
    }
}

struct Binaries {
    bellhop: PathBuf,
    runner: PathBuf,
}

async fn build_parts() -> Result<Binaries> {
    note("Kubernetes, etcd and Gitea, from source: about 12 minutes on two cores the first time, no time afterwards");
    build::ensure_async(&Part::CONTROL_PLANE).await?;
    build::ensure_async(&[Part::Gitea]).await?;
    // Not built from here: some build scripts see that one cargo runs inside another, and build all anew each time.
    let here = std::env::current_exe()?.parent().context("a binary is in a folder")?.to_owned();
    let binaries = Binaries { bellhop: here.join("bellhop"), runner: here.join("examples/runner") };
    for path in [&binaries.bellhop, &binaries.runner] {
        ensure!(path.exists(), "{} is not built; run the demo by `make demo`", path.display());
    }
    Ok(binaries)
}

/// The running parts; dropping it ends them.
struct Demo {
    state: PathBuf,
    ports: Ports,
    /// The folder to apply: the example itself, or a copy with other ports.
    example: PathBuf,
    // In the order in which they end.
    bellhop: Bellhop,
    runner: Process,
    gitea: Gitea,
    control_plane: ControlPlane,
}

impl Demo {
    async fn start(state: &Path, ports: Ports, binaries: &Binaries) -> Result<Demo> {
        let started = Instant::now();
        let (control_plane, gitea) = tokio::try_join!(
            ControlPlane::start(state, "control-plane"),
            Gitea::start_on(state, "gitea", ports.gitea)
        )?;
        note_time("etcd, kube-apiserver, kube-controller-manager and Gitea answer", started);
        note(format!("Gitea is at {}", gitea.url()));

        let mut runner = Process::spawn(
            "runner",
            Command::new(&binaries.runner).args(["--listen", &format!("127.0.0.1:{}", ports.runner)]),
            &state.join("log/runner.log"),
        )?;
        runner
            .wait_ready(Duration::from_secs(20), async || {
                tokio::net::TcpStream::connect(("127.0.0.1", ports.runner)).await?;
                Ok(())
            })
            .await?;
        note(format!("a runner listens on port {}", ports.runner));

        let example = example(state, ports)?;
        kubectl(&control_plane, ["apply", "-f", "crds/"]).await?;
        control_plane.crds_established(&bellhop_harness::root().join("crds")).await?;
        kubectl(&control_plane, ["create", "namespace", "bellhop-system"]).await?;
        kubectl(&control_plane, ["create", "namespace", "bellhop-ingress"]).await?;

        let started = Instant::now();
        let mut options = Options::new(
            &binaries.bellhop,
            state,
            "bellhop",
            control_plane.kubeconfig(),
            "bellhop-system",
            "bellhop-ingress",
        );
        (options.port, options.private_port) = (Some(ports.public), Some(ports.private));
        let bellhop = Bellhop::start(options).await?;
        note_time(&format!("Bellhop is ready: callbacks go to {}", bellhop.url()), started);
        control_plane.register_request_log("bellhop-system", bellhop.internal_port()).await?;
        Ok(Demo { state: state.to_owned(), ports, example, bellhop, runner, gitea, control_plane })
    }

    async fn declare(&self) -> Result<User> {
        let owner = self.gitea.create_user(OWNER).await?;
        self.gitea.create_repository(&owner, REPOSITORY).await?;
        note(format!("Gitea has a user {OWNER} with an access token, and a repository {OWNER}/{REPOSITORY}"));
        let token = self.state.join("gitea-token");
        fs::write(&token, &owner.token)?;
        let example = self.example.display().to_string();
        let namespace = format!("{example}/namespace.yaml");
        self.kubectl(["apply", "-f", &namespace]).await?;
        let from_file = format!("--from-file=token={}", self.shown(&token));
        self.kubectl(["-n", TEAM, "create", "secret", "generic", "gitea-token", &from_file]).await?;
        self.kubectl(["-n", TEAM, "label", "secret", "gitea-token", "bellhop.dev/credentials-for=gitea"]).await?;
        self.kubectl(["apply", "-f", &format!("{example}/")]).await?;
        Ok(owner)
    }

    async fn wait_until_ready(&self) -> Result<()> {
        let waited = self.kubectl(["-n", TEAM, "wait", "--for=condition=Ready", "--timeout=60s", SUBSCRIPTION]).await;
        if waited.is_err() {
            let _ = self.kubectl(["-n", TEAM, "get", SUBSCRIPTION, "-o", "yaml"]).await;
            note(process::log_tail(self.bellhop.log_path(), 20));
        }
        waited
    }

    async fn push(&self, owner: &User) -> Result<()> {
        self.wait_until_ready().await?;
        self.kubectl(["-n", TEAM, "get", "subscriptions.bellhop.dev,workflowtriggers.bellhop.dev"]).await?;
        let hooks = self.hooks(owner).await?;
        ensure!(hooks.len() == 1, "Gitea should have one webhook, and has {}", hooks.len());
        let url = hooks[0]["config"]["url"].as_str().unwrap_or_default();
        ensure!(url.starts_with(&self.bellhop.url()), "the webhook should call {}, not {url}", self.bellhop.url());

        let folder = self.state.join("clone");
        note(format!("$ git clone {}/{OWNER}/{REPOSITORY}.git", self.gitea.url()));
        let clone = git::Checkout::clone_of(&self.gitea.clone_url(owner, REPOSITORY), &folder).await?;
        note("$ git commit -m 'Say hello' && git push origin main");
        let commit = clone.commit("hello.txt", "hello\n", "Say hello").await?;
        let started = Instant::now();
        clone.push("main").await?;
        note(format!("pushed {commit}"));
        let output = eventually(Duration::from_secs(30), "the runner to be asked to run a workflow", async || {
            let output = fs::read_to_string(self.runner.log_path())?;
            ensure!(output.contains(&commit), "the runner has not seen commit {commit}");
            Ok(output)
        })
        .await;
        if output.is_err() {
            note(process::log_tail(self.bellhop.log_path(), 20));
        }
        let output = output?;
        note_time("the runner was asked to run a workflow, with the push's variables:", started);
        const SHOWN: usize = 40;
        for line in output.lines().take(SHOWN) {
            note(format!("| {}", line.chars().take(1000).collect::<String>()));
        }
        if output.lines().count() > SHOWN {
            note(format!("| ... ({} has all of it)", self.shown(self.runner.log_path())));
        }
        self.kubectl(["-n", TEAM, "get", "requests.log.bellhop.dev"]).await
    }

    async fn delete(&self, owner: &User) -> Result<()> {
        self.kubectl(["-n", TEAM, "delete", SUBSCRIPTION, "--timeout=60s"]).await?;
        let hooks = self.hooks(owner).await?;
        ensure!(hooks.is_empty(), "the Subscription is gone, but Gitea still has a webhook");
        Ok(())
    }

    async fn keep(&self, owner: &User) -> Result<()> {
        println!("\n== KEEP=1: the Subscription once more, and everything stays");
        self.kubectl(["apply", "-f", &format!("{}/", self.example.display())]).await?;
        self.wait_until_ready().await?;
        let root = bellhop_harness::root();
        println!(
            "\nIn another terminal:\n\
             \x20  cd {root}\n\
             \x20  export KUBECONFIG={kubeconfig} PATH={bin}:$PATH\n\
             \x20  kubectl -n {TEAM} get subscriptions.bellhop.dev,workflowtriggers.bellhop.dev\n\
             \x20  kubectl -n {TEAM} describe {SUBSCRIPTION}\n\
             \x20  kubectl -n {TEAM} get requests.log.bellhop.dev\n\
             \x20  tail -f {runner}\n\
             \x20  cd {clone} && git commit --allow-empty -m again && git push\n\
             Gitea is at {gitea} (user {OWNER}, password {password}); its webhooks at\n\
             \x20  {gitea}/{OWNER}/{REPOSITORY}/settings/hooks\n\
             Bellhop's metrics are at http://127.0.0.1:{private}/metrics, its log in {log}.\n\
             \n\
             Ctrl-C ends everything.",
            root = root.display(),
            kubeconfig = self.control_plane.kubeconfig().display(),
            bin = root.join("target/cluster/bin").display(),
            runner = self.runner.log_path().display(),
            clone = self.state.join("clone").display(),
            gitea = self.gitea.url(),
            password = owner.password,
            private = self.ports.private,
            log = self.bellhop.log_path().display(),
        );
        tokio::signal::ctrl_c().await?;
        println!("\nending everything");
        Ok(())
    }

    /// The repository's webhooks, shown as Gitea's API has them.
    async fn hooks(&self, owner: &User) -> Result<Vec<Value>> {
        let hooks = self.gitea.hooks(owner, REPOSITORY).await?;
        note(format!("GET {}/api/v1/repos/{OWNER}/{REPOSITORY}/hooks: {} webhooks", self.gitea.url(), hooks.len()));
        for hook in &hooks {
            note(format!("  id {}, active {}, events {}", hook["id"], hook["active"], hook["events"]));
            note(format!("  {}", hook["config"]["url"].as_str().unwrap_or_default()));
        }
        Ok(hooks)
    }

    async fn kubectl<const N: usize>(&self, args: [&str; N]) -> Result<()> {
        kubectl(&self.control_plane, args).await
    }

    /// A path as it is typed in the repository's root.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(bellhop_harness::root()).unwrap_or(path).display().to_string()
    }
}

/// Runs kubectl in the repository's root, showing the command and what it prints.
async fn kubectl<const N: usize>(control_plane: &ControlPlane, args: [&str; N]) -> Result<()> {
    let mut command = control_plane.kubectl_command(args);
    command.current_dir(bellhop_harness::root());
    note(format!("$ {}", process::show(&command)));
    note(process::run(command).await?);
    Ok(())
}

/// The example's folder, or, if ports were changed, a copy that names them.
fn example(state: &Path, ports: Ports) -> Result<PathBuf> {
    let original = bellhop_harness::root().join(EXAMPLE);
    if (ports.gitea, ports.runner) == (Ports::USUAL.gitea, Ports::USUAL.runner) {
        return Ok(EXAMPLE.into());
    }
    let copy = state.join("gitea-push");
    fs::create_dir_all(&copy)?;
    for entry in fs::read_dir(&original)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = fs::read_to_string(&path)?
                .replace(&format!("127.0.0.1:{}", Ports::USUAL.gitea), &format!("127.0.0.1:{}", ports.gitea))
                .replace(&format!("port: {}", Ports::USUAL.runner), &format!("port: {}", ports.runner));
            fs::write(copy.join(path.file_name().context("a file has a name")?), text)?;
        }
    }
    if fs::read_dir(&copy)?.next().is_none() {
        bail!("there is no example in {}", original.display());
    }
    let root = bellhop_harness::root();
    Ok(copy.strip_prefix(&root).unwrap_or(&copy).to_owned())
}
