//! One attempt to hand an event to a runner.

use super::circuit::Health;
use super::matching::PAUSED;
use super::reply::{self, Reply};
use super::request::{self, Parts, Unsendable};
use super::retry::{self, Outcome, Verdict, verdict};
use super::runner::Runners;
use crate::api::Tally;
use crate::external::address::{AddressPolicy, Reach};
use crate::ingress::{Controller, NoAnswer, RunnerAnswer, Waiting, now_millis};
use crate::plugin::{Secret, redact};
use crate::routes::{Handle, Lookup, Target, Trigger};
use crate::spool::{
    ANSWER_KEPT, Attempt, DeliveryEvent, DeliveryKey, DeliveryState, Next, PendingDelivery, Spool, SpoolError,
};
use crate::telemetry::Metrics;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tracing::{debug, error, info, warn};
use url::Url;

/// Bytes of a runner's answer that are read.
const ANSWER: usize = 64 * 1024;
/// Characters of it that are kept.
const KEPT: usize = 300;
/// The times that a trigger can give its runner.
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The status by which a runner says that it wants no more events of a trigger.
const GONE: u16 = 410;
/// When a delivery is taken up again whose state could not be read or written.
const AGAIN: Duration = Duration::from_secs(10);
/// When it is looked again whether the secrets of a runner are there.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What happens to a delivery after an attempt.
#[derive(Debug, PartialEq)]
pub enum After {
    /// Nothing: it was delivered or given up.
    Ended,
    /// It is due again.
    Again(PendingDelivery),
}

/// Carries out attempts.
pub struct Sender {
    client: reqwest::Client,
    routes: Handle,
    spool: Spool,
    runners: Runners,
    addresses: AddressPolicy,
    pub(super) controller: Controller,
    metrics: Metrics,
    waiting: Waiting,
}

