//! A real node on this machine: containerd and runc, a kubelet, kube-proxy.
//!
//! The node lives in Linux namespaces of its own (processes, mounts, network), made by `enter.sh`: on this machine, only
//! one network interface, control groups of the same name and a folder are seen of it. The kernel ends all its
//! processes, containers included, and takes back its mounts, interfaces and packet filters, when the first process of
//! the namespaces ends, which does not outlive the test process. `janitor.sh` removes the rest.
//!
//! Pods have addresses that this machine reaches by a route through the node, and so have Services, because kube-proxy
//! works on what the node forwards. Pods reach this machine at [`Network::host`], and nothing else.

mod machine;
mod network;
mod settings;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::build::{self, Part, say};
use crate::control_plane::{ControlPlane, private_folder};
use crate::process::{self, Process};

pub use machine::obstacle;
pub use network::Network;

/// The node's name in the cluster.
pub const NAME: &str = "bellhop-test";

/// The image that holds a pod's namespaces.
pub const PAUSE_IMAGE: &str = "localhost/bellhop-test/pause:1";

/// Where the node sees its own folder. Paths in its settings begin with it.
const STATE: &str = "/run/node";

/// How many volumes there are, and where the node sees them.
pub(crate) const VOLUMES: usize = 40;
pub(crate) const VOLUME_FOLDER: &str = "/run/node/volumes";

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running node. Dropping it removes everything of it but its logs.
#[derive(Debug)]
pub struct Node {
    // The order of these is the order in which they are dropped.
    _kubelet: Option<Process>,
    _proxy: Option<Process>,
    containerd: Option<Process>,
    namespaces: Process,
    _janitor: Janitor,
    /// The first process in the namespaces.
    init: u32,
    state: PathBuf,
    log_dir: PathBuf,
    network: Network,
}

impl Node {
    /// Makes the namespaces and the network of a node, and starts containerd. Its state is in `dir/NAME`, its logs in
    /// `dir/log`.
    pub(crate) async fn start(dir: &Path, name: &str) -> Result<Node> {
        let state = dir.join(name);
        let log_dir = dir.join("log");
        tokio::task::spawn_blocking(machine::install_packages).await??;
        build::ensure_async(&Part::NODE).await?;
        let network = Network::take()?;
        Janitor::clean(&network.name(), &state)?;
        private_folder(&state)?;
        let pod_logs = log_dir.join("pods");
        fs::create_dir_all(&pod_logs)?;

        let janitor = Janitor::start(&network.name(), &state, &log_dir)?;
        make_control_groups(&network.name())?;
        let mut command = Command::new("unshare");
        command
            .args(["--fork", "--kill-child", "--pid", "--mount", "--net", "--ipc", "/bin/sh", "-c"])
            .args([include_str!("enter.sh"), "enter.sh"])
            .args([&fs::canonicalize(&state)?, &fs::canonicalize(binaries()?)?, &fs::canonicalize(pod_logs)?])
            .env("PATH", machine::path());
        let mut namespaces = Process::spawn("node", &command, &log_dir.join(format!("{name}-namespaces.log")))?;
        let pid = state.join("pid");
        namespaces
            .wait_ready(START_TIMEOUT, async || {
                ensure!(pid.exists(), "enter.sh has not finished");
                Ok(())
            })
            .await?;
        let init = fs::read_to_string(&pid)?.trim().parse()?;
        let mut node = Node {
            _kubelet: None,
            _proxy: None,
            containerd: None,
            namespaces,
            _janitor: janitor,
            init,
            state,
            log_dir,
            network,
        };
        node.connect().await?;
        node.start_containerd().await?;
        Ok(node)
    }

