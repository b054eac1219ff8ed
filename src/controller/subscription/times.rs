//! When something is due for a Subscription that is set up: plain arithmetic on milliseconds since the Unix epoch.
//!
//! What is spread over time is spread by UIDs, which are random: the same at each look, and different for each webhook.

use crate::controller::custody::WebhookRecord;
use std::time::Duration;
use uuid::Uuid;

/// How long the secret of a webhook that was made by hand is accepted after there is a new one: a person has to enter it.
pub const MANUAL_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a webhook that was replaced goes on beside the new one: what happened just before the new one was there is on
/// its way from the old one, and some systems drop it when they delete the webhook. An event in between comes from both.
pub const OVERLAP: Duration = Duration::from_secs(5);

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A number from 0 to 1 (exclusive) that belongs to this UID.
fn fraction(uid: Uuid) -> f64 {
    let [a, b, c, d, ..] = uid.into_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

/// Part of a span.
fn part(span: i64, factor: f64) -> i64 {
    Duration::from_millis(u64::try_from(span).unwrap_or(0)).mul_f64(factor).as_millis().try_into().unwrap_or(i64::MAX)
}

/// When a webhook should be renewed: at two thirds of its life, plus or minus a twentieth of it.
pub fn renewal(record: &WebhookRecord) -> Option<i64> {
    let life = record.life()?;
    Some(record.renewed_at.saturating_add(part(life, 2.0 / 3.0 + (fraction(record.attempt) - 0.5) / 10.0)))
}

/// From when on people should know that a webhook was not renewed: in the last sixth of its life.
pub fn alarming(record: &WebhookRecord) -> Option<i64> {
    Some(record.expires_at? - record.life()? / 6)
}

/// When the external system should be looked at again, the last look having been at `last`.
///
/// The looks of a Subscription are at fixed times, an interval apart, which do not depend on when a controller started:
/// nothing has to be stored, and one that is restarted does not look at everything at once. Between two looks is half of
/// an interval at least.
pub fn next_look(last: i64, interval: Duration, uid: Uuid) -> i64 {
    let interval = millis(interval).max(1);
    let phase = part(interval, fraction(uid));
    let earliest = last.saturating_add(interval / 2);
    let behind = (earliest - phase).rem_euclid(interval);
    if behind == 0 { earliest } else { earliest.saturating_add(interval - behind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::custody::WebhookState;

    const HOUR: i64 = 3_600_000;

    fn record(attempt: u128, renewed_at: i64, expires_at: i64) -> WebhookRecord {
        WebhookRecord {
            attempt: Uuid::from_u128(attempt),
            state: WebhookState::Registered { id: "1".into() },
            renewed_at,
            expires_at: Some(expires_at),
            ..WebhookRecord::creating(None)
        }
    }

    #[test]
    fn webhooks_are_renewed_at_two_thirds_of_their_life_and_not_all_at_once() {
        let dues: Vec<i64> = (0..=255u128).map(|n| renewal(&record(n << 120, 0, 300 * HOUR)).unwrap()).collect();
        let (least, most) = (dues.iter().min().unwrap(), dues.iter().max().unwrap());
        assert!(*least >= 185 * HOUR && *most <= 215 * HOUR, "{least} to {most}");
        assert!(most - least > 28 * HOUR, "spread over a tenth of the life");
        assert_eq!(renewal(&WebhookRecord::creating(None)), None);
        assert_eq!(alarming(&record(1, 0, 300 * HOUR)), Some(250 * HOUR));
        // A clock that was set back makes no negative life.
        assert!(renewal(&record(1, 10, 5)).is_some());
    }

    #[test]
    fn looks_are_an_interval_apart_whenever_the_controller_started() {
        let (interval, uid) = (Duration::from_secs(3600), Uuid::from_u128(0x8000_0000 << 96));
        let first = next_look(1_000_000, interval, uid);
        let mut at = first;
        for _ in 0..100 {
            // A look takes a moment.
            let next = next_look(at + 250, interval, uid);
            assert_eq!(next - at, HOUR);
            at = next;
        }
        for start in (0..10 * HOUR).step_by(777_777) {
            let next = next_look(start, interval, uid);
            assert_eq!((next - first).rem_euclid(HOUR), 0);
            assert!(next - start >= HOUR / 2 && next - start <= 3 * HOUR / 2, "{start}: {next}");
        }
        let other = next_look(1_000_000, interval, Uuid::from_u128(0x4000_0000 << 96));
        assert_eq!((first - other).rem_euclid(HOUR), HOUR / 4);
    }
}
