//! A runner answers the sender, where the plugin lets the sender wait: Slack and Discord show what a command answers, and Twilio sends
//! it to whoever wrote.

use super::stage::{SUBSCRIPTION, Stage};
use crate::request_log::left_out;
use crate::support::{PATIENCE, note_secret};
use anyhow::{Context, Result, ensure};
use bellhop_harness::eventually;
use bellhop_harness::runner::{Recorded, Reply, Runner};
use bellhop_harness::vendor::{Answered, Vendor, discord, slack, twilio};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SIGNING_SECRET: &str = "4d1f0a6be7c84c3f9a52d80e17b36c95";
/// What the plugin says.
const DEADLINE: Duration = Duration::from_secs(2);

fn json_of(answered: &Answered) -> Result<Value> {
    ensure!(answered.status == 200, "{answered:?}");
    serde_json::from_slice(&answered.body).with_context(|| format!("{answered:?}"))
}

/// The person sees nothing.
fn says_nothing(answered: &Answered) -> Result<()> {
    ensure!(answered.status == 200 && answered.body.is_empty(), "{answered:?}");
    Ok(())
}

/// A person types a command again and again, with another text each time, until its answer, and how long it took, is right;
/// gives that text and that answer. The vendor waits for three seconds, which a busy machine may miss; and that a trigger is
/// `Bound` does not say that the ingress knows it.
async fn typed(
    slack: &slack::Slack,
    url: &str,
    command: &str,
    text: &str,
    right: impl Fn(&Answered, Duration) -> Result<()>,
) -> Result<(String, Answered)> {
    let mut number = 1000;
    eventually(PATIENCE, &format!("{command} {text} is answered"), async || {
        number += 1;
        let text = format!("{text}-{number}");
        let began = Instant::now();
        let answered = slack.command(url, command, &text, &text).await?;
        right(&answered, began.elapsed())?;
        Ok((text, answered))
    })
    .await
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
    typed(slack, &url, "/deploy", "nobody-answers", |answered, _| says_nothing(answered)).await?;
    stage.workspace.runner.wait_for(1, PATIENCE).await?;

    let answering = Runner::start()?;
    let mut trigger = stage.workspace.trigger("answers", SUBSCRIPTION);
    trigger["spec"]["event"] = json!("slash_command");
    trigger["spec"]["parameters"] = json!({"commands": ["/deploy"]});
    trigger["spec"]["runner"] = json!({"url": format!("{}/runs", answering.url())});
    trigger["spec"]["delivery"] = json!({"answer": true, "timeout": "30s"});
    stage.workspace.create_trigger(trigger).await?;
    stage.workspace.trigger_is("answers", "True", "Bound").await?;
    let runs_of = |text: &str| {
        let is_of = |run: &&Arc<Recorded>| String::from_utf8_lossy(&run.body).contains(text);
        answering.requests().iter().filter(is_of).count()
    };

    // In time: it is the answer, and of its head only the content type.
    let done = json!({"response_type": "in_channel", "text": "deployed"});
    let body = done.to_string();
    answering.respond_with(move |_| {
        Reply::status(202).header("content-type", "application/json").header("x-internal", "1").body(body.clone())
    });
    let (text, answered) = typed(slack, &url, "/deploy", "in-time", |answered, _| {
        ensure!(json_of(answered)? == done, "{answered:?}");
        Ok(())
    })
    .await?;
    ensure!(answered.header("content-type") == "application/json", "{answered:?}");
    ensure!(answered.header("x-internal").is_empty(), "{answered:?}");
    let request = logged(&stage, &text, |request| request["answer"]["trigger"] == "answers").await?;
    ensure!(request["answer"]["reason"] == "Answered" && request["answer"]["status"] == 200, "{request:#}");
    let after = request["answer"]["afterMillis"].as_u64().context("afterMillis")?;
    ensure!(u128::from(after) < DEADLINE.as_millis(), "{after} ms");

    // Too slow: the plugin's answer comes with the deadline, and the runner gets to its end all the same.
    answering.respond_with(|_| {
        Reply::ok().header("content-type", "text/plain").body("late").after(DEADLINE + Duration::from_secs(1))
    });
    let (text, _) = typed(slack, &url, "/deploy", "too-slow", |answered, took| {
        ensure!(took >= DEADLINE - Duration::from_millis(100), "{took:?}");
        says_nothing(answered)
    })
    .await?;
    let request = logged(&stage, &text, |request| request["outcome"] == "Delivered").await?;
    ensure!(request["answer"]["reason"] == "Default", "{request:#}");
    ensure!(request["answer"]["note"] == "no runner answered in time", "{request:#}");
    ensure!(runs_of(&text) == 1, "{} attempts", runs_of(&text));

    // Failing: nobody has to wait for the deadline, and the event is delivered later.
    answering.respond_with(|_| Reply::status(503));
    let (text, _) = typed(slack, &url, "/deploy", "failing", |answered, took| {
        ensure!(took < DEADLINE, "after {took:?}");
        says_nothing(answered)
    })
    .await?;
    answering.respond_with(|_| Reply::ok());
    let request = logged(&stage, &text, |request| request["outcome"] == "Delivered").await?;
    let note = request["answer"]["note"].as_str().unwrap_or_default();
    ensure!(note.contains("trigger answers") && note.contains("first attempt"), "{request:#}");

    // Sent again, as when an answer is lost: nobody waits, and nothing runs twice.
    let runs = runs_of(&text);
    eventually(PATIENCE, "what is sent again is answered", async || {
        says_nothing(&slack.command(&url, "/deploy", &text, &text).await?)
    })
    .await?;
    ensure!(runs_of(&text) == runs, "{} runs instead of {runs}", runs_of(&text));

    // A command that no answering trigger wants.
    let (text, _) = typed(slack, &url, "/status", "not-mine", |answered, took| {
        ensure!(took < DEADLINE, "after {took:?}");
        says_nothing(answered)
    })
    .await?;
    let request = logged(&stage, &text, |request| request["answer"]["reason"] == "Default").await?;
    ensure!(request["answer"]["note"] == "no trigger fired whose runner answers", "{request:#}");

    // Not Slack: no answer of anybody.
    let somebody = slack::Slack { signing_secret: "9b2e4c7f10a35d68".to_owned() };
    typed(&somebody, &url, "/deploy", "forged", |forged, _| {
        ensure!(forged.status == 401, "{forged:?}");
        Ok(())
    })
    .await?;
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
    let mut number = 0;
    let mut typed = async |name: &str, shown: &Value| {
        eventually(PATIENCE, &format!("{name} shows {shown}"), async || {
            number += 1;
            let answered = json_of(&discord.command(&url, name, number).await?)?;
            ensure!(answered == *shown, "{answered}");
            Ok(number)
        })
        .await
    };
    let deferred = json!({"type": 5});
    typed("deploy", &deferred).await?;
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
    let token = json!(format!("token-{}", typed("deploy", &shown).await?));
    let runs = answering.requests();
    ensure!(runs.iter().any(|run| run.json().is_ok_and(|run| run["token"] == token)), "{token}: {runs:?}");
    typed("status", &deferred).await?;
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
    let mut number = 0;
    let mut writes = async || {
        number += 1;
        stage.vendor.vendor().delivery(&webhook, "message.received", number).send().await
    };
    let answered = writes().await?;
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
    eventually(PATIENCE, "the runner's text is the answer", async || {
        let answered = writes().await?;
        ensure!(answered.status == 200 && answered.body == "Thank you", "{answered:?}");
        ensure!(answered.header("content-type").starts_with("text/plain"), "{answered:?}");
        Ok(())
    })
    .await?;
    stage.ends_with_nothing().await
}
