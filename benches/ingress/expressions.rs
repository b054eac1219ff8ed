//! What the most expensive expressions cost that the limits allow, each in a process of its own, and what requests of another
//! workspace take at an ingress that is kept busy with the worst of them.

use super::arrivals::{Runner, Since};
use super::beside::{self, Found};
use super::load::{Pest, Target};
use super::report::{Report, Rounds};
use super::servers::{self, Started};
use super::{FEW, ROUNDS, matching, output, push};
use anyhow::{Context, Result, anyhow, bail, ensure};
use attacks::Attack;
use bellhop::api::TriggerPlugin;
use bellhop::delivery::match_request;
use bellhop::plugin::{CallbackRequest, Plugin};
use bellhop::routes::{Handle, Lookup};
use bellhop::telemetry::Metrics;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

#[path = "../../src/plugin/cel/attacks.rs"]
pub mod attacks;

/// The argument that makes this program one attack.
pub const ONE: &str = "serve-attack";
const TIMES: usize = 5;
/// Between two attacks: each takes longer to match, and their bodies do not keep the disk from the others.
const PAUSE: Duration = Duration::from_millis(40);

/// Runs every attack, and prints a table.
pub async fn measure(folder: &Path, request: &push::Request, runner: &Runner, report: &mut Report) -> Result<()> {
    println!("{:36} {:>9} {:>9} {:>10}  ended by", "expression", "ms", "payload", "memory");
    let (mut worst, mut memory) = (Rounds::default(), Rounds::default());
    let mut costs = Vec::new();
    for (number, attack) in attacks::all().into_iter().enumerate() {
        let program = std::env::current_exe()?.display().to_string();
        let found: Value = serde_json::from_str(&output(&program, &[ONE, &number.to_string()])?)?;
        let number_of = |key: &str| found[key].as_f64().with_context(|| format!("{}: no {key}", attack.name));
        let (millis, payload, mib) = (number_of("ms")?, number_of("payload_ms")?, number_of("mib")?);
        let end = found["end"].as_str().unwrap_or_default();
        let worked = end.contains("takes more than");
        ensure!(worked == (attack.end == attacks::End::Work), "{}: {:?}, but {end}", attack.name, attack.end);
        println!("{:36} {millis:>9.1} {payload:>9.1} {mib:>6.1} MiB  {end}", attack.name);
        memory.push(mib);
        costs.push((millis, number));
    }
    costs.sort_by(|one, other| other.0.total_cmp(&one.0));
    worst.push(costs.first().context("there are attacks")?.0);
    report.add("worst_expression_ms", "the most expensive expression, processor time, ms", 1, &worst);
    report.add("expression_mib", "memory that an expression takes besides, MiB", 1, &memory);
    let slowest: Vec<usize> = costs.into_iter().map(|(_, number)| number).collect();
    beside(&slowest, (folder, request, runner), report).await
}

/// How long requests of one workspace take to the runner, alone and while events of another one are held without a pause
/// against the most expensive expression that may be a filter.
async fn beside(slowest: &[usize], on: (&Path, &push::Request, &Runner), report: &mut Report) -> Result<()> {
    let (folder, request, runner) = on;
    let found = slowest.iter().find_map(|number| hostile(*number).map(|found| Some((*number, found?))).transpose());
    let (number, hostile) = found.context("no attack may be a filter")??;
    let (mut alone, mut crowded, mut attacks) = (Found::default(), Found::default(), Rounds::default());
    for round in 0..ROUNDS {
        let server = Started::attacked(folder, FEW, &runner.url, number).await?;
        alone.run(&server, request, runner, Since::Request).await?;
        let pest = Pest::start(&Target::new(server.port, &hostile, FEW..FEW + 1), PAUSE);
        crowded.run(&server, request, runner, Since::Request).await?;
        attacks.push(tokio::task::spawn_blocking(|| pest.end()).await?? as f64);
        println!(
            "expressions, round {} of {ROUNDS}: p99 {:.2} ms alone, {:.2} ms beside {:.0} attacks",
            round + 1,
            alone.p99.last(),
            crowded.p99.last(),
            attacks.last()
        );
        ensure!(attacks.last() >= 20.0, "so few attacks keep nothing busy");
    }
    report.add("attacks", "requests with the most expensive filter, in a round", 0, &attacks);
    beside::report(
        report,
        &alone,
        &crowded,
        &[
            ("others_alone_p50_ms", "100 requests/s: from request to runner, p50, ms"),
            ("others_alone_p99_ms", "100 requests/s: from request to runner, p99, ms"),
            ("others_attacked_p50_ms", "the same beside the most expensive filter, p50, ms"),
            ("others_attacked_p99_ms", "the same beside the most expensive filter, p99, ms"),
            ("others_p50_ratio", "beside the most expensive filter ÷ alone, p50"),
            ("others_p99_ratio", "beside the most expensive filter ÷ alone, p99"),
        ],
    );
    Ok(())
}

