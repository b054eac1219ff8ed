//! From a resource to a compiled plugin, with every mistake on the way.

mod callback;
mod calls;
mod events;
mod oauth2;

use super::call::{ACCESS_TOKEN, ApiKey, CLIENT_SECRET, Call};
use super::cel::{Expression, Scope, with_stack};
use super::error::Mistake;
use super::schema::Schema;
use super::steps::SECRET;
use super::template::Template;
use super::verification::Verifier;
use super::webhook::Calls;
use super::{Callback, Plugin, SecretSource};
use crate::api::{self, TriggerPluginSpec};
use http::HeaderName;
use std::collections::BTreeMap;

/// Headers that belong to the HTTP client.
pub(super) const RESERVED: &[&str] =
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

        if name == api::FOR_RUNNERS {
            let problem = "Secrets with this value of the label bellhop.dev/credentials-for are for runners; \
                           choose another name";
            self.mistake("metadata.name", problem);
        }
        if spec.allowed_origins.is_empty() {
            self.mistake("spec.allowedOrigins", "is empty; credentials could be sent nowhere");
        }
        let mut origins = Vec::new();
        for (at, source) in spec.allowed_origins.iter().enumerate() {
            let field = format!("spec.allowedOrigins[{at}]");
            let template = Template::compile(&field, source, &self.parameter_names());
            origins.extend(self.keep(template));
        }
        let api_key = spec.authorization.api_key.as_ref().map(|method| self.api_key(method));
        let oauth2 = spec.authorization.oauth2.as_ref();
        let oauth2 = oauth2.map(|method| self.oauth2(method, &origins));
        let taken = Taken::new(api_key.as_ref(), oauth2.iter().flatten());
        let calls = spec.webhook.as_ref().map(|calls| self.calls(calls, &taken)).unwrap_or_default();
        let callback = self.callback(&spec.callback);
        let secret_source = self.secret_source(&calls, &callback);
        let (events, event_index) = self.events();
        Some(Plugin {
            name: name.to_owned(),
            origins,
            parameters,
            api_key,
            // A mistake in it was kept; without it the plugin is not made.
            oauth2: oauth2.flatten(),
            calls,
            secret_source,
            callback,
            events,
            event_index,
        })
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
        let headers = self.headers(&format!("{field}.headers"), &method.headers, &scope, &Taken::default());
        ApiKey { keys: method.keys.clone(), headers }
    }

    fn headers(
        &mut self,
        field: &str,
        headers: &BTreeMap<String, String>,
        scope: &Scope,
        taken: &Taken,
    ) -> Vec<(HeaderName, Expression)> {
        let mut compiled: Vec<(HeaderName, Expression)> = Vec::new();
        for (name, source) in headers {
            let field = format!("{field}.{name}");
            match HeaderName::from_bytes(name.as_bytes()) {
                Err(_) => self.mistake(&field, format!("{name:?} is no header name")),
                Ok(name) if RESERVED.contains(&name.as_str()) => {
                    self.mistake(&field, "this header belongs to the HTTP client; leave it out");
                }
                Ok(name) if taken.by(&name).is_some() => {
                    let by = taken.by(&name).unwrap_or_default();
                    self.mistake(&field, format!("{by} sets this header; leave it out"));
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

    /// Where the callback secret comes from; a call that tells one which is not known yet is a mistake.
    fn secret_source(&mut self, calls: &Calls, callback: &Callback) -> SecretSource {
        let create = calls.create.as_ref();
        let created = create.filter(|create| create.secret.is_some()).map(|_| "spec.webhook.create.capture.secret");
        let after = calls.after.iter().position(|step| step.capture.iter().any(|(name, _)| name == SECRET));
        let after = after.map(|at| format!("spec.webhook.after[{at}].capture.secret"));
        let shaken = callback.handshakes.iter().position(|handshake| handshake.secret.is_some());
        let shaken = shaken.map(|at| format!("spec.callback.handshakes[{at}].secret"));
        if let Some(source) = created.map(str::to_owned).or(after).or(shaken) {
            if create.is_some_and(|create| create.call.tells_secret()) {
                let problem = format!(
                    "the external system chooses the secret ({source}); leave `callback.secret` out of this call"
                );
                self.mistake("spec.webhook.create", problem);
            }
            return SecretSource::External;
        }
        let verified = callback.verification.iter().any(Verifier::needs_secret)
            || callback.handshakes.iter().any(|handshake| handshake.hmac.is_some());
        let told = create.map(|create| &create.call).into_iter().chain(&calls.update).any(Call::tells_secret);
        if verified || told { SecretSource::Generated } else { SecretSource::NotNeeded }
    }

    /// The variables of URL templates that are there always.
    fn parameter_names(&self) -> Vec<String> {
        self.parameters.iter().map(|name| format!("parameters.{name}")).collect()
    }

    /// The credentials that a URL may hold: those that there are whichever way a Subscription is authorized.
    fn credential_names(&self) -> Vec<String> {
        let authorization = &self.spec.authorization;
        let keys = authorization.api_key.as_ref().map(|method| method.keys.as_slice());
        let names = match (keys, &authorization.oauth2) {
            (Some(keys), None) => keys.to_vec(),
            (Some(keys), Some(_)) => keys.iter().filter(|key| *key == ACCESS_TOKEN).cloned().collect(),
            (None, Some(_)) => vec![ACCESS_TOKEN.to_owned()],
            (None, None) => Vec::new(),
        };
        names.into_iter().map(|name| format!("credentials.{name}")).collect()
    }

    /// The credentials that a callback secret may be taken from: with several methods, what all have.
    fn secret_names(&self) -> Vec<String> {
        let authorization = &self.spec.authorization;
        let client = || vec![CLIENT_SECRET.to_owned()];
        match (&authorization.api_key, &authorization.oauth2) {
            (Some(method), None) => method.keys.clone(),
            (Some(method), Some(_)) => client().into_iter().filter(|name| method.keys.contains(name)).collect(),
            (None, Some(_)) => client(),
            (None, None) => Vec::new(),
        }
    }

    /// Checks the name of something that is captured: expressions and URLs have to be able to mention it.
    fn captured_name(&mut self, field: &str, name: &str, taken: &[String], reserved: &[&str]) -> bool {
        let problem = if name.len() > 63
            || !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            "a name has letters, digits and `_`, begins with no digit and is no longer than 63".to_owned()
        } else if reserved.contains(&name) {
            format!("`{name}` has a meaning of its own here; choose another name")
        } else if taken.iter().any(|known| known == name) {
            format!("`{name}` is captured already; choose another name")
        } else {
            return true;
        };
        self.mistake(field, problem);
        false
    }
}

/// Headers that an authorization sets, with the field that does; calls must not set them again.
#[derive(Default)]
struct Taken(Vec<(HeaderName, &'static str)>);

impl Taken {
    fn new<'a>(api_key: Option<&ApiKey>, oauth2: impl Iterator<Item = &'a super::OAuth2>) -> Self {
        let api_key = api_key.into_iter().flat_map(|method| &method.headers);
        let api_key = api_key.map(|(name, _)| (name.clone(), "spec.authorization.apiKey.headers"));
        let oauth2 = oauth2.flat_map(|method| &method.headers);
        let oauth2 = oauth2.map(|(name, _)| (name.clone(), "spec.authorization.oauth2.headers"));
        Self(api_key.chain(oauth2).collect())
    }

    fn by(&self, name: &HeaderName) -> Option<&'static str> {
        self.0.iter().find(|(taken, _)| taken == name).map(|(_, by)| *by)
    }
}

fn request_scope() -> Scope {
    Scope::default().record("request", ["method", "headers", "query"]).any("body")
}

fn response_scope() -> Scope {
    Scope::default().record("response", ["status", "headers", "body"])
}
