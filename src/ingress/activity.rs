//! Tells the controller what it shows in statuses: when the last request came to each Subscription, how often triggers
//! have fired, which of them are paused because their runner is gone, and whose runner does not answer.

use super::controller::INTERNAL;
use super::{Controller, now_millis};
use crate::api::{Away, AwayReport, Gone, Report, Seen, Told, TriggerReport};
use crate::routes::{Handle, LogGate};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

/// How often it is looked whether there is something to tell.
const TICK: Duration = Duration::from_secs(5);
/// Subscriptions, and triggers whose runner does not answer, in one report.
const MOST: usize = 1000;
/// Triggers in one report.
const MOST_TRIGGERS: usize = 500;
/// Attempts to reach the replica of the controller that holds the Lease.
const ATTEMPTS: u32 = 4;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the last report may take, at the end of the process.
const END: Duration = Duration::from_secs(2);

/// Reports until `end`, then what is left: of each Subscription once in `interval` at most.
pub async fn report(routes: Handle, controller: Controller, interval: Duration, end: CancellationToken) {
    if matches!(controller, Controller::Absent) {
        return;
    }
    let tick = TICK.min(interval.max(Duration::from_millis(100)));
    let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let log = LogGate::default();
    let mut outbox = Outbox::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            () = end.cancelled() => break,
        }
        tell(&routes, &controller, interval, &log).await;
        outbox.tell(&routes, &controller, interval, &log).await;
    }
    let rest = async {
        tell(&routes, &controller, 0, &log).await;
        outbox.tell(&routes, &controller, 0, &log).await;
    };
    let _ = tokio::time::timeout(END, rest).await;
}

/// What is told of triggers. It is counted, so a report whose answer was lost is sent again as it was, and the controller
/// knows it by its number.
struct Outbox {
    from: Uuid,
    number: u64,
    untold: Option<TriggerReport>,
    /// Triggers whose runner does not answer, as it was told last, and when, in Unix milliseconds.
    away: (Arc<HashMap<Uuid, u64>>, u64),
}

impl Outbox {
    fn new() -> Self {
        Self { from: Uuid::new_v4(), number: 0, untold: None, away: Default::default() }
    }

    /// Tells what there is; what could not be told is told the next time.
    async fn tell(&mut self, routes: &Handle, controller: &Controller, interval: u64, log: &LogGate) {
        loop {
            if self.untold.is_none() {
                let tallies = routes.tallies().take(now_millis(), interval, MOST_TRIGGERS);
                let tallies: Vec<_> = tallies.into_iter().map(|(uid, tally)| Told { uid, tally }).collect();
                if !tallies.is_empty() {
                    self.number += 1;
                    self.untold = Some(TriggerReport { from: self.from, number: self.number, tallies });
                }
            }
            // Told again and again until the status says it, which the routes then know.
            let gone = routes.paused(MOST_TRIGGERS).into_iter().map(|(uid, state)| Gone { uid, state }).collect();
            let now = now_millis();
            let away = routes.away();
            let told = self.away_from(&away, interval, now);
            // One that is still missed when the controller could not be told is missed again.
            let missed_keys = routes.take_missed_keys();
            let report = Report { requests: Vec::new(), triggers: self.untold.clone(), gone, away: told, missed_keys };
            if report == Report::default() {
                return;
            }
            if let Err(why) = post(controller, &report).await {
                if let Some(suppressed) = log.pass() {
                    info!(why, suppressed, "the controller could not be told of the triggers");
                }
                return;
            }
            if report.away.is_some() {
                self.away = (away, now);
            }
            if self.untold.take().is_none_or(|told| told.tallies.len() < MOST_TRIGGERS) {
                return;
            }
        }
    }
}

