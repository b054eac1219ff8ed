//! What can be wrong: mistakes of an author, refused requests, bad bodies, failed evaluations and calls.

use std::fmt;

/// A mistake in a resource: where it is and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Path of the field, such as `spec.events[2].variables.ref.value`.
    pub field: String,
    /// What was found there and what would be right; in an expression behind `line:column: `.
    pub problem: String,
}

impl Mistake {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The place in an expression, line and column counted from 1, and the problem without it; nothing where the field as a
    /// whole is meant.
    pub fn position(&self) -> Option<(usize, usize, &str)> {
        let (line, rest) = self.problem.split_once(':')?;
        let (column, problem) = rest.split_once(": ")?;
        Some((line.parse().ok()?, column.parse().ok()?, problem))
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Mistake {}

/// All mistakes in one line, for a condition.
pub fn join(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("; ")
}

/// An expression could not be evaluated, or its value is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct EvalError {
    /// Path of the expression's field in its resource.
    pub field: String,
    /// Why, such as `cannot be evaluated: no such key: pusher`.
    pub reason: String,
}

impl EvalError {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

/// A request did not prove who sent it. The messages contain nothing of the request or the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It comes from an address outside of the networks that the plugin names; nothing: from one that is not known.
    #[error("{}", elsewhere(.0.as_ref()))]
    Elsewhere(Option<std::net::IpAddr>),
    /// There is no secret to compare with, so nothing can be proven.
    #[error("there is no callback secret to verify the request with")]
    NoSecret,
    /// No callback secret is a key as the plugin says.
    #[error("the callback secret is not a key as the plugin's verification says")]
    UnusableSecret,
    /// The callback URL as it was registered is part of what is signed, and not known.
    #[error("the callback URL as it was registered is not known, but signed")]
    NoUrl,
    /// What is looked for is not there; it is named, as in `the header x-signature`.
    #[error("{0} is missing")]
    Missing(String),
    /// It is there more than once, so it is open which one counts.
    #[error("{0} is there more than once")]
    Repeated(String),
    /// It cannot be a proof.
    #[error("{place} {problem}")]
    Malformed {
        /// What is looked at.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// More would have to be read before the sender is proven than is read for somebody who is not.
    #[error("{place} is in the body, which has {bytes} bytes; before its sender is proven, at most {limit} are read")]
    TooLarge {
        /// What is looked for.
        place: String,
        /// Bytes of the body.
        bytes: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// The request was signed too long ago, or by a clock that is wrong.
    #[error("{0}")]
    Stale(String),
    /// The public keys that a token could be signed with are not known yet.
    #[error("the public keys of the external system are not known yet")]
    NoKeys,
    /// A token is signed with a key that is not among those that are known.
    #[error("the token is signed with a key that is not among the public keys of the external system")]
    UnknownKey,
    /// A claim of a token is not as the plugin says.
    #[error("the token's claim {claim} {problem}")]
    Claim {
        /// Name of the claim.
        claim: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It is not what the secret gives.
    #[error("{0} does not match the request and the callback secret")]
    Mismatch(String),
}

fn elsewhere(client: Option<&std::net::IpAddr>) -> String {
    match client {
        Some(client) => format!("{client} is in none of the networks that the external system sends from"),
        None => "it is not known from which address the request comes".to_owned(),
    }
}

impl Refusal {
    /// A short fixed name, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Elsewhere(_) => "elsewhere",
            Self::NoSecret => "no_secret",
            Self::UnusableSecret => "unusable_secret",
            Self::NoUrl => "no_url",
            Self::Missing(_) => "missing",
            Self::Repeated(_) => "repeated",
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::NoKeys => "no_keys",
            Self::UnknownKey => "unknown_key",
            Self::Claim { .. } => "claim",
            Self::Stale(_) => "stale",
            Self::Mismatch(_) => "mismatch",
        }
    }

    // Of several failed verifications, the one that came furthest says most about the sender.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Elsewhere(_) | Self::NoSecret => 0,
            Self::Missing(_) => 1,
            Self::Repeated(_) => 2,
            Self::Malformed { .. } => 3,
            Self::UnusableSecret | Self::NoUrl | Self::NoKeys | Self::TooLarge { .. } => 4,
            Self::Stale(_) | Self::UnknownKey | Self::Claim { .. } => 5,
            Self::Mismatch(_) => 6,
        }
    }
}

