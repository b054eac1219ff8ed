//! The request log, as the API server hands it out.

use super::client::{Cluster, names_an_object};
use super::exit::Exit;
use super::output::clean;
use crate::log::model::{GROUP, Replayed, Request, SILENT_ANNOTATION, VERSION, can_be_a_name, split_name};
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
/// Requests that are looked through for those that are wanted, unless more are.
const MOST_LOOKED_AT: usize = 20_000;
/// Pause after an interruption, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long it is tried to read a request that cannot be read, and the pause in between.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// How long a draft is given at least to begin to listen.
pub const BEGINS_WITHIN: Duration = Duration::from_secs(30);

/// What is thought of a request, when the newest ones are looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It is wanted.
    Wanted,
    /// It is not; one before it may be.
    PassedOver,
    /// Neither it nor any before it.
    End,
}

/// What was found among the newest requests.
struct Found {
    requests: Vec<Request>,
    /// How many were looked at.
    looked_at: usize,
    /// Whether there are more, which were not looked at.
    cut: bool,
    /// The version from which they can be followed.
    version: String,
}

/// What is heard while a draft listens.
pub enum Heard {
    /// It listens from now on (again, after an interruption); perhaps not at all replicas of the ingress, and why.
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

    /// The newest requests that a selector means and that are wanted, at most `limit`; the newest one first. If there are fewer
    /// among the newest 20,000, the ones before are not looked at, which is said on standard error.
    ///
    /// # Errors
    /// The log is not served, or the API server refused.
    pub async fn find(
        &self,
        selector: &str,
        limit: usize,
        look: impl Fn(&Request) -> Look,
    ) -> anyhow::Result<Vec<Request>> {
        Ok(self.newest(selector, limit, look).await?.0)
    }

    /// The same, of those among the newest `most`; and whether there are more, which were not looked at.
    ///
    /// # Errors
    /// As [`RequestLog::find`].
    pub async fn find_among(
        &self,
        selector: &str,
        most: usize,
        look: impl Fn(&Request) -> Look,
    ) -> anyhow::Result<(Vec<Request>, bool)> {
        let found = self.search(selector, usize::MAX, most, look).await?;
        Ok((found.requests, found.cut))
    }

    /// At most `limit` that are wanted, with the version from which they can be followed.
    async fn newest(
        &self,
        selector: &str,
        limit: usize,
        look: impl Fn(&Request) -> Look,
    ) -> anyhow::Result<(Vec<Request>, String)> {
        let found = self.search(selector, limit, limit.max(MOST_LOOKED_AT), look).await?;
        if found.cut && found.requests.len() < limit {
            eprintln!("The newest {} requests were looked through, and none before.", found.looked_at);
        }
        Ok((found.requests, found.version))
    }

