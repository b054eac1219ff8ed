//! What the tests share: the cluster, a Gitea beside it, Bellhop from its chart, teams that use it.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use bellhop_harness::cluster::{self, Cluster, PATIENCE};
use bellhop_harness::gitea::{Gitea, User};
use bellhop_harness::image::{self, Image};
use bellhop_harness::runner::Runner;
use bellhop_harness::{eventually, ports, world as files};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

pub const NAMESPACE: &str = "bellhop-system";
pub const REPOSITORY: &str = "web";
const IMAGE: (&str, &str) = ("localhost/bellhop-test/bellhop", "e2e");
pub const NODE_PORT: u16 = 30080;
/// Where the charts are, seen from the repository's root.
pub const CHARTS: [&str; 2] = ["charts/bellhop", "charts/bellhop-plugins"];

/// The cluster and what stands beside it.
pub struct World {
    pub cluster: &'static Cluster,
    pub gitea: Gitea,
    pub image: Image,
}

/// The world, which nobody else uses as long as the guard lives; `None` if pods cannot run here.
pub async fn world(test: &str) -> Result<Option<(&'static World, MutexGuard<'static, ()>)>> {
    static WORLD: OnceCell<World> = OnceCell::const_new();
    if !cluster::is_possible(test)? {
        return Ok(None);
    }
    let guard = alone().await;
    let start = async || {
        let cluster = cluster::shared().await;
        let image = image::bellhop(&format!("{}:{}", IMAGE.0, IMAGE.1)).await?;
        for image in [&image, &image::runner().await?, &image::visitor().await?] {
            cluster.load(image).await?;
        }
        let address = SocketAddr::new(cluster.host(), ports::free_port()?);
        let gitea = Gitea::start_at(files::dir(), "gitea", address).await?;
        apply(cluster, &restricted_namespace()).await?;
        anyhow::Ok(World { cluster, gitea, image })
    };
    Ok(Some((WORLD.get_or_try_init(start).await?, guard)))
}

/// Bellhop's namespace, closed to pods that are not restricted.
pub fn restricted_namespace() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
    })
}

/// Waits until no other test uses the cluster.
pub async fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
    ONE_AT_A_TIME.lock().await
}

/// Applies an object.
pub async fn apply(cluster: &Cluster, object: &Value) -> Result<()> {
    let file = files::dir().join("object.json");
    std::fs::write(&file, object.to_string())?;
    cluster.control_plane.apply_file(&file).await.map(drop)
}

/// Installs or upgrades Bellhop and the plugins with standard values, but for what the test cluster needs and `more`,
/// and waits until every pod is ready.
pub async fn install(world: &World, more: &[&str]) -> Result<Duration> {
    let public = public_url(world);
    let settings = [&[public.as_str()], more].concat();
    install_charts(world.cluster, CHARTS, world.cluster.host(), &settings).await
}

/// The setting that makes the node's port the public URL.
pub fn public_url(world: &World) -> String {
    format!("publicURL=http://{}:{NODE_PORT}", world.cluster.node_address())
}

/// The same with these charts, and with a public URL among the settings, in a cluster whose Bellhop may call `external`.
pub async fn install_charts(
    cluster: &Cluster,
    [bellhop, plugins]: [&str; 2],
    external: IpAddr,
    more: &[&str],
) -> Result<Duration> {
    let started = Instant::now();
    let (repository, tag) = IMAGE;
    let settings = [
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
        format!("allowAddresses={{{external}/32}}"),
        "ingress.service.type=NodePort".to_owned(),
        format!("ingress.service.nodePort={NODE_PORT}"),
        "controller.replicas=2".to_owned(),
        "log.level=info\\,bellhop=debug".to_owned(),
    ];
    let mut args = vec!["upgrade", "--install", "bellhop", bellhop, "--namespace", NAMESPACE];
    args.extend(["--wait", "--timeout=3m"]);
    for setting in settings.iter().map(String::as_str).chain(more.iter().copied()) {
        args.extend(["--set", setting]);
    }
    if let Err(error) = cluster.helm(args).await {
        let seen = cluster.control_plane.kubectl(["-n", NAMESPACE, "get", "pods,events,pvc"]).await;
        return Err(error.context(seen.unwrap_or_default()));
    }
    let took = started.elapsed();
    // So that nothing is left in the end.
    let keep = "--set=keep=false";
    cluster.helm(["upgrade", "--install", "bellhop-plugins", plugins, "--namespace", NAMESPACE, keep]).await?;
    Ok(took)
}

