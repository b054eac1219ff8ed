//! The object that a `resource` runner makes for an event: a manifest, some of whose fields are filled by expressions. No
//! I/O, no clock.
//!
//! What comes from an event becomes the value of a field and nothing else: it chooses neither the kind of the object, nor
//! its name, nor where it is, nor under whose rights it is made.

use super::cel::{Expression, Scope, Variables};
use super::error::{CallError, EvalError, Mistake};
use crate::api::{ResourceField, ResourceRunner};
use serde_json::{Value, json};
use uuid::Uuid;

/// The largest manifest in a trigger, in bytes of JSON.
const MAX_MANIFEST: usize = 64 * 1024;
/// The largest object that is made, in bytes of JSON. etcd stores 1.5 MiB, and some kinds are copied into others.
const MAX_OBJECT: usize = 256 * 1024;
/// The most fields. The schema says the same; objects that are older than it are not checked by it.
const MOST_FIELDS: usize = 64;
/// Label of an object: which event it was made for.
pub const EVENT_LABEL: &str = "bellhop.dev/event-id";
/// Label of an object: the UID of the WorkflowTrigger that it was made for.
pub const TRIGGER_UID_LABEL: &str = "bellhop.dev/trigger-uid";
/// Annotation of an object: the name of the WorkflowTrigger that it was made for.
const TRIGGER_ANNOTATION: &str = "bellhop.dev/trigger";
/// Begins the labels and annotations that nobody but Bellhop sets.
const OWN: &str = "bellhop.dev/";
/// Characters of the trigger's name in the name of an object. Controllers put something behind the name of a Job or a
/// workflow, and a label's value has 63 characters at most.
const PREFIX: usize = 30;
/// Hexadecimal digits of the event's identity in the name of an object.
const DIGITS: usize = 20;

/// A manifest with its expressions, compiled.
#[derive(Debug)]
pub struct ObjectTemplate {
    api_version: String,
    kind: String,
    manifest: Value,
    fields: Vec<(Vec<String>, Expression)>,
}

impl ObjectTemplate {
    /// Compiles what a runner makes; `scope` has what its expressions see.
    ///
    /// # Errors
    /// Every mistake, with its field, and in an expression with its position.
    pub(crate) fn compile(resource: &ResourceRunner, scope: &Scope) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let manifest = Value::Object(resource.manifest.clone());
        let at = |field: &str| format!("spec.runner.resource.manifest{field}");
        let mut text = |field: &str, fits: fn(&str) -> bool, example: &str| match manifest[field].as_str() {
            Some(text) if fits(text) => text.to_owned(),
            _ => {
                let found = &manifest[field];
                let problem = format!("is {found}; expected something like {example}");
                mistakes.push(Mistake::new(at(&format!(".{field}")), problem));
                String::new()
            }
        };
        let api_version = text("apiVersion", is_api_version, "batch/v1");
        let kind = text("kind", is_kind, "Job");
        mistakes.extend(
            metadata(&manifest["metadata"])
                .into_iter()
                .map(|(field, problem)| Mistake::new(at(&format!(".metadata{field}")), problem)),
        );
        let size = manifest.to_string().len();
        if size > MAX_MANIFEST {
            mistakes.push(Mistake::new(at(""), format!("has {size} bytes as JSON; at most {MAX_MANIFEST}")));
        }
        if resource.fields.len() > MOST_FIELDS {
            let problem = format!("has {} entries; at most {MOST_FIELDS}", resource.fields.len());
            return Err([mistakes, vec![Mistake::new("spec.runner.resource.fields", problem)]].concat());
        }
        let mut filled: Vec<(usize, Vec<String>)> = Vec::new();
        let mut fields = Vec::new();
        for (n, ResourceField { path, value }) in resource.fields.iter().enumerate() {
            let field = format!("spec.runner.resource.fields[{n}]");
            let expression = Expression::compile(&format!("{field}.value"), value, scope);
            let expression = expression.map_err(|wrong| mistakes.extend(wrong)).ok();
            match place(&manifest, path, &filled) {
                Ok(tokens) => {
                    filled.push((n, tokens.clone()));
                    fields.extend(expression.map(|expression| (tokens, expression)));
                }
                Err(problem) => mistakes.push(Mistake::new(format!("{field}.path"), problem)),
            }
        }
        if mistakes.is_empty() { Ok(Self { api_version, kind, manifest, fields }) } else { Err(mistakes) }
    }

    /// `apiVersion` of the object, such as `batch/v1`.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// `kind` of the object, such as `Job`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The manifest with its fields filled.
    ///
    /// # Errors
    /// [`CallError::Evaluation`]: the same happens in every attempt.
    pub(crate) fn render(&self, variables: &Variables<'_>) -> Result<Value, CallError> {
        let mut object = self.manifest.clone();
        for (tokens, expression) in &self.fields {
            let value = expression.json(variables)?;
            let place = match tokens.split_last() {
                Some((last, parents)) => {
                    parents.iter().try_fold(&mut object, |at, token| child(at, token)).and_then(|at| entry(at, last))
                }
                None => None,
            };
            // It was there when the manifest was compiled, and no other field fills what it is in.
            let place = place.ok_or_else(|| EvalError::new(expression.field(), "has no place in the manifest"))?;
            *place = value;
        }
        Ok(object)
    }
}

