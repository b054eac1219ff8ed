//! Requests as they come and change, of all replicas in one stream.
//!
//! Each replica is followed by a task of its own, from where the client has seen its log; one whose stream breaks off, or
//! that comes later, is followed again from there. That old requests fall out of the log is not told: kubectl would print
//! each of them once more.

use super::accept::Form;
use super::entry::Entry;
use super::list::{PATIENCE, is_of, path, read, words};
use super::page::{Seen, latest};
use super::question::{Ear, Watch, Where};
use super::replicas::{Answer, Replica, Replicas};
use super::selector::Selector;
use super::status::Refusal;
use super::table::{Include, table};
use super::{CAPTURE, GROUP, VERSION};
use crate::log::model::{SILENT_ANNOTATION, Version};
use crate::log::places::Place;
use bytes::Bytes;
use futures::Stream;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Requests of each replica that are told first, if the client has seen none: they are held in memory until the client has
/// read them.
const FIRST: usize = 100;
/// Changes that wait for a client that reads slowly; then the replicas wait.
const QUEUE: usize = 64;
/// Pause before a replica is followed again.
const PAUSE: Duration = Duration::from_secs(1);
/// Names that are remembered of what was sent.
const MAX_SENT: usize = 10_000;

/// A line of a replica's stream.
#[derive(Deserialize)]
struct Line {
    r#type: String,
    #[serde(default)]
    object: Value,
}

/// What the task of a replica tells, with its number.
enum Told {
    /// A request that came or changed.
    Request(String, Entry),
    /// It is followed now, so that a draft listens there; or why it is not.
    Begun(String, Result<(), String>),
}

/// What is followed, and from where.
#[derive(Clone)]
struct Course {
    place: Where,
    /// How far the client has seen each replica's log.
    seen: Seen,
    /// Where it begins in those whose log it has not seen; nothing: with all that there is.
    from: Option<Version>,
    /// The draft that listens meanwhile.
    listens: Option<String>,
}

/// Where requests come from.
#[derive(Clone)]
pub struct Source {
    /// Who keeps them.
    pub replicas: Replicas,
    /// Turns to read a list, which is larger than a change.
    pub turns: Arc<Semaphore>,
}

