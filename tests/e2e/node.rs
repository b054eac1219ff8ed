//! The cluster itself: what the other tests take for granted.

use anyhow::{Result, ensure};
use bellhop_harness::cluster::{self, Cluster, PATIENCE};
use bellhop_harness::server::{Reply, Server};
use bellhop_harness::{eventually, http, image};
use futures::FutureExt;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;

#[tokio::test]
async fn pods_run_resolve_names_and_keep_their_volumes() -> Result<()> {
    if !cluster::is_possible("the test of the node")? {
        return Ok(());
    }
    let _guard = crate::support::alone().await;
    let cluster = cluster::shared().await;
    cluster.load(&image::visitor().await?).await?;
    let namespace = cluster.control_plane.create_namespace("node").await?;
    let manifests = bellhop_harness::world::dir().join("visitor.json");
    std::fs::write(&manifests, visitors().to_string())?;
    let kubectl = async |args: &[&str]| {
        cluster.control_plane.kubectl([&["--namespace", namespace.as_str()], args].concat()).await
    };
    kubectl(&["apply", "-f", &manifests.display().to_string()]).await?;
    kubectl(&["rollout", "status", "deployment/visitor", "--timeout=120s"]).await?;
    kubectl(&["rollout", "status", "statefulset/keeper", "--timeout=120s"]).await?;

    // From this machine to a Service, by its address and by the node's port.
    let address = kubectl(&["get", "service", "visitor", "-o", "jsonpath={.spec.clusterIP}"]).await?;
    let port = kubectl(&["get", "service", "visitor", "-o", "jsonpath={.spec.ports[0].nodePort}"]).await?;
    let by_port = format!("http://{}:{port}", cluster.node_address());
    let visitor = if cluster.is_external() { by_port.clone() } else { format!("http://{address}") };
    for url in [&visitor, &by_port] {
        eventually(PATIENCE, url, async || http::get_ok(&format!("{url}/healthz")).await).await?;
    }

    // From a pod to a Service by its name, to itself through its own Service, and to this machine.
    let name = format!("keeper.{namespace}.svc.cluster.local");
    // The name server and the proxy may be a moment behind the pods.
    let resolved = format!("{visitor}/resolve?name={name}");
    let addresses = eventually(PATIENCE, "a pod resolves a name", async || http::get_ok(&resolved).await).await?;
    ensure!(!addresses.is_empty());
    let keeper_seen = format!("{visitor}/fetch?url=http://keeper/healthz");
    eventually(PATIENCE, "a pod reaches the other's Service", async || http::get_ok(&keeper_seen).await).await?;
    for _ in 0..10 {
        http::get_ok(&format!("{visitor}/fetch?url=http://visitor/healthz")).await?;
    }
    let here = here(cluster)?;
    ensure!(http::get_ok(&format!("{visitor}/fetch?url={}", here.url())).await? == "this machine");

    // What a pod wrote is there when its successor looks.
    let body = http::client().put(format!("{visitor}/files/x")).body("x").send().await?;
    ensure!(body.status() == 502, "a root file system that can be written to: {}", body.status());
    let keeper = kubectl(&["get", "service", "keeper", "-o", "jsonpath={.spec.ports[0].nodePort}"]).await?;
    let keeper = format!("http://{}:{keeper}", cluster.node_address());
    let wrote = http::client().put(format!("{keeper}/files/note")).body("remember me").send().await?;
    ensure!(wrote.status() == 200, "{}: {}", wrote.status(), wrote.text().await?);
    let uid = ["get", "pod", "keeper-0", "-o", "jsonpath={.metadata.uid}"];
    let before = kubectl(&uid).await?;
    kubectl(&["delete", "pod", "keeper-0"]).await?;
    kubectl(&["rollout", "status", "statefulset/keeper", "--timeout=120s"]).await?;
    ensure!(kubectl(&uid).await? != before, "the pod was not replaced");
    let note = eventually(PATIENCE, "the note", async || http::get_ok(&format!("{keeper}/files/note")).await).await?;
    ensure!(note == "remember me", "{note}");
    ensure!(kubectl(&["logs", "keeper-0"]).await?.is_empty());

    cluster.control_plane.kubectl(["delete", "namespace", &namespace]).await?;
    Ok(())
}

/// A server on this machine for pods.
fn here(cluster: &Cluster) -> Result<Server> {
    let address = SocketAddr::new(cluster.host(), bellhop_harness::ports::free_port()?);
    Server::start_at(address, Arc::new(|_| async { Reply::ok().body("this machine") }.boxed()))
}

/// A Deployment of two, and a StatefulSet of one with a volume, each behind a Service.
fn visitors() -> serde_json::Value {
    let restricted = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    let template = |name: &str, mounts: serde_json::Value| {
        json!({
            "metadata": {"labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 5,
                "securityContext": {"runAsNonRoot": true, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{
                    "name": "visitor",
                    "image": "localhost/bellhop-test/visitor:1",
                    "imagePullPolicy": "IfNotPresent",
                    "env": [{"name": "FOLDER", "value": "/data"}],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
                    "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
                    "securityContext": restricted,
                    "volumeMounts": mounts,
                }],
            },
        })
    };
    let service = |name: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {
                "type": "NodePort",
                "selector": {"app": name},
                "ports": [{"port": 80, "targetPort": "http"}],
            },
        })
    };
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "visitor"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "visitor"}},
            "template": template("visitor", json!([])),
        },
    });
    let stateful_set = json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "keeper"},
        "spec": {
            "serviceName": "keeper",
            "selector": {"matchLabels": {"app": "keeper"}},
            "template": template("keeper", json!([{"name": "data", "mountPath": "/data"}])),
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }],
        },
    });
    let items = [service("visitor"), service("keeper"), deployment, stateful_set];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
