//! What the tests share: a Bellhop on the shared control plane, a Bellhop on one of its own, and workspaces.

use crate::bad_input::sign;
use anyhow::{Context, Result, ensure};
use bellhop::api::{Condition, Subscription, WorkflowTrigger};
use bellhop_harness::bellhop::{Bellhop, Options};
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::gitea::{Gitea, User};
use bellhop_harness::ports::free_port;
use bellhop_harness::process::Process;
use bellhop_harness::runner::{Recorded, Runner};
use bellhop_harness::{eventually, world};
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Long enough for a busy machine, short enough for a person.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const NAMESPACE: &str = "bellhop-system";
pub const INGRESS_NAMESPACE: &str = "bellhop-ingress";
/// The Service of the ingress of a [`Pair`], which nobody has made.
const SERVICE: &str = "nowhere";

/// The Bellhop on the shared control plane. No test stops it.
pub async fn shared() -> &'static Bellhop {
    static BELLHOP: OnceCell<Bellhop> = OnceCell::const_new();
    let start = async || {
        let world = world::shared().await;
        install(&world.control_plane).await?;
        let bellhop = Bellhop::start(options("bellhop", &world.control_plane).args(["--resource-runners"])).await?;
        world.control_plane.register_request_log(NAMESPACE, bellhop.internal_port()).await?;
        Ok::<_, anyhow::Error>(bellhop)
    };
    match BELLHOP.get_or_try_init(start).await {
        Ok(bellhop) => bellhop,
        Err(error) => panic!("the shared Bellhop does not start: {error:#}"),
    }
}

/// How to run a Bellhop on this control plane.
pub fn options(name: &str, control_plane: &ControlPlane) -> Options {
    let binary = env!("CARGO_BIN_EXE_bellhop");
    Options::new(binary, world::dir(), name, control_plane.kubeconfig(), NAMESPACE, INGRESS_NAMESPACE)
        .args(["--log", "info,bellhop=debug"])
}

/// Applies the CRDs and the plugin of Gitea.
pub async fn install(control_plane: &ControlPlane) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    control_plane.apply_crds(&root.join("crds")).await?;
    control_plane.apply_file(&root.join("examples/gitea-push/plugin.yaml")).await?;
    Ok(())
}

/// A control plane and a Bellhop that a test may kill.
pub struct Own {
    pub control_plane: ControlPlane,
    pub bellhop: Bellhop,
}

impl Own {
    pub async fn start(name: &str, args: &[&str]) -> Result<Own> {
        // Makes sure that what is needed is built, and that one Gitea runs.
        world::shared().await;
        let control_plane = ControlPlane::start(world::dir(), &format!("control-plane-{name}")).await?;
        install(&control_plane).await?;
        let options = options(&format!("bellhop-{name}"), &control_plane).args(args.iter().copied());
        let bellhop = Bellhop::start(options).await?;
        Ok(Own { control_plane, bellhop })
    }
}

/// A controller and an ingress, each a process of its own. There is no Service that leads to the ingress, so no route is
/// confirmed and no webhook made; what is published is served all the same.
pub struct Pair {
    /// Ends with the pair.
    _controller: Process,
    ingress: Process,
    pub public_url: String,
    pub log_address: SocketAddr,
    kubeconfig: PathBuf,
    data: PathBuf,
    internal: String,
    name: String,
    /// Whether the replicas have host names of their own.
    as_pods: bool,
}

impl Pair {
    /// `name` is that of files, and not used elsewhere.
    pub fn start(name: &str, control_plane: &ControlPlane) -> Result<Pair> {
        Pair::start_at(name, control_plane, IpAddr::from([127, 0, 0, 1]), false)
    }

    /// The same, where each replica of the ingress has a host name as a pod of a StatefulSet has it, which takes root, and
    /// tells its log at an address that an EndpointSlice may have: see [`Pair::joins`].
    pub async fn start_as_pods(name: &str, control_plane: &ControlPlane, address: IpAddr) -> Result<Pair> {
        let pair = Pair::start_at(name, control_plane, address, true)?;
        let port = pair.internal.parse::<SocketAddr>()?.port();
        control_plane.register_request_log(NAMESPACE, port).await?;
        Ok(pair)
    }