pub async fn kubectl(world: &World, args: &[&str]) -> Result<String> {
    world.cluster.control_plane.kubectl(args).await
}

/// kubectl in Bellhop's namespace.
pub async fn in_system(world: &World, args: &[&str]) -> Result<String> {
    kubectl(world, &[&["--namespace", NAMESPACE], args].concat()).await
}

/// Waits until all four pods of Bellhop are ready. (`kubectl rollout status` is content with what a controller knew
/// before it saw that a pod was gone.)
pub async fn bellhop_is_ready(world: &World) -> Result<()> {
    for part in ["statefulset/bellhop-ingress", "deployment/bellhop-controller"] {
        in_system(world, &["rollout", "status", part, "--timeout=180s"]).await?;
    }
    eventually(PATIENCE, "all pods of Bellhop are ready", async || {
        let pods: Value = serde_json::from_str(&in_system(world, &["get", "pods", "-o", "json"]).await?)?;
        let pods = pods["items"].as_array().context("a list has items")?;
        let is_ready = |pod: &&Value| {
            let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            pod["metadata"]["deletionTimestamp"].is_null()
                && conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
        };
        let ready = pods.iter().filter(is_ready).count();
        ensure!(ready == 4 && pods.len() == 4, "{ready} of {} pods are ready", pods.len());
        Ok(())
    })
    .await
}

/// A namespace with a user, a repository, credentials, and a runner on this machine behind the Service `runner`.
pub struct Team {
    pub world: &'static World,
    pub namespace: String,
    pub user: User,
    pub runner: Runner,
    /// What was applied, as the team's git repository would have it.
    pub manifests: std::sync::Mutex<Vec<Value>>,
}

