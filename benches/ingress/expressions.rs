//! What the most expensive expressions cost that the limits allow, each in a process of its own, and what an ordinary event of
//! somebody else takes meanwhile.

use super::report::{Report, Rounds, quantile};
use super::{matching, output, push};
use anyhow::{Context, Result, anyhow, ensure};
use attacks::Attack;
use bellhop::api::TriggerPlugin;
use bellhop::plugin::{CallbackRequest, Plugin};
use serde_json::{Value, json};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[path = "../../src/plugin/cel/attacks.rs"]
mod attacks;

/// The argument that makes this program one attack.
pub const ONE: &str = "serve-attack";
const TIMES: usize = 5;
/// Ordinary events that are matched, alone and beside an attacker.
const EVENTS: usize = 2000;
/// An attack for ever, which is given up after that long.
const LONGEST: Duration = Duration::from_secs(120);

/// Runs every attack, and prints a table.
pub fn measure(request: &push::Request, report: &mut Report) -> Result<()> {
    println!("{:36} {:>9} {:>9} {:>10}  ended by", "expression", "ms", "payload", "memory");
    let (mut worst, mut memory) = (Rounds::default(), Rounds::default());
    let mut slowest = 0;
    let mut most = 0.0;
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
        if millis > most {
            (most, slowest) = (millis, number);
        }
    }
    worst.push(most);
    report.add("worst_expression_ms", "the most expensive expression, processor time, ms", 1, &worst);
    report.add("expression_mib", "memory that an expression takes besides, MiB", 1, &memory);
    beside(slowest, request, report)
}

/// How long an ordinary event takes, alone and while the most expensive expression is evaluated over and over, by one process
/// fewer than there are processors.
fn beside(slowest: usize, request: &push::Request, report: &mut Report) -> Result<()> {
    let route = matching::route(1)?;
    let request = matching::stored(request)?;
    let p99 = || -> Result<f64> {
        let mut micros = Vec::new();
        for _ in 0..EVENTS {
            let began = Instant::now();
            matching::fires(&route, &request, 1)?;
            micros.push(u32::try_from(began.elapsed().as_micros())?);
        }
        Ok(quantile(&mut micros, 0.99) / 1000.0)
    };
    let (mut alone, mut crowded) = (Rounds::default(), Rounds::default());
    alone.push(p99()?);
    let processors = std::thread::available_parallelism()?.get();
    let attackers = (1..processors.max(2)).map(|_| attacker(slowest)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(2));
    crowded.push(p99()?);
    drop(attackers);
    report.add("others_alone_p99_ms", "an ordinary event is matched, p99, ms", 2, &alone);
    report.add("others_attacked_p99_ms", "the same beside the most expensive expression, ms", 2, &crowded);
    Ok(())
}

/// A process that is killed when it is dropped.
struct Attacker(Child);

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn attacker(number: usize) -> Result<Attacker> {
    let program = std::env::current_exe()?;
    let child = Command::new(program).args([ONE, &number.to_string(), "for-ever"]).stdout(Stdio::null()).spawn()?;
    Ok(Attacker(child))
}

/// One attack, in a process that does nothing else; prints what it cost.
pub fn one(number: usize, for_ever: bool) -> Result<()> {
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
    let began = Instant::now();
    while for_ever && began.elapsed() < LONGEST {
        plugin.variables(&reading, event);
    }
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