impl Outbox {
    /// What there is to tell of runners that do not answer: all of them, when that has changed, and once in an interval, since
    /// what is not repeated is taken for over.
    fn away_from(&self, away: &HashMap<Uuid, u64>, interval: u64, now: u64) -> Option<AwayReport> {
        let (told, at) = &self.away;
        let again = !away.is_empty() && now >= at.saturating_add(interval);
        if **told == *away && !again {
            return None;
        }
        let mut triggers: Vec<Away> = away.iter().map(|(uid, since)| Away { uid: *uid, since: *since }).collect();
        // The same of more than fit each time.
        triggers.sort_by_key(|away| (away.since, away.uid));
        triggers.truncate(MOST);
        Some(AwayReport { from: self.from, triggers })
    }
}

/// Tells what there is; what could not be told is told the next time.
async fn tell(routes: &Handle, controller: &Controller, interval: u64, log: &LogGate) {
    loop {
        let untold = routes.untold(now_millis(), interval, MOST);
        if untold.is_empty() {
            return;
        }
        let at = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
        let requests = untold.iter().map(|seen| Seen { uid: seen.uid, at: at(seen.at) }).collect();
        if let Err(why) = post(controller, &Report { requests, ..Report::default() }).await {
            if let Some(suppressed) = log.pass() {
                info!(why, suppressed, "the controller could not be told of the last requests");
            }
            return;
        }
        untold.iter().for_each(|seen| seen.told());
        if untold.len() < MOST {
            return;
        }
    }
}

