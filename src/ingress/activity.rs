//! Tells the controller when the last request came to each Subscription, which it shows in the status.

use super::controller::INTERNAL;
use super::{Controller, now_millis};
use crate::routes::{Handle, LogGate};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// How often it is looked whether there is something to tell.
const TICK: Duration = Duration::from_secs(5);
/// Subscriptions in one report.
const MOST: usize = 1000;
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
    loop {
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            () = end.cancelled() => break,
        }
        tell(&routes, &controller, interval, &log).await;
    }
    let _ = tokio::time::timeout(END, tell(&routes, &controller, 0, &log)).await;
}

/// Tells what there is; what could not be told is told the next time.
async fn tell(routes: &Handle, controller: &Controller, interval: u64, log: &LogGate) {
    loop {
        let untold = routes.untold(now_millis(), interval, MOST);
        if untold.is_empty() {
            return;
        }
        let requests: Vec<_> = untold.iter().map(|seen| json!({"uid": seen.uid, "at": seen.at})).collect();
        let body = Bytes::from(json!({ "requests": requests }).to_string());
        if let Err(why) = post(controller, body).await {
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

async fn post(controller: &Controller, body: Bytes) -> Result<(), String> {
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
    use crate::routes::Lookup;
    use crate::routes::tests::{plugin_spec, published};
    use crate::telemetry::Metrics;
    use axum::Router;
    use axum::routing::post;
    use serde_json::Value;
    use std::sync::{Arc, Mutex};

    fn note(routes: &Handle, n: u128, at: u64) {
        let Lookup::Served(route) = routes.by_uid(uuid::Uuid::from_u128(n)) else { panic!("it is served") };
        route.traffic().activity.note(at);
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
