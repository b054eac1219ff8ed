//! The request log in pods: the API server asks a controller, the controller asks every replica of the ingress.

use crate::support::{Team, World, bellhop_is_ready, figure, in_system, install, kubectl, world};
use crate::traffic::{Traffic, fires};
use anyhow::{Context, Result, ensure};
use bellhop_harness::cluster::PATIENCE;
use bellhop_harness::{eventually, process, world as files};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};

const REQUESTS: &str = "requests.log.bellhop.dev";
const SERVICE: &str = "apiservice/v1alpha1.log.bellhop.dev";

/// What kubectl printed on its standard output and its standard error, and whether it ended well.
struct Told {
    well: bool,
    out: String,
    err: String,
}

#[tokio::test]
async fn kubectl_reads_and_replays_what_all_replicas_have() -> Result<()> {
    let Some((world, _guard)) = world("the request log in pods").await? else { return Ok(()) };
    install(world, &["requestLog.enabled=true"]).await?;
    kubectl(world, &["wait", "--for=condition=Available", "--timeout=60s", SERVICE]).await?;
    let team = Team::new(world, "log").await?;
    team.subscribe("acme-web").await?;
    let (url, secret) = team.callback("acme-web").await?;
    fires(&url, &secret, &team.runner).await?;
    // Enough of them that both replicas have some.
    let traffic = Traffic::start(&url, &secret, "log")?;
    traffic.goes_on(40, Duration::from_secs(30)).await?;
    let tally = traffic.stop().await?;
    let names = eventually(PATIENCE, "the list has all that was delivered, of both replicas", async || {
        let list: Value = serde_json::from_str(&team.kubectl(&["get", REQUESTS, "-o", "json"]).await?)?;
        let delivered = list["items"].as_array().context("a list has items")?.iter();
        let delivered = delivered.filter(|request| request["outcome"] == "Delivered");
        let names = delivered.filter_map(|request| request["metadata"]["name"].as_str()?.split_once('-'));
        // The newest of each replica: the oldest have waited for the trigger, and the runner has forgotten them.
        let (mut of, mut count) = (BTreeMap::new(), 0);
        for (replica, id) in names {
            of.entry(replica.to_owned()).or_insert_with(|| format!("{replica}-{id}"));
            count += 1;
        }
        ensure!(count >= tally.accepted.len(), "{count} of {} are delivered", tally.accepted.len());
        ensure!(of.keys().eq(["0", "1"]), "{of:?}");
        Ok(of)
    })
    .await?;
    let table = ask(&team, None, &["get", REQUESTS]).await?;
    ensure!(table.well && table.err.is_empty(), "{}", table.err);
    ensure!(table.out.lines().next().is_some_and(|line| line.contains("NAME") && line.contains("OUTCOME")));
    for name in names.values() {
        ensure!(table.out.contains(name.as_str()), "{name}: {}", table.out);
        let story = ask(&team, None, &["get", REQUESTS, name, "-o", "yaml"]).await?;
        for word in ["attempts:", "state: Delivered", "refs/heads/log-"] {
            ensure!(story.well && story.out.contains(word), "{name}: {word}: {}{}", story.out, story.err);
        }
        ensure!(!story.out.contains(&secret), "{name}: the callback secret is shown");
    }
    roles_decide(&team, &names["0"]).await?;
    a_draft_listens_at_both_replicas(&team, &url, &secret).await?;
    a_replica_that_hangs_is_named(world, &team, &names).await?;
    without_a_controller(world, &team, &names["0"]).await?;
    team.delete().await?;
    // The other tests do without.
    install(world, &[]).await.map(drop)
}

/// kubectl in the team's namespace, as the administrator or as somebody with a kubeconfig of their own.
async fn ask(team: &Team, who: Option<&Path>, args: &[&str]) -> Result<Told> {
    let all = [&["--namespace", team.namespace.as_str()], args].concat();
    let mut command = tokio::process::Command::from(team.world.cluster.control_plane.kubectl_command(all));
    if let Some(kubeconfig) = who {
        command.env("KUBECONFIG", kubeconfig);
    }
    let output = command.kill_on_drop(true).output().await?;
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    Ok(Told { well: output.status.success(), out, err })
}