    fn start_at(name: &str, control_plane: &ControlPlane, address: IpAddr, as_pods: bool) -> Result<Pair> {
        let (internal, public) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
        let log_address = SocketAddr::new(address, free_port()?);
        let (public_url, kubeconfig) = (format!("http://{public}"), control_plane.kubeconfig().to_owned());
        let data = world::dir().join(format!("{name}-ingress"));
        let options = ["--public-url", &public_url, "--ingress-service", SERVICE, "--internal-listen", &internal];
        let log = ["--log-api-service", "v1alpha1.log.bellhop.dev"].into_iter().filter(|_| as_pods);
        let options: Vec<&str> = options.into_iter().chain(["--resource-runners"]).chain(log).collect();
        let _controller = spawn(name, "controller", &options, &kubeconfig, None)?;
        let host = as_pods.then_some("bellhop-ingress-0");
        let ingress = spawn_ingress(name, &public, log_address, &data, &internal, &kubeconfig, host)?;
        let name = name.to_owned();
        Ok(Pair { _controller, ingress, public_url, log_address, kubeconfig, data, internal, name, as_pods })
    }

    /// Starts another replica of the ingress, with a spool of its own.
    pub fn another_ingress(&self) -> Result<Ingress> {
        let public = format!("127.0.0.1:{}", free_port()?);
        let log_address = SocketAddr::new(self.log_address.ip(), free_port()?);
        let (name, data) = (format!("{}-another", self.name), world::dir().join(format!("{}-another", self.name)));
        let host = self.as_pods.then_some("bellhop-ingress-1");
        let process = spawn_ingress(&name, &public, log_address, &data, &self.internal, &self.kubeconfig, host)?;
        Ok(Ingress { process, public_url: format!("http://{public}"), log_address })
    }

    /// Makes the replica with this number an endpoint of the Service, at which the controller asks for its log.
    pub async fn joins(client: &Client, number: u32, log: SocketAddr) -> Result<()> {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("ingress-{number}"), "labels": {"kubernetes.io/service-name": SERVICE}},
            "ports": [{"name": "log", "port": log.port()}],
            "endpoints": [{
                "addresses": [log.ip()], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": format!("bellhop-ingress-{number}")},
            }],
        });
        let api = Api::<EndpointSlice>::namespaced(client.clone(), NAMESPACE);
        api.patch(&format!("ingress-{number}"), &PatchParams::apply("test").force(), &Patch::Apply(slice)).await?;
        Ok(())
    }

    /// It is no endpoint any more.
    pub async fn leaves(client: &Client, number: u32) -> Result<()> {
        let api = Api::<EndpointSlice>::namespaced(client.clone(), NAMESPACE);
        api.delete(&format!("ingress-{number}"), &DeleteParams::default()).await?;
        Ok(())
    }

    /// The callback URL of a Subscription, and its secret. There is no Service that leads to the ingress, so the webhook is not
    /// made; the route is published all the same.
    pub async fn route(&self, workspace: &Workspace<'_>, subscription: &Subscription) -> Result<(String, String)> {
        workspace.subscription_is(&subscription.name_any(), "Ready", "False", "RouteNotLive").await?;
        let published = Api::<Secret>::namespaced(workspace.client.clone(), INGRESS_NAMESPACE);
        let route = published.get(&format!("route-{}", subscription.uid().context("it has a UID")?)).await?;
        let route: Value = serde_json::from_slice(&route.data.context("it has data")?["route.json"].0)?;
        let secret = callback_secret(&workspace.client, subscription).await?;
        Ok((format!("{}/hooks/{}", self.public_url, route["token"].as_str().context("a token")?), secret))
    }

    /// Kills the ingress and starts it again with the same spool.
    pub fn restart_ingress(&mut self) -> Result<()> {
        self.ingress.kill9();
        let public = self.public_url.trim_start_matches("http://");
        let (log, data, internal) = (self.log_address, &self.data, &self.internal);
        let host = self.as_pods.then_some("bellhop-ingress-0");
        self.ingress = spawn_ingress(&self.name, public, log, data, internal, &self.kubeconfig, host)?;
        Ok(())
    }
}

/// A further replica of the ingress; ends when it is dropped.
pub struct Ingress {
    pub process: Process,
    pub public_url: String,
    pub log_address: SocketAddr,
}

fn spawn_ingress(
    name: &str,
    public: &str,
    log: SocketAddr,
    data: &Path,
    internal: &str,
    kubeconfig: &Path,
    host: Option<&str>,
) -> Result<Process> {
    let (log, url) = (log.to_string(), format!("https://{internal}"));
    let data = data.to_str().context("the folder is text")?;
    let options = ["--listen", public, "--data-dir", data, "--controller-url", &url, "--log-address", &log];
    spawn(name, "ingress", &options, kubeconfig, host)
}

