//! Events of a TriggerPlugin, and the building blocks that they share.

use super::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Building blocks that events share, so that fifty events need not repeat one filter fifty times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Definitions {
    /// Kinds of parameters, by the name that parameters `use`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub parameters: BTreeMap<String, ParameterDefinition>,
    /// Sets of parameters and variables, by the name that events list in `includes`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub sets: BTreeMap<String, EventSet>,
}

impl Definitions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty() && self.sets.is_empty()
    }
}

/// A kind of parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParameterDefinition {
    /// JSON schema of the value, as in an event's parameter.
    #[schemars(schema_with = "super::schema::free_object")]
    pub schema: serde_json::Map<String, serde_json::Value>,
    /// CEL expression as in an event's parameter, which may also mention `of`: what the parameter that uses this
    /// definition is about, such as `glob(value, of)`.
    #[serde(rename = "match")]
    pub matches: String,
    /// What a parameter of this kind is for, where the parameter itself does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Parameters and variables that several events have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventSet {
    /// Parameters, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, EventParameter>,
    /// Variables, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Variable>,
}

/// One event of the external system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginEvent {
    /// The event's name: what `callback.event` gives, and what Subscriptions and WorkflowTriggers name.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Name that people read.
    #[schemars(length(min = 1, max = 200))]
    pub title: String,
    /// Names of `definitions.sets` whose parameters and variables the event has besides its own. Its own come before one
    /// of the same name in a set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub includes: Vec<String>,
    /// Parameters that a WorkflowTrigger may set, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, EventParameter>,
    /// Variables that the event hands to a workflow, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, Variable>,
    /// A request with this event, for those who try a trigger with `bellhop send`. It is not signed; the id of its delivery
    /// and its signature are made anew each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<EventSample>,
}

/// A request as the external system sends it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventSample {
    /// HTTP method.
    #[serde(default = "post")]
    pub method: Method,
    /// Headers: name to value, without those that prove the sender.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Query without the question mark.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub query: String,
    /// The body, at most 64 KiB: a string is sent as it is, everything else as JSON, with the header `content-type` that
    /// says so unless `headers` has another one. Left out: it is empty.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    #[schemars(schema_with = "super::schema::free_value")]
    pub body: serde_json::Value,
}

fn post() -> Method {
    Method::Post
}

/// A parameter of an event that a WorkflowTrigger may set: `schema` and `match`, or one of the plugin's definitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventParameter {
    /// Name of one of `definitions.parameters`, which gives `match`, and `schema` where the parameter has none of its own.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// CEL expression over `request`, `body` and `item`: what `of` is in the definition's `match`, such as `body.action`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// JSON schema of the value; `default` in it is used where a trigger does not set the parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::free_object")]
    pub schema: Option<serde_json::Map<String, serde_json::Value>>,
    /// CEL expression over `value`, `request`, `body` and `item`: whether the event passes. Asked only for a parameter
    /// that has a value. What cannot be evaluated does not pass.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// What the parameter is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A variable that an event hands to a workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// JSON type of the value: `string`, `integer`, `number`, `boolean`, `array` or `object`. A value of another type is null.
    #[serde(rename = "type")]
    pub type_: VariableType,
    /// CEL expression over `request`, `body` and `item`. A value that cannot be evaluated is `null`.
    pub value: String,
    /// JSON schema of the value, for what `type` does not say, such as the items of an array. A value that does not fit
    /// arrives all the same, and the log has a note; `null` is not held against it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::schema::free_object")]
    pub schema: Option<serde_json::Map<String, serde_json::Value>>,
    /// What the variable means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// JSON type of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum VariableType {
    String,
    Integer,
    Number,
    Boolean,
    Array,
    Object,
}

impl VariableType {
    /// As it is written, which is how JSON schemas write it too.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}
