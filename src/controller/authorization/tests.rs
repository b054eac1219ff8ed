//! The decisions on simulated time.

use super::*;
use crate::api::{OAuth2Grant, reason};
use crate::plugin::{Secret, Token};
use std::time::Duration;

const CODE: OAuth2Grant = OAuth2Grant::AuthorizationCode;
const CLIENT: OAuth2Grant = OAuth2Grant::ClientCredentials;
const NOON: i64 = 1_800_000_000_000;
const SECOND: i64 = 1000;
const HOUR: i64 = 3600 * SECOND;

fn pinned() -> AuthorizationRecord {
    AuthorizationRecord { client: Some(PinnedClient::PluginDefault), ..AuthorizationRecord::default() }
}

fn tokens(access: &str, refresh: Option<&str>, life: Option<u64>) -> Token {
    Token {
        access_token: Secret::from(access),
        refresh_token: refresh.map(Secret::from),
        expires_in: life.map(Duration::from_secs),
    }
}

fn granted(refresh: Option<&str>, life: Option<u64>) -> AuthorizationRecord {
    let mut record = pinned();
    record.ensure_link(NOON);
    record.consented(&tokens("a1", refresh, life), NOON, 0.0);
    record
}

fn is_ready(record: &AuthorizationRecord, now: i64) -> bool {
    matches!(next(record, CODE, now), Next::Ready(token) if token.expose() == b"a1")
}

#[test]
fn a_client_then_a_link_then_a_consent_then_a_token() {
    let mut record = AuthorizationRecord::default();
    assert!(matches!(next(&record, CODE, NOON), Next::NeedsClient));
    record.client = Some(PinnedClient::PluginDefault);
    assert!(matches!(next(&record, CODE, NOON), Next::NeedsConsent { new_link: true }));
    assert!(record.ensure_link(NOON) && !record.ensure_link(NOON));
    assert!(matches!(next(&record, CODE, NOON), Next::NeedsConsent { new_link: false }));
    assert_eq!(due(&record, CODE, NOON), Some(LINK_LIFE));
    let old = record.link.clone();
    // A link works for a day; then there is another one.
    assert!(matches!(next(&record, CODE, NOON + 24 * HOUR), Next::NeedsConsent { new_link: true }));
    assert!(record.ensure_link(NOON + 24 * HOUR) && record.link != old);
    record.consented(&tokens("a1", None, None), NOON, 0.5);
    assert!(is_ready(&record, NOON) && record.link.is_none());
    // A token without an end needs nothing, ever.
    assert_eq!(due(&record, CODE, NOON + 10_000 * HOUR), None);
}

#[test]
fn tokens_are_replaced_before_they_end() {
    for (life, jitter, expected) in [
        // five minutes before, or a tenth, or at two thirds of a short life
        (3600, 0.0, 3600 - 360),
        (1800, 0.0, 1800 - 300),
        (600, 0.0, 400),
        (30, 0.0, 20),
        (3600, 1.0, 3600 - 360 - 72),
    ] {
        let mut record = pinned();
        record.consented(&tokens("a1", Some("r1"), Some(life)), NOON, jitter);
        let at = NOON + expected * SECOND;
        assert_eq!(due(&record, CODE, NOON), Some(Duration::from_secs(expected as u64)), "life {life}");
        assert!(is_ready(&record, at - 1), "life {life}");
        assert!(matches!(next(&record, CODE, at), Next::Refresh), "life {life}");
    }
}

#[test]
fn without_a_refresh_token_the_end_of_the_token_is_the_end_of_the_grant() {
    let record = granted(None, Some(3600));
    assert!(is_ready(&record, NOON + HOUR - 1));
    assert!(matches!(next(&record, CODE, NOON + HOUR), Next::Expired { new_link: true }));
    let blocked = consent_needed(&record, "https://hooks.example.com/oauth/start/x");
    assert_eq!(blocked.reason, reason::AUTHORIZATION_EXPIRED);
}

#[test]
fn a_refresh_that_fails_is_repeated_with_growing_pauses_while_the_token_works() {
    let mut record = granted(Some("r1"), Some(3600));
    let mut now = NOON + 3300 * SECOND;
    assert!(matches!(next(&record, CODE, now), Next::Refresh));
    let mut pauses = Vec::new();
    for _ in 0..5 {
        record.token_failed("git.example.com answered 502".into(), now, None);
        assert!(is_ready(&record, now), "the old token is still good");
        assert!(expiring(&record, now).is_some_and(|why| why.contains("502") && why.contains(" s and no new one")));
        let pause = due(&record, CODE, now).unwrap();
        pauses.push(pause.as_secs());
        now += pause.as_millis() as i64;
        assert!(matches!(next(&record, CODE, now), Next::Refresh));
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80]);
    // When the old token has ended, there is none until an attempt succeeds.
    record.token_failed("git.example.com answered 502".into(), NOON + HOUR, None);
    let Next::Waiting { until } = next(&record, CODE, NOON + HOUR) else { panic!("no token") };
    let blocked = no_token(&record, until, NOON + HOUR);
    assert_eq!((blocked.reason, blocked.retry), (reason::EXTERNAL_SYSTEM_FAILED, true));
    assert_eq!(blocked.retry_after, Some(Duration::from_secs(160)));
    assert!(expiring(&record, NOON + HOUR).is_none());
    for _ in 0..100 {
        record.token_failed("no".into(), NOON, None);
    }
    assert_eq!(record.failure.as_ref().unwrap().retry_at, NOON + 600 * SECOND);
    record.token_failed("no".into(), NOON, Some(Duration::from_secs(3600)));
    assert_eq!(record.failure.as_ref().unwrap().retry_at, NOON + HOUR);
    record.granted(&tokens("a2", None, Some(3600)), NOON, 0.0);
    assert_eq!((record.failure.as_ref(), record.grant.unwrap().refresh_token.as_deref()), (None, Some("r1")));
}

