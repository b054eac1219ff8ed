//! Helm, and what it renders as values.

use anyhow::{Context, Result, ensure};
use bellhop_harness::build::{self, Part};
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::{process, world};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tokio::sync::OnceCell;

/// What every installation has to say.
pub const PUBLIC_URL: &str = "--set=publicURL=https://hooks.example.com";
pub const NAMESPACE: &str = "bellhop-system";

/// The file or folder in the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A chart's folder.
pub fn chart(name: &str) -> String {
    file("charts").join(name).to_string_lossy().into_owned()
}

/// The content of a file in the repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file of the repository as a value.
pub fn read_yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A Helm command that reads nothing of the user's.
pub fn helm<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let binary = build::part(Part::Helm).unwrap_or_else(|error| panic!("{error:#}"));
    let home = world::dir().join("helm");
    let mut command = Command::new(binary);
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &home).env("KUBECONFIG", "/dev/null");
    command
}

fn output(mut command: Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("helm cannot be started: {error}"))
}

/// `helm lint --strict`.
pub fn lint(chart_name: &str, args: &[&str]) -> Result<(), String> {
    let output = output(helm(
        ["lint", "--strict", "--kube-version=1.35.0", &chart(chart_name)].into_iter().chain(args.iter().copied()),
    ));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// `helm template` as text, of the release `release` in [`NAMESPACE`]; or what it says instead.
pub fn template_text(chart_name: &str, release: &str, args: &[&str]) -> Result<String, String> {
    // Without a version, a Helm that Go has built by itself assumes a very old Kubernetes.
    let fixed = ["template", release, &chart(chart_name), "--namespace", NAMESPACE, "--kube-version=1.35.0"];
    let output = output(helm(fixed.into_iter().chain(args.iter().copied())));
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The objects that `helm template` renders.
pub fn template(chart_name: &str, release: &str, args: &[&str]) -> Vec<Value> {
    let text = template_text(chart_name, release, args).unwrap_or_else(|error| panic!("{args:?}: {error}"));
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{args:?}: {error}\n{text}"));
    assert!(objects.iter().all(|object| object["kind"].is_string()), "{args:?}: something without a kind:\n{text}");
    objects
}

/// The chart `bellhop` with the least that it needs, the request log, which has to be asked for, and these values besides.
pub fn bellhop(args: &[&str]) -> Vec<Value> {
    template("bellhop", "bellhop", &[&[PUBLIC_URL, "--set=requestLog.enabled=true"], args].concat())
}

pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn namespace(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"].as_str()
}

pub fn title(object: &Value) -> String {
    format!("{} {}/{}", kind(object), namespace(object).unwrap_or("-"), name(object))
}

/// The one object of this kind and name.
pub fn find<'a>(objects: &'a [Value], kind_: &str, name_: &str) -> &'a Value {
    objects
        .iter()
        .find(|object| kind(object) == kind_ && name(object) == name_)
        .unwrap_or_else(|| panic!("no {kind_} {name_} is rendered"))
}

/// The object that makes pods, and their template.
pub fn pod_templates(objects: &[Value]) -> Vec<(&Value, &Value)> {
    let makes_pods = |object: &&Value| matches!(kind(object), "Deployment" | "StatefulSet" | "Job");
    objects.iter().filter(makes_pods).map(|object| (object, &object["spec"]["template"])).collect()
}

/// The items of a list; none if there is no list.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The strings of a list.
pub fn strings(value: &Value) -> Vec<&str> {
    items(value).iter().filter_map(Value::as_str).collect()
}

/// The control plane of this test binary.
pub async fn cluster() -> &'static ControlPlane {
    static CLUSTER: OnceCell<ControlPlane> = OnceCell::const_new();
    match CLUSTER.get_or_try_init(|| ControlPlane::start(world::dir(), "charts")).await {
        Ok(cluster) => cluster,
        Err(error) => panic!("the control plane does not start: {error:#}"),
    }
}

/// Helm with the rights of the cluster's administrator; what it prints, or fails with.
pub async fn helm_on(cluster: &ControlPlane, args: &[&str]) -> Result<String> {
    let mut command = helm(args);
    command.env("KUBECONFIG", cluster.kubeconfig());
    process::run(command).await
}

/// Runs kubectl with this text as its standard input.
pub async fn kubectl_with(cluster: &ControlPlane, name: &str, text: &str, args: &[&str]) -> Result<String> {
    let path = world::dir().join(format!("{name}.yaml"));
    std::fs::write(&path, text)?;
    let path = path.to_string_lossy().into_owned();
    cluster.kubectl(args.iter().copied().chain(["-f", &path])).await
}

/// An object as kubectl shows it.
pub async fn get(cluster: &ControlPlane, args: &[&str]) -> Result<Value> {
    let text = cluster.kubectl(["get", "-o", "json"].into_iter().chain(args.iter().copied())).await?;
    serde_json::from_str(&text).context("kubectl's answer")
}

/// Fails unless there is no such object.
pub async fn ensure_gone(cluster: &ControlPlane, args: &[&str]) -> Result<()> {
    let found =
        cluster.kubectl(["get", "--ignore-not-found", "-o", "name"].into_iter().chain(args.iter().copied())).await?;
    ensure!(found.trim().is_empty(), "there still is {}", found.trim());
    Ok(())
}
