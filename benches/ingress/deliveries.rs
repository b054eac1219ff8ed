//! Deliveries with 1, 10 and 100 triggers on one event: how long they take at 100 deliveries a second, and how many there
//! are in a second when there are always some that wait. One trigger is the baseline.

use super::arrivals::{Runner, Since};
use super::load::{self, Target};
use super::push::Request;
use super::report::{Report, Rounds, quantile};
use super::servers::Started;
use super::{FEW, ROUNDS};
use anyhow::{Context, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// Triggers on one event, and what the figures are called.
const VARIANTS: [Variant; 3] = [
    Variant {
        triggers: 1,
        p50: ("deliveries_1_p50_ms", "100 deliveries/s, 1 trigger: from answer to runner, p50, ms"),
        p99: ("deliveries_1_p99_ms", "100 deliveries/s, 1 trigger: from answer to runner, p99, ms"),
        rate: ("deliveries_1_rps", "1 trigger: deliveries/s at saturation"),
    },
    Variant {
        triggers: 10,
        p50: ("deliveries_10_p50_ms", "the same with 10 triggers, p50, ms"),
        p99: ("deliveries_10_p99_ms", "the same with 10 triggers, p99, ms"),
        rate: ("deliveries_10_rps", "10 triggers: deliveries/s at saturation"),
    },
    Variant {
        triggers: 100,
        p50: ("deliveries_100_p50_ms", "the same with 100 triggers, p50, ms"),
        p99: ("deliveries_100_p99_ms", "the same with 100 triggers, p99, ms"),
        rate: ("deliveries_100_rps", "100 triggers: deliveries/s at saturation"),
    },
];
/// Deliveries a second while their time is taken.
const RATE: usize = 100;
const ROUND: Duration = Duration::from_secs(3);
/// Deliveries that are made to wait, for the rate at saturation.
const BACKLOG: usize = 6000;
/// The most requests that are sent at the same time.
const SENDERS: u32 = 32;

struct Variant {
    triggers: usize,
    p50: (&'static str, &'static str),
    p99: (&'static str, &'static str),
    rate: (&'static str, &'static str),
}

#[derive(Default)]
struct Found {
    p50: Rounds,
    p99: Rounds,
    rate: Rounds,
}

/// Measures all variants in turn, five rounds.
pub async fn measure(folder: &Path, request: &Request, runner: &Runner, report: &mut Report) -> Result<()> {
    let mut all = VARIANTS.map(|variant| (variant, Found::default()));
    for round in 0..ROUNDS {
        for (variant, found) in &mut all {
            run(folder, request, runner, variant.triggers, found).await?;
        }
        let rates: Vec<String> = all.iter().map(|(_, found)| format!("{:.0}/s", found.rate.last())).collect();
        println!("deliveries, round {} of {ROUNDS}: {} with 1, 10 and 100 triggers", round + 1, rates.join(", "));
    }
    let [(_, one), _, _] = &all;
    for (variant, found) in &all {
        report.add(variant.p50.0, variant.p50.1, 2, &found.p50);
        report.add(variant.p99.0, variant.p99.1, 2, &found.p99);
        report.add(variant.rate.0, variant.rate.1, 0, &found.rate);
    }
    let [_, (_, ten), (_, hundred)] = &all;
    report.add("deliveries_10_ratio", "deliveries/s, 10 triggers ÷ 1", 3, &ten.rate.over(&one.rate));
    report.add("deliveries_100_ratio", "deliveries/s, 100 triggers ÷ 1", 3, &hundred.rate.over(&one.rate));
    Ok(())
}

async fn run(folder: &Path, request: &Request, runner: &Runner, triggers: usize, found: &mut Found) -> Result<()> {
    let server = Started::ingress(folder, FEW, triggers, &runner.url).await?;
    let target = Target::new(server.port, request, 0..FEW);
    // Connections are opened and code is read before it counts.
    let rate = u32::try_from(RATE / triggers).context("a rate")?;
    load::stream(&target, 1, rate, Duration::from_secs(1)).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    runner.take();

    let accepted = load::stream(&target, 1, rate, ROUND).await?;
    let mut ways = runner.ways(&accepted, triggers, Since::Answer).await?;
    found.p50.push(quantile(&mut ways, 0.5) / 1000.0);
    found.p99.push(quantile(&mut ways, 0.99) / 1000.0);

    // As many as are sent in a second at most, so that the load does not take the processors from what is measured.
    let requests = u32::try_from(BACKLOG / triggers).context("a number of requests")?;
    let began = Instant::now();
    load::stream(&target, SENDERS.min(requests), requests, Duration::from_secs(1)).await?;
    runner.wait_for(BACKLOG).await?;
    let last = runner.take().into_values().flatten().max().context("nothing arrived")?;
    found.rate.push(BACKLOG as f64 / (last - began).as_secs_f64());
    Ok(())
}
