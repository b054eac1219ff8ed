//! The commands for the request log, on the real one: through the real API server, which asks Bellhop.

use super::terminal::Terminal;
use super::{command, run};
use crate::support::{PATIENCE, Workspace};
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use serde_json::json;

#[tokio::test]
async fn a_push_is_listed_explained_and_replayed() -> Result<()> {
    if std::env::var_os("BELLHOP_TEST_KUBECONFIG").is_some_and(|path| !path.is_empty()) {
        eprintln!("left out: the request log, because an existing cluster does not reach this machine");
        return Ok(());
    }
    let workspace = Workspace::shared("cli-log").await?;
    workspace.connect("acme-web", "review").await?;
    let mut other = workspace.trigger("only-release", "acme-web");
    other["spec"]["parameters"] = json!({"branches": ["release/*"]});
    workspace.create_trigger(other).await?;
    workspace.trigger_is("only-release", "True", "Bound").await?;
    let mut terminal = Terminal::start(command(&workspace, &["logs", "acme-web", "-f"]))?;
    terminal.expect("WHY").await?;

    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    terminal.expect("push").await?;
    terminal.expect("Delivered").await?;
    let line = eventually(PATIENCE, "the push is listed as delivered", async || {
        let logs = run(&workspace, &["logs", "acme-web", "--event", "push"]).await?;
        let line = logs.stdout.lines().find(|line| line.contains("\tDelivered\t1/2\t")).map(str::to_owned);
        line.with_context(|| format!("{} {}", logs.stdout, logs.stderr))
    })
    .await?;
    let name = line.split('\t').nth(1).context("a name")?;
    let story = run(&workspace, &["explain", name]).await?;
    for part in ["verified\n", "event push", "ref = \"refs/heads/main\"", "✓ review   workflow review   delivered"] {
        ensure!(story.stdout.contains(part), "{part}: {} {}", story.stdout, story.stderr);
    }
    let why = story.stdout.lines().find(|line| line.contains("✗ only-release")).context("why not")?;
    ensure!(why.contains("did not fire: ") && why.contains("branches"), "{why}");

    let replay = run(&workspace, &["replay", name, "--trigger", "review"]).await?;
    ensure!(replay.stdout.starts_with(&format!("{name}: review, event ")), "{} {}", replay.stdout, replay.stderr);
    let sent = workspace.runner.wait_for(2, PATIENCE).await?;
    ensure!(sent[0].header("ce-id") == sent[1].header("ce-id"), "{sent:?}");
    let none = run(&workspace, &["replay", "--dead-letters", "review"]).await?;
    ensure!(none.code == 0 && none.stderr.contains("Nothing was given up"), "{}", none.stderr);
    let failed = run(&workspace, &["logs", "acme-web", "--failed"]).await?;
    ensure!(failed.code == 0 && failed.stdout.is_empty(), "{}", failed.stdout);
    Ok(())
}
