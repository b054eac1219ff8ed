//! Runners with every fault, beside one that is well: it is as quick as without them, and what the others have missed
//! arrives when they are back.

use crate::bad_input::sign;
use crate::support::{Own, PATIENCE, Workspace, callback_secret, callback_url};
use anyhow::{Context, Result, ensure};
use axum::body::Body;
use bellhop::api::{Condition, WorkflowTrigger};
use bellhop_harness::runner::{Recorded, Reply, Runner};
use bellhop_harness::{eventually, world};
use bytes::Bytes;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Events of each of the two runs.
const EVENTS: usize = 60;
/// Between two events.
const PAUSE: Duration = Duration::from_millis(50);

/// Sends events as Gitea does.
struct Sender {
    http: reqwest::Client,
    url: String,
    secret: String,
}

impl Sender {
    /// Sends events with these numbers, and says when each was sent.
    async fn send(&self, numbers: std::ops::Range<usize>) -> Result<HashMap<usize, SystemTime>> {
        let mut sent = HashMap::new();
        for number in numbers {
            let body = json!({"ref": "refs/heads/main", "after": number.to_string(), "total_commits": 0}).to_string();
            let request = self.http.post(&self.url).header("x-gitea-event", "push");
            let request = request.header("x-gitea-signature", sign(&self.secret, body.as_bytes()));
            sent.insert(number, SystemTime::now());
            let answer = request.header("content-type", "application/json").body(body).send().await?;
            ensure!(answer.status() == 200, "{}", answer.status());
            tokio::time::sleep(PAUSE).await;
        }
        Ok(sent)
    }
}

fn number(recorded: &Recorded) -> usize {
    let variables = recorded.json().unwrap_or_default();
    variables["after"].as_str().and_then(|after| after.parse().ok()).unwrap_or(usize::MAX)
}

/// The median and the 99th percentile of the time from a request to its run.
async fn latencies(runner: &Runner, sent: &HashMap<usize, SystemTime>) -> Result<(Duration, Duration)> {
    let all = |runs: &[Arc<Recorded>]| {
        let seen: BTreeSet<usize> = runs.iter().map(|run| number(run)).collect();
        sent.keys().all(|number| seen.contains(number))
    };
    let runs = runner.wait_until("every event", PATIENCE, all).await?;
    let times = runs.iter().filter_map(|run| run.time.duration_since(*sent.get(&number(run))?).ok());
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

/// A runner that has a fault until it is repaired.
struct Faulty {
    name: &'static str,
    runner: Runner,
    repaired: Arc<AtomicBool>,
}

impl Faulty {
    fn start(name: &'static str, fault: impl Fn(&Recorded) -> Reply + Send + Sync + 'static) -> Result<Self> {
        let (runner, repaired) = (Runner::start()?, Arc::new(AtomicBool::new(false)));
        let well = repaired.clone();
        runner.respond_with(move |call| if well.load(Ordering::Relaxed) { Reply::ok() } else { fault(call) });
        Ok(Self { name, runner, repaired })
    }

    /// Lets it work; what it has recorded before is forgotten.
    fn repair(&self) -> Result<()> {
        self.runner.clear();
        self.repaired.store(true, Ordering::Relaxed);
        self.runner.start_again()
    }

    async fn has_had(&self, numbers: std::ops::Range<usize>) -> Result<Vec<Arc<Recorded>>> {
        let expected: BTreeSet<usize> = numbers.collect();
        let all = |runs: &[Arc<Recorded>]| {
            let seen: BTreeSet<usize> = runs.iter().map(|run| number(run)).collect();
            expected.is_subset(&seen)
        };
        let runs = self.runner.wait_until("every event", Duration::from_secs(240), all).await;
        runs.with_context(|| format!("the runner {:?}", self.name))
    }
}

/// A body that never ends and comes a byte at a time.
fn drip() -> Body {
    Body::from_stream(futures::stream::unfold((), async |()| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b".")), ()))
    }))
}

