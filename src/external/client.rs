//! One HTTP client for all calls to external systems.

use super::address::{AddressPolicy, Reach};
use super::budget::{BudgetKey, Budgets};
use super::quota;
use crate::plugin::{HttpCall, HttpResponse, Secret, redact, words};
use anyhow::Context as _;
use bytes::BytesMut;
use reqwest::dns::Resolve;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect;
use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// The longest time that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes. Lists of webhooks are some ten kilobytes.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// The most redirects that are followed, all within one origin.
const MAX_REDIRECTS: usize = 5;

/// Why a call has not given what was asked for. Messages hold no secret that was part of the call.
#[derive(Debug, thiserror::Error)]
pub enum CallFailure {
    /// The administrator's rules do not allow the call; nothing was sent.
    #[error("{0}")]
    Forbidden(String),
    /// The call would have to wait for longer than a pass should; nothing was sent.
    #[error("{host} is not called for now: {why}")]
    Throttled {
        /// Host and port of the call.
        host: String,
        /// Why, in words that stay the same as long as the reason does.
        why: String,
        /// When another try makes sense.
        retry_after: Duration,
    },
    /// No whole answer arrived; whether the external system has acted is not known.
    #[error("{host} {why}")]
    NoAnswer {
        /// Host and port of the call.
        host: String,
        /// What happened, such as "could not be reached: …" with the chain of errors, in one line.
        why: String,
    },
    /// The external system said no.
    #[error("{host} answered {status}{words}")]
    Status {
        /// Host and port of the call.
        host: String,
        /// Status code.
        status: u16,
        /// The external system's own words, as ": …", or empty.
        words: String,
        /// The `error` of an answer about OAuth (RFC 6749, section 5.2).
        error: Option<String>,
        /// How long it wants to be left alone, at most an hour; see [`quota::pause`].
        retry_after: Option<Duration>,
    },
    /// The answer cannot be read: it is larger than 4 MiB, or compressed, which was not asked for. The external system
    /// may have acted.
    #[error("{host} sent {what}")]
    Unreadable {
        /// Host and port of the call.
        host: String,
        /// What it sent.
        what: String,
    },
}

impl CallFailure {
    /// The status code of an answer that was a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            CallFailure::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether it is certain that the external system has not been asked.
    pub fn nothing_was_sent(&self) -> bool {
        matches!(self, CallFailure::Forbidden(_) | CallFailure::Throttled { .. })
    }

    /// When another try makes sense, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            CallFailure::Throttled { retry_after, .. } => Some(*retry_after),
            CallFailure::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What the administrator says about calls to external systems.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which addresses may be called.
    pub addresses: AddressPolicy,
    /// Certificates of authorities that are believed in addition to those of the system.
    pub authorities: Vec<reqwest::Certificate>,
    /// The longest time that a call may take, from the connection to the last byte of the answer.
    pub timeout: Duration,
    /// The steady rate of calls of one plugin with one set of credentials.
    pub calls_per_second: f64,
}

/// Reads certificates of authorities from a file with one or more of them in PEM.
///
/// # Errors
/// A sentence that names the file.
pub fn read_authorities(file: &Path) -> anyhow::Result<Vec<reqwest::Certificate>> {
    let pem = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let found = reqwest::Certificate::from_pem_bundle(&pem)
        .with_context(|| format!("{} does not hold certificates in PEM", file.display()))?;
    anyhow::ensure!(
        !found.is_empty(),
        "{} holds no certificate; each begins with -----BEGIN CERTIFICATE-----",
        file.display()
    );
    // Whether they are certificates inside shows when a client is made of them.
    builder(found.clone()).build().with_context(|| format!("{} holds a certificate that is broken", file.display()))?;
    Ok(found)
}

fn builder(authorities: Vec<reqwest::Certificate>) -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_certs_merge(authorities)
}

/// Carries out calls.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    policy: AddressPolicy,
    budgets: Budgets,
    timeout: Duration,
}

impl Client {
    /// A client that calls only what `settings` allow.
    ///
    /// # Errors
    /// The TLS roots of the system cannot be read.
    pub fn new(settings: Settings) -> Result<Self, reqwest::Error> {
        let resolver = settings.addresses.resolver(Reach::Public);
        Self::resolving_with(settings, resolver)
    }

