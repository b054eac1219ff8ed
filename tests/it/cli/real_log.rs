//! The commands for the request log, on the real one: through the real API server, which asks Bellhop.

use super::terminal::Terminal;
use super::{command, run};
use crate::request_log::left_out;
use crate::support::{PATIENCE, Workspace};
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use serde_json::json;

#[tokio::test]
async fn a_push_is_listed_explained_and_replayed() -> Result<()> {
    if left_out() {
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

#[tokio::test]
async fn a_sample_is_sent_and_its_story_told() -> Result<()> {
    if std::env::var_os("BELLHOP_TEST_KUBECONFIG").is_some_and(|path| !path.is_empty()) {
        eprintln!("left out: sending, because an existing cluster does not reach this machine");
        return Ok(());
    }
    let workspace = Workspace::shared("cli-send").await?;
    workspace.connect("acme-web", "review").await?;
    // On a terminal, with the whole story.
    let mut terminal = Terminal::start(command(&workspace, &["send", "acme-web", "--event", "push", "--wait"]))?;
    let delivered = "\u{1b}[32m✓\u{1b}[0m review   workflow review   \u{1b}[32mdelivered";
    for part in ["\u{1b}[32mDelivered", "\u{1b}[32mverified", "event \u{1b}[1mpush", delivered, "sent by "] {
        terminal.expect(part).await?;
    }
    ensure!(terminal.end().await? == 0, "{}", terminal.shown());
    ensure!(workspace.runner.wait_for(1, PATIENCE).await?[0].header("ce-trigger") == Some("review"));

    let body = tempfile::NamedTempFile::new()?;
    std::fs::write(body.path(), r#"{"ref": "refs/heads/mine"}"#)?;
    let file = body.path().to_string_lossy().into_owned();
    let own = ["send", "acme-web", "--event", "push", "--body", &file, "--header", "x-mine=yes"];
    let sent = run(&workspace, &own).await?;
    ensure!(sent.code == 0 && sent.stdout.lines().count() == 1, "{} {}", sent.stdout, sent.stderr);
    let story = run(&workspace, &["explain", sent.stdout.trim(), "-o", "json"]).await?;
    for part in ["refs/heads/mine", "x-mine", "\"verified\": true"] {
        ensure!(story.stdout.contains(part), "{part}: {}", story.stdout);
    }
    // What no trigger wants is not a success.
    let other = run(&workspace, &["send", "acme-web", "--event", "pull_request", "--wait"]).await?;
    ensure!(other.code == 4 && other.stderr.contains("its outcome is "), "{} {}", other.code, other.stderr);
    let unknown = run(&workspace, &["send", "acme-web", "--event", "pusch"]).await?;
    ensure!(unknown.code == 1 && unknown.stderr.contains("did you mean push?"), "{} {}", unknown.code, unknown.stderr);
    let missing = run(&workspace, &["send", "other", "--event", "push"]).await?;
    ensure!(missing.code == 3 && missing.stderr.contains("other"), "{} {}", missing.code, missing.stderr);
    let nothing = run(&workspace, &["send", "acme-web"]).await?;
    ensure!(nothing.code == 2, "{} {}", nothing.code, nothing.stderr);
    Ok(())
}

#[tokio::test]
async fn a_draft_shows_what_its_runner_would_have_got_and_only_while_it_listens() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let workspace = Workspace::shared("cli-draft").await?;
    workspace.connect("acme-web", "review").await?;
    let mut draft = workspace.trigger("draft", "acme-web");
    draft["spec"]["mode"] = json!("Draft");
    workspace.create_trigger(draft).await?;
    workspace.trigger_is("draft", "True", "Draft").await?;
    workspace.push("main", "before.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;

    let mut terminal = Terminal::start(command(&workspace, &["listen", "draft", "--count", "1", "--for", "60s"]))?;
    terminal.expect("Listening to draft until ").await?;
    let commit = workspace.push("main", "during.txt").await?;
    terminal.expect(&commit).await?;
    ensure!(terminal.end().await? == 0, "{}", terminal.shown());
    ensure!(!terminal.shown().contains("before.txt"), "{}", terminal.shown());
    workspace.runner.wait_for(2, PATIENCE).await?;

    // It has ended; as soon as the ingress knows, the next event is not captured.
    let captured = async || -> Result<usize> {
        let logs = run(&workspace, &["logs", "acme-web", "-o", "json"]).await?.stdout;
        Ok(logs.matches("\"captured\": true").count() + logs.matches("\"captured\":true").count())
    };
    ensure!(captured().await? >= 1, "the log says nothing of it");
    let mut pushes = 2;
    eventually(PATIENCE, "an event is not captured", async || {
        let before = captured().await?;
        pushes += 1;
        workspace.push("main", &format!("after-{pushes}.txt")).await?;
        workspace.runner.wait_for(pushes, PATIENCE).await?;
        let after = captured().await?;
        ensure!(after == before, "{after} events were captured, {before} before this one");
        Ok(())
    })
    .await?;
    let sent = workspace.runner.requests();
    ensure!(
        sent.iter().all(|run| run.header("ce-trigger") == Some("review")),
        "the draft's runner was called: {sent:?}"
    );
    Ok(())
}