async fn post(controller: &Controller, report: &Report) -> Result<(), String> {
    let body = Bytes::from(serde_json::to_vec(report).map_err(|error| error.to_string())?);
    let mut why = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let request = Request::post(format!("{INTERNAL}activity")).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(body.clone()).map_err(|error| error.to_string())?;
        match controller.call(request).await.map(|answer| answer.status()) {
            Ok(StatusCode::NO_CONTENT) => return Ok(()),
            // This replica does not hold the Lease; the next attempt may reach the one that does.
            Ok(StatusCode::SERVICE_UNAVAILABLE) => why = "no replica that holds the Lease was reached".to_owned(),
            Ok(status) => return Err(format!("it answered {status}")),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{RunnerGone, Tally};
    use crate::routes::Lookup;
    use crate::routes::tests::{plugin_spec, published};
    use crate::telemetry::Metrics;
    use axum::Router;
    use axum::routing::post;
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    fn note(routes: &Handle, n: u128, at: u64) {
        let Lookup::Served(route) = routes.by_uid(uuid::Uuid::from_u128(n)) else { panic!("it is served") };
        route.traffic().activity.note(at);
    }

    #[tokio::test]
    async fn a_report_whose_answer_was_lost_is_sent_again_as_it_was() {
        let routes = Handle::new(Metrics::new());
        let trigger = crate::routes::tests::trigger(1, "sub-1");
        let (uid, state) = (trigger.uid, trigger.state.clone());
        routes.update(|index| index.apply_trigger(trigger.clone()));
        let told: Arc<Mutex<Vec<Report>>> = Arc::default();
        let answers = Arc::new(Mutex::new(vec![204, 204, 204, 500]));
        let log = told.clone();
        let answer = async move |body: Bytes| {
            log.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            StatusCode::from_u16(answers.lock().unwrap().pop().unwrap()).unwrap()
        };
        let controller = Controller::Here(Router::new().route("/internal/activity", post(answer)));
        let (mut outbox, gate) = (Outbox::new(), LogGate::default());
        let fired = || routes.tallies().add([(uid, Tally { fired: 1, last_fired: 5, ..Tally::default() })]);
        fired();
        outbox.tell(&routes, &controller, 0, &gate).await;
        fired();
        outbox.tell(&routes, &controller, 0, &gate).await;
        outbox.tell(&routes, &controller, 0, &gate).await;
        outbox.tell(&routes, &controller, 0, &gate).await;
        {
            let told = told.lock().unwrap();
            let reports: Vec<_> = told.iter().map(|report| report.triggers.clone().unwrap()).collect();
            let numbers: Vec<_> = reports.iter().map(|report| (report.number, report.tallies[0].tally.fired)).collect();
            assert_eq!(numbers, [(1, 1), (1, 1), (2, 1)]);
            assert!(reports.iter().all(|report| report.from == outbox.from));
        }
        // A runner that is gone is told of until the status says it.
        assert!(!routes.pause(uid, &RunnerGone { generation: 7, resume: None }), "the trigger has changed");
        assert!(routes.pause(uid, &state));
        outbox.tell(&routes, &controller, 0, &gate).await;
        let gone = told.lock().unwrap().last().unwrap().gone.clone();
        assert_eq!(gone, [Gone { uid, state }]);
        routes.update(|index| index.apply_trigger(crate::routes::Trigger { gone: true, ..trigger }));
        outbox.tell(&routes, &controller, 0, &gate).await;
        assert_eq!(told.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn runners_that_do_not_answer_are_told_of_again_and_again_and_once_when_they_are_back() {
        let routes = Handle::new(Metrics::new());
        let told: Arc<Mutex<Vec<Report>>> = Arc::default();
        let (log, gate) = (told.clone(), LogGate::default());
        let answer = async move |body: Bytes| {
            log.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            StatusCode::NO_CONTENT
        };
        let controller = Controller::Here(Router::new().route("/internal/activity", post(answer)));
        let mut outbox = Outbox::new();
        let (minute, uid) = (60_000, Uuid::from_u128(3));
        outbox.tell(&routes, &controller, minute, &gate).await;
        assert!(told.lock().unwrap().is_empty());
        routes.set_away(HashMap::from([(uid, 5_000)]));
        outbox.tell(&routes, &controller, minute, &gate).await;
        outbox.tell(&routes, &controller, minute, &gate).await;
        outbox.tell(&routes, &controller, 0, &gate).await;
        routes.set_away(HashMap::new());
        outbox.tell(&routes, &controller, minute, &gate).await;
        outbox.tell(&routes, &controller, 0, &gate).await;
        let told = told.lock().unwrap();
        let away: Vec<_> = told.iter().map(|report| report.away.clone().unwrap().triggers).collect();
        let one = vec![Away { uid, since: 5_000 }];
        assert_eq!(away, [one.clone(), one, Vec::new()]);
        assert!(told.iter().all(|report| report.away.as_ref().unwrap().from == outbox.from));
    }

    #[tokio::test]
    async fn what_was_not_told_is_told_again_and_nothing_twice() {
        let routes = Handle::new(Metrics::new());
        routes.update(|index| {
            index.apply_plugin("forge", &plugin_spec());
            [1, 2].into_iter().for_each(|n| index.apply_route(published(n)));
        });
        let told: Arc<Mutex<Vec<Value>>> = Arc::default();
        // The first three answers are those of a replica that does not hold the Lease, and of a defect.
        let answers = Arc::new(Mutex::new(vec![204, 503, 500]));
        let (log, gate) = (told.clone(), LogGate::default());
        let answer = async move |body: Bytes| {
            let status = answers.lock().unwrap().pop().unwrap_or(204);
            if status == 204 {
                log.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            }
            StatusCode::from_u16(status).unwrap()
        };
        let controller = Controller::Here(Router::new().route("/internal/activity", post(answer)));
        tell(&routes, &controller, 0, &gate).await;
        assert!(told.lock().unwrap().is_empty());
        note(&routes, 1, 7_000);
        tell(&routes, &controller, 0, &gate).await;
        assert!(told.lock().unwrap().is_empty(), "the answer was 500");
        for _ in 0..3 {
            tell(&routes, &controller, 0, &gate).await;
        }
        let uid = |n: u128| uuid::Uuid::from_u128(n).to_string();
        assert_eq!(*told.lock().unwrap(), [json!({"requests": [{"uid": uid(1), "at": 7_000}]})]);
        note(&routes, 2, 8_000);
        tell(&routes, &controller, 0, &gate).await;
        assert_eq!(told.lock().unwrap()[1], json!({"requests": [{"uid": uid(2), "at": 8_000}]}));
    }
}
