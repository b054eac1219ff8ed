//! What the stories share: a vendor's stand-in, its plugin, and a workspace.

use super::plugins;
use crate::support::{self, Own, PATIENCE, Workspace, note_secret};
use anyhow::{Context, Result, bail, ensure};
use bellhop::api::{Subscription, TriggerPlugin};
use bellhop_harness::bellhop::Bellhop;
use bellhop_harness::browser::Browser;
use bellhop_harness::control_plane::ControlPlane;
use bellhop_harness::runner::Recorded;
use bellhop_harness::vendor::{Standin, Vendor, Webhook};
use bellhop_harness::{eventually, world};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

/// The name of the Subscription of each story.
pub const SUBSCRIPTION: &str = "acme";
/// The name of the WorkflowTrigger and of the workflow.
pub const TRIGGER: &str = "run";

const CREDENTIALS: &str = "credentials";

pub struct Stage<'a, V> {
    pub vendor: Standin<V>,
    pub workspace: Workspace<'a>,
    plugin: String,
    parameters: Value,
    /// What the Subscription names as `baseURL`; a test may put something in between.
    pub base_url: String,
}

/// A Bellhop that looks at external systems every few seconds and accepts old secrets for a short time, on a control plane
/// of its own. No test stops it.
pub async fn brisk() -> &'static Own {
    static OWN: OnceCell<Own> = OnceCell::const_new();
    let start = || Own::start("brisk", &["--drift-interval", "4s", "--rotation-grace", "15s"]);
    match OWN.get_or_try_init(start).await {
        Ok(own) => own,
        Err(error) => panic!("the brisk Bellhop does not start: {error:#}"),
    }
}

impl<V: Vendor> Stage<'static, V> {
    /// Starts the vendor, and installs its plugin `vendor-NAME`. `parameters` are the Subscription's, besides `baseURL`.
    pub async fn new(name: &str, vendor: V, parameters: Value) -> Result<Stage<'static, V>> {
        let workspace = Workspace::shared(&format!("vendor-{name}")).await?;
        Stage::of(workspace, name, vendor, parameters).await
    }

    /// The same at [`brisk`].
    pub async fn brisk(name: &str, vendor: V, parameters: Value) -> Result<Stage<'static, V>> {
        Stage::on(&brisk().await.control_plane, name, vendor, parameters).await
    }
}

impl<'a, V: Vendor> Stage<'a, V> {
    /// The same on any control plane with a Bellhop.
    pub async fn on(control_plane: &'a ControlPlane, name: &str, vendor: V, parameters: Value) -> Result<Stage<'a, V>> {
        let gitea = &world::shared().await.gitea;
        Stage::of(Workspace::new(control_plane, gitea, &format!("vendor-{name}")).await?, name, vendor, parameters)
            .await
    }

    async fn of(workspace: Workspace<'a>, name: &str, vendor: V, parameters: Value) -> Result<Stage<'a, V>> {
        let (plugin, params) = (plugins::plugin(name)?, PatchParams::apply("test").force());
        let api = Api::<TriggerPlugin>::all(workspace.client.clone());
        api.patch(&format!("vendor-{name}"), &params, &Patch::Apply(&plugin)).await?;
        let vendor = Standin::start(vendor)?;
        let base_url = vendor.url();
        Ok(Stage { vendor, workspace, plugin: format!("vendor-{name}"), parameters, base_url })
    }

    /// Changes the plugin, or a copy of it with another name, which is the Subscription's from then on.
    pub async fn change_plugin(&mut self, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let api = Api::<TriggerPlugin>::all(self.workspace.client.clone());
        let mut spec = serde_json::to_value(api.get(&self.plugin).await?.spec)?;
        change(&mut spec);
        let object = json!({
            "apiVersion": "bellhop.dev/v1alpha1", "kind": "TriggerPlugin", "metadata": {"name": name}, "spec": spec,
        });
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&object)).await?;
        name.clone_into(&mut self.plugin);
        Ok(())
    }

    /// Stores credentials, labelled for the plugin.
    pub async fn credentials(&self, keys: &[(&str, &str)]) -> Result<()> {
        for (_, value) in keys {
            note_secret(value)?;
        }
        self.workspace.put_secret(CREDENTIALS, Some(&self.plugin), keys).await
    }

    /// Creates a Subscription to these events that is authorized by the credentials, and a trigger for the first one.
    pub async fn subscribe(&self, events: &[&str]) -> Result<()> {
        self.subscribe_by(events, json!({"apiKey": {"secretRef": {"name": CREDENTIALS}}})).await
    }

