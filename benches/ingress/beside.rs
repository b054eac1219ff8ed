//! The way to a runner that is well, while something else is not: how much longer it takes than without that.

use super::arrivals::{Runner, Since};
use super::load::{self, Target};
use super::report::{Report, Rounds, quantile};
use super::{FEW, STREAMS};
use crate::push::Request;
use crate::servers::Started;
use anyhow::Result;
use std::time::Duration;

/// Requests a second, each with one delivery to the runner that is well.
const RATE: u32 = 100;
/// How long they are sent before their time is taken.
pub const WARM_UP: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(4);

/// How long the way takes, in milliseconds.
#[derive(Default)]
pub struct Found {
    pub p50: Rounds,
    pub p99: Rounds,
}

impl Found {
    /// Takes the time of one round, at a server that was just started.
    pub async fn run(&mut self, server: &Started, request: &Request, runner: &Runner, since: Since) -> Result<()> {
        let target = Target::new(server.port, request, 0..FEW);
        load::stream(&target, STREAMS, RATE, WARM_UP).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        runner.take();
        let accepted = load::stream(&target, STREAMS, RATE, ROUND).await?;
        let mut ways = runner.ways(&accepted, 1, since).await?;
        self.p50.push(quantile(&mut ways, 0.5) / 1000.0);
        self.p99.push(quantile(&mut ways, 0.99) / 1000.0);
        Ok(())
    }
}

/// Adds both to the report, and how many times as long it takes: each with its key and what it is for people.
pub fn report(report: &mut Report, alone: &Found, beside: &Found, names: &[(&str, &'static str); 6]) {
    let ratios = (beside.p50.over(&alone.p50), beside.p99.over(&alone.p99));
    let rounds = [&alone.p50, &alone.p99, &beside.p50, &beside.p99, &ratios.0, &ratios.1];
    for ((key, what), rounds) in names.iter().zip(rounds) {
        report.add(key, what, 2, rounds);
    }
}
