//! The plugin's calls for one Subscription: built by the plugin, carried out by the client, errors turned into what
//! people read on the Subscription.

use super::Blocked;
use crate::api::{PublishedRoute, reason, type_};
use crate::controller::custody::Custody;
use crate::controller::{Context, Failure};
use crate::external::CallFailure;
use crate::plugin::{CallContext, CallError, Credentials, HttpCall, HttpResponse, Page, Plugin, Secret, WebhookRef};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Most pages of a list of webhooks that are read.
const MOST_PAGES: usize = 100;

/// What of a custody the ingress has to know.
pub fn route(custody: &Custody) -> PublishedRoute {
    PublishedRoute {
        token: custody.token.clone(),
        callback_secrets: vec![custody.callback_secret.clone()],
        uid: custody.uid,
        namespace: custody.namespace.clone(),
        name: custody.name.clone(),
        plugin: custody.accepted.plugin_ref.name.clone(),
        events: custody.events.clone(),
    }
}

/// The callback URL of a custody.
pub fn callback_url(context: &Context, custody: &Custody) -> String {
    format!("{}/hooks/{}", context.options.public_url.as_str().trim_end_matches('/'), custody.token)
}

/// Carries out `verify`, if the plugin has it, and gives the account's name.
pub async fn verify(context: &Context, plugin: &Plugin, custody: &Custody) -> Result<Option<String>, Failure> {
    let calls = Calls::new(context, plugin, custody, type_::AUTHORIZED);
    let Some(response) = calls.run("verify", |plugin, c| plugin.verify_call(c)).await? else { return Ok(None) };
    plugin.account(&response).map_err(|error| calls.broken("verify", error))
}

/// Carries out `find` and gives the ids of the webhooks with the callback URL; `None` if the plugin cannot list.
pub async fn find(
    context: &Context,
    plugin: &Plugin,
    custody: &Custody,
    condition: &'static str,
) -> Result<Option<Vec<String>>, Failure> {
    let calls = Calls::new(context, plugin, custody, condition);
    let (mut page, mut ids) = (Page::First, Vec::new());
    for _ in 0..MOST_PAGES {
        let mut asked = None;
        let build = |plugin: &Plugin, c: &CallContext| {
            let call = plugin.find_call(c, &page)?;
            asked = call.as_ref().map(|call| call.url.clone());
            Ok(call)
        };
        let response = calls.run("find", build).await?;
        let (Some(response), Some(asked)) = (response, asked) else { return Ok(None) };
        let found = calls.with_context(None, |c| plugin.found(c, &response));
        ids.extend(found.map_err(|error| calls.broken("find", error))?.into_iter().map(|found| found.id));
        let next = calls.with_context(None, |c| plugin.next_page(c, &asked, &page, &response));
        match next.map_err(|error| calls.broken("find", error))? {
            Some(next) => page = next,
            None => return Ok(Some(ids)),
        }
    }
    let message = format!("find: the list of webhooks has more than {MOST_PAGES} pages");
    Err(Blocked::stalled(condition, reason::EXTERNAL_SYSTEM_FAILED, message).into())
}

/// What came of a create call that gave no id.
pub enum NotCreated {
    /// Nothing was sent, or the external system has refused it: there is no webhook.
    Certainly(Failure),
    /// Whether there is a webhook is not known.
    Perhaps(Failure),
}

/// Carries out `create` and gives the webhook's id.
pub async fn create(context: &Context, plugin: &Plugin, custody: &Custody) -> Result<String, NotCreated> {
    let calls = Calls::new(context, plugin, custody, type_::WEBHOOK_REGISTERED);
    match calls.send("create", |plugin, c| plugin.create_call(c).map(Some)).await {
        Ok(response) => {
            let response = response.expect("create_call always gives a call");
            match calls.with_context(None, |c| plugin.created(c, &response)) {
                Ok(captured) => Ok(captured.id),
                Err(error @ CallError::Unsuccessful { .. }) => {
                    Err(NotCreated::Certainly(calls.broken("create", error)))
                }
                Err(error) => Err(NotCreated::Perhaps(calls.broken("create", error))),
            }
        }
        Err(outcome) => {
            let certainly = match &outcome {
                CallOutcome::Unbuildable(_) | CallOutcome::Failed(CallFailure::Forbidden(_)) => true,
                CallOutcome::Failed(failure) => matches!(failure.status(), Some(300..=499)),
            };
            let failure = calls.explain("create", outcome);
            Err(if certainly { NotCreated::Certainly(failure) } else { NotCreated::Perhaps(failure) })
        }
    }
}

/// Carries out `update`; `false` if the plugin has none.
pub async fn update(context: &Context, plugin: &Plugin, custody: &Custody, id: &str) -> Result<bool, Failure> {
    let mut calls = Calls::new(context, plugin, custody, type_::WEBHOOK_REGISTERED);
    calls.webhook = Some(WebhookRef { id: id.to_owned(), values: BTreeMap::new() });
    let Some(response) = calls.run("update", |plugin, c| plugin.update_call(c)).await? else { return Ok(false) };
    plugin.updated(&response).map(|()| true).map_err(|error| calls.broken("update", error))
}