    /// The newest requests that are wanted, `limit` at most, of the newest `most`.
    async fn search(
        &self,
        selector: &str,
        limit: usize,
        most: usize,
        look: impl Fn(&Request) -> Look,
    ) -> anyhow::Result<Found> {
        let (mut requests, mut looked_at, mut cut, mut version) = (Vec::new(), 0, false, None);
        let mut params = ListParams::default().fields(selector);
        'pages: loop {
            let left = if looked_at == requests.len() { limit - requests.len() } else { PAGE };
            params = params.limit(u32::try_from(left.clamp(1, PAGE)).unwrap_or(u32::MAX));
            let page: List = self.ask(core::Request::new(&self.path).list(&params).map_err(build)?).await?;
            // What comes while later pages are read is told when it is followed from the first one.
            version = version.or(page.metadata.resource_version);
            let more = page.metadata.continue_.filter(|token| !token.is_empty());
            for request in page.items {
                if requests.len() >= limit || looked_at >= most {
                    cut = true;
                    break 'pages;
                }
                looked_at += 1;
                match look(&request) {
                    Look::Wanted => requests.push(request),
                    Look::PassedOver => {}
                    Look::End => break 'pages,
                }
            }
            match more {
                None => break,
                Some(_) if requests.len() >= limit || looked_at >= most => {
                    cut = true;
                    break;
                }
                Some(token) => params = params.continue_token(&token),
            }
        }
        Ok(Found { requests, looked_at, cut, version: version.unwrap_or_default() })
    }

    /// One request with all that is known of it.
    ///
    /// # Errors
    /// [`Exit::NotFound`], and as [`RequestLog::find`].
    pub async fn get(&self, name: &str) -> anyhow::Result<Request> {
        self.check(name)?;
        self.read(name)?.await.map_err(told)
    }

    /// The same, which tries again for some seconds what may go better then, and gives up after them.
    ///
    /// # Errors
    /// As [`RequestLog::get`].
    pub async fn get_patiently(&self, name: &str) -> anyhow::Result<Request> {
        self.check(name)?;
        let mut last = None;
        let read = async {
            loop {
                match self.read(name)?.await {
                    Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                        return Err(told(kube::Error::Api(status)));
                    }
                    Err(error) => last = Some(error),
                    Ok(request) => return Ok(request),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(read) => read,
            Err(_) => Err(last.map_or_else(|| anyhow!("no answer in {}s", PATIENCE.as_secs()), told)),
        }
    }

    fn read(&self, name: &str) -> anyhow::Result<impl Future<Output = kube::Result<Request>>> {
        let request = core::Request::new(&self.path).get(name, &GetParams::default()).map_err(build)?;
        Ok(self.client.request(request))
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
        if !can_be_a_name(subscription) {
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

    /// Tells the newest requests that a selector means and that are wanted, at most `tail`, and then all that come or change,
    /// wanted or not, for ever. An interruption is said on standard error once, and tried to be ended.
    pub fn follow(
        &self,
        selector: String,
        tail: usize,
        look: impl Fn(&Request) -> Look + Copy,
    ) -> impl Stream<Item = anyhow::Result<Told>> {
        try_stream! {
            let (mut is_first, mut pause) = (true, Duration::ZERO);
            loop {
                let number = if is_first { tail } else { CATCH_UP };
                let (mut requests, version) = match self.newest(&selector, number, look).await {
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

    /// Has a draft listen, and tells what it captures: for so long from the moment in which it listens. An interruption, in
    /// which it does not listen, is said on standard error. Whoever stops to read makes it stop to listen.
    pub fn listen(&self, trigger: &str, time: Duration) -> impl Stream<Item = anyhow::Result<Heard>> {
        let base = self.path.trim_end_matches("/requests").to_owned();
        let trigger: String = url::form_urlencoded::byte_serialize(trigger.as_bytes()).collect();
        let path = format!("{base}/captures?watch=true&fieldSelector=metadata.name%3D{trigger}");
        try_stream! {
            let mut end = None;
            loop {
                let left = end.map_or(time + BEGINS_WITHIN, |end: Instant| end.saturating_duration_since(Instant::now()));
                let path = format!("{path}&timeoutSeconds={}", left.as_secs() + 1);
                let request = http::Request::get(path).body(Vec::new())?;
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
                                        end.get_or_insert_with(|| Instant::now() + time);
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
                if end.is_some_and(|end| Instant::now() >= end) {
                    return;
                }
                match interruption {
                    Some(error) if end.is_none() => Err(told(error))?,
                    Some(error) => eprintln!("Not listening any more, trying again: {}", clean(&error.to_string())),
                    None if end.is_none() => {}
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
impl RequestLog {
    /// A log of which nothing can be asked.
    pub fn for_tests() -> Self {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("nobody is asked"))
        });
        let client = Client::new(service, "default");
        Self::new(&Cluster { client, namespace: "team-a".to_owned(), warnings: std::sync::Arc::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn selectors_are_written_as_the_api_machinery_reads_them() {
        assert_eq!(selector(&[("subscription", Some("acme-web")), ("event", None)]), "subscription=acme-web");
        assert_eq!(selector(&[("event", Some("a,b=c")), ("trigger", Some("x"))]), "event=a\\,b\\=c,trigger=x");
    }

    /// A log of so many requests, which are called `0` and so on from the newest to the oldest; counts the pages it gives.
    fn log_of(all: usize, pages: Arc<AtomicUsize>) -> RequestLog {
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            pages.fetch_add(1, Ordering::Relaxed);
            let query = request.uri().query().unwrap_or_default();
            let number = |name: &str| {
                let mut pairs = url::form_urlencoded::parse(query.as_bytes());
                pairs.find(|(key, _)| key == name).and_then(|(_, value)| value.parse::<usize>().ok())
            };
            let from = number("continue").unwrap_or_default();
            let to = (from + number("limit").expect("a limit")).min(all);
            let mut metadata = json!({"resourceVersion": "7"});
            if to < all {
                metadata["continue"] = json!(to.to_string());
            }
            let items: Vec<_> = (from..to)
                .map(|at| {
                    let mut request = crate::cli::explain::tests::request();
                    request.metadata.name = at.to_string();
                    request
                })
                .collect();
            let body = json!({"metadata": metadata, "items": items}).to_string();
            async { Ok::<_, std::io::Error>(http::Response::new(kube::client::Body::from(body.into_bytes()))) }
        });
        let client = Client::new(service, "default");
        RequestLog::new(&Cluster { client, namespace: "team-a".to_owned(), warnings: Arc::default() })
    }

    #[tokio::test]
    async fn what_is_not_wanted_does_not_count() {
        let pages = Arc::new(AtomicUsize::new(0));
        let log = log_of(1000, pages.clone());
        let found = async |limit: usize, look: fn(usize) -> Look| {
            pages.store(0, Ordering::Relaxed);
            let found = log.find("", limit, |request| look(request.metadata.name.parse().unwrap())).await.unwrap();
            let names: Vec<_> = found.into_iter().map(|request| request.metadata.name).collect();
            (names, pages.load(Ordering::Relaxed))
        };
        let every = |at: usize| if at % 200 == 199 { Look::Wanted } else { Look::PassedOver };
        assert_eq!(found(3, every).await, (vec!["199".to_owned(), "399".to_owned(), "599".to_owned()], 4));
        assert_eq!(found(10, every).await.0.len(), 5);
        let recent = |at: usize| if at < 2 { Look::Wanted } else { Look::End };
        assert_eq!(found(200, recent).await, (vec!["0".to_owned(), "1".to_owned()], 1));
        assert_eq!(found(260, |_| Look::Wanted).await.1, 2);
        assert_eq!(found(1000, |_| Look::Wanted).await.0.len(), 1000);
        let among = async |most| {
            let look = |request: &Request| every(request.metadata.name.parse().unwrap());
            let (found, cut) = log.find_among("", most, look).await.unwrap();
            (found.len(), cut)
        };
        assert_eq!((among(600).await, among(1000).await, among(2000).await), ((3, true), (5, false), (5, false)));
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
