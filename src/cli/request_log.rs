//! The request log, as the API server hands it out.

use super::client::{Cluster, names_an_object};
use super::exit::Exit;
use super::output::clean;
use crate::log::model::{GROUP, Replayed, Request, SILENT_ANNOTATION, VERSION, split_name};
use crate::log::sending::{SendSpec, Sent};
use anyhow::{Context, anyhow};
use async_stream::try_stream;
use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use kube::Client;
use kube::api::{GetParams, ListParams, WatchEvent, WatchParams};
use kube::core;
use serde::Deserialize;
use serde_json::json;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

/// Requests that are read in one call.
const PAGE: usize = 250;
/// Requests that are looked through after an interruption for what was missed.
const CATCH_UP: usize = 1000;
/// Pause after an interruption, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is heard while a draft listens.
pub enum Heard {
    /// It listens from now on; perhaps not at all replicas of the ingress, and why.
    Begun(Option<String>),
    /// A request that it has captured.
    Captured(Box<Request>),
}

/// The log of one workspace.
pub struct RequestLog {
    client: Client,
    namespace: String,
    path: String,
}

/// What is told of requests while they are followed.
pub enum Told {
    /// Those that are there, oldest first: at the beginning, and again after an interruption.
    There(Vec<Request>),
    /// One that came or changed.
    Changed(Box<Request>),
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    items: Vec<Request>,
}

impl RequestLog {
    /// The log of the cluster's workspace. Nothing is asked yet.
    pub fn new(cluster: &Cluster) -> Self {
        let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{}/requests", cluster.namespace);
        Self { client: cluster.client.clone(), namespace: cluster.namespace.clone(), path }
    }

    /// The newest requests that a selector means, at most `limit`; the newest one first.
    ///
    /// # Errors
    /// The log is not served, or the API server refused.
    pub async fn list(&self, selector: &str, limit: usize) -> anyhow::Result<Vec<Request>> {
        Ok(self.newest(selector, limit).await?.0)
    }

