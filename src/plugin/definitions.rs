//! What events take from the plugin's `definitions`: each event as if it had been written out.

use super::error::{Mistake, nearest};
use crate::api::{Definitions, EventParameter, PluginEvent, Variable};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A value of the plugin with the path of the field that it was written in.
#[derive(Debug)]
pub struct Written<'a, T> {
    /// Path, such as `spec.definitions.parameters.globs.match`.
    pub field: String,
    /// What stands there.
    pub value: &'a T,
}

impl<T> Clone for Written<'_, T> {
    fn clone(&self) -> Self {
        Self { field: self.field.clone(), value: self.value }
    }
}

/// An event with all that it has, its own and what it includes.
#[derive(Clone, Debug)]
pub struct WholeEvent<'a> {
    /// The event as it was written.
    pub event: &'a PluginEvent,
    /// Its parameters, by name.
    pub parameters: BTreeMap<&'a str, WholeParameter<'a>>,
    /// Its variables, by name.
    pub variables: BTreeMap<&'a str, Written<'a, Variable>>,
}

/// A parameter with what it takes from its definition.
#[derive(Clone, Debug)]
pub struct WholeParameter<'a> {
    /// Path of the parameter itself.
    pub field: String,
    /// JSON schema of its value.
    pub schema: Written<'a, Map<String, Value>>,
    /// Whether an event passes.
    pub matches: Written<'a, String>,
    /// What `of` is in `matches`. Only a parameter with a definition can have it.
    pub of: Option<Written<'a, String>>,
    /// The definition's name.
    pub definition: Option<&'a str>,
    /// What it is for.
    pub description: Option<&'a str>,
}

/// The events as if each had been written out, and every reference that leads nowhere. A parameter with such a mistake is
/// left out of its event.
pub fn whole_events<'a>(
    definitions: &'a Definitions,
    events: &'a [PluginEvent],
) -> (Vec<WholeEvent<'a>>, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    let sets: BTreeMap<&str, (Parameters<'_>, Variables<'_>)> = definitions
        .sets
        .iter()
        .map(|(name, set)| {
            let field = format!("spec.definitions.sets.{name}");
            let parameters = whole_parameters(definitions, &field, &set.parameters, &mut mistakes);
            (name.as_str(), (parameters, written_variables(&field, &set.variables)))
        })
        .collect();
    let mut whole = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let field = format!("spec.events[{at}]");
        let mut parameters = whole_parameters(definitions, &field, &event.parameters, &mut mistakes);
        let mut variables = written_variables(&field, &event.variables);
        let mut included: BTreeMap<String, &str> = BTreeMap::new();
        for (at, name) in event.includes.iter().enumerate() {
            let field = format!("{field}.includes[{at}]");
            let Some((more_parameters, more_variables)) = sets.get(name.as_str()) else {
                mistakes.push(absent(&field, "set", name, sets.keys().copied()));
                continue;
            };
            let what = more_parameters.keys().filter(|key| !event.parameters.contains_key(**key));
            let what = what.map(|key| format!("parameter `{key}`"));
            let also = more_variables.keys().filter(|key| !event.variables.contains_key(**key));
            for what in what.chain(also.map(|key| format!("variable `{key}`"))) {
                if let Some(other) = included.insert(what.clone(), name) {
                    let problem = format!("the {what} is in the set `{other}` too; include one of them");
                    mistakes.push(Mistake::new(&field, problem));
                }
            }
            for (key, parameter) in more_parameters {
                parameters.entry(key).or_insert_with(|| parameter.clone());
            }
            for (key, variable) in more_variables {
                variables.entry(key).or_insert_with(|| variable.clone());
            }
        }
        whole.push(WholeEvent { event, parameters, variables });
    }
    (whole, mistakes)
}

type Parameters<'a> = BTreeMap<&'a str, WholeParameter<'a>>;
type Variables<'a> = BTreeMap<&'a str, Written<'a, Variable>>;

fn written_variables<'a>(field: &str, variables: &'a BTreeMap<String, Variable>) -> Variables<'a> {
    let written = |name: &str, value| Written { field: format!("{field}.variables.{name}"), value };
    variables.iter().map(|(name, variable)| (name.as_str(), written(name, variable))).collect()
}

fn whole_parameters<'a>(
    definitions: &'a Definitions,
    field: &str,
    parameters: &'a BTreeMap<String, EventParameter>,
    mistakes: &mut Vec<Mistake>,
) -> Parameters<'a> {
    let mut whole = BTreeMap::new();
    for (name, parameter) in parameters {
        match whole_parameter(definitions, format!("{field}.parameters.{name}"), parameter) {
            Ok(parameter) => {
                whole.insert(name.as_str(), parameter);
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    whole
}

fn whole_parameter<'a>(
    definitions: &'a Definitions,
    field: String,
    parameter: &'a EventParameter,
) -> Result<WholeParameter<'a>, Mistake> {
    let own_schema = parameter.schema.as_ref().map(|value| Written { field: format!("{field}.schema"), value });
    let description = parameter.description.as_deref();
    let Some(name) = parameter.definition.as_deref() else {
        if parameter.of.is_some() {
            return Err(Mistake::new(format!("{field}.of"), "belongs to `use`, which is not there"));
        }
        let missing =
            |what: &str| Mistake::new(format!("{field}.{what}"), "is missing; write it, or `use` a definition");
        let schema = own_schema.ok_or_else(|| missing("schema"))?;
        let matches = parameter.matches.as_ref().ok_or_else(|| missing("match"))?;
        let matches = Written { field: format!("{field}.match"), value: matches };
        return Ok(WholeParameter { field, schema, matches, of: None, definition: None, description });
    };
    if parameter.matches.is_some() {
        let problem = format!("the definition `{name}` has it; leave out `match` or `use`");
        return Err(Mistake::new(format!("{field}.match"), problem));
    }
    let Some(definition) = definitions.parameters.get(name) else {
        let known = definitions.parameters.keys().map(String::as_str);
        return Err(absent(&format!("{field}.use"), "definition", name, known));
    };
    let at = format!("spec.definitions.parameters.{name}");
    Ok(WholeParameter {
        schema: own_schema.unwrap_or_else(|| Written { field: format!("{at}.schema"), value: &definition.schema }),
        matches: Written { field: format!("{at}.match"), value: &definition.matches },
        of: parameter.of.as_ref().map(|value| Written { field: format!("{field}.of"), value }),
        definition: Some(name),
        description: description.or(definition.description.as_deref()),
        field,
    })
}

fn absent<'a>(field: &str, kind: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Mistake {
    let hint = nearest(name, known.clone()).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    let known = known.collect::<Vec<_>>().join(", ");
    let there = if known.is_empty() { "there are none".to_owned() } else { format!("there are: {known}") };
    Mistake::new(field, format!("there is no {kind} `{name}`; {hint}{there}"))
}
