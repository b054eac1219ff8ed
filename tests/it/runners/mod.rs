//! What runners are sent: other shapes than the usual one, credentials, signatures.

mod objects;
mod systems;

use crate::support::{INGRESS_NAMESPACE, PATIENCE, Workspace, note_secret, shared};
use anyhow::{Context, Result, ensure};
use bellhop::api::{PublishedRunner, WorkflowTrigger};
use bellhop_harness::{eventually, verifier};
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{ResourceExt, core::NamespaceResourceScope};
use serde_json::{Value, json};

/// A trigger whose runner has more to say than where it is.
fn trigger(workspace: &Workspace<'_>, name: &str, runner: Value) -> Value {
    let mut trigger = workspace.trigger(name, "acme-web");
    for (field, value) in runner.as_object().into_iter().flatten() {
        trigger["spec"]["runner"][field] = value.clone();
    }
    trigger
}

/// What is published of a trigger's secrets.
async fn published(workspace: &Workspace<'_>, trigger: &WorkflowTrigger) -> Result<Option<PublishedRunner>> {
    let uid = trigger.uid().context("a UID")?.parse()?;
    let api = Api::<Secret>::namespaced(workspace.client.clone(), INGRESS_NAMESPACE);
    let secret = api.get_opt(&PublishedRunner::secret_name(uid)).await?;
    secret.map(|secret| PublishedRunner::from_secret(&secret).map_err(anyhow::Error::msg)).transpose()
}

