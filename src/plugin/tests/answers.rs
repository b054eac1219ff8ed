//! Answers of the plugin to requests that are stored.

use super::*;
use http::HeaderMap;
use std::time::Duration;

fn answering(answer: Value) -> Result<Plugin, Vec<Mistake>> {
    compile(with("/callback/answer", answer))
}

fn ask(plugin: &Plugin, query: &str, body: &str) -> Result<Option<CallbackReply>, String> {
    let headers = HeaderMap::new();
    let request = CallbackRequest::new("POST", query, &headers, body.as_bytes());
    plugin.answer(&request).map_err(|error| error.to_string())
}

#[test]
fn a_plugin_that_says_nothing_has_no_answer() {
    assert!(ask(&plugin(), "", "{}").unwrap().is_none());
}

#[test]
fn the_default_is_made_of_the_request() {
    // As Discord has it: a command is answered later, a button at once.
    let plugin = answering(json!({
        "when": "body.type in [2, 3]",
        "deadline": "2500ms",
        "default": {"body": "{'type': body.type == 2 ? 5 : 6}", "headers": {"x-kind": "string(body.type)"}},
    }))
    .unwrap();
    let reply = ask(&plugin, "", r#"{"type": 2}"#).unwrap().unwrap();
    assert_eq!((reply.deadline, reply.status), (Some(Duration::from_millis(2500)), 200));
    assert_eq!((&*reply.body, &reply.headers["x-kind"]), (&br#"{"type":5}"#[..], &"2".parse().unwrap()));
    assert_eq!(reply.headers["content-type"], "application/json");
    assert_eq!(&*ask(&plugin, "", r#"{"type": 3}"#).unwrap().unwrap().body, br#"{"type":6}"#);
    assert!(ask(&plugin, "", r#"{"type": 1}"#).unwrap().is_none());
    // What cannot be evaluated says which field it is.
    for body in ["{}", "not json"] {
        let error = ask(&plugin, "", body).unwrap_err();
        assert!(error.contains("callback.answer.when"), "{error}");
    }
}

#[test]
fn an_empty_answer_needs_no_body_and_no_deadline() {
    let plugin = answering(json!({"default": {"status": 204}})).unwrap();
    let reply = ask(&plugin, "", "not json").unwrap().unwrap();
    assert_eq!((reply.status, reply.deadline, reply.body.len()), (204, None, 0));
    assert!(!reply.headers.contains_key("content-type"));
}

#[test]
fn mistakes_name_their_field() {
    let text =
        |answer: Value| answering(answer).unwrap_err().iter().map(Mistake::to_string).collect::<Vec<_>>().join("; ");
    for deadline in ["99ms", "10001ms", "1h", "0s"] {
        let mistakes = text(json!({"deadline": deadline}));
        assert!(mistakes.starts_with("spec.callback.answer.deadline: is not from 100ms to 10s"), "{mistakes}");
    }
    assert!(answering(json!({"deadline": "100ms"})).is_ok() && answering(json!({"deadline": "10s"})).is_ok());
    let mistakes = text(json!({
        "when": "body.",
        "default": {"status": 302, "body": "bdy", "headers": {"connection": "'close'"}},
    }));
    for field in ["when", "default.status", "default.body", "default.headers.connection"] {
        assert!(mistakes.contains(&format!("spec.callback.answer.{field}: ")), "{field}: {mistakes}");
    }
    assert!(text(json!({"default": {"status": 204, "body": "'x'"}})).contains("has no body"));
}
