//! How long an external system asks to be left alone, as the headers of its answers say. Pure.
//!
//! There is no one standard. Read are: `Retry-After` (RFC 9110, section 10.2.3) in both of its forms, and with the
//! fraction that Shopify sends; `RateLimit` of the IETF's draft "RateLimit header fields for HTTP" in its two spellings;
//! and the pairs of [`PAIRS`], of which each vendor has chosen one.

use http::HeaderMap;
use k8s_openapi::jiff::Timestamp;
use std::time::{Duration, SystemTime};

/// The longest pause that is kept to. What asks for more is asked again after it.
const LONGEST: Duration = Duration::from_secs(3600);

/// Header with the number of calls that are left, and the header that says when there are more.
///
/// - the IETF's draft before version 7; GitLab, which gives a point in time
/// - GitHub and many others; Jira gives its point in time in RFC 3339
/// - Discord, in seconds with a fraction
/// - Linear, in milliseconds since 1970
/// - Twitter, Okta
const PAIRS: [(&str, &str); 5] = [
    ("ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset-after"),
    ("x-ratelimit-requests-remaining", "x-ratelimit-requests-reset"),
    ("x-rate-limit-remaining", "x-rate-limit-reset"),
];

/// A wish to be left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// For how long, at most an hour.
    pub length: Duration,
    /// The header that says so.
    pub header: &'static str,
}

/// The longest pause that an answer asks for.
///
/// `Retry-After` counts from status 400 on; before that, it says when the result of an accepted request is worth a look.
/// Every other header counts if no call is left, whatever the status; with 429 also if it does not say how many are left.
/// What cannot be read is taken for nothing.
pub fn pause(status: u16, headers: &HeaderMap, now: SystemTime) -> Option<Pause> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let mut wishes = Vec::new();
    let mut wish = |length: Option<Duration>, header| {
        // Nothing is left alone for no time.
        if let Some(length) = length.filter(|length| !length.is_zero()) {
            wishes.push(Pause { length: length.min(LONGEST), header });
        }
    };
    if status >= 400 {
        wish(text("retry-after").and_then(|value| until(value, now)), "Retry-After");
    }
    for (remaining, reset) in PAIRS {
        let used_up = match text(remaining) {
            Some(left) => left.parse::<f64>().is_ok_and(|left| left < 1.0),
            None => status == 429,
        };
        if used_up {
            wish(text(reset).and_then(|value| until(value, now)), reset);
        }
    }
    wish(text("ratelimit").and_then(structured), "ratelimit");
    wishes.into_iter().max_by_key(|pause| pause.length)
}

/// A number of seconds from now, a number of seconds or milliseconds since 1970 (so large that it can be nothing else), an
/// HTTP date or an RFC 3339 one.
fn until(value: &str, now: SystemTime) -> Option<Duration> {
    let at = |time: SystemTime| time.duration_since(now).ok();
    let since_1970 = |length: Duration| at(SystemTime::UNIX_EPOCH.checked_add(length)?);
    if let Ok(number) = value.parse::<f64>() {
        let length = Duration::try_from_secs_f64(number).ok()?;
        return match number {
            1e12.. => since_1970(length / 1000),
            1e9.. => since_1970(length),
            _ => Some(length),
        };
    }
    if let Ok(date) = httpdate::parse_http_date(value) {
        return at(date);
    }
    at(SystemTime::from(value.parse::<Timestamp>().ok()?))
}