    pub(super) fn resolving_with(settings: Settings, resolver: Arc<dyn Resolve>) -> Result<Self, reqwest::Error> {
        let Settings { addresses, authorities, timeout, calls_per_second } = settings;
        let same_origin = redirect::Policy::custom(|attempt| {
            let first = attempt.previous().first().map(|url| url.origin());
            // Credentials must not follow to where the plugin did not send them, and the other statuses may turn a POST
            // into a GET, whose success would mean nothing: then the redirect is the answer.
            let same_call = matches!(attempt.status().as_u16(), 307 | 308);
            if same_call && attempt.previous().len() <= MAX_REDIRECTS && first == Some(attempt.url().origin()) {
                attempt.follow()
            } else {
                attempt.stop()
            }
        });
        // Answers are read as they are: what a few kilobytes can be unpacked to has no limit.
        let plain = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
        let http = builder(authorities)
            .user_agent(concat!("bellhop/", env!("CARGO_PKG_VERSION")))
            .default_headers(plain)
            .timeout(timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .redirect(same_origin)
            .referer(false)
            // A proxy would connect to addresses that were not checked.
            .no_proxy()
            .dns_resolver(resolver)
            .build()?;
        Ok(Self { http, policy: addresses, budgets: Budgets::new(calls_per_second), timeout })
    }

    /// Carries out a call and gives its answer if the status is 2xx.
    ///
    /// `secrets` are cut out of whatever words of the external system end up in the error. The call counts against the
    /// budget of `key`, for the origin of its URL, and waits a few seconds at most for its turn.
    ///
    /// # Errors
    /// See [`CallFailure`].
    pub async fn send(
        &self,
        call: HttpCall,
        secrets: &[&Secret],
        key: &BudgetKey,
    ) -> Result<HttpResponse, CallFailure> {
        let host = host_of(&call.url);
        self.policy
            .check_literal(&call.url, Reach::Public)
            .map_err(|why| CallFailure::Forbidden(format!("{host}: {why}")))?;
        let turn = self.budgets.turn(key, &call.url.origin().ascii_serialization()).await.map_err(|throttled| {
            CallFailure::Throttled { host: host.clone(), why: throttled.why, retry_after: throttled.retry_after }
        })?;
        let no_answer = |error: reqwest::Error| CallFailure::NoAnswer {
            host: host.clone(),
            // The URL can hold a token (Telegram's does); the host is named already.
            why: redact(&self.what_happened(error.without_url()), secrets),
        };
        let mut request = self.http.request(call.method, call.url).headers(call.headers);
        if let Some(body) = call.body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(no_answer)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let pause = quota::pause(status.as_u16(), &headers, SystemTime::now());
        if let Some(pause) = pause {
            turn.pause(pause);
        }
        let refusal = |words: String| CallFailure::Status {
            host: host.clone(),
            status: status.as_u16(),
            words: if words.is_empty() { words } else { format!(": {words}") },
            error: None,
            retry_after: pause.map(|pause| pause.length),
        };
        // A refusal is one whatever its page looks like.
        let unreadable = |what: String| {
            if status.is_success() {
                CallFailure::Unreadable { host: host.clone(), what }
            } else {
                refusal(format!("the answer is not shown: it is {what}"))
            }
        };
        if let Some(encoding) = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
            return Err(unreadable(format!("an answer in the encoding {encoding:?}, which was not asked for")));
        }
        let too_large = || unreadable(format!("more than {MAX_ANSWER} bytes"));
        if response.content_length().is_some_and(|length| length > MAX_ANSWER as u64) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let body = body.freeze();
        if status.is_success() {
            return Ok(HttpResponse { status: status.as_u16(), headers, body });
        }
        if let (true, Some(target)) = (status.is_redirection(), headers.get(LOCATION)) {
            return Err(refusal(redact(&redirected(target), secrets)));
        }
        let mut failure = refusal(redact(&words(&body), secrets));
        if let CallFailure::Status { error, .. } = &mut failure {
            *error = super::oauth::error_of(&body);
        }
        Err(failure)
    }

    fn what_happened(&self, error: reqwest::Error) -> String {
        if error.is_connect() {
            format!("could not be reached: {}", chain(&error))
        } else if error.is_timeout() {
            format!("did not answer within {:?}", self.timeout)
        } else {
            format!("gave no whole answer: {}", chain(&error))
        }
    }
}

/// Says where a redirect leads that is not followed, without the path, which can be anything.
fn redirected(target: &HeaderValue) -> String {
    let target: Option<url::Url> = target.to_str().ok().and_then(|target| target.parse().ok());
    match target.map(|target| target.origin()) {
        Some(origin) if origin.is_tuple() => {
            format!("a redirect to {}, which is not followed", origin.ascii_serialization())
        }
        _ => "a redirect, which is not followed".to_owned(),
    }
}

fn host_of(url: &url::Url) -> String {
    match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    }
}

fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
