//! Where a proof, or a part of what it covers, stands in a request.

use super::Compile;
use crate::plugin::cel::value::null;
use crate::plugin::cel::{Data, Expression, Scope, Variables};
use crate::plugin::error::{Mistake, Refusal};
use crate::plugin::handshake::is_token;
use crate::plugin::request::CallbackRequest;
use serde_json::Value;
use std::borrow::Cow;
use std::cell::OnceCell;

/// Largest body, in bytes, that is taken apart before its sender is proven. Whoever knows a callback URL can have it done, and
/// values take many times the time and the room of the bytes that they stand in; to hash those costs little.
const LARGEST_UNPROVEN: usize = 512 * 1024;

/// A request, with what expressions see of it: made when one first asks.
pub(super) struct Seen<'a> {
    pub(super) request: &'a CallbackRequest<'a>,
    payload_field: Option<&'a str>,
    is_proven: bool,
    /// Whether anybody can have a token signed with the callback secret, by a handshake.
    tokens_are_signed: bool,
    data: OnceCell<(Data, Data)>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(request: &'a CallbackRequest<'a>, payload_field: Option<&'a str>) -> Self {
        Self { request, payload_field, is_proven: false, tokens_are_signed: false, data: OnceCell::new() }
    }

    /// The same request; whether anybody can have a token signed with the callback secret, by a handshake.
    pub(super) fn with_signed_tokens(self, tokens_are_signed: bool) -> Self {
        Self { tokens_are_signed, ..self }
    }

    /// Whether the message proves nothing, because a handshake signs it for everybody who asks.
    pub(super) fn is_signed_for_everybody(&self, message: &[u8]) -> bool {
        self.tokens_are_signed && std::str::from_utf8(message).is_ok_and(is_token)
    }

    /// The same request, once its sender has proven the whole body: it may be taken apart however large it is, as it will be
    /// to find its events.
    pub(super) fn proven(&self) -> Self {
        Self { is_proven: true, data: OnceCell::new(), ..*self }
    }

    /// What an expression gives, as text; a number is written out.
    pub(super) fn text(&self, expression: &Expression) -> Result<String, Refusal> {
        let place = format!("`{}`", expression.source());
        let small = self.check_size(|| place.clone());
        if expression.uses("body") {
            small.clone()?;
        }
        // A body that cannot be read is null, as in handshakes: then what is looked for in it is not there.
        let (request, body) = self.data.get_or_init(|| {
            let body = small.ok().and_then(|()| self.request.parse_body(self.payload_field).ok());
            (self.request.to_data(), body.unwrap_or_else(null))
        });
        let variables = Variables::default().with("request", request).with("body", body);
        match expression.json(&variables) {
            Ok(Value::String(text)) => Ok(text),
            Ok(Value::Number(number)) => Ok(number.to_string()),
            Ok(_) => Err(Refusal::Malformed { place, problem: "is not a text".to_owned() }),
            Err(_) => Err(Refusal::Missing(place)),
        }
    }

    /// Whether the body may be taken apart although its sender is not proven; `place` is what is looked for in it.
    pub(super) fn check_size(&self, place: impl FnOnce() -> String) -> Result<(), Refusal> {
        match self.request.body().len() {
            _ if self.is_proven => Ok(()),
            ..=LARGEST_UNPROVEN => Ok(()),
            bytes => Err(Refusal::TooLarge { place: place(), bytes, limit: LARGEST_UNPROVEN }),
        }
    }

    /// The one value of a header.
    pub(super) fn header(&self, name: &str) -> Result<&'a [u8], Refusal> {
        match self.request.header(name).as_slice() {
            [] => Err(Refusal::Missing(format!("the header {name}"))),
            [value] => Ok(value),
            _ => Err(Refusal::Repeated(format!("the header {name}"))),
        }
    }

    /// The one value of a query parameter, decoded.
    pub(super) fn query(&self, name: &str) -> Result<String, Refusal> {
        the_one(self.request.query().as_bytes(), name, || format!("the query parameter {name}"))
    }

    /// The one value of a field of the form in the body, decoded.
    pub(super) fn form_field(&self, name: &str) -> Result<String, Refusal> {
        let place = || format!("the form field {name}");
        self.check_size(place)?;
        the_one(self.request.body(), name, place)
    }
}

/// The one value of `name` in a form; `place` is what people call it.
fn the_one(form: &[u8], name: &str, place: impl Fn() -> String) -> Result<String, Refusal> {
    let values = url::form_urlencoded::parse(form);
    let mut values = values.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Refusal::Missing(place())),
        (Some(_), Some(_)) => Err(Refusal::Repeated(place())),
    }
}

/// Where a value stands.
#[derive(Debug)]
pub(super) enum Place {
    Header(String),
    Query(String),
    Field(Expression),
}

impl Place {
    /// What people call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Header(name) => format!("the header {name}"),
            Self::Query(name) => format!("the query parameter {name}"),
            Self::Field(expression) => format!("`{}`", expression.source()),
        }
    }

    pub(super) fn read<'a>(&self, seen: &Seen<'a>) -> Result<Cow<'a, [u8]>, Refusal> {
        match self {
            Self::Header(name) => seen.header(name).map(Cow::Borrowed),
            Self::Query(name) => seen.query(name).map(|value| Cow::Owned(value.into_bytes())),
            Self::Field(expression) => seen.text(expression).map(|value| Cow::Owned(value.into_bytes())),
        }
    }

    /// Names, in lower case, of the headers that it stands in.
    pub(super) fn headers(&self) -> Vec<String> {
        match self {
            Self::Header(name) => vec![name.to_ascii_lowercase()],
            Self::Query(_) => Vec::new(),
            Self::Field(expression) => expression.headers().map(str::to_owned).collect(),
        }
    }

    /// Name of the query parameter that it stands in.
    pub(super) fn query(&self) -> Option<&str> {
        match self {
            Self::Query(name) => Some(name),
            Self::Header(_) | Self::Field(_) => None,
        }
    }

    /// A refusal of what stands there.
    pub(super) fn malformed(&self, problem: impl Into<String>) -> Refusal {
        Refusal::Malformed { place: self.name(), problem: problem.into() }
    }
}

/// Compiles places and expressions over `request` and `body`.
pub(super) struct Compiler<'a> {
    pub(super) scope: &'a Scope,
    pub(super) to: &'a mut dyn Compile,
}

impl Compiler<'_> {
    /// A place of which exactly one is set; the schema says so too.
    pub(super) fn place(
        &mut self,
        field: &str,
        header: Option<&String>,
        query: Option<&String>,
        expression: Option<&String>,
    ) -> Place {
        match (header, query, expression) {
            (Some(name), None, None) => Place::Header(self.header(&format!("{field}.header"), name)),
            (None, Some(name), None) => Place::Query(name.clone()),
            (None, None, Some(source)) => Place::Field(self.expression(&format!("{field}.field"), source)),
            _ => {
                self.mistake(field, "set exactly one of header, query and field");
                Place::Query(String::new())
            }
        }
    }

    /// The name of a header.
    pub(super) fn header(&mut self, field: &str, name: &str) -> String {
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            self.mistake(field, format!("{name:?} is no header name"));
        }
        name.to_owned()
    }

    pub(super) fn expression(&mut self, field: &str, source: &str) -> Expression {
        self.to.expression(field, source, self.scope)
    }

    pub(super) fn mistake(&mut self, field: &str, problem: impl Into<String>) {
        self.to.mistake(Mistake::new(field, problem));
    }
}
