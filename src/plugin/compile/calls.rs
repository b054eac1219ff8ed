//! `spec.webhook`.

use super::super::call::Call;
use super::super::cel::{Expression, Scope};
use super::super::find::{Find, Next, Pagination};
use super::super::steps::{EXPIRES_AT, SECRET, Step};
use super::super::template::Template;
use super::super::webhook::{Calls, Create, Read};
use super::{Compiler, Taken, response_scope};
use crate::api::{self, RenewalMethod, WebhookCalls};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a call may mention beyond parameters, events and the callback's URL and name.
#[derive(Clone, Default)]
struct Allowed {
    /// Names that the calls before `create` capture.
    setup: Vec<String>,
    /// Whether the call is made once for each event.
    event: bool,
    /// Whether it lists webhooks.
    page: bool,
    /// Whether it makes or rewrites a webhook: `callback.secret` and `callback.attempt`.
    making: bool,
    /// Whether it is about a webhook: the names that are captured of one.
    webhook: Option<Vec<String>>,
}

impl Allowed {
    fn scope(&self, scope: Scope) -> Scope {
        let callback: &[&str] = if self.making { &["url", "name", "secret", "attempt"] } else { &["url", "name"] };
        let mut scope = self.surroundings(scope.any("events").any("now")).record("callback", callback.iter().copied());
        if self.page {
            scope = scope.any("page");
        }
        if let Some(values) = &self.webhook {
            scope = scope.record("webhook", ["id".to_owned()].into_iter().chain(values.iter().cloned()));
        }
        scope
    }

    /// `setup` and `event`, where they are there.
    fn surroundings(&self, scope: Scope) -> Scope {
        let scope = if self.setup.is_empty() { scope } else { scope.record("setup", self.setup.iter().cloned()) };
        if self.event { scope.any("event") } else { scope }
    }

    /// The variables of the URL.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.setup.iter().map(|name| format!("setup.{name}")).collect();
        names.push("callback.name".to_owned());
        names.extend(self.event.then(|| "event".to_owned()));
        names.extend(self.page.then(|| "page".to_owned()));
        if let Some(values) = &self.webhook {
            names.push("webhook.id".to_owned());
            names.extend(values.iter().map(|name| format!("webhook.{name}")));
        }
        names
    }
}