/// Which object is made for which event and trigger.
#[derive(Clone, Copy, Debug)]
pub struct ObjectIdentity<'a> {
    /// Namespace of the trigger.
    pub namespace: &'a str,
    /// Name of the trigger.
    pub trigger: &'a str,
    /// UID of the trigger.
    pub uid: Uuid,
    /// Identity of the event, the same in every attempt.
    pub event: Uuid,
}

impl ObjectIdentity<'_> {
    /// The object's name: the same for the same event and trigger, and another one for any other.
    pub fn name(&self) -> String {
        let prefix: String = self.trigger.replace('.', "-").chars().take(PREFIX).collect();
        let digits = Uuid::new_v5(&self.event, self.uid.as_bytes()).simple().to_string();
        format!("{}-{}", prefix.trim_end_matches('-'), &digits[..DIGITS])
    }

    /// The object with its name, its namespace, and what says where it comes from.
    ///
    /// # Errors
    /// It is too large to be made.
    pub fn complete(&self, mut object: Value) -> Result<Value, String> {
        set(&mut object, &["metadata", "name"], self.name());
        set(&mut object, &["metadata", "namespace"], self.namespace);
        set(&mut object, &["metadata", "labels", EVENT_LABEL], self.event.to_string());
        set(&mut object, &["metadata", "labels", TRIGGER_UID_LABEL], self.uid.to_string());
        set(&mut object, &["metadata", "annotations", TRIGGER_ANNOTATION], self.trigger);
        let size = object.to_string().len();
        match size > MAX_OBJECT {
            true => Err(format!("the object has {size} bytes as JSON; at most {MAX_OBJECT} are made")),
            false => Ok(object),
        }
    }

    /// Whether an object that is there was made for this event and this trigger.
    pub fn made(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        labels[EVENT_LABEL] == self.event.to_string() && labels[TRIGGER_UID_LABEL] == self.uid.to_string()
    }
}

/// Writes a value; what it is in is made if it is not there.
fn set(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    let mut at = object;
    for name in path {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[*name];
    }
    *at = value.into();
}

/// `v1` or `batch/v1`: what may stand in the path of a request.
fn is_api_version(text: &str) -> bool {
    let (group, version) = text.split_once('/').unwrap_or(("g", text));
    let is_group =
        |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    let is_version =
        |text: &str| text.starts_with('v') && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    !group.is_empty() && group != ".." && group != "." && is_group(group) && is_version(version)
}

