//! Webhooks that end are renewed in time, and it is told when that fails.
//!
//! The external system is a server of this file, because no real one can be made to forget a webhook within seconds.

use crate::support::{PATIENCE, SECRET, Workspace, shared};
use anyhow::{Context, Result, ensure};
use bellhop::api::{Subscription, TriggerPlugin};
use bellhop_harness::eventually;
use bellhop_harness::server::{Call, Reply, Server};
use futures::FutureExt;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a webhook lives.
const LIFE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    webhooks: BTreeMap<u32, Instant>,
    created: u32,
    renewals: Vec<Instant>,
    broken: bool,
}

/// Forgets a webhook after [`LIFE`] unless `POST /hooks/ID/renew` is called.
struct Forgetful {
    server: Server,
    state: Arc<Mutex<State>>,
}

impl Forgetful {
    fn start() -> Result<Self> {
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        let server = Server::start(Arc::new(move |call| {
            let reply = answer(&mut shared.lock().expect("no panic while the lock is held"), &call);
            std::future::ready(reply).boxed()
        }))?;
        Ok(Self { server, state })
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().expect("no panic while the lock is held"))
    }

    /// The webhooks that are alive.
    fn alive(&self) -> usize {
        self.with(|state| state.webhooks.values().filter(|end| **end > Instant::now()).count())
    }
}

fn answer(state: &mut State, call: &Call) -> Reply {
    state.webhooks.retain(|_, end| *end > Instant::now());
    let path = call.path.trim_matches('/').split('/').collect::<Vec<_>>();
    let end = || (SystemTime::now() + LIFE).duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
    let json = |value: Value| Reply::ok().body(value.to_string());
    match (call.method.as_str(), path.as_slice()) {
        ("POST", ["hooks"]) => {
            state.created += 1;
            state.webhooks.insert(state.created, Instant::now() + LIFE);
            json(json!({"id": state.created, "end": end()}))
        }
        ("POST", ["hooks", id, "renew"]) => {
            state.renewals.push(Instant::now());
            match id.parse().ok().and_then(|id: u32| state.webhooks.get_mut(&id)) {
                _ if state.broken => Reply::status(500).body("out of order"),
                Some(webhook) => {
                    *webhook = Instant::now() + LIFE;
                    json(json!({"end": end()}))
                }
                None => Reply::status(404),
            }
        }
        ("DELETE", ["hooks", id]) => {
            let known = id.parse().ok().and_then(|id: u32| state.webhooks.remove(&id));
            Reply::status(if known.is_some() { 204 } else { 404 })
        }
        _ => Reply::status(404),
    }
}

/// A workspace with a Subscription to the forgetful system.
async fn subscribed(system: &Forgetful, plugin: &str) -> Result<Workspace<'static>> {
    let workspace = Workspace::shared(plugin).await?;
    let url = |path: &str| format!("{}/{path}", system.server.url());
    let object: TriggerPlugin = serde_json::from_value(json!({
        "apiVersion": "bellhop.dev/v1alpha1", "kind": "TriggerPlugin", "metadata": {"name": plugin},
        "spec": {
            "displayName": "Forgetful",
            "allowedOrigins": [system.server.url()],
            "authorization": {"apiKey": {"keys": ["token"], "headers": {"authorization": "credentials.token"}}},
            "webhook": {
                "create": {
                    "method": "POST", "url": url("hooks"), "body": "{'url': callback.url, 'secret': callback.secret}",
                    "capture": {"id": "string(response.body.id)", "expiresAt": "response.body.end"},
                },
                "refresh": {"method": "POST", "url": url("hooks/{webhook.id}/renew"), "expiresAt": "response.body.end"},
                "delete": {"method": "DELETE", "url": url("hooks/{webhook.id}")},
            },
            "callback": {
                "verification": [{"token": {"header": "x-token"}}], "event": "request.headers['x-event']",
            },
            "events": [{"name": "push", "title": "Push"}],
        },
    }))?;
    Api::<TriggerPlugin>::all(workspace.client.clone()).create(&PostParams::default(), &object).await?;
    workspace.put_secret(SECRET, Some(plugin), &[("token", "a-token-for-the-forgetful-system")]).await?;
    let mut subscription = workspace.subscription("lease");
    subscription["spec"]["pluginRef"]["name"] = json!(plugin);
    subscription["spec"]["parameters"] = json!({});
    workspace.create_subscription(subscription).await?;
    workspace.subscription_is("lease", "Ready", "True", "Ready").await?;
    Ok(workspace)
}

