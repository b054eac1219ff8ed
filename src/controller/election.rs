//! One controller at a time: a Lease in Bellhop's namespace, as Kubernetes' own components use one.
//!
//! kube has no leader election, and the crates that have one follow kube's releases late or write the Lease without the
//! version that they have read, so that two may win.

use crate::telemetry::Metrics;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Name of the Lease.
pub const LEASE: &str = "bellhop-controller";

/// The defaults of client-go's leader election: how long a Lease is respected that is not renewed, how long its holder
/// goes on without having renewed it, and the pause between two attempts.
const DURATION: Duration = Duration::from_secs(15);
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// How long one request may take; without a limit, an API server that hangs would keep the holder from noticing that its
/// time is over.
const REQUEST: Duration = Duration::from_secs(4);

/// A candidate.
#[derive(Clone)]
pub struct Election {
    api: Api<Lease>,
    identity: String,
    metrics: Metrics,
}

/// What a candidate remembers of another's Lease: its version, and when that was first seen by this process' own clock.
struct Observed {
    version: Option<String>,
    since: Instant,
}

impl Election {
    /// A candidate under the name `identity` for the Lease in `namespace`.
    pub fn new(client: kube::Client, namespace: &str, identity: String, metrics: Metrics) -> Self {
        Self { api: Api::namespaced(client, namespace), identity, metrics }
    }

    /// Runs `work` whenever this candidate holds the Lease, until `shutdown`, and gives the Lease back at the end.
    ///
    /// `work` gets a token that is cancelled at `shutdown`, after which it may take its time. If the Lease is lost, `work`
    /// is dropped where it stands.
    ///
    /// # Errors
    /// What `work` failed with.
    pub async fn lead<W>(
        &self,
        shutdown: CancellationToken,
        mut work: impl FnMut(CancellationToken) -> W,
    ) -> anyhow::Result<()>
    where
        W: Future<Output = anyhow::Result<()>>,
    {
        loop {
            let held = tokio::select! {
                held = self.acquire() => held,
                () = shutdown.cancelled() => return Ok(()),
            };
            tracing::info!(identity = self.identity, "this controller holds the Lease and works");
            self.metrics.leads(true);
            let term = shutdown.child_token();
            // What `work` has spawned ends with it.
            let end = term.clone().drop_guard();
            // A task of its own, so that work that keeps a thread busy does not delay it.
            let mut held = self.renewer(held);
            let result = tokio::select! {
                result = work(term) => Some(result),
                _ = held.lost.changed() => None,
            };
            drop(end);
            self.metrics.leads(false);
            match result {
                Some(result) => {
                    held.release().await;
                    return result;
                }
                None => {
                    tracing::warn!(identity = self.identity, "this controller has lost the Lease and stops working")
                }
            }
        }
    }

    /// Waits until the Lease is held, and returns it.
    async fn acquire(&self) -> Lease {
        let mut observed = None;
        // Not a watch: what is waited for is that nothing happens.
        loop {
            match tokio::time::timeout(REQUEST, self.try_acquire(&mut observed)).await {
                Ok(Ok(Some(lease))) => return lease,
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the Lease {LEASE} cannot be read or written"),
                Err(_) => tracing::warn!("the Lease {LEASE} cannot be read or written: no answer"),
            }
            tokio::time::sleep(super::jittered(RETRY)).await;
        }
    }

