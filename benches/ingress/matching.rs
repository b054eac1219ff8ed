//! What it costs to hold an event against the triggers of its Subscription: 1,000 of them, and one as the baseline.

use super::push;
use super::report::{Report, Rounds};
use super::{ROUNDS, servers};
use anyhow::{Result, bail, ensure};
use bellhop::delivery::match_request;
use bellhop::routes::{Handle, Lookup, Route};
use bellhop::spool;
use bellhop::telemetry::Metrics;
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

const TRIGGERS: usize = 1000;
/// Matches in a round, of one trigger or of all.
const SINGLE: usize = 2000;
const ALL: usize = 50;

/// Measures in this process: nothing of it waits for anything.
pub fn measure(request: &push::Request, report: &mut Report) -> Result<()> {
    let request = stored(request)?;
    let (one, many) = (route(1)?, route(TRIGGERS)?);
    let (mut alone, mut each) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        alone.push(micros(&one, &request, SINGLE, 1)?);
        each.push(micros(&many, &request, ALL, TRIGGERS)? / TRIGGERS as f64);
    }
    report.add("match_1_us", "an event held against 1 trigger, µs", 1, &alone);
    report.add("match_1000_us", "1,000 triggers: µs for each", 1, &each);
    report.add("match_ratio", "a trigger of 1,000 ÷ a trigger alone", 3, &each.over(&alone));
    Ok(())
}

/// How long a match takes, all triggers together.
fn micros(route: &Route, request: &spool::Request, times: usize, fire: usize) -> Result<f64> {
    let began = Instant::now();
    for _ in 0..times {
        fires(route, request, fire)?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / times as f64)
}

/// Matches once; so many triggers have to fire.
fn fires(route: &Route, request: &spool::Request, fire: usize) -> Result<()> {
    let matched = match_request(route, request, 0);
    let triggers = matched.events.iter().flat_map(|event| &event.triggers);
    let fired = triggers.filter(|trigger| trigger.mismatch.is_none()).count();
    ensure!(fired == fire, "{fired} of {fire} triggers fire");
    Ok(())
}

/// A route with so many triggers, all on the push.
fn route(triggers: usize) -> Result<Arc<Route>> {
    let routes = Handle::new(Metrics::new());
    servers::publish(&routes, 1, triggers, "http://127.0.0.1:9/", &[])?;
    match routes.by_uid(push::uid(0)) {
        Lookup::Served(route) => Ok(route),
        _ => bail!("the Subscription is not served"),
    }
}

/// The push as the spool has it.
pub fn stored(request: &push::Request) -> Result<spool::Request> {
    let (head, body) = request.parts();
    let head = std::str::from_utf8(head)?;
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    Ok(spool::Request {
        id: Uuid::nil(),
        subscription: push::uid(0),
        namespace: "team-0".to_owned(),
        name: "repository-0".to_owned(),
        received_at: 0,
        delivery_id: Some("delivery".to_owned()),
        method: "POST".to_owned(),
        query: String::new(),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        sent: None,
        body: body.to_vec().into(),
    })
}
