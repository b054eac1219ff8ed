//! `make bench`: what it costs that Bellhop stores every request before it answers.
//!
//! Compared are, each in a process of its own and with the same load:
//! - a bare axum handler that reads the body, verifies its HMAC and answers;
//! - Bellhop's ingress with everything that it has: routes, the plugin of GitHub, deduplication, a spool that is synced
//!   to disk before the answer, metrics, and deliveries to a runner meanwhile; with 10 and with 10,000 subscriptions in
//!   the route table, and of the 10,000 once the same 10 are called and once all in turn.
//!
//! They take turns, each time freshly started, in orders in which each follows each of the others equally often; in
//! between, the disk is made to be done with what the one before has left. The median counts. Then come the time
//! from an accepted request to its arrival at the runner, deliveries with many triggers on one event, the same time beside
//! runners with every fault, what it costs to hold
//! an event against 1,000 triggers, what the most expensive expressions cost, and requests of one workspace beside the worst
//! of them in another, the memory of an idle
//! `bellhop run` on a real control plane, and what the controller needs for 10,000 Subscriptions there. What was measured
//! goes to standard output and, as one flat object, to `target/bench.json`. With an argument, as in
//! `cargo bench --bench ingress -- memory`, one part is measured: `throughput`, `runner`, `deliveries`, `faulty`,
//! `matching`, `expressions`, `memory` or `controller`.
//!
//! There is no limit that a run could fail to meet. It fails if anything that it needs is missing, and if any request
//! is refused.

mod arrivals;
mod beside;
mod crowd;
mod deliveries;
mod expressions;
mod faulty;
mod load;
mod matching;
mod push;
mod report;
mod servers;

use anyhow::{Context, Result, bail, ensure};
use arrivals::{Runner, Since};
use bellhop_harness::bellhop::{Bellhop, Options};
use bellhop_harness::control_plane::ControlPlane;
use clap::Parser;
use load::Target;
use push::Request;
use report::{Report, Rounds, quantile};
use servers::{Cli, Started};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 64;
const FEW: usize = 10;
const MANY: usize = 10_000;
/// Between two servers, after what is left of the first one's spool has been synced away.
const PAUSE: Duration = Duration::from_secs(2);
/// Orders of four in which each follows each of the others once: what one leaves behind, such as a disk that is still
/// freeing gigabytes, meets all of them alike.
const ORDERS: [[usize; 4]; 4] = [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]];
const WARM_UP: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_secs(4);
/// Requests a second while deliveries are timed, and the connections that they come on.
const RATE: u32 = 200;
const STREAMS: u32 = 8;
/// How long the runner may wait for the last event.
const LAST: Duration = Duration::from_secs(20);
/// How long a `bellhop run` is left alone before its memory is looked at.
const IDLE: Duration = Duration::from_secs(5);
/// Bytes that have to be free: the spool, the control plane, and some for the others on this machine.
const NEEDED: u64 = servers::SPOOL_BYTES + (1 << 30);
const GIB: f64 = (1_u64 << 30) as f64;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [one, number] = arguments.as_slice()
        && one == expressions::ONE
    {
        return expressions::one(number.parse()?);
    }
    if std::env::args().nth(1).is_some_and(|argument| argument.starts_with("serve-")) {
        return servers::serve(Cli::parse());
    }
    // `cargo test --all-targets` runs benchmarks too, without this.
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("nothing is measured: this is for `cargo bench`");
        return Ok(());
    }
    let target = bellhop_harness::root().join("target");
    let folder = target.join("bench");
    let lock = File::create(target.join("bench.lock"))?;
    lock.try_lock().context("another benchmark is running")?;
    remove(&folder)?;
    fs::create_dir_all(&folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = runtime.block_on(measure(&folder));
    drop(runtime);
    let report =
        report.with_context(|| format!("the benchmark failed; logs are in {}", folder.join("log").display()))?;
    remove(&folder)?;
    fs::write(target.join("bench.json"), report.to_json())?;
    println!("\n{:>60}\n{report}\nwritten to target/bench.json", "median (least – most)");
    Ok(())
}

