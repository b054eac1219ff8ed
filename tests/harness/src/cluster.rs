//! A whole cluster: a control plane, a node on this machine, DNS, a few volumes. Or an existing cluster.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `BELLHOP_TEST_KUBECONFIG` | an existing cluster to use instead |
//! | `BELLHOP_TEST_LOAD_IMAGE` | for it: a shell command that makes an image known to its nodes; the path of an archive in OCI's format is appended |
//! | `BELLHOP_TEST_HOST_ADDRESS` | for it: the address at which its pods reach this machine |
//! | `CI` | if it is `true`, a machine that cannot run pods is an error instead of a reason to leave something out |

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::build::{self, Part, say};
use crate::control_plane::{ControlPlane, Reachable};
use crate::image::{self, Image};
use crate::node::{self, Node};
use crate::process;

/// What a cluster writes below `target/` while it runs, in megabytes, as `df` counts.
const ROOM: u64 = 1500;

/// A cluster with pods. Dropping it removes it; an existing one is left alone.
#[derive(Debug)]
pub struct Cluster {
    /// The API server and its clients.
    pub control_plane: ControlPlane,
    host: IpAddr,
    node_address: IpAddr,
    helm: PathBuf,
    folder: PathBuf,
    /// `None` for an existing cluster.
    node: Option<Node>,
}

/// Whether pods can run here. If not, says what is left out and why; with `CI=true`, that is an error.
pub fn is_possible(what: &str) -> Result<bool> {
    if variable("BELLHOP_TEST_KUBECONFIG").is_some() {
        return Ok(true);
    }
    let Some(obstacle) = node::obstacle() else { return Ok(true) };
    if variable("CI").is_some_and(|value| value == "true") {
        bail!("{what} cannot run: {obstacle}");
    }
    say(&format!("left out: {what}, because {obstacle}"));
    Ok(false)
}

/// The cluster of this process, started when it is first asked for. Panics if it cannot be started. It is removed when
/// the process ends.
pub async fn shared() -> &'static Cluster {
    static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();
    match CLUSTER.get_or_try_init(|| Cluster::start(crate::world::dir(), "cluster")).await {
        Ok(cluster) => cluster,
        Err(error) => panic!("the cluster does not start: {error:#}"),
    }
}

impl Cluster {
    /// Starts a cluster with its state in `dir/NAME` and `dir/NAME-node`, and its logs in `dir/log`, and waits until
    /// pods run and resolve names.
    pub async fn start(dir: &Path, name: &str) -> Result<Cluster> {
        build::ensure_async(&[Part::Helm]).await?;
        let helm = build::part(Part::Helm)?;
        let folder = dir.join(format!("{name}-helm"));
        fs::create_dir_all(&folder)?;
        if variable("BELLHOP_TEST_KUBECONFIG").is_some() {
            let control_plane = ControlPlane::start(dir, name).await?;
            let host = variable("BELLHOP_TEST_HOST_ADDRESS")
                .context("BELLHOP_TEST_HOST_ADDRESS has to say at which address pods reach this machine")?
                .parse()
                .context("BELLHOP_TEST_HOST_ADDRESS is not an IP address")?;
            let internal = r#"jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}"#;
            let addresses = control_plane.kubectl(["get", "nodes", "-o", internal]).await?;
            let node_address = addresses.split_whitespace().next().context("the cluster has no node")?.parse()?;
            return Ok(Cluster { control_plane, host, node_address, helm, folder, node: None });
        }

        if let Some(obstacle) = node::obstacle() {
            bail!("{obstacle}");
        }
        build::ensure_async(&Part::CONTROL_PLANE).await?;
        build::ensure_async(&Part::NODE).await?;
        let free = free_megabytes(dir).await?;
        say(&format!("starting a cluster with a node; it needs up to {ROOM} MB below target/, of {free} MB free"));
        let started = Instant::now();
        let mut node = Node::start(dir, &format!("{name}-node")).await?;
        let network = node.network();
        let reachable = Reachable {
            address: network.host(),
            services: network.services(),
            first_service: network.first_service(),
            node: node::NAME.to_owned(),
        };
        let images = async {
            for image in [image::pause().await?, image::coredns().await?] {
                node.load_image(&image.archive).await?;
            }
            anyhow::Ok(())
        };
        let (control_plane, ()) = tokio::try_join!(ControlPlane::start_for_pods(dir, name, reachable), images)?;
        let dns = fs::read_to_string(crate::root().join("tests/cluster/dns.yaml"))?
            .replace("DNS_ADDRESS", &network.dns().to_string())
            .replace("HOST_ADDRESS", &network.host().to_string());
        let manifests = folder.join("manifests");
        fs::create_dir_all(&manifests)?;
        fs::write(manifests.join("dns.yaml"), dns)?;
        fs::write(manifests.join("volumes.json"), volumes())?;
        control_plane.apply_file(&manifests).await?;
        let (host, node_address) = (network.host().into(), network.node().into());
        node.join(&control_plane).await?;
        control_plane
            .kubectl(["rollout", "status", "--namespace=kube-system", "deployment/coredns", "--timeout=60s"])
            .await?;
        say(&format!("the cluster started in {:.1} s", started.elapsed().as_secs_f64()));
        Ok(Cluster { control_plane, host, node_address, helm, folder, node: Some(node) })
    }

    /// Whether this is an existing cluster.
    pub fn is_external(&self) -> bool {
        self.node.is_none()
    }

    /// This machine's address, as pods see it. What listens on it can be called by pods.
    pub fn host(&self) -> IpAddr {
        self.host
    }

    /// The node's address, at which this machine reaches Services of the type NodePort.
    pub fn node_address(&self) -> IpAddr {
        self.node_address
    }

    /// The node; `None` for an existing cluster.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Makes an image known to the cluster.
    pub async fn load(&self, image: &Image) -> Result<()> {
        let Some(node) = &self.node else {
            let command = variable("BELLHOP_TEST_LOAD_IMAGE")
                .context("BELLHOP_TEST_LOAD_IMAGE has to say how the cluster gets an image")?;
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", &format!("{command} \"$1\""), "load"]).arg(&image.archive);
            return process::run(shell).await.map(drop);
        };
        node.load_image(&image.archive).await
    }

    /// A Helm command with all rights, which keeps its files to itself.
    pub fn helm_command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.helm);
        command.args(args).env("KUBECONFIG", self.control_plane.kubeconfig()).current_dir(crate::root());
        for (variable, folder) in
            [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(variable, self.folder.join(folder));
        }
        command
    }

    /// Runs Helm in the repository's root and returns what it printed; fails with its error message.
    pub async fn helm<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        process::run(self.helm_command(args)).await
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn free_megabytes(folder: &Path) -> Result<u64> {
    let mut command = Command::new("df");
    command.args(["--block-size=1M", "--output=avail"]).arg(folder);
    let output = process::run(command).await?;
    output.split_whitespace().last().and_then(|free| free.parse().ok()).context("df did not say what is free")
}

/// Volumes that are there already, and the storage class that claims get by default. Each claim takes one of them, and a
/// pod that comes back finds its own.
fn volumes() -> String {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "local",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    let volume = |number| {
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": format!("local-{number}")},
            "spec": {
                "capacity": {"storage": "100Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "local",
                "local": {"path": format!("{}/{number}", node::VOLUME_FOLDER)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node::NAME]},
                ]}]}},
            },
        })
    };
    let items: Vec<_> = std::iter::once(class).chain((0..node::VOLUMES).map(volume)).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// How long something in a cluster may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
