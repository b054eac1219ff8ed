//! What those who do not use the request log notice of its being an aggregated API: nothing while it answers, and while
//! nobody answers for it, no more than docs/operations.md says.

use crate::cli::ended;
use crate::request_log::left_out;
use crate::support::{NAMESPACE, Own, PATIENCE};
use anyhow::{Context, Result, ensure};
use bellhop::controller::election::LEASE;
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::{eventually, world};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use serde_json::json;
use std::path::PathBuf;

const SERVICE: &str = "apiservice/v1alpha1.log.bellhop.dev";
/// What kubectl asks for before it looks at a `List` itself.
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// A file with a `List`, as `kubectl get -o yaml` writes them. kubectl checks one on its own machine, against the
/// documents of the API server.
fn list(round: &str) -> Result<PathBuf> {
    let config_map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "unrelated", "namespace": "default"},
        "data": {"round": round},
    });
    let trigger = json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "WorkflowTrigger",
        "metadata": {"name": "related", "namespace": "default", "labels": {"round": round}},
        "spec": {"subscriptionRef": {"name": "none"}, "event": "push", "workflow": "none",
                 "runner": {"service": {"name": "none", "port": 80}}},
    });
    let file = world::dir().join(format!("list-{round}.json"));
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": [config_map, trigger]}).to_string())?;
    Ok(file)
}

/// All that everybody does, with a kubectl that remembers nothing.
async fn everything_else_works(control_plane: &ControlPlane, round: &str) -> Result<()> {
    let run = async |args: &[&str]| {
        let mut command = control_plane.kubectl_command(args);
        command.env("KUBECACHEDIR", world::dir().join(format!("cache-{round}")));
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{round}: kubectl {args:?}: {err}");
        ensure!(err.is_empty(), "{round}: kubectl {args:?} complains: {err}");
        Ok(out.into_owned())
    };
    let file = list(round)?;
    let file = file.to_str().context("the path is text")?;
    for how in [&["apply", "-f", file][..], &["apply", "--server-side", "--force-conflicts", "-f", file]] {
        let applied = run(how).await?;
        ensure!(applied.contains("configmap/unrelated") && applied.contains("workflowtrigger"), "{round}: {applied}");
    }
    for args in [
        &["get", "namespaces"][..],
        &["get", "configmaps,workflowtriggers.bellhop.dev", "-A"],
        &["explain", "workflowtrigger.spec"],
        &["explain", "configmap.data"],
        &["delete", "-f", file],
    ] {
        run(args).await?;
    }
    Ok(())
}

/// The document of all kinds, in the form in which kubectl reads it.
async fn openapi(control_plane: &ControlPlane, accept: &str) -> Result<Vec<u8>> {
    let request = axum::http::Request::get("/openapi/v2").header("accept", accept).body(kube::client::Body::empty())?;
    let answer = control_plane.client().await?.send(request).await?;
    ensure!(answer.status().is_success(), "/openapi/v2 as {accept}: {}", answer.status());
    Ok(answer.into_body().collect_bytes().await?.to_vec())
}

/// Asks for requests while the process still says that it ends, when it has given its Lease back.
async fn answered_while_it_ends(control_plane: &ControlPlane, readiness: &str) -> Result<()> {
    let leases = Api::<Lease>::namespaced(control_plane.client().await?, NAMESPACE);
    let ends = async || {
        let answer = reqwest::get(readiness).await?;
        ensure!(answer.status() == 503 && answer.text().await?.contains("the process ends"), "it does not say so");
        Ok(())
    };
    eventually(PATIENCE, "it says that it ends", ends).await?;
    eventually(PATIENCE, "the Lease is free", async || {
        let holder = leases.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        ensure!(holder.is_empty(), "{holder} holds it");
        Ok(())
    })
    .await?;
    control_plane.kubectl(&["get", "requests.log.bellhop.dev", "-A"]).await?;
    ends().await
}

#[tokio::test]
async fn others_notice_nothing_of_the_request_log_and_little_of_its_absence() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let mut own = Own::start("log-away", &["--drain-delay", "15s"]).await?;
    own.control_plane.register_request_log(NAMESPACE, own.bellhop.internal_port()).await?;
    let control_plane = &own.control_plane;
    let name = b"dev.bellhop.log.v1alpha1.Request";
    eventually(PATIENCE, "the document of all kinds has those of the request log", async || {
        let document = openapi(control_plane, "application/json").await?;
        ensure!(document.windows(name.len()).any(|words| words == name), "{} bytes without", document.len());
        Ok(())
    })
    .await?;
    openapi(control_plane, PROTOBUF).await?;
    everything_else_works(control_plane, "served").await?;

    // Who is told to end lets others take over at once, and answers whoever has not heard of it.
    let readiness = format!("{}/readyz", own.bellhop.private_url());
    let (status, drained) = tokio::join!(own.bellhop.terminate(), answered_while_it_ends(control_plane, &readiness));
    drained?;
    ensure!(status?.success(), "it ended otherwise than by itself");
    // Nobody answers any more.
    let kubectl = async |args: &[&str]| own.control_plane.kubectl(args).await;
    kubectl(&["wait", "--for=condition=Available=False", "--timeout=90s", SERVICE]).await?;
    everything_else_works(&own.control_plane, "away").await?;
    // Whoever asks for the log is told at once, and where to look.
    let mut logs = std::process::Command::new(env!("CARGO_BIN_EXE_bellhop"));
    logs.args(["logs", "acme-web"]).env("KUBECONFIG", own.control_plane.kubeconfig());
    let told = ended(logs).await?;
    ensure!(told.code == 1 && told.stderr.contains("kubectl describe apiservice"), "{}: {}", told.code, told.stderr);
    openapi(&own.control_plane, PROTOBUF).await?;
    // The one thing that waits.
    let namespace = own.control_plane.create_namespace("log-away").await?;
    kubectl(&["delete", "namespace", &namespace, "--wait=false"]).await?;
    eventually(PATIENCE, "the namespace waits for the group", async || {
        let path = "jsonpath={.status.conditions[?(@.status=='True')].reason}";
        let reasons = kubectl(&["get", "namespace", &namespace, "-o", path]).await?;
        ensure!(reasons.contains("DiscoveryFailed"), "{reasons:?}");
        Ok(())
    })
    .await?;
    // An API server that has never heard of the group's kinds.
    own.control_plane.stop_api_server().await?;
    own.control_plane.start_api_server().await?;
    // It begins to answer before it knows its other groups.
    let works = async || everything_else_works(&own.control_plane, "unheard-of").await;
    eventually(PATIENCE, "everything else works after the start of the API server", works).await?;
    openapi(&own.control_plane, PROTOBUF).await?;

    own.bellhop.restart().await?;
    let kubectl = async |args: &[&str]| own.control_plane.kubectl(args).await;
    kubectl(&["wait", "--for=condition=Available", "--timeout=90s", SERVICE]).await?;
    kubectl(&["wait", "--for=delete", "--timeout=120s", &format!("namespace/{namespace}")]).await?;
    everything_else_works(&own.control_plane, "back").await
}