#[test]
fn a_token_request_that_is_under_way_is_not_made_twice() {
    let mut record = granted(Some("r1"), Some(3600));
    let now = NOON + 3500 * SECOND;
    record.refreshing_since = Some(now);
    assert!(is_ready(&record, now + 74 * SECOND));
    assert!(matches!(next(&record, CODE, now + 75 * SECOND), Next::Refresh));
}

#[test]
fn a_refused_refresh_token_ends_the_grant_at_once() {
    let mut record = granted(Some("r1"), Some(3600));
    record.grant_ended("git.example.com says invalid_grant".into());
    assert!(matches!(next(&record, CODE, NOON), Next::Expired { new_link: true }));
    assert_eq!(record.access_token(), Some("a1"), "deletion may still try it");
    record.ensure_link(NOON);
    assert_eq!(due(&record, CODE, NOON), Some(LINK_LIFE));
    let blocked = consent_needed(&record, "https://hooks.example.com/oauth/start/x");
    assert_eq!((blocked.reason, blocked.stalled), (reason::AUTHORIZATION_EXPIRED, true));
    assert!(blocked.message.contains("invalid_grant") && blocked.message.contains("/oauth/start/x"));
    // A new consent takes nothing over from the grant that is over.
    record.consented(&tokens("a1", None, None), NOON, 0.0);
    assert!(is_ready(&record, NOON) && record.grant.as_ref().unwrap().refresh_token.is_none());
}

#[test]
fn a_refused_access_token_is_replaced_once_and_not_in_a_circle() {
    let mut record = granted(Some("r1"), Some(3600));
    let now = NOON + 60 * SECOND;
    assert!(!record.doubt("another", now), "a token that was replaced meanwhile");
    assert!(record.doubt("a1", now) && !record.doubt("a1", now));
    assert!(matches!(next(&record, CODE, now), Next::Refresh));
    record.granted(&tokens("a2", Some("r2"), Some(3600)), now, 0.0);
    assert!(!record.doubt("a2", now + 599 * SECOND));
    assert!(record.doubt("a2", now + 600 * SECOND));
    // Without a refresh token, only a person can help.
    let mut record = granted(None, None);
    assert!(record.doubt("a1", now));
    assert!(matches!(next(&record, CODE, now), Next::Expired { .. }));
    assert_eq!(consent_needed(&record, "x").reason, reason::AUTHORIZATION_EXPIRED);
}

#[test]
fn a_client_that_acts_for_itself_needs_nobody() {
    let mut record = pinned();
    assert!(matches!(next(&record, CLIENT, NOON), Next::FetchClientCredentials));
    record.token_failed("no answer".into(), NOON, None);
    assert!(matches!(next(&record, CLIENT, NOON), Next::Waiting { until } if until == NOON + 5 * SECOND));
    record.granted(&tokens("a1", None, Some(3600)), NOON, 0.0);
    assert!(matches!(next(&record, CLIENT, NOON), Next::Ready(_)));
    assert!(matches!(next(&record, CLIENT, NOON + HOUR), Next::FetchClientCredentials));
}

#[test]
fn absurd_lives_make_no_hot_loop() {
    let record = granted(Some("r1"), Some(0));
    assert_eq!(due(&record, CODE, NOON), None, "0 means that it does not end");
    let record = granted(Some("r1"), Some(1));
    let Next::Waiting { until } = next(&record, CODE, NOON + 2 * SECOND) else { panic!("too early") };
    assert_eq!(until, NOON + 5 * SECOND);
    assert!(matches!(next(&record, CODE, until), Next::Refresh));
    let record = granted(Some("r1"), Some(u64::MAX));
    assert!(is_ready(&record, NOON + 10_000 * HOUR));
}

#[test]
fn what_a_person_has_to_do_is_said_with_the_link() {
    let mut record = pinned();
    let blocked = consent_needed(&record, "https://h/oauth/start/x");
    // Somebody is expected to click: in progress, not failed.
    assert_eq!((blocked.reason, blocked.stalled, blocked.retry), (reason::AUTHORIZATION_REQUIRED, false, false));
    assert!(blocked.message.contains("https://h/oauth/start/x"), "{}", blocked.message);
    for (kind, reason, stalled) in [
        (ProblemKind::ConsentRefused, reason::CONSENT_REFUSED, true),
        (ProblemKind::ClientRefused, reason::CREDENTIALS_REFUSED, true),
        (ProblemKind::NoToken, reason::EXTERNAL_SYSTEM_FAILED, false),
        (ProblemKind::Expired, reason::AUTHORIZATION_EXPIRED, true),
    ] {
        record.problem = Some(Problem { kind, message: "it was so".into() });
        let blocked = consent_needed(&record, "https://h/oauth/start/x");
        assert_eq!((blocked.reason, blocked.stalled), (reason, stalled));
        assert!(blocked.message.starts_with("it was so; ") && blocked.message.contains("/oauth/start/x"));
    }
}
