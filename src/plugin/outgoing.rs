//! What is sent to a runner: `spec.runner` of a WorkflowTrigger, compiled. No I/O, no clock.

use super::Plugin;
use super::call::{add_headers, http_method, write_body};
use super::cel::value::{from_json, integer, record, string};
use super::cel::{Data, Expression, Scope, Variables, with_stack};
use super::compile::RESERVED;
use super::error::{CallError, Mistake};
use super::resource::ObjectTemplate;
use super::secret::Secret;
use crate::api::{BodyEncoding, EventFormat, Method, ResourceRunner, Runner, RunnerRequest};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use uuid::Uuid;

/// More headers that belong to the HTTP client; the first three are of single connections, as RFC 9110 has it.
const OF_THE_CLIENT: &[&str] = &["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization"];
/// The most headers of a runner. The schema says the same; objects that are older than it are not checked by it.
const MOST_HEADERS: usize = 32;
/// The longest value of a header, in bytes. Servers refuse requests with more than 8 KiB to 16 KiB of headers.
const LONGEST_HEADER: usize = 4096;

/// What is sent to a runner, compiled. It never changes; share it in an `Arc`.
pub struct Outgoing {
    shape: Shape,
    headers: Vec<(HeaderName, Expression)>,
    credentials: BTreeSet<String>,
}

enum Shape {
    Event(EventFormat),
    Request { method: Method, body: Option<Box<Expression>>, encoding: BodyEncoding },
    Object(Box<ObjectTemplate>),
}

/// What expressions about a delivery see.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// `variables`: what the event hands to workflows.
    pub variables: &'a Value,
    /// `event.id`: the same in every attempt.
    pub id: Uuid,
    /// `event.name`
    pub event: &'a str,
    /// `event.item`: its place in the request, from 0.
    pub item: u32,
    /// `event.type`: the type of the CloudEvent.
    pub type_: &'a str,
    /// `event.time`: when the request was accepted, as RFC 3339 has it.
    pub time: &'a str,
    /// `subscription.namespace`
    pub namespace: &'a str,
    /// `subscription.name`
    pub subscription: &'a str,
    /// `subscription.plugin`: name of the TriggerPlugin.
    pub plugin: &'a str,
    /// `trigger.name`
    pub trigger: &'a str,
    /// `trigger.workflow`
    pub workflow: &'a str,
    /// `delivery.attempt`: from 1.
    pub attempt: u32,
}

/// What a runner's expressions gave.
#[derive(Debug)]
pub enum Rendered {
    /// A CloudEvent in this format, with these headers besides its own.
    Event(EventFormat, HeaderMap),
    /// A request of this method, these headers, the content type among them, and this body.
    Request(http::Method, HeaderMap, Bytes),
    /// An object of the cluster, with its fields filled, and without a name.
    Object(Value),
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Outgoing").field("headers", &names).finish_non_exhaustive()
    }
}

impl Plugin {
    /// Compiles what is sent to a runner for an event of this plugin: `variables` has the event's variables alone. For
    /// an event that the plugin does not have, nothing is known of them.
    ///
    /// # Errors
    /// Every mistake, with its field, and in an expression with its position.
    pub fn compile_runner(&self, event: &str, runner: &Runner) -> Result<Outgoing, Vec<Mistake>> {
        let variables = self.event(event).map(|kind| kind.variables.iter().map(|v| v.name.clone()).collect());
        Outgoing::compile(runner, variables)
    }
}

impl Outgoing {
    /// Compiles what is sent to a runner. `variables` are the names of the event's variables, if they are known.
    ///
    /// # Errors
    /// Every mistake, with its field, and in an expression with its position.
    pub fn compile(runner: &Runner, variables: Option<Vec<String>>) -> Result<Self, Vec<Mistake>> {
        let compile = || {
            let scope = match variables {
                Some(names) => Scope::default().record("variables", names),
                None => Scope::default().any("variables"),
            };
            let scope = scope
                .of_workspace()
                .record("event", ["id", "name", "item", "type", "time"])
                .record("subscription", ["namespace", "name", "plugin"])
                .record("trigger", ["name", "workflow"])
                .record("delivery", ["attempt"]);
            Compiler { scope, mistakes: Vec::new() }.outgoing(runner)
        };
        // Only an expression needs the stack, and most runners have none.
        let plain = runner.headers.is_empty()
            && runner.request.as_ref().is_none_or(|request| request.body.is_none())
            && runner.resource.as_ref().is_none_or(|resource| resource.fields.is_empty());
        match plain {
            true => compile(),
            false => with_stack("spec.runner", compile).unwrap_or_else(|mistake| Err(vec![mistake])),
        }
    }

