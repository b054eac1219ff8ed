//! When a request was signed, and whether that is recent: what bounds how long a recorded request can be sent again.

use super::place::{Compiler, Seen};
use crate::api::{SignatureTimestamp, TimestampUnit};
use crate::plugin::cel::Expression;
use crate::plugin::error::Refusal;
use k8s_openapi::jiff::Timestamp as Instant;
use kube::core::Duration;

/// A compiled timestamp.
#[derive(Debug)]
pub(super) struct Timestamp {
    pub(super) place: Place,
    unit: TimestampUnit,
    tolerance: i64,
}

/// Where it stands.
#[derive(Debug)]
pub(super) enum Place {
    Header(String),
    /// The entry of the signature's list with this key.
    Element(String),
    Field(Expression),
}

impl Timestamp {
    /// In the header with this name, in seconds.
    pub(super) fn seconds_in(header: String, tolerance: Duration) -> Self {
        Self { place: Place::Header(header), unit: TimestampUnit::Seconds, tolerance: millis(tolerance) }
    }

    pub(super) fn compile(
        field: &str,
        settings: &SignatureTimestamp,
        has_list: bool,
        compiler: &mut Compiler<'_>,
    ) -> Self {
        let field = format!("{field}.timestamp");
        let place = match (&settings.header, &settings.element, &settings.field) {
            (Some(name), None, None) => Place::Header(compiler.header(&format!("{field}.header"), name)),
            (None, Some(key), None) => {
                if !has_list {
                    compiler.mistake(
                        &format!("{field}.element"),
                        "the signature is no list; set `list`, or where else it stands",
                    );
                }
                Place::Element(key.clone())
            }
            (None, None, Some(source)) => Place::Field(compiler.expression(&format!("{field}.field"), source)),
            _ => {
                compiler.mistake(&field, "set exactly one of header, element and field");
                Place::Element(String::new())
            }
        };
        Self { place, unit: settings.unit, tolerance: millis(settings.tolerance) }
    }

    /// This moment, in Unix milliseconds, as it would be written.
    pub(super) fn written(&self, now: i64) -> String {
        match self.unit {
            TimestampUnit::Seconds => now.div_euclid(1000).to_string(),
            TimestampUnit::Milliseconds => now.to_string(),
            TimestampUnit::Rfc3339 => Instant::from_millisecond(now).unwrap_or(Instant::UNIX_EPOCH).to_string(),
        }
    }

    /// The timestamp as it is written; `element` gives the entries of the signature's list.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is too far from now.
    pub(super) fn check<'a>(
        &self,
        seen: &Seen<'_>,
        element: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<String, Refusal> {
        let (name, text) = match &self.place {
            Place::Header(name) => {
                (format!("the header {name}"), String::from_utf8_lossy(seen.header(name)?).into_owned())
            }
            Place::Element(key) => {
                let name = format!("the element {key} of the signature");
                let text = element(key).ok_or_else(|| Refusal::Missing(name.clone()))?;
                (name, text.to_owned())
            }
            Place::Field(expression) => (format!("`{}`", expression.source()), seen.text(expression)?),
        };
        let malformed = |problem: &str| Refusal::Malformed { place: name.clone(), problem: problem.to_owned() };
        let signed = match self.unit {
            TimestampUnit::Seconds => {
                let seconds: i64 = text.parse().map_err(|_| malformed("is not a number of seconds"))?;
                seconds.checked_mul(1000).ok_or_else(|| malformed("is no time"))?
            }
            TimestampUnit::Milliseconds => text.parse().map_err(|_| malformed("is not a number of milliseconds"))?,
            TimestampUnit::Rfc3339 => {
                let time: Instant = text.parse().map_err(|_| malformed("is no RFC 3339 time"))?;
                time.as_millisecond()
            }
        };
        // Without a clock nothing is recent.
        let Some(now) = seen.request.received_at() else { return Err(malformed("cannot be held against the time")) };
        let (age, tolerance) = (now.saturating_sub(signed), self.tolerance);
        if age.saturating_abs() <= tolerance {
            return Ok(text);
        }
        let (seconds, side) = (age.saturating_abs() / 1000, if age > 0 { "old" } else { "in the future" });
        Err(Refusal::Stale(format!("{name} is {seconds} seconds {side}; {} are allowed", tolerance / 1000)))
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(std::time::Duration::from(duration).as_millis()).unwrap_or(i64::MAX)
}
