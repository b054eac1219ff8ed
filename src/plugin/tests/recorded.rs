//! The recorded requests of the catalogue, as the plugins read them: how one is known that comes again.

use super::calls::{access_token, given};
use super::page::catalogue;
use super::*;
use crate::cli::plugin::test::case;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A request of `tests/catalogue`.
pub(super) struct Recorded {
    query: String,
    headers: Vec<(String, String)>,
    body: String,
    /// Whether its sender is proven.
    pub(super) verified: bool,
}

impl Recorded {
    pub(super) fn request(&self) -> CallbackRequest<'_> {
        CallbackRequest::stored("POST", &self.query, &self.headers, self.body.as_bytes())
    }

    /// All of a plugin's folder. GitHub's has payloads too, whose files are named as the event, with a number.
    pub(super) fn all(folder: &Path) -> Vec<Recorded> {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let read = |file: PathBuf| match file.extension()?.to_str()? {
            "http" => Some(Self::read(&file)),
            "json" => Self::payload(&file),
            _ => None,
        };
        files.filter_map(read).collect()
    }

    fn payload(file: &Path) -> Option<Recorded> {
        let (event, _) = file.file_stem()?.to_str()?.rsplit_once('-')?;
        let headers = headers(&[("content-type", "application/json"), ("x-github-event", event)]);
        Some(Recorded { query: String::new(), headers, body: text(file), verified: true })
    }

    fn read(file: &Path) -> Recorded {
        let (request, case) = (case::request(file).unwrap(), case::case(file).unwrap());
        let headers = request.headers().iter();
        Recorded {
            query: request.uri().query().unwrap_or_default().to_owned(),
            headers: headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect(),
            body: String::from_utf8(request.body().to_vec()).unwrap(),
            verified: case.expect.verified,
        }
    }
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

pub(super) fn folder(plugin: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/catalogue").join(plugin)
}

/// One request of a plugin's folder.
fn one(plugin: &str, case: &str) -> Recorded {
    Recorded::read(&folder(plugin).join(format!("{case}.http")))
}

/// The plugin of the catalogue with this name.
pub(super) fn of_the_catalogue(name: &str) -> Plugin {
    Plugin::compile(name, &catalogue()[name].spec).unwrap_or_else(|mistakes| panic!("{name}: {mistakes:#?}"))
}

#[test]
fn two_events_of_an_older_gitlab_are_not_one_because_of_a_shared_uuid() {
    let plugin = of_the_catalogue("gitlab");
    let (first, second) = (one("gitlab", "push-before-17.4"), one("gitlab", "tag_push-before-17.4"));
    let uuid = |of: &Recorded| of.headers.iter().find(|(name, _)| name == "x-gitlab-event-uuid").unwrap().1.clone();
    assert_eq!(uuid(&first), uuid(&second));
    // Then the hash of the body stands in for it.
    assert_ne!(first.body, second.body);
    assert!(plugin.delivery_id(&first.request()).is_err() && plugin.delivery_id(&second.request()).is_err());
    assert!(plugin.delivery_id(&one("gitlab", "push").request()).unwrap().is_some());
}

/// The ids of a request's own items; none for an item that has none.
fn own_ids(plugin: &Plugin, recorded: &Recorded) -> Vec<Option<String>> {
    let reading = plugin.read(&recorded.request()).unwrap();
    plugin.events(&reading).unwrap().into_iter().map(|event| event.own_id).collect()
}

#[test]
fn an_item_that_is_sent_again_in_another_batch_is_the_same_event() {
    for (name, first, again, ids) in [
        ("cloudevents", "batch", "batch-again", [Some("/mycontext D1"), Some("/mycontext/9 C234")].as_slice()),
        (
            "microsoft-graph",
            "notifications-1",
            "notifications-again",
            [Some("lsgTZMr9KwAAC"), None, Some("lsgTZMr9KwAAB")].as_slice(),
        ),
    ] {
        let plugin = of_the_catalogue(name);
        let (first, again) = (own_ids(&plugin, &one(name, first)), own_ids(&plugin, &one(name, again)));
        assert_eq!(again.iter().map(Option::as_deref).collect::<Vec<_>>(), ids, "{name}");
        assert_eq!(first.last(), again.last(), "{name}");
        let different: BTreeSet<_> = first.iter().chain(&again).flatten().collect();
        assert_eq!(different.len(), 3, "{name}: {different:?}");
    }
    // In another mode too.
    let plugin = of_the_catalogue("cloudevents");
    let structured = own_ids(&plugin, &one("cloudevents", "structured"));
    assert_eq!(structured[0], own_ids(&plugin, &one("cloudevents", "batch"))[0]);
    let binary = own_ids(&plugin, &one("cloudevents", "binary"));
    assert_eq!(binary, [Some("/mycontext/subcontext 1234-1234-1234".to_owned())]);
}

#[test]
fn graph_is_asked_for_a_kind_of_change_also_where_no_change_is_subscribed() {
    let plugin = of_the_catalogue("microsoft-graph");
    for (events, asked) in [
        (["missed", "reauthorizationRequired"].as_slice(), "updated"),
        (&["created", "missed", "deleted"], "created,deleted"),
    ] {
        let mut given = given(json!({"tenant": "common", "resource": "me/messages"}));
        given.credentials = access_token("t0k3n");
        given.events = events.iter().map(|event| (*event).to_owned()).collect();
        let call = plugin.create_call(&given.context()).unwrap();
        let body: Value = serde_json::from_slice(&call.body.unwrap()).unwrap();
        assert_eq!(body["changeType"], json!(asked), "{events:?}");
    }
}
