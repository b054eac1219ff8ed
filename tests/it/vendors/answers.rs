//! A runner answers the sender, where the plugin lets the sender wait: Slack and Discord show what a command answers, and Twilio sends
//! it to whoever wrote.

use super::stage::{SUBSCRIPTION, Stage};
use crate::request_log::left_out;
use crate::support::{PATIENCE, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use bellhop_harness::runner::{Reply, Runner};
use bellhop_harness::vendor::{Answered, Vendor, discord, slack, twilio};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SIGNING_SECRET: &str = "4d1f0a6be7c84c3f9a52d80e17b36c95";
/// What the plugin says.
const DEADLINE: Duration = Duration::from_secs(2);

fn json_of(answered: &Answered) -> Result<Value> {
    ensure!(answered.status == 200, "{answered:?}");
    serde_json::from_slice(&answered.body).with_context(|| format!("{answered:?}"))
}

/// The person sees nothing.
fn says_nothing(answered: &Answered) -> bool {
    answered.status == 200 && answered.body.is_empty()
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
    let stage = Stage::new("slack", vendor, json!({})).await?;
    note_secret(SIGNING_SECRET)?;
    stage.workspace.put_secret("slack-app", Some("vendor-slack"), &[("secret", SIGNING_SECRET)]).await?;
    // This one has not been asked whether it answers, so it has no say, however fast it is.
    stage.subscribe_by(&["slash_command"], json!({"manual": {"secretRef": {"name": "slack-app"}}})).await?;
    stage.ready().await?;
    let url = stage.callback_url().await?;
    let slack = stage.vendor.vendor();
    stage.workspace.runner.respond_with(|_| Reply::ok().header("content-type", "text/plain").body("internal words"));
    let silent = slack.command(&url, "/deploy", "nobody-answers", "1.1").await?;
    ensure!(says_nothing(&silent), "{silent:?}");
    stage.workspace.runner.wait_for(1, PATIENCE).await?;

    let answering = Runner::start()?;
    let mut trigger = stage.workspace.trigger("answers", SUBSCRIPTION);
    trigger["spec"]["event"] = json!("slash_command");
    trigger["spec"]["parameters"] = json!({"commands": ["/deploy"]});
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
    ensure!(says_nothing(&late), "{late:?}");
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
    ensure!(says_nothing(&failed) && took < DEADLINE, "after {took:?}: {failed:?}");
    answering.respond_with(|_| Reply::ok());
    let request = logged(&stage, "failing", |request| request["outcome"] == "Delivered").await?;
    let note = request["answer"]["note"].as_str().unwrap_or_default();
    ensure!(note.contains("trigger answers") && note.contains("first attempt"), "{request:#}");

    // Sent again, as when an answer is lost: nobody waits, and nothing runs twice.
    let runs = answering.count();
    let again = slack.command(&url, "/deploy", "failing", "1.4").await?;
    ensure!(says_nothing(&again) && answering.count() == runs, "{again:?}");

    // A command that no answering trigger wants.
    let began = Instant::now();
    let other = slack.command(&url, "/status", "not-mine", "1.5").await?;
    ensure!(says_nothing(&other) && began.elapsed() < DEADLINE, "{other:?}");
    let request = logged(&stage, "not-mine", |request| request["answer"]["reason"] == "Default").await?;
    ensure!(request["answer"]["note"] == "no trigger fired whose runner answers", "{request:#}");

    // Not Slack: no answer of anybody.
    let somebody = slack::Slack { signing_secret: "9b2e4c7f10a35d68".to_owned() };
    let forged = somebody.command(&url, "/deploy", "forged", "1.6").await?;
    ensure!(forged.status == 401, "{forged:?}");
    stage.ends_with_nothing().await
}

/// Discord tries the URL with a bad signature before it is taken. A command is answered by the runner, or deferred.
#[tokio::test]
async fn a_command_is_answered_or_deferred_and_a_bad_signature_is_refused() -> Result<()> {
    let vendor = discord::Discord::new([7; 32]);
    let key = vendor.public_key();
    let stage = Stage::new("discord", vendor, json!({})).await?;
    stage.workspace.put_secret("discord-app", Some("vendor-discord"), &[("secret", &key)]).await?;
    let events = ["APPLICATION_AUTHORIZED", "APPLICATION_COMMAND"];
    stage.subscribe_by(&events, json!({"manual": {"secretRef": {"name": "discord-app"}}})).await?;
    stage.ready().await?;
    let url = stage.callback_url().await?;
    let discord = stage.vendor.vendor();
    discord.enter_url(stage.vendor.desk(), &url).await?;
    let run = stage.an_event_runs("APPLICATION_AUTHORIZED").await?.json()?;
    ensure!(run["userName"] == "ada" && run["guild"].is_null(), "{run}");

    // Nobody answers: the person sees that it is under way.
    ensure!(json_of(&discord.command(&url, "deploy", 1).await?)? == json!({"type": 5}));
    let answering = Runner::start()?;
    let shown = json!({"type": 4, "data": {"content": "deployed"}});
    let body = shown.to_string();
    answering.respond_with(move |_| Reply::ok().header("content-type", "application/json").body(body.clone()));
    let mut trigger = stage.workspace.trigger("answers", SUBSCRIPTION);
    trigger["spec"]["event"] = json!("APPLICATION_COMMAND");
    trigger["spec"]["parameters"] = json!({"commands": ["deploy"]});
    trigger["spec"]["runner"] = json!({"url": format!("{}/runs", answering.url())});
    trigger["spec"]["delivery"] = json!({"answer": true});
    stage.workspace.create_trigger(trigger).await?;
    stage.workspace.trigger_is("answers", "True", "Bound").await?;
    ensure!(json_of(&discord.command(&url, "deploy", 2).await?)? == shown);
    ensure!(answering.requests()[0].json()?["token"] == "token-2");
    ensure!(json_of(&discord.command(&url, "status", 3).await?)? == json!({"type": 5}));
    stage.vendor.desk().remove(&stage.vendor.desk().webhooks()[0].id);
    stage.ends_with_nothing().await
}

/// Whoever writes to a number gets the runner's text, or nothing: Twilio is always answered with what it understands.
#[tokio::test]
async fn a_message_is_answered_with_text_or_without_instructions() -> Result<()> {
    let stage = Stage::new("twilio", twilio::Twilio, json!({"phoneNumber": twilio::NUMBER})).await?;
    stage.credentials(&[("accountSID", twilio::ACCOUNT), ("authToken", twilio::TOKEN)]).await?;
    stage.subscribe(&["message.received"]).await?;
    stage.ready().await?;
    let webhook = stage.one_webhook().await?;
    let writes = async |number| stage.vendor.vendor().delivery(&webhook, "message.received", number).send().await;
    let answered = writes(1).await?;
    ensure!(answered.status == 200 && answered.header("content-type") == "text/xml", "{answered:?}");
    ensure!(answered.body == "<Response/>", "{answered:?}");
    let run = stage.workspace.runner.wait_for(1, PATIENCE).await?[0].json()?;
    ensure!(run["text"] == "hello & = + 1" && run["from"] == "+14158675309", "{run}");

    let answering = Runner::start()?;
    answering.respond_with(|_| Reply::ok().header("content-type", "text/plain").body("Thank you"));
    let mut trigger = stage.workspace.trigger("answers", SUBSCRIPTION);
    trigger["spec"]["event"] = json!("message.received");
    trigger["spec"]["parameters"] = json!({"contains": "HELLO"});
    trigger["spec"]["runner"] = json!({"url": format!("{}/runs", answering.url())});
    trigger["spec"]["delivery"] = json!({"answer": true});
    stage.workspace.create_trigger(trigger).await?;
    stage.workspace.trigger_is("answers", "True", "Bound").await?;
    let answered = writes(2).await?;
    ensure!(answered.status == 200 && answered.body == "Thank you", "{answered:?}");
    ensure!(answered.header("content-type").starts_with("text/plain"), "{answered:?}");
    stage.ends_with_nothing().await
}
