//! What a request says happened: events and their variables.

use super::Plugin;
use super::cel::value::{null, to_json};
use super::cel::{Data, Expression, Variables};
use super::error::{BadBody, EvalError};
use super::request::CallbackRequest;
use super::sample::MadeRequest;
use super::schema::Schema;
use crate::api::VariableType;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Most events that one request may carry.
const MOST_EVENTS: usize = 10_000;

/// A compiled event of a plugin.
#[derive(Debug)]
pub(crate) struct EventKind {
    pub(crate) name: String,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) variables: Vec<Variable>,
    pub(crate) sample: Option<MadeRequest>,
}

#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) schema: Arc<Schema>,
    pub(crate) default: Option<Value>,
    pub(crate) matches: Arc<Expression>,
    /// What `of` is in `matches`.
    pub(crate) of: Option<Arc<Expression>>,
}

#[derive(Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) kind: VariableType,
    pub(crate) value: Arc<Expression>,
    /// What its value is like, beyond its type.
    pub(crate) schema: Option<Arc<Schema>>,
}

/// A request that was read once, for all the expressions about it.
pub struct Reading {
    pub(crate) request: Data,
    pub(crate) body: Data,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

/// One event of a request.
pub struct Event {
    /// Its place in the request, from 0; always 0 where a request carries one event.
    pub item: usize,
    /// Its name in the external system, or why it has none. It need not be one of the plugin's events.
    pub name: Result<String, EvalError>,
    /// Its own id, the same in every request that carries it; nothing where the plugin has none for it, or where an item
    /// before it in the request has the same.
    pub own_id: Option<String>,
    pub(crate) value: Data,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("item", &self.item).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a variable is null, or how it does not fit its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableNote {
    /// Name of the variable.
    pub variable: String,
    /// Why or how, such as `cannot be evaluated: no such key: ref`.
    pub problem: String,
}

impl fmt::Display for VariableNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "variable {}: {}", self.variable, self.problem)
    }
}

impl Reading {
    pub(crate) fn variables<'a>(&'a self, event: &'a Event) -> Variables<'a> {
        Variables::default().with("request", &self.request).with("body", &self.body).with("item", &event.value)
    }
}

impl Plugin {
    /// Whether the event's name, or the number of events, depends on the body. If not,
    /// [`Plugin::event_from_headers`] gives the name.
    pub fn event_needs_body(&self) -> bool {
        self.callback.items.is_some() || self.callback.event.uses("body")
    }

    /// Whether the delivery id depends on the body.
    pub fn delivery_id_needs_body(&self) -> bool {
        self.callback.delivery_id.as_ref().is_some_and(|id| id.uses("body"))
    }

    /// The event's name without a look at the body, or nothing if [`Plugin::event_needs_body`].
    ///
    /// # Errors
    /// The name cannot be evaluated or is no string.
    pub fn event_from_headers(&self, request: &CallbackRequest<'_>) -> Result<Option<String>, EvalError> {
        if self.event_needs_body() {
            return Ok(None);
        }
        if let Some(name) = self.callback.event.header().and_then(|header| request.joined_header(header)) {
            return Ok(Some(name));
        }
        let request = request.to_data();
        self.callback.event.text(&Variables::default().with("request", &request)).map(Some)
    }

    /// The id that stays the same when the external system sends the request again; nothing if the plugin has none,
    /// and then a hash of the body takes its place. The body is parsed only if the id is in it.
    ///
    /// # Errors
    /// The id cannot be evaluated, is no string, or is empty; or the body that it is in cannot be read.
    pub fn delivery_id(&self, request: &CallbackRequest<'_>) -> Result<Option<String>, EvalError> {
        let Some(expression) = &self.callback.delivery_id else { return Ok(None) };
        let fail = |reason: String| EvalError::new(expression.field(), reason);
        if let Some(id) = expression.header().and_then(|header| request.joined_header(header)) {
            return if id.is_empty() { Err(fail("is an empty string".to_owned())) } else { Ok(Some(id)) };
        }
        let body = match expression.uses("body") {
            true => request
                .parse_body(self.callback.payload_field.as_deref())
                .map_err(|error| fail(format!("cannot be evaluated: {error}")))?,
            false => null(),
        };
        let request = request.to_data();
        let id = expression.text(&Variables::default().with("request", &request).with("body", &body))?;
        if id.is_empty() {
            return Err(fail("is an empty string".to_owned()));
        }
        Ok(Some(id))
    }

    /// Whether the body is what its content type and the plugin say, without building anything of it. A request that
    /// passes is one that [`Plugin::read`] reads. An empty body is fine: `body` is null.
    ///
    /// # Errors
    /// See [`BadBody`].
    pub fn check_body(&self, request: &CallbackRequest<'_>) -> Result<(), BadBody> {
        request.check_body(self.callback.payload_field.as_deref())
    }

