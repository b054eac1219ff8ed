//! What a signature covers.

use super::place::{Compiler, Seen};
use super::timestamp::{Place, Timestamp};
use crate::api::SignedPart;
use crate::plugin::cel::Expression;
use crate::plugin::error::Refusal;
use crate::plugin::request::CallbackRequest;
use std::borrow::Cow;

/// The parts that are signed, in their order.
#[derive(Debug)]
pub(super) struct Signed(Vec<Part>);

#[derive(Debug)]
enum Part {
    Literal(Vec<u8>),
    Header(String),
    Query(String),
    Timestamp,
    Method,
    Url { query: bool },
    Body,
    SortedForm,
    FormField(String),
    Expression(Expression),
}

impl Signed {
    /// `timestamp` is what is set beside it.
    pub(super) fn compile(
        field: &str,
        parts: &[SignedPart],
        timestamp: Option<&Timestamp>,
        compiler: &mut Compiler<'_>,
    ) -> Self {
        let same_for_every_request =
            |part: &SignedPart| matches!(part, SignedPart::Literal(_) | SignedPart::Method(_) | SignedPart::Url(_));
        if parts.is_empty() {
            compiler.mistake(&format!("{field}.signed"), "is empty; a signature over nothing proves nothing");
        } else if timestamp.is_some_and(|timestamp| !covers(parts, timestamp)) {
            let problem = "does not cover the timestamp, which anybody could then change; add `timestamp: {}`";
            compiler.mistake(&format!("{field}.signed"), problem);
        } else if parts.iter().all(same_for_every_request) {
            compiler
                .mistake(&format!("{field}.signed"), "is the same for every request, so that one signature fits all");
        }
        let parts = parts.iter().enumerate().map(|(at, part)| {
            let field = format!("{field}.signed[{at}]");
            match part {
                SignedPart::Literal(text) => Part::Literal(text.clone().into_bytes()),
                SignedPart::Header(name) => Part::Header(compiler.header(&format!("{field}.header"), name)),
                SignedPart::Query(name) => Part::Query(name.clone()),
                SignedPart::Timestamp(_) => {
                    if timestamp.is_none() {
                        compiler
                            .mistake(&format!("{field}.timestamp"), "there is no `timestamp` beside `signed`; set it");
                    }
                    Part::Timestamp
                }
                SignedPart::Method(_) => Part::Method,
                SignedPart::Url(_) => Part::Url { query: false },
                SignedPart::UrlWithQuery(_) => Part::Url { query: true },
                SignedPart::Body(_) => Part::Body,
                SignedPart::SortedForm(_) => Part::SortedForm,
                SignedPart::FormField(name) => Part::FormField(name.clone()),
                SignedPart::Expression(source) => {
                    Part::Expression(compiler.expression(&format!("{field}.expression"), source))
                }
            }
        });
        Self(parts.collect())
    }

    /// Whether the body is signed as it is, and nothing that has to be looked for in it.
    pub(super) fn is_raw_body(&self) -> bool {
        let has_to_be_found =
            |part: &Part| matches!(part, Part::Timestamp | Part::SortedForm | Part::FormField(_) | Part::Expression(_));
        self.0.iter().any(|part| matches!(part, Part::Body)) && !self.0.iter().any(has_to_be_found)
    }

    pub(super) fn needs_url(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Url { .. }))
    }

    /// The bytes of each part. `timestamp` is as it was written.
    ///
    /// # Errors
    /// A part is not there.
    pub(super) fn parts<'s, 'a: 's>(
        &'s self,
        seen: &Seen<'a>,
        timestamp: Option<&'s str>,
    ) -> Result<Vec<Cow<'s, [u8]>>, Refusal> {
        self.0.iter().map(|part| part.bytes(seen, timestamp)).collect()
    }

    /// The same, first as it is, and then as it is with the callback URL written in the other way, if that is signed.
    ///
    /// # Errors
    /// As [`parts`](Self::parts).
    pub(super) fn messages<'s, 'a: 's>(
        &'s self,
        seen: &Seen<'a>,
        timestamp: Option<&'s str>,
    ) -> Result<Vec<Vec<Cow<'s, [u8]>>>, Refusal> {
        let parts = self.parts(seen, timestamp)?;
        let other = seen.request.url().filter(|_| self.needs_url()).and_then(other_spelling);
        let rewritten = other.map(|url| {
            let rewrite = |(part, bytes): (&Part, &Cow<'s, [u8]>)| match part {
                Part::Url { query } => Cow::Owned(written(url.clone(), *query, seen.request)),
                _ => bytes.clone(),
            };
            self.0.iter().zip(&parts).map(rewrite).collect()
        });
        Ok(std::iter::once(parts).chain(rewritten).collect())
    }
}

/// Whether nobody can change the timestamp without its being noticed.
fn covers(parts: &[SignedPart], timestamp: &Timestamp) -> bool {
    let field = match &timestamp.place {
        Place::Field(expression) => Some(expression),
        Place::Header(_) | Place::Element(_) => None,
    };
    parts.iter().any(|part| match part {
        SignedPart::Timestamp(_) => true,
        SignedPart::Body(_) | SignedPart::SortedForm(_) => field.is_some_and(|field| !field.uses("request")),
        SignedPart::Expression(source) => field.is_some_and(|field| field.source() == source),
        _ => false,
    })
}

/// A URL with the port that goes without saying, or without the one that is said. Twilio has signed either, and its own
/// libraries try both.
fn other_spelling(url: &str) -> Option<String> {
    let mut parsed = url::Url::parse(url).ok()?;
    if parsed.port().is_some() {
        parsed.set_port(None).ok()?;
        return Some(parsed.to_string());
    }
    let authority = url.find("://")? + 3;
    let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |at| authority + at);
    Some(format!("{}:{}{}", &url[..end], parsed.port_or_known_default()?, &url[end..]))
}

/// The callback URL, with the query of the request if that is signed with it.
fn written(mut url: String, query: bool, request: &CallbackRequest<'_>) -> Vec<u8> {
    if query && !request.query().is_empty() {
        url.push('?');
        url.push_str(request.query());
    }
    url.into_bytes()
}

impl Part {
    fn bytes<'s, 'a: 's>(&'s self, seen: &Seen<'a>, timestamp: Option<&'s str>) -> Result<Cow<'s, [u8]>, Refusal> {
        let request = seen.request;
        Ok(match self {
            Self::Literal(text) => Cow::Borrowed(text),
            Self::Header(name) => Cow::Borrowed(seen.header(name)?),
            Self::Query(name) => Cow::Owned(seen.query(name)?.into_bytes()),
            Self::Timestamp => Cow::Borrowed(timestamp.unwrap_or_default().as_bytes()),
            Self::Method => Cow::Owned(request.method().to_ascii_uppercase().into_bytes()),
            Self::Url { query } => {
                let url = request.url().ok_or(Refusal::NoUrl)?.to_owned();
                Cow::Owned(written(url, *query, request))
            }
            Self::Body => Cow::Borrowed(request.body()),
            Self::SortedForm => {
                seen.check_size(|| "the form that is signed".to_owned())?;
                let mut fields: Vec<_> = url::form_urlencoded::parse(request.body()).collect();
                fields.sort();
                // Twilio's libraries sign a field that is there twice with the same value once.
                fields.dedup();
                Cow::Owned(fields.into_iter().flat_map(|(name, value)| [name, value]).collect::<String>().into_bytes())
            }
            Self::FormField(name) => Cow::Owned(seen.form_field(name)?.into_bytes()),
            Self::Expression(expression) => Cow::Owned(seen.text(expression)?.into_bytes()),
        })
    }
}
