//! When the keys of one place are fetched again. No I/O, no clock.

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};
use std::time::Duration;
use tokio::time::Instant;

/// How long keys are used without a word about it.
const USUAL: Duration = Duration::from_secs(3600);
/// The shortest and the longest time that a Cache-Control can ask for.
const SHORTEST: Duration = Duration::from_secs(300);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The shortest time between two calls that tokens with unknown keys can bring about, which anybody can send.
const ON_DEMAND: Duration = Duration::from_secs(30);
/// The first pause after a failure; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// What is known of one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// When it was called last.
    called: Option<Instant>,
    /// When it has to be called again.
    next: Option<Instant>,
    failures: u32,
    /// Whether a token named a key that is not among those that are known.
    missed: bool,
}

impl Place {
    /// Whether it is time for a call.
    pub fn is_due(&self, now: Instant) -> bool {
        let missed = self.missed && self.called.is_none_or(|called| now >= called + ON_DEMAND);
        missed || self.next.is_none_or(|next| now >= next)
    }

    /// Notes that a key is missed.
    pub fn miss(&mut self) {
        self.missed = true;
    }

    /// Notes that keys were fetched, which count for as long as these headers say.
    pub fn fetched(&mut self, now: Instant, headers: &HeaderMap) {
        *self = Self { called: Some(now), next: Some(now + life(headers)), failures: 0, missed: false };
    }

    /// Notes that they could not be fetched; those that are known stay.
    pub fn failed(&mut self, now: Instant, retry_after: Option<Duration>) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(7)).min(LONGEST_PAUSE);
        let pause = pause.max(retry_after.unwrap_or_default());
        let failures = self.failures.saturating_add(1);
        *self = Self { called: Some(now), next: Some(now + pause), failures, missed: false };
    }

    /// Whether the last call failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

/// `max-age` (RFC 9111, section 5.2.2.1) without the time that the answer has been in caches, within bounds.
fn life(headers: &HeaderMap) -> Duration {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let directives = text(CACHE_CONTROL).unwrap_or_default().split(',').map(str::trim);
    let mut max_age = directives.filter_map(|directive| {
        let (name, value) = directive.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then(|| value.trim_matches('"').parse::<u64>().ok())?
    });
    let age = text(AGE).and_then(|age| age.trim().parse().ok()).unwrap_or(0);
    max_age
        .next_back()
        .map_or(USUAL, |seconds| Duration::from_secs(seconds.saturating_sub(age)).clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn keys_live_as_long_as_their_headers_say_within_bounds() {
        for (pairs, seconds) in [
            (&[][..], 3600),
            (&[("cache-control", "public, max-age=19000, must-revalidate")], 19_000),
            (&[("cache-control", "Max-Age=\"7200\"")], 7200),
            (&[("cache-control", "public, max-age=19000"), ("age", "9000")], 10_000),
            (&[("cache-control", "max-age=100"), ("age", "9000")], 300),
            (&[("cache-control", "no-store, max-age=0")], 300),
            (&[("cache-control", "max-age=99999999999")], 86_400),
            (&[("cache-control", "s-maxage=5, max-age=much")], 3600),
        ] {
            assert_eq!(life(&headers(pairs)), Duration::from_secs(seconds), "{pairs:?}");
        }
    }

    #[test]
    fn a_missed_key_is_fetched_soon_and_seldom() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut place = Place::default();
        assert!(place.is_due(begin));
        place.fetched(begin, &HeaderMap::new());
        assert!(!place.is_due(begin + 3599 * second) && place.is_due(begin + 3600 * second));
        // Soon, but not again within half a minute, however many tokens come.
        place.miss();
        assert!(!place.is_due(begin + 29 * second) && place.is_due(begin + 30 * second));
        place.fetched(begin + 60 * second, &HeaderMap::new());
        assert!(!place.is_due(begin + 200 * second));
        place.miss();
        assert!(place.is_due(begin + 200 * second));
    }

    #[test]
    fn after_failures_the_pauses_grow() {
        let begin = Instant::now();
        let mut place = Place::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            place.failed(begin, None);
            pauses.push((place.next.unwrap() - begin).as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        place.failed(begin, Some(Duration::from_secs(900)));
        assert_eq!((place.next.unwrap() - begin).as_secs(), 900);
        assert!(place.is_failing());
        place.fetched(begin, &HeaderMap::new());
        place.failed(begin, None);
        assert_eq!((place.next.unwrap() - begin).as_secs(), 5);
    }
}
