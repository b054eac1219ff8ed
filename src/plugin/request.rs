//! A request to a callback URL, and its body.

use super::cel::value::{Checked, Data, MOST_VALUES, Parsed, null, record, string, within};
use super::error::BadBody;
use super::verification::KeySet;
use http::HeaderMap;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One HTTP request to a callback URL, as it came or as it was stored; nothing is copied.
#[derive(Clone, Copy)]
pub struct CallbackRequest<'a> {
    method: &'a str,
    query: &'a str,
    headers: Headers<'a>,
    body: &'a [u8],
    received_at: Option<i64>,
    url: Option<&'a str>,
    keys: Option<&'a (dyn PublicKeys + Sync)>,
}

/// Public keys that were fetched from external systems, by the URL of their JWK Set.
pub trait PublicKeys {
    /// The keys; nothing while they are not known.
    fn keys(&self, url: &str) -> Option<Arc<KeySet>>;

    /// Notes that a token names a key that is not among them, so that they are fetched again before long.
    fn misses_key(&self, url: &str);
}

#[derive(Clone, Copy)]
enum Headers<'a> {
    Map(&'a HeaderMap),
    Pairs(&'a [(String, String)]),
}

impl<'a> CallbackRequest<'a> {
    /// A request as the HTTP server gives it: method, raw query without `?`, headers and raw body.
    pub fn new(method: &'a str, query: &'a str, headers: &'a HeaderMap, body: &'a [u8]) -> Self {
        Self { method, query, headers: Headers::Map(headers), body, received_at: None, url: None, keys: None }
    }

    /// A request as it was stored. Header names may be in any case.
    pub fn stored(method: &'a str, query: &'a str, headers: &'a [(String, String)], body: &'a [u8]) -> Self {
        Self { method, query, headers: Headers::Pairs(headers), body, received_at: None, url: None, keys: None }
    }

    /// With the time of its receipt in Unix milliseconds, without which no timestamp of a signature is recent.
    #[must_use]
    pub fn at(self, received_at: i64) -> Self {
        Self { received_at: Some(received_at), ..self }
    }

    /// With the callback URL as it was registered, without which no signature that covers it can be verified.
    #[must_use]
    pub fn registered(self, url: Option<&'a str>) -> Self {
        Self { url, ..self }
    }

    /// With the public keys that were fetched, without which no token is proven whose keys are at a URL.
    #[must_use]
    pub fn with_keys(self, keys: &'a (dyn PublicKeys + Sync)) -> Self {
        Self { keys: Some(keys), ..self }
    }

    pub(crate) fn keys(&self, url: &str) -> Option<Arc<KeySet>> {
        self.keys?.keys(url)
    }

    pub(crate) fn misses_key(&self, url: &str) {
        if let Some(keys) = self.keys {
            keys.misses_key(url);
        }
    }

    /// The time of its receipt in Unix milliseconds.
    pub(crate) fn received_at(&self) -> Option<i64> {
        self.received_at
    }

    /// The callback URL as it was registered.
    pub(crate) fn url(&self) -> Option<&'a str> {
        self.url
    }

    /// The method.
    pub(crate) fn method(&self) -> &'a str {
        self.method
    }

    /// The raw query, without the question mark.
    pub(crate) fn query(&self) -> &'a str {
        self.query
    }

    /// The raw body.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The values of a header, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&'a [u8]> {
        match self.headers {
            Headers::Map(map) => map.get_all(name).iter().map(http::HeaderValue::as_bytes).collect(),
            Headers::Pairs(pairs) => {
                pairs.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_bytes()).collect()
            }
        }
    }

    /// The value of a header as expressions see it: repeated ones are joined.
    pub(crate) fn joined_header(&self, name: &str) -> Option<String> {
        let mut values = self.header(name).into_iter().map(String::from_utf8_lossy);
        let mut joined = values.next()?.into_owned();
        for value in values {
            joined.push_str(", ");
            joined.push_str(&value);
        }
        Some(joined)
    }

    /// `request` in expressions: method, headers with lower-case names, query with the first value of each name.
    pub(crate) fn to_data(self) -> Data {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        let mut add = |name: &str, value: &[u8]| {
            let value = String::from_utf8_lossy(value);
            headers
                .entry(name.to_ascii_lowercase())
                .and_modify(|joined| {
                    joined.push_str(", ");
                    joined.push_str(&value);
                })
                .or_insert_with(|| value.clone().into_owned());
        };
        match self.headers {
            Headers::Map(map) => map.iter().for_each(|(name, value)| add(name.as_str(), value.as_bytes())),
            Headers::Pairs(pairs) => pairs.iter().for_each(|(name, value)| add(name, value.as_bytes())),
        }
        record([
            ("method", string(self.method)),
            ("headers", record(headers.into_iter().map(|(name, value)| (name, string(value))))),
            ("query", first_values(self.query.as_bytes())),
        ])
    }

    /// `body` in expressions. `payload_field` is the field of a form that carries JSON.
    ///
    /// # Errors
    /// The body is not what its content type says.
    pub(crate) fn parse_body(&self, payload_field: Option<&str>) -> Result<Data, BadBody> {
        match self.content(payload_field)? {
            Content::Empty => Ok(null()),
            Content::Json(place, text) => read_json::<Parsed>(place, &text).map(|parsed| parsed.0),
            Content::Form => Ok(first_values(self.body)),
        }
    }

    /// Whether [`CallbackRequest::parse_body`] would succeed, without building anything.
    ///
    /// # Errors
    /// As [`CallbackRequest::parse_body`].
    pub(crate) fn check_body(&self, payload_field: Option<&str>) -> Result<(), BadBody> {
        match self.content(payload_field)? {
            Content::Json(place, text) => read_json::<Checked>(place, &text).map(|_| ()),
            Content::Empty | Content::Form => Ok(()),
        }
    }

    fn content(&self, payload_field: Option<&str>) -> Result<Content<'a>, BadBody> {
        let types = self.header("content-type");
        if types.len() > 1 {
            return Err(BadBody::RepeatedContentType);
        }
        if self.body.is_empty() {
            return Ok(Content::Empty);
        }
        let Some(found) = types.first() else { return Ok(Content::Json(BODY.to_owned(), Cow::Borrowed(self.body))) };
        let found = String::from_utf8_lossy(found);
        let essence = found.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/json" => Ok(Content::Json(BODY.to_owned(), Cow::Borrowed(self.body))),
            "application/x-www-form-urlencoded" => self.form(payload_field),
            // RFC 6839: a structured syntax suffix says how to read it.
            other if other.ends_with("+json") => Ok(Content::Json(BODY.to_owned(), Cow::Borrowed(self.body))),
            _ => Err(BadBody::ContentType(essence.chars().take(100).collect())),
        }
    }

    fn form(&self, payload_field: Option<&str>) -> Result<Content<'a>, BadBody> {
        let pairs = self.body.iter().filter(|byte| **byte == b'&').count() as u64 + 1;
        if pairs > MOST_VALUES / 2 {
            return Err(BadBody::TooManyValues { place: BODY.to_owned(), limit: MOST_VALUES });
        }
        let Some(field) = payload_field else { return Ok(Content::Form) };
        let mut values =
            url::form_urlencoded::parse(self.body).filter(|(name, _)| name == field).map(|(_, value)| value);
        match (values.next(), values.count()) {
            (Some(value), 0) => {
                let place = format!("the form's field {field}");
                Ok(Content::Json(place, Cow::Owned(value.into_owned().into_bytes())))
            }
            (None, _) => Err(BadBody::PayloadField { field: field.to_owned(), found: 0 }),
            (Some(_), more) => Err(BadBody::PayloadField { field: field.to_owned(), found: more + 1 }),
        }
    }
}

impl std::fmt::Debug for CallbackRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallbackRequest")
            .field("method", &self.method)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

const BODY: &str = "the body";

enum Content<'a> {
    Empty,
    Json(String, Cow<'a, [u8]>),
    Form,
}

/// Reads JSON that stands at `place`. That it is UTF-8 is checked once for all of it, which is much faster than string by string.
fn read_json<'a, T: Deserialize<'a>>(place: String, text: &'a [u8]) -> Result<T, BadBody> {
    let read = || match std::str::from_utf8(text) {
        Ok(text) => serde_json::from_str(text),
        // Says where.
        Err(_) => serde_json::from_slice(text),
    };
    match within(MOST_VALUES, read) {
        (_, found) if found > MOST_VALUES => Err(BadBody::TooManyValues { place, limit: MOST_VALUES }),
        (read, _) => read.map_err(|error: serde_json::Error| BadBody::Json { place, problem: error.to_string() }),
    }
}

pub(crate) fn first_values(encoded: &[u8]) -> Data {
    let mut values: BTreeMap<String, Data> = BTreeMap::new();
    for (name, value) in url::form_urlencoded::parse(encoded) {
        values.entry(name.into_owned()).or_insert_with(|| string(value));
    }
    record(values)
}