    /// The keys of the Secret with the credentials that headers use.
    pub fn credential_keys(&self) -> &BTreeSet<String> {
        &self.credentials
    }

    /// What is made for each event, if the runner is the cluster.
    pub fn object(&self) -> Option<&ObjectTemplate> {
        match &self.shape {
            Shape::Object(template) => Some(template),
            Shape::Event(_) | Shape::Request { .. } => None,
        }
    }

    /// What is sent, with these credentials by their keys.
    ///
    /// # Errors
    /// [`CallError::MissingCredential`], [`CallError::Evaluation`], [`CallError::InvalidHeader`] or
    /// [`CallError::InvalidBody`]: the same happens in every attempt, until the trigger, its Secret or the plugin changes.
    pub fn render(&self, facts: &Facts<'_>, credentials: &BTreeMap<String, Secret>) -> Result<Rendered, CallError> {
        let number = |number: u32| integer(i64::from(number));
        let variables = from_json(facts.variables);
        let event: Data = record([
            ("id", string(facts.id.to_string())),
            ("name", string(facts.event)),
            ("item", number(facts.item)),
            ("type", string(facts.type_)),
            ("time", string(facts.time)),
        ]);
        let subscription: Data = record([
            ("namespace", string(facts.namespace)),
            ("name", string(facts.subscription)),
            ("plugin", string(facts.plugin)),
        ]);
        let trigger: Data = record([("name", string(facts.trigger)), ("workflow", string(facts.workflow))]);
        let delivery: Data = record([("attempt", number(facts.attempt))]);
        let scope = || {
            Variables::default()
                .with("variables", &variables)
                .with("event", &event)
                .with("subscription", &subscription)
                .with("trigger", &trigger)
                .with("delivery", &delivery)
        };
        let mut known: Vec<(&str, Data)> = Vec::new();
        for key in &self.credentials {
            let text = credentials.get(key).and_then(Secret::expose_str).filter(|text| !text.is_empty());
            known.push((key, string(text.ok_or_else(|| CallError::MissingCredential(key.clone()))?)));
        }
        let credentials: Data = record(known);
        let mut headers = HeaderMap::new();
        let body = match &self.shape {
            Shape::Request { body: Some(body), encoding, .. } => {
                let (content_type, body) = write_body(body, *encoding, &scope())?;
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
                body
            }
            _ => Bytes::new(),
        };
        add_headers(&mut headers, &self.headers, &scope().with("credentials", &credentials))?;
        for (name, expression) in &self.headers {
            if headers.get(name).is_some_and(|value| value.len() > LONGEST_HEADER) {
                let problem = format!("has more than {LONGEST_HEADER} bytes, which servers do not take");
                return Err(super::EvalError::new(expression.field(), problem).into());
            }
        }
        Ok(match &self.shape {
            Shape::Event(format) => Rendered::Event(*format, headers),
            Shape::Request { method, .. } => Rendered::Request(http_method(*method), headers, body),
            Shape::Object(template) => Rendered::Object(template.render(&scope())?),
        })
    }
}

struct Compiler {
    scope: Scope,
    mistakes: Vec<Mistake>,
}

impl Compiler {
    fn mistake(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.push(Mistake::new(field, problem));
    }

    fn expression(&mut self, field: &str, source: &str, scope: &Scope) -> Expression {
        Expression::compile(field, source, scope).unwrap_or_else(|mistakes| {
            self.mistakes.extend(mistakes);
            Expression::invalid()
        })
    }

