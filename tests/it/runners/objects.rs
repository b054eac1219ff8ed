//! The cluster as the runner: the example makes Jobs on the real API server, under the rights of a ServiceAccount.

use crate::bad_input::sign;
use crate::request_log::{left_out, replay, requests};
use crate::support::{Own, PATIENCE, Pair, Workspace, install, shared};
use anyhow::{Context, Result, ensure};
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::{eventually, world};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ResourceQuota, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

/// The example's objects, in this order, in the workspace.
struct Example {
    account: Value,
    role: Value,
    binding: Value,
    trigger: Value,
}

fn example(workspace: &Workspace<'_>) -> Result<Example> {
    let path = format!("{}/examples/runners/job.yaml", env!("CARGO_MANIFEST_DIR"));
    let text =
        std::fs::read_to_string(path)?.replace("namespace: team-a", &format!("namespace: {}", workspace.namespace));
    let objects = text.split("\n---\n").map(serde_saphyr::from_str).collect::<Result<Vec<Value>, _>>()?;
    let [account, role, binding, mut trigger]: [Value; 4] =
        objects.try_into().map_err(|objects| anyhow::anyhow!("four objects, not {objects:?}"))?;
    ensure!(trigger["metadata"]["name"] == "job", "the example's name");
    // What fails is told at once, and a replay tries again.
    trigger["spec"]["delivery"] = json!({"maxAttempts": 1});
    Ok(Example { account, role, binding, trigger })
}

async fn apply<K>(workspace: &Workspace<'_>, object: &Value) -> Result<()>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let name = object["metadata"]["name"].as_str().context("a name")?;
    workspace.api::<K>().patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await?;
    Ok(())
}

async fn jobs(workspace: &Workspace<'_>) -> Result<Vec<Job>> {
    Ok(workspace.api::<Job>().list(&Default::default()).await?.items)
}

/// The deliveries to the trigger `job` that the request log tells of, each with the name of its request.
async fn deliveries(workspace: &Workspace<'_>) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for request in requests(workspace, "trigger=job").await? {
        let name = request["metadata"]["name"].as_str().context("a name")?;
        let triggers = request["events"][0]["triggers"].as_array().into_iter().flatten();
        let delivery = triggers.filter(|trigger| trigger["name"] == "job").map(|trigger| trigger["delivery"].clone());
        found.extend(delivery.map(|delivery| (name.to_owned(), delivery)));
    }
    Ok(found)
}

/// Waits until the only delivery has had so many attempts and is in this state; gives its request and its last attempt.
async fn attempted(workspace: &Workspace<'_>, attempts: usize, state: &str) -> Result<(String, Value)> {
    eventually(PATIENCE, &format!("attempt {attempts} ends in {state}"), async || {
        let all = deliveries(workspace).await?;
        let [(request, delivery)] = &all[..] else { anyhow::bail!("{} deliveries", all.len()) };
        let made = delivery["attempts"].as_array().map(Vec::len).unwrap_or_default();
        ensure!(made == attempts && delivery["state"] == state, "{delivery}");
        Ok((request.clone(), delivery["attempts"][attempts - 1].clone()))
    })
    .await
}

fn says(attempt: &Value, status: Option<u16>, words: &[&str]) -> Result<()> {
    ensure!(attempt["status"] == json!(status), "{attempt}");
    let error = attempt["error"].as_str().unwrap_or_default();
    for word in words {
        ensure!(error.contains(word), "{word}: {attempt}");
    }
    Ok(())
}

