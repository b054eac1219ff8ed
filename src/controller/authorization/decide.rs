//! What an authorization needs next, decided from what is stored and the time, without I/O. Times are Unix milliseconds.

use super::record::{AuthorizationRecord, Grant, Link, Problem, ProblemKind, TokenFailure};
use crate::api::{OAuth2Grant, reason, type_};
use crate::controller::Blocked;
use crate::plugin::{Secret, Token};
use std::time::Duration;

/// How long a link works.
pub const LINK_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long a person has for the external system's own pages.
pub const FLOW_LIFE: Duration = Duration::from_secs(600);
/// How long a token request that was begun is waited for before another one is made; a call takes 60 seconds at most.
pub(super) const REQUEST_PATIENCE: Duration = Duration::from_secs(75);
/// Pause before a client that is refused, or may not be used, is tried again; most likely a person has to mend it.
pub(super) const CLIENT_PATIENCE: Duration = Duration::from_secs(300);
/// The shortest time between two tokens, whatever life the external system gives them.
const MIN_PAUSE: Duration = Duration::from_secs(5);
/// How long before its end a long-lived access token is replaced, at least.
const MARGIN: Duration = Duration::from_secs(300);
/// First and longest pause between two failures to get a token.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// How soon the refusal of an access token may lead to another token; more often, it is not the token's age.
const DOUBT: Duration = Duration::from_secs(600);

/// What has to be done before calls can be made.
#[derive(Clone, Debug)]
pub enum Next {
    /// Nothing: calls can be made with this access token.
    Ready(Secret),
    /// A client has to be chosen.
    NeedsClient,
    /// A person has to consent. `new_link`: there is no link that works.
    NeedsConsent {
        /// Whether a link has to be made first.
        new_link: bool,
    },
    /// The grant is over; a person has to consent again.
    Expired {
        /// Whether a link has to be made first.
        new_link: bool,
    },
    /// The next access token has to be got with the refresh token.
    Refresh,
    /// An access token has to be got with the client alone.
    FetchClientCredentials,
    /// There is no access token that works, and it is too early for the next attempt to get one.
    Waiting {
        /// When the next attempt may be made.
        until: i64,
    },
}

/// Decides what an authorization needs next. `kind` is the plugin's grant.
pub fn next(record: &AuthorizationRecord, kind: OAuth2Grant, now: i64) -> Next {
    if record.client.is_none() {
        return Next::NeedsClient;
    }
    let new_link = !record.link.as_ref().is_some_and(|link| link.works(now));
    let fetch = match kind {
        OAuth2Grant::AuthorizationCode => Next::Refresh,
        OAuth2Grant::ClientCredentials => Next::FetchClientCredentials,
    };
    let until = not_before(record);
    let Some(grant) = &record.grant else {
        return match kind {
            OAuth2Grant::AuthorizationCode => Next::NeedsConsent { new_link },
            OAuth2Grant::ClientCredentials if now < until => Next::Waiting { until },
            OAuth2Grant::ClientCredentials => fetch,
        };
    };
    if kind == OAuth2Grant::AuthorizationCode && grant.ended {
        return Next::Expired { new_link };
    }
    let works = grant.works(now);
    let renewable = kind == OAuth2Grant::ClientCredentials || grant.refresh_token.is_some();
    let due = !works || grant.refresh_at.is_some_and(|at| now >= at);
    match (works, renewable) {
        (_, true) if due && now >= until => fetch,
        (true, _) => Next::Ready(Secret::from(grant.access_token.clone())),
        (false, true) => Next::Waiting { until },
        (false, false) => Next::Expired { new_link },
    }
}

