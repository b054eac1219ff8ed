//! The plugin's calls for one Subscription: built by the plugin, carried out by the client, errors turned into what
//! people read on the Subscription.

use super::Blocked;
use super::desk::Desk;
use crate::api::{PublishedRoute, reason};
use crate::controller::custody::{Custody, WebhookRecord};
use crate::controller::{Context, Failure, PluginState};
use crate::external::{BudgetKey, CallFailure};
use crate::plugin::{
    CallContext, CallError, Captured, CapturedAfter, Credentials, Found, HttpCall, HttpResponse, Page, Plugin, Secret,
    WebhookReading, WebhookRef,
};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Most pages of a list of webhooks that are read. A list that goes on is an error, and never says that a webhook is not
/// there.
const MOST_PAGES: usize = 100;
/// Longest time that a list of webhooks may take.
const LISTING_TIME: Duration = Duration::from_secs(60);

/// What of a custody the ingress has to know. The callback URL as a whole only where the external system signs it.
pub fn route(context: &Context, custody: &Custody) -> PublishedRoute {
    let plugin = context.plugins.get(&custody.accepted.plugin_ref.name);
    let signs_url = matches!(plugin, PluginState::Ready(plugin) if plugin.verification_needs_url());
    PublishedRoute {
        url: signs_url.then(|| callback_url(context, custody)),
        token: custody.token.clone(),
        callback_secrets: custody.secrets(),
        uid: custody.uid,
        namespace: custody.namespace.clone(),
        name: custody.name.clone(),
        plugin: custody.accepted.plugin_ref.name.clone(),
        events: custody.events.clone(),
        awaits_secret: custody.awaits_secret(),
    }
}

/// The callback URL of a custody.
pub fn callback_url(context: &Context, custody: &Custody) -> String {
    format!("{}/hooks/{}", context.options.public_url.as_str().trim_end_matches('/'), custody.token)
}

/// What came of a create call that gave no id.
pub enum NotCreated {
    /// Nothing was sent, or the external system has refused it: there is no webhook.
    Certainly {
        /// Why.
        failure: Failure,
        /// Whether what is there already may be why: a second webhook with the same URL is refused with 409 by some, with
        /// 422 by others, and as no success where every answer has the status 200.
        conflict: bool,
    },
    /// Whether there is a webhook is not known.
    Perhaps(Failure),
}

/// What came of a call after the creation that has failed.
pub struct NotCompleted {
    /// Whether it would be refused again.
    pub for_good: bool,
    /// Why.
    pub failure: Failure,
}

/// What came of a call that changes a webhook.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed<T> {
    /// It was made.
    Done(T),
    /// The plugin has no such call.
    NoSuchCall,
    /// The webhook is not there any more.
    Gone,
}

/// The calls for one Subscription, and perhaps one webhook.
pub struct Calls<'a> {
    desk: &'a Desk<'a>,
    custody: &'a Custody,
    condition: &'static str,
    credentials: Credentials,
    callback_url: String,
    callback_name: String,
    callback_secret: Secret,
    /// What is cut out of the external system's words.
    secrets: Vec<Secret>,
    event: Option<&'a str>,
    webhook: Option<WebhookRef>,
    attempt: Option<Uuid>,
}

enum CallOutcome {
    Unbuildable(CallError),
    Failed(CallFailure),
}

impl<'a> Calls<'a> {
    /// Calls with what this custody holds; failures are told by `condition`.
    pub fn new(desk: &'a Desk<'a>, custody: &'a Custody, condition: &'static str) -> Self {
        Self {
            desk,
            custody,
            condition,
            credentials: custody.plugin_credentials(),
            callback_url: callback_url(desk.context, custody),
            callback_name: custody.callback_name(),
            callback_secret: Secret::from(custody.callback_secret.clone()),
            secrets: custody.everything_secret(),
            event: None,
            webhook: None,
            attempt: None,
        }
    }

    /// For the webhook of this event.
    pub fn of_event(mut self, event: Option<&'a str>) -> Self {
        self.event = event;
        self
    }

    /// For this webhook.
    pub fn about(mut self, record: &'a WebhookRecord) -> Self {
        self.event = record.event.as_deref();
        self.attempt = Some(record.attempt);
        self.webhook = record.id().map(|id| WebhookRef { id: id.to_owned(), values: record.values.clone() });
        if let Some(secret) = record.secret.as_ref().filter(|_| self.webhook.is_some()) {
            self.callback_secret = Secret::from(secret.clone());
        }
        self
    }

    /// For a webhook that was found in a list.
    pub fn about_found(mut self, found: &Found) -> Self {
        self.webhook = Some(WebhookRef { id: found.id.clone(), values: found.values.clone() });
        self
    }