fn is_kind(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_uppercase()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// What is wrong with `metadata` of a manifest: below which field, and why.
fn metadata(metadata: &Value) -> Vec<(String, String)> {
    let own = |name: &str| (format!(".{name}"), "must be a map of texts, or left out".to_owned());
    let fields = match metadata {
        Value::Null => return Vec::new(),
        Value::Object(fields) => fields,
        _ => return vec![(String::new(), "must be a map with labels and annotations, or left out".to_owned())],
    };
    let mut wrong = Vec::new();
    for (name, value) in fields {
        match (name.as_str(), value) {
            ("labels" | "annotations", Value::Object(entries)) => {
                wrong.extend(entries.keys().filter(|key| key.starts_with(OWN)).map(|key| {
                    (format!(".{name}"), format!("{key}: what begins with {OWN} is set by Bellhop; leave it out"))
                }));
                if !entries.values().all(Value::is_string) {
                    wrong.push(own(name));
                }
            }
            ("labels" | "annotations", _) => wrong.push(own(name)),
            ("name" | "generateName", _) => {
                wrong.push((format!(".{name}"), "leave it out; the name is derived from the event".to_owned()));
            }
            ("namespace", _) => {
                let problem = "leave it out; the object is made in the namespace of the trigger".to_owned();
                wrong.push((".namespace".to_owned(), problem));
            }
            _ => wrong.push((format!(".{name}"), "leave it out; only labels and annotations are taken".to_owned())),
        }
    }
    wrong
}

/// Reads where a field is, and checks that it may be filled and by nobody else.
///
/// # Errors
/// What is wrong with the path.
fn place(manifest: &Value, path: &str, filled: &[(usize, Vec<String>)]) -> Result<Vec<String>, String> {
    let rest = path.strip_prefix('/').ok_or_else(|| format!("{path:?} does not begin with a slash"))?;
    let tokens = rest.split('/').map(unescape).collect::<Result<Vec<String>, String>>()?;
    let words: Vec<&str> = tokens.iter().map(String::as_str).collect();
    match words[..] {
        ["apiVersion" | "kind", ..] => {
            return Err(format!("{path} is the same for every event; write it in the manifest"));
        }
        ["metadata", "labels" | "annotations", name] if !name.starts_with(OWN) => {}
        ["metadata", ..] => {
            return Err(format!(
                "{path} cannot be filled; of metadata, single labels and annotations can, such as /metadata/annotations/note"
            ));
        }
        _ => {}
    }
    exists(manifest, &tokens)?;
    match filled.iter().find(|(_, other)| other.starts_with(&tokens) || tokens.starts_with(other)) {
        Some((other, _)) => Err(format!("{path} is filled by fields[{other}] too, as a whole or in part")),
        None => Ok(tokens),
    }
}

/// A name in a JSON Pointer (RFC 6901, section 4).
fn unescape(token: &str) -> Result<String, String> {
    let lone = token.replace("~0", "").replace("~1", "").contains('~');
    match lone {
        true => Err(format!("{token:?}: a tilde is written ~0, and a slash in a name ~1")),
        false => Ok(token.replace("~1", "/").replace("~0", "~")),
    }
}

/// Checks that what the field is in is there: a map, which need not have the field, or a list, which must.
fn exists(manifest: &Value, tokens: &[String]) -> Result<(), String> {
    let (mut at, mut path) = (manifest, String::new());
    for (n, token) in tokens.iter().enumerate() {
        let parent = if path.is_empty() { "the manifest".to_owned() } else { path.clone() };
        path = format!("{path}/{}", token.replace('~', "~0").replace('/', "~1"));
        at = match at {
            Value::Object(fields) => match fields.get(token) {
                Some(field) => field,
                None if n + 1 == tokens.len() => return Ok(()),
                None => return Err(format!("the manifest has no {path}; write it there, empty if need be")),
            },
            Value::Array(items) => index(token).and_then(|index| items.get(index)).ok_or_else(|| {
                format!("{parent} is a list with {} entries, from 0, and {token:?} is none of them", items.len())
            })?,
            _ => return Err(format!("{parent} is neither a map nor a list, so nothing in it can be filled")),
        };
    }
    Ok(())
}

/// The number of an entry, as RFC 6901 has it: no sign, and no zero before another digit.
fn index(token: &str) -> Option<usize> {
    token.parse().ok().filter(|index: &usize| index.to_string() == token)
}

/// What is there under a name or a number.
fn child<'a>(parent: &'a mut Value, token: &str) -> Option<&'a mut Value> {
    match parent {
        Value::Object(fields) => fields.get_mut(token),
        Value::Array(items) => items.get_mut(index(token)?),
        _ => None,
    }
}

/// The same, where a map is given the name if it does not have it.
fn entry<'a>(parent: &'a mut Value, token: &str) -> Option<&'a mut Value> {
    match parent {
        Value::Object(fields) => Some(fields.entry(token.to_owned()).or_insert(Value::Null)),
        other => child(other, token),
    }
}
