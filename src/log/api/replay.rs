//! Delivers a request again, to the triggers that fired or to one of them.

use super::list::{ask, silent, unexpected, words};
use super::question::One;
use super::replicas::Replicas;
use super::status::Refusal;
use super::{GROUP, VERSION};
use crate::log::model::{ReplayWish, Replayed};
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
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