    /// Carries out `verify`, if the plugin has it, and gives the account's name.
    pub async fn verify(&self) -> Result<Option<String>, Failure> {
        let Some(response) = self.run("verify", |plugin, c| plugin.verify_call(c)).await? else { return Ok(None) };
        self.desk.plugin.account(&response).map_err(|error| self.broken("verify", &error))
    }

    /// Carries out one of the calls before the first `create`, and gives what it captures.
    pub async fn before(&self, index: usize) -> Result<BTreeMap<String, String>, Failure> {
        let response = self.run("before", |plugin, c| plugin.before_call(index, c).map(Some)).await?;
        let response = response.expect("before_call always gives a call");
        self.desk.plugin.captured_before(index, &response).map_err(|error| self.broken("before", &error))
    }

    /// Carries out `find`, page by page, and gives the webhooks with the callback URL; `None` if the plugin cannot list.
    pub async fn find(&self) -> Result<Option<Vec<Found>>, Failure> {
        let plugin = self.desk.plugin;
        let begun = std::time::Instant::now();
        let (mut page, mut all) = (Page::First, Vec::<Found>::new());
        for _ in 0..MOST_PAGES {
            let call =
                self.with_context(|c| plugin.find_call(c, &page)).map_err(|error| self.broken("find", &error))?;
            let Some(call) = call else { return Ok(None) };
            let asked = call.url.clone();
            let response = self.carry_out("find", call).await.map_err(|outcome| self.explain("find", outcome))?;
            let broken = |error| self.broken("find", &error);
            for found in self.with_context(|c| plugin.found(c, &response)).map_err(broken)? {
                // A list that changes while it is read can show one twice.
                if all.iter().all(|known| known.id != found.id) {
                    all.push(found);
                }
            }
            let next = self.with_context(|c| plugin.next_page(c, &asked, &page, &response)).map_err(broken)?;
            let Some(next) = next else { return Ok(Some(all)) };
            if begun.elapsed() > LISTING_TIME {
                let message = format!("find: the list of webhooks was not read within {} s", LISTING_TIME.as_secs());
                return Err(Blocked::retrying(self.condition, reason::EXTERNAL_SYSTEM_FAILED, message).into());
            }
            page = next;
        }
        let message = format!("find: the list of webhooks has more than {MOST_PAGES} pages");
        Err(Blocked::retrying(self.condition, reason::EXTERNAL_SYSTEM_FAILED, message).into())
    }

    /// Carries out `read` and says what became of the webhook; `None` if the plugin cannot.
    pub async fn read(&self) -> Result<Option<WebhookReading>, Failure> {
        let response = match self.send("read", |plugin, c| plugin.read_call(c)).await {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(None),
            Err(outcome) if is_gone(&outcome) => return Ok(Some(WebhookReading::Gone)),
            Err(outcome) => return Err(self.explain("read", outcome)),
        };
        let reading = self.with_context(|c| self.desk.plugin.reading(c, &response));
        reading.map(Some).map_err(|error| self.broken("read", &error))
    }

    /// Carries out `create` and gives what it captures.
    pub async fn create(&self) -> Result<Captured, NotCreated> {
        match self.send("create", |plugin, c| plugin.create_call(c).map(Some)).await {
            Ok(response) => {
                let response = response.expect("create_call always gives a call");
                let captured = self.with_context(|c| self.desk.plugin.created(c, &response));
                captured.map_err(|error| {
                    let failure = self.broken("create", &error);
                    match error {
                        CallError::Unsuccessful { .. } => NotCreated::Certainly { failure, conflict: true },
                        _ => NotCreated::Perhaps(failure),
                    }
                })
            }
            Err(outcome) => {
                let (certainly, conflict) = match &outcome {
                    CallOutcome::Unbuildable(_) => (true, false),
                    CallOutcome::Failed(failure) => (
                        failure.nothing_was_sent() || matches!(failure.status(), Some(300..=499)),
                        matches!(failure.status(), Some(409 | 422)),
                    ),
                };
                let failure = self.explain("create", outcome);
                Err(if certainly { NotCreated::Certainly { failure, conflict } } else { NotCreated::Perhaps(failure) })
            }
        }
    }

    /// Carries out one of the calls after the creation, and gives what it captures.
    pub async fn after(&self, index: usize) -> Result<CapturedAfter, NotCompleted> {
        match self.send("after", |plugin, c| plugin.after_call(index, c).map(Some)).await {
            Ok(response) => {
                let response = response.expect("after_call always gives a call");
                self.desk.plugin.captured_after(index, &response).map_err(|error| NotCompleted {
                    for_good: matches!(error, CallError::Unsuccessful { .. }),
                    failure: self.broken("after", &error),
                })
            }
            Err(outcome) => {
                // Credentials can be mended, and the other statuses are about the moment.
                let for_good = matches!(&outcome, CallOutcome::Failed(failure)
                    if failure.status().is_some_and(|status| matches!(status, 400..=499)
                        && !matches!(status, 401 | 403 | 408 | 409 | 423 | 425 | 429)));
                Err(NotCompleted { for_good, failure: self.explain("after", outcome) })
            }
        }
    }

