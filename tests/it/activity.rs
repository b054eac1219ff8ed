//! When the last request came can be seen on the Subscription, whoever has received it.

use crate::bad_input::sign;
use crate::support::{INGRESS_NAMESPACE, PATIENCE, Pair, Workspace, install, note_secret, shared};
use anyhow::{Context, Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::{eventually, world};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt};
use serde_json::Value;
use std::time::Duration;

async fn last_request(workspace: &Workspace<'_>, name: &str) -> Result<Option<Timestamp>> {
    let status = workspace.api::<Subscription>().get(name).await?.status.unwrap_or_default();
    Ok(status.last_request_time.map(|time| time.0))
}

async fn appears(workspace: &Workspace<'_>, name: &str) -> Result<Timestamp> {
    eventually(PATIENCE, "status.lastRequestTime", async || {
        last_request(workspace, name).await?.context("it is not there yet")
    })
    .await
}

#[tokio::test]
async fn the_last_requests_time_appears_and_is_written_seldom() -> Result<()> {
    let workspace = Workspace::shared("activity").await?;
    workspace.connect("acme-web", "review").await?;
    let before = workspace.api::<Subscription>().get("acme-web").await?.status.context("it has a status")?;
    ensure!(before.last_request_time.is_none(), "{:?}", before.last_request_time);
    // To a second, as it is shown.
    let start = Timestamp::from_second(Timestamp::now().as_second())?;
    workspace.push("main", "a.txt").await?;
    let first = appears(&workspace, "acme-web").await?;
    ensure!(first >= start && first <= Timestamp::now(), "{start} {first}");

    // The rest of the status is another manager's, and stays; nobody has work because of it.
    let subscription = workspace.api::<Subscription>().get("acme-web").await?;
    let mut after = subscription.status.clone().context("it has a status")?;
    after.last_request_time = None;
    ensure!(after == before, "{after:?} instead of {before:?}");
    let managers: Vec<_> = subscription.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    ensure!(managers.contains(&"bellhop-activity") && managers.contains(&"bellhop-subscription"), "{managers:?}");

    // Within a minute, more requests change nothing.
    for n in 0..3 {
        workspace.push("main", &format!("b-{n}.txt")).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    workspace.runner.wait_for(4, PATIENCE).await?;
    let last = last_request(&workspace, "acme-web").await?.context("it was there")?;
    // On a busy machine, the minute may be over.
    let pause = last.duration_since(first);
    ensure!(pause.is_zero() || pause >= SignedDuration::from_secs(60), "it was written again after {pause}");

    // Who cannot prove who they are, leave no trace.
    workspace.create_subscription(workspace.subscription("quiet")).await?;
    workspace.subscription_is("quiet", "Ready", "True", "").await?;
    let quiet = workspace.api::<Subscription>().get("quiet").await?;
    let answer = reqwest::Client::new().post(crate::support::callback_url(&quiet)?).body("{}").send().await?;
    ensure!(answer.status() == 401, "{}", answer.status());
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure!(last_request(&workspace, "quiet").await?.is_none());
    workspace.collect(shared().await).await
}

/// Two processes: the ingress finds the controller by what is published, proves itself, and is believed.
#[tokio::test]
async fn an_ingress_of_its_own_reports_to_the_controller() -> Result<()> {
    let world = world::shared().await;
    let control_plane = ControlPlane::start(world::dir(), "control-plane-two").await?;
    install(&control_plane).await?;
    let workspace = Workspace::new(&control_plane, &world.gitea, "two").await?;
    let pair = Pair::start("two", &control_plane)?;

    let subscription = workspace.create_subscription(workspace.subscription("acme-web")).await?;
    let (url, secret) = pair.route(&workspace, &subscription).await?;
    let published = Api::<Secret>::namespaced(workspace.client.clone(), INGRESS_NAMESPACE);
    let controller = published.get("controller").await?;
    let controller: Value = serde_json::from_slice(&controller.data.context("it has data")?["controller.json"].0)?;
    note_secret(controller["key"].as_str().context("a key")?)?;
    let post = async |n: u32| -> Result<()> {
        let body = format!(r#"{{"ref": "refs/heads/main", "n": {n}}}"#);
        let request = reqwest::Client::new().post(&url).header("x-gitea-event", "push");
        let request = request.header("x-gitea-signature", sign(&secret, body.as_bytes()));
        let answer = request.header("content-type", "application/json").body(body).send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        Ok(())
    };
    eventually(PATIENCE, "the request is accepted", async || post(1).await).await?;
    let first = appears(&workspace, "acme-web").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    post(2).await?;
    eventually(PATIENCE, "the next request is seen", async || {
        ensure!(last_request(&workspace, "acme-web").await? > Some(first));
        Ok(())
    })
    .await
}