impl Compiler<'_> {
    pub(super) fn calls(&mut self, calls: &WebhookCalls, taken: &Taken) -> Calls {
        if calls.create.is_some() && calls.delete.is_none() {
            self.mistake("spec.webhook.delete", "is missing; what Bellhop creates, it must be able to delete");
        }
        let response = response_scope();
        let verify = calls.verify.as_ref().map(|verify| {
            let call = self.call("spec.webhook.verify", &verify.call, &Allowed::default(), taken);
            (call, self.optional("spec.webhook.verify.account", verify.account.as_ref(), &response))
        });
        let mut setup = Vec::new();
        let mut before = Vec::new();
        for (at, step) in calls.before.iter().enumerate() {
            let allowed = Allowed { setup: setup.clone(), ..Allowed::default() };
            before.extend(self.step(&format!("spec.webhook.before[{at}]"), step, &allowed, taken, &mut setup, &[]));
        }
        let about = Allowed { setup, event: calls.per_event, ..Allowed::default() };
        let find = calls.find.as_ref().and_then(|find| self.find(find, &about, taken));
        let create = calls.create.as_ref().and_then(|create| self.create(create, &about, taken));
        let mut values = self.values(calls);
        let mut after = Vec::new();
        for (at, step) in calls.after.iter().enumerate() {
            let allowed = Allowed { webhook: Some(values.clone()), ..about.clone() };
            let field = format!("spec.webhook.after[{at}]");
            after.extend(self.step(&field, step, &allowed, taken, &mut values, &["id"]));
        }
        let about = Allowed { webhook: Some(values), ..about };
        let making = Allowed { making: true, ..about.clone() };
        let read = calls.read.as_ref().and_then(|read| self.read(read, &about, taken));
        let update = calls.update.as_ref().and_then(|call| self.call("spec.webhook.update", call, &making, taken));
        let refresh = calls.refresh.as_ref().and_then(|refresh| {
            let field = "spec.webhook.refresh";
            let expires_at = self.optional(&format!("{field}.expiresAt"), refresh.expires_at.as_ref(), &response);
            Some((self.call(field, &refresh.call, &about, taken)?, expires_at))
        });
        let delete = calls.delete.as_ref().and_then(|call| self.call("spec.webhook.delete", call, &about, taken));
        // A call that is wrong has left its mistake; without it the plugin is not made.
        Calls {
            per_event: calls.per_event,
            verify: verify.and_then(|(call, account)| Some((call?, account))),
            before,
            find,
            read,
            create,
            after,
            update,
            refresh,
            renewal: self.renewal(calls),
            delete,
        }
    }

    fn call(&mut self, field: &str, call: &api::Call, allowed: &Allowed, taken: &Taken) -> Option<Call> {
        let scope = allowed.scope(self.with_parameters(Scope::default()));
        let mut names = self.parameter_names();
        names.extend(allowed.names());
        names.extend(self.credential_names());
        let url = self.keep(Template::compile(&format!("{field}.url"), &call.url, &names));
        let mut url_with = Vec::new();
        for (name, source) in &call.url_with {
            let field = format!("{field}.urlWith.{name}");
            if !self.parameters.contains(name) {
                let problem = format!("`{name}` is no parameter; there are: {}", self.parameters.join(", "));
                self.mistake(&field, problem);
            }
            url_with
                .extend(self.keep(Template::compile(&field, source, &names)).map(|template| (name.clone(), template)));
        }
        let headers = self.headers(&format!("{field}.headers"), &call.headers, &scope, taken);
        let body = self.optional(&format!("{field}.body"), call.body.as_ref(), &scope);
        if body.is_some() && call.method == api::Method::Get {
            self.mistake(format!("{field}.body"), "a GET call has no body; leave it out, or use another method");
        }
        let success = self.optional(&format!("{field}.success"), call.success.as_ref(), &response_scope());
        Some(Call {
            field: field.to_owned(),
            method: call.method,
            url: url?,
            url_with,
            headers,
            body,
            encoding: call.encoding,
            success,
            making: allowed.making,
        })
    }

    /// A call before or after `create`; what it captures is added to `known`.
    fn step(
        &mut self,
        field: &str,
        step: &api::StepCall,
        allowed: &Allowed,
        taken: &Taken,
        known: &mut Vec<String>,
        reserved: &[&str],
    ) -> Option<Step> {
        let call = self.call(field, &step.call, allowed, taken);
        let after = allowed.webhook.is_some();
        if step.capture.is_empty() {
            self.mistake(format!("{field}.capture"), "is empty; a call that nothing is kept of is not needed");
        }
        let mut capture = Vec::new();
        for (name, source) in &step.capture {
            let at = format!("{field}.capture.{name}");
            let expression = self.expression(&at, source, &response_scope());
            let special = after && [SECRET, EXPIRES_AT].contains(&name.as_str());
            if !special && self.captured_name(&at, name, known, reserved) {
                known.push(name.clone());
            }
            let secret = after && name == SECRET;
            capture.push((name.clone(), if secret { expression.confidential() } else { expression }));
        }
        Some(Step { call: call?, capture })
    }

    fn find(&mut self, find: &api::FindCall, about: &Allowed, taken: &Taken) -> Option<Find> {
        let field = "spec.webhook.find";
        let call = self.call(field, &find.call, &Allowed { page: true, ..about.clone() }, taken);
        let item = Scope::default().any("item");
        let matching = self.with_parameters(about.surroundings(item.clone()));
        let healthy = matching.clone().any("events").record("callback", ["url"]);
        let matching = matching.record("callback", ["url", "name"]);
        let pagination = find.pagination.as_ref().and_then(|pagination| self.pagination(pagination, call.as_ref()));
        Some(Find {
            pagination,
            items: self.expression(&format!("{field}.items"), &find.items, &response_scope()),
            matches: self.expression(&format!("{field}.match"), &find.matches, &matching),
            id: self.expression(&format!("{field}.id"), &find.id, &item),
            healthy: self.optional(&format!("{field}.healthy"), find.healthy.as_ref(), &healthy),
            expires_at: self.optional(&format!("{field}.expiresAt"), find.expires_at.as_ref(), &item),
            values: self.texts(&format!("{field}.values"), &find.values, &item),
            call: call?,
        })
    }

    fn pagination(&mut self, pagination: &api::Pagination, call: Option<&Call>) -> Option<Pagination> {
        let field = "spec.webhook.find.pagination";
        let next = match (&pagination.next, &pagination.next_url) {
            (Some(source), None) => {
                let scope = response_scope().any("page");
                let next = self.expression(&format!("{field}.next"), source, &scope);
                if call.is_some_and(|call| !call.uses("page")) {
                    let problem = "`page` is not part of the call, so that every page would be the first; \
                                   write it into url, such as {?page}, or into body";
                    self.mistake(format!("{field}.next"), problem);
                }
                Next::Value(next)
            }
            (None, Some(source)) => Next::Url(self.expression(&format!("{field}.nextURL"), source, &response_scope())),
            _ => {
                self.mistake(field, "set exactly one of next and nextURL");
                return None;
            }
        };
        Some(Pagination { first: pagination.first, next })
    }

    fn create(&mut self, create: &api::CreateCall, about: &Allowed, taken: &Taken) -> Option<Create> {
        let (field, capture, response) = ("spec.webhook.create.capture", &create.capture, response_scope());
        let call = self.call("spec.webhook.create", &create.call, &Allowed { making: true, ..about.clone() }, taken);
        let id = response_scope().record("callback", ["name", "attempt"]);
        let id = if about.event { id.any("event") } else { id };
        let telling = response_scope().record("credentials", self.secret_names());
        let secret = self.optional(&format!("{field}.secret"), capture.secret.as_ref(), &telling);
        if create.exclusive && create.idempotent {
            let problem = "contradicts `idempotent: true`: a call that changes the webhook that is there makes no second one \
                           that could be refused; leave one of the two out";
            self.mistake("spec.webhook.create.exclusive", problem);
        }
        Some(Create {
            idempotent: create.idempotent,
            exclusive: create.exclusive,
            id: self.expression(&format!("{field}.id"), &capture.id, &id),
            secret: secret.map(Expression::confidential),
            expires_at: self.optional(&format!("{field}.expiresAt"), capture.expires_at.as_ref(), &response),
            values: self.texts(&format!("{field}.values"), &capture.values, &response),
            call: call?,
        })
    }

    fn read(&mut self, read: &api::ReadCall, about: &Allowed, taken: &Taken) -> Option<Read> {
        let field = "spec.webhook.read";
        let call = self.call(field, &read.call, about, taken);
        let scope = self.with_parameters(response_scope().any("events").record("callback", ["url"]));
        let scope = if about.event { scope.any("event") } else { scope };
        Some(Read {
            exists: self.optional(&format!("{field}.exists"), read.exists.as_ref(), &scope),
            healthy: self.optional(&format!("{field}.healthy"), read.healthy.as_ref(), &scope),
            call: call?,
        })
    }

    fn texts(&mut self, field: &str, sources: &BTreeMap<String, String>, scope: &Scope) -> Vec<(String, Expression)> {
        let texts = sources.iter();
        texts.map(|(name, source)| (name.clone(), self.expression(&format!("{field}.{name}"), source, scope))).collect()
    }

    /// The names of what `create` captures of a webhook. A webhook that `find` finds must bring the same, because later
    /// calls cannot tell the two apart.
    fn values(&mut self, calls: &WebhookCalls) -> Vec<String> {
        let mut names = Vec::new();
        let created = calls.create.as_ref().map(|create| &create.capture.values);
        for name in created.into_iter().flat_map(|values| values.keys()) {
            let field = format!("spec.webhook.create.capture.values.{name}");
            if self.captured_name(&field, name, &[], &["id", SECRET, EXPIRES_AT]) {
                names.push(name.clone());
            }
        }
        let (Some(created), Some(find)) = (created, &calls.find) else { return names };
        for name in created.keys().filter(|name| !find.values.contains_key(*name)) {
            let field = format!("spec.webhook.find.values.{name}");
            self.mistake(
                field,
                "is missing; create.capture.values has it, and later calls need it of a found webhook too",
            );
        }
        for name in find.values.keys().filter(|name| !created.contains_key(*name)) {
            let field = format!("spec.webhook.find.values.{name}");
            self.mistake(field, "create.capture.values does not have it; both must have the same names");
        }
        names
    }

    fn renewal(&mut self, calls: &WebhookCalls) -> Option<(RenewalMethod, Option<Duration>)> {
        let created = calls.create.as_ref().is_some_and(|create| create.capture.expires_at.is_some());
        let after = calls.after.iter().any(|step| step.capture.contains_key(EXPIRES_AT));
        let captured = created || after;
        let Some(renewal) = &calls.renewal else {
            let by = if calls.refresh.is_some() { RenewalMethod::Refresh } else { RenewalMethod::Replace };
            if calls.refresh.is_some() && !captured {
                self.mistake(
                    "spec.webhook.refresh",
                    "is never called, because no end of a webhook's life is known; \
                     capture expiresAt in create, or write spec.webhook.renewal with a life",
                );
            }
            return captured.then_some((by, None));
        };
        let field = "spec.webhook.renewal";
        let idempotent = calls.create.as_ref().is_some_and(|create| create.idempotent);
        match renewal.by {
            RenewalMethod::Refresh if calls.refresh.is_none() => {
                self.mistake(format!("{field}.by"), "`refresh` needs the call spec.webhook.refresh");
            }
            RenewalMethod::Create if !idempotent => {
                let problem = "`create` needs spec.webhook.create with `idempotent: true`: it is repeated for a webhook \
                               that is there, which must not make a second one; if it does, write `replace`";
                self.mistake(format!("{field}.by"), problem);
            }
            RenewalMethod::Replace if calls.create.is_none() => {
                self.mistake(format!("{field}.by"), "`replace` needs the call spec.webhook.create");
            }
            _ => {}
        }
        let life = renewal.life.map(Duration::from);
        match life {
            None if !captured => {
                let problem = "is missing; where create captures no expiresAt, only this says how long a webhook lives";
                self.mistake(format!("{field}.life"), problem);
            }
            Some(life) if life.is_zero() => self.mistake(format!("{field}.life"), "is no time at all"),
            _ => {}
        }
        if renewal.life.is_some_and(|life| life.is_negative()) {
            self.mistake(format!("{field}.life"), "is negative");
        }
        Some((renewal.by, life))
    }
}
