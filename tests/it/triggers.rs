//! When triggers fire, and what their statuses say of it: drafts that listen, runners that are gone, counts.

use crate::oauth::support::{apply_plugin, plugin_like_gitea};
use crate::support::{Own, PATIENCE, Workspace};
use anyhow::{Context, Result, ensure};
use bellhop::api::{TriggerPlugin, WorkflowTrigger};
use bellhop::spool::{Limits, Spool, TriggerOutcome};
use bellhop_harness::runner::{Reply, Runner};
use bellhop_harness::{eventually, world};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use std::time::Duration;

pub async fn annotate(workspace: &Workspace<'_>, trigger: &str, annotations: Value) -> Result<()> {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    workspace.api::<WorkflowTrigger>().patch(trigger, &PatchParams::default(), &patch).await?;
    Ok(())
}

#[tokio::test]
async fn a_draft_captures_while_it_listens_and_delivers_nothing() -> Result<()> {
    let mut own = Own::start("draft", &[]).await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "draft").await?;
    let subscription = workspace.connect("acme-web", "review").await?;
    let production = Runner::start()?;
    let mut draft = workspace.trigger("sketch", "acme-web");
    draft["spec"]["mode"] = json!("Draft");
    draft["spec"]["runner"]["url"] = json!(production.url());
    workspace.create_trigger(draft).await?;
    workspace.trigger_is("sketch", "True", "Draft").await?;

    annotate(&workspace, "sketch", json!({"bellhop.dev/listen-until": "tomorrow"})).await?;
    eventually(PATIENCE, "the condition says what is wrong with the time", async || {
        let message = workspace.trigger_is("sketch", "True", "Draft").await?;
        ensure!(message.contains("listen-until") && message.contains("tomorrow"), "{message}");
        Ok(())
    })
    .await?;
    workspace.push("main", "before.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;

    let until = Timestamp::now() + SignedDuration::from_secs(40);
    annotate(&workspace, "sketch", json!({"bellhop.dev/listen-until": until.to_string()})).await?;
    let message = workspace.trigger_is("sketch", "True", "Listening").await?;
    ensure!(message.contains(&Timestamp::from_second(until.as_second())?.to_string()), "{message}");
    workspace.push("main", "during.txt").await?;
    workspace.runner.wait_for(2, PATIENCE).await?;
    // It ends by itself, and the condition follows without anything that is watched having changed.
    workspace.trigger_is("sketch", "True", "Draft").await?;
    ensure!(Timestamp::now() >= until - SignedDuration::from_secs(1), "it has ended too early");
    workspace.push("main", "after.txt").await?;
    workspace.runner.wait_for(3, PATIENCE).await?;
    ensure!(production.count() == 0, "what a draft captures is delivered to nobody");

    // The spool tells what was captured.
    own.bellhop.terminate().await?;
    let spool = Spool::open(&own.bellhop.data_dir().join("spool"), Limits::default())?;
    let uid = subscription.uid().context("it has a UID")?.parse()?;
    let mut requests: Vec<_> = spool.recent(uid, None, 100);
    requests.sort_by_key(|request| request.received_at);
    let mut seen = Vec::new();
    for request in requests {
        let events = spool.entry(request.id)?.context("it is there")?.matched.context("it is matched")?.events;
        let outcomes: Vec<TriggerOutcome> = events.into_iter().flat_map(|event| event.triggers).collect();
        if outcomes.iter().any(|outcome| outcome.trigger == "review") {
            seen.push(outcomes.iter().any(|outcome| outcome.trigger == "sketch" && outcome.captured));
        }
    }
    ensure!(seen == [false, true, false], "{seen:?}");
    Ok(())
}