/// Lines of the watch protocol of Kubernetes; `slot` is given back at the end.
///
/// # Errors
/// 400: the resource version was not given here.
pub fn watch(
    source: Source,
    place: Where,
    wanted: Watch,
    form: Form,
    include: Include,
    slot: Place,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static, Refusal> {
    let seen = wanted.since.as_deref().map(Seen::parse).transpose()?.unwrap_or_default();
    let course = Course { place, seen, from: None, listens: None };
    Ok(lines(source, course, wanted.life, (form, include), slot))
}

/// The same, of what a draft captures while this lasts. A bookmark says that it listens at every replica; where it does not,
/// an annotation of the bookmark says why.
///
/// # Errors
/// 503: there is no replica that could be asked.
pub fn listen(
    source: Source,
    ear: Ear,
    slot: Place,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static, Refusal> {
    if !source.replicas.all().iter().any(Replica::can_be_asked) {
        return Err(Refusal::unavailable("no replica of the ingress is there to listen"));
    }
    let place =
        Where { namespace: Some(ear.namespace), selector: Selector::parse(&format!("trigger={}", ear.trigger))? };
    let now = crate::ingress::now_millis();
    let from = Some(Version::new(now, uuid::Uuid::nil(), now));
    let course = Course { place, seen: Seen::default(), from, listens: Some(ear.trigger) };
    Ok(lines(source, course, ear.life, (Form::Objects, Include::None), slot))
}

fn lines(
    source: Source,
    course: Course,
    life: Duration,
    (form, include): (Form, Include),
    slot: Place,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    async_stream::stream! {
        let _slot = slot;
        let (sender, mut told) = mpsc::channel(QUEUE);
        let first = source.replicas.all();
        let mut begin = course.listens.is_some().then(|| Begin::of(&first));
        // Ends with this stream, and its tasks with it.
        let mut all = JoinSet::new();
        all.spawn(follow_all(source, first, course.clone(), sender));
        let Course { place, seen, listens, .. } = course;
        let mut sender = Sender { selector: place.selector, seen, sent: HashSet::new(), form, include, listens };
        let end = tokio::time::sleep(life);
        tokio::pin!(end);
        loop {
            let told = tokio::select! {
                told = told.recv() => told,
                () = &mut end => None,
            };
            match told {
                None => return,
                Some(Told::Request(replica, entry)) => {
                    if let Some(line) = sender.line(&replica, entry) {
                        yield Ok(line);
                    }
                }
                Some(Told::Begun(replica, how)) => {
                    let begun = match &mut begin {
                        Some(awaited) => awaited.hears(&replica, how),
                        // The client learns that the connection lives.
                        None => (how.is_ok() && sender.listens.is_some()).then(Vec::new),
                    };
                    if let Some(silent) = begun {
                        yield Ok(bookmark(&sender.seen, &silent));
                        begin = None;
                    }
                }
            }
        }
    }
}

/// The replicas at which a draft does not listen yet, and at which it cannot.
struct Begin {
    awaited: HashSet<String>,
    silent: Vec<String>,
}

impl Begin {
    fn of(replicas: &[Replica]) -> Self {
        Self { awaited: replicas.iter().map(|replica| replica.number.clone()).collect(), silent: Vec::new() }
    }

    /// Takes what a replica tells. Once nothing more is awaited, gives why some do not listen.
    fn hears(&mut self, replica: &str, how: Result<(), String>) -> Option<Vec<String>> {
        if self.awaited.remove(replica)
            && let Err(why) = how
        {
            self.silent.push(format!("replica {replica} of the ingress does not listen: {why}"));
        }
        self.awaited.is_empty().then(|| std::mem::take(&mut self.silent))
    }
}

/// With what is silent, if it begins.
fn bookmark(seen: &Seen, silent: &[String]) -> Bytes {
    let mut metadata = json!({"resourceVersion": seen.to_string()});
    if !silent.is_empty() {
        metadata["annotations"] = json!({SILENT_ANNOTATION: silent.join("; ")});
    }
    line("BOOKMARK", &json!({"kind": CAPTURE, "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata}))
}

/// Makes lines of requests.
struct Sender {
    selector: Selector,
    seen: Seen,
    /// Names of the requests that the client has from here.
    sent: HashSet<String>,
    form: Form,
    include: Include,
    /// Only what this draft has captured, as objects of the kind `Capture`.
    listens: Option<String>,
}

impl Sender {
    fn line(&mut self, replica: &str, mut entry: Entry) -> Option<Bytes> {
        self.seen.see(replica, entry.version());
        if let Some(trigger) = &self.listens {
            if !entry.captured_by(trigger) {
                return None;
            }
            entry.0["kind"] = json!(CAPTURE);
        }
        let known = self.sent.contains(entry.name());
        let kind = match (self.selector.matches(&entry), known) {
            (true, false) => "ADDED",
            (true, true) => "MODIFIED",
            // As of now, it is not among those that are meant.
            (false, true) => "DELETED",
            (false, false) => return None,
        };
        if kind == "DELETED" {
            self.sent.remove(entry.name());
        } else if !known {
            if self.sent.len() >= MAX_SENT {
                self.sent.clear();
            }
            self.sent.insert(entry.name().to_owned());
        }
        // A client that goes on from here goes on for all replicas.
        entry.0["metadata"]["resourceVersion"] = json!(self.seen.to_string());
        let object = match self.form {
            Form::Table => {
                let now = k8s_openapi::jiff::Timestamp::now().as_millisecond();
                table(&[entry], self.include, json!({"resourceVersion": self.seen.to_string()}), now)
            }
            _ => entry.0,
        };
        Some(line(kind, &object))
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": kind, "object": object})).into()
}

/// Follows the first ones, each of which tells something of itself even if it is gone by now, and all that there are later,
/// until nobody listens any more.
async fn follow_all(source: Source, first: Vec<Replica>, mut course: Course, sender: mpsc::Sender<Told>) {
    let (mut tasks, mut followed, mut changes) = (JoinSet::new(), HashSet::new(), None);
    let mut first = Some(first);
    loop {
        for replica in first.take().unwrap_or_else(|| source.replicas.all()) {
            if followed.insert(replica.number.clone()) {
                let since = course.seen.of(&replica.number).or(course.from);
                tasks.spawn(follow(replica, source.turns.clone(), course.clone(), since, sender.clone()));
            }
        }
        tokio::select! {
            () = source.replicas.changed(&mut changes) => {}
            () = sender.closed() => return,
            Some(ended) = tasks.join_next() => {
                // A task that has panicked stays in `followed`; that is logged by the runtime, and nothing is lost but it.
                if let Ok((number, version)) = ended {
                    followed.remove(&number);
                    if let Some(version) = version {
                        course.seen.see(&number, version);
                    }
                }
            }
        }
    }
}

/// Follows one replica until it breaks off; gives its number and how far its log was seen.
async fn follow(
    replica: Replica,
    turns: Arc<Semaphore>,
    course: Course,
    mut since: Option<Version>,
    sender: mpsc::Sender<Told>,
) -> (String, Option<Version>) {
    if let Err(why) = tell(&replica, &turns, &course, &mut since, &sender).await {
        tracing::debug!(replica = replica.number, why, "the log of a replica is not followed any more");
        // Of no interest to who does not wait for it.
        let _ = sender.send(Told::Begun(replica.number.clone(), Err(why))).await;
    }
    tokio::time::sleep(PAUSE).await;
    (replica.number, since)
}

async fn tell(
    replica: &Replica,
    turns: &Semaphore,
    course: &Course,
    since: &mut Option<Version>,
    sender: &mpsc::Sender<Told>,
) -> Result<(), String> {
    let place = &course.place;
    if since.is_none() {
        let turn = turns.acquire().await.map_err(|_| "the controller ends".to_owned())?;
        let read = read(replica, place, FIRST, None).await?;
        // How long sending takes is up to who reads.
        drop(turn);
        for entry in read.entries.into_iter().rev() {
            send(sender, replica, entry).await?;
        }
        *since = Some(read.latest.unwrap_or(Version::NONE));
    }
    let seen = since.unwrap_or(Version::NONE);
    let mut answer = open(replica, course, seen).await?;
    if answer.status != StatusCode::OK {
        let status = answer.status;
        return Err(format!("it answered {status}: {}", words(&answer.whole(PATIENCE).await?)));
    }
    while let Some(line) = answer.line().await? {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_slice(&line).map_err(|_| "a line of its stream cannot be read".to_owned())?;
        match line.r#type.as_str() {
            "ADDED" | "MODIFIED" => {}
            "BOOKMARK" if course.listens.is_some() => {
                hand(sender, Told::Begun(replica.number.clone(), Ok(()))).await?;
                continue;
            }
            // More has happened than the stream could hold: it is told by the next one.
            "EXPIRED" => return Err("it could not be read as fast as things happened".to_owned()),
            _ => continue,
        }
        let entry = Entry(line.object);
        let version = entry.version();
        // What was seen last is told again, because something else may have changed in the same millisecond.
        if version != seen && is_of(&entry, replica, place.namespace.as_deref()) {
            send(sender, replica, entry).await?;
            *since = since.map(|since| latest(since, version));
        }
    }
    Ok(())
}

/// Only by the Subscription, which never changes: whether a change makes a request one that is not meant any more, or one
/// that is, can only be told by whoever sees both.
async fn open(replica: &Replica, course: &Course, since: Version) -> Result<Answer, String> {
    let (since, place) = (since.to_string(), &course.place);
    let subscription = place.selector.value("subscription").map(|name| ("subscription", name));
    let listens = course.listens.iter().flat_map(|trigger| [("trigger", trigger.as_str()), ("listen", "true")]);
    let query = [("watch", "true"), ("since", since.as_str())].into_iter().chain(subscription).chain(listens);
    let path = path(place.namespace.as_deref(), None, query);
    replica.ask(Method::GET, &path, Bytes::new(), PATIENCE).await
}

async fn send(sender: &mpsc::Sender<Told>, replica: &Replica, entry: Entry) -> Result<(), String> {
    hand(sender, Told::Request(replica.number.clone(), entry)).await
}

async fn hand(sender: &mpsc::Sender<Told>, told: Told) -> Result<(), String> {
    sender.send(told).await.map_err(|_| "nobody listens any more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::replicas::Remote;
    use super::*;
    use crate::controller::replicas::log_service_for_tests;
    use crate::log::places::{Hall, Places};
    use futures::StreamExt;
    use kube::runtime::watcher::Event;

    #[tokio::test]
    async fn a_replica_that_leaves_while_it_begins_is_not_awaited_for_ever() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let nobody = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let (service, mut slices) = log_service_for_tests(&[nobody, nobody]);
        // Without an identity, each of them says at once that it cannot be asked.
        let replicas = Replicas::Service(Remote::new(service, tokio::sync::watch::channel(None).1));
        let source = Source { replicas, turns: Arc::new(Semaphore::new(1)) };
        let place = Where { namespace: Some("team-a".to_owned()), selector: Selector::default() };
        let from = Some(Version::NONE);
        let course = Course { place, seen: Seen::default(), from, listens: Some("draft".to_owned()) };
        let slot = Hall::new(Places { total: 1, each: 1 }).enter("team-a").unwrap();
        let form = (Form::Objects, Include::None);
        let mut lines = std::pin::pin!(lines(source, course, Duration::from_secs(60), form, slot));
        assert!(futures::poll!(lines.next()).is_pending());
        let gone = json!({"metadata": {"name": "slice-1"}, "addressType": "IPv4", "endpoints": []});
        slices.apply_watcher_event(&Event::Delete(serde_json::from_value(gone).unwrap()));
        let begun = tokio::time::timeout(Duration::from_secs(10), lines.next()).await.expect("it begins").unwrap();
        let begun: Value = serde_json::from_slice(&begun.unwrap()).unwrap();
        let silent = begun["object"]["metadata"]["annotations"][SILENT_ANNOTATION].as_str().unwrap();
        assert!(
            begun["type"] == "BOOKMARK" && silent.contains("replica 0 ") && silent.contains("replica 1 "),
            "{begun}"
        );
    }

    fn version(age: u64) -> Version {
        Version::new(1_700_000_000_000, uuid::Uuid::nil(), 1_700_000_000_000 + age)
    }

    fn entry(age: u64, outcome: &str) -> Entry {
        Entry(json!({"metadata": {"name": "0-a", "resourceVersion": version(age).to_string()}, "outcome": outcome}))
    }

    #[test]
    fn a_change_is_told_as_what_it_is_for_who_selects() {
        let selector = Selector::parse("outcome=Pending").unwrap();
        let seen = Seen::parse("1:7").unwrap();
        let (form, include) = (Form::Objects, Include::Metadata);
        let mut sender = Sender { selector, seen, sent: HashSet::new(), form, include, listens: None };
        let mut tell = |version, outcome: &str| {
            let line = sender.line("0", entry(version, outcome))?;
            assert!(line.ends_with(b"\n"));
            let line: Value = serde_json::from_slice(&line).unwrap();
            Some((line["type"].clone(), line["object"]["metadata"]["resourceVersion"].clone()))
        };
        let told = |kind: &str, age| Some((json!(kind), json!(format!("0:{},1:7", version(age)))));
        assert_eq!(tell(1, "Received"), None);
        assert_eq!(tell(2, "Pending"), told("ADDED", 2));
        assert_eq!(tell(3, "Pending"), told("MODIFIED", 3));
        assert_eq!(tell(4, "Delivered"), told("DELETED", 4));
        assert_eq!(tell(5, "Delivered"), None);
    }
}
