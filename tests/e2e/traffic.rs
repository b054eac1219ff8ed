//! Callbacks at a constant rate, as an external system sends them, and what became of each.

use anyhow::{Result, ensure};
use bellhop_harness::cluster::PATIENCE;
use bellhop_harness::eventually;
use bellhop_harness::runner::Runner;
use hmac::{Hmac, KeyInit, Mac};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};

pub const RATE: u32 = 50;
/// A sender gives up after this.
const ATTEMPTS: usize = 60;

/// Sends until it is told to stop.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    task: JoinHandle<()>,
}

/// What senders saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Names of requests that were answered with success.
    pub accepted: BTreeSet<String>,
    /// Connections that were refused or reset, each tried again.
    pub resets: usize,
    /// Answers that were no success.
    pub refused: Vec<String>,
    /// Requests that were given up.
    pub given_up: usize,
    /// The longest that one request took, its retries included.
    pub slowest: Duration,
}

impl Traffic {
    /// Every second request has a connection of its own; the others share kept ones.
    pub fn start(url: &str, secret: &str, prefix: &str) -> Result<Traffic> {
        Self::at_rate(RATE, url, secret, prefix)
    }

    /// The same, with `rate` requests a second.
    pub fn at_rate(rate: u32, url: &str, secret: &str, prefix: &str) -> Result<Traffic> {
        let build = || reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20));
        let clients = [build().build()?, build().pool_max_idle_per_host(0).build()?];
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let (url, secret, prefix) = (url.to_owned(), secret.to_owned(), prefix.to_owned());
        let (stopped, shared) = (stop.clone(), tally.clone());
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
            let mut requests = JoinSet::new();
            for number in 0.. {
                ticks.tick().await;
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let client = clients[number % clients.len()].clone();
                let name = format!("{prefix}-{number}");
                requests.spawn(send(client, url.clone(), secret.clone(), name, shared.clone()));
                while requests.try_join_next().is_some() {}
            }
            while requests.join_next().await.is_some() {}
        });
        Ok(Traffic { stop, tally, task })
    }

    pub fn accepted(&self) -> usize {
        self.tally.lock().expect("no sender panicked").accepted.len()
    }

    /// Waits until this many more were accepted, which shows that the traffic goes on.
    pub async fn goes_on(&self, more: usize, within: Duration) -> Result<()> {
        let before = self.accepted();
        eventually(within, &format!("{more} more requests are accepted"), async || {
            let now = self.accepted() - before;
            ensure!(now >= more, "{now}");
            Ok(())
        })
        .await
    }

    /// Stops, and waits for the last answers.
    pub async fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?;
        Ok(std::mem::take(&mut *self.tally.lock().expect("no sender panicked")))
    }
}

impl Tally {
    /// Every request was accepted in the end, and the runner gets every one of them, a second time with the same id only.
    pub async fn all_arrive(&self, runner: &Runner, within: Duration) -> Result<usize> {
        ensure!(self.refused.is_empty(), "{} were refused, such as {}", self.refused.len(), self.refused[0]);
        ensure!(self.given_up == 0, "{} were never accepted", self.given_up);
        let ids = eventually(within, "every accepted request arrives", async || {
            let ids = self.delivered(runner)?;
            let missing: Vec<_> = self.accepted.iter().filter(|name| !ids.contains_key(*name)).collect();
            ensure!(
                missing.is_empty(),
                "{} of {} are missing, such as {missing:.3?}",
                missing.len(),
                self.accepted.len()
            );
            Ok(ids)
        })
        .await?;
        for (name, (ids, _)) in &ids {
            ensure!(ids.len() == 1, "{name} arrived with {} ids", ids.len());
        }
        Ok(ids.values().map(|(_, times)| times - 1).sum())
    }

    /// By name, the ids under which it was delivered, and how often.
    fn delivered(&self, runner: &Runner) -> Result<BTreeMap<String, (BTreeSet<String>, usize)>> {
        let mut ids: BTreeMap<String, (BTreeSet<String>, usize)> = BTreeMap::new();
        for run in runner.requests() {
            let variables = run.json()?;
            let reference = variables["ref"].as_str().unwrap_or_default();
            let Some(name) = reference.strip_prefix("refs/heads/") else { continue };
            if self.accepted.contains(name) {
                let (known, times) = ids.entry(name.to_owned()).or_default();
                known.insert(run.header("ce-id").unwrap_or_default().to_owned());
                *times += 1;
            }
        }
        Ok(ids)
    }
}

/// Waits until every replica of the ingress starts the trigger: that it is ready is what the controller knows, and each
/// replica has a watch of its own. Requests are sent until all of sixteen have arrived, each over a connection of its own, so
/// that some go to each of two replicas; the runner forgets them then.
pub async fn fires(url: &str, secret: &str, runner: &Runner) -> Result<()> {
    let client =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).pool_max_idle_per_host(0).build()?;
    let mut round = 0;
    eventually(PATIENCE, "every replica knows the trigger", async || {
        round += 1;
        let mut tally = Tally::default();
        for number in 0..16 {
            let name = format!("throw-away-{round}-{number}");
            let answer = request(&client, url, secret, &name).send().await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            tally.accepted.insert(name);
        }
        tally.all_arrive(runner, Duration::from_secs(5)).await.map(drop)
    })
    .await?;
    runner.clear();
    Ok(())
}

/// A push to a branch of this name, as Gitea sends it.
fn request(client: &reqwest::Client, url: &str, secret: &str, name: &str) -> reqwest::RequestBuilder {
    let body = format!("{{\"ref\": \"refs/heads/{name}\", \"commits\": []}}");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of every length");
    mac.update(body.as_bytes());
    client
        .post(url)
        .header("x-gitea-event", "push")
        .header("x-gitea-delivery", name)
        .header("x-gitea-signature", hex::encode(mac.finalize().into_bytes()))
        .header("content-type", "application/json")
        .body(body)
}

async fn send(client: reqwest::Client, url: String, secret: String, name: String, tally: Arc<Mutex<Tally>>) {
    let started = tokio::time::Instant::now();
    for _ in 0..ATTEMPTS {
        let answer = request(&client, &url, &secret, &name).send().await;
        {
            let mut tally = tally.lock().expect("no sender panicked");
            match answer {
                Ok(answer) if answer.status().is_success() => {
                    tally.slowest = tally.slowest.max(started.elapsed());
                    tally.accepted.insert(name);
                    return;
                }
                Ok(answer) => tally.refused.push(format!("{name}: {}", answer.status())),
                Err(_) => tally.resets += 1,
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tally.lock().expect("no sender panicked").given_up += 1;
}