#[tokio::test]
async fn a_runner_that_is_gone_pauses_its_trigger_until_somebody_resumes_it() -> Result<()> {
    let mut own = Own::start("gone", &["--activity-interval", "1s"]).await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "gone").await?;
    workspace.connect("acme-web", "review").await?;
    let steady = Runner::start()?;
    let mut other = workspace.trigger("steady", "acme-web");
    other["spec"]["runner"]["url"] = json!(steady.url());
    workspace.create_trigger(other).await?;
    let mut never = workspace.trigger("never", "acme-web");
    never["spec"]["filter"] = json!("variables.branch == 'release'");
    workspace.create_trigger(never).await?;
    workspace.trigger_is("steady", "True", "Bound").await?;
    workspace.trigger_is("never", "True", "Bound").await?;

    workspace.runner.respond_with(|_| Reply::status(410));
    workspace.push("main", "a.txt").await?;
    let message = workspace.trigger_is("review", "False", "RunnerGone").await?;
    ensure!(message.contains("410") && message.contains("bellhop.dev/resume"), "{message}");
    workspace.runner.respond_with(|_| Reply::ok());
    counts_are(&workspace, "steady", (1, 0, 0)).await?;
    counts_are(&workspace, "review", (1, 0, 1)).await?;
    counts_are(&workspace, "never", (0, 1, 0)).await?;
    // It is known after a restart too.
    own.bellhop.terminate().await?;
    own.bellhop.restart().await?;
    workspace.push("main", "b.txt").await?;
    steady.wait_for(2, PATIENCE).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(workspace.runner.count() == 1, "the paused trigger has fired");

    annotate(&workspace, "review", json!({"bellhop.dev/resume": "1"})).await?;
    workspace.trigger_is("review", "True", "Bound").await?;
    workspace.push("main", "c.txt").await?;
    workspace.runner.wait_for(2, PATIENCE).await?;

    counts_are(&workspace, "steady", (3, 0, 0)).await?;
    // While it was paused, the event did not fire; the first delivery is a dead letter.
    counts_are(&workspace, "review", (2, 1, 1)).await?;
    counts_are(&workspace, "never", (0, 3, 0)).await?;
    let status = |name: &'static str| {
        let api = workspace.api::<WorkflowTrigger>();
        async move { api.get(name).await?.status.context("it has a status") }
    };
    let last = status("steady").await?.last_fired.context("it has fired")?.0;
    ensure!(Timestamp::now().duration_since(last) < SignedDuration::from_mins(2), "{last}");
    ensure!(status("never").await?.last_fired.is_none());
    // The counts are another manager's; what the controller says stays as it was.
    workspace.trigger_is("steady", "True", "Bound").await?;
    Ok(())
}

#[tokio::test]
async fn a_trigger_is_judged_again_when_its_plugin_changes() -> Result<()> {
    let workspace = Workspace::shared("plugin-changes").await?;
    // A plugin of its own: others use the usual one meanwhile.
    let name = "gitea-that-changes";
    plugin_like_gitea(&workspace, name, &json!({})).await?;
    let plugins = Api::<TriggerPlugin>::all(workspace.client.clone());
    let known = serde_json::to_value(plugins.get(name).await?.spec)?;
    let mut events = known["events"].as_array().into_iter().flatten();
    let push = events.position(|event| event["name"] == "push").context("it has the event push")?;
    let change = async |path: &str, value: Value| {
        let mut spec = known.clone();
        spec["events"][push].as_object_mut().context("an event")?.remove("sample");
        *spec["events"][push].pointer_mut(path).context("there is such a field")? = value;
        apply_plugin(&workspace, name, &spec).await
    };
    let token = workspace.user.token.as_str();
    workspace.put_secret("own-token", Some(name), &[("token", token)]).await?;
    let mut subscription = workspace.subscription("acme-web");
    subscription["spec"]["pluginRef"]["name"] = json!(name);
    subscription["spec"]["authorization"]["apiKey"]["secretRef"]["name"] = json!("own-token");
    workspace.create_subscription(subscription).await?;
    let mut trigger = workspace.trigger("review", "acme-web");
    trigger["spec"]["parameters"] = json!({"messageContains": "a.txt"});
    workspace.create_trigger(trigger).await?;
    workspace.trigger_is("review", "True", "Bound").await?;

    change("/name", json!("pushed")).await?;
    let message = workspace.trigger_is("review", "False", "UnknownEvent").await?;
    ensure!(message.contains("no event `push`; did you mean `pushed`?"), "{message}");
    apply_plugin(&workspace, name, &known).await?;
    workspace.trigger_is("review", "True", "Bound").await?;

    change("/parameters/messageContains/schema", json!({"type": "string", "minLength": 20})).await?;
    let message = workspace.trigger_is("review", "False", "InvalidParameters").await?;
    ensure!(message.contains("messageContains"), "{message}");
    apply_plugin(&workspace, name, &known).await?;
    workspace.trigger_is("review", "True", "Bound").await?;
    // The ingress follows too.
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    Ok(())
}

async fn counts_are(workspace: &Workspace<'_>, trigger: &str, expected: (i64, i64, i64)) -> Result<()> {
    let api = workspace.api::<WorkflowTrigger>();
    eventually(PATIENCE, &format!("the counts of {trigger} are {expected:?}"), async || {
        let counts = api.get(trigger).await?.status.and_then(|status| status.counts).unwrap_or_default();
        ensure!((counts.fired, counts.filtered, counts.failed) == expected, "{counts:?}");
        Ok(())
    })
    .await
}
