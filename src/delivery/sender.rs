//! One attempt to hand an event to a runner.

use super::request::{self, Parts, Unsendable};
use super::retry::{self, Outcome, Verdict, verdict};
use super::runner::Runners;
use crate::external::address::{AddressPolicy, Reach};
use crate::ingress::now_millis;
use crate::plugin::{Secret, redact};
use crate::routes::{Handle, Lookup, Trigger};
use crate::spool::{Attempt, DeliveryEvent, DeliveryKey, DeliveryState, Next, PendingDelivery, Spool, SpoolError};
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
/// When a delivery is taken up again whose state could not be read or written.
const AGAIN: Duration = Duration::from_secs(10);

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
    metrics: Metrics,
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
        Ok(Self { client, routes, spool, runners, addresses, metrics })
    }

    /// Makes one attempt and records it. Everything about the runner is looked up now, not when the event matched.
    pub async fn attempt(&self, delivery: PendingDelivery) -> After {
        let event = match self.load(delivery.key).await {
            Ok(Some(event)) => event,
            Ok(None) => return After::Ended,
            Err(error @ SpoolError::Damaged { .. }) => {
                error!(?delivery.key, %error, "a delivery cannot be read; it ends with its age");
                return After::Ended;
            }
            Err(error) => {
                warn!(?delivery.key, %error, "a delivery cannot be read; it is tried again");
                return later(delivery);
            }
        };
        // It may have ended by its age, or by a requeue that was handled twice.
        let DeliveryState::Pending { attempts, .. } = event.delivery.state else { return After::Ended };
        let (at, started) = (now_millis(), Instant::now());
        let (url, result) = match self.prepare(&delivery, &event, attempts + 1) {
            Ok((url, request, trigger, secrets)) => {
                let shown = without_secrets(&url);
                (shown, Ok((self.send(request, &secrets).await, trigger.spec.delivery.max_attempts)))
            }
            Err(Unsendable::Never(reason)) => (String::new(), Err(reason)),
            Err(Unsendable::NotYet { reason, max_attempts }) => {
                (String::new(), Ok((Answer { outcome: Outcome::NoAnswer, error: Some(reason) }, max_attempts)))
            }
        };
        let duration = started.elapsed();
        let (status, error, verdict) = match result {
            Ok((answer, most)) => {
                let verdict = verdict(&answer.outcome, attempts + 1, most, rand::random());
                (answer.status(), answer.error, verdict)
            }
            Err(reason) => (None, Some(reason.clone()), Verdict::Dead(reason)),
        };
        self.observe(&event, attempts + 1, &verdict, error.as_deref(), duration);
        let next = match verdict {
            Verdict::Delivered => Next::Delivered,
            Verdict::Retry(wait) => Next::Retry { due_at: now_millis().saturating_add(millis(wait)) },
            Verdict::Dead(reason) => Next::Dead { reason },
        };
        let duration_ms = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let attempt = Attempt { at, url, status, error, duration_ms, answer: None };
        match self.spool.record_attempt(delivery.key, attempt, next.clone()).await {
            Ok(()) => match next {
                Next::Retry { due_at } => After::Again(PendingDelivery { attempts: attempts + 1, due_at, ..delivery }),
                Next::Delivered | Next::Dead { .. } => After::Ended,
            },
            Err(SpoolError::Unknown { .. }) => After::Ended,
            Err(error) => {
                warn!(?delivery.key, %error, "an attempt could not be recorded; the delivery is tried again");
                later(delivery)
            }
        }
    }

    async fn load(&self, key: DeliveryKey) -> Result<Option<DeliveryEvent>, SpoolError> {
        let spool = self.spool.clone();
        tokio::task::spawn_blocking(move || spool.event(&key)).await.unwrap_or(Err(SpoolError::Stopped))
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
        let target = self.routes.target(delivery.key.trigger).ok_or("the trigger was deleted")?;
        let plugin = match self.routes.by_uid(delivery.subscription) {
            Lookup::Served(route) => route.plugin_name().clone(),
            Lookup::Waits { plugin, .. } => plugin,
            Lookup::Gone => return Err("the Subscription was deleted".into()),
        };
        let outgoing = target.outgoing.as_ref().as_ref().map_err(|problem| Unsendable::Never(problem.clone()))?;
        let (trigger, secrets) = (&target.trigger, target.secrets.as_deref());
        let parts = Parts { trigger, outgoing, secrets, plugin: &plugin, event, attempt, now: now_millis() };
        let request::Request { method, url, headers, body, secrets } = request::prepare(&parts, &self.runners)?;
        self.addresses.check_literal(&url, Reach::Cluster)?;
        let timeout = Duration::from(trigger.spec.delivery.timeout).clamp(TIMEOUT.0, TIMEOUT.1);
        let request = self.client.request(method, url.clone()).headers(headers).timeout(timeout).body(body);
        Ok((url, request, target.trigger, secrets))
    }

    async fn send(&self, request: reqwest::RequestBuilder, secrets: &[Secret]) -> Answer {
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Answer { outcome: Outcome::NoAnswer, error: Some(describe(error)) },
        };
        let status = response.status().as_u16();
        let asked = response.headers().get(reqwest::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = asked.and_then(|value| retry::retry_after(value, SystemTime::now()));
        // Also read after success: a connection can only be used again when its answer has been read.
        let mut text = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            text.extend_from_slice(&chunk[..chunk.len().min(ANSWER - text.len())]);
            if text.len() == ANSWER {
                break;
            }
        }
        let error = (!(200..300).contains(&status)).then(|| {
            let text = redact(&String::from_utf8_lossy(&text), &secrets.iter().collect::<Vec<_>>());
            let kept: String = text.trim().chars().take(KEPT).map(|c| if c.is_control() { ' ' } else { c }).collect();
            if kept.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {kept}") }
        });
        Answer { outcome: Outcome::Answered { status, retry_after }, error }
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
                info!(%id, %request, namespace, trigger, attempt, error, reason, "a delivery became a dead letter");
            }
        }
    }
}

struct Answer {
    outcome: Outcome,
    error: Option<String>,
}

impl Answer {
    fn status(&self) -> Option<u16> {
        match self.outcome {
            Outcome::Answered { status, .. } => Some(status),
            Outcome::NoAnswer => None,
        }
    }
}

fn later(delivery: PendingDelivery) -> After {
    After::Again(PendingDelivery { due_at: now_millis().saturating_add(millis(AGAIN)), ..delivery })
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
