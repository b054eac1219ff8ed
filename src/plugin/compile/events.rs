//! `spec.definitions` and `spec.events`.

use super::super::cel::{Expression, Scope};
use super::super::definitions::{WholeEvent, WholeParameter, Written, whole_events};
use super::super::event::{EventKind, Parameter, Variable};
use super::super::sample::MadeRequest;
use super::super::schema::Schema;
use super::Compiler;
use crate::api::{self, PluginEvent};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was compiled already, by the path of its field: a definition is compiled once, whatever uses it, and its mistakes
/// are told once.
#[derive(Default)]
struct Shared {
    expressions: BTreeMap<String, Arc<Expression>>,
    /// Nothing is there for a schema with a mistake.
    schemas: BTreeMap<String, Option<Arc<Schema>>>,
}

impl Compiler<'_> {
    /// The events, and where each is by its name.
    pub(super) fn events(&mut self) -> (Vec<EventKind>, BTreeMap<String, usize>) {
        let spec = self.spec;
        let mut shared = Shared::default();
        // Sets that no event includes are looked through too, as if each were an event.
        let alone: Vec<PluginEvent> = spec.definitions.sets.keys().map(|name| only(name)).collect();
        self.event_kinds(&mut shared, &whole_events(&spec.definitions, &alone).0);
        let of = self.item_scope().any("value").any("of");
        for (name, definition) in &spec.definitions.parameters {
            let field = format!("spec.definitions.parameters.{name}");
            self.shared_schema(&mut shared, &Written { field: format!("{field}.schema"), value: &definition.schema });
            self.shared(&mut shared, &Written { field: format!("{field}.match"), value: &definition.matches }, &of);
        }

        if spec.events.is_empty() {
            self.mistake("spec.events", "is empty; a plugin has at least one event");
        }
        let mut index = BTreeMap::new();
        for (at, event) in spec.events.iter().enumerate() {
            if index.insert(event.name.clone(), at).is_some() {
                let problem = format!("the event `{}` is there twice", event.name);
                self.mistake(format!("spec.events[{at}].name"), problem);
            }
        }
        let (whole, mistakes) = whole_events(&spec.definitions, &spec.events);
        self.mistakes.extend(mistakes);
        let mut kinds = self.event_kinds(&mut shared, &whole);
        for (at, (kind, event)) in kinds.iter_mut().zip(&spec.events).enumerate() {
            let made =
                event.sample.as_ref().map(|sample| MadeRequest::of(&format!("spec.events[{at}].sample"), sample));
            kind.sample = made.and_then(|made| self.keep(made.map_err(|mistake| vec![mistake])));
        }
        (kinds, index)
    }

    fn event_kinds(&mut self, shared: &mut Shared, whole: &[WholeEvent<'_>]) -> Vec<EventKind> {
        let scope = self.item_scope();
        let mut kinds = Vec::new();
        for event in whole {
            let mut parameters = Vec::new();
            for (name, parameter) in &event.parameters {
                parameters.extend(self.parameter(shared, name, parameter));
            }
            let mut variables = Vec::new();
            for (name, variable) in &event.variables {
                let source = Written { field: format!("{}.value", variable.field), value: &variable.value.value };
                let value = self.shared(shared, &source, &scope);
                let schema = self.variable_schema(shared, variable);
                variables.push(Variable { name: (*name).to_owned(), kind: variable.value.type_, value, schema });
            }
            kinds.push(EventKind { name: event.event.name.clone(), parameters, variables, sample: None });
        }
        kinds
    }

    fn parameter(&mut self, shared: &mut Shared, name: &str, parameter: &WholeParameter<'_>) -> Option<Parameter> {
        let scope = self.item_scope();
        let matching = scope.clone().any("value");
        let matching = if parameter.definition.is_some() { matching.any("of") } else { matching };
        let matches = self.shared(shared, &parameter.matches, &matching);
        let of = parameter.of.as_ref().map(|of| self.shared(shared, of, &scope));
        if let Some(definition) = parameter.definition
            // An expression with a mistake mentions nothing.
            && !matches.source().is_empty()
            && matches.uses("of") != of.is_some()
        {
            let problem = match of {
                Some(_) => format!("the definition `{definition}` does not mention `of`; leave it out"),
                None => format!("is missing; it says what the definition `{definition}` is about, such as body.action"),
            };
            self.once(format!("{}.of", parameter.field), problem);
        }
        let schema = self.shared_schema(shared, &parameter.schema)?;
        let default = parameter.schema.value.get("default").cloned();
        Some(Parameter { name: name.to_owned(), schema, default, matches, of })
    }

    /// The schema of a variable. It says no other type than the variable does: a value of another one never gets that far.
    fn variable_schema(&mut self, shared: &mut Shared, variable: &Written<'_, api::Variable>) -> Option<Arc<Schema>> {
        let (type_, schema) = (variable.value.type_.as_str(), variable.value.schema.as_ref()?);
        let field = format!("{}.schema", variable.field);
        if schema.get("type").is_some_and(|other| other != type_) {
            let problem = format!("is {}, and the variable is of type {type_}; leave it out", schema["type"]);
            self.once(format!("{field}.type"), problem);
        }
        self.shared_schema(shared, &Written { field, value: schema })
    }

    /// A mistake that may be in a set, once for all events that include the set.
    fn once(&mut self, field: String, problem: String) {
        if !self.mistakes.iter().any(|mistake| mistake.field == field) {
            self.mistake(field, problem);
        }
    }

    fn shared(&mut self, shared: &mut Shared, source: &Written<'_, String>, scope: &Scope) -> Arc<Expression> {
        if let Some(known) = shared.expressions.get(&source.field) {
            return Arc::clone(known);
        }
        let compiled = Arc::new(self.expression(&source.field, source.value, scope));
        shared.expressions.insert(source.field.clone(), Arc::clone(&compiled));
        compiled
    }

    fn shared_schema(&mut self, shared: &mut Shared, schema: &Written<'_, Map<String, Value>>) -> Option<Arc<Schema>> {
        if let Some(known) = shared.schemas.get(&schema.field) {
            return known.clone();
        }
        let compiled = Schema::compile(&schema.field, schema.value).map_err(|mistake| vec![mistake]);
        let compiled = self.keep(compiled);
        if let (Some(compiled), Some(default)) = (&compiled, schema.value.get("default")) {
            self.keep(compiled.check(&format!("{}.default", schema.field), default));
        }
        let compiled = compiled.map(Arc::new);
        shared.schemas.insert(schema.field.clone(), compiled.clone());
        compiled
    }
}

/// An event that has nothing but this set.
fn only(set: &str) -> PluginEvent {
    PluginEvent {
        name: set.to_owned(),
        title: String::new(),
        includes: vec![set.to_owned()],
        parameters: BTreeMap::new(),
        variables: BTreeMap::new(),
        sample: None,
    }
}
