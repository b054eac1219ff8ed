//! Answers of an external system.

use super::cel::value::{Parsed, integer, record, string};
use super::cel::{Data, Expression, Variables};
use super::error::CallError;
use super::secret::Secret;
use bytes::Bytes;
use http::HeaderMap;
use std::collections::BTreeMap;
use std::fmt;

/// How much of an external system's own words is shown to people, in characters.
const MAX_WORDS: usize = 300;

/// The answer to a call.
#[derive(Clone)]
pub struct HttpResponse {
    /// HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as a whole.
    pub body: Bytes,
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpResponse")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl HttpResponse {
    /// `response` in expressions.
    ///
    /// # Errors
    /// The status is not 2xx, or `success` says that it failed all the same, or cannot tell.
    pub(crate) fn successful(&self, success: Option<&Expression>) -> Result<Data, CallError> {
        if !self.is_success() {
            return Err(self.unexpected("the status is not 2xx"));
        }
        let body = match serde_json::from_slice::<Parsed>(&self.body) {
            Ok(parsed) => parsed.0,
            Err(_) => string(String::from_utf8_lossy(&self.body)),
        };
        let data = self.with_body(body);
        if let Some(success) = success {
            let succeeded = success.boolean(&Variables::default().with("response", &data));
            if !succeeded.map_err(|error| self.unexpected(error.to_string()))? {
                return Err(CallError::Unsuccessful { status: self.status, words: words(&self.body) });
            }
        }
        Ok(data)
    }

    /// Whether the status is 2xx.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// `response` in expressions, with this body.
    pub(crate) fn with_body(&self, body: Data) -> Data {
        let mut headers: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.as_str())
                .and_modify(|joined| {
                    joined.push_str(", ");
                    joined.push_str(&value);
                })
                .or_insert_with(|| value.clone().into_owned());
        }
        record([
            ("status", integer(self.status.into())),
            ("headers", record(headers.into_iter().map(|(name, value)| (name, string(value))))),
            ("body", body),
        ])
    }

    /// Why an answer is not what the plugin expects. A page instead of JSON is said first, because nobody would guess it
    /// from what an expression makes of it.
    pub(crate) fn unexpected(&self, problem: impl Into<String>) -> CallError {
        let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&self.body).is_ok();
        let problem = match self.is_success() && !self.body.is_empty() && !is_json {
            true => format!("the body is not JSON; {}", problem.into()),
            false => problem.into(),
        };
        CallError::UnexpectedAnswer { status: self.status, problem }
    }
}

/// What an external system says in its answer, in one line of at most 300 characters: its message where it is JSON with
/// one, else its text. It can contain whatever was sent to it: see [`redact`].
pub fn words(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    // The last two are GraphQL's and Google's.
    let places = ["/message", "/error_description", "/error", "/detail", "/errors/0/message", "/error/message"];
    let message = json.as_ref().and_then(|json| places.iter().find_map(|place| json.pointer(place)?.as_str()));
    let text = match message {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&body[..body.len().min(4 * MAX_WORDS)]).into_owned(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect()
}

/// Cuts secrets out of a text: an external system, or one that pretends to be it, may send back what it got.
pub fn redact(text: &str, secrets: &[&Secret]) -> String {
    secrets
        .iter()
        .filter_map(|secret| secret.expose_str())
        .filter(|secret| !secret.is_empty())
        .fold(text.to_owned(), |text, secret| text.replace(secret, "[redacted]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_quoted_in_one_short_line_without_secrets() {
        let body = b"{\"message\": \"token hunter2 is\\n not valid\"}";
        let secret = Secret::from("hunter2".to_owned());
        assert_eq!(redact(&words(body), &[&secret]), "token [redacted] is not valid");
        assert_eq!(words(&vec![b'x'; 10_000]).len(), MAX_WORDS);
    }
}
