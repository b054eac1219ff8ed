//! One controller at a time, whoever comes and goes.

use crate::support::PATIENCE;
use anyhow::{Context, Result, ensure};
use bellhop::controller::election::{Election, LEASE};
use bellhop::telemetry::Metrics;
use bellhop_harness::{eventually, world};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::SignedDuration;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How many work at the moment.
#[derive(Clone, Default)]
struct Working(Arc<AtomicU32>);

impl Working {
    fn now(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

struct AtWork(Working);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Candidate {
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
}

async fn candidate(namespace: &str, identity: &str, working: &Working) -> Result<Candidate> {
    let client = world::shared().await.control_plane.client().await?;
    let election = Election::new(client, namespace, identity.to_owned(), Metrics::new());
    let (shutdown, working) = (CancellationToken::new(), working.clone());
    let token = shutdown.clone();
    let task = tokio::spawn(async move {
        let work = |term: CancellationToken| {
            let working = working.clone();
            async move {
                working.0.fetch_add(1, Ordering::SeqCst);
                let _at_work = AtWork(working);
                term.cancelled().await;
                Ok(())
            }
        };
        election.lead(token, work).await
    });
    Ok(Candidate { shutdown, task })
}

async fn holder(leases: &Api<Lease>) -> Result<String> {
    let spec = leases.get(LEASE).await?.spec.unwrap_or_default();
    Ok(spec.holder_identity.unwrap_or_default())
}

async fn is_held_by(leases: &Api<Lease>, identity: &str) -> Result<()> {
    eventually(PATIENCE, &format!("{identity} holds the Lease"), async || {
        let holder = holder(leases).await?;
        ensure!(holder == identity, "{holder:?} holds it");
        Ok(())
    })
    .await
}

async fn one_works(working: &Working) -> Result<()> {
    eventually(PATIENCE, "one works", async || {
        ensure!(working.now() == 1, "{} work", working.now());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_works_and_another_follows() -> Result<()> {
    let control_plane = &world::shared().await.control_plane;
    let namespace = control_plane.create_namespace("election").await?;
    let leases = Api::<Lease>::namespaced(control_plane.client().await?, &namespace);
    let working = Working::default();

    let first = candidate(&namespace, "first", &working).await?;
    is_held_by(&leases, "first").await?;
    let second = candidate(&namespace, "second", &working).await?;
    let third = candidate(&namespace, "third", &working).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    ensure!(working.now() == 1 && holder(&leases).await? == "first", "{} work", working.now());

    // Who ends in peace gives the Lease back: nobody waits until it runs out.
    let before = Instant::now();
    first.shutdown.cancel();
    first.task.await??;
    eventually(PATIENCE, "another holds the Lease", async || {
        let holder = holder(&leases).await?;
        ensure!(holder == "second" || holder == "third", "{holder:?} holds it");
        Ok(())
    })
    .await?;
    ensure!(before.elapsed() < Duration::from_secs(14), "it took {:?}", before.elapsed());
    one_works(&working).await?;

    // Somebody else's name on the Lease is respected at once: the loser stops before the others may begin.
    let other = json!({"spec": {"holderIdentity": "somebody-else", "leaseDurationSeconds": 6}});
    leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(other)).await?;
    eventually(PATIENCE, "nobody works", async || {
        ensure!(working.now() == 0, "{} work", working.now());
        Ok(())
    })
    .await?;
    // That name is not renewed, so in the end it is one of them again.
    one_works(&working).await?;
    ensure!(holder(&leases).await? != "somebody-else");

    // A holder that is gone without a word is replaced when its time is over, and not before.
    let (dead, alive, heir) = match holder(&leases).await?.as_str() {
        "second" => (second, third, "third"),
        _ => (third, second, "second"),
    };
    // Aborted between two renewals, of which the latest may be written after this look.
    let last = leases.get(LEASE).await?.spec.and_then(|spec| spec.renew_time).context("it was renewed")?.0;
    dead.task.abort();
    is_held_by(&leases, heir).await?;
    let taken = leases.get(LEASE).await?.spec.and_then(|spec| spec.acquire_time).context("it was acquired")?.0;
    ensure!(taken.duration_since(last) >= SignedDuration::from_secs(14), "after {}", taken.duration_since(last));
    one_works(&working).await?;
    alive.shutdown.cancel();
    alive.task.await??;
    Ok(())
}
