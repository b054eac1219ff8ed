//! What the vendors of the catalogue's systems publish about their webhooks: npm packages (`tests/cluster/catalogue`).

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::PathBuf;

async fn packages() -> Result<PathBuf> {
    Ok(crate::npm::install_data("catalogue").await?.join("node_modules"))
}

async fn json(path: &str) -> Result<Value> {
    let path = packages().await?.join(path);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Payloads that GitHub sent, each with the event's name: those of github.com and of several versions of GitHub Enterprise
/// Server, in the npm package @octokit/webhooks-examples.
pub async fn github_payloads() -> Result<Vec<(String, Value)>> {
    let mut payloads = Vec::new();
    for source in ["api.github.com", "ghes-31", "ghes-32", "ghes-33", "ghes-34", "ghes-35"] {
        let events = json(&format!("@octokit/webhooks-examples/{source}/index.json")).await?;
        for event in events.as_array().context("a list of events")? {
            let name = event["name"].as_str().context("an event's name")?;
            let examples = event["examples"].as_array().context("an event's examples")?;
            payloads.extend(examples.iter().map(|payload| (name.to_owned(), payload.clone())));
        }
    }
    Ok(payloads)
}

/// GitHub's OpenAPI description of its REST API at github.com, in the npm package @octokit/openapi.
pub async fn github_api() -> Result<Value> {
    json("@octokit/openapi/generated/api.github.com.json").await
}

/// GitHub's OpenAPI description of its webhooks at github.com, in the npm package @octokit/openapi-webhooks.
pub async fn github_description() -> Result<Value> {
    json("@octokit/openapi-webhooks/generated/api.github.com.json").await
}