    fn outgoing(mut self, runner: &Runner) -> Result<Outgoing, Vec<Mistake>> {
        if let Some(resource) = &runner.resource {
            return self.object(runner, resource);
        }
        let shape = match &runner.request {
            Some(request) => {
                if runner.format.is_some() {
                    self.mistake("spec.runner.format", "is how a CloudEvent is written; leave it out beside request");
                }
                self.request(request)
            }
            None => Shape::Event(runner.format.unwrap_or_default()),
        };
        let headers = self.headers(runner, matches!(shape, Shape::Event(_)));
        let credentials: BTreeSet<String> =
            headers.iter().flat_map(|(_, value)| value.fields_of("credentials").map(str::to_owned)).collect();
        match (&runner.credentials, credentials.is_empty()) {
            (Some(_), true) if self.mistakes.is_empty() => {
                let problem = "no header uses them by a key, such as `'Bearer ' + credentials.token`; \
                               leave them out, or write runner.headers";
                self.mistake("spec.runner.credentials", problem);
            }
            (None, false) => {
                let problem = "is missing; headers use `credentials`, which are the content of that Secret";
                self.mistake("spec.runner.credentials.secretRef", problem);
            }
            _ => {}
        }
        if self.mistakes.is_empty() { Ok(Outgoing { shape, headers, credentials }) } else { Err(self.mistakes) }
    }

    fn object(mut self, runner: &Runner, resource: &ResourceRunner) -> Result<Outgoing, Vec<Mistake>> {
        for (name, is_set) in [
            ("format", runner.format.is_some()),
            ("headers", !runner.headers.is_empty()),
            ("request", runner.request.is_some()),
            ("credentials", runner.credentials.is_some()),
            ("signature", runner.signature.is_some()),
        ] {
            if is_set {
                self.mistake(format!("spec.runner.{name}"), "is about HTTP; leave it out beside resource");
            }
        }
        let template = ObjectTemplate::compile(resource, &self.scope).map_err(|wrong| self.mistakes.extend(wrong));
        match template {
            Ok(template) if self.mistakes.is_empty() => {
                let shape = Shape::Object(Box::new(template));
                Ok(Outgoing { shape, headers: Vec::new(), credentials: BTreeSet::new() })
            }
            _ => Err(self.mistakes),
        }
    }

    fn request(&mut self, request: &RunnerRequest) -> Shape {
        let field = "spec.runner.request.body";
        if request.method == Method::Get && request.body.is_some() {
            self.mistake(field, "a GET request has no body; leave it out, or use another method");
        }
        let scope = self.scope.clone();
        let body = request.body.as_ref().map(|source| Box::new(self.expression(field, source, &scope)));
        Shape::Request { method: request.method, body, encoding: request.encoding }
    }

    fn headers(&mut self, runner: &Runner, is_event: bool) -> Vec<(HeaderName, Expression)> {
        if runner.headers.len() > MOST_HEADERS {
            self.mistake(
                "spec.runner.headers",
                format!("has {} entries; at most {MOST_HEADERS}", runner.headers.len()),
            );
            return Vec::new();
        }
        let scope = self.scope.clone().any("credentials");
        let mut compiled: Vec<(HeaderName, Expression)> = Vec::new();
        for (name, source) in &runner.headers {
            let field = format!("spec.runner.headers.{name}");
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => self.mistake(&field, format!("{name:?} is no header name")),
                Ok(name) => match owner(name.as_str(), is_event) {
                    Some(owner) => self.mistake(&field, format!("{owner} sets this header; leave it out")),
                    None if compiled.iter().any(|(known, _)| *known == name) => {
                        self.mistake(&field, "the header is there twice, in different case");
                    }
                    None => {
                        let expression = self.expression(&field, source, &scope);
                        compiled.push((name, expression));
                    }
                },
            }
        }
        compiled
    }
}

/// Who else sets this header, in lower case, so that a runner's author must not.
fn owner(name: &str, is_event: bool) -> Option<&'static str> {
    if RESERVED.contains(&name) || OF_THE_CLIENT.contains(&name) {
        Some("the HTTP client")
    } else if name.starts_with("webhook-") {
        Some("runner.signature")
    } else if is_event && (name.starts_with("ce-") || name == CONTENT_TYPE.as_str()) {
        Some("the CloudEvent")
    } else {
        None
    }
}
