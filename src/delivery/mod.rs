//! From accepted requests to runners that have taken their events.
//!
//! ```text
//! spool ─▶ matcher ─▶ spool (the match) ─▶ scheduler ─▶ sender ─▶ runner
//!                                             ▲           │
//!                                             └── retry ──┴─▶ spool (the attempt)
//! ```
//! Everything here runs on threads of its own with a lower priority than those that accept requests: under a flood
//! accepting wins, because what is not accepted is lost, and what is not delivered yet is not.

mod circuit;
mod cloud_event;
mod matcher;
mod matching;
mod order;
mod queue;
mod reply;
mod request;
mod resource;
mod retry;
mod runner;
mod scheduler;
mod sender;
#[cfg(test)]
mod tests;

pub use cloud_event::Attributes;
pub use matching::match_request;
pub use queue::Limits;
pub use retry::{Outcome, Verdict, retry_after, verdict};
pub use runner::{RunnerError, Runners};

use crate::external::address::AddressPolicy;
use crate::ingress::{Controller, Health, NoAnswer, Waiting, now_millis};
use crate::routes::{Handle, Trigger};
use crate::spool::{PendingDelivery, Spool};
use crate::telemetry::Metrics;
use circuit::{Health as RunnerHealth, Way};
use matcher::{Matcher, Underway};
use scheduler::{Attempts, Scheduler};
use sender::{After, Sender};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

/// Matches whose deliveries wait to be scheduled; then the matcher waits.
const HANDED_OVER: usize = 1024;
/// How often at most it is looked whether deliveries that wait lead to another runner by now.
const REDIRECT: Duration = Duration::from_millis(500);
/// How often old requests are cleared away.
const SWEEP: Duration = Duration::from_secs(60);
/// How much lower the priority of delivery is (see nice(2)); about a tenth of a processor's time under full load.
const NICE: i32 = 10;

/// What delivery works with.
#[derive(Clone)]
pub struct Context {
    /// The snapshot of routes and triggers.
    pub routes: Handle,
    /// Where requests and deliveries are kept.
    pub spool: Spool,
    /// Where runners may be.
    pub runners: Runners,
    /// Which addresses may be called.
    pub addresses: AddressPolicy,
    /// Who makes objects of the cluster, which the ingress may not.
    pub controller: Controller,
    /// Metrics of this process.
    pub metrics: Metrics,
    /// Health of this process.
    pub health: Health,
    /// Senders that wait for a runner's answer.
    pub waiting: Waiting,
}

/// Delivery that has been started.
pub struct Running(oneshot::Receiver<()>);

impl Running {
    /// Waits until delivery has stopped: at most some ten seconds after its shutdown was announced.
    pub async fn stopped(self) {
        // An error says that the thread has ended too.
        let _ = self.0.await;
    }
}

/// Starts delivery on threads of its own, until `shutdown`.
///
/// # Errors
/// If threads or the HTTP client cannot be made.
pub fn start(context: Context, shutdown: CancellationToken) -> io::Result<Running> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("delivery")
        .on_thread_start(lower_priority)
        .enable_all()
        .build()?;
    let (done, stopped) = oneshot::channel();
    std::thread::Builder::new().name("delivery-main".to_owned()).spawn(move || {
        lower_priority();
        if let Err(problem) = runtime.block_on(run(context, Limits::default(), shutdown)) {
            error!(error = &problem as &dyn std::error::Error, "delivery cannot start");
        }
        // Reads of the disk may still be under way; they are of no use any more.
        runtime.shutdown_timeout(Duration::from_secs(1));
        let _ = done.send(());
    })?;
    Ok(Running(stopped))
}

/// Matches and delivers on the current runtime until `shutdown`, then waits up to ten seconds for attempts under way.
///
/// # Errors
/// If the HTTP client cannot be made.
pub async fn run(context: Context, limits: Limits, shutdown: CancellationToken) -> Result<(), reqwest::Error> {
    let Context { routes, spool, runners, addresses, controller, metrics, health, waiting } = context;
    let sender = Sender::new(routes.clone(), spool.clone(), runners.clone(), addresses, metrics.clone())?;
    let sender = sender.with_controller(controller).with_waiting(waiting.clone());
    // Before that, every trigger would seem to be gone.
    tokio::select! {
        () = routes.synced() => {}
        () = shutdown.cancelled() => return Ok(()),
    }
    let (deliveries, taken) = mpsc::channel(HANDED_OVER);
    let underway = Arc::new(Underway::default());
    let (routes_too, spool_too) = (routes.clone(), spool.clone());
    let waits = waiting.clone();
    let changes = Changes::of(&routes);
    let underway_too = underway.clone();
    let live =
        Live { sender, routes: routes_too, spool: spool_too, runners, underway: underway_too, metrics, waits, changes };
    let mut scheduler = Scheduler::new(Arc::new(live), limits);
    spool.pending().into_iter().for_each(|delivery| scheduler.add(delivery));
    let matcher = Matcher::new(routes, spool.clone(), deliveries, underway).with_waiting(waiting);
    tokio::select! {
        () = scheduler.run(taken, shutdown) => {}
        () = matcher.run() => {}
        () = sweep(spool, health) => {}
    }
    Ok(())
}