/// A request's body is not what its content type and the plugin say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBody {
    /// The content type is none that is read.
    #[error("content type {0:?} is not read; send application/json or application/x-www-form-urlencoded")]
    ContentType(String),
    /// The content type is there more than once.
    #[error("the header content-type is there more than once")]
    RepeatedContentType,
    /// The body, or the form's payload field, is not JSON.
    #[error("{place} is not JSON: {problem}")]
    Json {
        /// `the body`, or which field of the form.
        place: String,
        /// What is wrong, with line and column.
        problem: String,
    },
    /// There is more in it than expressions may see, whose memory is many times what the body has in bytes.
    #[error("{place} has more than {limit} values and names of fields")]
    TooManyValues {
        /// `the body`, or which field of the form.
        place: String,
        /// How many may be there.
        limit: u64,
    },
    /// The form does not have the payload field exactly once.
    #[error("the form has the field {field} {found} times instead of once")]
    PayloadField {
        /// Name of the field.
        field: String,
        /// How often it is there.
        found: usize,
    },
}

/// A call to the external system could not be made, or its answer is not what the plugin expects.
///
/// No message contains a credential, a callback secret or a header's value, unless the external system says it in the
/// words of [`CallError::Unsuccessful`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The plugin does not say how to make this call.
    #[error("the plugin has no {0}")]
    NoSuchCall(&'static str),
    /// The credentials lack a key that the plugin asks for, or it is empty or not text.
    #[error("the credentials have no usable value for the key {0}")]
    MissingCredential(String),
    /// A URL cannot be made from the template and the parameters.
    #[error("{field}: {problem}")]
    InvalidUrl {
        /// Path of the template's field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// The URL leads to an origin that credentials must not be sent to.
    #[error("{field}: the origin {origin} is not one of spec.allowedOrigins ({})", allowed.join(", "))]
    OriginNotAllowed {
        /// Path of the template's field.
        field: String,
        /// The origin of the URL.
        origin: String,
        /// The origins that are allowed.
        allowed: Vec<String>,
    },
    /// A header's value is not one that HTTP can carry.
    #[error("{field}: the value is not a valid header value; does it contain a line break?")]
    InvalidHeader {
        /// Path of the header's field.
        field: String,
    },
    /// A body cannot be written in the encoding of the call.
    #[error("{field}: {problem}")]
    InvalidBody {
        /// Path of the body's field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// An expression cannot be evaluated.
    #[error(transparent)]
    Evaluation(#[from] EvalError),
    /// The external system's answer is not what the plugin expects. It never means that something is absent.
    #[error("unexpected answer (status {status}): {problem}")]
    UnexpectedAnswer {
        /// HTTP status of the answer.
        status: u16,
        /// What is unexpected.
        problem: String,
    },
    /// The status says success, but the plugin's `success`, or an OAuth response itself, says that it is none.
    #[error("the external system answered {status}, but says that it failed{}", words_after(words))]
    Unsuccessful {
        /// HTTP status of the answer.
        status: u16,
        /// The external system's own words, or empty. Cut secrets out of them: see [`redact`](super::redact).
        words: String,
    },
}

fn words_after(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(": {words}") }
}

impl CallError {
    /// The error without these secrets in what the external system said.
    pub fn redacted(self, secrets: &[&super::Secret]) -> Self {
        match self {
            Self::Unsuccessful { status, words } => {
                Self::Unsuccessful { status, words: super::redact(&words, secrets) }
            }
            other => other,
        }
    }
}

/// Why a trigger can never fire on a plugin's event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TriggerMistake {
    /// The plugin has no such event.
    #[error("spec.event: the plugin {plugin} has no event `{event}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownEvent {
        /// Name of the plugin.
        plugin: String,
        /// The event that was asked for.
        event: String,
        /// The plugin's event whose name is nearest.
        nearest: Option<String>,
    },
    /// Parameters do not fit the event's schemas.
    #[error("{}", list(.0))]
    InvalidParameters(Vec<Mistake>),
    /// The filter does not compile.
    #[error(transparent)]
    InvalidFilter(Mistake),
}

/// Mistakes in one line, for a condition's message.
pub(crate) fn list(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("; ")
}

/// Why an event does not start a trigger's workflow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It is another event.
    #[error("the event is `{found}`, not `{wanted}`")]
    OtherEvent {
        /// The trigger's event.
        wanted: String,
        /// The request's event.
        found: String,
    },
    /// A parameter does not match.
    #[error("parameter {name} does not match")]
    Parameter {
        /// Name of the parameter.
        name: String,
    },
    /// A parameter's match cannot be decided, which is never a match.
    #[error("parameter {name} {reason}")]
    ParameterFailed {
        /// Name of the parameter.
        name: String,
        /// Why, such as `cannot be evaluated: no such key: ref`.
        reason: String,
    },
    /// The filter is false.
    #[error("the filter is false")]
    Filter,
    /// The filter cannot be decided, which is never a match.
    #[error("the filter {reason}")]
    FilterFailed {
        /// Why.
        reason: String,
    },
}

/// The name of `names` that is nearest to `wanted`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance is quadratic in the length, and nobody means a name that is much longer.
    if wanted.len() > 128 {
        return None;
    }
    names
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, name)| *distance <= (name.len().max(wanted.len()) / 3).max(2))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
