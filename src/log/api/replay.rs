//! Delivers a request again, to the triggers that fired or to one of them.

use super::list::{ask, silent, unexpected, words};
use super::question::One;
use super::replicas::Replicas;
use super::status::Refusal;
use super::{GROUP, VERSION};
use crate::log::model::{ReplayWish, Replayed};
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// The largest body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// How long a replica may take until its answer begins, and then to its end; both are less than a connection may wait.
const PATIENCE: Duration = Duration::from_secs(12);

/// What is to be delivered again.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// To this trigger alone; left out: to all that fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Only what has become a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<bool>,
}

/// Reads an object of the kind `Replay`; nothing at all is one without a spec.
///
/// # Errors
/// 400, 413: it is none; the message says what is wrong.
pub async fn read(body: Body) -> Result<Spec, Refusal> {
    let body = to_bytes(body, MAX_BODY).await;
    let body = body
        .map_err(|_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a Replay has at most {MAX_BODY} bytes")))?;
    parse(&body)
}

fn parse(body: &[u8]) -> Result<Spec, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(Spec::default());
    }
    let wrong = |why: String| Refusal::bad_request(format!("the body is no Replay: {why}"));
    let mut object: Value = serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?;
    let own = format!("{GROUP}/{VERSION}");
    for (field, expected) in [("apiVersion", own.as_str()), ("kind", "Replay")] {
        match &object[field] {
            Value::Null => {}
            Value::String(found) if found == expected => {}
            _ => return Err(wrong(format!("{field}: expected {expected}"))),
        }
    }
    match object.get_mut("spec").map(Value::take) {
        None if !object.is_object() => Err(wrong("it is no object".to_owned())),
        None | Some(Value::Null) => Ok(Spec::default()),
        Some(spec) => Spec::deserialize(spec).map_err(|error| wrong(format!("spec: {error}"))),
    }
}

/// Asks the replica that keeps the request, for `user`, and gives the Replay with its status.
///
/// # Errors
/// 404: there is no such request. 409: it cannot be delivered again; the message says why. 503: the replica does not answer.
pub async fn replay(replicas: &Replicas, one: &One, spec: Spec, user: &str) -> Result<Value, Refusal> {
    let dead_letters = spec.dead_letters.unwrap_or(false);
    let wish = ReplayWish { trigger: spec.trigger.clone(), dead_letters, by: Some(user.to_owned()) };
    let body = Bytes::from(serde_json::to_vec(&wish).expect("texts are JSON"));
    let (replica, status, body) = ask(replicas, one, (Method::POST, "/replay"), body, PATIENCE).await?;
    match status {
        StatusCode::OK => {}
        StatusCode::CONFLICT | StatusCode::BAD_REQUEST => {
            return Err(Refusal::new(status, words(&body)).about(&one.name));
        }
        status => return Err(unexpected(&one.name, &replica, status, &body)),
    }
    let status: Replayed = serde_json::from_slice(&body).map_err(|_| {
        silent(&one.name, &replica.number, "it has begun something, but its answer does not say what; look at the log")
    })?;
    Ok(json!({
        "kind": "Replay", "apiVersion": format!("{GROUP}/{VERSION}"),
        "metadata": {"name": one.name, "namespace": one.namespace}, "spec": spec, "status": status,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_read_or_says_what_is_wrong() {
        assert_eq!(parse(b"").unwrap(), Spec::default());
        assert_eq!(parse(b"{}").unwrap(), Spec::default());
        let all = json!({
            "apiVersion": "log.bellhop.dev/v1alpha1", "kind": "Replay", "metadata": {"name": "0-a"},
            "spec": {"trigger": "review", "deadLetters": true},
        });
        let spec = Spec { trigger: Some("review".to_owned()), dead_letters: Some(true) };
        assert_eq!(parse(all.to_string().as_bytes()).unwrap(), spec);
        assert_eq!(serde_json::to_value(&spec).unwrap(), all["spec"]);
        for (body, word) in [
            (json!({"kind": "Eviction"}), "kind: expected Replay"),
            (json!({"apiVersion": "v1"}), "apiVersion: expected log.bellhop.dev/v1alpha1"),
            (json!({"spec": {"triggers": "x"}}), "unknown field `triggers`, expected `trigger` or `deadLetters`"),
            (json!({"spec": {"deadLetters": "yes"}}), "spec: invalid type"),
            (json!([1]), "the body is no Replay"),
        ] {
            let refusal = parse(body.to_string().as_bytes()).map(drop).unwrap_err();
            assert!(refusal.message().contains(word), "{body}: {}", refusal.message());
        }
    }
}