    async fn try_acquire(&self, observed: &mut Option<Observed>) -> Result<Option<Lease>, kube::Error> {
        let Some(lease) = self.api.get_opt(LEASE).await? else {
            let metadata = ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        if !self.may_take(&lease, observed) {
            return Ok(None);
        }
        let spec = self.spec(lease.spec.as_ref());
        // With the version that was read: of two candidates, one gets a conflict.
        won(self.api.replace(LEASE, &PostParams::default(), &Lease { spec: Some(spec), ..lease }).await)
    }

    /// Whether the Lease is free, this candidate's own from before, or has not been renewed for its duration as seen by
    /// this process' clock; other processes' clocks are not trusted.
    fn may_take(&self, lease: &Lease, observed: &mut Option<Observed>) -> bool {
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        let version = lease.metadata.resource_version.clone();
        match observed {
            Some(seen) if seen.version == version => {
                let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                seen.since.elapsed() > seconds.map_or(DURATION, Duration::from_secs)
            }
            _ => {
                *observed = Some(Observed { version, since: Instant::now() });
                false
            }
        }
    }

    /// The spec that says that this candidate holds the Lease as of now.
    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let changes = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: mine.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if mine.is_some() { changes } else { changes.saturating_add(1) }),
            ..LeaseSpec::default()
        }
    }

    fn renewer(&self, lease: Lease) -> Held {
        let (lost, lost_receiver) = tokio::sync::watch::channel(());
        let release = CancellationToken::new();
        let task = tokio::spawn(self.clone().renew(lease, lost, release.clone()));
        Held { lost: lost_receiver, release, task }
    }

    /// Renews until `release`, and then gives the Lease back; ends without that, and so drops `_lost`, when it is lost.
    async fn renew(self, mut lease: Lease, _lost: tokio::sync::watch::Sender<()>, release: CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(RETRY.min(RENEW_DEADLINE.saturating_sub(renewed.elapsed()))) => {}
                () = release.cancelled() => break,
            }
            // The answer arrives later than it was made: what counts is when the request was sent. No request goes on beyond
            // the deadline, for then another controller may begin soon.
            let sent = Instant::now();
            let limit = REQUEST.min(RENEW_DEADLINE.saturating_sub(renewed.elapsed()));
            match tokio::time::timeout(limit, self.try_renew(&lease)).await {
                Ok(Ok(Some(written))) => (lease, renewed) = (written, sent),
                Ok(Ok(None)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the Lease {LEASE} cannot be renewed"),
                Err(_) => tracing::warn!("the Lease {LEASE} cannot be renewed: no answer"),
            }
            if renewed.elapsed() >= RENEW_DEADLINE {
                return;
            }
        }
        let free = LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            lease_transitions: lease.spec.as_ref().and_then(|spec| spec.lease_transitions),
            ..LeaseSpec::default()
        };
        let free = Lease { spec: Some(free), ..lease };
        let written = tokio::time::timeout(REQUEST, self.api.replace(LEASE, &PostParams::default(), &free)).await;
        if !matches!(written, Ok(Ok(_))) {
            tracing::warn!("the Lease {LEASE} could not be given back; another controller waits until it runs out");
        }
    }

    /// Nothing if somebody else holds the Lease by now.
    async fn try_renew(&self, lease: &Lease) -> Result<Option<Lease>, kube::Error> {
        let next = Lease { spec: Some(self.spec(lease.spec.as_ref())), ..lease.clone() };
        if let Some(lease) = won(self.api.replace(LEASE, &PostParams::default(), &next).await)? {
            return Ok(Some(lease));
        }
        // Also an own write whose answer was lost changes the version.
        let Some(now) = self.api.get_opt(LEASE).await? else { return Ok(None) };
        if now.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) != Some(&self.identity) {
            return Ok(None);
        }
        let next = Lease { spec: Some(self.spec(now.spec.as_ref())), ..now };
        won(self.api.replace(LEASE, &PostParams::default(), &next).await)
    }
}

/// A Lease that is being renewed.
struct Held {
    /// Closed when the Lease is lost.
    lost: tokio::sync::watch::Receiver<()>,
    release: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Held {
    async fn release(mut self) {
        self.release.cancel();
        // A panic there is the loss of the Lease, which is over anyway.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Held {
    /// A Lease that is renewed for nobody would keep everybody from working.
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A conflict, or that the Lease exists already, means that another candidate was faster.
fn won(written: Result<Lease, kube::Error>) -> Result<Option<Lease>, kube::Error> {
    match written {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
        Err(error) => Err(error),
    }
}