/// `host` is the name that the machine has for the process.
fn spawn(name: &str, part: &str, options: &[&str], kubeconfig: &Path, host: Option<&str>) -> Result<Process> {
    const NAMED: &str = r#"echo "$0" > /proc/sys/kernel/hostname && exec "$@""#;
    let binary = env!("CARGO_BIN_EXE_bellhop");
    let mut command = Command::new(if host.is_some() { "unshare" } else { binary });
    if let Some(host) = host {
        command.args(["--uts", "--", "sh", "-c", NAMED, host, binary]);
    }
    command
        .arg(part)
        .args(["--private-listen", &format!("127.0.0.1:{}", free_port()?), "--log-format", "json"])
        .args(["--namespace", NAMESPACE, "--ingress-namespace", INGRESS_NAMESPACE])
        .args(["--cluster-domain", "localhost", "--allow-address", "127.0.0.0/8", "--activity-interval", "1s"])
        .args(["--allow-runner-origin", "http://127.0.0.1:*"])
        .args(options)
        .env("KUBECONFIG", kubeconfig);
    Process::spawn(&format!("bellhop-{part}"), &command, &world::log_dir().join(format!("{name}-{part}.log")))
}

/// A namespace with a user, a repository and a runner of its own.
pub struct Workspace<'a> {
    pub control_plane: &'a ControlPlane,
    pub gitea: &'a Gitea,
    pub client: Client,
    pub namespace: String,
    pub user: User,
    pub runner: Runner,
    /// What the Subscriptions name as `baseURL`.
    pub base_url: String,
}

pub const REPOSITORY: &str = "web";
pub const SECRET: &str = "gitea-token";

