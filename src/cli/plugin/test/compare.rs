//! What was expected, and what became of it.

use super::case::{Expect, ExpectedAnswer, ExpectedEvent};
use super::replay::{Outcome, trigger_name};
use crate::spool::{EventOutcome, Matched};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;

/// Where something is not as it was expected.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The field, such as `events[0].variables.ref`.
    pub field: String,
    /// What was expected, and what was found.
    pub problem: String,
}

/// Every difference, in the order of the case's fields.
pub fn compare(expect: &Expect, outcome: &Outcome) -> Vec<Difference> {
    let mut differences = Differences(Vec::new());
    let refusal = differences.verification(expect, outcome);
    differences.answer(expect, &outcome.rehearsal.answer, refusal);
    let found = differences.note(expect, outcome);
    differences.events(expect, &found, outcome);
    differences.0
}

struct Differences(Vec<Difference>);

impl Differences {
    fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Difference { field: field.into(), problem: problem.into() });
    }

    fn differs(&mut self, field: impl Into<String>, expected: impl ToString, found: impl ToString) {
        self.add(field, format!("expected {}, found {}", expected.to_string(), found.to_string()));
    }

    /// Gives why the sender was not proven, if that was to be so or not.
    fn verification<'a>(&mut self, expect: &Expect, outcome: &'a Outcome) -> Option<&'a str> {
        let found = outcome.rehearsal.verification.as_ref();
        let why = found.and_then(|found| found.message.as_deref());
        match (expect.verified, found.map(|found| found.verified)) {
            (true, Some(false)) => {
                self.add("verified", format!("the sender is not proven: {}", why.unwrap_or_default()));
            }
            (false, Some(true)) => self.add("verified", "the sender is proven, which was not expected"),
            (false, None) => self.add("verified", "nobody asked whether the sender is proven"),
            _ => {}
        }
        why
    }

    fn answer(&mut self, expect: &Expect, found: &Response<Bytes>, refusal: Option<&str>) {
        let ExpectedAnswer { status, headers, body } = &expect.answer;
        let text = || String::from_utf8_lossy(found.body());
        let right = match (status, expect.verified) {
            (Some(status), _) => found.status().as_u16() == *status,
            (None, true) => found.status().is_success(),
            (None, false) => found.status() == StatusCode::UNAUTHORIZED,
        };
        // Who knows already that the sender is not proven need not read it twice.
        if !right && (status.is_some() || refusal.is_none()) {
            let expected = match (status, expect.verified) {
                (Some(status), _) => status.to_string(),
                (None, true) => "2xx".to_owned(),
                (None, false) => "401".to_owned(),
            };
            self.differs("answer.status", expected, format!("{} {}", found.status().as_u16(), text()).trim());
        }
        for (name, expected) in headers {
            let values: Vec<_> =
                found.headers().get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            if values != [expected.as_str()] {
                let values = if values.is_empty() { "none".to_owned() } else { values.join(", ") };
                self.differs(format!("answer.headers.{name}"), expected, values);
            }
        }
        match body {
            Some(Value::String(expected)) if *expected != text() => {
                self.differs("answer.body", format!("{expected:?}"), format!("{:?}", text()));
            }
            None | Some(Value::String(_)) => {}
            Some(expected) => match serde_json::from_slice::<Value>(found.body()) {
                Ok(found) if found == *expected => {}
                Ok(found) => self.differs("answer.body", expected, found),
                Err(_) => self.differs("answer.body", expected, format!("{:?}", text())),
            },
        }
    }

    /// Compares the note, and gives the events that count.
    fn note<'a>(&mut self, expect: &Expect, outcome: &'a Outcome) -> Vec<&'a EventOutcome> {
        let Some(matched) = &outcome.matched else {
            if let Some(expected) = &expect.note {
                self.differs("note", format!("{expected:?}"), "that the request is not stored");
            }
            return Vec::new();
        };
        match (&expect.note, &matched.note) {
            (Some(expected), Some(note)) if note.contains(expected.as_str()) => {}
            (Some(expected), note) => {
                self.differs(
                    "note",
                    format!("{expected:?}"),
                    note.as_ref().map_or("none".to_owned(), |note| format!("{note:?}")),
                );
            }
            (None, Some(note)) if ![Matched::NO_EVENT, Matched::PING].contains(&note.as_str()) => {
                self.add("note", note)
            }
            (None, _) => {}
        }
        // What a Subscription has not asked for is acknowledged and goes nowhere, a ping for example.
        matched.events.iter().filter(|event| event.skipped.as_deref() != Some(EventOutcome::NOT_SUBSCRIBED)).collect()
    }

    fn events(&mut self, expect: &Expect, found: &[&EventOutcome], outcome: &Outcome) {
        for (at, expected) in expect.events.iter().enumerate() {
            let field = format!("events[{at}]");
            match found.get(at) {
                Some(found) => self.event(&field, at, expected, found, outcome),
                None => {
                    let others = outcome.matched.iter().flat_map(|matched| &matched.events);
                    let others: Vec<_> = others
                        .filter(|event| event.skipped.as_deref() == Some(EventOutcome::NOT_SUBSCRIBED))
                        .map(|event| format!("`{}`, which is not one of the Subscription's events", event.name))
                        .collect();
                    let instead = if others.is_empty() { "nothing".to_owned() } else { others.join(", ") };
                    self.differs(field, format!("the event `{}`", expected.name), instead);
                }
            }
        }
        for (at, event) in found.iter().enumerate().skip(expect.events.len()) {
            let problem = match &event.skipped {
                Some(why) => format!("expected nothing, found an event that goes nowhere: {why}"),
                None => format!("expected nothing, found the event `{}`", event.name),
            };
            self.add(format!("events[{at}]"), problem);
        }
    }

    fn event(&mut self, field: &str, number: usize, expected: &ExpectedEvent, found: &EventOutcome, outcome: &Outcome) {
        if let Some(why) = &found.skipped {
            self.differs(field, format!("the event `{}`", expected.name), format!("one that goes nowhere: {why}"));
            return;
        }
        if found.name != expected.name {
            self.differs(format!("{field}.name"), format!("`{}`", expected.name), format!("`{}`", found.name));
            return;
        }
        let delivery_id = outcome.rehearsal.stored.as_ref().and_then(|stored| stored.delivery_id.as_deref());
        if let Some(expected) = expected.delivery_id.as_deref().filter(|expected| delivery_id != Some(*expected)) {
            self.differs(format!("{field}.deliveryID"), expected, delivery_id.unwrap_or("none"));
        }
        if let Some(item) = expected.item.filter(|item| *item != found.item) {
            self.differs(format!("{field}.item"), item, found.item);
        }
        for (name, expected) in &expected.variables {
            let field = format!("{field}.variables.{name}");
            match found.variables.get(name) {
                Some(value) if value == expected => {}
                Some(value) => self.differs(field, expected, value),
                None => self.differs(field, expected, "that the event has no such variable"),
            }
        }
        for note in &found.notes {
            let known = expected.variables.iter().filter(|(_, value)| value.is_null());
            if !known.into_iter().any(|(name, _)| note.starts_with(&format!("variable {name}: "))) {
                self.add(format!("{field}.variables"), note.clone());
            }
        }
        for (at, expected) in expected.triggers.iter().enumerate() {
            self.trigger(&format!("{field}.triggers[{at}]"), &trigger_name(number, at), expected, found, outcome);
        }
    }

    fn trigger(
        &mut self,
        field: &str,
        name: &str,
        expected: &super::case::ExpectedTrigger,
        found: &EventOutcome,
        outcome: &Outcome,
    ) {
        // One that can never fire would pass as one that does not.
        if let Some((_, why)) = outcome.invalid.iter().find(|(trigger, _)| trigger == name) {
            self.add(field, why.replace("spec.", ""));
            return;
        }
        let found = found.triggers.iter().find(|trigger| trigger.trigger == name);
        let mismatch = found.map(|trigger| trigger.mismatch.as_deref());
        match (expected.fires, mismatch) {
            (_, None) => self.add(field, "was not held against the event"),
            (true, Some(Some(why))) => self.add(field, format!("does not fire: {why}")),
            (false, Some(None)) => self.add(field, "fires, which was not expected"),
            (false, Some(Some(why))) => {
                if let Some(reason) = expected.reason.as_deref().filter(|reason| !why.contains(reason)) {
                    self.differs(format!("{field}.reason"), format!("{reason:?}"), format!("{why:?}"));
                }
            }
            (true, Some(None)) => {}
        }
    }
}
