//! Answers what is there: a page of requests, or one.

use super::accept::Form;
use super::entry::Entry;
use super::page::{Merged, Part, Read, latest, merge};
use super::question::{One, Page, Where, parse_name};
use super::replicas::{Replica, Replicas};
use super::status::Refusal;
use super::table::{Include, table};
use super::{GROUP, KIND, VERSION};
use crate::log::ALL;
use crate::log::model::Version;
use bytes::Bytes;
use futures::future::join_all;
use http::{Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use url::form_urlencoded;
use uuid::Uuid;

/// How long a replica may take until its answer begins, and then to its end.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// The longest words of a replica that are passed on, in characters.
const MAX_WORDS: usize = 1000;
/// What is left as it is in a segment of a path.
pub const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.');

/// What a replica answers to the question for a list.
#[derive(Deserialize)]
struct Items {
    items: Vec<Entry>,
    /// Where it goes on, if it does.
    next: Option<String>,
}

/// A page of requests, and lines for people about replicas that have not answered.
///
/// # Errors
/// 503: no replica has answered.
pub async fn list(replicas: &Replicas, place: &Where, page: &Page) -> Result<(Merged, Vec<String>), Refusal> {
    if let Some(name) = place.selector.value("metadata.name") {
        return one_as_list(replicas, place, name).await;
    }
    let mut all = replicas.all();
    if let Some(place) = &page.place {
        all.retain(|replica| place.before.contains_key(&replica.number));
    }
    if all.is_empty() && page.place.is_none() {
        return Err(Refusal::unavailable("no replica of the ingress is known, so there is no log to read"));
    }
    let before = |number: &str| page.place.as_ref().and_then(|place| place.before.get(number).copied().flatten());
    let asked = all.iter().map(async |replica| {
        let before = before(&replica.number);
        (replica, before, read(replica, place, page.limit, before).await)
    });
    let (mut parts, mut warnings) = (Vec::new(), Vec::new());
    for (replica, before, answer) in join_all(asked).await {
        let answer = answer.inspect_err(|why| {
            let number = &replica.number;
            warnings
                .push(format!("replica {number} of the ingress has not answered, its requests are left out: {why}"));
        });
        parts.push(Part { replica: replica.number.clone(), before, answer: answer.ok() });
    }
    for gone in page.place.iter().flat_map(|place| place.before.keys()) {
        if !all.iter().any(|replica| replica.number == *gone) {
            warnings.push(format!("replica {gone} of the ingress is not there any more, its requests are left out"));
        }
    }
    if !parts.is_empty() && parts.iter().all(|part| part.answer.is_none()) {
        return Err(Refusal::unavailable(warnings.join("; ")));
    }
    Ok((merge(parts, page.limit, page.place.as_ref().map(|place| place.seen.clone())), warnings))
}

/// The requests of one replica that are meant, as many as `limit` at most, newest first.
///
/// # Errors
/// It has not answered, or not with a list; a line for people.
pub async fn read(replica: &Replica, place: &Where, limit: usize, before: Option<Version>) -> Result<Read, String> {
    let (limit_text, before_text) = (limit.to_string(), before.map(|before| before.to_string()));
    let before = before_text.as_deref().map(|before| ("before", before));
    let query = place.selector.query().chain([("limit", limit_text.as_str())]).chain(before);
    let path = path(place.namespace.as_deref(), None, query);
    let answer = replica.ask(Method::GET, &path, Bytes::new(), PATIENCE).await?;
    let status = answer.status;
    let body = answer.whole(PATIENCE).await?;
    if status != StatusCode::OK {
        return Err(format!("it answered {status}: {}", words(&body)));
    }
    let items = serde_json::from_slice::<Items>(&body).map_err(|_| "its answer is no list".to_owned())?;
    let rest = items.next.as_deref().map(str::parse).transpose().map_err(|_| "its answer has no end".to_owned())?;
    let entries = items.items.into_iter().filter(|entry| is_of(entry, replica, place.namespace.as_deref()));
    let entries: Vec<_> = entries.collect();
    let latest = entries.iter().map(Entry::version).reduce(latest);
    Ok(Read { entries: entries.into_iter().filter(|entry| place.selector.matches(entry)).collect(), latest, rest })
}

/// What a replica says of a question that it does not answer.
pub fn words(body: &[u8]) -> String {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let said = said.get("error").and_then(Value::as_str).map(str::to_owned);
    said.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()).trim().chars().take(MAX_WORDS).collect()
}

/// Whether a replica may tell this request: workspaces stay apart whatever a replica does.
pub fn is_of(entry: &Entry, replica: &Replica, namespace: Option<&str>) -> bool {
    let own = entry.name().split_once('-').is_some_and(|(number, _)| number == replica.number);
    own && namespace.is_none_or(|namespace| entry.namespace() == namespace)
}

/// Where requests are at a replica.
pub fn path<'a>(
    namespace: Option<&str>,
    id: Option<Uuid>,
    query: impl IntoIterator<Item = (&'static str, &'a str)>,
) -> String {
    let namespace = utf8_percent_encode(namespace.unwrap_or(ALL), PLAIN);
    let id = id.map(|id| format!("/{id}")).unwrap_or_default();
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/log/{namespace}/requests{id}{mark}{query}")
}