/// Carries out `delete`. That the webhook is gone already (404, 410) is success.
pub async fn delete(context: &Context, plugin: &Plugin, custody: &Custody, id: &str) -> Result<(), Failure> {
    let mut calls = Calls::new(context, plugin, custody, type_::READY);
    calls.webhook = Some(WebhookRef { id: id.to_owned(), values: BTreeMap::new() });
    match calls.send("delete", |plugin, c| plugin.delete_call(c)).await {
        Ok(Some(response)) => plugin.deleted(&response).map_err(|error| calls.broken("delete", error)),
        Ok(None) => Ok(()),
        Err(CallOutcome::Failed(failure)) if matches!(failure.status(), Some(404 | 410)) => Ok(()),
        Err(outcome) => Err(calls.explain("delete", outcome)),
    }
}

struct Calls<'a> {
    context: &'a Context,
    plugin: &'a Plugin,
    custody: &'a Custody,
    credentials: Credentials,
    callback_url: String,
    callback_name: String,
    callback_secret: Secret,
    condition: &'static str,
    webhook: Option<WebhookRef>,
}

enum CallOutcome {
    Unbuildable(CallError),
    Failed(CallFailure),
}

impl<'a> Calls<'a> {
    fn new(context: &'a Context, plugin: &'a Plugin, custody: &'a Custody, condition: &'static str) -> Self {
        let secret = |(key, value): (&String, &String)| (key.clone(), Secret::from(value.clone()));
        Self {
            context,
            plugin,
            custody,
            credentials: Credentials::ApiKey(custody.credentials.iter().map(secret).collect()),
            callback_url: callback_url(context, custody),
            callback_name: format!("bellhop-{}", &hex::encode(Sha256::digest(custody.token.as_bytes()))[..16]),
            callback_secret: Secret::from(custody.callback_secret.clone()),
            condition,
            webhook: None,
        }
    }

    fn with_context<T>(&self, webhook: Option<&WebhookRef>, f: impl FnOnce(&CallContext) -> T) -> T {
        f(&CallContext {
            parameters: &self.custody.accepted.parameters,
            credentials: &self.credentials,
            callback_url: &self.callback_url,
            callback_name: &self.callback_name,
            callback_secret: &self.callback_secret,
            events: &self.custody.events,
            event: None,
            setup: &BTreeMap::new(),
            webhook,
            attempt: None,
        })
    }

    async fn run(
        &self,
        name: &'static str,
        build: impl FnOnce(&Plugin, &CallContext) -> Result<Option<HttpCall>, CallError>,
    ) -> Result<Option<HttpResponse>, Failure> {
        self.send(name, build).await.map_err(|outcome| self.explain(name, outcome))
    }

    async fn send(
        &self,
        name: &'static str,
        build: impl FnOnce(&Plugin, &CallContext) -> Result<Option<HttpCall>, CallError>,
    ) -> Result<Option<HttpResponse>, CallOutcome> {
        let call =
            self.with_context(self.webhook.as_ref(), |c| build(self.plugin, c)).map_err(CallOutcome::Unbuildable)?;
        let Some(call) = call else { return Ok(None) };
        let result = self.context.external.send(call, &self.secrets()).await;
        let status = match &result {
            Ok(response) => Some(response.status),
            Err(failure) => failure.status(),
        };
        self.context.metrics.external_call(self.plugin.name(), name, status);
        tracing::debug!(subscription = %self.subscription(), call = name, status, "called the external system");
        result.map(Some).map_err(CallOutcome::Failed)
    }

    fn explain(&self, name: &str, outcome: CallOutcome) -> Failure {
        let failure = match outcome {
            CallOutcome::Unbuildable(error) => return self.broken(name, error),
            CallOutcome::Failed(failure) => failure,
        };
        let message = format!("{name}: {failure}");
        let mut blocked = match (&failure, failure.status()) {
            (CallFailure::Forbidden(_), _) => Blocked::stalled(self.condition, reason::ORIGIN_NOT_ALLOWED, message),
            // Some systems say 403 for a rate limit too, but then also when to come back.
            (CallFailure::Status { retry_after: None, .. }, Some(401 | 403)) => {
                Blocked::stalled(self.condition, reason::CREDENTIALS_REFUSED, message)
            }
            _ => Blocked::retrying(self.condition, reason::EXTERNAL_SYSTEM_FAILED, message),
        };
        if let CallFailure::Status { retry_after: Some(after), .. } = failure {
            blocked.retry_after = Some(after);
        }
        blocked.into()
    }

    fn secrets(&self) -> Vec<&Secret> {
        let mut secrets = self.credentials.secrets();
        secrets.push(&self.callback_secret);
        secrets
    }

    fn broken(&self, name: &str, error: CallError) -> Failure {
        let error = error.redacted(&self.secrets());
        let message = format!("{name}: {error}");
        match error {
            CallError::OriginNotAllowed { .. } => Blocked::stalled(self.condition, reason::ORIGIN_NOT_ALLOWED, message),
            // A proxy's page instead of an answer passes.
            CallError::UnexpectedAnswer { .. } | CallError::Unsuccessful { .. } => {
                Blocked::retrying(self.condition, reason::EXTERNAL_SYSTEM_FAILED, message)
            }
            CallError::Evaluation(_) => Blocked::retrying(self.condition, reason::EXPRESSION_FAILED, message),
            _ => Blocked::stalled(self.condition, reason::EXPRESSION_FAILED, message),
        }
        .into()
    }

    fn subscription(&self) -> String {
        format!("{}/{}", self.custody.namespace, self.custody.name)
    }
}
