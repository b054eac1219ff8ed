//! When an attempt is repeated, and when it is given up. Plain values in, plain values out.
//!
//! | Outcome of the attempt | What follows |
//! |---|---|
//! | 2xx | delivered |
//! | no answer (connection, timeout), 408, 429, 5xx | retry after a random time up to 2 s, 6 s, 18 s … 1 h |
//! | the same, with `Retry-After` | at least that long, at most 1 h |
//! | every other status, redirects included | dead letter |
//! | a retry when all attempts are used up | dead letter |

use super::circuit::Health;
use std::time::{Duration, SystemTime};

/// Upper bound of the wait before the second attempt.
const BASE: Duration = Duration::from_secs(2);
/// What the bound is multiplied with for each further attempt: twelve attempts then outlast a runner that is away for
/// an hour or two, because nobody else sends the event again.
const FACTOR: u32 = 3;
/// The longest wait that Bellhop chooses by itself.
const CAP: Duration = Duration::from_secs(3600);
/// The longest wait that a runner can ask for.
const RETRY_AFTER_CAP: Duration = Duration::from_secs(3600);

/// What an attempt met.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The runner answered.
    Answered {
        /// Its HTTP status.
        status: u16,
        /// What it asked for in `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// No connection, or no answer in time.
    NoAnswer,
}

impl Outcome {
    /// What it says of the runner: one that refuses an event is there.
    pub(super) fn health(&self) -> Health {
        match self {
            Outcome::NoAnswer | Outcome::Answered { status: 500..=599, .. } => Health::Fails,
            Outcome::Answered { .. } => Health::Answers,
        }
    }
}

/// What follows an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The runner took it.
    Delivered,
    /// Another attempt, after this time.
    Retry(Duration),
    /// No other attempt, for this reason.
    Dead(String),
}

/// Decides what follows an attempt.
///
/// `attempt` counts from 1 and includes the one that just ended; `jitter` is a random number from 0 to 1, which spreads
/// the retries of many deliveries that failed at the same moment.
pub fn verdict(outcome: &Outcome, attempt: u32, max_attempts: u32, jitter: f64) -> Verdict {
    let retry_after = match outcome {
        Outcome::Answered { status: 200..=299, .. } => return Verdict::Delivered,
        Outcome::Answered { status: 408 | 429 | 500..=599, retry_after } => *retry_after,
        Outcome::Answered { status: status @ 300..=399, .. } => {
            return Verdict::Dead(format!("the runner answered {status}; redirects are not followed"));
        }
        Outcome::Answered { status, .. } => return Verdict::Dead(format!("the runner answered {status}")),
        Outcome::NoAnswer => None,
    };
    if attempt >= max_attempts {
        return Verdict::Dead(format!("attempt {attempt} of {max_attempts} failed"));
    }
    let bound = BASE.saturating_mul(FACTOR.saturating_pow(attempt.saturating_sub(1))).min(CAP);
    let chosen = bound.mul_f64(jitter.clamp(0.0, 1.0));
    Verdict::Retry(chosen.max(retry_after.unwrap_or_default().min(RETRY_AFTER_CAP)))
}

/// Reads a `Retry-After` header: seconds, or an HTTP date. What is neither, or is past, asks for nothing.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_CAP));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    date.duration_since(now).ok().map(|wait| wait.min(RETRY_AFTER_CAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after: None }
    }

    #[test]
    fn statuses() {
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(verdict(&answered(status), 1, 12, 0.5), Verdict::Delivered, "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(verdict(&answered(status), 1, 12, 0.5), Verdict::Retry(_)), "{status}");
        }
        for status in [100, 301, 302, 307, 400, 401, 403, 404, 410, 422, 600] {
            assert!(matches!(verdict(&answered(status), 1, 12, 0.5), Verdict::Dead(_)), "{status}");
        }
        assert!(matches!(verdict(&Outcome::NoAnswer, 1, 12, 0.5), Verdict::Retry(_)));
    }

    #[test]
    fn waits_grow_up_to_an_hour() {
        let longest = |attempt| match verdict(&Outcome::NoAnswer, attempt, 100, 1.0) {
            Verdict::Retry(after) => after.as_secs(),
            other => panic!("{other:?}"),
        };
        let waits: Vec<u64> = (1..=12).map(longest).collect();
        assert_eq!(waits, [2, 6, 18, 54, 162, 486, 1458, 3600, 3600, 3600, 3600, 3600]);
        assert_eq!(longest(99), 3600);
        assert_eq!(verdict(&Outcome::NoAnswer, 3, 12, 0.5), Verdict::Retry(Duration::from_secs(9)));
        assert_eq!(verdict(&Outcome::NoAnswer, 5, 12, f64::NAN.max(0.0)), Verdict::Retry(Duration::ZERO));
    }

    #[test]
    fn the_last_attempt_is_the_last() {
        assert!(matches!(verdict(&answered(503), 11, 12, 0.5), Verdict::Retry(_)));
        assert_eq!(verdict(&answered(503), 12, 12, 0.5), Verdict::Dead("attempt 12 of 12 failed".into()));
        assert!(matches!(verdict(&Outcome::NoAnswer, 1, 1, 0.5), Verdict::Dead(_)));
        assert_eq!(verdict(&answered(200), 12, 12, 0.5), Verdict::Delivered);
    }

    #[test]
    fn a_runner_may_ask_for_time() {
        let asked = |seconds| Outcome::Answered { status: 429, retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(verdict(&asked(30), 1, 12, 1.0), Verdict::Retry(Duration::from_secs(30)));
        assert_eq!(verdict(&asked(0), 3, 12, 1.0), Verdict::Retry(Duration::from_secs(18)));
        assert_eq!(verdict(&asked(86_400), 1, 12, 1.0), Verdict::Retry(Duration::from_secs(3600)));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let cases = [
            ("120", Some(120)),
            (" 5 ", Some(5)),
            ("999999999999", Some(3600)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
            ("Fri, 21 Oct 2016 07:28:30 GMT", Some(3600)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", None),
            ("soon", None),
            ("-1", None),
            ("", None),
        ];
        for (value, seconds) in cases {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