    /// Carries out `update`.
    pub async fn update(&self) -> Result<Changed<()>, Failure> {
        match self.send("update", |plugin, c| plugin.update_call(c)).await {
            Ok(None) => Ok(Changed::NoSuchCall),
            Ok(Some(response)) => match self.desk.plugin.updated(&response) {
                Ok(()) => Ok(Changed::Done(())),
                Err(error) => Err(self.broken("update", &error)),
            },
            Err(outcome) if is_gone(&outcome) => Ok(Changed::Gone),
            Err(outcome) => Err(self.explain("update", outcome)),
        }
    }

    /// Carries out `refresh` and gives the new end of the webhook's life, if the answer tells it.
    pub async fn refresh(&self) -> Result<Changed<Option<i64>>, Failure> {
        match self.send("refresh", |plugin, c| plugin.refresh_call(c)).await {
            Ok(None) => Ok(Changed::NoSuchCall),
            Ok(Some(response)) => match self.desk.plugin.refreshed(&response) {
                Ok(end) => Ok(Changed::Done(end)),
                Err(error) => Err(self.broken("refresh", &error)),
            },
            Err(outcome) if is_gone(&outcome) => Ok(Changed::Gone),
            Err(outcome) => Err(self.explain("refresh", outcome)),
        }
    }

    /// Carries out `delete`. That the webhook is gone already (404, 410) is success.
    pub async fn delete(&self) -> Result<Changed<()>, Failure> {
        match self.send("delete", |plugin, c| plugin.delete_call(c)).await {
            Ok(None) => Ok(Changed::NoSuchCall),
            Ok(Some(response)) => match self.desk.plugin.deleted(&response) {
                Ok(()) => Ok(Changed::Done(())),
                Err(error) => Err(self.broken("delete", &error)),
            },
            Err(outcome) if is_gone(&outcome) => Ok(Changed::Gone),
            Err(outcome) => Err(self.explain("delete", outcome)),
        }
    }

    fn with_context<T>(&self, f: impl FnOnce(&CallContext) -> T) -> T {
        f(&CallContext {
            parameters: &self.custody.accepted.parameters,
            credentials: &self.credentials,
            callback_url: &self.callback_url,
            callback_name: &self.callback_name,
            callback_secret: &self.callback_secret,
            events: &self.custody.events,
            event: self.event,
            setup: &self.custody.setup,
            webhook: self.webhook.as_ref(),
            attempt: self.attempt,
            now: crate::controller::now(),
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
        let call = self.with_context(|c| build(self.desk.plugin, c)).map_err(CallOutcome::Unbuildable)?;
        match call {
            Some(call) => self.carry_out(name, call).await.map(Some),
            None => Ok(None),
        }
    }

    async fn carry_out(&self, name: &'static str, call: HttpCall) -> Result<HttpResponse, CallOutcome> {
        let context = self.desk.context;
        let key = BudgetKey::new(self.desk.plugin.name(), self.credentials.secrets());
        let secrets: Vec<&Secret> = self.secrets.iter().collect();
        let result = context.external.send(call, &secrets, &key).await;
        let status = match &result {
            Ok(response) => Some(response.status),
            Err(failure) => failure.status(),
        };
        if !matches!(&result, Err(failure) if failure.nothing_was_sent()) {
            self.desk.count();
            context.metrics.external_call(self.desk.plugin.name(), name, status);
        }
        tracing::debug!(subscription = %self.subscription(), call = name, status, "called the external system");
        result.map_err(CallOutcome::Failed)
    }

    fn explain(&self, name: &str, outcome: CallOutcome) -> Failure {
        let failure = match outcome {
            CallOutcome::Unbuildable(error) => return self.broken(name, &error),
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
        blocked.retry_after = failure.retry_after();
        blocked.into()
    }

    fn broken(&self, name: &str, error: &CallError) -> Failure {
        let error = error.clone().redacted(&self.secrets.iter().collect::<Vec<_>>());
        let message = format!("{name}: {error}");
        match error {
            CallError::OriginNotAllowed { .. } => Blocked::stalled(self.condition, reason::ORIGIN_NOT_ALLOWED, message),
            // Where every answer has the status 200, `success` is what tells that the credentials are wrong.
            CallError::Unsuccessful { .. } if name == "verify" => {
                Blocked::retrying(self.condition, reason::CREDENTIALS_REFUSED, message)
            }
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

/// Whether the external system says that there is no such webhook.
fn is_gone(outcome: &CallOutcome) -> bool {
    matches!(outcome, CallOutcome::Failed(failure) if matches!(failure.status(), Some(404 | 410)))
}
