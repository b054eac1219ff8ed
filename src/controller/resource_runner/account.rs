//! A ServiceAccount of a workspace, and what is asked of the API server in its name.
//!
//! Bellhop impersonates it. Its own rights are left aside by that: the API server judges the request by what the
//! ServiceAccount may do, and writes both names into its audit log.

use super::outcome;
use crate::api::{ALLOW_RESOURCE_RUNNERS_ANNOTATION, ResourceAnswer, reason};
use crate::controller::workflow_trigger::plan::Missing;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::Api;
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde_json::Value;

/// Where one asks what oneself may do.
pub const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/// Whom a request is made for. The API server adds the groups that every ServiceAccount is in, so that no right to
/// impersonate groups is needed.
const IMPERSONATE_USER: &str = "impersonate-user";
/// The largest answer that is read, in bytes: objects come back as they were sent, with what the API server adds.
const MAX_ANSWER: usize = 2 * 1024 * 1024;

/// A ServiceAccount that allows to be used.
pub struct Account {
    client: Client,
    user: HeaderValue,
}

/// What the API server has answered.
pub struct Answer {
    status: StatusCode,
    retry_after: Option<String>,
    body: Vec<u8>,
}

impl Account {
    /// Looks for the ServiceAccount, and whether it allows to be used.
    ///
    /// # Errors
    /// It does not, or it cannot be read.
    pub async fn of(client: &Client, namespace: &str, name: &str) -> Result<Self, Missing> {
        let field = "spec.runner.resource.serviceAccountName";
        let missing =
            |reason: &'static str, message: String| Missing { reason, message: format!("{field}: {message}") };
        if !super::is_name(name) {
            return Err(missing(reason::RUNNER_NOT_FOUND, format!("{name:?} is not a name")));
        }
        let api = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
        let account = match api.get_metadata_opt(name).await {
            Ok(Some(account)) => account,
            Ok(None) => {
                let message = format!("there is no ServiceAccount \"{name}\" in the namespace {namespace}");
                return Err(missing(reason::RUNNER_NOT_FOUND, message));
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                let message = format!(
                    "Bellhop may not use ServiceAccounts of the namespace {namespace}; the administrator lists it in \
                     resourceRunners.namespaces of the chart: {}",
                    status.message
                );
                return Err(missing(reason::RUNNER_NOT_ALLOWED, message));
            }
            Err(error) => {
                let message = format!("the ServiceAccount \"{name}\" cannot be read: {error}");
                return Err(missing(reason::RUNNER_NOT_FOUND, message));
            }
        };
        if account.annotations().get(ALLOW_RESOURCE_RUNNERS_ANNOTATION).is_none_or(|value| value != "true") {
            let message = format!(
                "the ServiceAccount \"{name}\" does not allow it; add the annotation \
                 {ALLOW_RESOURCE_RUNNERS_ANNOTATION}: \"true\" to it"
            );
            return Err(missing(reason::RUNNER_NOT_ALLOWED, message));
        }
        let user = HeaderValue::try_from(format!("system:serviceaccount:{namespace}:{name}"));
        let user = user.map_err(|_| missing(reason::RUNNER_NOT_FOUND, format!("{name:?} is no name")))?;
        Ok(Self { client: client.clone(), user })
    }

    /// Asks the API server for something in the name of the ServiceAccount.
    ///
    /// # Errors
    /// There was no answer. Whatever it says is one.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, kube::Error> {
        let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(IMPERSONATE_USER, &self.user)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body))
            .map_err(kube::Error::HttpError)?;
        let answer = self.client.send(request).await?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(kube::Error::Service)?;
        let retry_after = parts.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Answer { status: parts.status, retry_after, body: body.to_bytes().to_vec() })
    }
}

impl Answer {
    /// An answer, as it came.
    #[cfg(test)]
    pub fn new(status: u16, body: &Value) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, retry_after: None, body: body.to_string().into_bytes() }
    }

    /// Whether what was asked for was done.
    pub fn is_success(&self) -> bool {
        self.status.is_success()
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Whether there is an object of the name.
    pub fn already_exists(&self) -> bool {
        self.status == StatusCode::CONFLICT && self.json().is_some_and(|status| status["reason"] == "AlreadyExists")
    }

    /// The body, if it is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// What it says, if it is a refusal.
    pub fn words(&self) -> String {
        outcome::words(self.json().as_ref(), &self.body)
    }

    /// What the ingress is told of a refusal. One that is over by itself is told as 429, which is tried again.
    pub fn refused(self) -> ResourceAnswer {
        let said = self.words();
        let json = self.json();
        let (status, message) = match outcome::passes(self.status, json.as_ref()) {
            true => (StatusCode::TOO_MANY_REQUESTS, format!("not now ({}): {said}", self.status.as_u16())),
            false => (self.status, said),
        };
        ResourceAnswer::Refused { status: status.as_u16(), message, retry_after: self.retry_after }
    }
}
