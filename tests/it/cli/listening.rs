//! `bellhop listen` with several replicas of the ingress: through the real API server, which asks the controller, which asks
//! each of them.

use super::command;
use super::terminal::Terminal;
use crate::bad_input::sign;
use crate::log_listener::published;
use crate::request_log::left_out;
use crate::support::{PATIENCE, Pair, Workspace, callback_secret, install};
use anyhow::{Context, Result, ensure};
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::{eventually, world};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

/// An address of this machine that is not loopback's, as EndpointSlices must not have that. Nothing is sent.
fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_loopback())
}

/// A replica as the external system sees it.
struct Hook {
    number: u32,
    url: String,
    secret: String,
}

impl Hook {
    /// Sends a push; gives the name of the request.
    async fn push(&self) -> Result<String> {
        let body = json!({"ref": "refs/heads/main", "commits": [], "id": uuid::Uuid::new_v4()}).to_string();
        let request = reqwest::Client::new().post(&self.url).header("x-gitea-event", "push");
        let request = request.header("x-gitea-signature", sign(&self.secret, body.as_bytes()));
        let request = request.header("content-type", "application/json").timeout(Duration::from_secs(5));
        let answer = request.body(body).send().await?;
        ensure!(answer.status() == 200, "{}", answer.status());
        let answer: Value = serde_json::from_str(&answer.text().await?)?;
        Ok(format!("{}-{}", self.number, answer["id"].as_str().context("an id")?))
    }
}

/// What is told of somebody who listens.
struct Listener(Terminal);

impl Listener {
    /// Begins to listen, and waits until it does.
    async fn start(workspace: &Workspace<'_>) -> Result<Self> {
        let args = ["listen", "sketch", "--count", "0", "--for", "10m", "-o", "name"];
        let mut terminal = Terminal::start(command(workspace, &args))?;
        terminal.expect("Listening to sketch until").await?;
        Ok(Self(terminal))
    }

    /// A push to this replica is shown, without another try.
    async fn shows(&mut self, hook: &Hook) -> Result<()> {
        let name = hook.push().await?;
        self.0.expect(&format!("{name}\r\n")).await
    }

    /// One push after the other is sent to this replica until one is shown.
    async fn comes_to_show(&self, hook: &Hook) -> Result<()> {
        let shown = || self.0.shown();
        eventually(PATIENCE, &format!("a push to replica {} is shown", hook.number), async || {
            let name = hook.push().await?;
            for _ in 0..10 {
                if shown().contains(&name) {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            anyhow::bail!("{name} is not shown, but:\n{}", shown())
        })
        .await
    }

    /// Ends it; gives all that it has shown.
    async fn end(mut self) -> Result<String> {
        let process = Pid::from_raw(self.0.pid().try_into()?).context("it has an id")?;
        kill_process(process, Signal::INT)?;
        ensure!(self.0.end().await? == 130);
        Ok(self.0.shown())
    }
}

#[tokio::test]
async fn a_draft_is_listened_to_at_every_replica_whatever_becomes_of_them() -> Result<()> {
    let address = address().filter(|_| rustix::process::geteuid().is_root());
    let Some(address) = address.filter(|_| !left_out()) else {
        eprintln!("left out: listening at several replicas, which takes root and an address that is not loopback's");
        return Ok(());
    };
    let world = world::shared().await;
    let control_plane = ControlPlane::start(world::dir(), "control-plane-listening").await?;
    install(&control_plane).await?;
    let workspace = Workspace::new(&control_plane, &world.gitea, "listening").await?;
    let mut pair = Pair::start_as_pods("listening", &control_plane, address).await?;
    let other = pair.another_ingress()?;
    let subscription = workspace.create_subscription(workspace.subscription("acme-web")).await?;
    let mut draft = workspace.trigger("sketch", "acme-web");
    draft["spec"]["mode"] = json!("Draft");
    workspace.create_trigger(draft).await?;
    workspace.subscription_is("acme-web", "Ready", "False", "RouteNotLive").await?;
    let (token, _) = published(&workspace, &subscription).await?;
    let secret = callback_secret(&workspace.client, &subscription).await?;
    let hook = |number, url: &str| Hook { number, url: format!("{url}/hooks/{token}"), secret: secret.clone() };
    let hooks = [hook(0, &pair.public_url), hook(1, &other.public_url)];
    for hook in &hooks {
        eventually(PATIENCE, "the replica serves the route", async || hook.push().await).await?;
    }
    let client = &workspace.client;
    Pair::joins(client, 0, pair.log_address).await?;
    Pair::joins(client, 1, other.log_address).await?;
    eventually(PATIENCE, "both replicas tell their logs", async || {
        let args = ["-n", &workspace.namespace, "get", "requests.log.bellhop.dev", "-o", "name"];
        let names = control_plane.kubectl(&args).await?;
        ensure!(["/0-", "/1-"].iter().all(|number| names.contains(number)), "{names}");
        Ok(())
    })
    .await?;

    // Once it says that it listens, it does so everywhere.
    let mut listener = Listener::start(&workspace).await?;
    for hook in [&hooks[0], &hooks[1], &hooks[0]] {
        listener.shows(hook).await?;
    }
    // One that dies is listened to again when it is back; the other one is, all the while.
    pair.restart_ingress()?;
    listener.shows(&hooks[1]).await?;
    listener.comes_to_show(&hooks[0]).await?;
    let shown = listener.end().await?;
    ensure!(!shown.contains("Warning") && shown.matches("Listening to").count() == 1, "{shown}");

    // One that comes later is listened to as well.
    Pair::leaves(client, 1).await?;
    let mut listener = Listener::start(&workspace).await?;
    listener.shows(&hooks[0]).await?;
    Pair::joins(client, 1, other.log_address).await?;
    listener.comes_to_show(&hooks[1]).await?;
    listener.end().await?;

    // One that hangs is named, and listened to when it goes on.
    let process = Pid::from_raw(other.process.pid().try_into()?).context("it has an id")?;
    kill_process(process, Signal::STOP)?;
    let mut listener = Listener::start(&workspace).await?;
    let named = "Warning: replica 1 of the ingress does not listen: ";
    ensure!(listener.0.shown().contains(named), "{}", listener.0.shown());
    listener.shows(&hooks[0]).await?;
    kill_process(process, Signal::CONT)?;
    listener.comes_to_show(&hooks[1]).await?;
    listener.end().await?;
    Ok(())
}