    /// The same, with the version from which they can be followed.
    async fn newest(&self, selector: &str, limit: usize) -> anyhow::Result<(Vec<Request>, String)> {
        let (mut requests, mut version) = (Vec::new(), None);
        let mut params = ListParams::default().fields(selector);
        loop {
            let left = (limit - requests.len()).clamp(1, PAGE);
            params = params.limit(u32::try_from(left).unwrap_or(u32::MAX));
            let page: List = self.ask(core::Request::new(&self.path).list(&params).map_err(build)?).await?;
            requests.extend(page.items);
            // What comes while later pages are read is told when it is followed from the first one.
            version = version.or(page.metadata.resource_version);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) if requests.len() < limit => params = params.continue_token(&token),
                _ => break,
            }
        }
        requests.truncate(limit);
        Ok((requests, version.unwrap_or_default()))
    }

    /// One request with all that is known of it.
    ///
    /// # Errors
    /// [`Exit::NotFound`], and as [`RequestLog::list`].
    pub async fn get(&self, name: &str) -> anyhow::Result<Request> {
        self.check(name)?;
        self.ask(core::Request::new(&self.path).get(name, &GetParams::default()).map_err(build)?).await
    }

    /// Has a request delivered again: to one trigger or to all that fired, perhaps only what was given up.
    ///
    /// # Errors
    /// It cannot be, and why; and as [`RequestLog::get`].
    pub async fn replay(&self, name: &str, trigger: Option<&str>, dead_letters: bool) -> anyhow::Result<Replayed> {
        #[derive(Deserialize)]
        struct Replay {
            status: Replayed,
        }
        self.check(name)?;
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Replay",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"trigger": trigger, "deadLetters": dead_letters},
        });
        let request = http::Request::post(format!("{}/{name}/replay", self.path));
        let request =
            request.header(http::header::CONTENT_TYPE, "application/json").body(serde_json::to_vec(&body)?)?;
        Ok(self.ask::<Replay>(request).await?.status)
    }

    /// Sends a request that is made up to a Subscription.
    ///
    /// # Errors
    /// It was not taken, and why; and as [`RequestLog::get`].
    pub async fn send(&self, subscription: &str, spec: &SendSpec) -> anyhow::Result<Sent> {
        #[derive(Deserialize)]
        struct Send {
            status: Sent,
        }
        // It becomes a part of the path.
        if !subscription.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')) {
            return Err(Exit::Usage(format!("{subscription} is no name of a Subscription")).into());
        }
        let body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "Send",
            "metadata": {"name": subscription, "namespace": self.namespace},
            "spec": spec,
        });
        let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{}/subscriptions/{subscription}/send", self.namespace);
        let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        Ok(self.ask::<Send>(request.body(serde_json::to_vec(&body)?)?).await?.status)
    }

    /// Tells the newest requests that a selector means, at most `tail`, and then all that come or change, for ever. An
    /// interruption is said on standard error once, and tried to be ended.
    pub fn follow(&self, selector: String, tail: usize) -> impl Stream<Item = anyhow::Result<Told>> {
        try_stream! {
            let (mut is_first, mut pause) = (true, Duration::ZERO);
            loop {
                let (mut requests, version) = match self.newest(&selector, if is_first { tail } else { CATCH_UP }).await {
                    Ok(newest) => newest,
                    Err(error) if is_first => Err(error)?,
                    Err(error) => {
                        if pause.is_zero() {
                            let error = clean(&format!("{error:#}"));
                            eprintln!("The request log cannot be followed, trying again: {error}");
                        }
                        pause = (pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                };
                (is_first, pause) = (false, Duration::ZERO);
                requests.reverse();
                yield Told::There(requests);
                let params = WatchParams::default().fields(&selector);
                let watch = core::Request::new(&self.path).watch(&params, &version).map_err(build)?;
                if let Ok(events) = self.client.request_events::<Request>(watch).await {
                    let mut events = pin!(events);
                    while let Some(event) = events.next().await {
                        match event {
                            Ok(WatchEvent::Added(request) | WatchEvent::Modified(request)) => {
                                yield Told::Changed(Box::new(request));
                            }
                            Ok(WatchEvent::Deleted(_) | WatchEvent::Bookmark(_)) => {}
                            Ok(WatchEvent::Error(_)) | Err(_) => break,
                        }
                    }
                }
                // A watch that ends at once must not become a circle without a pause.
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// Has a draft listen until then, and tells what it captures. An interruption, in which it does not listen, is said on
    /// standard error. Whoever stops to read makes it stop to listen.
    pub fn listen(&self, trigger: &str, end: Instant) -> impl Stream<Item = anyhow::Result<Heard>> {
        let base = self.path.trim_end_matches("/requests").to_owned();
        let trigger: String = url::form_urlencoded::byte_serialize(trigger.as_bytes()).collect();
        let path = format!("{base}/captures?watch=true&fieldSelector=metadata.name%3D{trigger}");
        try_stream! {
            let mut has_begun = false;
            loop {
                let left = end.saturating_duration_since(Instant::now()).as_secs() + 1;
                let request = http::Request::get(format!("{path}&timeoutSeconds={left}")).body(Vec::new())?;
                let (mut interruption, mut listens) = (None, false);
                match self.client.request_events::<Request>(request).await {
                    Ok(events) => {
                        let mut events = pin!(events);
                        while let Some(event) = events.next().await {
                            match event {
                                Ok(WatchEvent::Added(request) | WatchEvent::Modified(request)) => {
                                    yield Heard::Captured(Box::new(request));
                                }
                                Ok(WatchEvent::Bookmark(bookmark)) => {
                                    // Further ones only say that the connection lives.
                                    if !std::mem::replace(&mut listens, true) {
                                        has_begun = true;
                                        let silent = bookmark.metadata.annotations.get(SILENT_ANNOTATION).cloned();
                                        yield Heard::Begun(silent);
                                    }
                                }
                                Ok(WatchEvent::Deleted(_)) => {}
                                Ok(WatchEvent::Error(status)) => interruption = Some(kube::Error::Api(status)),
                                Err(error) => interruption = Some(error),
                            }
                            if interruption.is_some() {
                                break;
                            }
                        }
                    }
                    Err(error) => interruption = Some(error),
                }
                if Instant::now() >= end {
                    return;
                }
                match interruption {
                    Some(error) if !has_begun => Err(told(error))?,
                    Some(error) => eprintln!("Not listening any more, trying again: {}", clean(&error.to_string())),
                    None => eprintln!("Not listening any more, trying again."),
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, request: http::Request<Vec<u8>>) -> anyhow::Result<T> {
        self.client.request(request).await.map_err(told)
    }

    /// What cannot be a request's name is not sent, since it would be a part of the path.
    fn check(&self, name: &str) -> anyhow::Result<()> {
        if split_name(name).is_some() {
            return Ok(());
        }
        let message =
            format!("{name} is no name of a request; `kubectl get requests.{GROUP} -n {}` lists them", self.namespace);
        Err(Exit::Usage(message).into())
    }
}

fn build(error: core::request::Error) -> anyhow::Error {
    anyhow::Error::new(error).context("a request to the API server")
}

/// What the API server's refusal means.
fn told(error: kube::Error) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) if status.code == 404 && !names_an_object(status) => anyhow!(
            "this cluster does not serve the request log: an administrator has to install or upgrade Bellhop's chart with \
             requestLog.enabled, which registers the APIService {VERSION}.{GROUP}"
        ),
        kube::Error::Api(status) if status.code == 503 => anyhow!(
            "the request log does not answer; an administrator can see why with `kubectl describe apiservice \
             {VERSION}.{GROUP}`: {}",
            status.message.trim()
        ),
        _ => super::client::told(error),
    }
}

/// A field selector: every field has to have its value.
pub fn selector(fields: &[(&str, Option<&str>)]) -> String {
    let escape = |value: &str| value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    let terms = fields.iter().filter_map(|(field, value)| Some(format!("{field}={}", escape((*value)?))));
    terms.collect::<Vec<_>>().join(",")
}

/// Reads a moment of the log.
///
/// # Errors
/// It is none.
pub fn moment(text: &str) -> anyhow::Result<k8s_openapi::jiff::Timestamp> {
    text.parse().with_context(|| format!("the time {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_written_as_the_api_machinery_reads_them() {
        assert_eq!(selector(&[("subscription", Some("acme-web")), ("event", None)]), "subscription=acme-web");
        assert_eq!(selector(&[("event", Some("a,b=c")), ("trigger", Some("x"))]), "event=a\\,b\\=c,trigger=x");
    }

    #[test]
    fn a_log_that_is_not_served_is_told_with_what_to_do() {
        let status = |code, name: &str, message: &str| {
            let details = json!({"name": name});
            let status = json!({"status": "Failure", "code": code, "message": message, "details": details});
            kube::Error::Api(Box::new(serde_json::from_value(status).unwrap()))
        };
        assert!(
            told(status(404, "", "404 page not found")).to_string().contains("APIService v1alpha1.log.bellhop.dev")
        );
        assert!(told(status(503, "", "no endpoints")).to_string().ends_with("v1alpha1.log.bellhop.dev`: no endpoints"));
        let missing = told(status(404, "0-x", "it is not in the log"));
        assert_eq!(missing.downcast_ref(), Some(&Exit::NotFound("it is not in the log".to_owned())));
    }
}
