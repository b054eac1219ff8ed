//! Drafts that listen, with several replicas of the ingress: whichever takes an event, it is captured there.

use crate::bad_input::sign;
use crate::log_listener::{Asker, published};
use crate::support::{PATIENCE, Pair, Workspace, callback_secret, install};
use crate::triggers::annotate;
use anyhow::{Context, Result, ensure};
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::runner::Runner;
use bellhop_harness::{eventually, world};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;
use std::cell::Cell;
use std::time::Duration;

/// A replica as the external system and the controller reach it.
struct Replica {
    hook: String,
    log: Asker,
}

/// What the replicas have in common.
struct Sender {
    http: reqwest::Client,
    secret: String,
    namespace: String,
    sent: Cell<u32>,
}

impl Sender {
    /// Sends a push to this replica; says whether the draft captured it, once the replica knows.
    async fn is_captured(&self, replica: &Replica) -> Result<bool> {
        let number = self.sent.get() + 1;
        let body = format!(r#"{{"ref": "refs/heads/main", "n": {number}}}"#);
        let request = self.http.post(&replica.hook).header("x-gitea-event", "push");
        let request = request.header("x-gitea-signature", sign(&self.secret, body.as_bytes()));
        let id = format!("delivery-{number}");
        let request = request.header("x-gitea-delivery", &id).header("content-type", "application/json");
        let answer = request.body(body).send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        self.sent.set(number);
        let question = format!("/log/{}/requests?subscription=acme-web", self.namespace);
        eventually(PATIENCE, &format!("the replica has matched {id}"), async || {
            let all = replica.log.list(&question).await?;
            let one = all.iter().find(|request| request["received"]["deliveryID"] == id.as_str());
            let one = one.context("it is not there yet")?;
            ensure!(one["outcome"] != "Received", "not matched yet");
            let triggers = one["events"][0]["triggers"].as_array().context("triggers")?;
            ensure!(triggers.iter().any(|trigger| trigger["name"] == "review" && trigger["fired"] == true), "{one}");
            Ok(triggers.iter().any(|trigger| trigger["name"] == "sketch" && trigger["captured"] == true))
        })
        .await
    }
}

#[tokio::test]
async fn a_draft_captures_at_whichever_replica_takes_the_event() -> Result<()> {
    let world = world::shared().await;
    let control_plane = ControlPlane::start(world::dir(), "control-plane-drafts").await?;
    install(&control_plane).await?;
    let workspace = Workspace::new(&control_plane, &world.gitea, "drafts").await?;
    let pair = Pair::start("drafts", &control_plane)?;
    let other = pair.another_ingress()?;
    let production = Runner::start()?;
    let subscription = workspace.create_subscription(workspace.subscription("acme-web")).await?;
    workspace.create_trigger(workspace.trigger("review", "acme-web")).await?;
    let mut draft = workspace.trigger("sketch", "acme-web");
    draft["spec"]["mode"] = json!("Draft");
    draft["spec"]["runner"]["url"] = json!(production.url());
    workspace.create_trigger(draft).await?;
    workspace.subscription_is("acme-web", "Ready", "False", "RouteNotLive").await?;

    let (token, controller) = published(&workspace, &subscription).await?;
    let replica = |url: &str, log| -> Result<Replica> {
        Ok(Replica { hook: format!("{url}/hooks/{token}"), log: Asker::new(&controller, log)? })
    };
    let replicas = [replica(&pair.public_url, pair.log_address)?, replica(&other.public_url, other.log_address)?];
    let sender = Sender {
        http: reqwest::Client::new(),
        secret: callback_secret(&workspace.client, &subscription).await?,
        namespace: workspace.namespace.clone(),
        sent: Cell::new(0),
    };

    // Before it listens, nothing is captured; what is published fires.
    for replica in &replicas {
        let captured =
            eventually(PATIENCE, "the replica serves the route", async || sender.is_captured(replica).await).await?;
        ensure!(!captured, "nobody listens");
    }
    // While it listens, each replica captures, as soon as it has seen that.
    let until = Timestamp::now() + SignedDuration::from_secs(300);
    annotate(&workspace, "sketch", json!({"bellhop.dev/listen-until": until.to_string()})).await?;
    for replica in &replicas {
        eventually(PATIENCE, "the replica captures", async || {
            ensure!(sender.is_captured(replica).await?, "it was not captured");
            Ok(())
        })
        .await?;
        ensure!(sender.is_captured(replica).await?, "it captures once and not again");
    }
    // And not any more once that is over.
    annotate(&workspace, "sketch", json!({"bellhop.dev/listen-until": null})).await?;
    for replica in &replicas {
        eventually(PATIENCE, "the replica does not capture any more", async || {
            ensure!(!sender.is_captured(replica).await?, "it was captured");
            Ok(())
        })
        .await?;
        ensure!(!sender.is_captured(replica).await?, "it captures again");
    }
    // While somebody follows it at a replica, it listens there, and no longer than that.
    let question = format!("/log/{}/requests?watch=true&trigger=sketch&listen=true", workspace.namespace);
    let followed = replicas[1].log.follow(&question).await?;
    ensure!(sender.is_captured(&replicas[1]).await?, "it is followed, and nothing is captured");
    ensure!(!sender.is_captured(&replicas[0]).await?, "nobody follows it here");
    drop(followed);
    eventually(PATIENCE, "the connection has ended, and nothing is captured any more", async || {
        ensure!(!sender.is_captured(&replicas[1]).await?, "it was captured");
        Ok(())
    })
    .await?;
    let sent = usize::try_from(sender.sent.get())?;
    let runs = workspace.runner.wait_for(sent, PATIENCE).await?;
    ensure!(runs.iter().all(|run| run.header("ce-trigger") == Some("review")), "{runs:?}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(
        (workspace.runner.count(), production.count()) == (sent, 0),
        "each event once, and none to the draft's runner"
    );
    Ok(())
}