    /// Reads a request, once for everything that is asked about it.
    ///
    /// # Errors
    /// See [`BadBody`].
    pub fn read(&self, request: &CallbackRequest<'_>) -> Result<Reading, BadBody> {
        let body = request.parse_body(self.callback.payload_field.as_deref())?;
        Ok(Reading { request: request.to_data(), body })
    }

    /// Whether a request means nothing but that the webhook is there.
    pub fn is_ping(&self, reading: &Reading) -> bool {
        let variables = Variables::default().with("request", &reading.request).with("body", &reading.body);
        self.callback.ping.as_ref().is_some_and(|ping| ping.boolean(&variables).unwrap_or(false))
    }

    /// The events of a request, in order. An event whose name cannot be told is there with the reason, so that the
    /// others of the request are not lost with it.
    ///
    /// # Errors
    /// The list of events cannot be evaluated, is no list, or has more than 10,000 items.
    pub fn events(&self, reading: &Reading) -> Result<Vec<Event>, EvalError> {
        self.events_while(reading, || Ok(()))
    }

    /// The same, as long as `may_go_on` allows it, which is asked before each event. Those after that have no name, for the
    /// reason that it gives.
    ///
    /// # Errors
    /// As [`Plugin::events`].
    pub fn events_while(
        &self,
        reading: &Reading,
        may_go_on: impl Fn() -> Result<(), String>,
    ) -> Result<Vec<Event>, EvalError> {
        let values = match &self.callback.items {
            Some(items) => {
                let variables = Variables::default().with("request", &reading.request).with("body", &reading.body);
                items.list(&variables, MOST_EVENTS)?
            }
            None => vec![null()],
        };
        let mut ids = HashSet::new();
        let events = values.into_iter().enumerate().map(|(item, value)| {
            let mut event = Event { item, name: Ok(String::new()), own_id: None, value };
            if let Err(why) = may_go_on() {
                event.name = Err(EvalError::new(self.callback.event.field(), format!("is not evaluated: {why}")));
                return event;
            }
            let variables = reading.variables(&event);
            let id = self.callback.item_id.as_ref().and_then(|id| id.text(&variables).ok());
            let name = self.callback.event.text(&variables);
            event.name = name;
            event.own_id = id.filter(|id| !id.is_empty() && ids.insert(id.clone()));
            event
        });
        Ok(events.collect())
    }

    /// The variables that an event hands to a workflow. One that cannot be evaluated, or is not of its type, is null
    /// with a note; so is every payload's own null, without a note. One that does not fit its schema is there, with a note.
    /// An event that the plugin does not list has none.
    pub fn variables(&self, reading: &Reading, event: &Event) -> (Map<String, Value>, Vec<VariableNote>) {
        let (mut values, mut notes) = (Map::new(), Vec::new());
        let kind = event.name.as_ref().ok().and_then(|name| self.event(name));
        for variable in kind.map(|kind| kind.variables.as_slice()).unwrap_or_default() {
            let read = |value: &dyn cel::common::value::Val| to_json(value).and_then(|json| typed(variable.kind, json));
            let value = variable.value.evaluate(&reading.variables(event), read).unwrap_or_else(|error| {
                notes.push(VariableNote { variable: variable.name.clone(), problem: error.reason });
                Value::Null
            });
            if let Some(problem) = variable.schema.as_ref().and_then(|schema| misfit(schema, &value)) {
                notes.push(VariableNote { variable: variable.name.clone(), problem });
            }
            values.insert(variable.name.clone(), value);
        }
        (values, notes)
    }

    pub(crate) fn event(&self, name: &str) -> Option<&EventKind> {
        self.event_index.get(name).and_then(|at| self.events.get(*at))
    }
}

/// How a value does not fit its schema. The external system has its own mind about payloads: who reads the log is told, and
/// the event is not held back.
fn misfit(schema: &Schema, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let mistakes = schema.check("value", value).err()?;
    let first = mistakes.first()?;
    let more = match mistakes.len() - 1 {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Some(format!("does not fit its schema: {first}{more}"))
}

/// A value that is of the type, or says which it is instead.
fn typed(wanted: VariableType, json: Value) -> Result<Value, String> {
    let name = wanted.as_str();
    let fits = match (wanted, &json) {
        (_, Value::Null)
        | (VariableType::String, Value::String(_))
        | (VariableType::Number, Value::Number(_))
        | (VariableType::Boolean, Value::Bool(_))
        | (VariableType::Array, Value::Array(_))
        | (VariableType::Object, Value::Object(_)) => true,
        (VariableType::Integer, Value::Number(number)) => number.is_i64() || number.is_u64(),
        _ => false,
    };
    let found = match &json {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    if fits { Ok(json) } else { Err(format!("is {found}, not of type {name}")) }
}
