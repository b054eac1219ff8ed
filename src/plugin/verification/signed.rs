//! What a signature covers.

use super::place::{Compiler, Seen};
use super::timestamp::{Place, Timestamp};
use crate::api::SignedPart;
use crate::plugin::cel::Expression;
use crate::plugin::error::Refusal;
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

    /// The bytes of each part, once for each way in which the callback URL may be written; there is one at least, and the
    /// first is the usual. `timestamp` is as it was written.
    ///
    /// # Errors
    /// A part is not there, or is what a handshake of the plugin signs for everybody.
    pub(super) fn messages<'s, 'a: 's>(
        &'s self,
        seen: &Seen<'a>,
        timestamp: Option<&'s str>,
    ) -> Result<Vec<Vec<Cow<'s, [u8]>>>, Refusal> {
        let urls = match self.needs_url() {
            true => spellings(seen.request.url().ok_or(Refusal::NoUrl)?),
            false => vec![String::new()],
        };
        urls.iter().map(|url| self.0.iter().map(|part| part.bytes(seen, timestamp, url)).collect()).collect()
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

/// The ways in which a URL may be written: as it is, and with the port that goes without saying or without the one that is
/// said. Twilio has signed all of them, and its own libraries try with and without.
fn spellings(url: &str) -> Vec<String> {
    let another = || {
        let mut parsed = url::Url::parse(url).ok()?;
        if parsed.port().is_some() {
            parsed.set_port(None).ok()?;
            return Some(parsed.to_string());
        }
        let authority = url.find("://")? + 3;
        let end = url[authority..].find(['/', '?', '#']).map_or(url.len(), |at| authority + at);
        Some(format!("{}:{}{}", &url[..end], parsed.port_or_known_default()?, &url[end..]))
    };
    std::iter::once(url.to_owned()).chain(another()).collect()
}

impl Part {
    /// `url` is the callback URL without the request's query.
    fn bytes<'s, 'a: 's>(
        &'s self,
        seen: &Seen<'a>,
        timestamp: Option<&'s str>,
        url: &str,
    ) -> Result<Cow<'s, [u8]>, Refusal> {
        let request = seen.request;
        Ok(match self {
            Self::Literal(text) => Cow::Borrowed(text),
            Self::Header(name) => Cow::Borrowed(seen.header(name)?),
            Self::Query(name) => Cow::Owned(seen.query(name)?.into_bytes()),
            Self::Timestamp => Cow::Borrowed(timestamp.unwrap_or_default().as_bytes()),
            Self::Method => Cow::Owned(request.method().to_ascii_uppercase().into_bytes()),
            Self::Url { query } => {
                let mut url = url.to_owned();
                if *query && !request.query().is_empty() {
                    url.push('?');
                    url.push_str(request.query());
                }
                Cow::Owned(url.into_bytes())
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