/// A ServiceAccount of the team with one of Kubernetes' own roles, as a user with its token.
async fn user(team: &Team, role: &str) -> Result<Option<PathBuf>> {
    let control_plane = &team.world.cluster.control_plane;
    if control_plane.is_external() {
        eprintln!("left out: users, whose kubeconfigs are made for clusters of the tests alone");
        return Ok(None);
    }
    team.kubectl(&["create", "serviceaccount", role]).await?;
    let account = format!("--serviceaccount={}:{role}", team.namespace);
    team.kubectl(&["create", "rolebinding", role, &format!("--clusterrole={role}"), &account]).await?;
    let token = team.kubectl(&["create", "token", role]).await?.trim().to_owned();
    control_plane.kubeconfig_for(&format!("{}-{role}", team.namespace), json!({"token": token})).map(Some)
}

/// The chart's ClusterRoles are part of `view` and `edit`, and a controller asks for the user's rights, not for its own.
async fn roles_decide(team: &Team, name: &str) -> Result<()> {
    let (Some(viewer), Some(editor)) = (user(team, "view").await?, user(team, "edit").await?) else { return Ok(()) };
    let path = format!("/apis/log.bellhop.dev/v1alpha1/namespaces/{}/requests/{name}/replay", team.namespace);
    let body = json!({"apiVersion": "log.bellhop.dev/v1alpha1", "kind": "Replay", "spec": {"trigger": "acme-web"}});
    let file = files::dir().join("replay.json");
    std::fs::write(&file, body.to_string())?;
    let file = file.to_str().context("the path is text")?;
    let replay = ["create", "--raw", path.as_str(), "-f", file];
    let before = team.runner.count();
    for (who, kubeconfig, replays) in [("view", &viewer, false), ("edit", &editor, true)] {
        let list = ask(team, Some(kubeconfig), &["get", REQUESTS]).await?;
        ensure!(list.well && list.out.contains(name), "{who}: {}", list.err);
        let one = ask(team, Some(kubeconfig), &["get", REQUESTS, name, "-o", "yaml"]).await?;
        ensure!(one.well && one.out.contains("attempts:"), "{who}: {}", one.err);
        let others = ask(team, Some(kubeconfig), &["get", REQUESTS, "--all-namespaces"]).await?;
        ensure!(!others.well && others.err.contains("Forbidden"), "{who}: {}{}", others.out, others.err);
        let replayed = ask(team, Some(kubeconfig), &replay).await?;
        ensure!(replayed.well == replays, "{who}: {}{}", replayed.out, replayed.err);
        ensure!(replays || replayed.err.contains("forbidden"), "{who}: {}", replayed.err);
    }
    team.runner.wait_for(before + 1, PATIENCE).await?;
    let runs = team.runner.requests();
    let last = runs.last().and_then(|run| run.header("ce-id")).context("it has an id")?;
    let same = runs.iter().filter(|run| run.header("ce-id") == Some(last)).count();
    ensure!(runs.len() == before + 1 && same == 2, "{} after {before}, {same} with this id", runs.len());
    Ok(())
}

/// Somebody who listens to the draft with `bellhop listen`.
struct Listener {
    process: tokio::process::Child,
    /// What it said before it listened.
    said: Vec<String>,
}

/// Listens for so long, and waits until that has begun.
async fn listen(team: &Team, time: &str) -> Result<Listener> {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bellhop"));
    command.args(["listen", "sketch", "--count", "0", "--for", time, "-o", "name", "-n", &team.namespace]);
    command.env("KUBECONFIG", team.world.cluster.control_plane.kubeconfig()).kill_on_drop(true);
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(process.stderr.take().context("it has a standard error")?).lines();
    let mut said = Vec::new();
    let begins = async {
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("Listening to sketch until ") {
                return Ok(());
            }
            said.push(line);
        }
        anyhow::bail!("it has ended")
    };
    let begun = tokio::time::timeout(PATIENCE, begins).await;
    begun.context("it says nothing").and_then(|begun| begun).with_context(|| format!("bellhop listen: {said:?}"))?;
    Ok(Listener { process, said })
}

