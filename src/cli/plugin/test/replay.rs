//! What becomes of a recorded request: everything as in the ingress, from the verification to the triggers.

use super::case::{Case, ExpectedTrigger, Subscription};
use crate::api::{Mode, NameRef, PublishedRoute, Runner, RunnerGone, TriggerPluginSpec, WorkflowTriggerSpec};
use crate::delivery::match_request;
use crate::ingress::{Rehearsal, rehearse};
use crate::plugin::{Plugin, join};
use crate::routes::{Handle, Lookup, Route, Trigger};
use crate::spool::Matched;
use crate::telemetry::Metrics;
use bytes::Bytes;
use http::Request;
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

/// Where requests come to, unless the case says it.
const URL: &str = "https://hooks.example.com/hooks/x";
/// Who the Subscription is.
const UID: Uuid = Uuid::nil();
const NAMESPACE: &str = "default";
const NAME: &str = "subscription";

/// The plugin that is tested.
pub struct Tested {
    /// Its name.
    pub name: String,
    /// What it says.
    pub spec: TriggerPluginSpec,
    /// The same, compiled.
    pub compiled: Plugin,
}

/// What became of a request.
pub struct Outcome {
    /// What the ingress did.
    pub rehearsal: Rehearsal,
    /// What it was held against; nothing if it was not stored.
    pub matched: Option<Matched>,
    /// Why triggers of the case could never fire, by their names.
    pub invalid: Vec<(String, String)>,
}

/// Name of a trigger of a case: the one with this number that is expected of the event with this number.
pub fn trigger_name(event: usize, at: usize) -> String {
    format!("trigger-{event}-{at}")
}

/// Replays the request of a case.
///
/// # Errors
/// Why the case has no Subscription of this plugin, with the field of the case.
pub fn replay(plugin: &Tested, case: &Case, request: Request<Bytes>) -> Result<Outcome, String> {
    let now = case.time.unwrap_or_else(Timestamp::now).as_millisecond();
    let now = u64::try_from(now).map_err(|_| "time: is before 1970".to_owned())?;
    let route = route(plugin, case)?;
    let rehearsal = rehearse(&route, request, now);
    let matched = rehearsal.stored.as_ref().map(|stored| match_request(&route, stored, now));
    let rules = route.rules().iter();
    let invalid = rules.filter_map(|rule| Some((rule.trigger.name.clone(), rule.compiled.as_ref().err()?.clone())));
    Ok(Outcome { invalid: invalid.collect(), rehearsal, matched })
}

fn route(plugin: &Tested, case: &Case) -> Result<Arc<Route>, String> {
    let subscription = case.subscription.clone().unwrap_or_default();
    let wrong = |mistakes: &[crate::plugin::Mistake]| format!("subscription: {}", join(mistakes).replace("spec.", ""));
    plugin.compiled.check_parameters(&subscription.parameters).map_err(|mistakes| wrong(&mistakes))?;
    let events = plugin.compiled.pin_events(subscription.events.as_deref()).map_err(|mistake| wrong(&[mistake]))?;
    let triggers = case.expect.events.iter().enumerate().flat_map(|(number, event)| {
        let triggers = event.triggers.iter().enumerate();
        triggers.map(move |(at, expected)| trigger(number, at, &event.name, expected))
    });
    let handle = Handle::new(Metrics::new());
    handle.update(|index| {
        index.apply_plugin(&plugin.name, &plugin.spec);
        index.apply_route(published(plugin, subscription, events));
        triggers.for_each(|trigger| index.apply_trigger(trigger));
    });
    match handle.by_uid(UID) {
        Lookup::Served(route) => Ok(route),
        other => Err(format!("the plugin is not served: {other:?}")),
    }
}

fn published(plugin: &Tested, subscription: Subscription, events: Vec<String>) -> PublishedRoute {
    let url = subscription.callback_url.unwrap_or_else(|| URL.to_owned());
    PublishedRoute {
        token: "x".to_owned(),
        callback_secrets: subscription.secret.into_iter().chain(subscription.secrets).collect(),
        uid: UID,
        namespace: NAMESPACE.to_owned(),
        name: NAME.to_owned(),
        plugin: plugin.name.clone(),
        events,
        url: plugin.compiled.verification_needs_url().then_some(url),
        awaits_secret: false,
    }
}

fn trigger(number: usize, at: usize, event: &str, expected: &ExpectedTrigger) -> Trigger {
    let name = trigger_name(number, at);
    Trigger {
        uid: Uuid::new_v5(&UID, name.as_bytes()),
        namespace: NAMESPACE.into(),
        spec: WorkflowTriggerSpec {
            subscription_ref: NameRef { name: NAME.to_owned() },
            event: event.to_owned(),
            parameters: expected.parameters.clone(),
            filter: expected.filter.clone(),
            workflow: name.clone(),
            mode: Mode::Published,
            runner: Runner { url: Some("http://127.0.0.1:1/".to_owned()), ..Runner::default() },
            delivery: Default::default(),
        },
        name,
        state: RunnerGone { generation: 1, resume: None },
        gone: false,
        listening: None,
    }
}