#[tokio::test]
async fn an_event_makes_one_job_under_the_rights_of_the_account_that_allows_it() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let workspace = &Workspace::shared("objects").await?;
    let Example { mut account, role, binding, trigger } = example(workspace)?;
    let namespace = workspace.namespace.as_str();
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.create_trigger(trigger).await?;
    let message = workspace.trigger_is("job", "False", "RunnerNotFound").await?;
    ensure!(
        message.contains("spec.runner.resource.serviceAccountName") && message.contains("\"workflows\""),
        "{message}"
    );

    // With every right, and without the annotation: nothing is made.
    account["metadata"]["annotations"] = json!({});
    apply::<ServiceAccount>(workspace, &account).await?;
    apply::<Role>(workspace, &role).await?;
    apply::<RoleBinding>(workspace, &binding).await?;
    let message = workspace.trigger_is("job", "False", "RunnerNotAllowed").await?;
    ensure!(message.contains("bellhop.dev/allow-resource-runners: \"true\""), "{message}");
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    workspace.push("main", "a.txt").await?;
    let (request, attempt) = attempted(workspace, 1, "DeadLettered").await?;
    says(&attempt, None, &["bellhop.dev/allow-resource-runners"])?;
    ensure!(jobs(workspace).await?.is_empty(), "nothing may be made without the annotation");
    let again = async || replay(workspace, None, namespace, &request, "job").await?.map_err(anyhow::Error::msg);

    // With the annotation, and without a right: what the API server says is told, and it speaks of the ServiceAccount.
    account["metadata"]["annotations"] = json!({"bellhop.dev/allow-resource-runners": "true"});
    workspace.api::<RoleBinding>().delete("workflows", &DeleteParams::default()).await?;
    apply::<ServiceAccount>(workspace, &account).await?;
    eventually(PATIENCE, "the condition tells of the missing right", async || {
        let message = workspace.trigger_is("job", "False", "RunnerNotAllowed").await?;
        ensure!(message.contains("no right to create jobs.batch"), "{message}");
        Ok(())
    })
    .await?;
    again().await?;
    let (_, attempt) = attempted(workspace, 2, "DeadLettered").await?;
    let account_user = format!("system:serviceaccount:{namespace}:workflows");
    says(&attempt, Some(403), &["forbidden", &account_user, "cannot create resource \"jobs\""])?;
    ensure!(jobs(workspace).await?.is_empty(), "Bellhop, which may do everything here, has used its own rights");

    // With both, there is one Job, however often it is asked for.
    apply::<RoleBinding>(workspace, &binding).await?;
    workspace.trigger_is("job", "True", "Bound").await?;
    again().await?;
    let (_, attempt) = attempted(workspace, 3, "Delivered").await?;
    says(&attempt, Some(201), &[])?;
    let [job]: [Job; 1] = jobs(workspace).await?.try_into().map_err(|jobs| anyhow::anyhow!("one Job, not {jobs:?}"))?;
    ensure!(attempt["url"] == format!("batch/v1 Job {}", job.name_any()), "{attempt}");
    ensure!(job.name_any().starts_with("job-") && job.metadata.owner_references.is_none(), "{:?}", job.metadata);
    let event = requests(workspace, "trigger=job").await?[0]["events"][0]["id"].clone();
    ensure!(json!(job.labels()["bellhop.dev/event-id"]) == event, "{event}: {:?}", job.labels());
    ensure!(job.labels()["app"] == "review" && job.annotations()["bellhop.dev/trigger"] == "job", "{:?}", job.metadata);
    ensure!(
        job.annotations()["example.com/repository"] == format!("{}/web", workspace.user.name),
        "{:?}",
        job.metadata
    );
    let pod = job.spec.clone().and_then(|spec| spec.template.spec).context("a pod")?;
    let environment = pod.containers[0].env.clone().unwrap_or_default();
    ensure!(environment[0].value.as_deref() == Some("refs/heads/main"), "{environment:?}");
    ensure!(environment[1].value.as_ref().is_some_and(|commit| commit.len() == 40), "{environment:?}");

    again().await?;
    let (_, attempt) = attempted(workspace, 4, "Delivered").await?;
    says(&attempt, Some(200), &[])?;
    let same = jobs(workspace).await?;
    ensure!(same.len() == 1 && same[0].uid() == job.uid(), "a replay made another Job: {same:?}");

    // Somebody else's object of the name is not taken for it; when it is gone, a replay makes the Job again.
    let api = workspace.api::<Job>();
    api.delete(&job.name_any(), &DeleteParams::background()).await?;
    let gone = async || {
        eventually(PATIENCE, "the Job is gone", async || {
            ensure!(api.get_opt(&job.name_any()).await?.is_none(), "it is still there");
            Ok(())
        })
        .await
    };
    gone().await?;
    let mut foreign = job.clone();
    foreign.metadata = kube::api::ObjectMeta { name: Some(job.name_any()), ..Default::default() };
    if let Some(spec) = &mut foreign.spec {
        spec.selector = None;
        spec.template.metadata = None;
    }
    foreign.status = None;
    api.create(&PostParams::default(), &foreign).await?;
    again().await?;
    let (_, attempt) = attempted(workspace, 5, "DeadLettered").await?;
    says(&attempt, Some(409), &[&job.name_any(), "not made for this event"])?;
    api.delete(&job.name_any(), &DeleteParams::background()).await?;
    gone().await?;
    again().await?;
    attempted(workspace, 6, "Delivered").await?;

    // Another event makes another one.
    workspace.push("main", "b.txt").await?;
    eventually(PATIENCE, "there are two Jobs", async || {
        let names: std::collections::BTreeSet<_> = jobs(workspace).await?.iter().map(ResourceExt::name_any).collect();
        ensure!(names.len() == 2, "{names:?}");
        Ok(())
    })
    .await?;
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn what_the_api_server_does_not_take_is_told_in_its_words() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let workspace = &Workspace::shared("objects-invalid").await?;
    let Example { account, role, binding, mut trigger } = example(workspace)?;
    apply::<ServiceAccount>(workspace, &account).await?;
    apply::<Role>(workspace, &role).await?;
    apply::<RoleBinding>(workspace, &binding).await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    trigger["spec"]["runner"]["resource"]["manifest"]["spec"]["template"]["spec"]["restartPolicy"] = json!("Sometimes");
    workspace.create_trigger(trigger.clone()).await?;
    workspace.trigger_is("job", "True", "Bound").await?;
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    workspace.push("main", "a.txt").await?;
    let (_, attempt) = attempted(workspace, 1, "DeadLettered").await?;
    says(&attempt, Some(422), &["the API server", "restartPolicy", "Sometimes"])?;
    ensure!(jobs(workspace).await?.is_empty());

    // What lives in no namespace is not made, whoever may make it; a kind may be on its way.
    for (name, kind, reason, word) in [
        ("wide", "Namespace", "RunnerNotAllowed", "lives in no namespace"),
        ("unknown", "Jobb", "RunnerNotFound", "has no Jobb of v1"),
    ] {
        let mut other = trigger.clone();
        other["metadata"]["name"] = json!(name);
        let resource = &mut other["spec"]["runner"]["resource"];
        resource["manifest"] = json!({"apiVersion": "v1", "kind": kind});
        resource["fields"] = json!([]);
        workspace.create_trigger(other).await?;
        let message = workspace.trigger_is(name, "False", reason).await?;
        ensure!(message.contains("spec.runner.resource.manifest.kind") && message.contains(word), "{message}");
    }
    let mistakes = json!([
        {"path": "/metadata/name", "value": "variables.ref"}, {"path": "/spec/suspend", "value": "size(\n  variables.reff)"},
    ]);
    trigger["metadata"]["name"] = json!("mistakes");
    trigger["spec"]["runner"]["resource"]["fields"] = mistakes;
    workspace.create_trigger(trigger.clone()).await?;
    let message = workspace.trigger_is("mistakes", "False", "InvalidRunner").await?;
    for word in ["resource.fields[0].path", "resource.fields[1].value", "2:3", "did you mean `ref`?"] {
        ensure!(message.contains(word), "{word}: {message}");
    }
    for (field, value, word) in [
        ("url", json!("https://runner.example/"), "exactly one of service, url and resource"),
        ("headers", json!({"x": "'y'"}), "are about HTTP"),
    ] {
        let mut mixed = trigger.clone();
        mixed["metadata"]["name"] = json!("mixed");
        mixed["spec"]["runner"][field] = value;
        let error = workspace.create_trigger(mixed).await.unwrap_err().to_string();
        ensure!(error.contains(word), "{error}");
    }
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn nothing_is_made_where_it_is_not_switched_on() -> Result<()> {
    let own = Own::start("objects-off", &[]).await?;
    let workspace = &Workspace::new(&own.control_plane, &world::shared().await.gitea, "objects-off").await?;
    let Example { account, role, binding, trigger } = example(workspace)?;
    apply::<ServiceAccount>(workspace, &account).await?;
    apply::<Role>(workspace, &role).await?;
    apply::<RoleBinding>(workspace, &binding).await?;
    workspace.connect("acme-web", "review").await?;
    workspace.create_trigger(trigger).await?;
    let message = workspace.trigger_is("job", "False", "RunnerNotAllowed").await?;
    ensure!(message.contains("--resource-runners"), "{message}");
    workspace.push("main", "a.txt").await?;
    workspace.runner.wait_for(1, PATIENCE).await?;
    eventually(PATIENCE, "the event of the other trigger is a dead letter", async || {
        let dead = own.bellhop.metric("bellhop_deliveries_total", &["outcome=\"dead\""]).await?;
        ensure!(dead == 1.0, "{dead} dead letters");
        Ok(())
    })
    .await?;
    eventually(PATIENCE, "the reason is logged", async || {
        ensure!(own.bellhop.log()?.contains("switches this on with --resource-runners"), "not yet");
        Ok(())
    })
    .await?;
    ensure!(jobs(workspace).await?.is_empty(), "nothing may be made");
    Ok(())
}