/// How long nothing changes by itself: until a token is to be refreshed, a link ends, an attempt may be repeated.
/// Nothing: for ever.
pub fn due(record: &AuthorizationRecord, kind: OAuth2Grant, now: i64) -> Option<Duration> {
    let grant = record.grant.as_ref();
    let at = match next(record, kind, now) {
        Next::NeedsClient => None,
        Next::Refresh | Next::FetchClientCredentials => Some(now),
        Next::Waiting { until } => Some(until),
        Next::NeedsConsent { .. } | Next::Expired { .. } => record.link.as_ref().map(|link| link.expires_at),
        Next::Ready(_) => {
            // Where an attempt was made too early, or has failed, the next one is not before its time.
            let refresh = grant.and_then(|grant| grant.refresh_at).map(|at| at.max(not_before(record)));
            [refresh, grant.and_then(|grant| grant.expires_at)].into_iter().flatten().min()
        }
    };
    at.map(|at| Duration::from_millis(u64::try_from(at - now).unwrap_or(0)))
}

/// Why an authorization that still works may end, in words: the condition Expiring.
pub fn expiring(record: &AuthorizationRecord, now: i64) -> Option<String> {
    let (grant, failure) = (record.grant.as_ref()?, record.failure.as_ref()?);
    (grant.works(now) && !grant.ended).then(|| {
        let end = match grant.expires_at {
            Some(end) => format!("in {} s", (end - now) / 1000),
            None => "at a time that the external system has not told".to_owned(),
        };
        format!("the access token ends {end} and no new one could be got so far: {}", failure.message)
    })
}

/// What a Subscription says while a person has to consent. `url` is the link.
pub fn consent_needed(record: &AuthorizationRecord, url: &str) -> Blocked {
    let open = format!("open {url} in a browser (it is in status.authorization.url)");
    let Some(problem) = &record.problem else {
        if record.grant.is_some() {
            let message = format!("the access token is no good any more; to consent again, {open}");
            return Blocked::stalled(type_::AUTHORIZED, reason::AUTHORIZATION_EXPIRED, message);
        }
        let message = format!("nobody has consented yet; {open}");
        return Blocked::waiting(type_::AUTHORIZED, reason::AUTHORIZATION_REQUIRED, message);
    };
    let (reason, message) = (problem.kind.reason(), format!("{}; to consent, {open}", problem.message));
    match problem.kind {
        // Nobody has said no: whoever is at it may try again at once.
        ProblemKind::NoToken => Blocked::waiting(type_::AUTHORIZED, reason, message),
        _ => Blocked::stalled(type_::AUTHORIZED, reason, message),
    }
}

/// What a Subscription says while there is no access token and the next attempt has to wait.
pub fn no_token(record: &AuthorizationRecord, until: i64, now: i64) -> Blocked {
    let (reason, message) = match (&record.problem, &record.failure) {
        (Some(problem), _) => (problem.kind.reason(), problem.message.clone()),
        (None, Some(failure)) => (reason::EXTERNAL_SYSTEM_FAILED, failure.message.clone()),
        (None, None) => (reason::PROGRESSING, "an access token is being asked for".to_owned()),
    };
    let wait = Duration::from_millis(u64::try_from(until - now).unwrap_or(0));
    Blocked { retry_after: Some(wait), ..Blocked::retrying(type_::AUTHORIZED, reason, message) }
}

/// When the next token request may be made.
fn not_before(record: &AuthorizationRecord) -> i64 {
    let begun = record.refreshing_since.map(|since| after(since, REQUEST_PATIENCE));
    let failed = record.failure.as_ref().map(|failure| failure.retry_at);
    let obtained = record.grant.as_ref().map(|grant| after(grant.obtained_at, MIN_PAUSE));
    [begun, failed, obtained].into_iter().flatten().max().unwrap_or(i64::MIN)
}

/// When an access token with this life is replaced. `jitter` is between 0 and 1, so that tokens which were got together
/// are not replaced together.
fn refresh_at(now: i64, life: Duration, jitter: f64) -> i64 {
    // A tenth of the life and no less than five minutes before the end; of a short life, at two thirds.
    let margin = MARGIN.max(life / 10).min(life / 3);
    after(now, life.saturating_sub(margin).saturating_sub(margin.mul_f64(jitter.clamp(0.0, 1.0) / 5.0)))
}

