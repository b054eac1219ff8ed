//! One HTTP client for all calls to external systems.

use super::address::{AddressPolicy, Reach};
use crate::plugin::{HttpCall, HttpResponse, Secret};
use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect;
use std::error::Error as _;
use std::time::Duration;

/// The longest time that a call may take, from the connection to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes. Lists of webhooks are some ten kilobytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// How much of an external system's own words is shown to people, in characters.
const MAX_WORDS: usize = 300;

/// Why a call has not given what was asked for. Messages hold no secret that was part of the call.
#[derive(Debug, thiserror::Error)]
pub enum CallFailure {
    /// The administrator's rules do not allow the call; nothing was sent.
    #[error("{0}")]
    Forbidden(String),
    /// No whole answer arrived; whether the external system has acted is not known.
    #[error("{host} could not be reached: {why}")]
    NoAnswer {
        /// Host and port of the call.
        host: String,
        /// The chain of errors, in one line.
        why: String,
    },
    /// The external system said no.
    #[error("{host} answered {status}{words}")]
    Status {
        /// Host and port of the call.
        host: String,
        /// Status code.
        status: u16,
        /// The external system's own words, as ": …", or empty.
        words: String,
        /// The `error` of an answer about OAuth (RFC 6749, section 5.2).
        error: Option<String>,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The answer is larger than 4 MiB.
    #[error("{host} sent more than {} bytes", MAX_ANSWER)]
    TooLarge {
        /// Host and port of the call.
        host: String,
    },
}

impl CallFailure {
    /// The status code of an answer that was a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            CallFailure::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Carries out calls.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    policy: AddressPolicy,
}

impl Client {
    /// A client that calls only what `policy` allows.
    ///
    /// # Errors
    /// The TLS roots of the system cannot be read.
    pub fn new(policy: AddressPolicy) -> Result<Self, reqwest::Error> {
        let same_origin = redirect::Policy::custom(|attempt| {
            let first = attempt.previous().first().map(|url| url.origin());
            // Credentials must not follow to where the plugin did not send them, and the other statuses may turn a POST
            // into a GET, whose success would mean nothing: then the redirect is the answer.
            let same_call = matches!(attempt.status().as_u16(), 307 | 308);
            if same_call && attempt.previous().len() <= 5 && first == Some(attempt.url().origin()) {
                attempt.follow()
            } else {
                attempt.stop()
            }
        });
        let http = reqwest::Client::builder()
            .user_agent(concat!("bellhop/", env!("CARGO_PKG_VERSION")))
            .timeout(TIMEOUT)
            .connect_timeout(Duration::from_secs(10))
            .redirect(same_origin)
            .referer(false)
            // A proxy would connect to addresses that were not checked.
            .no_proxy()
            .dns_resolver(policy.resolver(Reach::Public))
            .build()?;
        Ok(Self { http, policy })
    }

    /// Carries out a call and gives its answer if the status is 2xx.
    ///
    /// `secrets` are cut out of whatever words of the external system end up in the error.
    ///
    /// # Errors
    /// See [`CallFailure`].
    pub async fn send(&self, call: HttpCall, secrets: &[&Secret]) -> Result<HttpResponse, CallFailure> {
        let host = host_of(&call.url);
        self.policy
            .check_literal(&call.url, Reach::Public)
            .map_err(|why| CallFailure::Forbidden(format!("{host}: {why}")))?;
        let no_answer = |error: reqwest::Error| CallFailure::NoAnswer {
            host: host.clone(),
            // The URL can hold a token (Telegram's does); the host is named already.
            why: redact(&chain(&error.without_url()), secrets),
        };
        let mut request = self.http.request(call.method, call.url).headers(call.headers);
        if let Some(body) = call.body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(no_answer)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(CallFailure::TooLarge { host });
            }
            body.extend_from_slice(&chunk);
        }
        let body = body.freeze();
        if status.is_success() {
            return Ok(HttpResponse { status: status.as_u16(), headers, body });
        }
        let words = redact(&words(&body), secrets);
        Err(CallFailure::Status {
            host,
            status: status.as_u16(),
            words: if words.is_empty() { words } else { format!(": {words}") },
            error: super::oauth::error_of(&body),
            retry_after: retry_after(&headers),
        })
    }
}

fn host_of(url: &url::Url) -> String {
    match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    }
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What an external system says in its answer, in one line: its `message` where it is JSON with one, else its text.
pub(super) fn words(body: &Bytes) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| {
        ["message", "error_description", "error", "detail"].iter().find_map(|key| json.get(key)?.as_str())
    });
    let text = match message {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&body[..body.len().min(4 * MAX_WORDS)]).into_owned(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

/// Cuts secrets out of a text: an external system, or one that pretends to be it, may send back what it got.
pub(super) fn redact(text: &str, secrets: &[&Secret]) -> String {
    secrets
        .iter()
        .filter_map(|secret| std::str::from_utf8(secret.expose()).ok())
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
}

/// Retry-After in seconds (RFC 9110, section 10.2.3), at most an hour; the date form is rare and falls back to backoff.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(3600)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_quoted_in_one_short_line_without_secrets() {
        let body = Bytes::from_static(b"{\"message\": \"token hunter2 is\\n not valid\"}");
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(redact(&words(&body), &[&secret]), "token [redacted] is not valid");
        assert_eq!(words(&Bytes::from(vec![b'x'; 10_000])).len(), MAX_WORDS);
    }
}