/// Ingress and controller are two processes, as in a cluster: the one that the internet reaches has no right to make anything
/// and asks the other. What stands in the way for a while (a quota, an API server that is away) is waited for.
#[tokio::test]
async fn an_ingress_of_its_own_has_objects_made_and_waits_for_what_passes() -> Result<()> {
    let world = world::shared().await;
    let control_plane = ControlPlane::start(world::dir(), "control-plane-objects-two").await?;
    install(&control_plane).await?;
    let workspace = &Workspace::new(&control_plane, &world.gitea, "objects-two").await?;
    let pair = Pair::start("objects-two", &control_plane)?;
    let Example { account, role, binding, mut trigger } = example(workspace)?;
    trigger["spec"]["delivery"] = json!({});
    apply::<ServiceAccount>(workspace, &account).await?;
    apply::<Role>(workspace, &role).await?;
    apply::<RoleBinding>(workspace, &binding).await?;
    let subscription = workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.create_trigger(trigger).await?;
    let (url, secret) = pair.route(workspace, &subscription).await?;
    let post = async |after: &str| -> Result<()> {
        let body =
            json!({"ref": "refs/heads/main", "after": after, "repository": {"full_name": "acme/web"}}).to_string();
        let request = reqwest::Client::new().post(&url).header("x-gitea-event", "push");
        let request = request.header("x-gitea-signature", sign(&secret, body.as_bytes()));
        let answer = request.header("content-type", "application/json").body(body).send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        Ok(())
    };
    // The pauses of a delivery grow: the longest that may be met here is 162 s.
    let patience = Duration::from_secs(240);
    let jobs_become = async |count: usize| {
        eventually(patience, &format!("{count} Jobs"), async || {
            let jobs = jobs(workspace).await?;
            ensure!(jobs.len() == count, "{} Jobs", jobs.len());
            Ok(())
        })
        .await
    };
    eventually(PATIENCE, "the request is accepted", async || post("1111111").await).await?;
    jobs_become(1).await?;
    // A repetition finds the Job that is there.
    post("1111111").await?;

    // The quota has room for no other one; its controller is not needed for that.
    let count = json!({"count/jobs.batch": "1"});
    let quota =
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": count}});
    apply::<ResourceQuota>(workspace, &quota).await?;
    let status = json!({"status": {"hard": count, "used": count}});
    let quotas = workspace.api::<ResourceQuota>();
    quotas.patch_status("few", &PatchParams::default(), &Patch::Merge(&status)).await?;
    post("2222222").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    ensure!(jobs(workspace).await?.len() == 1, "the quota allows one");
    quotas.delete("few", &DeleteParams::default()).await?;
    jobs_become(2).await?;

    if control_plane.is_external() {
        eprintln!("left out: the API server of an existing cluster is not stopped");
        return Ok(());
    }
    control_plane.stop_api_server().await?;
    for after in ["3333333", "4444444", "5555555"] {
        post(after).await?;
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    control_plane.start_api_server().await?;
    jobs_become(5).await
}