    /// The node's addresses.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Where the content of the volumes is on this machine.
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// A command that runs in the node's namespaces.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string(), "--pid", "--mount", "--net", "--ipc", "--", program])
            .args(args)
            .env("PATH", machine::path());
        command
    }

    /// Makes an image, an archive in OCI's format, known to the node.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        // The node does not see every folder of this machine.
        let name = format!("image-{}.tar", uuid::Uuid::new_v4().simple());
        let copy = self.state.join(&name);
        fs::copy(archive, &copy).with_context(|| format!("cannot read {}", archive.display()))?;
        let seen = format!("{STATE}/{name}");
        let imported =
            process::run(self.command("ctr", ["--namespace", "k8s.io", "images", "import", "--no-unpack", &seen]))
                .await;
        fs::remove_file(copy)?;
        imported.map(drop)
    }

    /// Starts the kubelet and kube-proxy, and lets the node join the control plane.
    pub(crate) async fn join(&mut self, control_plane: &ControlPlane) -> Result<()> {
        for name in ["kubelet", "kube-proxy"] {
            fs::copy(control_plane.kubeconfig_of(name), self.state.join(format!("{name}.kubeconfig")))?;
        }
        fs::copy(control_plane.ca_file(), self.state.join("ca.crt"))?;
        // Pods that do not use the cluster's DNS have none.
        fs::write(self.state.join("resolv.conf"), "")?;
        fs::write(self.state.join("kubelet.yaml"), settings::kubelet(&self.network))?;
        fs::write(self.state.join("kube-proxy.yaml"), settings::kube_proxy(&self.network))?;
        for number in 0..VOLUMES {
            fs::create_dir_all(self.volumes().join(number.to_string()))?;
        }
        self._proxy = Some(self.spawn("kube-proxy", &[&format!("--config={STATE}/kube-proxy.yaml")])?);
        let mut kubelet = self.spawn(
            "kubelet",
            &[
                &format!("--config={STATE}/kubelet.yaml"),
                &format!("--kubeconfig={STATE}/kubelet.kubeconfig"),
                &format!("--hostname-override={NAME}"),
                &format!("--node-ip={}", self.network.node()),
            ],
        )?;
        kubelet
            .wait_ready(START_TIMEOUT, async || {
                let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")]['status','message']}";
                let found = control_plane.kubectl(["get", "node", NAME, "-o", ready]).await?;
                ensure!(found.starts_with("True"), "the node is not ready: {found}");
                Ok(())
            })
            .await?;
        self._kubelet = Some(kubelet);
        Ok(())
    }

    fn spawn(&self, part: &str, args: &[&str]) -> Result<Process> {
        Process::spawn(part, &self.command(&format!("/run/bin/{part}"), args), &self.log(part))
    }

    fn log(&self, part: &str) -> PathBuf {
        self.log_dir.join(format!("node-{part}.log"))
    }

    /// A cable between this machine and the node, and routes over it.
    async fn connect(&self) -> Result<()> {
        let network = &self.network;
        let (here, peer) = (network.name(), self.init.to_string());
        let outside = async |args: &str| {
            let mut command = Command::new("ip");
            command.args(args.split(' ')).env("PATH", machine::path());
            process::run(command).await
        };
        let inside = async |args: &str| process::run(self.command("ip", args.split(' '))).await;
        outside(&format!("link add {here} type veth peer name uplink netns {peer}")).await?;
        outside(&format!("address add {}/30 dev {here}", network.host())).await?;
        outside(&format!("link set {here} up")).await?;
        inside(&format!("address add {}/30 dev uplink", network.node())).await?;
        inside("link set uplink up").await?;
        for subnet in [network.pods(), network.services()] {
            outside(&format!("route add {subnet} via {} dev {here}", network.node())).await?;
        }
        Ok(())
    }

    async fn start_containerd(&mut self) -> Result<()> {
        let plugins = machine::network_plugins().context("no CNI plugins, although they were just installed")?;
        fs::create_dir_all(self.state.join("cni"))?;
        fs::write(self.state.join("cni/10-pods.conflist"), settings::cni(&self.network))?;
        let snapshotter = if self.has_overlay().await { "overlayfs" } else { "native" };
        fs::write(self.state.join("containerd.toml"), settings::containerd(plugins, snapshotter))?;
        let command = self.command("containerd", ["--config", &format!("{STATE}/containerd.toml")]);
        let mut containerd = Process::spawn("containerd", &command, &self.log("containerd"))?;
        containerd
            .wait_ready(START_TIMEOUT, async || process::run(self.command("ctr", ["version"])).await.map(drop))
            .await?;
        self.containerd = Some(containerd);
        Ok(())
    }

    /// Whether the folder's file system can be the upper layer of an overlay, which another overlay cannot.
    async fn has_overlay(&self) -> bool {
        let script = format!(
            "cd {STATE} && mkdir -p try/lower try/upper try/work try/all && \
             mount -t overlay overlay -o lowerdir=try/lower,upperdir=try/upper,workdir=try/work try/all && \
             umount try/all"
        );
        let tried = process::run(self.command("sh", ["-c", &script])).await.is_ok();
        let _ = fs::remove_dir_all(self.state.join("try"));
        tried
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self._kubelet = None;
        self._proxy = None;
        self.containerd = None;
        self.namespaces.kill9();
        // The janitor's turn, when it is dropped.
    }
}

/// The folder with the parts that were built.
fn binaries() -> Result<PathBuf> {
    let kubelet = build::part(Part::Kubelet)?;
    Ok(kubelet.parent().context("a binary is in a folder")?.to_owned())
}

fn control_group_roots() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    // One tree (version 2), or one for each controller.
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).context("no control groups")?;
    Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists()).collect())
}

/// The kubelet wants the group below which it makes its own ones to be there.
fn make_control_groups(name: &str) -> Result<()> {
    for root in control_group_roots()? {
        let group = root.join(name);
        fs::create_dir_all(&group).with_context(|| format!("cannot make the control group {}", group.display()))?;
        // Without these, no process can be in the group.
        for setting in ["cpuset.cpus", "cpuset.mems"] {
            if root.file_name().is_some_and(|controller| controller == "cpuset") {
                fs::write(group.join(setting), fs::read(root.join(setting))?)?;
            }
        }
    }
    Ok(())
}

/// Removes what the node leaves behind, when this is dropped or this process ends.
#[derive(Debug)]
struct Janitor(Child);

impl Janitor {
    fn command(name: &str, state: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", include_str!("janitor.sh"), "janitor.sh", name])
            .arg(state)
            .env("PATH", machine::path())
            .current_dir("/");
        command
    }

    fn start(name: &str, state: &Path, log_dir: &Path) -> Result<Janitor> {
        use std::os::unix::process::CommandExt;
        fs::create_dir_all(log_dir)?;
        let log = File::create(log_dir.join("node-janitor.log"))?;
        let mut command = Janitor::command(name, state);
        // In a group of its own, so that Ctrl-C does not reach it.
        command.process_group(0).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        Ok(Janitor(command.spawn().context("cannot start the janitor")?))
    }

    /// What a node left whose janitor was killed, too.
    fn clean(name: &str, state: &Path) -> Result<()> {
        let output = Janitor::command(name, state).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let started = Instant::now();
        match self.0.wait() {
            Ok(status) if status.success() => {}
            _ => say(&format!("the node could not be removed completely ({:?})", started.elapsed())),
        }
    }
}