async fn delete<K>(workspace: &Workspace<'_>, name: &str) -> Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    workspace.api::<K>().delete(name, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn credentials_are_taken_once_they_may_be_followed_and_taken_back() -> Result<()> {
    let workspace = Workspace::shared("runner-credentials").await?;
    let (first, second) = ("rc-first-51c0d7", "rc-second-a94e2b");
    for secret in [first, second] {
        note_secret(secret)?;
    }
    workspace.connect("acme-web", "plain").await?;
    let runner = json!({
        "url": format!("{}/secured", workspace.runner.url()),
        "headers": {"authorization": "'Bearer ' + credentials.token", "x-workflow": "trigger.workflow"},
        "credentials": {"secretRef": {"name": "runner-token"}},
    });
    let secured = workspace.create_trigger(trigger(&workspace, "secured", runner)).await?;
    let message = workspace.trigger_is("secured", "False", "SecretNotFound").await?;
    ensure!(
        message.contains("spec.runner.credentials.secretRef.name") && message.contains("\"runner-token\""),
        "{message}"
    );

    // An event that matches meanwhile is not sent without them; the plain trigger beside it is not held up.
    workspace.push("main", "a.txt").await?;
    let requests = workspace.runner.wait_for(1, PATIENCE).await?;
    ensure!(requests.iter().all(|request| request.path == "/runs"), "{requests:?}");

    workspace.put_secret("runner-token", Some("gitea"), &[("other", first)]).await?;
    let message = workspace.trigger_is("secured", "False", "SecretNotLabelled").await?;
    ensure!(message.contains("bellhop.dev/credentials-for=runners"), "{message}");
    ensure!(published(&workspace, &secured).await?.is_none());
    workspace.put_secret("runner-token", Some("runners"), &[("other", first)]).await?;
    let message = workspace.trigger_is("secured", "False", "SecretKeyMissing").await?;
    ensure!(message.contains("`token`") && message.contains("the keys other"), "{message}");
    workspace.put_secret("runner-token", Some("runners"), &[("token", first), ("other", second)]).await?;
    workspace.trigger_is("secured", "True", "Bound").await?;
    // The event has waited for them.
    let arrived = |path: &str, token: &str| {
        let (path, token) = (path.to_owned(), format!("Bearer {token}"));
        move |request: &bellhop_harness::runner::Recorded| {
            request.path == path && request.header("authorization") == Some(&token)
        }
    };
    let with_first = arrived("/secured", first);
    workspace
        .runner
        .wait_until("the event with its credentials", PATIENCE, |all| all.iter().any(|request| with_first(request)))
        .await?;
    let found = published(&workspace, &secured).await?.context("published")?;
    ensure!(found.credentials.keys().eq(["token"]), "only what is used is published");

    workspace.put_secret("runner-token", Some("runners"), &[("token", second)]).await?;
    eventually(PATIENCE, "the new token is published", async || {
        let found = published(&workspace, &secured).await?.context("published")?;
        ensure!(found.credentials["token"] == second, "it is still the old one");
        Ok(())
    })
    .await?;
    let with_second = arrived("/secured", second);
    eventually(PATIENCE, "the new token is sent", async || {
        workspace.push("main", &format!("{}.txt", uuid::Uuid::new_v4())).await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        ensure!(workspace.runner.requests().iter().any(|request| with_second(request)), "not yet");
        Ok(())
    })
    .await?;

    // Who takes the label away takes the credentials back; so does who deletes the trigger.
    workspace.put_secret("runner-token", None, &[("token", second)]).await?;
    workspace.trigger_is("secured", "False", "SecretNotLabelled").await?;
    ensure!(published(&workspace, &secured).await?.is_none());
    workspace.put_secret("runner-token", Some("runners"), &[("token", second)]).await?;
    workspace.trigger_is("secured", "True", "Bound").await?;
    ensure!(published(&workspace, &secured).await?.is_some());
    delete::<WorkflowTrigger>(&workspace, "secured").await?;
    eventually(PATIENCE, "what was published goes with the trigger", async || {
        ensure!(published(&workspace, &secured).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    workspace.collect(shared().await).await
}

#[tokio::test]
async fn a_trigger_that_needs_no_secrets_any_more_has_none_published() -> Result<()> {
    let workspace = Workspace::shared("runner-change").await?;
    note_secret("rch-token-77d1f0")?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.put_secret("runner-token", Some("runners"), &[("token", "rch-token-77d1f0")]).await?;
    let runner = json!({
        "headers": {"authorization": "credentials.token"}, "credentials": {"secretRef": {"name": "runner-token"}},
    });
    let changed = workspace.create_trigger(trigger(&workspace, "changed", runner)).await?;
    workspace.trigger_is("changed", "True", "Bound").await?;
    ensure!(published(&workspace, &changed).await?.is_some());
    let change = Patch::Merge(json!({"spec": {"runner": {"headers": null, "credentials": null}}}));
    workspace.api::<WorkflowTrigger>().patch("changed", &PatchParams::default(), &change).await?;
    eventually(PATIENCE, "what was published is taken back", async || {
        ensure!(published(&workspace, &changed).await?.is_none(), "it is still there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn mistakes_in_what_is_sent_are_told() -> Result<()> {
    let workspace = Workspace::shared("runner-mistakes").await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    for (name, runner, words) in [
        (
            "body",
            json!({"request": {"body": "{'c': variables.comit}"}}),
            &["spec.runner.request.body", "1:7", "commits"][..],
        ),
        ("host", json!({"headers": {"Host": "'internal'"}}), &["spec.runner.headers.Host", "the HTTP client"]),
        ("event", json!({"headers": {"ce-id": "'1'"}}), &["spec.runner.headers.ce-id", "the CloudEvent"]),
        ("keys", json!({"headers": {"x": "credentials.a"}}), &["spec.runner.credentials.secretRef", "is missing"]),
    ] {
        workspace.create_trigger(trigger(&workspace, name, runner)).await?;
        let message = workspace.trigger_is(name, "False", "InvalidRunner").await?;
        for word in words {
            ensure!(message.contains(word), "{word}: {message}");
        }
    }
    let both = trigger(&workspace, "both", json!({"format": "Binary", "request": {}}));
    let error = workspace.create_trigger(both).await.unwrap_err().to_string();
    ensure!(error.contains("leave it out beside request"), "{error}");

    workspace.put_secret("signing", Some("runners"), &[("secret", "whsec_not-base64!")]).await?;
    let signature = json!({"signature": {"secretRef": {"name": "signing"}}});
    workspace.create_trigger(trigger(&workspace, "signature", signature)).await?;
    let message = workspace.trigger_is("signature", "False", "SecretKeyMissing").await?;
    ensure!(message.contains("not base64") && !message.contains("not-base64!"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_service_that_is_not_there_is_waited_for() -> Result<()> {
    let workspace = Workspace::shared("runner-service").await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    let mut waiting = workspace.trigger("review", "acme-web");
    waiting["spec"]["runner"] = json!({"service": {"name": "worker", "port": 80}});
    workspace.create_trigger(waiting).await?;
    let message = workspace.trigger_is("review", "False", "RunnerNotFound").await?;
    ensure!(message.contains("spec.runner.service.name") && message.contains("\"worker\""), "{message}");
    let conditions = workspace.api::<WorkflowTrigger>().get("review").await?.status.context("a status")?.conditions;
    ensure!(!conditions.iter().any(|condition| condition.type_ == "Stalled"), "{conditions:?}");
    workspace.put_service("worker", 80).await?;
    workspace.trigger_is("review", "True", "Bound").await?;
    delete::<Service>(&workspace, "worker").await?;
    workspace.trigger_is("review", "False", "RunnerNotFound").await?;
    Ok(())
}

#[tokio::test]
async fn the_libraries_of_others_read_events_and_verify_signatures() -> Result<()> {
    let workspace = Workspace::shared("runner-libraries").await?;
    let (coded, plain) = ("whsec_cmwtc2lnbmluZy1zZWNyZXQtOGYyYzFk", "rl-plain-signing-3b9e70");
    for secret in [coded, plain, "cmwtc2lnbmluZy1zZWNyZXQtOGYyYzFk"] {
        note_secret(secret)?;
    }
    workspace.put_secret("signing", Some("runners"), &[("secret", coded), ("plain", plain)]).await?;
    workspace.create_subscription(workspace.subscription("acme-web")).await?;
    let at = |path: &str| format!("{}/{path}", workspace.runner.url());
    let signed = |key: &str| json!({"secretRef": {"name": "signing", "key": key}});
    for (name, runner) in [
        ("binary", json!({"url": at("binary"), "signature": signed("secret")})),
        ("structured", json!({"url": at("structured"), "format": "Structured", "signature": signed("plain")})),
        ("own", json!({"url": at("own"), "request": {"body": "{'a': 'é'}"}, "signature": signed("secret")})),
    ] {
        workspace.create_trigger(trigger(&workspace, name, runner)).await?;
        workspace.trigger_is(name, "True", "Bound").await?;
    }
    workspace.subscription_is("acme-web", "Ready", "True", "").await?;
    workspace.push("main", "a.txt").await?;
    let requests = workspace.runner.wait_for(3, PATIENCE).await?;
    let mut message_ids = std::collections::BTreeSet::new();
    for request in &requests {
        let secret = if request.path == "/structured" { plain } else { coded };
        let read = verifier::read(request, Some(secret)).await?;
        ensure!(read["verified"] == true, "{}: {read}", request.path);
        message_ids.insert(request.header("webhook-id").context("webhook-id")?.to_owned());
        let other = verifier::read(request, Some("whsec_b3RoZXItb3RoZXItb3RoZXItb3RoZXI=")).await?;
        ensure!(other["signatureError"].is_string(), "another secret: {other}");
        if request.path == "/own" {
            ensure!(read["eventError"].is_string() && request.json()? == json!({"a": "é"}), "{read}");
            continue;
        }
        let event = &read["event"];
        ensure!(event["specversion"] == "1.0" && event["type"] == "dev.bellhop.gitea.push", "{event}");
        ensure!(event["workspace"] == workspace.namespace && event["workflow"] == event["trigger"], "{event}");
        ensure!(event["data"]["ref"] == "refs/heads/main", "{event}");
        ensure!(event["source"] == format!("/namespaces/{}/subscriptions/acme-web", workspace.namespace), "{event}");
    }
    ensure!(message_ids.len() == 3, "each is a message of its own: {message_ids:?}");
    workspace.collect(shared().await).await
}
