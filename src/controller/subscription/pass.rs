//! One pass: resolve (reads) → plan (pure) → do (one step, and store what came of it) → plan again → status.

use super::blocked::{Outcome, Trouble};
use super::desk::{Desk, Tally};
use super::plan::{self, Given, Step, View};
use super::times::alarming;
use super::{Blocked, accept, calls, memory, oauth, register, secrets, status, upkeep};
use crate::api::{Is, Subscription, reason, type_};
use crate::controller::custody::{Custody, Stored};
use crate::controller::{Context, Failure, PluginState, authorization, now, trigger_plugin, uid_of};
use crate::plugin::Plugin;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// Takes a Subscription as far as it goes.
///
/// # Errors
/// The API server failed, or others were faster. What the Subscription itself is blocked by is in its status.
pub async fn keep(context: &Context, subscription: &Subscription) -> Result<Action, Failure> {
    let uid = uid_of(subscription)?;
    let mut pass = Pass::begin(context, subscription).await?;
    if context.memory.is_paused(uid)
        && let Some((outcome, rest)) = context.memory.paused(uid, pass.seen().await?)
    {
        pass.tell(&pass.judged(outcome)).await?;
        return Ok(Action::requeue(rest.min(pass.next_news())));
    }
    let outcome = pass.run().await?;
    pass.tell(&outcome).await?;
    let pause = context.next_pass(uid, outcome.retry());
    let failed = outcome.blocked.is_some() || !outcome.troubles.is_empty();
    if let Some(pause) = pause.filter(|_| failed && pass.tally.has_called()) {
        context.memory.pause(uid, pause, pass.worked_with(), outcome);
    }
    // The status changes with the time, also while the external system is left alone.
    let pause = if failed { pause.map(|pause| pause.min(pass.next_news())) } else { pause };
    Ok(pause.map_or_else(Action::await_change, Action::requeue))
}

/// What is known during a pass.
struct Pass<'a> {
    context: &'a Context,
    subscription: &'a Subscription,
    uid: Uuid,
    stored: Option<Stored>,
    /// The digest of the route that the ingress is known to serve.
    live: Option<String>,
    looked: BTreeMap<Uuid, i64>,
    tally: Tally,
    /// The plugin and what the Secret held when the last step was planned.
    last: (PluginState, Option<Given>),
}

impl<'a> Pass<'a> {
    async fn begin(context: &'a Context, subscription: &'a Subscription) -> Result<Self, Failure> {
        let uid = uid_of(subscription)?;
        let stored = context.vault.get(uid).await?;
        let mut live = None;
        if let Some(stored) = &stored {
            let route = calls::route(context, &stored.custody);
            live = context.replicas.serve(&route).await.then(|| route.version().digest);
        }
        let looked = context.memory.looked(uid);
        let last = (PluginState::NotFound, None);
        Ok(Self { context, subscription, uid, stored, live, looked, tally: Tally::default(), last })
    }

    fn custody(&self) -> Option<&Custody> {
        self.stored.as_ref().map(|stored| &stored.custody)
    }

    fn plugin(&self) -> PluginState {
        self.context.plugins.get(&self.subscription.spec.plugin_ref.name)
    }

    fn is_live(&self) -> bool {
        let digest = self.custody().map(|custody| calls::route(self.context, custody).version().digest);
        digest.is_some() && digest == self.live
    }

    async fn given(&self, plugin: &PluginState) -> Result<Option<Given>, Failure> {
        match plugin {
            PluginState::Ready(plugin) => secrets::given(self.context, self.subscription, plugin).await,
            _ => Ok(None),
        }
    }

    async fn seen(&self) -> Result<u64, Failure> {
        let plugin = self.plugin();
        let given = self.given(&plugin).await?;
        Ok(memory::seen(self.subscription, &plugin, given.as_ref(), self.stored.as_ref(), self.is_live()))
    }

    /// The same of what this pass has worked with. It is not read again: what has changed since is news to the next pass.
    fn worked_with(&self) -> u64 {
        let (plugin, given) = &self.last;
        memory::seen(self.subscription, plugin, given.as_ref(), self.stored.as_ref(), self.is_live())
    }

