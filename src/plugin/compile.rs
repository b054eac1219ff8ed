//! From a resource to a compiled plugin, with every mistake on the way.

use super::call::{ApiKey, Call};
use super::cel::{Expression, Scope, with_stack};
use super::error::Mistake;
use super::event::{EventKind, Parameter, Variable};
use super::schema::Schema;
use super::template::Template;
use super::{Callback, Calls, Find, Plugin, verification};
use crate::api::{self, PluginEvent, TriggerPluginSpec, WebhookCalls};
use http::HeaderName;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Headers that belong to the HTTP client.
const RESERVED: &[&str] =
    &["host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect"];

impl Plugin {
    /// Compiles the spec of the TriggerPlugin `name`.
    ///
    /// # Errors
    /// Every mistake, with its field, and in an expression with its position.
    pub fn compile(name: &str, spec: &TriggerPluginSpec) -> Result<Self, Vec<Mistake>> {
        with_stack("spec", || {
            let mut compiler = Compiler { spec, mistakes: Vec::new(), parameters: Vec::new() };
            let plugin = compiler.plugin(name);
            match plugin {
                Some(plugin) if compiler.mistakes.is_empty() => Ok(plugin),
                _ => Err(compiler.mistakes),
            }
        })
        .unwrap_or_else(|mistake| Err(vec![mistake]))
    }
}

struct Compiler<'a> {
    spec: &'a TriggerPluginSpec,
    mistakes: Vec<Mistake>,
    /// Names of the Subscription's parameters.
    parameters: Vec<String>,
}

/// What a call may mention beyond parameters, events and the callback URL.
#[derive(Clone, Copy)]
struct Allowed {
    secret: bool,
    webhook: bool,
}

