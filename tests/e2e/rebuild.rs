//! The cluster is lost. Another one gets the manifests and the installation key, as docs/gitops.md says.

use crate::support::{
    CHARTS, NAMESPACE, NODE_PORT, REPOSITORY, Team, apply, figure, in_system, install, install_charts,
    restricted_namespace, world,
};
use anyhow::{Context, Result, ensure};
use bellhop_harness::cluster::{Cluster, PATIENCE};
use bellhop_harness::{eventually, process, world as files};
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[tokio::test]
async fn a_new_cluster_with_the_manifests_and_the_key_takes_the_webhooks_over() -> Result<()> {
    let Some((world, _guard)) = world("a new cluster in place of a lost one").await? else { return Ok(()) };
    if world.cluster.is_external() {
        figure("left out: a new cluster in place of a lost one, because an existing cluster's end is not ours to make");
        return Ok(());
    }
    // The public URL does not change when its cluster does.
    let balancer = Balancer::start(world.cluster.host(), world.cluster.node_address()).await?;
    let public = format!("publicURL=http://{}", balancer.address);
    install(world, &[&public]).await?;
    let team = Team::new(world, "rebuilt").await?;
    team.subscribe("acme-web").await?;
    team.push_arrives("before.txt").await?;
    let (url, _) = team.callback("acme-web").await?;
    ensure!(url.starts_with(&format!("http://{}/", balancer.address)), "{url}");
    let key = in_system(world, &["get", "secret", "bellhop-installation-key", "-o", "json"]).await?;
    let key: Value = serde_json::from_str(&key)?;
    // Nobody deletes anything in the external system.
    let parts = ["statefulset/bellhop-ingress", "deployment/bellhop-controller"];
    in_system(world, &[&["scale", "--replicas=0"][..], &parts].concat()).await?;
    eventually(PATIENCE, "no pod is left of the lost cluster's Bellhop", async || {
        let pods = in_system(world, &["get", "pods", "-o", "name"]).await?;
        ensure!(pods.is_empty(), "{pods}");
        Ok(())
    })
    .await?;

    let started = Instant::now();
    let new = Cluster::start(&files::dir().join("rebuilt"), "cluster").await?;
    // Its pods reach this machine only at an address of their own, and Gitea and the runner have the other one.
    let node = new.node().context("an own cluster has a node")?;
    let (outside, gateway) = (world.cluster.host().to_string(), new.host().to_string());
    process::run(node.command("ip", ["route", "add", &outside, "via", &gateway])).await?;
    new.load(&world.image).await?;
    apply(&new, &restricted_namespace()).await?;
    let restored = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": key["type"],
        "data": key["data"],
        "metadata": {"name": "bellhop-installation-key", "namespace": NAMESPACE},
    });
    apply(&new, &restored).await?;
    install_charts(&new, CHARTS, world.cluster.host(), &[&public]).await?;
    balancer.lead_to(new.node_address());
    let workspace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team.namespace}});
    let manifests = [vec![workspace], team.manifests.lock().expect("nobody panicked").clone()].concat();
    apply(&new, &json!({"apiVersion": "v1", "kind": "List", "items": manifests})).await?;
    let of_the_team =
        async |args: &[&str]| new.control_plane.kubectl([&["--namespace", &*team.namespace], args].concat()).await;
    let objects = ["subscription.bellhop.dev/acme-web", "workflowtrigger.bellhop.dev/acme-web"];
    let ready = of_the_team(&[&["wait", "--for=condition=Ready", "--timeout=90s"][..], &objects].concat()).await;
    if let Err(error) = ready {
        let seen = of_the_team(&[&["get", "-o", "yaml"][..], &objects].concat()).await;
        return Err(error.context(seen.unwrap_or_default()));
    }
    let seconds = started.elapsed().as_secs_f64();
    figure(&format!("a new cluster, from nothing until it has taken a webhook over: {seconds:.1} s"));

    let address = of_the_team(&["get", objects[0], "-o", "jsonpath={.status.address.url}"]).await?;
    ensure!(address == url, "another callback URL: {address} instead of {url}");
    let adopted = world.gitea.hooks(&team.user, REPOSITORY).await?;
    // Gitea cannot change a webhook's secret, so it is another one in the same place.
    ensure!(adopted.len() == 1 && adopted[0]["config"]["url"] == json!(url), "one webhook with this URL: {adopted:?}");
    team.push_arrives("after.txt").await?;
    // It is the new cluster's now.
    of_the_team(&["delete", objects[0], "--timeout=60s"]).await?;
    ensure!(team.hooks().await?.is_empty(), "the webhook is gone with its Subscription");

    drop(new);
    balancer.lead_to(world.cluster.node_address());
    install(world, &[]).await?;
    team.delete().await
}

/// What stands before a cluster and has the public address.
struct Balancer {
    address: SocketAddr,
    upstream: Arc<Mutex<IpAddr>>,
    task: JoinHandle<()>,
}

impl Balancer {
    /// Leads to the port of the ingress at this node.
    async fn start(host: IpAddr, node: IpAddr) -> Result<Balancer> {
        let listener = TcpListener::bind((host, 0)).await.context("an address for the public URL")?;
        let address = listener.local_addr()?;
        let upstream = Arc::new(Mutex::new(node));
        let shared = upstream.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let node = *shared.lock().expect("nobody panicked");
                tokio::spawn(async move {
                    if let Ok(mut to) = TcpStream::connect((node, NODE_PORT)).await {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        Ok(Balancer { address, upstream, task })
    }

    fn lead_to(&self, node: IpAddr) {
        *self.upstream.lock().expect("nobody panicked") = node;
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
