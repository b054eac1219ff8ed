//! What a signature covers.

use super::place::{Compiler, Seen};
use crate::api::{SignatureTimestamp, SignedPart};
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
    Expression(Expression),
}

impl Signed {
    /// `timestamp` is what is set beside it.
    pub(super) fn compile(
        field: &str,
        parts: &[SignedPart],
        timestamp: Option<&SignatureTimestamp>,
        compiler: &mut Compiler<'_>,
    ) -> Self {
        if parts.is_empty() {
            compiler.mistake(&format!("{field}.signed"), "is empty; a signature over nothing proves nothing");
        } else if timestamp.is_some_and(|timestamp| timestamp.field.is_none())
            && !parts.iter().any(|part| matches!(part, SignedPart::Timestamp(_)))
        {
            let problem = "does not cover the timestamp, which anybody could then change; add `timestamp: {}`";
            compiler.mistake(&format!("{field}.signed"), problem);
        } else if parts.iter().all(|part| matches!(part, SignedPart::Literal(_) | SignedPart::Method(_))) {
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
                SignedPart::Expression(source) => {
                    Part::Expression(compiler.expression(&format!("{field}.expression"), source))
                }
            }
        });
        Self(parts.collect())
    }

    /// Whether the body is signed as it is, and nothing that has to be looked for in it.
    pub(super) fn is_raw_body(&self) -> bool {
        let has_to_be_found = |part: &Part| matches!(part, Part::Timestamp | Part::SortedForm | Part::Expression(_));
        self.0.iter().any(|part| matches!(part, Part::Body)) && !self.0.iter().any(has_to_be_found)
    }

    pub(super) fn needs_url(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Url { .. }))
    }

    /// The bytes of each part. `timestamp` is as it was written.
    pub(super) fn parts<'s, 'a: 's>(
        &'s self,
        seen: &Seen<'a>,
        timestamp: Option<&'s str>,
    ) -> Result<Vec<Cow<'s, [u8]>>, Refusal> {
        self.0.iter().map(|part| part.bytes(seen, timestamp)).collect()
    }
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
                let mut url = request.url().ok_or(Refusal::NoUrl)?.to_owned();
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
                Cow::Owned(fields.into_iter().flat_map(|(name, value)| [name, value]).collect::<String>().into_bytes())
            }
            Self::Expression(expression) => Cow::Owned(seen.text(expression)?.into_bytes()),
        })
    }
}
