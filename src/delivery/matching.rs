//! Which triggers an accepted request starts. No I/O.

use crate::api::Mode;
use crate::ingress::identity;
use crate::plugin::{CallbackRequest, Event, Reading, SubscriptionInfo, work_done};
use crate::routes::{Route, Rule};
use crate::spool::{EventOutcome, Matched, Request, TriggerOutcome};
use serde_json::{Map, Value};
use std::io;
use uuid::Uuid;

/// Most bytes of JSON that the variables of all events of one request may take. A list of many small items, each of
/// which hands out the whole body, would otherwise multiply a request beyond any disk.
const MOST_VARIABLES: usize = 32 * 1024 * 1024;

/// Most steps of work that the events of one request and the triggers on them may take together, a few seconds at the worst.
/// Each expression has a limit of its own, but a request can have 10,000 events and each of them a thousand triggers, and
/// whoever sends it would hold a processor for hours.
const MOST_WORK: u64 = 150_000_000;
/// Bytes of variables that are made values of a filter in one step.
const BYTES_A_STEP: usize = 32;

/// Why a trigger does not fire whose runner is gone.
pub(super) const PAUSED: &str = "paused: the runner answered 410 Gone";

/// Holds a request against every trigger of its Subscription. `at` is the time of the match in Unix milliseconds.
///
/// Nothing fails here: what cannot be read or evaluated is part of the outcome, with its reason.
pub fn match_request(route: &Route, request: &Request, at: u64) -> Matched {
    match_within(MOST_WORK, route, request, at)
}

/// The same with so many steps.
pub(super) fn match_within(steps: u64, route: &Route, request: &Request, at: u64) -> Matched {
    let mut room = Room { bytes: MOST_VARIABLES, steps, before: work_done(), uncounted: 0 };
    let callback = CallbackRequest::stored(&request.method, &request.query, &request.headers, &request.body);
    let nothing = |why: String| Matched { at, events: Vec::new(), note: Some(why) };
    let reading = match route.plugin().read(&callback) {
        Ok(reading) => reading,
        Err(error) => return nothing(error.to_string()),
    };
    if route.plugin().is_ping(&reading) {
        return nothing(Matched::PING.to_owned());
    }
    let events = match route.plugin().events_while(&reading, || room.check_work()) {
        Ok(events) => events,
        Err(error) => return nothing(error.to_string()),
    };
    if events.is_empty() {
        return nothing(Matched::NO_EVENT.to_owned());
    }
    // A sample that is sent again is no repetition, also where its id is not made anew.
    let is_sample = request.sent.is_some();
    let identity = match is_sample {
        true => request.id.to_string(),
        false => identity(request.delivery_id.as_deref(), &request.body),
    };
    let events = events.iter().map(|event| {
        let identity = match &event.own_id {
            Some(id) if !is_sample => format!("item:{id}"),
            _ => format!("{identity}/{}", event.item),
        };
        let id = Uuid::new_v5(&request.subscription, identity.as_bytes());
        match_event(route, &reading, event, id, at, &mut room)
    });
    Matched { at, events: events.collect(), note: None }
}

/// What the events of a request may still take.
struct Room {
    /// Bytes of variables.
    bytes: usize,
    /// Steps in all.
    steps: u64,
    /// What the thread had done before.
    before: u64,
    /// Steps that no expression has counted.
    uncounted: u64,
}

impl Room {
    /// What is said where no work is left.
    fn check_work(&self) -> Result<(), String> {
        let done = work_done().wrapping_sub(self.before).saturating_add(self.uncounted);
        if done <= self.steps {
            return Ok(());
        }
        Err(format!("the events of this request and the triggers on them take more than {} steps together", self.steps))
    }
}

fn match_event(route: &Route, reading: &Reading, event: &Event, id: Uuid, at: u64, room: &mut Room) -> EventOutcome {
    let mut outcome = EventOutcome {
        id,
        item: u32::try_from(event.item).unwrap_or(u32::MAX),
        name: String::new(),
        skipped: None,
        variables: Value::Null,
        notes: Vec::new(),
        triggers: Vec::new(),
    };
    match &event.name {
        Ok(name) => outcome.name.clone_from(name),
        Err(error) => {
            outcome.skipped = Some(error.to_string());
            return outcome;
        }
    }
    if !route.is_subscribed(&outcome.name) {
        outcome.skipped = Some(EventOutcome::NOT_SUBSCRIBED.to_owned());
        return outcome;
    }
    if let Err(problem) = room.check_work() {
        outcome.skipped = Some(problem);
        return outcome;
    }
    let (variables, notes) = route.plugin().variables(reading, event);
    let bytes = size(&variables);
    match room.bytes.checked_sub(bytes) {
        Some(left) => room.bytes = left,
        None => {
            outcome.skipped =
                Some(format!("the variables of the request's events take more than {MOST_VARIABLES} bytes"));
            return outcome;
        }
    }
    let rules =
        route.rules().iter().filter(|rule| rule.trigger.spec.event == outcome.name && rule.trigger.is_awake(at));
    let triggers = rules.map(|rule| {
        let allowed = room.check_work();
        room.uncounted += (bytes / BYTES_A_STEP) as u64;
        hold_against(rule, route, (reading, event), &variables, allowed)
    });
    outcome.triggers = triggers.collect();
    outcome.variables = Value::Object(variables);
    outcome.notes = notes.iter().map(ToString::to_string).collect();
    outcome
}

fn hold_against(
    rule: &Rule,
    route: &Route,
    (reading, event): (&Reading, &Event),
    variables: &Map<String, Value>,
    allowed: Result<(), String>,
) -> TriggerOutcome {
    let subscription = SubscriptionInfo { namespace: route.namespace(), name: route.name() };
    let mismatch = match &rule.compiled {
        _ if allowed.is_err() => allowed.err(),
        _ if rule.trigger.gone => Some(PAUSED.to_owned()),
        Ok(trigger) => {
            trigger.matches(reading, event, variables, subscription).err().map(|mismatch| mismatch.to_string())
        }
        Err(problem) => Some(problem.clone()),
    };
    let captured = mismatch.is_none() && rule.trigger.spec.mode == Mode::Draft;
    TriggerOutcome {
        captured,
        trigger: rule.trigger.name.clone(),
        uid: rule.trigger.uid,
        workflow: rule.trigger.spec.workflow.clone(),
        mismatch,
    }
}

/// Bytes of the variables as JSON, without making it.
fn size(variables: &Map<String, Value>) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0 += data.len();
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, variables) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}
