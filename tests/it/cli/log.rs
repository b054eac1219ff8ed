//! The commands for the request log.

use super::ended;
use super::stand_in::StandIn;
use super::terminal::Terminal;
use crate::support::PATIENCE;
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use bellhop_harness::runner::Runner;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::time::Duration;

/// The request number `n`: a push for which `review` fired, and whose other trigger is what `more` says.
fn request(n: u32, outcome: &str, delivery: &Value, more: &Value) -> Value {
    let id = format!("5f000000-0000-4000-8000-{n:012}");
    let mut other = json!({"name": "draft", "uid": id, "workflow": "draft", "fired": false});
    for (key, value) in more.as_object().into_iter().flatten() {
        other[key] = value.clone();
    }
    json!({
        "apiVersion": "log.bellhop.dev/v1alpha1", "kind": "Request",
        "metadata": {"name": format!("0-{id}"), "namespace": "team-a", "uid": id,
            "creationTimestamp": "2026-01-01T10:00:00Z", "resourceVersion": n.to_string()},
        "subscription": {"name": "acme-web", "uid": id, "plugin": "gitea"},
        "outcome": outcome,
        "received": {"time": format!("2026-01-01T10:00:{n:02}.000Z"), "method": "POST",
            "headers": [{"name": "x-gitea-event", "value": "push"}],
            "body": {"bytes": 2, "text": "{}", "truncated": false}},
        "answer": {"status": 202, "afterMillis": 3, "reason": "Accepted"},
        "verification": {"verified": true},
        "events": [{"name": "push", "item": 0, "id": id, "variables": {"ref": "refs/heads/main"}, "triggers": [
            {"name": "review", "uid": id, "workflow": "review", "fired": true, "delivery": delivery}, other]}],
    })
}

fn delivered() -> Value {
    let attempt = json!({"time": "2026-01-01T10:00:01.000Z", "url": "http://r/", "status": 200, "durationMillis": 8});
    json!({"state": "Delivered", "attempts": [attempt]})
}

fn dead() -> Value {
    json!({"state": "DeadLettered", "reason": "12 attempts have failed", "attempts": []})
}

fn not_fired() -> Value {
    json!({"reason": "parameter branches: [\"release/*\"] does not match"})
}

fn name(n: u32) -> String {
    format!("0-5f000000-0000-4000-8000-{n:012}")
}

async fn with_two_requests() -> Result<StandIn> {
    let api = StandIn::start().await?;
    api.tell(&request(1, "Delivered", &delivered(), &not_fired()));
    api.tell(&request(2, "DeadLettered", &dead(), &not_fired()));
    Ok(api)
}

#[tokio::test]
async fn a_cluster_without_the_log_is_told_what_it_lacks() -> Result<()> {
    let api = StandIn::start().await?;
    api.with(|world| world.unserved = true);
    let name = name(1);
    let commands = [
        &["logs", "acme-web"][..],
        &["logs", "acme-web", "-f"],
        &["explain", &name],
        &["replay", "--dead-letters", "draft"],
        &["listen", "draft"],
    ];
    for args in commands {
        let told = ended(api.command(args)).await?;
        ensure!(
            told.code == 1 && told.stderr.contains("requestLog.enabled"),
            "{args:?}: {} {}",
            told.code,
            told.stderr
        );
    }
    ensure!(!api.listens(), "the draft was left alone");
    Ok(())
}

