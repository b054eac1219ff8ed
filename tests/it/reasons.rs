//! Several triggers on one event: which fire, and how a person finds out why the others do not.

use crate::cli::run;
use crate::request_log::left_out;
use crate::support::{PATIENCE, REPOSITORY, Workspace};
use anyhow::{Context, Result, ensure};
use bellhop::api::WorkflowTrigger;
use bellhop_harness::eventually;
use bellhop_harness::runner::Recorded;
use futures::{TryStreamExt, stream};
use kube::api::ListParams;
use reqwest::Method;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

#[tokio::test]
async fn of_three_triggers_one_fires_and_the_others_say_why_not() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let workspace = Workspace::shared("reasons").await?;
    workspace.connect("acme-web", "fires").await?;
    let mut by_parameter = workspace.trigger("by-parameter", "acme-web");
    by_parameter["spec"]["parameters"] = json!({"branches": ["release/*"]});
    let mut by_filter = workspace.trigger("by-filter", "acme-web");
    by_filter["spec"]["filter"] = json!("variables.ref == 'refs/heads/next'");
    for (name, trigger) in [("by-parameter", by_parameter), ("by-filter", by_filter)] {
        workspace.create_trigger(trigger).await?;
        workspace.trigger_is(name, "True", "Bound").await?;
    }

    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    let name = eventually(PATIENCE, "the push is delivered", async || {
        let logs = run(&workspace, &["logs", "acme-web", "--event", "push"]).await?;
        let line = logs.stdout.lines().find(|line| line.contains("\tDelivered\t1/3\t")).map(str::to_owned);
        line.and_then(|line| line.split('\t').nth(1).map(str::to_owned)).with_context(|| logs.stdout.clone())
    })
    .await?;
    let story = run(&workspace, &["explain", &name]).await?.stdout;
    for (trigger, parts) in [
        ("✓ fires", ["workflow fires", "delivered"]),
        ("✗ by-parameter", ["did not fire: ", "branches"]),
        ("✗ by-filter", ["did not fire: ", "filter"]),
    ] {
        let line = story.lines().find(|line| line.contains(trigger)).with_context(|| story.clone())?;
        ensure!(parts.iter().all(|part| line.contains(part)), "{line}");
    }

    // What was decided stays decided; the one that fired runs once more.
    let refused = run(&workspace, &["replay", &name, "--trigger", "by-filter"]).await?;
    ensure!(refused.code != 0 && workspace.runner.count() == 1, "{} {}", refused.stdout, refused.stderr);
    let replayed = run(&workspace, &["replay", &name, "--trigger", "fires"]).await?;
    ensure!(replayed.code == 0, "{} {}", replayed.stdout, replayed.stderr);
    let runs = workspace.runner.wait_for(2, PATIENCE).await?;
    ensure!(runs.iter().all(|run| run.header("ce-trigger") == Some("fires")), "{runs:?}");
    ensure!(runs[0].header("ce-id") == runs[1].header("ce-id"), "{runs:?}");
    Ok(())
}

#[tokio::test]
async fn the_test_button_of_gitea_runs_a_workflow() -> Result<()> {
    let workspace = Workspace::shared("button").await?;
    workspace.connect("acme-web", "review").await?;
    // It sends the newest commit.
    let commit = workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    let hook = &workspace.hook_ids().await?[0];
    let path = format!("/api/v1/repos/{}/{REPOSITORY}/hooks/{hook}/tests", workspace.user.name);
    let (status, answer) = workspace.gitea.api(Method::POST, &path, &workspace.user, None).await?;
    ensure!(status.is_success(), "{status}: {answer}");
    let runs = workspace.runner.wait_for(2, PATIENCE).await?;
    ensure!(String::from_utf8_lossy(&runs[1].body).contains(&commit), "{:?}", runs[1]);
    ensure!(runs[0].header("ce-id") != runs[1].header("ce-id"), "a test is an event of its own");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_triggers_on_one_event_all_fire() -> Result<()> {
    const TRIGGERS: usize = 1_000;
    let workspace = &Workspace::shared("thousand").await?;
    workspace.connect("acme-web", "number-0").await?;
    let numbers: BTreeSet<_> = (0..TRIGGERS).map(|number| format!("number-{number}")).collect();
    stream::iter(numbers.iter().filter(|name| *name != "number-0").map(Ok::<_, anyhow::Error>))
        .try_for_each_concurrent(16, async |name| {
            let mut trigger = workspace.trigger(name, "acme-web");
            trigger["spec"]["parameters"] = json!({"branches": ["main", "release/*"]});
            trigger["spec"]["filter"] = json!("variables.commits.size() > 0");
            workspace.create_trigger(trigger).await.map(drop)
        })
        .await?;
    let api = workspace.api::<WorkflowTrigger>();
    eventually(5 * PATIENCE, "all triggers are bound", async || {
        let triggers = api.list(&ListParams::default()).await?;
        let conditions = |trigger: &WorkflowTrigger| trigger.status.clone().unwrap_or_default().conditions;
        let bound = triggers.iter().filter(|trigger| conditions(trigger).iter().any(|one| one.reason == "Bound"));
        let bound = bound.count();
        ensure!(bound == TRIGGERS, "{bound} of {TRIGGERS}");
        Ok(())
    })
    .await?;

    // The ingress has a watch of its own, which may not have told it of all triggers when the first push comes.
    let mut pushes = 0;
    eventually(5 * PATIENCE, "all triggers fire on one push", async || {
        pushes += 1;
        let started = Instant::now();
        workspace.push("main", &format!("{pushes}.txt")).await?;
        let fired = |runs: &[Arc<Recorded>]| {
            if runs.len() < TRIGGERS {
                return false;
            }
            let mut events = BTreeMap::<_, BTreeSet<_>>::new();
            for run in runs {
                events
                    .entry(run.header("ce-id").map(str::to_owned))
                    .or_default()
                    .extend(run.header("ce-trigger").map(str::to_owned));
            }
            events.into_values().any(|triggers| triggers == numbers)
        };
        workspace.runner.wait_until("all of them", PATIENCE, fired).await?;
        let took = started.elapsed();
        eprintln!("{TRIGGERS} triggers on one push have run after {:.1} s", took.as_secs_f64());
        Ok(())
    })
    .await
}