    /// Does one step after the other until nothing is missing, or nothing can be done.
    async fn run(&mut self) -> Result<Outcome, Failure> {
        let (mut outcome, mut failed) = (Outcome::default(), BTreeSet::new());
        loop {
            let plugin = self.plugin();
            let given = self.given(&plugin).await?;
            let step = self.plan(&plugin, given.as_ref(), &failed).await?;
            self.last = (plugin.clone(), given);
            match &step {
                Step::Finished { next_look } => outcome.next_look = *next_look,
                Step::Blocked(blocked) => outcome.blocked = Some(blocked.clone()),
                step if step.calls() && self.tally.is_full() => outcome.unfinished = true,
                _ => {
                    let PluginState::Ready(plugin) = &plugin else {
                        unreachable!("{step:?} is planned only with a ready plugin")
                    };
                    match self.take(&step, plugin).await {
                        Ok(()) => continue,
                        Err(Failure::Blocked(blocked)) => {
                            let Some(event) = self.failed(&step, *blocked, plugin, &mut outcome).await? else { break };
                            failed.insert(event);
                            continue;
                        }
                        Err(failure) => return Err(failure),
                    }
                }
            }
            break;
        }
        self.context.memory.note_looks(self.uid, self.looked.clone());
        Ok(self.judged(outcome))
    }

    async fn plan(
        &self,
        plugin: &PluginState,
        given: Option<&Given>,
        failed: &BTreeSet<Option<String>>,
    ) -> Result<Step, Failure> {
        let custody = self.custody();
        let (mut handed_over, mut link) = (true, String::new());
        if let Some(custody) = custody {
            // Nobody is told of a callback URL before it is live, so until then it does not matter.
            handed_over = !self.is_live() || secrets::is_handed_over(self.context, custody).await?;
            link = oauth::link(self.context, custody);
        }
        Ok(plan::next(&View {
            subscription: self.subscription,
            plugin,
            custody,
            given,
            route_live: self.is_live(),
            handed_over,
            link: &link,
            looked: &self.looked,
            started: self.context.memory.started(),
            failed,
            drift_interval: self.context.options.drift_interval,
            now: now(),
        }))
    }

