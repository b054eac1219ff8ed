//! Which events start a trigger's workflow.

use super::Plugin;
use super::cel::value::{from_json, from_object, integer, own, record, string};
use super::cel::{Data, Expression, Scope, Variables, with_stack};
use super::error::{EvalError, Mismatch, Mistake, TriggerMistake, nearest};
use super::event::{Event, Reading};
use super::schema::unknown;
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;

/// The Subscription that an event came in by.
#[derive(Clone, Copy, Debug)]
pub struct SubscriptionInfo<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// A compiled trigger: one event of a plugin, with parameters and a filter.
pub struct Trigger {
    event: String,
    parameters: Vec<Set>,
    filter: Option<Expression>,
}

struct Set {
    name: String,
    value: Data,
    matches: Arc<Expression>,
    of: Option<Arc<Expression>>,
}

impl Set {
    /// Whether the event passes. What `of` names is a value of its own, because the definition that mentions it is one
    /// expression for all the parameters that use it.
    fn passes(&self, reading: &Reading, event: &Event) -> Result<bool, EvalError> {
        let variables = || reading.variables(event).with("value", &self.value);
        match &self.of {
            None => self.matches.boolean(&variables()),
            Some(of) => {
                let of = of.evaluate(&reading.variables(event), own)?;
                self.matches.boolean(&variables().with("of", &of))
            }
        }
    }
}

impl fmt::Debug for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parameters: Vec<&str> = self.parameters.iter().map(|set| set.name.as_str()).collect();
        f.debug_struct("Trigger")
            .field("event", &self.event)
            .field("parameters", &parameters)
            .field("filter", &self.filter)
            .finish()
    }
}

impl Plugin {
    /// Compiles a trigger on `event`. Parameters that are not set take their schema's default; without one they are
    /// not asked.
    ///
    /// # Errors
    /// The plugin has no such event, a parameter is unknown or does not fit its schema, or the filter is wrong.
    pub fn compile_trigger(
        &self,
        event: &str,
        parameters: &Map<String, Value>,
        filter: Option<&str>,
    ) -> Result<Trigger, TriggerMistake> {
        let kind = self.event(event).ok_or_else(|| TriggerMistake::UnknownEvent {
            plugin: self.name().to_owned(),
            event: event.to_owned(),
            nearest: nearest(event, self.events.iter().map(|kind| kind.name.as_str())).map(str::to_owned),
        })?;
        let mut mistakes = Vec::new();
        let known: Vec<String> = kind.parameters.iter().map(|parameter| parameter.name.clone()).collect();
        for name in parameters.keys().filter(|name| !known.contains(name)) {
            mistakes.push(unknown("spec.parameters", name, &known));
        }
        let mut set = Vec::new();
        for parameter in &kind.parameters {
            let Some(value) = parameters.get(&parameter.name).or(parameter.default.as_ref()) else { continue };
            match parameter.schema.check(&format!("spec.parameters.{}", parameter.name), value) {
                Ok(()) => set.push(Set {
                    name: parameter.name.clone(),
                    value: from_json(value),
                    matches: Arc::clone(&parameter.matches),
                    of: parameter.of.clone(),
                }),
                Err(found) => mistakes.extend(found),
            }
        }
        if !mistakes.is_empty() {
            return Err(TriggerMistake::InvalidParameters(mistakes));
        }
        let filter = filter.map(|source| self.compile_filter(event, source)).transpose();
        let filter = filter.map_err(TriggerMistake::InvalidFilter)?;
        Ok(Trigger { event: event.to_owned(), parameters: set, filter })
    }

    fn compile_filter(&self, event: &str, source: &str) -> Result<Expression, Mistake> {
        let variables = self.event(event).map(|kind| kind.variables.as_slice()).unwrap_or_default();
        let scope = Scope::default()
            .of_workspace()
            .record("variables", variables.iter().map(|variable| variable.name.as_str()))
            .record("event", ["name", "item"])
            .record("subscription", ["namespace", "name"]);
        let field = "spec.filter";
        let mistakes = match with_stack(field, || Expression::compile(field, source, &scope))? {
            Ok(expression) => return Ok(expression),
            Err(mistakes) => mistakes,
        };
        let problems: Vec<String> = mistakes.into_iter().map(|mistake| mistake.problem).collect();
        Err(Mistake::new(field, problems.join("; ")))
    }
}

impl Trigger {
    /// The event's name.
    pub fn event(&self) -> &str {
        &self.event
    }

    /// Whether the event starts the workflow. `variables` are what [`Plugin::variables`] gave for it.
    ///
    /// # Errors
    /// The first reason why not. What cannot be evaluated does not match.
    pub fn matches(
        &self,
        reading: &Reading,
        event: &Event,
        variables: &Map<String, Value>,
        subscription: SubscriptionInfo<'_>,
    ) -> Result<(), Mismatch> {
        let name = event.name.as_deref().unwrap_or_default();
        if name != self.event {
            return Err(Mismatch::OtherEvent { wanted: self.event.clone(), found: name.to_owned() });
        }
        for set in &self.parameters {
            match set.passes(reading, event) {
                Ok(true) => {}
                Ok(false) => return Err(Mismatch::Parameter { name: set.name.clone() }),
                Err(error) => {
                    return Err(Mismatch::ParameterFailed { name: set.name.clone(), reason: error.reason });
                }
            }
        }
        let Some(filter) = &self.filter else { return Ok(()) };
        let variables = from_object(variables);
        let event = record([("name", string(name)), ("item", integer(i64::try_from(event.item).unwrap_or(i64::MAX)))]);
        let subscription = record([("namespace", string(subscription.namespace)), ("name", string(subscription.name))]);
        let scope = Variables::default()
            .with("variables", &variables)
            .with("event", &event)
            .with("subscription", &subscription);
        match filter.boolean(&scope) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Mismatch::Filter),
            Err(error) => Err(Mismatch::FilterFailed { reason: error.reason }),
        }
    }
}