/// `"default";r=0;t=30, "day";r=900;t=3600`, or as it was before: `limit=100, remaining=0, reset=30`.
fn structured(value: &str) -> Option<Duration> {
    let number = |part: &str, name: &str| part.trim().strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok();
    let reset_of = |parts: &[&str], remaining: &str, reset: &str| {
        let left = parts.iter().find_map(|part| number(part, remaining))?;
        let seconds = parts.iter().find_map(|part| number(part, reset))?;
        (left == 0).then(|| Duration::from_secs(seconds))
    };
    let items: Vec<&str> = value.split(',').collect();
    let old = reset_of(&items, "remaining", "reset");
    let new = items.iter().filter_map(|item| reset_of(&item.split(';').collect::<Vec<_>>(), "r", "t"));
    new.chain(old).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    /// 2026-07-01T12:00:00Z
    const NOW: u64 = 1_782_907_200;

    fn asked(status: u16, headers: &[(&'static str, &str)]) -> Option<(u64, &'static str)> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        pause(status, &headers, now).map(|pause| (u64::try_from(pause.length.as_millis()).unwrap(), pause.header))
    }

    #[test]
    fn both_forms_of_retry_after_are_kept_to_up_to_an_hour() {
        let after = |value| asked(429, &[("retry-after", value)]).map(|(millis, _)| millis);
        assert_eq!(after("30"), Some(30_000));
        assert_eq!(after(" 2.5 "), Some(2_500), "Shopify");
        assert_eq!(after("Wed, 01 Jul 2026 12:01:40 GMT"), Some(100_000));
        assert_eq!(after("Wednesday, 01-Jul-26 12:01:40 GMT"), Some(100_000), "the obsolete form of RFC 850");
        assert_eq!(after("86400"), Some(3_600_000));
        for nothing in ["Wed, 01 Jul 2026 11:00:00 GMT", "0", "-5", "soon", "", "NaN", "inf", "1e400"] {
            assert_eq!(after(nothing), None, "{nothing:?}");
        }
        assert_eq!(asked(503, &[("retry-after", "7")]), Some((7_000, "Retry-After")));
        assert_eq!(asked(202, &[("retry-after", "7")]), None, "this is about the result, not about a limit");
    }

    #[test]
    fn what_vendors_say_of_their_limits_is_understood() {
        let in_a_minute = (NOW + 60).to_string();
        let in_a_minute_millis = ((NOW + 60) * 1000).to_string();
        for (headers, header) in [
            ([("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", in_a_minute.as_str())], "x-ratelimit-reset"),
            ([("ratelimit-remaining", "0"), ("ratelimit-reset", &in_a_minute)], "ratelimit-reset"),
            ([("ratelimit-remaining", "0"), ("ratelimit-reset", "60")], "ratelimit-reset"),
            ([("x-ratelimit-remaining", "0"), ("x-ratelimit-reset-after", "60.0")], "x-ratelimit-reset-after"),
            ([("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2026-07-01T12:01Z")], "x-ratelimit-reset"),
            ([("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "2026-07-01T12:01:00Z")], "x-ratelimit-reset"),
            (
                [("x-ratelimit-requests-remaining", "0"), ("x-ratelimit-requests-reset", &in_a_minute_millis)],
                "x-ratelimit-requests-reset",
            ),
            ([("x-rate-limit-remaining", "0"), ("x-rate-limit-reset", &in_a_minute)], "x-rate-limit-reset"),
        ] {
            for status in [200, 403, 429] {
                assert_eq!(asked(status, &headers), Some((60_000, header)), "{status} {headers:?}");
            }
        }
        for value in ["\"default\";r=0;t=60", "\"a\";r=9;t=900, \"b\";r=0;t=60", "limit=100, remaining=0, reset=60"] {
            assert_eq!(asked(200, &[("ratelimit", value)]), Some((60_000, "ratelimit")), "{value}");
        }
    }

    #[test]
    fn whoever_has_calls_left_is_not_held_up() {
        let reset = (NOW + 60).to_string();
        assert_eq!(asked(200, &[("x-ratelimit-remaining", "1"), ("x-ratelimit-reset", &reset)]), None);
        assert_eq!(asked(200, &[("x-ratelimit-reset", &reset)]), None);
        assert_eq!(asked(200, &[("x-ratelimit-remaining", "none"), ("x-ratelimit-reset", &reset)]), None);
        assert_eq!(asked(200, &[("ratelimit", "\"default\";r=3;t=60")]), None);
        assert_eq!(asked(429, &[("x-ratelimit-reset", &reset)]).map(|(millis, _)| millis), Some(60_000));
        // Of several wishes, the longest.
        let both = [("retry-after", "5"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)];
        assert_eq!(asked(403, &both).map(|(millis, _)| millis), Some(60_000));
    }
}
