//! Matching, scheduling and sending, over a real spool and real sockets on loopback.

mod matching;
mod requests;
mod scheduling;
mod sending;

use super::*;
use crate::ingress::request_id;
use crate::routes::tests::{plugin_spec, published, trigger};
use crate::routes::{Lookup, Trigger};
use crate::spool::{DeliveryKey, Matched, Request};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::time::Instant;
use uuid::Uuid;

fn request(n: u128, event: &str, body: &str) -> Request {
    let subscription = Uuid::from_u128(n);
    Request {
        id: request_id(subscription, None, body.as_bytes()),
        subscription,
        namespace: "team-a".into(),
        name: format!("sub-{n}"),
        received_at: now_millis(),
        delivery_id: None,
        method: "POST".into(),
        query: String::new(),
        headers: vec![("x-event".into(), event.into()), ("content-type".into(), "application/json".into())],
        sent: None,
        body: body.to_owned().into(),
    }
}

/// Routes with the plugin `forge` and the Subscription 1.
fn routes(triggers: impl IntoIterator<Item = Trigger>) -> Handle {
    let handle = Handle::new(Metrics::new());
    handle.update(|index| {
        index.apply_plugin("forge", &plugin_spec());
        index.apply_route(published(1));
        triggers.into_iter().for_each(|trigger| index.apply_trigger(trigger));
    });
    handle.set_synced();
    handle
}

fn matched(handle: &Handle, request: &Request) -> Matched {
    let Lookup::Served(route) = handle.by_uid(request.subscription) else { panic!("not served") };
    match_request(&route, request, 7)
}

async fn until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "not in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