#[tokio::test]
async fn logs_are_lines_oldest_first() -> Result<()> {
    let api = with_two_requests().await?;
    let all = ended(api.command(&["logs", "acme-web"])).await?;
    let expected = [
        format!("2026-01-01T10:00:01.000Z\t{}\tpush\tDelivered\t1/2\t202\t", name(1)),
        format!("2026-01-01T10:00:02.000Z\t{}\tpush\tDeadLettered\t1/2\t202\treview: 12 attempts have failed", name(2)),
    ];
    ensure!(
        all.code == 0 && all.stdout.lines().eq(expected.iter().map(String::as_str)),
        "{} {}",
        all.stdout,
        all.stderr
    );
    // Kubernetes passes on what a list lacks as a warning.
    ensure!(all.stderr == "Warning: replica 1 of the ingress has not answered\n", "{}", all.stderr);
    let failed = ended(api.command(&["logs", "acme-web", "--failed", "--event", "push", "-o", "name"])).await?;
    ensure!(failed.stdout == format!("{}\n", name(2)), "{}", failed.stdout);
    let selectors = api.with(|world| world.selectors.clone());
    ensure!(selectors == ["subscription=acme-web", "subscription=acme-web,event=push"], "{selectors:?}");
    let recent = ended(api.command(&["logs", "acme-web", "--since", "1h"])).await?;
    ensure!(recent.code == 0 && recent.stdout.is_empty(), "{}", recent.stdout);
    api.with(|world| world.requests.clear());
    let unknown = ended(api.command(&["logs", "acme-wep"])).await?;
    ensure!(unknown.code == 3 && unknown.stderr.contains("there is no Subscription acme-wep"), "{}", unknown.stderr);
    Ok(())
}

