//! What a runner's author would make of a request, with the libraries that there are: the npm packages `cloudevents` and
//! `standardwebhooks` (`tests/cluster/runner`).

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::runner::Recorded;

/// Reads a request: `event` is the CloudEvent, or `eventError`; with a signing secret (`whsec_` and base64, or the bytes as
/// they are) also `verified`, or `signatureError`.
pub async fn read(request: &Recorded, secret: Option<&str>) -> Result<Value> {
    let folder = crate::npm::install("runner", "verify.mjs").await?;
    let headers: BTreeMap<&str, &str> = request.headers().collect();
    let question = json!({"headers": headers, "body": BASE64_STANDARD.encode(&request.body), "secret": secret});
    let mut process = tokio::process::Command::new("node")
        .arg("verify.mjs")
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("node cannot be started; Node.js is needed for this test")?;
    let mut stdin = process.stdin.take().context("a pipe")?;
    stdin.write_all(question.to_string().as_bytes()).await?;
    drop(stdin);
    let output = process.wait_with_output().await?;
    ensure!(output.status.success(), "verify.mjs: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