async fn measure(folder: &Path) -> Result<Report> {
    let started = Instant::now();
    let free = free_bytes(folder)?;
    println!(
        "needs up to {:.0} GiB of disk in {}, of which {:.0} GiB are free",
        NEEDED as f64 / GIB,
        folder.display(),
        free as f64 / GIB
    );
    ensure!(free >= NEEDED, "there is not enough room");
    let mut report = Report::default();
    let cpus = std::thread::available_parallelism()?.get();
    println!("{cpus} processors, {CONNECTIONS} connections, bodies of {} bytes", push::BYTES);
    report.fact("cpus", cpus);
    report.fact("connections", CONNECTIONS);
    report.fact("body_bytes", push::BYTES);

    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| only.is_empty() || only.iter().any(|name| name == part);
    let (request, runner) = (Request::new()?, Runner::start()?);
    disk(folder, &mut report)?;
    if wanted("throughput") {
        throughput(folder, &request, &runner, &mut report).await?;
    }
    if wanted("runner") {
        time_to_runner(folder, &request, &runner, &mut report).await?;
    }
    if wanted("deliveries") {
        deliveries::measure(folder, &request, &runner, &mut report).await?;
    }
    if wanted("faulty") {
        faulty::measure(folder, &request, &runner, &mut report).await?;
    }
    if wanted("matching") {
        matching::measure(&request, &mut report)?;
    }
    if wanted("expressions") {
        expressions::measure(folder, &request, &runner, &mut report).await?;
    }
    if wanted("memory") {
        memory(folder, &mut report).await?;
    }
    if wanted("controller") {
        crowd::measure(folder, &mut report).await?;
    }
    println!("took {:.0} s", started.elapsed().as_secs_f64());
    Ok(report)
}

/// How long the disk takes to make 64 KiB durable, without which the other numbers say little.
fn disk(folder: &Path, report: &mut Report) -> Result<()> {
    let path = folder.join("probe");
    let mut file = File::create(&path)?;
    let (mut rounds, block) = (Rounds::default(), vec![0x5a; 64 * 1024]);
    for _ in 0..ROUNDS {
        let mut micros = Vec::new();
        for _ in 0..50 {
            let began = Instant::now();
            file.write_all(&block)?;
            file.sync_data()?;
            micros.push(u32::try_from(began.elapsed().as_micros())?);
        }
        rounds.push(quantile(&mut micros, 0.5) / 1000.0);
    }
    fs::remove_file(&path)?;
    report.add("disk_sync_ms", "disk: write and sync of 64 KiB, ms", 2, &rounds);
    Ok(())
}

/// One of the things that are compared.
#[derive(Default)]
struct Contestant {
    /// Subscriptions in the route table; nothing is the bare handler.
    subscriptions: Option<usize>,
    /// Subscriptions that are called.
    called: usize,
    rps: Rounds,
    p50: Rounds,
    p99: Rounds,
    delivered: Rounds,
    cpu: Rounds,
}

impl Contestant {
    async fn run(&mut self, folder: &Path, request: &Request, runner: &Runner) -> Result<()> {
        let server = match self.subscriptions {
            Some(subscriptions) => Started::ingress(folder, subscriptions, 1, &runner.url).await?,
            None => Started::bare(folder).await?,
        };
        let target = Target::new(server.port, request, 0..self.called);
        runner.take();
        let cpu_before = server.cpu_micros();
        let mut outcome =
            tokio::task::spawn_blocking(move || load::flood(&target, CONNECTIONS, WARM_UP, ROUND)).await??;
        if let (Some(before), Some(after)) = (cpu_before, server.cpu_micros()) {
            self.cpu.push((after - before) as f64 / outcome.answered as f64);
        }
        drop(server);
        if let Some(refusal) = outcome.refusal {
            bail!("{} requests were refused, the first with\n{refusal}", outcome.refused);
        }
        self.rps.push(outcome.accepted as f64 / ROUND.as_secs_f64());
        self.p50.push(quantile(&mut outcome.micros, 0.5) / 1000.0);
        self.p99.push(quantile(&mut outcome.micros, 0.99) / 1000.0);
        let delivered = runner.count();
        ensure!(self.subscriptions.is_none() || delivered > 0, "nothing was delivered meanwhile");
        self.delivered.push(delivered as f64 / (WARM_UP + ROUND).as_secs_f64());
        Ok(())
    }
}

async fn throughput(folder: &Path, request: &Request, runner: &Runner, report: &mut Report) -> Result<()> {
    let mut all = [(None, 1), (Some(FEW), FEW), (Some(MANY), FEW), (Some(MANY), MANY)]
        .map(|(subscriptions, called)| Contestant { subscriptions, called, ..Contestant::default() });
    for round in 0..ROUNDS {
        for next in ORDERS[round % ORDERS.len()] {
            output("sync", &[])?;
            tokio::time::sleep(PAUSE).await;
            all[next].run(folder, request, runner).await?;
        }
        let rps = |contestant: &Contestant| contestant.rps.last();
        println!(
            "round {} of {ROUNDS}: bare {:.0}/s, ingress {:.0}/s, with {MANY} subscriptions {:.0}/s, all called {:.0}/s",
            round + 1,
            rps(&all[0]),
            rps(&all[1]),
            rps(&all[2]),
            rps(&all[3]),
        );
    }
    let [bare, few, many, spread] = &all;
    report.add("bare_rps", "bare handler, requests/s", 0, &bare.rps);
    report.add("bare_p50_ms", "bare handler, p50, ms", 2, &bare.p50);
    report.add("bare_p99_ms", "bare handler, p99, ms", 2, &bare.p99);
    report.add("ingress_rps", "ingress, requests/s", 0, &few.rps);
    report.add("ingress_p50_ms", "ingress, p50, ms", 2, &few.p50);
    report.add("ingress_p99_ms", "ingress, p99, ms", 2, &few.p99);
    report.add("ingress_delivered_rps", "ingress, deliveries/s meanwhile", 0, &few.delivered);
    report.add("ratio", "ingress ÷ bare handler", 3, &few.rps.over(&bare.rps));
    report.add("bare_cpu_us", "bare handler, processor time of a request, µs", 1, &bare.cpu);
    report.add("ingress_cpu_us", "ingress, the same with deliveries, µs", 1, &few.cpu);
    report.add("many_routes_rps", "ingress with 10,000 subscriptions, requests/s", 0, &many.rps);
    report.add("routes_ratio", "10,000 subscriptions ÷ 10", 3, &many.rps.over(&few.rps));
    report.add("spread_rps", "the same with all 10,000 called in turn, requests/s", 0, &spread.rps);
    report.add("spread_ratio", "10,000 called subscriptions ÷ 10", 3, &spread.rps.over(&few.rps));
    report.add("spread_cpu_us", "all 10,000 called, processor time of a request, µs", 1, &spread.cpu);
    Ok(())
}