    /// Takes a step. What it has stored is known afterwards, also if it has failed.
    async fn take(&mut self, step: &Step, plugin: &Plugin) -> Result<(), Failure> {
        let tally = std::mem::take(&mut self.tally);
        let desk = Desk { context: self.context, plugin, tally: &tally, now: now() };
        let taken = self.step(step, &desk).await;
        self.tally = tally;
        let published = self.tally.take_publication();
        if published {
            self.live = None;
        }
        match taken {
            Ok(stored) => self.stored = Some(stored),
            Err(Failure::Blocked(blocked)) => {
                // The step may have stored something before it failed, such as that a create call was made.
                self.stored = self.context.vault.get(self.uid).await?;
                if let Some(stored) = self.stored.as_ref().filter(|_| published)
                    && accept::publish(self.context, &stored.custody).await.is_ok()
                {
                    self.live = Some(calls::route(self.context, &stored.custody).version().digest);
                }
                return Err(Failure::Blocked(blocked));
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step, desk: &Desk<'_>) -> Result<Stored, Failure> {
        if let Step::Accept { events, origin } = step {
            trigger_plugin::hold(self.context, desk.plugin.name()).await?;
            return accept::accept(desk, self.subscription, events.clone(), *origin).await;
        }
        let Some(stored) = self.stored.clone() else { unreachable!("{step:?} is planned only after acceptance") };
        match step {
            Step::Publish => {
                accept::publish(self.context, &stored.custody).await?;
                self.live = Some(calls::route(self.context, &stored.custody).version().digest);
                Ok(stored)
            }
            Step::HandOver => {
                secrets::hand_over(self.context, self.subscription, &stored.custody).await?;
                Ok(stored)
            }
            Step::DropSecrets => {
                let now = desk.now;
                self.context.vault.record(&stored, |custody| custody.drop_retired(now)).await
            }
            Step::TakeSecret { secret } => upkeep::take_secret(desk, &stored, secret).await,
            Step::BeginRotation { request } => {
                let stored = upkeep::begin_rotation(desk, &stored, request).await?;
                self.tell_rotation(&stored.custody).await;
                Ok(stored)
            }
            Step::EndRotation => upkeep::end_rotation(desk, &stored).await,
            Step::Authorize { credentials } => accept::authorize(desk, &stored, credentials).await,
            Step::VerifyGrant => oauth::verify(desk, &stored).await,
            Step::MakeLink => authorization::ensure_link(self.context, &stored).await,
            Step::FetchToken => authorization::refresh(self.context, desk.plugin, &stored).await,
            Step::Prepare { index } => register::prepare(desk, &stored, *index).await,
            Step::Register { event } => register::register(desk, &stored, event.as_deref()).await,
            Step::Complete { attempt } => register::complete(desk, &stored, *attempt).await,
            Step::Retire { attempt } => upkeep::retire(desk, &stored, *attempt).await,
            Step::Rewrite { attempt } => upkeep::rewrite(desk, &stored, *attempt).await,
            Step::Replace { attempt, .. } => upkeep::replace(desk, &stored, *attempt).await,
            Step::Refresh { attempt } => upkeep::refresh(desk, &stored, *attempt).await,
            Step::CreateAgain { attempt } => upkeep::create_again(desk, &stored, *attempt).await,
            Step::Check { attempt } => {
                let stored = upkeep::check(desk, &stored, *attempt).await?;
                self.looked.retain(|looked, _| stored.custody.webhook(*looked).is_some());
                self.looked.insert(*attempt, now());
                Ok(stored)
            }
            Step::TellRepair => {
                let note = stored.custody.repaired.clone().unwrap_or_default();
                self.context.warn_anew(self.subscription, "WebhookRepaired", note).await;
                self.context.vault.record(&stored, |custody| custody.repaired = None).await
            }
            Step::Accept { .. } | Step::Finished { .. } | Step::Blocked(_) => unreachable!("handled before"),
        }
    }

    async fn tell_rotation(&self, custody: &Custody) {
        use crate::controller::custody::SecretOrigin;
        let note = match custody.secret_origin {
            SecretOrigin::Generated => "the callback secret is being replaced; the old one is accepted for a while",
            SecretOrigin::External => "another callback secret is taken from the external system",
            SecretOrigin::Given => "the callback secret is the user's own: change it in the Secret",
            SecretOrigin::NotNeeded => "the plugin verifies nothing by a callback secret: there is nothing to replace",
        };
        self.context.tell(self.subscription, "SecretRotation", note).await;
    }

    /// Judges a step that has failed: either the pass goes on without what it is about, or it ends.
    async fn failed(
        &mut self,
        step: &Step,
        blocked: Blocked,
        plugin: &Plugin,
        outcome: &mut Outcome,
    ) -> Result<Option<Option<String>>, Failure> {
        let refused = blocked.reason == reason::CREDENTIALS_REFUSED;
        if let Some(stored) = self.stored.clone().filter(|_| refused) {
            let (stored, another_token) = oauth::doubt(self.context, &stored).await?;
            self.stored = Some(stored);
            if another_token {
                // Once; the next refusal is believed.
                outcome.unfinished = true;
                return Ok(None);
            }
        }
        let complete = self.custody().is_some_and(|custody| custody.is_registered(&plan::wanted(plugin, custody)));
        // Somebody has to act before the credentials are good again, so the Subscription says so.
        let (Some(upkeep), true, false) = (step.upkeep(), complete, refused) else {
            outcome.blocked = Some(blocked);
            return Ok(None);
        };
        let event = self.event_of(step);
        tracing::warn!(
            namespace = self.subscription.namespace(),
            subscription = self.subscription.name_any(),
            what = ?upkeep,
            why = blocked.message,
            "a webhook could not be kept up; tried again"
        );
        outcome.troubles.push(Trouble { upkeep, event: event.clone(), blocked });
        Ok(Some(event))
    }

    fn event_of(&self, step: &Step) -> Option<String> {
        let of = |attempt: &Uuid| self.custody()?.webhook(*attempt)?.event.clone();
        match step {
            Step::Register { event } => event.clone(),
            Step::Complete { attempt }
            | Step::Retire { attempt }
            | Step::Rewrite { attempt }
            | Step::Replace { attempt, .. }
            | Step::Refresh { attempt }
            | Step::CreateAgain { attempt }
            | Step::Check { attempt } => of(attempt),
            _ => None,
        }
    }

    /// How long the status stays true if nothing is done: a webhook that is not renewed is news.
    fn next_news(&self) -> Duration {
        let now = now();
        let records = self.custody().into_iter().flat_map(|custody| &custody.webhooks);
        let times = records.flat_map(|record| [alarming(record), record.expires_at]).flatten();
        let wait = times.filter(|at| *at > now).min().map(|at| Duration::from_millis((at - now).unsigned_abs()));
        wait.unwrap_or(Duration::MAX)
    }

    /// A webhook whose life is over receives nothing.
    fn judged(&self, mut outcome: Outcome) -> Outcome {
        let now = now();
        let over = self
            .custody()
            .into_iter()
            .flat_map(|custody| &custody.webhooks)
            .find(|record| record.is_registered() && record.expires_at.is_some_and(|end| end <= now));
        if let (None, Some(record), false) = (&outcome.blocked, over, outcome.unfinished) {
            let why = outcome.troubles.iter().find(|trouble| trouble.event == record.event);
            let why = why.map_or_else(|| "it was not renewed".to_owned(), |trouble| trouble.blocked.message.clone());
            let message = format!("webhook {} has expired: {why}", record.id().unwrap_or_default());
            outcome.blocked = Some(Blocked::retrying(type_::READY, reason::WEBHOOK_EXPIRED, message));
        }
        outcome
    }

    /// Writes the status, and publishes an event where something changes for people.
    async fn tell(&self, outcome: &Outcome) -> Result<(), Failure> {
        write_status(self.context, self.subscription, self.custody(), outcome).await?;
        announce(self.context, self.subscription, outcome.blocked.as_ref()).await;
        Ok(())
    }
}

/// Writes the status, if it says something else than it does.
///
/// # Errors
/// The API server failed.
pub async fn write_status(
    context: &Context,
    subscription: &Subscription,
    custody: Option<&Custody>,
    outcome: &Outcome,
) -> Result<(), Failure> {
    let (namespace, name) = (subscription.namespace().unwrap_or_default(), subscription.name_any());
    let triggers = context.triggers.of_namespace(&namespace, |trigger| trigger.spec.subscription_ref.name == name);
    let mut next = status::status(&status::Facts {
        subscription,
        custody,
        outcome,
        callback_url: custody.map(|custody| calls::callback_url(context, custody)),
        link: custody.map(|custody| oauth::link(context, custody)).filter(|link| !link.is_empty()),
        workflow_count: status::workflow_count(&triggers),
        now: Time(Timestamp::now()),
    });
    let old = subscription.status.as_ref();
    // Somebody else writes that field.
    next.last_request_time = old.and_then(|status| status.last_request_time.clone());
    if old == Some(&next) {
        return Ok(());
    }
    next.last_request_time = None;
    let api = Api::<Subscription>::namespaced(context.client.clone(), &namespace);
    context.apply_status(super::FIELD_MANAGER, &api, subscription, &next).await
}

/// Publishes an event when Ready flips or its reason changes, and at no other time.
pub async fn announce(context: &Context, subscription: &Subscription, blocked: Option<&Blocked>) {
    let before = subscription.status.iter().flat_map(|status| &status.conditions).find(|c| c.type_ == type_::READY);
    match (blocked, before) {
        (None, Some(before)) if before.status == Is::True.as_str() => {}
        (None, _) => context.tell(subscription, reason::READY, status::ready_message(subscription)).await,
        (Some(blocked), Some(before)) if before.reason == blocked.reason => {}
        (Some(blocked), _) if blocked.reason == reason::PLUGIN_NOT_READY => {}
        (Some(blocked), _) => context.warn(subscription, blocked.reason, blocked.message.clone()).await,
    }
}
