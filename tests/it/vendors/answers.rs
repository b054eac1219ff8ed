//! A runner answers the sender, where the plugin lets the sender wait: Slack shows what a slash command answers.

use super::stage::{SUBSCRIPTION, Stage};
use crate::request_log::left_out;
use crate::support::{PATIENCE, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use bellhop_harness::runner::{Reply, Runner};
use bellhop_harness::vendor::{Answered, slack};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SIGNING_SECRET: &str = "4d1f0a6be7c84c3f9a52d80e17b36c95";
/// What the plugin says.
const DEADLINE: Duration = Duration::from_secs(2);

fn json_of(answered: &Answered) -> Result<Value> {
    ensure!(answered.status == 200, "{answered:?}");
    serde_json::from_slice(&answered.body).with_context(|| format!("{answered:?}"))
}

fn under_way() -> Value {
    json!({"response_type": "ephemeral", "text": "/deploy is under way"})
}

/// What the log says of the only request with this text in its body.
async fn logged(stage: &Stage<'_, slack::Slack>, text: &str, ready: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(PATIENCE, &format!("the log tells of {text}"), async || {
        let namespace = &stage.workspace.namespace;
        let args = ["-n", namespace, "get", "requests.log.bellhop.dev", "-o", "name"];
        for name in stage.workspace.control_plane.kubectl(args).await?.lines() {
            let one = stage.workspace.control_plane.kubectl(["-n", namespace, "get", name, "-o", "json"]).await?;
            let request: Value = serde_json::from_str(&one)?;
            if request["received"]["body"]["text"].as_str().is_some_and(|body| body.contains(text)) {
                ensure!(ready(&request), "{request:#}");
                return Ok(request);
            }
        }
        anyhow::bail!("it is not there")
    })
    .await
}

#[tokio::test]
async fn a_person_sees_the_runners_answer_if_it_comes_in_time() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let vendor = slack::Slack { signing_secret: SIGNING_SECRET.to_owned() };
    let stage = Stage::new("slack-commands", vendor, json!({})).await?;
    note_secret(SIGNING_SECRET)?;
    stage.workspace.put_secret("slack-app", Some("vendor-slack-commands"), &[("secret", SIGNING_SECRET)]).await?;
    // This one has not been asked whether it answers, so it has no say, however fast it is.
    stage.subscribe_by(&["command"], json!({"manual": {"secretRef": {"name": "slack-app"}}})).await?;
    stage.ready().await?;
    let url = stage.callback_url().await?;
    let slack = stage.vendor.vendor();
    stage.workspace.runner.respond_with(|_| Reply::ok().header("content-type", "text/plain").body("internal words"));
    let silent = slack.command(&url, "/deploy", "nobody-answers", "1.1").await?;
    ensure!(json_of(&silent)? == under_way(), "{silent:?}");
    stage.workspace.runner.wait_for(1, PATIENCE).await?;

    let answering = Runner::start()?;
    let mut trigger = stage.workspace.trigger("answers", SUBSCRIPTION);
    trigger["spec"]["event"] = json!("command");
    trigger["spec"]["parameters"] = json!({"command": "/deploy"});
    trigger["spec"]["runner"] = json!({"url": format!("{}/runs", answering.url())});
    trigger["spec"]["delivery"] = json!({"answer": true, "timeout": "30s"});
    stage.workspace.create_trigger(trigger).await?;
    stage.workspace.trigger_is("answers", "True", "Bound").await?;

    // In time: it is the answer, and of its head only the content type.
    let done = json!({"response_type": "in_channel", "text": "deployed"});
    let body = done.to_string();
    answering.respond_with(move |_| {
        Reply::status(202).header("content-type", "application/json").header("x-internal", "1").body(body.clone())
    });
    let answered = slack.command(&url, "/deploy", "in-time", "1.2").await?;
    ensure!(json_of(&answered)? == done && answered.header("content-type") == "application/json", "{answered:?}");
    ensure!(answered.header("x-internal").is_empty(), "{answered:?}");
    let request = logged(&stage, "in-time", |request| request["answer"]["trigger"] == "answers").await?;
    ensure!(request["answer"]["reason"] == "Answered" && request["answer"]["status"] == 200, "{request:#}");
    let after = request["answer"]["afterMillis"].as_u64().context("afterMillis")?;
    ensure!(u128::from(after) < DEADLINE.as_millis(), "{after} ms");

    // Too slow: the plugin's answer comes with the deadline, and the runner gets to its end all the same.
    answering.respond_with(|_| {
        Reply::ok().header("content-type", "text/plain").body("late").after(DEADLINE + Duration::from_secs(1))
    });
    let began = Instant::now();
    let late = slack.command(&url, "/deploy", "too-slow", "1.3").await?;
    let took = began.elapsed();
    ensure!(json_of(&late)? == under_way(), "{late:?}");
    ensure!(took >= DEADLINE - Duration::from_millis(100), "{took:?}");
    let request = logged(&stage, "too-slow", |request| request["outcome"] == "Delivered").await?;
    ensure!(request["answer"]["reason"] == "Default", "{request:#}");
    ensure!(request["answer"]["note"] == "no runner answered in time", "{request:#}");
    ensure!(answering.count() == 2, "{} attempts", answering.count());

    // Failing: nobody has to wait for the deadline, and the event is delivered later.
    answering.respond_with(|_| Reply::status(503));
    let began = Instant::now();
    let failed = slack.command(&url, "/deploy", "failing", "1.4").await?;
    let took = began.elapsed();
    ensure!(json_of(&failed)? == under_way() && took < DEADLINE, "after {took:?}: {failed:?}");
    answering.respond_with(|_| Reply::ok());
    let request = logged(&stage, "failing", |request| request["outcome"] == "Delivered").await?;
    let note = request["answer"]["note"].as_str().unwrap_or_default();
    ensure!(note.contains("trigger answers") && note.contains("first attempt"), "{request:#}");

    // Sent again, as when an answer is lost: nobody waits, and nothing runs twice.
    let runs = answering.count();
    let again = slack.command(&url, "/deploy", "failing", "1.4").await?;
    ensure!(json_of(&again)? == under_way() && answering.count() == runs, "{again:?}");

    // A command that no answering trigger wants.
    let began = Instant::now();
    let other = slack.command(&url, "/status", "not-mine", "1.5").await?;
    ensure!(json_of(&other)?["text"] == "/status is under way" && began.elapsed() < DEADLINE, "{other:?}");
    let request = logged(&stage, "not-mine", |request| request["answer"]["reason"] == "Default").await?;
    ensure!(request["answer"]["note"] == "no trigger fired whose runner answers", "{request:#}");

    // Not Slack: no answer of anybody.
    let somebody = slack::Slack { signing_secret: "9b2e4c7f10a35d68".to_owned() };
    let forged = somebody.command(&url, "/deploy", "forged", "1.6").await?;
    ensure!(forged.status == 401, "{forged:?}");
    stage.ends_with_nothing().await
}