/// From the answer to a request until its event has arrived at the runner.
async fn time_to_runner(folder: &Path, request: &Request, runner: &Runner, report: &mut Report) -> Result<()> {
    let server = Started::ingress(folder, FEW, 1, &runner.url).await?;
    let target = Target::new(server.port, request, 0..FEW);
    load::stream(&target, STREAMS, RATE, WARM_UP).await?;
    let (mut answer, mut p50, mut p99) = (Rounds::default(), Rounds::default(), Rounds::default());
    for round in 0..ROUNDS {
        tokio::time::sleep(Duration::from_millis(200)).await;
        runner.take();
        let accepted = load::stream(&target, STREAMS, RATE, ROUND).await?;
        let mut ways = runner.ways(&accepted, 1, Since::Answer).await?;
        let answers = accepted.iter().map(|(_, sent, answered)| u32::try_from((*answered - *sent).as_micros()));
        let mut answers = answers.collect::<Result<Vec<_>, _>>()?;
        answer.push(quantile(&mut answers, 0.5) / 1000.0);
        p50.push(quantile(&mut ways, 0.5) / 1000.0);
        p99.push(quantile(&mut ways, 0.99) / 1000.0);
        println!("{RATE} requests/s, round {} of {ROUNDS}: to the runner in {:.2} ms (p50)", round + 1, p50.last());
    }
    report.fact("to_runner_rate", RATE);
    report.add("calm_answer_p50_ms", "200 requests/s: answer, p50, ms", 2, &answer);
    report.add("to_runner_p50_ms", "200 requests/s: from answer to runner, p50, ms", 2, &p50);
    report.add("to_runner_p99_ms", "200 requests/s: from answer to runner, p99, ms", 2, &p99);
    Ok(())
}

/// The memory of a `bellhop run` that has nothing to do.
async fn memory(folder: &Path, report: &mut Report) -> Result<()> {
    println!("starting a control plane");
    let (_control_plane, options) = github_plugin(folder, "control-plane").await?;
    let bellhop = Bellhop::start(options).await?;
    println!("an idle bellhop runs");
    tokio::time::sleep(IDLE).await;
    let mut rss = Rounds::default();
    for _ in 0..ROUNDS {
        rss.push(resident_mib(&bellhop)?);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    report.add("idle_rss_mib", "idle bellhop run, resident memory, MiB", 1, &rss);
    Ok(())
}

/// A control plane with the definitions and a plugin, and how to run a `bellhop run` on it.
async fn github_plugin(folder: &Path, name: &str) -> Result<(ControlPlane, Options)> {
    let control_plane = ControlPlane::start(folder, name).await?;
    let root = bellhop_harness::root();
    control_plane.apply_crds(&root.join("crds")).await?;
    control_plane.apply_file(&root.join("examples/github-push/plugin.yaml")).await?;
    let options = Options::new(
        env!("CARGO_BIN_EXE_bellhop"),
        folder,
        &format!("{name}-bellhop"),
        control_plane.kubeconfig(),
        "bellhop-system",
        "bellhop-ingress",
    );
    Ok((control_plane, options))
}

fn resident_mib(bellhop: &Bellhop) -> Result<f64> {
    let pid = bellhop.pid().context("bellhop does not run")?.to_string();
    let kib: f64 = output("ps", &["-o", "rss=", "-p", &pid])?.trim().parse().context("the output of ps")?;
    Ok(kib / 1024.0)
}

fn free_bytes(folder: &Path) -> Result<u64> {
    let table = output("df", &["-Pk", &folder.display().to_string()])?;
    let kib = table.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)).context("the output of df")?;
    Ok(kib.parse::<u64>().context("the output of df")? * 1024)
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