    /// The same, where a person consents: by the client of the workspace, and with the link of the status.
    pub async fn subscribe_by_consent(&self, events: &[&str], id: &str, secret: &str) -> Result<()> {
        self.credentials(&[("clientID", id), ("clientSecret", secret)]).await?;
        self.subscribe_by(events, json!({"oauth2": {"clientSecretRef": {"name": CREDENTIALS}}})).await?;
        let link = crate::oauth::support::link(&self.workspace, SUBSCRIPTION).await?;
        let mut browser = Browser::new();
        let start = browser.open(&link).await?;
        let done = browser.submit(&start.form("/oauth/start/")?, &[]).await?;
        ensure!(done.text().contains("You can close this page"), "{}: {}", done.url, done.text());
        Ok(())
    }

    /// The same, authorized in any way.
    pub async fn subscribe_by(&self, events: &[&str], authorization: Value) -> Result<()> {
        let mut subscription = self.workspace.subscription(SUBSCRIPTION);
        let mut parameters = self.parameters.clone();
        if authorization.get("manual").is_none() {
            parameters["baseURL"] = json!(self.base_url);
        }
        subscription["spec"] = json!({
            "pluginRef": {"name": self.plugin},
            "events": events,
            "parameters": parameters,
            "authorization": authorization,
        });
        self.workspace.create_subscription(subscription).await?;
        let mut trigger = self.workspace.trigger(TRIGGER, SUBSCRIPTION);
        trigger["spec"]["event"] = json!(events.first().context("a story has an event")?);
        self.workspace.create_trigger(trigger).await?;
        Ok(())
    }

    /// Waits until the Subscription and its trigger are ready.
    pub async fn ready(&self) -> Result<Subscription> {
        self.workspace.subscription_is(SUBSCRIPTION, "Ready", "True", "").await?;
        self.workspace.trigger_is(TRIGGER, "True", "Bound").await?;
        self.subscription().await
    }

    pub async fn subscription(&self) -> Result<Subscription> {
        Ok(self.workspace.api().get(SUBSCRIPTION).await?)
    }

    pub async fn callback_url(&self) -> Result<String> {
        support::callback_url(&self.subscription().await?)
    }

    /// The one webhook of the vendor that is not somebody else's; it has the Subscription's callback URL, and its id is
    /// in the status.
    pub async fn one_webhook(&self) -> Result<Webhook> {
        // A renewal or a repair may be under way.
        eventually(PATIENCE, "one webhook, and one in the status", async || {
            let webhooks = self.vendor.desk().webhooks();
            let [webhook] = webhooks.as_slice() else {
                bail!("found {webhooks:?} after {:#?}", self.vendor.desk().calls());
            };
            let subscription = self.subscription().await?;
            ensure!(webhook.url == support::callback_url(&subscription)?, "{webhook:?}");
            note_secret(&webhook.secret)?;
            let told = subscription.status.unwrap_or_default().webhooks;
            ensure!(told.len() == 1, "one webhook is in the status: {told:?}");
            Ok(webhook.clone())
        })
        .await
    }

    /// Waits until the ingress starts the trigger on this event, by the vendor's name; see [`support::fires`].
    pub async fn fires(&self, event: &str) -> Result<()> {
        let send = async || self.vendor.send(event).await.map(drop);
        support::fires(TRIGGER, &self.workspace.runner, send).await
    }

    /// The vendor tells of an event, by its own name; the workflow runs once for each webhook that it was sent to.
    pub async fn an_event_runs(&self, event: &str) -> Result<Arc<Recorded>> {
        let before = self.workspace.runner.count();
        let sent = self.vendor.send(event).await?;
        let runs = self.workspace.runner.wait_for(before + sent, PATIENCE).await?;
        ensure!(runs.len() == before + sent, "{sent} deliveries started {} workflows", runs.len() - before);
        Ok(runs[before].clone())
    }

