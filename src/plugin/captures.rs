//! What is kept of an answer: ids, secrets, ends of life, and what the plugin's author wants besides.

use super::cel::value::to_json;
use super::cel::{Expression, Variables};
use super::error::EvalError;
use super::secret::Secret;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// Longest text that is kept, in bytes: what is captured is stored in one Secret.
const LONGEST: usize = 4096;
/// A number below this counts seconds (until the year 5138), one from it on milliseconds (since 1973).
const FIRST_MILLISECONDS: f64 = 1e11;
/// 9999-12-31T23:59:59Z in Unix milliseconds.
const LAST: f64 = 253_402_300_799_000.0;

/// What `create` has told of a webhook.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The external system's id of the webhook; never empty.
    pub id: String,
    /// The callback secret, if the external system chooses it and says it here; never empty.
    pub secret: Option<Secret>,
    /// The end of its life in Unix milliseconds; nothing if it does not end.
    pub expires_at: Option<i64>,
    /// What else later calls need, by name.
    pub values: BTreeMap<String, String>,
}

/// What a call after `create` has told of the webhook.
#[derive(Clone, Debug)]
pub struct CapturedAfter {
    /// The callback secret, if it is said here; never empty.
    pub secret: Option<Secret>,
    /// The end of its life in Unix milliseconds, if it is said here.
    pub expires_at: Option<i64>,
    /// What else later calls need, by name.
    pub values: BTreeMap<String, String>,
}

/// A webhook with the Subscription's callback URL in a list of webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The external system's id of the webhook; never empty.
    pub id: String,
    /// The end of its life in Unix milliseconds, if the plugin reads it.
    pub expires_at: Option<i64>,
    /// What else later calls need, by name.
    pub values: BTreeMap<String, String>,
    /// Whether it is as it was made: enabled, with its events.
    pub healthy: bool,
}

/// A text to be kept.
pub(crate) fn text(expression: &Expression, variables: &Variables<'_>) -> Result<String, EvalError> {
    let text = expression.text(variables)?;
    if text.len() > LONGEST {
        let reason = format!("has {} bytes; at most {LONGEST} are kept", text.len());
        return Err(EvalError::new(expression.field(), reason));
    }
    Ok(text)
}

/// A text to be kept that must not be empty, such as an id.
pub(crate) fn filled(expression: &Expression, variables: &Variables<'_>) -> Result<String, EvalError> {
    let text = text(expression, variables)?;
    if text.is_empty() { Err(EvalError::new(expression.field(), "is empty")) } else { Ok(text) }
}

/// A secret that the external system has chosen.
pub(crate) fn secret(expression: &Expression, variables: &Variables<'_>) -> Result<Secret, EvalError> {
    filled(expression, variables).map(Secret::from)
}

/// Texts to be kept, by name.
pub(crate) fn texts(
    expressions: &[(String, Expression)],
    variables: &Variables<'_>,
) -> Result<BTreeMap<String, String>, EvalError> {
    expressions.iter().map(|(name, expression)| Ok((name.clone(), text(expression, variables)?))).collect()
}

/// The end of a life in Unix milliseconds; nothing for null.
pub(crate) fn expiry(expression: &Expression, variables: &Variables<'_>) -> Result<Option<i64>, EvalError> {
    expression.evaluate(variables, |value| milliseconds(&to_json(value)?))
}

/// A point in time in Unix milliseconds: RFC 3339, or seconds or milliseconds since the Unix epoch, as a number or, as
/// some systems do, in a string. Null is none.
fn milliseconds(value: &Value) -> Result<Option<i64>, String> {
    let number = match value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::String(text) => match (text.parse::<Timestamp>(), text.parse::<f64>()) {
            (Ok(time), _) => return Ok(Some(time.as_millisecond())),
            (Err(_), Ok(number)) => number,
            (Err(_), Err(_)) => {
                return Err("is a string that is neither a time in RFC 3339 nor a number".to_owned());
            }
        },
        _ => return Err("is neither a string nor a number nor null".to_owned()),
    };
    let number = if number.abs() < FIRST_MILLISECONDS { number * 1000.0 } else { number };
    if !(0.0..=LAST).contains(&number) {
        return Err("is no time between 1970 and 9999".to_owned());
    }
    // In range, so nothing is lost but fractions of a millisecond.
    Ok(Some(number as i64))
}
