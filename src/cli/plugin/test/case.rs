//! A case: a request as it came, and what is expected of it.

use super::super::file::{read, unread};
use crate::cli::exit::Exit;
use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::Request;
use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the file with what all cases of a folder have in common.
const SUBSCRIPTION: &str = "subscription.yaml";
/// Name of the file with the plugin.
pub const PLUGIN: &str = "plugin.yaml";
/// Most header lines of a request.
const HEADERS: usize = 128;

/// What is expected of a request: the file `<case>.yaml`.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Case {
    /// Where the request is from: a page, a package with its version, or how it was made.
    #[serde(default)]
    pub source: Option<String>,
    /// How near it is to the real thing.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// When it was received. Left out: now.
    #[serde(default)]
    pub time: Option<Timestamp>,
    /// What it came for. Left out: what `subscription.yaml` in the folder says.
    #[serde(default)]
    pub subscription: Option<Subscription>,
    /// What is expected.
    pub expect: Expect,
}

/// How near a recorded request is to the real thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The external system sent it.
    Recorded,
    /// Its vendor published it, or the vendor's library signed it.
    Vendor,
    /// It was made after the documentation.
    Documented,
}

/// The Subscription that a request came for. It holds secrets.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subscription {
    /// `spec.parameters`
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// `spec.events`. Left out: all of the plugin.
    #[serde(default)]
    pub events: Option<Vec<String>>,
    /// The callback URL as it was registered.
    #[serde(default, rename = "callbackURL")]
    pub callback_url: Option<String>,
    /// The callback secret.
    #[serde(default)]
    pub secret: Option<String>,
    /// The callback secrets while they rotate.
    #[serde(default)]
    pub secrets: Vec<String>,
}

/// What is expected.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Expect {
    /// What the sender is told. Left out: any 2xx, or 401 where it cannot be verified.
    #[serde(default)]
    pub answer: ExpectedAnswer,
    /// Whether its sender is proven. A handshake that is answered before that counts as proven.
    #[serde(default = "yes")]
    pub verified: bool,
    /// A part of what the log notes of it.
    #[serde(default)]
    pub note: Option<String>,
    /// The events of the Subscription that it carries, in order. What the Subscription has not asked for is none.
    #[serde(default)]
    pub events: Vec<ExpectedEvent>,
}

/// An expected answer; what is left out is not compared.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedAnswer {
    /// HTTP status.
    #[serde(default)]
    pub status: Option<u16>,
    /// Headers, among others.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body: text, or else JSON.
    #[serde(default)]
    pub body: Option<Value>,
}

/// An expected event; what is left out is not compared.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedEvent {
    /// Its name.
    pub name: String,
    /// The external system's id of the request.
    #[serde(default, rename = "deliveryID")]
    pub delivery_id: Option<String>,
    /// Its place in the request, from 0.
    #[serde(default)]
    pub item: Option<u32>,
    /// Variables, among others. One that cannot be evaluated is a difference, unless it is `null` here.
    #[serde(default)]
    pub variables: Map<String, Value>,
    /// Triggers that are held against it.
    #[serde(default)]
    pub triggers: Vec<ExpectedTrigger>,
}

/// A trigger, and whether it fires.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExpectedTrigger {
    /// `spec.parameters`
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// `spec.filter`
    #[serde(default)]
    pub filter: Option<String>,
    /// Whether it fires.
    pub fires: bool,
    /// A part of the reason why it does not.
    #[serde(default)]
    pub reason: Option<String>,
}

fn yes() -> bool {
    true
}

