//! What the controller needs for many Subscriptions on a real control plane: the time until all are Ready, the time of a
//! start that finds them, and memory; for 1,000 and, as a multiple of that, for 10,000.

use super::report::{Report, Rounds};
use super::{github_plugin, resident_mib};
use anyhow::{Result, ensure};
use bellhop::api::Subscription;
use bellhop_harness::bellhop::Bellhop;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Subscriptions in all: what it is compared with, and what is measured.
const FEW: usize = 1_000;
const MANY: usize = 10_000;
/// Subscriptions in one namespace.
const NEIGHBOURS: usize = 100;
/// Requests to the API server at once while the objects are made.
const CREATORS: usize = 16;
/// Starts that are measured.
const STARTS: usize = 3;
/// The longest time for anything.
const PATIENCE: Duration = Duration::from_secs(1800);
/// How long nothing may have been reconciled before memory is looked at: then the process rests.
const REST: Duration = Duration::from_secs(10);

/// What a number of Subscriptions costs.
#[derive(Default)]
struct Cost {
    ready: Rounds,
    start: Rounds,
    memory: Rounds,
}

/// Measures both numbers, each on a control plane of its own.
///
/// # Errors
/// The control plane or Bellhop does not do what it is there for.
pub async fn measure(folder: &Path, report: &mut Report) -> Result<()> {
    let few = crowd(folder, "crowd-few", FEW).await?;
    let many = crowd(folder, "crowd", MANY).await?;
    let times = MANY as f64 / FEW as f64;
    report.fact("crowd_few_subscriptions", FEW);
    report.fact("crowd_subscriptions", MANY);
    report.add("crowd_few_ready_s", "1,000 Subscriptions: until all are Ready, s", 1, &few.ready);
    report.add("crowd_ready_s", "10,000 Subscriptions: until all are Ready, s", 1, &many.ready);
    let ratio = many.ready.over(&few.ready).map(|ratio| ratio / times);
    report.add("crowd_ready_ratio", "time of each until it is Ready, 10,000 ÷ 1,000", 2, &ratio);
    report.add("crowd_few_start_s", "1,000 Subscriptions: start until each was looked at, s", 1, &few.start);
    report.add("crowd_start_s", "10,000 Subscriptions: start until each was looked at, s", 1, &many.start);
    let ratio = many.start.over(&few.start).map(|ratio| ratio / times);
    report.add("crowd_start_ratio", "time of each at a start, 10,000 ÷ 1,000", 2, &ratio);
    report.add("crowd_few_rss_mib", "1,000 Subscriptions: bellhop run at rest, MiB", 1, &few.memory);
    report.add("crowd_rss_mib", "10,000 Subscriptions: bellhop run at rest, MiB", 1, &many.memory);
    let each = many.memory.minus(&few.memory).map(|mib| mib * 1024.0 / (MANY - FEW) as f64);
    report.add("crowd_rss_kib_each", "memory of each further Subscription, KiB", 1, &each);
    Ok(())
}

/// Makes Subscriptions whose webhooks are made by hand, so that no external system takes part.
async fn crowd(folder: &Path, name: &str, size: usize) -> Result<Cost> {
    println!("starting a control plane for {size} Subscriptions");
    let (control_plane, options) = github_plugin(folder, name).await?;
    let options = options.args(["--max-subscriptions".to_owned(), NEIGHBOURS.to_string()]);
    let began = Instant::now();
    create(&control_plane.client().await?, size).await?;
    println!("they were created in {:.0} s", began.elapsed().as_secs_f64());

    let mut cost = Cost::default();
    let began = Instant::now();
    let mut bellhop = Bellhop::start(options).await?;
    until(&bellhop, "bellhop_subscriptions", &["reason=\"Ready\""], size).await?;
    cost.ready.push(began.elapsed().as_secs_f64());
    println!("all are Ready after {:.1} s", cost.ready.last());
    for _ in 0..STARTS {
        rest(&bellhop).await?;
        // One that is killed leaves a Lease that the next one would wait for.
        bellhop.terminate().await?;
        let began = Instant::now();
        bellhop.restart().await?;
        // One pass for each, which finds that nothing is to be done.
        until(&bellhop, RECONCILES, OF_SUBSCRIPTIONS, size).await?;
        cost.start.push(began.elapsed().as_secs_f64());
        rest(&bellhop).await?;
        cost.memory.push(resident_mib(&bellhop)?);
        println!("a start that finds them: {:.1} s, then {:.0} MiB", cost.start.last(), cost.memory.last());
    }
    let ready = bellhop.metric("bellhop_subscriptions", &["reason=\"Ready\""]).await?;
    ensure!(ready >= size as f64, "only {ready} of {size} Subscriptions are still Ready");
    bellhop.terminate().await?;
    Ok(cost)
}

const RECONCILES: &str = "bellhop_reconciles_total";
const OF_SUBSCRIPTIONS: &[&str] = &["kind=\"Subscription\"", "outcome=\"ok\""];

async fn create(client: &Client, size: usize) -> Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let names: Vec<String> = (0..size.div_ceil(NEIGHBOURS)).map(|number| format!("team-{number}")).collect();
    for name in &names {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        namespaces.create(&PostParams::default(), &namespace).await?;
    }
    let creations = (0..size).map(|number| {
        let subscriptions = Api::<Subscription>::namespaced(client.clone(), &names[number / NEIGHBOURS]);
        async move {
            let subscription = serde_json::from_value(json!({
                "apiVersion": "bellhop.dev/v1alpha1", "kind": "Subscription",
                "metadata": {"name": format!("repository-{number}")},
                "spec": {
                    "pluginRef": {"name": "github"},
                    "parameters": {"owner": "acme", "repository": format!("repository-{number}")},
                    "authorization": {"manual": {}},
                },
            }))?;
            subscriptions.create(&PostParams::default(), &subscription).await?;
            anyhow::Ok(())
        }
    });
    futures::stream::iter(creations).buffer_unordered(CREATORS).try_collect::<()>().await
}

/// Waits until a series has at least this value.
async fn until(bellhop: &Bellhop, series: &str, labels: &[&str], value: usize) -> Result<()> {
    let (began, mut told) = (Instant::now(), Instant::now());
    loop {
        // A process that has just started has no such series yet.
        let now = bellhop.metric(series, labels).await.unwrap_or(0.0);
        if now >= value as f64 {
            return Ok(());
        }
        if told.elapsed() > Duration::from_secs(15) {
            told = Instant::now();
            println!("{series}: {now} of {value} after {:.0} s", began.elapsed().as_secs_f64());
        }
        ensure!(began.elapsed() < PATIENCE, "{series} has only come to {now} of {value} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until no pass has ended for a while.
async fn rest(bellhop: &Bellhop) -> Result<()> {
    let began = Instant::now();
    let mut before = f64::NAN;
    loop {
        let passes = bellhop.metric(RECONCILES, &[]).await?;
        if passes == before {
            return Ok(());
        }
        before = passes;
        ensure!(began.elapsed() < PATIENCE, "passes go on for {PATIENCE:?}");
        tokio::time::sleep(REST).await;
    }
}