#[tokio::test]
async fn logs_are_followed_on_a_terminal() -> Result<()> {
    let api = with_two_requests().await?;
    let mut terminal = Terminal::start(api.command(&["logs", "acme-web", "-f"]))?;
    terminal.expect("\u{1b}[2mTIME\u{1b}[0m").await?;
    terminal.expect("\u{1b}[31mDeadLettered\u{1b}[0m").await?;
    is_followed(&api).await?;
    api.tell(&request(3, "Received", &Value::Null, &not_fired()));
    let trying = json!({"state": "Pending", "attempts": [
        {"time": "2026-01-01T10:00:03.000Z", "url": "http://r/", "error": "connection refused", "durationMillis": 1}]});
    api.tell(&request(3, "Pending", &trying, &not_fired()));
    terminal.expect("\u{1b}[33mPending\u{1b}[0m").await?;
    terminal.expect("connection refused").await?;
    api.tell(&request(3, "Delivered", &delivered(), &not_fired()));
    terminal.expect("\u{1b}[32mDelivered\u{1b}[0m").await?;
    interrupt(&terminal)?;
    ensure!(terminal.end().await? == 130);
    let column = |text: &str, width: usize| format!("\u{1b}[2m{text}\u{1b}[0m{}", " ".repeat(width - text.len()));
    let header =
        [("TIME", 27), ("REQUEST", 41), ("EVENT", 19), ("OUTCOME", 15), ("FIRED", 8), ("ANSWER", 9), ("WHY", 3)];
    let line = |n: u32, second: u32, outcome: &str, rest: &str| {
        format!("2026-01-01T10:00:{second:02}.000Z   {}   push               {outcome}   1/2     202{rest}", name(n))
    };
    let expected = [
        header.map(|(text, width)| column(text, width)).concat(),
        "Warning: replica 1 of the ingress has not answered".to_owned(),
        line(1, 1, "\u{1b}[32mDelivered\u{1b}[0m   ", ""),
        line(2, 2, "\u{1b}[31mDeadLettered\u{1b}[0m", "      review: 12 attempts have failed"),
        line(3, 3, "\u{1b}[33mPending\u{1b}[0m     ", "      review: connection refused"),
        line(3, 3, "\u{1b}[32mDelivered\u{1b}[0m   ", ""),
    ];
    ensure!(terminal.shown().lines().eq(expected), "{:#?}", terminal.shown().lines().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn explain_tells_the_whole_story() -> Result<()> {
    let api = with_two_requests().await?;
    let story = ended(api.command(&["explain", &name(1)])).await?;
    let expected = [
        &format!("{}   acme-web (gitea)   Delivered", name(1)),
        "├─ received   2026-01-01T10:00:01.000Z   POST, 2 bytes",
        "├─ verified",
        "├─ answered   202 Accepted after 3 ms",
        "└─ event push   5f000000-0000-4000-8000-000000000001",
        "   ├─ variables",
        "   │  └─ ref = \"refs/heads/main\"",
        "   ├─ ✓ review   workflow review   delivered",
        "   │  └─ 2026-01-01T10:00:01.000Z   200 after 8 ms   http://r/",
        "   └─ ✗ draft   workflow draft   did not fire: parameter branches: [\"release/*\"] does not match",
    ];
    ensure!(story.code == 0 && story.stdout.lines().eq(expected), "{} {}", story.stdout, story.stderr);
    let document = ended(api.command(&["explain", &name(1), "-o", "json"])).await?.json()?;
    ensure!(document["received"]["headers"][0]["value"] == "push", "{document}");
    let missing = ended(api.command(&["explain", &name(9)])).await?;
    ensure!(missing.code == 3 && missing.stderr.contains("not found"), "{} {}", missing.code, missing.stderr);
    let wrong = ended(api.command(&["explain", "../secrets/x"])).await?;
    ensure!(wrong.code == 2 && wrong.stderr.contains("is no name of a request"), "{} {}", wrong.code, wrong.stderr);
    Ok(())
}

#[tokio::test]
async fn explain_is_coloured_on_a_terminal() -> Result<()> {
    let api = StandIn::start().await?;
    let tried = json!({"time": "2026-01-01T10:00:01.000Z", "url": "http://r/", "status": 503, "durationMillis": 12,
        "answer": "busy\u{1b}[2J"});
    let trying = json!({"state": "Pending", "attempts": [tried], "nextAttempt": "2026-01-01T10:00:06.000Z"});
    api.tell(&request(1, "Pending", &trying, &not_fired()));
    let mut terminal = Terminal::start(api.command(&["explain", &name(1)]))?;
    ensure!(terminal.end().await? == 0, "{}", terminal.shown());
    // A terminal gets a carriage return with each line; what a runner has said does not steer it.
    let expected = [
        &format!("\u{1b}[1m{}\u{1b}[0m   acme-web (gitea)   \u{1b}[33mPending\u{1b}[0m", name(1)),
        "├─ received   2026-01-01T10:00:01.000Z   POST, 2 bytes",
        "├─ \u{1b}[32mverified\u{1b}[0m",
        "├─ answered   202 Accepted after 3 ms",
        "└─ event \u{1b}[1mpush\u{1b}[0m   5f000000-0000-4000-8000-000000000001",
        "   ├─ variables",
        "   │  └─ ref = \"refs/heads/main\"",
        "   ├─ \u{1b}[33m…\u{1b}[0m review   workflow review   \u{1b}[33mpending, next attempt at 2026-01-01T10:00:06.000Z\u{1b}[0m",
        "   │  └─ 2026-01-01T10:00:01.000Z   \u{1b}[31m503\u{1b}[0m after 12 ms   http://r/   busy\\u{1b}[2J",
        "   └─ \u{1b}[2m✗\u{1b}[0m draft   workflow draft   did not fire: parameter branches: [\"release/*\"] does not match",
    ];
    ensure!(terminal.shown().lines().eq(expected), "{:#?}", terminal.shown().lines().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn replay_is_of_one_request_or_of_what_was_given_up() -> Result<()> {
    let api = with_two_requests().await?;
    api.with(|world| world.whole = true);
    let one = ended(api.command(&["replay", &name(1), "--trigger", "review"])).await?;
    ensure!(one.stdout == format!("{}: review, event {}\n", name(1), &name(1)[2..]), "{} {}", one.stdout, one.stderr);

    let mut terminal = Terminal::start(api.command(&["replay", "--dead-letters", "review"]))?;
    terminal.expect("of 1   ").await?;
    terminal.expect(&format!("{}: review, event", name(2))).await?;
    ensure!(terminal.end().await? == 0);
    let replays = api.with(|world| world.replays.clone());
    let names: Vec<_> = replays.iter().map(|(name, _)| name.as_str()).collect();
    ensure!(names == [name(1), name(2)], "{names:?}");
    ensure!(replays[0].1["spec"] == json!({"trigger": "review", "deadLetters": false}), "{replays:?}");
    ensure!(replays[1].1["spec"] == json!({"trigger": "review", "deadLetters": true}), "{replays:?}");

    let none = ended(api.command(&["replay", "--dead-letters", "draft"])).await?;
    ensure!(none.code == 0 && none.stderr.contains("Nothing was given up"), "{} {}", none.code, none.stderr);
    ensure!(ended(api.command(&["replay"])).await?.code == 2);
    Ok(())
}

#[tokio::test]
async fn a_replay_that_may_have_left_out_something_says_so_and_ends_with_1() -> Result<()> {
    let api = with_two_requests().await?;
    for (trigger, replayed) in
        [("review", format!("{}: review, event {}\n", name(2), &name(2)[2..])), ("draft", String::new())]
    {
        let some = ended(api.command(&["replay", "--dead-letters", trigger])).await?;
        ensure!(some.code == 1 && some.stdout == replayed, "{} {} {}", some.code, some.stdout, some.stderr);
        ensure!(some.stderr.starts_with("Warning: replica 1 of the ingress has not answered\n"), "{}", some.stderr);
        ensure!(some.stderr.contains("it may not be everything: see the warnings"), "{}", some.stderr);
        ensure!(!some.stderr.contains("Nothing was given up"), "{}", some.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn listen_shows_and_forwards_what_a_draft_captures() -> Result<()> {
    let api = StandIn::start().await?;
    let captured = json!({"captured": true});
    api.tell(&request(1, "Captured", &delivered(), &captured));
    let runner = Runner::start()?;
    let url = format!("{}/try", runner.url());
    let mut terminal = Terminal::start(api.command(&["listen", "draft", "--count", "2", "--forward", &url]))?;
    terminal.expect("Listening to draft until ").await?;
    ensure!(api.listens());
    // What did not match, and what was captured before, is not shown.
    api.tell(&request(2, "Delivered", &delivered(), &not_fired()));
    for n in [3, 4] {
        api.tell(&request(n, "Captured", &delivered(), &captured));
        terminal.expect(&format!("push\u{1b}[0m   2026-01-01T10:00:{n:02}.000Z   {}", name(n))).await?;
        terminal.expect("  ref   \"refs/heads/main\"").await?;
        terminal.expect(&format!("Sent to {url}: 200")).await?;
    }
    ensure!(terminal.end().await? == 0, "{}", terminal.shown());
    let shown = terminal.shown();
    let mut lines = shown.lines();
    let first = lines.next().unwrap_or_default();
    ensure!(first.starts_with("Listening to draft until 20") && first.ends_with("Z; Ctrl-C ends it."), "{first}");
    let title = |n: u32| format!("\u{1b}[1mpush\u{1b}[0m   2026-01-01T10:00:{n:02}.000Z   {}", name(n));
    let (variable, sent) = ("  ref   \"refs/heads/main\"".to_owned(), format!("Sent to {url}: 200"));
    let expected = [title(3), variable.clone(), sent.clone(), title(4), variable, sent];
    ensure!(lines.eq(expected), "{:#?}", shown.lines().collect::<Vec<_>>());
    stops(&api).await?;
    let sent = runner.wait_for(2, PATIENCE).await?;
    ensure!(
        sent[0].header("ce-trigger") == Some("draft") && sent[0].header("ce-type") == Some("dev.bellhop.gitea.push")
    );
    ensure!(sent[0].json()? == json!({"ref": "refs/heads/main"}));
    Ok(())
}

#[tokio::test]
async fn listen_ends_by_itself_by_ctrl_c_and_with_nothing_left_behind() -> Result<()> {
    let api = StandIn::start().await?;
    let nothing = ended(api.command(&["listen", "draft", "--for", "1s"])).await?;
    ensure!(nothing.code == 4 && nothing.stderr.contains("nothing was captured in 1s"), "{}", nothing.stderr);
    stops(&api).await?;

    let mut terminal = Terminal::start(api.command(&["listen", "draft"]))?;
    terminal.expect("Listening to draft until ").await?;
    interrupt(&terminal)?;
    ensure!(terminal.end().await? == 130, "{}", terminal.shown());
    stops(&api).await?;

    api.with(|world| world.draft["spec"]["mode"] = json!("Published"));
    let published = ended(api.command(&["listen", "draft"])).await?;
    ensure!(published.code == 2 && published.stderr.contains("is in mode Published"), "{}", published.stderr);
    let too_long = ended(api.command(&["listen", "draft", "--for", "2h"])).await?;
    ensure!(too_long.code == 2 && too_long.stderr.contains("from 1s to 1h"), "{}", too_long.stderr);
    Ok(())
}

#[tokio::test]
async fn the_time_of_listen_begins_when_the_draft_listens() -> Result<()> {
    let api = StandIn::start().await?;
    api.with(|world| world.delay = Duration::from_secs(2));
    let comes = async {
        eventually(PATIENCE, "the draft listens", async || {
            ensure!(api.listens(), "it does not");
            Ok(())
        })
        .await?;
        api.tell(&request(1, "Captured", &delivered(), &json!({"captured": true})));
        Ok(())
    };
    let (shown, ()) = tokio::try_join!(ended(api.command(&["listen", "draft", "--for", "1s"])), comes)?;
    ensure!(
        shown.code == 0 && shown.stdout.contains("  ref   \"refs/heads/main\""),
        "{} {}",
        shown.stdout,
        shown.stderr
    );

    // A refusal that comes late is one all the same.
    api.with(|world| world.forbidden = true);
    let refused = ended(api.command(&["listen", "draft", "--for", "1s"])).await?;
    ensure!(refused.code == 1 && refused.stderr.contains("you may not watch captures"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test]
async fn listen_goes_on_when_the_variables_of_an_event_cannot_be_read() -> Result<()> {
    let api = StandIn::start().await?;
    let captured = json!({"captured": true});
    let mut terminal = Terminal::start(api.command(&["listen", "draft", "--count", "3"]))?;
    terminal.expect("Listening to draft until ").await?;
    // The first answer comes late, the second one never.
    api.with(|world| world.unreadable = 2);
    api.tell(&request(1, "Captured", &delivered(), &captured));
    terminal.expect("  ref   \"refs/heads/main\"").await?;
    ensure!(!terminal.shown().contains("Warning"), "{}", terminal.shown());
    api.with(|world| world.unreadable = usize::MAX);
    api.tell(&request(2, "Captured", &delivered(), &captured));
    terminal.expect("Warning: the variables are missing: ").await?;
    terminal.expect(&name(2)).await?;
    api.with(|world| world.unreadable = 0);
    api.tell(&request(3, "Captured", &delivered(), &captured));
    terminal.expect("  ref   \"refs/heads/main\"").await?;
    ensure!(terminal.end().await? == 0, "{}", terminal.shown());
    Ok(())
}

async fn is_followed(api: &StandIn) -> Result<()> {
    eventually(PATIENCE, "the requests are followed", async || {
        ensure!(api.with(|world| world.followed), "nobody follows them");
        Ok(())
    })
    .await
}

/// Waits until the draft does not listen any more.
async fn stops(api: &StandIn) -> Result<()> {
    eventually(PATIENCE, "the draft does not listen any more", async || {
        ensure!(!api.listens(), "it listens");
        Ok(())
    })
    .await
}

/// What Ctrl-C does.
fn interrupt(terminal: &Terminal) -> Result<()> {
    let process = Pid::from_raw(i32::try_from(terminal.pid())?).context("a process id")?;
    Ok(kill_process(process, Signal::INT)?)
}
