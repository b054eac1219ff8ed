//! URL templates (RFC 6570), and what values may not do to a URL.

use super::error::{CallError, Mistake};
use iri_string::spec::UriSpec;
use iri_string::template::UriTemplateString;
use iri_string::template::context::{Context, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use url::Url;

/// Values of a template's variables.
pub(crate) struct Values<'a> {
    /// The Subscription's parameters.
    pub(crate) parameters: &'a Map<String, Value>,
    /// The webhook's id, in calls that have one.
    pub(crate) webhook_id: Option<&'a str>,
}

/// A compiled URL template.
#[derive(Debug)]
pub(crate) struct Template {
    field: String,
    template: UriTemplateString,
    places: Vec<Place>,
}

/// Where a template uses a variable.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    variable: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// `{x}` and its like: the value is percent-encoded and stays inside of the path.
    Path,
    /// `{+x}`: the value's slashes and colons count.
    Reserved,
    /// `{?x}`, `{&x}`: the value is percent-encoded in the query, and may be missing.
    Query,
}

impl Template {
    /// Compiles `source`, the value of `field`. Variables are `parameters.<name>` for each of `parameters`, and
    /// `webhook.id` where `webhook` is set.
    ///
    /// # Errors
    /// What is wrong with the syntax, and every variable that does not exist.
    pub(crate) fn compile(
        field: &str,
        source: &str,
        parameters: &[String],
        webhook: bool,
    ) -> Result<Self, Vec<Mistake>> {
        let fail = |problem: String| Mistake::new(field, problem);
        if source.len() > 4096 {
            return Err(vec![fail("a URL template has at most 4096 bytes".to_owned())]);
        }
        let template = UriTemplateString::try_from(source.to_owned())
            .map_err(|error| vec![fail(format!("is no URL template (RFC 6570): {}", error.validation_error()))])?;
        let places = places(source).map_err(|problem| vec![fail(problem)])?;
        let mut mistakes = Vec::new();
        for place in &places {
            let known = match place.variable.strip_prefix("parameters.") {
                Some(name) => parameters.iter().any(|known| known == name),
                None => webhook && place.variable == "webhook.id",
            };
            if !known {
                let mut names: Vec<String> = parameters.iter().map(|name| format!("parameters.{name}")).collect();
                names.extend(webhook.then(|| "webhook.id".to_owned()));
                let hint = super::error::nearest(&place.variable, names.iter().map(String::as_str));
                let hint = hint.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                mistakes.push(fail(format!("unknown variable `{}`; {hint}here are: {names}", place.variable)));
            }
        }
        let literal: String = literals(source).collect();
        if literal.split(['/', '?', '#']).any(is_dot_segment) || literal.contains(['\\', '#']) {
            mistakes.push(fail("must not contain the segments `.` and `..`, a backslash or a fragment".to_owned()));
        }
        let start = literals(source).next().unwrap_or_default();
        let scheme = ["https://", "http://"].iter().any(|scheme| start.starts_with(scheme));
        let from_value = source.starts_with("{+");
        if !scheme && !from_value {
            mistakes.push(fail(
                "must begin with https://, http:// or a reserved expansion such as {+parameters.baseURL}".into(),
            ));
        }
        if mistakes.is_empty() { Ok(Self { field: field.to_owned(), template, places }) } else { Err(mistakes) }
    }