/// `pause` after `at`.
pub fn after(at: i64, pause: Duration) -> i64 {
    at.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))
}

impl Link {
    /// Whether it still works.
    pub fn works(&self, now: i64) -> bool {
        now < self.expires_at
    }
}

impl Grant {
    /// Whether calls can be made with its access token, as far as is known.
    pub fn works(&self, now: i64) -> bool {
        !self.refused && self.expires_at.is_none_or(|end| now < end)
    }
}

impl AuthorizationRecord {
    /// Takes what a token request has given. A refresh token that is not replaced stays.
    ///
    /// `jitter` is between 0 and 1.
    pub fn granted(&mut self, tokens: &Token, now: i64, jitter: f64) {
        let text = |secret: &Secret| secret.expose_str().unwrap_or_default().to_owned();
        // Some systems write 0 where they mean that a token does not end.
        let life = tokens.expires_in.filter(|life| !life.is_zero());
        let kept = self.grant.take().and_then(|grant| grant.refresh_token);
        self.grant = Some(Grant {
            access_token: text(&tokens.access_token),
            refresh_token: tokens.refresh_token.as_ref().map(text).or(kept),
            obtained_at: now,
            expires_at: life.map(|life| after(now, life)),
            refresh_at: life.map(|life| refresh_at(now, life, jitter)),
            refused: false,
            ended: false,
        });
        (self.link, self.flow, self.problem, self.failure, self.refreshing_since) = (None, None, None, None, None);
    }

    /// Takes the outcome of a consent: as [`granted`](Self::granted), but nothing of an earlier grant stays.
    pub fn consented(&mut self, tokens: &Token, now: i64, jitter: f64) {
        (self.grant, self.doubted_at) = (None, None);
        self.granted(tokens, now, jitter);
    }

    /// Notes that no token could be got, and when it is tried again. `retry_after` is what the external system asks for.
    pub fn token_failed(&mut self, message: String, now: i64, retry_after: Option<Duration>) {
        let attempts = self.failure.as_ref().map_or(0, |failure| failure.attempts).saturating_add(1);
        let (first, longest) = BACKOFF;
        let pause = first.saturating_mul(2u32.saturating_pow(attempts - 1)).min(longest);
        let pause = pause.max(retry_after.unwrap_or_default());
        self.failure = Some(TokenFailure { message, attempts, retry_at: after(now, pause) });
        self.refreshing_since = None;
    }

    /// Notes that the external system gives no more access tokens for this grant.
    pub fn grant_ended(&mut self, message: String) {
        if let Some(grant) = &mut self.grant {
            grant.ended = true;
        }
        self.problem = Some(Problem { kind: ProblemKind::Expired, message });
        (self.failure, self.refreshing_since) = (None, None);
    }

    /// Notes that the external system has refused a call with this access token (401): either it gives another one, or the
    /// grant is over. Says whether that changes anything; if not, another pass would not help either.
    ///
    /// A call that is refused for another reason than the token's age is refused again, so this is believed once in ten
    /// minutes.
    pub fn doubt(&mut self, access_token: &str, now: i64) -> bool {
        let lately = self.doubted_at.is_some_and(|at| now < after(at, DOUBT));
        let Some(grant) = self.grant.as_mut().filter(|grant| grant.access_token == access_token) else { return false };
        if grant.refused || lately {
            return false;
        }
        grant.refused = true;
        self.doubted_at = Some(now);
        true
    }

    /// Makes a link if there is none that works; says whether it did.
    pub fn ensure_link(&mut self, now: i64) -> bool {
        if self.link.as_ref().is_some_and(|link| link.works(now)) {
            return false;
        }
        self.link = Some(Link { secret: super::random_text(), expires_at: after(now, LINK_LIFE) });
        true
    }
}