impl Sender {
    /// A sender with connections of its own.
    ///
    /// # Errors
    /// If the HTTP client cannot be made, most likely because of the TLS configuration.
    pub fn new(
        routes: Handle,
        spool: Spool,
        runners: Runners,
        addresses: AddressPolicy,
        metrics: Metrics,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(addresses.resolver(Reach::Cluster))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(16)
            .user_agent(concat!("bellhop/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let (controller, waiting) = (Controller::Absent, Waiting::default());
        Ok(Self { client, routes, spool, runners, addresses, controller, metrics, waiting })
    }

    /// The same, which has objects of the cluster made by this controller.
    pub fn with_controller(self, controller: Controller) -> Self {
        Self { controller, ..self }
    }

    /// The same, which hands answers on to these senders.
    pub fn with_waiting(self, waiting: Waiting) -> Self {
        Self { waiting, ..self }
    }

    /// Makes one attempt and records it. Everything about the runner is looked up now, not when the event matched.
    ///
    /// While the runner's secrets are not there, it is no attempt: nobody was asked, so none is used up. Then the delivery
    /// ends with its age.
    pub async fn attempt(&self, delivery: PendingDelivery) -> (After, Health) {
        // Asked first, because many deliveries may wait for long, and each would be read from disk again and again.
        if self.lacks_secrets(&delivery) {
            return (self.wait(delivery), Health::Unknown);
        }
        let event = match self.load(delivery.key).await {
            Ok(Some(event)) => event,
            Ok(None) => return (After::Ended, Health::Unknown),
            Err(error @ SpoolError::Damaged { .. }) => {
                error!(?delivery.key, %error, "a delivery cannot be read; it ends with its age");
                return (After::Ended, Health::Unknown);
            }
            Err(error) => {
                warn!(?delivery.key, %error, "a delivery cannot be read; it is tried again");
                return (later(delivery), Health::Unknown);
            }
        };
        // It may have ended by its age, or by a requeue that was handled twice.
        let DeliveryState::Pending { attempts, .. } = event.delivery.state else {
            return (After::Ended, Health::Unknown);
        };
        let (at, started) = (now_millis(), Instant::now());
        let trigger = self.routes.trigger(delivery.key.trigger);
        let prepared = match &trigger {
            Some(trigger) if trigger.gone => Err(Unsendable::Never(PAUSED.to_owned())),
            Some(trigger) if trigger.spec.runner.resource.is_some() => self.make(&delivery, &event, attempts + 1).await,
            _ => match self.prepare(&delivery, &event, attempts + 1) {
                Ok((url, request, trigger, secrets)) => {
                    let answer = self.send(request, &secrets).await;
                    Ok((without_secrets(&url), answer, trigger.spec.delivery.max_attempts))
                }
                Err(unsendable) => Err(unsendable),
            },
        };
        let (url, result) = match prepared {
            Ok((shown, answer, most)) => (shown, Ok((answer, most))),
            Err(Unsendable::Never(reason)) => (String::new(), Err(reason)),
            Err(Unsendable::NotMade { reason, max_attempts }) => {
                (String::new(), Ok((Answer::none(reason), max_attempts)))
            }
            // They were taken back just now.
            Err(Unsendable::NotYet) => return (self.wait(delivery), Health::Unknown),
        };
        let duration = started.elapsed();
        // Before it is recorded: whoever waits has little time, and a crash in between repeats the attempt as ever.
        if attempts == 0 && self.waiting.any() {
            self.hand_on(&event, result.as_ref().ok().and_then(|(answer, _)| answer.reply.as_ref()));
        }
        let (status, error, answer, health, verdict) = match result {
            Ok((answer, most)) => {
                let verdict = verdict(&answer.outcome, attempts + 1, most, rand::random());
                // Nothing was sent, so nothing is known of the runner.
                let health = if url.is_empty() { Health::Unknown } else { answer.outcome.health() };
                (answer.status(), answer.error, answer.text, health, verdict)
            }
            Err(reason) => (None, Some(reason.clone()), None, Health::Unknown, Verdict::Dead(reason)),
        };
        if let (Some(GONE), Some(trigger)) = (status, trigger.filter(|trigger| trigger.spec.runner.resource.is_none()))
        {
            self.pause(trigger).await;
        }
        self.observe(&event, attempts + 1, &verdict, error.as_deref(), duration);
        let next = match verdict {
            Verdict::Delivered => Next::Delivered,
            Verdict::Retry(wait) => Next::Retry { due_at: now_millis().saturating_add(millis(wait)) },
            Verdict::Dead(reason) => Next::Dead { reason },
        };
        let duration_ms = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let attempt = Attempt { at, url, status, error, duration_ms, answer };
        let after = match self.spool.record_attempt(delivery.key, attempt, next.clone()).await {
            Ok(()) => match next {
                Next::Retry { due_at } => After::Again(PendingDelivery { attempts: attempts + 1, due_at, ..delivery }),
                Next::Delivered | Next::Dead { .. } => After::Ended,
            },
            Err(SpoolError::Unknown { .. }) => After::Ended,
            Err(error) => {
                warn!(?delivery.key, %error, "an attempt could not be recorded; the delivery is tried again");
                later(delivery)
            }
        };
        (after, health)
    }

    /// Whether everything is there to send the delivery but the secrets of its runner.
    fn lacks_secrets(&self, delivery: &PendingDelivery) -> bool {
        let Some(target) = self.routes.target(delivery.key.trigger) else { return false };
        let trigger = &target.trigger;
        let is_sendable = !trigger.gone
            && target.outgoing.is_ok()
            && self.runners.url(&trigger.namespace, &trigger.spec.runner).is_ok()
            && !matches!(self.routes.by_uid(delivery.subscription), Lookup::Gone);
        is_sendable && request::lacks_secrets(trigger, target.secrets.as_deref())
    }

    /// Lets a delivery wait for the secrets of its runner, unless it has ended meanwhile.
    fn wait(&self, delivery: PendingDelivery) -> After {
        if !self.spool.is_pending(&delivery.key) {
            return After::Ended;
        }
        debug!(?delivery.key, "the runner's credentials or signing secret are not there; see the trigger's conditions");
        again_in(LOOK_AGAIN, delivery)
    }

    /// Tells the sender, if it waits, what came of the first attempt.
    fn hand_on(&self, event: &DeliveryEvent, reply: Option<&Reply>) {
        let trigger = event.trigger.trigger.clone();
        let told = match reply {
            Some(Ok((format, body))) => Ok(RunnerAnswer { trigger, format: *format, body: body.clone() }),
            Some(Err(why)) => Err(NoAnswer::Unusable(trigger, why)),
            None => Err(NoAnswer::Failed(trigger)),
        };
        self.waiting.ended(&event.delivery.key, told);
    }

    /// Lets a trigger rest whose runner wants no more: what it has still to deliver becomes dead letters, when it is due.
    async fn pause(&self, trigger: Arc<Trigger>) {
        let routes = self.routes.clone();
        // In a thread of its own, because the trigger may be compiled anew.
        let pause = move || routes.pause(trigger.uid, &trigger.state).then_some(trigger);
        if let Ok(Some(trigger)) = tokio::task::spawn_blocking(pause).await {
            let (namespace, trigger) = (&*trigger.namespace, trigger.name.as_str());
            warn!(namespace, trigger, "the runner answered 410 Gone: the trigger is paused until it is changed");
        }
    }

    async fn load(&self, key: DeliveryKey) -> Result<Option<DeliveryEvent>, SpoolError> {
        let spool = self.spool.clone();
        tokio::task::spawn_blocking(move || spool.event(&key)).await.unwrap_or(Err(SpoolError::Stopped))
    }

    /// The trigger of a delivery as it is now, and the name of the plugin.
    ///
    /// # Errors
    /// One of them is gone.
    pub(super) fn known(&self, delivery: &PendingDelivery) -> Result<(Target, Arc<str>), Unsendable> {
        let target = self.routes.target(delivery.key.trigger).ok_or("the trigger was deleted")?;
        match self.routes.by_uid(delivery.subscription) {
            Lookup::Served(route) => Ok((target, route.plugin_name().clone())),
            Lookup::Waits { plugin, .. } => Ok((target, plugin)),
            Lookup::Gone => Err("the Subscription was deleted".into()),
        }
    }

    /// The request of an attempt, of what is known now.
    ///
    /// # Errors
    /// Why there is none.
    fn prepare(
        &self,
        delivery: &PendingDelivery,
        event: &DeliveryEvent,
        attempt: u32,
    ) -> Result<(Url, reqwest::RequestBuilder, Arc<Trigger>, Vec<Secret>), Unsendable> {
        let (target, plugin) = self.known(delivery)?;
        let outgoing = target.outgoing.as_ref().as_ref().map_err(|problem| Unsendable::Never(problem.clone()))?;
        let (trigger, secrets) = (&target.trigger, target.secrets.as_deref());
        let parts = Parts { trigger, outgoing, secrets, plugin: &plugin, event, attempt, now: now_millis() };
        let request::Request { method, url, headers, body, secrets } = request::prepare(&parts, &self.runners)?;
        self.addresses.check_literal(&url, Reach::Cluster)?;
        let request = self.client.request(method, url.clone()).headers(headers).timeout(in_time(trigger)).body(body);
        Ok((url, request, target.trigger, secrets))
    }

    async fn send(&self, request: reqwest::RequestBuilder, secrets: &[Secret]) -> Answer {
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Answer::none(describe(error)),
        };
        let status = response.status().as_u16();
        let asked = response.headers().get(reqwest::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = asked.and_then(|value| retry::retry_after(value, SystemTime::now()));
        let content_type = response.headers().get(reqwest::header::CONTENT_TYPE).cloned();
        // Also read after success: a connection can only be used again when its answer has been read.
        let mut text = Vec::new();
        let whole = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if chunk.len() > ANSWER - text.len() => {
                    text.extend_from_slice(&chunk[..ANSWER - text.len()]);
                    break false;
                }
                Ok(Some(chunk)) => text.extend_from_slice(&chunk),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        let content_type = content_type.as_ref().and_then(|value| value.to_str().ok());
        let format = reply::Answered { content_type, body: &text, whole }.format();
        // A runner may say back what it was given.
        let text = redact(&String::from_utf8_lossy(&text), &secrets.iter().collect::<Vec<_>>());
        let error = (!(200..300).contains(&status)).then(|| {
            let kept: String = text.trim().chars().take(KEPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
            if kept.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {kept}") }
        });
        let kept = kept(text.as_bytes());
        let reply = error.is_none().then(|| format.map(|format| (format, text.into())));
        Answer { outcome: Outcome::Answered { status, retry_after }, error, text: kept, reply }
    }

    fn observe(&self, event: &DeliveryEvent, attempt: u32, verdict: &Verdict, error: Option<&str>, duration: Duration) {
        let (id, request) = (event.event.id, event.request.id);
        let (namespace, trigger) = (event.request.namespace.as_str(), event.trigger.trigger.as_str());
        let error = error.unwrap_or_default();
        match verdict {
            Verdict::Delivered => {
                let delay = Duration::from_millis(now_millis().saturating_sub(event.request.received_at));
                self.metrics.delivered(duration, delay);
                debug!(%id, %request, namespace, trigger, attempt, "delivered");
            }
            Verdict::Retry(wait) => {
                self.metrics.delivery_retried(duration);
                debug!(%id, %request, namespace, trigger, attempt, error, ?wait, "an attempt failed; it is repeated");
            }
            Verdict::Dead(reason) => {
                self.metrics.delivery_dead();
                self.routes.tallies().add([(event.trigger.uid, Tally { failed: 1, ..Tally::default() })]);
                info!(%id, %request, namespace, trigger, attempt, error, reason, "a delivery became a dead letter");
            }
        }
    }
}

/// What a runner has answered, or why it has not.
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    pub(super) error: Option<String>,
    /// The beginning of its body, for the log.
    pub(super) text: Option<String>,
    /// What of it can be handed on to a sender; only of one with a status from 200 to 299.
    pub(super) reply: Option<Reply>,
}

impl Answer {
    /// None, for this reason.
    pub(super) fn none(error: String) -> Self {
        Self { outcome: Outcome::NoAnswer, error: Some(error), text: None, reply: None }
    }

    fn status(&self) -> Option<u16> {
        match self.outcome {
            Outcome::Answered { status, .. } => Some(status),
            Outcome::NoAnswer => None,
        }
    }
}

/// What is kept of an answer's body: text, without what a terminal would take for orders.
fn kept(body: &[u8]) -> Option<String> {
    let mut text = String::new();
    for c in String::from_utf8_lossy(&body[..body.len().min(ANSWER_KEPT)]).trim().chars() {
        let c = if c.is_control() && !matches!(c, '\n' | '\t') { ' ' } else { c };
        if text.len() + c.len_utf8() > ANSWER_KEPT {
            break;
        }
        text.push(c);
    }
    (!text.is_empty()).then_some(text)
}

/// How long a trigger's runner may take to answer.
pub(super) fn in_time(trigger: &Trigger) -> Duration {
    Duration::from(trigger.spec.delivery.timeout).clamp(TIMEOUT.0, TIMEOUT.1)
}

fn later(delivery: PendingDelivery) -> After {
    again_in(AGAIN, delivery)
}

fn again_in(wait: Duration, delivery: PendingDelivery) -> After {
    After::Again(PendingDelivery { due_at: now_millis().saturating_add(millis(wait)), ..delivery })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The URL for the log; a query may carry a key.
fn without_secrets(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.into()
}

/// What went wrong, with the causes, which the error itself leaves out.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    if error.is_timeout() {
        return if error.is_connect() { "no connection in time".to_owned() } else { "no answer in time".to_owned() };
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.chars().take(KEPT).collect()
}