    /// The URL that these values give. It is http or https, names no user, and no value has left the place that the
    /// template gives it.
    ///
    /// # Errors
    /// [`CallError::InvalidUrl`].
    pub(crate) fn expand(&self, values: &Values<'_>) -> Result<Url, CallError> {
        let fail = |problem: String| CallError::InvalidUrl { field: self.field.clone(), problem };
        for place in &self.places {
            place.check(values).map_err(|problem| fail(format!("{} {problem}", place.variable)))?;
        }
        let expanded = self.template.expand::<UriSpec, _>(values).map_err(|_| fail("cannot be expanded".to_owned()))?;
        let text = expanded.to_string();
        let url = Url::parse(&text).map_err(|error| fail(format!("{text:?} is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(fail(format!("the scheme is {}, not http or https", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fail("the URL must not contain a user or a password".to_owned()));
        }
        if url.fragment().is_some() {
            return Err(fail("the URL must not contain a fragment".to_owned()));
        }
        // Whatever a URL parser tidies up, such as `..` and `%2e%2e`, it has moved somewhere else.
        if raw_path(&text) != url.path() {
            return Err(fail(format!("the path {:?} does not stay as it is when the URL is parsed", raw_path(&text))));
        }
        Ok(url)
    }
}

impl Place {
    /// Refuses values that would change the URL's structure.
    fn check(&self, values: &Values<'_>) -> Result<(), String> {
        let value = lookup(values, &self.variable);
        let (owned, text) = match value.as_deref() {
            None | Some(Value::Null) => {
                return if self.kind == Kind::Query { Ok(()) } else { Err("has no value".to_owned()) };
            }
            Some(Value::String(text)) => (None, text.as_str()),
            Some(Value::Array(items)) if self.kind == Kind::Query => {
                let scalars = items.iter().all(|item| !item.is_array() && !item.is_object());
                return if scalars { Ok(()) } else { Err("is a list of more than scalars".to_owned()) };
            }
            Some(Value::Array(_)) => return Err("is a list; in a path, a value is a scalar".to_owned()),
            Some(Value::Object(_)) => return Err("is an object; a URL takes scalars".to_owned()),
            Some(other) => (Some(other.to_string()), ""),
        };
        let text = owned.as_deref().unwrap_or(text);
        if text.chars().any(char::is_control) {
            return Err("contains control characters".to_owned());
        }
        if self.kind == Kind::Query {
            return Ok(());
        }
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        // Servers decode, some of them twice, so what a segment decodes to counts.
        let mut decoded = text.to_owned();
        for _ in 0..3 {
            if decoded.split(['/', '\\']).any(is_dot_segment) {
                return Err("contains the segment `.` or `..`".to_owned());
            }
            decoded = percent_decode(&decoded);
        }
        if self.kind == Kind::Reserved {
            if let Some(found) = text.chars().find(|c| matches!(c, '?' | '#' | '\\' | '%')) {
                return Err(format!("contains `{found}`, which would change the URL's structure"));
            }
            let path = text.split_once("://").map_or(text, |(_, rest)| rest);
            if path.contains("//") {
                return Err("contains an empty path segment".to_owned());
            }
        }
        Ok(())
    }
}

fn lookup<'a>(values: &'a Values<'_>, variable: &str) -> Option<std::borrow::Cow<'a, Value>> {
    match variable.strip_prefix("parameters.") {
        Some(name) => values.parameters.get(name).map(std::borrow::Cow::Borrowed),
        None => values.webhook_id.map(|id| std::borrow::Cow::Owned(Value::from(id))),
    }
}

struct Scalar<'a>(&'a Value);

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => f.write_str(text),
            other => other.fmt(f),
        }
    }
}

impl Context for Values<'_> {
    fn visit<V: Visitor>(&self, visitor: V) -> V::Result {
        match lookup(self, visitor.var_name().as_str()).as_deref() {
            None | Some(Value::Null | Value::Object(_)) => visitor.visit_undefined(),
            Some(Value::Array(items)) => visitor.visit_list_direct(items.iter().map(Scalar)),
            Some(scalar) => visitor.visit_string(Scalar(scalar)),
        }
    }
}

/// The parts of a template that are not expressions.
fn literals(source: &str) -> impl Iterator<Item = &str> {
    source
        .split('{')
        .enumerate()
        .map(|(i, part)| if i == 0 { part } else { part.split_once('}').map_or("", |(_, rest)| rest) })
}

fn places(source: &str) -> Result<Vec<Place>, String> {
    let mut found = Vec::new();
    for expression in source.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(inner, _)| inner) {
        let (kind, variables) = match expression.chars().next() {
            Some('+') => (Kind::Reserved, &expression[1..]),
            Some('?' | '&') => (Kind::Query, &expression[1..]),
            Some('/') => (Kind::Path, &expression[1..]),
            Some(operator @ ('#' | '.' | ';')) => {
                return Err(format!("the operator `{operator}` of {{{expression}}} is not for these URLs"));
            }
            _ => (Kind::Path, expression),
        };
        for variable in variables.split(',') {
            if variable.contains(':') {
                return Err(format!("{{{expression}}}: a prefix such as `:3` is not for these URLs"));
            }
            found.push(Place { variable: variable.trim_end_matches('*').to_owned(), kind });
        }
    }
    Ok(found)
}

fn is_dot_segment(segment: &str) -> bool {
    matches!(percent_decode(segment).as_str(), "." | "..")
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail.get(..2).and_then(|digits| hex::decode(digits).ok())) {
            (b'%', Some(byte)) => {
                bytes.extend(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The path of an absolute URL as it is written.
fn raw_path(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    rest.find('/').map_or("/", |at| &rest[at..])
}
