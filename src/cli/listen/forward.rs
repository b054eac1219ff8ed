//! Sends a captured event to a URL on the developer's machine, as the runner would get it.

use super::captured::Shown;
use crate::cli::request_log::moment;
use crate::delivery::Attributes;
use anyhow::{Context, bail};
use http::HeaderMap;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

/// How long the URL may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where events are sent to.
pub struct Forward {
    client: reqwest::Client,
    url: Url,
}

impl Forward {
    /// Reads the URL.
    ///
    /// # Errors
    /// It is none, or not one of HTTP.
    pub fn parse(text: &str) -> Result<Url, String> {
        let url: Url =
            text.parse().map_err(|error| format!("{error}; expected something like http://127.0.0.1:8080"))?;
        if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err("expected http or https".to_owned()) }
    }

    /// Sends to this URL.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn to(url: Url) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(PATIENCE).redirect(Policy::none()).build()?;
        Ok(Self { client, url })
    }

    /// The URL, without credentials and query.
    pub fn url(&self) -> String {
        shown(&self.url)
    }

    /// Sends one event as a CloudEvent in binary mode; gives the status of the answer.
    ///
    /// # Errors
    /// There was no answer, or none that takes it.
    pub async fn send(&self, shown: &Shown<'_>, trigger: &str) -> anyhow::Result<u16> {
        let (headers, body) = cloud_event(shown, trigger)?;
        let request = self.client.post(self.url.clone()).headers(headers).body(serde_json::to_vec(&body)?);
        let answer = request.send().await.map_err(|error| error.without_url()).context("there was no answer")?;
        let status = answer.status();
        if !status.is_success() {
            bail!("the answer was {status}");
        }
        Ok(status.as_u16())
    }
}

fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// Headers and body, which are those of a first attempt.
fn cloud_event<'a>(shown: &'a Shown<'_>, trigger: &'a str) -> anyhow::Result<(HeaderMap, Value)> {
    let (request, event) = (shown.request, shown.event);
    let workflow = event.triggers.iter().find(|one| one.name == trigger).map_or("", |one| one.workflow.as_str());
    let attributes = Attributes {
        id: event.id,
        namespace: &request.metadata.namespace,
        subscription: &request.subscription.name,
        plugin: request.subscription.plugin.as_deref().unwrap_or_default(),
        event: &event.name,
        accepted_at: u64::try_from(moment(&request.received.time)?.as_millisecond()).unwrap_or_default(),
        trigger,
        workflow,
        attempt: 1,
    };
    Ok((attributes.headers(), event.variables.clone().unwrap_or_else(|| json!({}))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::explain::tests::request;

    #[test]
    fn it_is_what_the_runner_would_get() {
        let request = request();
        let shown = Shown { request: &request, event: &request.events[0] };
        let (headers, body) = cloud_event(&shown, "try").unwrap();
        let header = |name: &str| headers[name].to_str().unwrap();
        assert_eq!(header("ce-id"), "5f000000-0000-4000-8000-000000000001");
        assert_eq!((header("ce-type"), header("ce-time")), ("dev.bellhop.gitea.push", "2026-01-01T10:00:00.123Z"));
        assert_eq!((header("ce-trigger"), header("ce-workflow"), header("ce-workspace")), ("try", "try", "team-a"));
        assert_eq!(body["ref"], "refs/heads/main");
    }

    #[test]
    fn urls_are_of_http() {
        assert!(Forward::parse("http://127.0.0.1:8080/hook").is_ok());
        assert!(Forward::parse("ftp://a").is_err() && Forward::parse("nowhere").is_err());
        let url = "http://me:pw@127.0.0.1:1/a?key=b".parse().unwrap();
        assert_eq!(shown(&url), "http://127.0.0.1:1/a");
    }
}
