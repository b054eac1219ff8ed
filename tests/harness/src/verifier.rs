//! What a runner's author would make of a request, with the libraries that there are: the npm packages `cloudevents` and
//! `standardwebhooks` (`tests/cluster/runner`).

use std::collections::BTreeMap;

use anyhow::Result;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::runner::Recorded;

/// Reads a request: `event` is the CloudEvent, or `eventError`; with a signing secret (`whsec_` and base64, or the bytes as
/// they are) also `verified`, or `signatureError`.
pub async fn read(request: &Recorded, secret: Option<&str>) -> Result<Value> {
    let headers: BTreeMap<&str, &str> = request.headers().collect();
    let question = json!({"headers": headers, "body": BASE64_STANDARD.encode(&request.body), "secret": secret});
    crate::npm::ask("runner", "verify.mjs", &question).await
}