    /// Nothing more is run within a moment.
    pub async fn nothing_runs(&self, before: usize) -> Result<()> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let count = self.workspace.runner.count();
        ensure!(count == before, "{count} runs instead of {before}");
        Ok(())
    }

    /// Waits until there are this many runs, all of different events.
    pub async fn runs_are(&self, count: usize) -> Result<()> {
        let runs = self.workspace.runner.wait_for(count, PATIENCE).await?;
        let ids: BTreeSet<_> = runs.iter().filter_map(|run| run.header("ce-id").map(str::to_owned)).collect();
        ensure!(runs.len() == count && ids.len() == count, "{count} events, {} runs of {}", runs.len(), ids.len());
        Ok(())
    }

    /// The Subscription is deleted: the vendor has no webhook of it any more, and everybody else's.
    pub async fn ends_with_nothing(self) -> Result<()> {
        self.ends_with_nothing_at(support::shared().await).await
    }

    /// The same where another Bellhop than the shared one has worked.
    pub async fn ends_with_nothing_at(self, bellhop: &Bellhop) -> Result<()> {
        let foreign = self.foreign();
        self.workspace.delete_subscription(SUBSCRIPTION).await?;
        self.workspace.is_gone(SUBSCRIPTION).await?;
        let left = self.vendor.desk().webhooks();
        ensure!(left.is_empty(), "{left:?} is left after {:#?}", self.vendor.desk().calls());
        ensure!(self.foreign() == foreign, "somebody else's webhooks were touched");
        self.workspace.collect(bellhop).await
    }

    /// Waits for a webhook besides `old`, whose secret Bellhop cannot know yet because the vendor holds its answer back. What
    /// it sends meanwhile comes back, believed by nobody, while the old ones are believed; it is accepted in the end, and
    /// only what has the right signature.
    pub async fn comes_back_until_its_secret_is_told(&self, old: &[Webhook], event: &str) -> Result<()> {
        let deliver =
            async |webhook: &Webhook, number: u64| self.vendor.vendor().delivery(webhook, event, number).send().await;
        let before = self.workspace.runner.count();
        let new = eventually(PATIENCE, "another webhook", async || {
            let webhooks = self.vendor.desk().webhooks();
            webhooks.into_iter().find(|webhook| !old.iter().any(|old| old.id == webhook.id)).context("none yet")
        })
        .await?;
        note_secret(&new.secret)?;
        // A key that no webhook has; where keys are base64, it is that too.
        let forged = Webhook { secret: "Zm9yZ2VkLWtleS0x".to_owned(), ..new.clone() };
        for webhook in [&new, &forged] {
            let answered = deliver(webhook, 7_000_001).await?;
            ensure!(answered.status == 503 && !answered.header("retry-after").is_empty(), "{answered:?}");
        }
        for webhook in old.iter().filter(|webhook| webhook.wants(event)) {
            deliver(webhook, 7_000_002).await?.accepted().context("of an old webhook, all the while")?;
        }
        let old_ones = old.iter().filter(|webhook| webhook.wants(event)).count();
        self.workspace.runner.wait_for(before + old_ones, PATIENCE).await?;
        self.nothing_runs(before + old_ones).await?;
        eventually(PATIENCE, "it is accepted when its secret is known", async || {
            deliver(&new, 7_000_001).await?.accepted()
        })
        .await?;
        self.workspace.runner.wait_for(before + old_ones + 1, PATIENCE).await?;
        eventually(PATIENCE, "what nothing proves is refused again", async || {
            let answered = deliver(&forged, 7_000_003).await?;
            ensure!(answered.status == 401, "{answered:?}");
            Ok(())
        })
        .await
    }

    /// Asks for another callback secret, by a value of the annotation that was not there before.
    pub async fn ask_for_rotation(&self, value: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {"bellhop.dev/rotate-requested-at": value}}});
        let api = self.workspace.api::<Subscription>();
        api.patch(SUBSCRIPTION, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Waits until an Event of the workspace has this reason and these words.
    pub async fn event_says(&self, reason: &str, words: &str) -> Result<()> {
        self.workspace.event_says(reason, words).await
    }

    /// The whole story of one webhook that nothing happens to: what there is at the end of each step is what should be.
    pub async fn story(self, events: &[&str], sent: &str) -> Result<()> {
        self.subscribe(events).await?;
        self.ready().await?;
        self.one_webhook().await?;
        self.fires(sent).await?;
        self.an_event_runs(sent).await?;
        self.ends_with_nothing().await
    }

    fn foreign(&self) -> Vec<Webhook> {
        self.vendor.desk().all().into_iter().filter(|webhook| webhook.foreign).collect()
    }
}

/// Waits until a condition of the story's Subscription has this status and reason, and gives its message.
pub async fn condition<V: Vendor>(stage: &Stage<'_, V>, type_: &str, status: &str, reason: &str) -> Result<String> {
    stage.workspace.subscription_is(SUBSCRIPTION, type_, status, reason).await
}

/// Waits until the vendor has this many webhooks.
pub async fn webhooks_become<V: Vendor>(stage: &Stage<'_, V>, count: usize) -> Result<()> {
    eventually(PATIENCE, &format!("{count} webhooks"), async || {
        let webhooks = stage.vendor.desk().webhooks();
        ensure!(webhooks.len() == count, "{webhooks:?} after {:#?}", stage.vendor.desk().calls());
        Ok(())
    })
    .await
}