async fn end(workspace: &Workspace<'_>) -> Result<i64> {
    let status = workspace.api::<Subscription>().get("lease").await?.status.context("a status")?;
    let end = status.webhooks.first().context("a webhook")?.expires_at.clone().context("an end")?;
    Ok(end.0.as_second())
}

#[tokio::test]
async fn a_webhook_is_renewed_again_and_again_at_two_thirds_of_its_life() -> Result<()> {
    let system = Forgetful::start()?;
    let workspace = subscribed(&system, "renewed").await?;
    let (first, begun) = (end(&workspace).await?, Instant::now());
    let renewals = loop {
        ensure!(system.alive() == 1, "there is a gap after {:?}", begun.elapsed());
        let renewals = system.with(|state| state.renewals.clone());
        if renewals.len() >= 3 {
            break renewals;
        }
        ensure!(begun.elapsed() < 5 * LIFE, "{} renewals in {:?}", renewals.len(), begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    ensure!(system.with(|state| state.created) == 1, "it stays the same webhook");
    for pair in renewals.windows(2) {
        let pause = pair[1] - pair[0];
        // A busy machine may be late, and a webhook that has ended is a gap.
        ensure!(pause > LIFE.mul_f64(0.55) && pause < LIFE.mul_f64(0.97), "{pause:?} of {LIFE:?}");
    }
    eventually(PATIENCE, "the status shows the new end", async || {
        let end = end(&workspace).await?;
        ensure!(end > first + 40, "{end} after {first}");
        Ok(())
    })
    .await?;
    let metric = shared().await.metric("bellhop_webhook_expiry_timestamp_seconds", &["plugin=\"renewed\""]).await?;
    ensure!((metric - end(&workspace).await? as f64).abs() <= LIFE.as_secs_f64(), "{metric}");
    workspace.delete_subscription("lease").await?;
    workspace.is_gone("lease").await?;
    ensure!(system.alive() == 0);
    Ok(())
}

#[tokio::test]
async fn a_renewal_that_fails_is_told_before_and_after_the_end_and_made_good() -> Result<()> {
    let system = Forgetful::start()?;
    let workspace = subscribed(&system, "unrenewed").await?;
    system.with(|state| state.broken = true);
    eventually(PATIENCE, "it is told while it still receives", async || {
        let status = workspace.api::<Subscription>().get("lease").await?.status.context("a status")?;
        let is = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_ && c.status == "True");
        let expiring = is("Expiring").with_context(|| format!("{:?}", status.conditions))?;
        ensure!(expiring.reason == "RenewalFailed" && is("Ready").is_some(), "{:?}", status.conditions);
        let message = &expiring.message;
        ensure!(message.contains("webhook 1 expires at") && message.contains("out of order"), "{message}");
        Ok(())
    })
    .await?;
    let message = workspace.subscription_is("lease", "Ready", "False", "WebhookExpired").await?;
    ensure!(message.contains("webhook 1 has expired") && message.contains("out of order"), "{message}");
    let calls = system.with(|state| state.renewals.len());
    ensure!((2..=8).contains(&calls), "with growing pauses: {calls}");

    system.with(|state| state.broken = false);
    // The old one is gone for good: another one is made, and told.
    workspace.subscription_is("lease", "Ready", "True", "Ready").await?;
    let status = workspace.api::<Subscription>().get("lease").await?.status.context("a status")?;
    ensure!(status.webhooks.len() == 1 && status.webhooks[0].id == "2", "{:?}", status.webhooks);
    ensure!(!status.conditions.iter().any(|condition| condition.type_ == "Expiring"), "{:?}", status.conditions);
    eventually(PATIENCE, "an event tells it", async || {
        let events = workspace.control_plane.kubectl(["-n", &workspace.namespace, "get", "events"]).await?;
        ensure!(events.contains("WebhookRepaired") && events.contains("webhook 1 was not in the external"), "{events}");
        Ok(())
    })
    .await
}