impl Team {
    pub async fn new(world: &'static World, name: &str) -> Result<Team> {
        let namespace = world.cluster.control_plane.create_namespace(name).await?;
        let user = world.gitea.create_user(&namespace).await?;
        world.gitea.create_repository(&user, REPOSITORY).await?;
        let address = SocketAddr::new(world.cluster.host(), ports::free_port()?);
        let runner = Runner::start_at(address)?;
        let team = Team { world, namespace, user, runner, manifests: std::sync::Mutex::default() };
        team.apply(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "gitea-token", "labels": {"bellhop.dev/credentials-for": "gitea"}},
            "stringData": {"token": team.user.token},
        }))
        .await?;
        team.apply(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "runner"},
            "spec": {"ports": [{"name": "http", "port": 8090, "targetPort": address.port()}]},
        }))
        .await?;
        team.apply(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "runner", "labels": {"kubernetes.io/service-name": "runner"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": address.port()}],
            "endpoints": [{"addresses": [address.ip()]}],
        }))
        .await?;
        Ok(team)
    }

    pub async fn apply(&self, mut object: Value) -> Result<()> {
        object["metadata"]["namespace"] = json!(self.namespace);
        apply(self.world.cluster, &object).await?;
        self.manifests.lock().expect("nobody panicked").push(object);
        Ok(())
    }

    /// kubectl in the team's namespace.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        kubectl(self.world, &[&["--namespace", self.namespace.as_str()], args].concat()).await
    }

    /// A Subscription and a trigger, both ready.
    pub async fn subscribe(&self, name: &str) -> Result<()> {
        self.apply(json!({
            "apiVersion": "bellhop.dev/v1alpha1",
            "kind": "Subscription",
            "metadata": {"name": name},
            "spec": {
                "pluginRef": {"name": "gitea"},
                "parameters": {"baseURL": self.world.gitea.url(), "owner": self.user.name, "repository": REPOSITORY},
                "authorization": {"apiKey": {"secretRef": {"name": "gitea-token"}}},
            },
        }))
        .await?;
        self.apply(json!({
            "apiVersion": "bellhop.dev/v1alpha1",
            "kind": "WorkflowTrigger",
            "metadata": {"name": name},
            "spec": {
                "subscriptionRef": {"name": name},
                "event": "push",
                "workflow": "review",
                "runner": {"service": {"name": "runner", "port": 8090, "path": "/runs"}},
                "delivery": {"maxAttempts": 100},
            },
        }))
        .await?;
        self.is_ready(name).await
    }

    pub async fn is_ready(&self, name: &str) -> Result<()> {
        for kind in ["subscription.bellhop.dev", "workflowtrigger.bellhop.dev"] {
            let object = format!("{kind}/{name}");
            if let Err(error) = self.kubectl(&["wait", "--for=condition=Ready", "--timeout=90s", &object]).await {
                let seen = self.kubectl(&["get", &object, "-o", "yaml"]).await.unwrap_or_default();
                let log = in_system(self.world, &["logs", "deployment/bellhop-controller", "--tail=30"]).await;
                return Err(error.context(format!("{seen}\n{}", log.unwrap_or_default())));
            }
        }
        Ok(())
    }

    /// The ids of the webhooks in Gitea.
    pub async fn hooks(&self) -> Result<Vec<String>> {
        let hooks = self.world.gitea.hooks(&self.user, REPOSITORY).await?;
        Ok(hooks.iter().map(|hook| hook["id"].to_string()).collect())
    }

    pub async fn push(&self, file: &str) -> Result<String> {
        self.world.gitea.commit_file(&self.user, REPOSITORY, "main", file, "content", &format!("Add {file}")).await
    }

    /// Pushes, and waits until the runner was asked to run a workflow for it.
    pub async fn push_arrives(&self, file: &str) -> Result<()> {
        let commit = self.push(file).await?;
        let seen = |body: &[u8]| String::from_utf8_lossy(body).contains(&commit);
        self.runner
            .wait_until(&format!("commit {commit}"), PATIENCE, |runs| runs.iter().any(|run| seen(&run.body)))
            .await?;
        Ok(())
    }

    /// The callback URL and the secret of a Subscription.
    pub async fn callback(&self, name: &str) -> Result<(String, String)> {
        let text = self.kubectl(&["get", "subscription.bellhop.dev", name, "-o", "json"]).await?;
        let subscription: Value = serde_json::from_str(&text)?;
        let url = subscription["status"]["address"]["url"].as_str().context("a Subscription has an address")?;
        let uid = subscription["metadata"]["uid"].as_str().context("an object has a UID")?;
        let custody = format!("custody-{uid}");
        let json = in_system(self.world, &["get", "secret", &custody, "-o", "jsonpath={.data.custody\\.json}"]).await?;
        let json = base64::engine::general_purpose::STANDARD.decode(json.trim())?;
        let custody: Value = serde_json::from_slice(&json)?;
        let secret = custody["callbackSecret"].as_str().context("a custody has a callback secret")?;
        Ok((url.to_owned(), secret.to_owned()))
    }

    pub async fn delete(self) -> Result<()> {
        let started = Instant::now();
        let deleted = kubectl(self.world, &["delete", "namespace", &self.namespace, "--timeout=180s"]).await;
        figure(&format!("{}: the workspace is gone after {:.1} s", self.namespace, started.elapsed().as_secs_f64()));
        let Err(error) = deleted else { return Ok(()) };
        let namespace = kubectl(self.world, &["get", "namespace", &self.namespace, "-o", "yaml"]).await;
        let subscriptions = self.kubectl(&["get", "subscriptions.bellhop.dev", "-o", "yaml"]).await;
        let log = in_system(self.world, &["logs", "deployment/bellhop-controller", "--all-pods", "--tail=60"]).await;
        Err(error.context([namespace, subscriptions, log].map(Result::unwrap_or_default).join("\n")))
    }
}

/// Waits until nothing is left of a namespace.
pub async fn namespace_is_gone(world: &World, namespace: &str, within: Duration) -> Result<()> {
    eventually(within, &format!("namespace {namespace} is gone"), async || {
        let found = kubectl(world, &["get", "namespace", namespace, "--ignore-not-found", "-o", "json"]).await?;
        ensure!(found.is_empty(), "{found}");
        Ok(())
    })
    .await
}

/// Uninstalls Bellhop, waits until its last pod is gone, and returns what Helm printed.
pub async fn uninstall(world: &World) -> Result<String> {
    let args = ["uninstall", "bellhop", "--namespace", NAMESPACE, "--wait", "--timeout=3m"];
    let output = tokio::process::Command::from(world.cluster.helm_command(args)).output().await?;
    // What a hook says goes to the standard error.
    let printed = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if !output.status.success() {
        let seen = in_system(world, &["get", "pods,jobs,events"]).await.unwrap_or_default();
        bail!("{printed}\n{seen}");
    }
    // Helm waits for what it deleted, not for what belonged to that.
    eventually(PATIENCE, "the last pod is gone", async || {
        let pods = in_system(world, &["get", "pods", "-o", "name"]).await?;
        ensure!(pods.is_empty(), "{pods}");
        Ok(())
    })
    .await?;
    Ok(printed)
}

/// Prints a figure, past the test runner's capture.
pub fn figure(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "figure: {text}");
}