/// The files of the cases of a folder: those that end in `.http`, by name, each with its `.yaml`.
///
/// # Errors
/// The folder cannot be read, has no case, or a file has no partner.
pub fn list(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| unread(folder, &error))?;
    let (mut requests, mut expectations) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry.map_err(|error| unread(folder, &error))?.path();
        let name = path.file_name().unwrap_or_default();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("http") => requests.push(path),
            Some("yaml") if name != SUBSCRIPTION && name != PLUGIN => expectations.push(path),
            _ => {}
        }
    }
    requests.sort();
    let alone = |of: &[PathBuf], others: &[PathBuf], extension: &str| {
        of.iter().map(|path| path.with_extension(extension)).find(|partner| !others.contains(partner))
    };
    let missing = alone(&requests, &expectations, "yaml").or_else(|| alone(&expectations, &requests, "http"));
    if let Some(missing) = missing {
        return Err(Exit::NotFound(format!(
            "{} is missing: a case is a request and what is expected of it, in two files",
            missing.display()
        ))
        .into());
    }
    if requests.is_empty() {
        return Err(Exit::NotFound(format!(
            "{}: there are no cases, files such as push.http and push.yaml",
            folder.display()
        ))
        .into());
    }
    Ok(requests)
}

/// Reads the case of a request, with the folder's Subscription where it has none of its own.
///
/// # Errors
/// A file cannot be read, or is not as it has to be.
pub fn case(request: &Path) -> anyhow::Result<Case> {
    let mut case: Case = yaml(&request.with_extension("yaml"))?;
    let common = request.with_file_name(SUBSCRIPTION);
    if case.subscription.is_none() && common.exists() {
        case.subscription = Some(yaml(&common)?);
    }
    Ok(case)
}

fn yaml<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(&read(path)?, options).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// Reads a raw HTTP request: a request line, header lines, an empty line, and the body up to the last byte of the file.
///
/// # Errors
/// The file cannot be read, or is none.
pub fn request(path: &Path) -> anyhow::Result<Request<Bytes>> {
    let raw = std::fs::read(path).map_err(|error| unread(path, &error))?;
    parse(&raw).with_context(|| path.display().to_string())
}

fn parse(raw: &[u8]) -> anyhow::Result<Request<Bytes>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let end = match head.parse(raw) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => bail!("the head of the request does not end: an empty line is missing"),
        Err(httparse::Error::TooManyHeaders) => bail!("the request has more than {HEADERS} header lines"),
        Err(error) => bail!(
            "is no HTTP request such as `POST /hooks/x HTTP/1.1`, header lines, an empty line and the body: {error}"
        ),
    };
    let mut request = Request::builder().method(head.method.unwrap_or_default()).uri(head.path.unwrap_or_default());
    for header in head.headers.iter() {
        request = request.header(header.name, header.value);
    }
    request.body(Bytes::copy_from_slice(&raw[end..])).context("is no HTTP request")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_every_byte_after_the_empty_line() {
        for end in ["\n", "\r\n"] {
            let raw = ["POST /hooks/x?a=b HTTP/1.1", "X-A:  1 ", "x-a: 2", "", "{}\r\n\n"].join(end);
            let request = parse(raw.as_bytes()).unwrap();
            assert_eq!((request.method().as_str(), request.uri().query()), ("POST", Some("a=b")));
            assert_eq!(request.headers().get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert_eq!(&request.body()[..], b"{}\r\n\n");
        }
        for (raw, why) in [
            ("POST / HTTP/1.1\nx: y\n", "empty line"),
            ("{\"ref\": 1}\n\n", "no HTTP request"),
            ("", "empty line"),
            ("POST / HTTP/1.1\nno header\n\n", "no HTTP request"),
        ] {
            let found = format!("{:#}", parse(raw.as_bytes()).unwrap_err());
            assert!(found.contains(why), "{raw}: {found}");
        }
    }

    #[test]
    fn a_misspelt_expectation_is_an_error() {
        let read = |text: &str| serde_saphyr::from_str::<Case>(text).map(drop);
        read("expect: {events: [{name: push, triggers: [{fires: true}]}]}").unwrap();
        for wrong in ["expect: {event: []}", "expects: {}", "{}", "expect: {events: [{name: push, triggers: [{}]}]}"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