impl<'a> Workspace<'a> {
    /// On the shared control plane, with the shared Bellhop running.
    pub async fn shared(prefix: &str) -> Result<Workspace<'static>> {
        shared().await;
        let world = world::shared().await;
        Workspace::new(&world.control_plane, &world.gitea, prefix).await
    }

    pub async fn new(control_plane: &'a ControlPlane, gitea: &'a Gitea, prefix: &str) -> Result<Workspace<'a>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = control_plane.create_namespace(prefix).await?;
        let user = gitea.create_user(&format!("{prefix}-{}", COUNT.fetch_add(1, Ordering::Relaxed))).await?;
        note_secret(&user.token)?;
        gitea.create_repository(&user, REPOSITORY).await?;
        let workspace = Workspace {
            client: control_plane.client().await?,
            control_plane,
            gitea,
            namespace,
            base_url: gitea.url(),
            user,
            runner: Runner::start()?,
        };
        workspace.put_secret(SECRET, Some("gitea"), &[("token", &workspace.user.token)]).await?;
        Ok(workspace)
    }

    /// Takes another namespace, which exists, for everything from now on.
    pub async fn move_to(&mut self, namespace: &str) -> Result<()> {
        self.namespace = namespace.to_owned();
        self.put_secret(SECRET, Some("gitea"), &[("token", &self.user.token)]).await
    }

    pub async fn put_secret(&self, name: &str, plugin: Option<&str>, data: &[(&str, &str)]) -> Result<()> {
        let data: serde_json::Map<_, _> = data.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let mut secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": {}}, "stringData": data,
        });
        if let Some(plugin) = plugin {
            secret["metadata"]["labels"] = json!({"bellhop.dev/credentials-for": plugin});
        }
        self.apply::<Secret>(name, &secret).await
    }

    /// A Service that nothing stands behind.
    pub async fn put_service(&self, name: &str, port: u16) -> Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": port}]},
        });
        self.apply::<Service>(name, &service).await
    }

    async fn apply<K>(&self, name: &str, object: &Value) -> Result<()>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        self.api::<K>().patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await?;
        Ok(())
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A Subscription to the workspace's repository, with all events.
    pub fn subscription(&self, name: &str) -> Value {
        json!({
            "apiVersion": "bellhop.dev/v1alpha1",
            "kind": "Subscription",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "pluginRef": {"name": "gitea"},
                "parameters": {"baseURL": self.base_url, "owner": self.user.name, "repository": REPOSITORY},
                "authorization": {"apiKey": {"secretRef": {"name": SECRET}}},
            },
        })
    }

    /// A trigger that starts the workflow `NAME` on every push, with the workspace's runner.
    pub fn trigger(&self, name: &str, subscription: &str) -> Value {
        json!({
            "apiVersion": "bellhop.dev/v1alpha1",
            "kind": "WorkflowTrigger",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "subscriptionRef": {"name": subscription},
                "event": "push",
                "workflow": name,
                "runner": {"url": format!("{}/runs", self.runner.url())},
            },
        })
    }

    pub async fn create_subscription(&self, object: Value) -> Result<Subscription> {
        Ok(self.api().create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    pub async fn create_trigger(&self, object: Value) -> Result<WorkflowTrigger> {
        Ok(self.api().create(&PostParams::default(), &serde_json::from_value(object)?).await?)
    }

    /// Waits until the ingress starts a trigger on pushes; see [`fires`].
    pub async fn fires(&self, subscription: &Subscription, trigger: &str, runner: &Runner) -> Result<()> {
        let (url, secret) = (callback_url(subscription)?, callback_secret(&self.client, subscription).await?);
        let body = json!({"ref": "refs/tags/throw-away", "commits": []}).to_string();
        fires(trigger, runner, async || {
            let request = bellhop_harness::http::client().post(&url).header("x-gitea-event", "push");
            let request = request.header("x-gitea-delivery", uuid::Uuid::new_v4().to_string());
            let request = request.header("x-gitea-signature", sign(&secret, body.as_bytes()));
            let answer = request.header("content-type", "application/json").body(body.clone()).send().await?;
            ensure!(answer.status() == 200, "{}", answer.status());
            Ok(())
        })
        .await
    }

    /// A Subscription and a trigger with these names, both ready.
    pub async fn connect(&self, subscription: &str, trigger: &str) -> Result<Subscription> {
        self.create_subscription(self.subscription(subscription)).await?;
        self.create_trigger(self.trigger(trigger, subscription)).await?;
        self.subscription_is(subscription, "Ready", "True", "").await?;
        self.trigger_is(trigger, "True", "Bound").await?;
        Ok(self.api().get(subscription).await?)
    }

    pub async fn push(&self, branch: &str, file: &str) -> Result<String> {
        self.gitea.commit_file(&self.user, REPOSITORY, branch, file, "content", &format!("Add {file}")).await
    }

    pub async fn hooks(&self) -> Result<Vec<Value>> {
        self.gitea.hooks(&self.user, REPOSITORY).await
    }

    /// The ids of the webhooks. What Gitea says of one besides changes with each delivery.
    pub async fn hook_ids(&self) -> Result<Vec<Value>> {
        Ok(self.hooks().await?.into_iter().map(|hook| hook["id"].clone()).collect())
    }

    /// Waits until a condition of a Subscription has this status and this reason (any, if empty); gives its message.
    pub async fn subscription_is(&self, name: &str, type_: &str, status: &str, reason: &str) -> Result<String> {
        self.subscription_says(name, type_, status, reason, &[&[]]).await
    }

    /// The same, until the message also has all words of one of these lists: it may say something else before, such as that
    /// there was no answer in time.
    pub async fn subscription_says(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
        words: &[&[&str]],
    ) -> Result<String> {
        let api = self.api::<Subscription>();
        eventually(PATIENCE, &format!("Subscription {name}: {type_}={status} {reason}"), async || {
            let subscription = api.get(name).await?;
            let conditions = subscription.status.map(|status| status.conditions).unwrap_or_default();
            let message = condition_is(&conditions, type_, status, reason)?;
            let said = words.iter().any(|words| words.iter().all(|word| message.contains(word)));
            ensure!(said, "it does not say {words:?}: {message}");
            Ok(message)
        })
        .await
    }

    /// The same for the condition Ready of a WorkflowTrigger.
    pub async fn trigger_is(&self, name: &str, status: &str, reason: &str) -> Result<String> {
        let api = self.api::<WorkflowTrigger>();
        eventually(PATIENCE, &format!("WorkflowTrigger {name}: Ready={status} {reason}"), async || {
            let trigger = api.get(name).await?;
            let conditions = trigger.status.map(|status| status.conditions).unwrap_or_default();
            condition_is(&conditions, "Ready", status, reason)
        })
        .await
    }

    /// Waits until an Event has this reason and these words: Events are published after the status.
    pub async fn event_says(&self, reason: &str, words: &str) -> Result<()> {
        eventually(PATIENCE, &format!("an Event {reason} {words}"), async || {
            let events = self.control_plane.kubectl(["-n", &self.namespace, "get", "events"]).await?;
            ensure!(events.lines().any(|line| line.contains(reason) && line.contains(words)), "{events}");
            Ok(())
        })
        .await
    }

    pub async fn delete_subscription(&self, name: &str) -> Result<()> {
        self.api::<Subscription>().delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    pub async fn is_gone(&self, name: &str) -> Result<()> {
        let api = self.api::<Subscription>();
        eventually(PATIENCE, &format!("Subscription {name} is gone"), async || {
            ensure!(api.get_opt(name).await?.is_none(), "it is still there");
            Ok(())
        })
        .await
    }

    /// Writes what people can see of the workspace beside the logs, where the search for secrets finds it.
    pub async fn collect(&self, bellhop: &Bellhop) -> Result<()> {
        let kinds = "events,subscriptions.bellhop.dev,workflowtriggers.bellhop.dev,triggerplugins.bellhop.dev";
        let seen = self.control_plane.kubectl(["-n", &self.namespace, "get", kinds, "-o", "yaml"]).await?;
        std::fs::write(world::log_dir().join(format!("seen-{}.yaml", self.namespace)), seen)?;
        std::fs::write(world::log_dir().join(format!("seen-{}.metrics", self.namespace)), bellhop.metrics().await?)?;
        let custodies = Api::<Secret>::namespaced(self.client.clone(), NAMESPACE).list(&Default::default()).await?;
        for secret in custodies {
            let Some(json) = secret.data.as_ref().and_then(|data| data.get("custody.json")) else { continue };
            let custody: Value = serde_json::from_slice(&json.0)?;
            let secret = custody["callbackSecret"].as_str().context("a custody has a callback secret")?;
            // One that an external system or a user has still to tell is empty.
            if !secret.is_empty() {
                note_secret(secret)?;
            }
        }
        Ok(())
    }
}

fn condition_is(conditions: &[Condition], type_: &str, status: &str, reason: &str) -> Result<String> {
    let found = conditions.iter().find(|condition| condition.type_ == type_);
    let found = found.with_context(|| format!("no condition {type_} among {conditions:?}"))?;
    ensure!(
        found.status == status && (reason.is_empty() || found.reason == reason),
        "{type_}={} {}: {}",
        found.status,
        found.reason,
        found.message
    );
    Ok(found.message.clone())
}

/// Waits until the ingress starts a trigger: `Bound` is what the controller knows, and the ingress has a watch of its own.
/// `send` sends a throw-away event, again and again until the trigger's runner has had one; what the runner has recorded is
/// forgotten then.
pub async fn fires(trigger: &str, runner: &Runner, mut send: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    eventually(PATIENCE, &format!("the trigger {trigger} fires"), async || {
        send().await?;
        let has_fired = |runs: &[Arc<Recorded>]| runs.iter().any(|run| run.header("ce-trigger") == Some(trigger));
        // One at a time, so that none is under way when the runner forgets them.
        runner.wait_until("a run of it", Duration::from_secs(3), has_fired).await.map(drop)
    })
    .await?;
    runner.clear();
    Ok(())
}

/// Writes a secret into the list that the search for leaks goes through.
pub fn note_secret(secret: &str) -> Result<()> {
    let mut file = std::fs::File::options().create(true).append(true).open(world::dir().join("secrets"))?;
    writeln!(file, "{secret}")?;
    Ok(())
}

/// The callback URL of a Subscription.
pub fn callback_url(subscription: &Subscription) -> Result<String> {
    let address = subscription.status.as_ref().and_then(|status| status.address.clone());
    Ok(address.with_context(|| format!("{} has no address", subscription.name_any()))?.url)
}

/// The callback secret of a Subscription, as only a test with all rights can read it.
pub async fn callback_secret(client: &Client, subscription: &Subscription) -> Result<String> {
    let uid = subscription.uid().context("it has a UID")?;
    let secret = Api::<Secret>::namespaced(client.clone(), NAMESPACE).get(&format!("custody-{uid}")).await?;
    let json = &secret.data.as_ref().and_then(|data| data.get("custody.json")).context("a custody has content")?.0;
    let custody: Value = serde_json::from_slice(json)?;
    let secret = custody["callbackSecret"].as_str().context("a custody has a callback secret")?.to_owned();
    note_secret(&secret)?;
    Ok(secret)
}

/// Waits until a delivery was attempted and is to be attempted again.
pub async fn an_attempt_has_failed(bellhop: &Bellhop) -> Result<()> {
    eventually(PATIENCE, "an attempt has failed", async || {
        let retried = bellhop.metric("bellhop_deliveries_total", &["outcome=\"retried\""]).await?;
        ensure!(retried >= 1.0, "{retried} attempts");
        Ok(())
    })
    .await
}