impl Compiler<'_> {
    fn mistake(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.push(Mistake::new(field, problem));
    }

    fn keep<T>(&mut self, result: Result<T, Vec<Mistake>>) -> Option<T> {
        result.map_err(|mistakes| self.mistakes.extend(mistakes)).ok()
    }

    fn expression(&mut self, field: &str, source: &str, scope: &Scope) -> Expression {
        self.keep(Expression::compile(field, source, scope)).unwrap_or_else(Expression::invalid)
    }

    fn optional(&mut self, field: &str, source: Option<&String>, scope: &Scope) -> Option<Expression> {
        source.map(|source| self.expression(field, source, scope))
    }

    fn with_parameters(&self, scope: Scope) -> Scope {
        scope.record("parameters", self.parameters.iter().cloned())
    }

    fn plugin(&mut self, name: &str) -> Option<Plugin> {
        let spec = self.spec;
        let schema = spec.parameters.as_ref().map(|schema| Schema::compile_parameters("spec.parameters", schema));
        let parameters = schema.and_then(|schema| self.keep(schema.map_err(|mistake| vec![mistake])));
        self.parameters = parameters.as_ref().map(|schema| schema.properties().to_vec()).unwrap_or_default();

        if spec.allowed_origins.is_empty() {
            self.mistake("spec.allowedOrigins", "is empty; credentials could be sent nowhere");
        }
        let mut origins = Vec::new();
        for (at, source) in spec.allowed_origins.iter().enumerate() {
            let field = format!("spec.allowedOrigins[{at}]");
            let template = Template::compile(&field, source, &self.parameters, false);
            origins.extend(self.keep(template));
        }
        let api_key = spec.authorization.api_key.as_ref().map(|method| self.api_key(method));
        let calls = spec.webhook.as_ref().map(|calls| self.calls(calls, api_key.as_ref())).unwrap_or_default();
        let callback = self.callback(&spec.callback);
        let mut events = Vec::new();
        let mut event_index = BTreeMap::new();
        if spec.events.is_empty() {
            self.mistake("spec.events", "is empty; a plugin has at least one event");
        }
        for (at, event) in spec.events.iter().enumerate() {
            let field = format!("spec.events[{at}]");
            if event_index.insert(event.name.clone(), at).is_some() {
                self.mistake(format!("{field}.name"), format!("the event `{}` is there twice", event.name));
            }
            events.push(self.event(&field, event));
        }
        Some(Plugin { name: name.to_owned(), origins, parameters, api_key, calls, callback, events, event_index })
            .filter(|_| self.mistakes.is_empty())
    }

    fn api_key(&mut self, method: &api::ApiKeyMethod) -> ApiKey {
        let field = "spec.authorization.apiKey";
        for (at, key) in method.keys.iter().enumerate() {
            if key.is_empty() || method.keys[..at].contains(key) {
                self.mistake(format!("{field}.keys[{at}]"), format!("the key {key:?} is empty or there twice"));
            }
        }
        let scope = self.with_parameters(Scope::default().record("credentials", method.keys.iter().cloned()));
        let headers = self.headers(&format!("{field}.headers"), &method.headers, &scope, &[]);
        ApiKey { keys: method.keys.clone(), headers }
    }

    fn headers(
        &mut self,
        field: &str,
        headers: &BTreeMap<String, String>,
        scope: &Scope,
        taken: &[HeaderName],
    ) -> Vec<(HeaderName, Expression)> {
        let mut compiled: Vec<(HeaderName, Expression)> = Vec::new();
        for (name, source) in headers {
            let field = format!("{field}.{name}");
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => self.mistake(&field, format!("{name:?} is no header name")),
                Ok(name) if RESERVED.contains(&name.as_str()) => {
                    self.mistake(&field, "this header belongs to the HTTP client; leave it out");
                }
                Ok(name) if taken.contains(&name) => {
                    self.mistake(&field, "spec.authorization.apiKey.headers sets this header; leave it out");
                }
                Ok(name) if compiled.iter().any(|(known, _)| *known == name) => {
                    self.mistake(&field, "the header is there twice, in different case");
                }
                Ok(name) => {
                    let expression = self.expression(&field, source, scope);
                    compiled.push((name, expression));
                }
            }
        }
        compiled
    }

    fn calls(&mut self, calls: &WebhookCalls, api_key: Option<&ApiKey>) -> Calls {
        let plain = Allowed { secret: false, webhook: false };
        if calls.create.is_some() && calls.delete.is_none() {
            self.mistake("spec.webhook.delete", "is missing; what Bellhop creates, it must be able to delete");
        }
        let response = Scope::default().record("response", ["status", "headers", "body"]);
        let taken: Vec<HeaderName> =
            api_key.iter().flat_map(|key| key.headers.iter()).map(|(name, _)| name.clone()).collect();
        let verify = calls.verify.as_ref().map(|verify| {
            let call = self.call("spec.webhook.verify", &verify.call, plain, &taken);
            (call, self.optional("spec.webhook.verify.account", verify.account.as_ref(), &response))
        });
        let find = calls.find.as_ref().map(|find| {
            let item = Scope::default().any("item");
            let matching = self.with_parameters(item.clone().record("callback", ["url"]));
            (
                self.call("spec.webhook.find", &find.call, plain, &taken),
                self.expression("spec.webhook.find.items", &find.items, &response),
                self.expression("spec.webhook.find.match", &find.matches, &matching),
                self.expression("spec.webhook.find.id", &find.id, &item),
            )
        });
        let create = calls.create.as_ref().map(|create| {
            let allowed = Allowed { secret: true, webhook: false };
            let call = self.call("spec.webhook.create", &create.call, allowed, &taken);
            (call, self.expression("spec.webhook.create.capture.id", &create.capture.id, &response))
        });
        let update = calls.update.as_ref();
        let update =
            update.map(|call| self.call("spec.webhook.update", call, Allowed { secret: true, webhook: true }, &taken));
        let delete = calls.delete.as_ref();
        let delete =
            delete.map(|call| self.call("spec.webhook.delete", call, Allowed { secret: false, webhook: true }, &taken));
        // A call that is wrong has left its mistake; without it the plugin is not made.
        Calls {
            verify: verify.and_then(|(call, account)| Some((call?, account))),
            find: find.and_then(|(call, items, matches, id)| Some(Find { call: call?, items, matches, id })),
            create: create.and_then(|(call, id)| Some((call?, id))),
            update: update.flatten(),
            delete: delete.flatten(),
        }
    }

    fn call(&mut self, field: &str, call: &api::Call, allowed: Allowed, taken: &[HeaderName]) -> Option<Call> {
        let callback: &[&str] = if allowed.secret { &["url", "secret"] } else { &["url"] };
        let mut scope =
            self.with_parameters(Scope::default()).any("events").record("callback", callback.iter().copied());
        if allowed.webhook {
            scope = scope.record("webhook", ["id"]);
        }
        let url = Template::compile(&format!("{field}.url"), &call.url, &self.parameters, allowed.webhook);
        let url = self.keep(url);
        let headers = self.headers(&format!("{field}.headers"), &call.headers, &scope, taken);
        let body = self.optional(&format!("{field}.body"), call.body.as_ref(), &scope);
        if body.is_some() && call.method == api::Method::Get {
            self.mistake(format!("{field}.body"), "a GET call has no body; leave it out, or use another method");
        }
        Some(Call {
            field: field.to_owned(),
            method: call.method,
            url: url?,
            headers,
            body,
            encoding: call.encoding,
            secret: allowed.secret,
            webhook: allowed.webhook,
        })
    }

    fn callback(&mut self, callback: &api::Callback) -> Callback {
        if callback.verification.is_empty() {
            self.mistake("spec.callback.verification", "is empty; no check at all must be written as `none: {}`");
        }
        for (at, verification) in callback.verification.iter().enumerate() {
            let field = format!("spec.callback.verification[{at}]");
            self.mistakes.extend(verification::check(&field, verification));
        }
        let request = request_scope();
        let item = self.item_scope();
        Callback {
            verification: callback.verification.clone(),
            payload_field: callback.form_payload_field.clone(),
            items: self.optional("spec.callback.items", callback.items.as_ref(), &request),
            event: self.expression("spec.callback.event", &callback.event, &item),
            delivery_id: self.optional("spec.callback.deliveryID", callback.delivery_id.as_ref(), &request),
        }
    }

    /// The scope of what is asked for each event; `item` is there only where requests are lists of events.
    fn item_scope(&self) -> Scope {
        if self.spec.callback.items.is_some() { request_scope().any("item") } else { request_scope() }
    }

    fn event(&mut self, field: &str, event: &PluginEvent) -> EventKind {
        let scope = self.item_scope();
        let matching = scope.clone().any("value");
        let mut parameters = Vec::new();
        for (name, parameter) in &event.parameters {
            let field = format!("{field}.parameters.{name}");
            let matches = self.expression(&format!("{field}.match"), &parameter.matches, &matching);
            let schema =
                Schema::compile(&format!("{field}.schema"), &parameter.schema).map_err(|mistake| vec![mistake]);
            let Some(schema) = self.keep(schema) else { continue };
            let default = parameter.schema.get("default").cloned();
            if let Some(default) = &default {
                self.keep(schema.check(&format!("{field}.schema.default"), default));
            }
            parameters.push(Parameter { name: name.clone(), schema, default, matches: Arc::new(matches) });
        }
        let mut variables = Vec::new();
        for (name, variable) in &event.variables {
            let value = self.expression(&format!("{field}.variables.{name}.value"), &variable.value, &scope);
            variables.push(Variable { name: name.clone(), kind: variable.type_, value });
        }
        EventKind { name: event.name.clone(), parameters, variables }
    }
}

fn request_scope() -> Scope {
    Scope::default().record("request", ["method", "headers", "query"]).any("body")
}