/// The scheduler's view of the real thing.
struct Live {
    sender: Sender,
    routes: Handle,
    spool: Spool,
    runners: Runners,
    underway: Arc<Underway>,
    metrics: Metrics,
    waits: Waiting,
    changes: tokio::sync::Mutex<Changes>,
}

/// Changes of the routes that were not looked at yet.
struct Changes {
    version: watch::Receiver<u64>,
    /// When they may be looked at again.
    again: Instant,
}

impl Changes {
    /// Those from now on.
    fn of(routes: &Handle) -> tokio::sync::Mutex<Self> {
        tokio::sync::Mutex::new(Self { version: routes.changes(), again: Instant::now() })
    }
}

impl Live {
    fn way_of(&self, trigger: &Trigger) -> Way {
        if trigger.spec.runner.resource.is_some() {
            // One for each workspace: what holds up objects of one, such as an admission webhook, holds up no other.
            let runner = format!("the cluster: {}", trigger.namespace);
            return Way { runner: runner.into(), workspace: trigger.namespace.clone() };
        }
        // What has no URL is called by nobody, and ends at once.
        let url = self.runners.url(&trigger.namespace, &trigger.spec.runner);
        let runner = url.map_or_else(|_| "".into(), |url| url.origin().ascii_serialization().into());
        Way { runner, workspace: trigger.namespace.clone() }
    }
}

impl Attempts for Live {
    fn way(&self, delivery: &PendingDelivery) -> Way {
        match self.routes.trigger(delivery.key.trigger) {
            Some(trigger) => self.way_of(&trigger),
            None => Way { runner: "".into(), workspace: "".into() },
        }
    }

    fn ordered(&self, trigger: Uuid) -> bool {
        self.routes.trigger(trigger).is_some_and(|trigger| trigger.spec.delivery.ordered)
    }

    fn behind(&self, delivery: &PendingDelivery) -> bool {
        // In this order: what has left the one without having reached the channel is in the other.
        self.spool.unmatched_before(delivery.subscription, delivery.number)
            || self.underway.before(delivery.subscription, delivery.number)
    }

    fn is_awaited(&self) -> bool {
        self.waits.any()
    }

    fn rests(&self, delivery: &PendingDelivery) {
        if self.is_awaited()
            && let Some(trigger) = self.routes.trigger(delivery.key.trigger)
        {
            self.waits.ended(&delivery.key, Err(NoAnswer::Resting(trigger.name.clone())));
        }
    }

    async fn moved(&self) {
        self.underway.moved().await;
    }

    async fn rerouted(&self) {
        let mut changes = self.changes.lock().await;
        // What is seen by a clone is not forgotten if this is cancelled.
        if changes.version.clone().changed().await.is_err() {
            std::future::pending().await
        }
        tokio::time::sleep_until(changes.again).await;
        changes.version.mark_unchanged();
        changes.again = Instant::now() + REDIRECT;
    }

    async fn attempt(&self, delivery: PendingDelivery) -> (After, RunnerHealth) {
        self.sender.attempt(delivery).await
    }

    fn circuits(&self, open: &HashMap<Way, u64>) {
        self.metrics.circuits_open(open.len());
        let mut away = HashMap::new();
        if !open.is_empty() {
            self.routes.each_trigger(|trigger| {
                if let Some(since) = open.get(&self.way_of(trigger)) {
                    away.insert(trigger.uid, *since);
                }
            });
        }
        self.routes.set_away(away);
    }

    fn unused(&self, mut ways: HashSet<Way>) -> HashSet<Way> {
        self.routes.each_trigger(|trigger| {
            ways.remove(&self.way_of(trigger));
        });
        ways
    }

    async fn requeued(&self) -> PendingDelivery {
        self.spool.requeued().await
    }
}

async fn sweep(spool: Spool, health: Health) {
    let mut timer = tokio::time::interval(SWEEP);
    loop {
        timer.tick().await;
        let swept = spool.sweep(now_millis()).await;
        if let Err(error) = &swept {
            warn!(%error, "the spool cannot be swept");
        }
        health.spool_works(swept.is_ok());
    }
}

/// Lowers the priority of the calling thread, and of it alone, where the system can.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        warn!(%error, "delivery runs at the same priority as the rest");
    }
}