/// The request of this name.
///
/// # Errors
/// 404: there is none. 503: its replica does not answer.
pub async fn get(replicas: &Replicas, one: &One) -> Result<Entry, Refusal> {
    let (replica, status, body) = ask(replicas, one, (Method::GET, ""), Bytes::new(), PATIENCE).await?;
    if status != StatusCode::OK {
        return Err(unexpected(&one.name, &replica, status, &body));
    }
    let entry = serde_json::from_slice::<Entry>(&body).ok().filter(|entry| entry.name() == one.name);
    let entry = entry.ok_or_else(|| silent(&one.name, &replica.number, "its answer is not this request"))?;
    match is_of(&entry, &replica, Some(&one.namespace)) {
        true => Ok(entry),
        false => Err(Refusal::not_found(&one.name, "it is not in the log of this namespace")),
    }
}

/// Asks the replica that keeps a request about it, at `below` the request's path; `patience` is how long it may take until its
/// answer begins, and then to its end. Gives the replica, and the status and body of its answer.
///
/// # Errors
/// 404: there is no such request. 503: its replica does not answer.
pub async fn ask(
    replicas: &Replicas,
    one: &One,
    (method, below): (Method, &str),
    body: Bytes,
    patience: Duration,
) -> Result<(Replica, StatusCode, Bytes), Refusal> {
    let (replica, id) = find(replicas, &one.name)?;
    let path = path(Some(&one.namespace), Some(id), []) + below;
    let answer = async {
        let answer = replica.ask(method, &path, body, patience).await?;
        let status = answer.status;
        Ok((status, answer.whole(patience).await?))
    };
    let (status, body) = answer.await.map_err(|why: String| silent(&one.name, &replica.number, &why))?;
    match status {
        StatusCode::NOT_FOUND => Err(Refusal::not_found(&one.name, "it is not in the log, or not any more")),
        status => Ok((replica, status, body)),
    }
}

/// What is said when a replica gives an answer that nobody expects.
pub fn unexpected(name: &str, replica: &Replica, status: StatusCode, body: &[u8]) -> Refusal {
    silent(name, &replica.number, &format!("it answered {status}: {}", words(body)))
}

/// The replica that keeps the request of this name, and its id there.
///
/// # Errors
/// 404: this cannot be the name of a request. 503: there is no such replica now.
fn find(replicas: &Replicas, name: &str) -> Result<(Replica, Uuid), Refusal> {
    let (number, id) = parse_name(name)?;
    let replica = replicas.all().into_iter().find(|replica| replica.number == number);
    let replica = replica.ok_or_else(|| silent(name, number, "it is not there"))?;
    Ok((replica, id))
}

/// What is said when the replica that keeps a request does not tell it.
pub fn silent(name: &str, number: &str, why: &str) -> Refusal {
    Refusal::unavailable(format!("replica {number} of the ingress keeps this request and has not answered: {why}"))
        .about(name)
}

async fn one_as_list(replicas: &Replicas, place: &Where, name: &str) -> Result<(Merged, Vec<String>), Refusal> {
    let mut warnings = Vec::new();
    let found = match &place.namespace {
        Some(namespace) => get(replicas, &One { namespace: namespace.clone(), name: name.to_owned() }).await,
        None => return Err(Refusal::bad_request("fieldSelector: metadata.name needs a namespace")),
    };
    let read = match found {
        Ok(mut entry) => {
            shorten(&mut entry);
            let latest = Some(entry.version());
            let entries = Some(entry).filter(|entry| place.selector.matches(entry)).into_iter().collect();
            Read { entries, latest, rest: None }
        }
        Err(refusal) if refusal.code() == StatusCode::NOT_FOUND => Read::default(),
        Err(refusal) => {
            warnings.push(refusal.message().to_owned());
            Read::default()
        }
    };
    let replica = name.split_once('-').map_or(name, |(number, _)| number).to_owned();
    Ok((merge(vec![Part { replica, before: None, answer: Some(read) }], 1, None), warnings))
}

/// Takes out what lists do not have.
fn shorten(entry: &mut Entry) {
    let take = |value: Option<&mut Value>, field: &str| {
        if let Some(object) = value.and_then(Value::as_object_mut) {
            object.remove(field);
        }
    };
    for field in ["headers", "body"] {
        take(entry.0.get_mut("received"), field);
    }
    for event in entry.0.get_mut("events").and_then(Value::as_array_mut).into_iter().flatten() {
        take(Some(event), "variables");
    }
}

/// A list as it is sent.
pub fn render(mut merged: Merged, form: Form, include: Include) -> Value {
    let mut metadata = json!({"resourceVersion": merged.seen.to_string()});
    if let Some(rest) = &merged.rest {
        metadata["continue"] = json!(rest.to_string());
    }
    merged.entries.iter_mut().for_each(Entry::place_version);
    match form {
        Form::Table => table(&merged.entries, include, metadata, now()),
        _ => json!({
            "kind": format!("{KIND}List"), "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": metadata,
            "items": merged.entries,
        }),
    }
}

/// A request as it is sent.
pub fn render_one(mut entry: Entry, form: Form, include: Include) -> Value {
    entry.place_version();
    let metadata = json!({"resourceVersion": entry.0["metadata"]["resourceVersion"]});
    match form {
        Form::Table => table(&[entry], include, metadata, now()),
        _ => entry.0,
    }
}

fn now() -> i64 {
    k8s_openapi::jiff::Timestamp::now().as_millisecond()
}
