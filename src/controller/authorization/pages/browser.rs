//! What a browser brings: its cookie, where a form comes from, the names in addresses.

use crate::controller::authorization::random_text;
use http::header::{COOKIE, ORIGIN};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::Url;
use uuid::Uuid;

/// Bytes of the random part of links, states and cookies, in base64url.
const RANDOM: usize = 43;

/// The cookie that tells one browser from others. It means nothing else.
pub struct Cookie(String);

impl Cookie {
    /// The cookie of a request, if there is one that can be ours.
    pub fn of(headers: &HeaderMap, public_url: &Url) -> Option<Self> {
        let name = name(public_url);
        let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(';'));
        let mut values = pairs.filter_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='));
        values.find(|value| is_random(value)).map(|value| Self(value.to_owned()))
    }

    /// A new one.
    pub fn new() -> Self {
        Self(random_text())
    }

    /// What is kept of it.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.0.as_bytes()))
    }

    /// The header that sets it.
    ///
    /// Lax, because the external system sends the browser back by a link; a form of another site comes without it. With
    /// https, its name keeps it from being set by another host of the same domain, which could otherwise give its own
    /// cookie to a browser and have it end what somebody else has begun.
    pub fn set(&self, public_url: &Url) -> HeaderValue {
        let path = public_url.path().trim_end_matches('/');
        let attributes = match public_url.scheme() {
            "https" => "; Path=/; Secure".to_owned(),
            _ => format!("; Path={path}/oauth"),
        };
        let text = format!("{}={}{attributes}; HttpOnly; SameSite=Lax", name(public_url), self.0);
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

fn name(public_url: &Url) -> &'static str {
    match public_url.scheme() {
        "https" => "__Host-bellhop-oauth",
        _ => "bellhop-oauth",
    }
}

/// Whether a form may come from where it does. Browsers send the origin with every form; other clients may not.
pub fn is_own_form(headers: &HeaderMap, public_url: &Url) -> bool {
    let own = public_url.origin().ascii_serialization();
    headers.get_all(ORIGIN).iter().all(|origin| origin.as_bytes() == own.as_bytes())
}

/// `<uid>.<random>`: what a link and a state look like.
pub fn parse(text: &str) -> Option<(Uuid, &str)> {
    let (uid, random) = text.split_once('.')?;
    (uid.len() == 32 && is_random(random)).then_some(())?;
    Some((Uuid::try_parse(uid).ok()?, random))
}

fn is_random(text: &str) -> bool {
    text.len() == RANDOM && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Whether two texts are the same, in a time that does not depend on where they differ.
pub fn same(a: &str, b: &str) -> bool {
    bool::from(a.as_bytes().ct_eq(b.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn a_cookie_is_bound_to_the_host_where_the_connection_is_safe() {
        let cookie = Cookie::new();
        let set = |base: &str| cookie.set(&url(base)).to_str().unwrap().to_owned();
        let safe = set("https://hooks.example.com/bellhop");
        assert!(
            safe.starts_with("__Host-bellhop-oauth=") && safe.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax")
        );
        let plain = set("http://127.0.0.1:8080/x/");
        assert!(plain.starts_with("bellhop-oauth=") && plain.ends_with("; Path=/x/oauth; HttpOnly; SameSite=Lax"));
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let (base, cookie) = (url("http://localhost"), Cookie::new());
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=b; bellhop-oauth=short; xbellhop-oauth=c"));
        assert!(Cookie::of(&headers, &base).is_none());
        headers.append(COOKIE, HeaderValue::from_str(&format!("q=1; bellhop-oauth={}; z=2", cookie.0)).unwrap());
        assert_eq!(Cookie::of(&headers, &base).unwrap().digest(), cookie.digest());
        assert!(Cookie::of(&headers, &url("https://localhost")).is_none());
    }

    #[test]
    fn forms_of_others_are_not_ours() {
        let base = url("https://hooks.example.com/bellhop");
        let from = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
            is_own_form(&headers, &base)
        };
        assert!(is_own_form(&HeaderMap::new(), &base) && from("https://hooks.example.com"));
        for other in ["https://evil.example.com", "http://hooks.example.com", "https://hooks.example.com:8443", "null"]
        {
            assert!(!from(other), "{other}");
        }
    }

    #[test]
    fn links_and_states_have_one_form() {
        let (uid, random) = (Uuid::from_u128(7), random_text());
        assert_eq!(parse(&format!("{}.{random}", uid.simple())), Some((uid, random.as_str())));
        for wrong in [
            String::new(),
            random.clone(),
            format!("{uid}.{random}"),
            format!("{}.{random}x", uid.simple()),
            format!("{}.{}", uid.simple(), &random[1..]),
            format!("{}.{}", uid.simple(), "=".repeat(43)),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }
}