/// A request for which this attack is evaluated as a filter until its work is too much; none if a trigger may not have it, or
/// something else ends it.
fn hostile(number: usize) -> Result<Option<push::Request>> {
    let attack = attacks::all().into_iter().nth(number).context("there is no such attack")?;
    let mut payload = (attack.payload)();
    // A variable has a limit of its own, so what the expression does not look at is not carried along.
    if let Some(fields) = payload.as_object_mut().filter(|_| attack.source.contains("body.")) {
        fields.retain(|name, _| attack.source.contains(&format!("body.{name}")));
    }
    let request = push::Request::of(payload.to_string().into_bytes())?;
    let routes = Handle::new(Metrics::new());
    if servers::publish_attack(&routes, 0, number, "http://127.0.0.1:9/").is_err() {
        return Ok(None);
    }
    let Lookup::Served(route) = routes.by_uid(push::uid(0)) else { bail!("the attacked Subscription is not served") };
    let matched = match_request(&route, &matching::stored(&request)?, 0);
    let mut triggers = matched.events.iter().flat_map(|event| &event.triggers);
    let why = triggers.next().and_then(|trigger| trigger.mismatch.as_deref()).unwrap_or_default();
    if !why.contains("takes more than") {
        return Ok(None);
    }
    println!("the filter beside others: {}; {why}", attack.name);
    Ok(Some(request))
}

/// One attack, in a process that does nothing else; prints what it cost.
pub fn one(number: usize) -> Result<()> {
    let attack = attacks::all().into_iter().nth(number).context("there is no such attack")?;
    let plugin = plugin(&attack)?;
    let body = (attack.payload)().to_string().into_bytes();
    let headers = [("content-type".to_owned(), "application/json".to_owned())];
    let began = cpu_millis()?;
    let reading = plugin.read(&CallbackRequest::stored("POST", "", &headers, &body))?;
    let payload = cpu_millis()? - began;
    drop(body);
    let events = plugin.events(&reading)?;
    let event = events.first().context("no event")?;
    // Its peak so far is that of making the payload. What that has given back is used first and does not count.
    fs::write("/proc/self/clear_refs", "5")?;
    let before = status_kib("VmRSS")?;
    let (mut millis, mut end) = (0.0_f64, String::new());
    for _ in 0..TIMES {
        let began = cpu_millis()?;
        let (variables, notes) = plugin.variables(&reading, event);
        millis = millis.max(cpu_millis()? - began);
        end = notes.first().map_or_else(|| "nothing".to_owned(), |note| note.problem.chars().take(70).collect());
        drop(variables);
    }
    let mib = (status_kib("VmHWM")? - before) / 1024.0;
    println!("{}", json!({"ms": millis, "payload_ms": payload, "mib": mib, "end": end}));
    Ok(())
}

/// A plugin whose one variable is the attack.
fn plugin(attack: &Attack) -> Result<Plugin> {
    let value = serde_json::to_string(&attack.source)?;
    let plugin = format!(
        "apiVersion: bellhop.dev/v1alpha1\nkind: TriggerPlugin\nmetadata: {{name: attack}}\nspec:\n  displayName: Attack\n  allowedOrigins: [https://api.example.com]\n  \
         callback:\n    verification: [{{none: {{}}}}]\n    event: \"'attack'\"\n  events:\n  - name: attack\n    title: Attack\n    \
         variables: {{value: {{type: object, value: {value}}}}}\n"
    );
    let plugin: TriggerPlugin = serde_saphyr::from_str(&plugin).map_err(|error| anyhow!("the plugin: {error}"))?;
    let compiled = Plugin::compile("attack", &plugin.spec);
    compiled.map_err(|mistakes| anyhow!("{}: {}", attack.name, bellhop::plugin::join(&mistakes)))
}

/// Processor time of this thread, which other programs on the machine do not lengthen.
fn cpu_millis() -> Result<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = text.split(' ').next().context("schedstat is empty")?.parse()?;
    Ok(nanos / 1e6)
}

fn status_kib(key: &str) -> Result<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|line| line.starts_with(key)).context("no such line in /proc/self/status")?;
    let kib = line.split_whitespace().nth(1).context("no number")?.parse::<f64>()?;
    ensure!(kib > 0.0, "{key} is nothing");
    Ok(kib)
}