/// What either replica takes is captured, and nothing is missing: it listens at both before it says so.
async fn a_draft_listens_at_both_replicas(team: &Team, url: &str, secret: &str) -> Result<()> {
    team.apply(json!({
        "apiVersion": "bellhop.dev/v1alpha1",
        "kind": "WorkflowTrigger",
        "metadata": {"name": "sketch"},
        "spec": {
            "subscriptionRef": {"name": "acme-web"}, "event": "push", "workflow": "review", "mode": "Draft",
            "runner": {"service": {"name": "runner", "port": 8090, "path": "/runs"}},
        },
    }))
    .await?;
    team.kubectl(&["wait", "--for=condition=Ready", "--timeout=60s", "workflowtrigger.bellhop.dev/sketch"]).await?;
    let listener = listen(team, "20s").await?;
    ensure!(listener.said.is_empty(), "{:?}", listener.said);
    // For a fraction of the time, so that the last one is told in time.
    let traffic = Traffic::start(url, secret, "listen")?;
    traffic.goes_on(40, Duration::from_secs(10)).await?;
    let tally = traffic.stop().await?;
    let output = listener.process.wait_with_output().await?;
    ensure!(output.status.success(), "bellhop listen ended with {}", output.status);
    let shown = String::from_utf8(output.stdout)?;
    let names: BTreeSet<_> = shown.lines().collect();
    ensure!(names.len() == tally.accepted.len(), "{} of {} were captured", names.len(), tally.accepted.len());
    for replica in ["0-", "1-"] {
        ensure!(names.iter().any(|name| name.starts_with(replica)), "nothing of replica {replica}: {shown}");
    }
    Ok(())
}

/// Frozen, a replica takes connections and answers nothing.
async fn a_replica_that_hangs_is_named(world: &World, team: &Team, names: &BTreeMap<String, String>) -> Result<()> {
    let Some(node) = world.cluster.node() else { return Ok(()) };
    let id = ["get", "pod", "bellhop-ingress-1", "-o", "jsonpath={.status.containerStatuses[0].containerID}"];
    let id = in_system(world, &id).await?.trim_start_matches("containerd://").to_owned();
    let task =
        async |what: &str| process::run(node.command("ctr", ["--namespace", "k8s.io", "tasks", what, &id])).await;
    task("pause").await?;
    let started = Instant::now();
    let table = ask(team, None, &["get", REQUESTS]).await?;
    let took = started.elapsed();
    let missing = ask(team, None, &["get", REQUESTS, &names["1"]]).await?;
    let there = ask(team, None, &["get", REQUESTS, &names["0"]]).await?;
    let listener = listen(team, "60s").await;
    task("resume").await?;
    let said = listener?.said.join("\n");
    ensure!(said.contains("Warning: replica 1 of the ingress does not listen: "), "{said}");
    figure(&format!("a replica that hangs: the list came after {:.1} s; {}", took.as_secs_f64(), table.err.trim()));
    ensure!(table.well && table.out.contains(&names["0"]) && !table.out.contains(&names["1"]), "{}", table.out);
    ensure!(table.err.contains("Warning: replica 1 of the ingress has not answered"), "{}", table.err);
    ensure!(took < Duration::from_secs(20), "{took:?}");
    ensure!(!missing.well && missing.err.contains("replica 1 of the ingress"), "{}", missing.err);
    ensure!(there.well, "{}", there.err);
    bellhop_is_ready(world).await?;
    eventually(PATIENCE, "the list is whole again", async || {
        let table = ask(team, None, &["get", REQUESTS]).await?;
        ensure!(table.err.is_empty() && table.out.contains(&names["1"]), "{}", table.err);
        Ok(())
    })
    .await
}

/// Nobody answers for the group. What has nothing to do with it goes on.
async fn without_a_controller(world: &World, team: &Team, name: &str) -> Result<()> {
    in_system(world, &["scale", "deployment/bellhop-controller", "--replicas=0"]).await?;
    kubectl(world, &["wait", "--for=condition=Available=False", "--timeout=60s", SERVICE]).await?;
    let map = |number: u32| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("unrelated-{number}")}});
    let file = files::dir().join("list.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [map(0), map(1)]});
    std::fs::write(&file, list.to_string())?;
    let applied = ask(team, None, &["apply", "-f", file.to_str().context("the path is text")?]).await?;
    ensure!(applied.well && applied.err.is_empty(), "{}", applied.err);
    let refused = ask(team, None, &["get", REQUESTS]).await?;
    ensure!(!refused.well, "nobody can answer, and something did: {}", refused.out);
    figure(&format!("the request log without a controller: {}", refused.err.trim()));
    in_system(world, &["scale", "deployment/bellhop-controller", "--replicas=2"]).await?;
    let started = Instant::now();
    eventually(PATIENCE, "the request log is back", async || team.kubectl(&["get", REQUESTS, name]).await).await?;
    figure(&format!("the request log is back {:.1} s after its controllers", started.elapsed().as_secs_f64()));
    bellhop_is_ready(world).await
}
