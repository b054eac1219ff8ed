//! URL templates (RFC 6570), and what values may not do to a URL.

use super::error::{CallError, Mistake};
use iri_string::spec::UriSpec;
use iri_string::template::UriTemplateString;
use iri_string::template::context::{Context, Visitor};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

/// Values of a template's variables.
pub(crate) struct Values<'a> {
    parameters: &'a Map<String, Value>,
    /// Everything else, by its whole name, such as `webhook.id`.
    others: BTreeMap<Cow<'static, str>, Value>,
}

impl<'a> Values<'a> {
    /// The Subscription's parameters.
    pub(crate) fn new(parameters: &'a Map<String, Value>) -> Self {
        Self { parameters, others: BTreeMap::new() }
    }

    /// Adds a variable by its whole name, such as `webhook.id`.
    pub(crate) fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) {
        self.others.insert(name.into(), value.into());
    }

    fn get(&self, variable: &str) -> Option<&Value> {
        match variable.strip_prefix("parameters.") {
            Some(name) => self.parameters.get(name),
            None => self.others.get(variable),
        }
    }
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
    /// Whether no slash stands between the scheme and this place.
    in_origin: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// `{x}` and its like: the value is percent-encoded and stays inside of the path.
    Path,
    /// `{+x}`: the value's slashes and colons count.
    Reserved,
    /// `{?x}`, `{&x}`: the value is percent-encoded in the query, and may be missing.
    Query,
    /// `{x}` behind a question mark: the value is percent-encoded in the query, and must be there.
    QueryValue,
}

impl Template {
    /// Compiles `source`, the value of `field`, over these `variables`, such as `parameters.owner`.
    ///
    /// # Errors
    /// What is wrong with the syntax, every variable that does not exist, and a credential where it could become a part
    /// of the origin.
    pub(crate) fn compile(field: &str, source: &str, variables: &[String]) -> Result<Self, Vec<Mistake>> {
        let fail = |problem: String| Mistake::new(field, problem);
        if source.len() > 4096 {
            return Err(vec![fail("a URL template has at most 4096 bytes".to_owned())]);
        }
        let template = UriTemplateString::try_from(source.to_owned())
            .map_err(|error| vec![fail(format!("is no URL template (RFC 6570): {}", error.validation_error()))])?;
        let places = places(source).map_err(|problem| vec![fail(problem)])?;
        let mut mistakes = Vec::new();
        for place in &places {
            if !variables.contains(&place.variable) {
                let hint = super::error::nearest(&place.variable, variables.iter().map(String::as_str));
                let hint = hint.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
                let names = if variables.is_empty() { "none".to_owned() } else { variables.join(", ") };
                mistakes.push(fail(format!("unknown variable `{}`; {hint}here are: {names}", place.variable)));
            } else if place.is_credential() && (place.in_origin || place.kind == Kind::Reserved) {
                mistakes.push(fail(format!(
                    "`{}` must stand behind the origin, and not in a reserved expansion: \
                     a credential must not decide where it is sent",
                    place.variable
                )));
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

    /// Whether the template has no variables.
    pub(crate) fn is_literal(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether the template uses the variable of this whole name.
    pub(crate) fn uses(&self, variable: &str) -> bool {
        self.places.iter().any(|place| place.variable == variable)
    }

    /// Path of the template's field.
    pub(crate) fn field(&self) -> &str {
        &self.field
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
        // What is in a URL with a credential is nobody's business.
        let secret = self.places.iter().any(Place::is_credential);
        let shown = |text: &str| if secret { "it".to_owned() } else { format!("{text:?}") };
        let url = Url::parse(&text).map_err(|error| fail(format!("{} is no URL: {error}", shown(&text))))?;
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
            let path = shown(raw_path(&text));
            return Err(fail(format!("the path does not stay as it is when the URL is parsed: {path}")));
        }
        Ok(url)
    }
}

impl Place {
    fn is_credential(&self) -> bool {
        self.variable.starts_with("credentials.")
    }

    /// Refuses values that would change the URL's structure.
    fn check(&self, values: &Values<'_>) -> Result<(), String> {
        let in_query = matches!(self.kind, Kind::Query | Kind::QueryValue);
        let (owned, text) = match values.get(&self.variable) {
            None | Some(Value::Null) => {
                // The first page has no cursor yet.
                let optional = self.kind == Kind::Query || in_query && self.variable == "page";
                return if optional { Ok(()) } else { Err("has no value".to_owned()) };
            }
            Some(Value::String(text)) => (None, text.as_str()),
            Some(Value::Array(items)) if self.kind == Kind::Query => {
                let scalars = items.iter().all(|item| !item.is_array() && !item.is_object());
                return if scalars { Ok(()) } else { Err("is a list of more than scalars".to_owned()) };
            }
            Some(Value::Array(_)) => return Err("is a list; here, a value is a scalar".to_owned()),
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
        if in_query {
            return Ok(());
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
        match self.get(visitor.var_name().as_str()) {
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
    // What is literal before the place at hand.
    let mut before = String::new();
    for part in source.split('{') {
        let Some((expression, literal)) = part.split_once('}') else {
            before.push_str(part);
            continue;
        };
        let (kind, variables) = match expression.chars().next() {
            Some('+') => (Kind::Reserved, &expression[1..]),
            Some('?' | '&') => (Kind::Query, &expression[1..]),
            Some('/') => (Kind::Path, &expression[1..]),
            Some(operator @ ('#' | '.' | ';')) => {
                return Err(format!("the operator `{operator}` of {{{expression}}} is not for these URLs"));
            }
            _ if before.contains('?') => (Kind::QueryValue, expression),
            _ => (Kind::Path, expression),
        };
        let rest = before.split_once("://").map_or(before.as_str(), |(_, rest)| rest);
        let in_origin = !rest.contains('/') && !expression.starts_with('/');
        for variable in variables.split(',') {
            if variable.contains(':') {
                return Err(format!("{{{expression}}}: a prefix such as `:3` is not for these URLs"));
            }
            found.push(Place { variable: variable.trim_end_matches('*').to_owned(), kind, in_origin });
        }
        if expression.starts_with('?') {
            before.push('?');
        }
        before.push_str(literal);
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