#[tokio::test]
async fn runners_with_every_fault_hold_up_nobody_and_get_everything_when_they_are_back() -> Result<()> {
    let own =
        Own::start("faulty", &["--allow-runner-origin", "https://127.0.0.1:*", "--activity-interval", "1s"]).await?;
    let workspace = Workspace::new(&own.control_plane, &world::shared().await.gitea, "faulty").await?;
    let subscription = workspace.connect("acme-web", "well").await?;
    let secret = callback_secret(&workspace.client, &subscription).await?;
    let sender = Sender { http: reqwest::Client::new(), url: callback_url(&subscription)?, secret };

    sender.send(0..10).await?;
    let sent = sender.send(10..10 + EVENTS).await?;
    let (median, slow) = latencies(&workspace.runner, &sent).await?;

    let elsewhere = Runner::start()?;
    let target = elsewhere.url();
    let faulty = [
        Faulty::start("refuses", |_| Reply::dropped())?,
        Faulty::start("hangs", |_| Reply::ok().after(Duration::from_secs(3600)))?,
        Faulty::start("drips", |_| Reply::ok().stream(drip()))?,
        Faulty::start("fails", |_| Reply::status(500).body("out of order"))?,
        Faulty::start("fails-in-order", |_| Reply::status(500))?,
        Faulty::start("speaks-no-tls", |_| Reply::ok())?,
        Faulty::start("is-busy", |_| Reply::status(429).header("retry-after", "3"))?,
        Faulty::start("is-large", |_| Reply::ok().blank(100_000_000))?,
        Faulty::start("redirects", move |_| Reply::status(302).header("location", &target))?,
    ];
    for one in &faulty {
        let mut trigger = workspace.trigger(one.name, "acme-web");
        let url = one.runner.url();
        let url = if one.name == "speaks-no-tls" { url.replace("http:", "https:") } else { url };
        trigger["spec"]["runner"]["url"] = json!(url);
        let timeout = if ["hangs", "drips"].contains(&one.name) { "2s" } else { "30s" };
        trigger["spec"]["delivery"] = json!({"timeout": timeout, "ordered": one.name == "fails-in-order"});
        workspace.create_trigger(trigger).await?;
        workspace.trigger_is(one.name, "True", "Bound").await?;
    }
    let [refuses, hangs, drips, fails, in_order, no_tls, is_busy, is_large, redirects] = &faulty;
    // Triggers are told of in the order in which they were made.
    workspace.fires(&subscription, redirects.name, &redirects.runner).await?;
    refuses.runner.stop();
    let first = 10 + EVENTS;
    let all = first..first + EVENTS;
    // The fault may be a little older than the events, so that circuits are open for some of them.
    let sent = sender.send(all.clone()).await?;
    let (disturbed_median, disturbed_slow) = latencies(&workspace.runner, &sent).await?;
    println!("to a runner that is well, alone: median {median:?}, 99% {slow:?}");
    println!("beside nine that are not: median {disturbed_median:?}, 99% {disturbed_slow:?}");
    let ratio = disturbed_median.as_secs_f64() / median.as_secs_f64();
    let slow_ratio = disturbed_slow.as_secs_f64() / slow.as_secs_f64();
    println!("that is {ratio:.2} times the median and {slow_ratio:.2} times the 99% of the undisturbed run");
    // A machine may be slow; a runner that is waited for holds the others up for its time-out, again and again.
    let floor = Duration::from_secs(1);
    ensure!(disturbed_median <= 2 * median + floor, "{disturbed_median:?} instead of {median:?}");
    ensure!(disturbed_slow <= 2 * slow + 10 * floor, "{disturbed_slow:?} instead of {slow:?}");

    eventually(PATIENCE, "circuits are open", async || {
        let open = own.bellhop.metric("bellhop_runner_circuits_open", &[]).await?;
        ensure!(open >= 4.0, "{open}");
        Ok(())
    })
    .await?;
    // The triggers say so, and those of runners that answer, whatever, do not.
    let says_away = async |name: &str| -> Result<bool> {
        let status = workspace.api::<WorkflowTrigger>().get(name).await?.status.unwrap_or_default();
        let is_away = |condition: &&Condition| condition.type_ == "RunnerAway" && condition.status == "True";
        let condition = status.conditions.iter().find(is_away);
        ensure!(condition.is_none_or(|condition| condition.reason == "RunnerNotAnswering"), "{condition:?}");
        Ok(condition.is_some())
    };
    eventually(PATIENCE, "the status says who does not answer", async || {
        for name in ["refuses", "hangs", "fails", "speaks-no-tls"] {
            ensure!(says_away(name).await?, "{name}");
        }
        Ok(())
    })
    .await?;
    for name in ["well", "is-busy", "is-large", "redirects"] {
        ensure!(!says_away(name).await?, "{name}");
    }
    // Each of these answers was a success, however large or slow the rest of it was.
    drips.has_had(all.clone()).await?;
    is_large.has_had(all.clone()).await?;
    let redirected = redirects.has_had(all.clone()).await?;
    ensure!(redirected.len() == EVENTS && elsewhere.count() == 0, "a redirect is an end, and not followed");
    ensure!(no_tls.runner.count() == 0);

    let back = Instant::now();
    let to_http = json!({"spec": {"runner": {"url": no_tls.runner.url()}}});
    let triggers = workspace.api::<WorkflowTrigger>();
    triggers.patch(no_tls.name, &PatchParams::default(), &Patch::Merge(to_http)).await?;
    let repaired = [refuses, hangs, fails, in_order, no_tls, is_busy];
    for one in repaired {
        one.repair()?;
    }
    for one in repaired {
        let runs = one.has_had(all.clone()).await?;
        println!("{:?} has everything {:?} after its repair", one.name, back.elapsed());
        if one.name == in_order.name {
            // Without what was sent before them.
            let numbers = runs.iter().map(|run| number(run)).filter(|number| all.contains(number));
            let numbers: Vec<usize> = numbers.collect();
            ensure!(numbers == all.clone().collect::<Vec<_>>(), "{numbers:?}");
        }
    }
    eventually(PATIENCE, "the status says who is back", async || {
        for name in ["refuses", "hangs", "fails", "speaks-no-tls"] {
            ensure!(!says_away(name).await?, "{name}");
        }
        Ok(())
    })
    .await
}
