//! Pages for people: plain HTML without scripts, readable by every browser and screen reader.

use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::LazyLock;

/// The longest text of somebody else that a page shows, in characters.
const MAX_WORDS: usize = 300;

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:3rem auto;padding:0 1rem;\
color:#1b1b1f;background:#fff}h1{font-size:1.5rem;line-height:1.3}dt{font-weight:600;margin-top:.5rem}dd{margin:0;\
overflow-wrap:anywhere}button{font:inherit;padding:.6rem 1.2rem;border:0;border-radius:.3rem;background:#1a4fa3;\
color:#fff;cursor:pointer}button:focus-visible,a:focus-visible{outline:3px solid #e08a00;outline-offset:2px}code{\
overflow-wrap:anywhere}@media(prefers-color-scheme:dark){body{color:#eee;background:#16161a}a{color:#9ec1ff}}";

/// Nothing is loaded or run, and nobody puts a page into a frame. There is no `form-action`: browsers hold it against every
/// redirect that follows the form, and where the external system's login page leads is not known.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; frame-ancestors 'none'");
    HeaderValue::from_str(&policy).expect("base64 fits into a header")
});

/// What is in the `<body>`, escaped as it is written.
#[derive(Default)]
pub struct Content(String);

impl Content {
    /// A paragraph of text.
    pub fn paragraph(mut self, text: &str) -> Self {
        let _ = write!(self.0, "<p>{}</p>\n", escape(text));
        self
    }

    /// A list of names and what they are; what is empty is left out.
    pub fn facts(mut self, facts: &[(&str, &str)]) -> Self {
        self.0.push_str("<dl>\n");
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(self.0, "<dt>{}</dt><dd>{}</dd>\n", escape(name), escape(value));
        }
        self.0.push_str("</dl>\n");
        self
    }

    /// A form with nothing but a button, which is sent to the page's own address.
    pub fn button(mut self, label: &str) -> Self {
        let _ = write!(self.0, "<form method=\"post\"><button type=\"submit\">{}</button></form>\n", escape(label));
        self
    }

    /// A link.
    pub fn link(mut self, url: &str, label: &str) -> Self {
        let _ = write!(self.0, "<p><a href=\"{}\">{}</a></p>\n", escape(url), escape(label));
        self
    }

    /// A command to type.
    pub fn command(mut self, command: &str) -> Self {
        let _ = write!(self.0, "<p><code>{}</code></p>\n", escape(command));
        self
    }
}

/// The answer with a page. `title` is also its heading.
pub fn page(status: StatusCode, title: &str, content: Content) -> Response {
    let title = escape(title);
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>{title} - Bellhop</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<main>\n<h1>{title}</h1>\n{}</main>\n</body>\n</html>\n",
        content.0
    );
    let mut response = answer(status, Body::from(html));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// An answer with the headers that all of them have.
pub fn answer(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fixed: [(HeaderName, &str); 4] = [
        (CACHE_CONTROL, "no-store"),
        // Addresses of these pages hold links and codes.
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

/// Text that HTML shows as it is, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The words of somebody else: one line, bounded, without characters that change how the rest is shown.
pub fn quoted(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    line.chars().filter(|c| !c.is_control() && !turns(*c)).take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let Content(html) = Content::default()
            .paragraph("<script>alert(1)</script>")
            .facts(&[("a", "\"><img src=x>"), ("empty", "")])
            .link("javascript:'\"", "x")
            .button("'&\"");
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("empty"), "{html}");
        assert!(html.contains("href=\"javascript:&#39;&quot;\"") && html.contains("&#39;&amp;&quot;"), "{html}");
        assert_eq!(quoted("a\u{202e}b\n \u{7}c"), "ab c");
        assert_eq!(quoted(&"é".repeat(1000)).chars().count(), MAX_WORDS);
    }

    #[test]
    fn the_style_is_the_one_that_the_policy_allows() {
        let policy = POLICY.to_str().unwrap();
        let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
        assert!(policy.contains(&hash) && policy.starts_with("default-src 'none';"), "{policy}");
        assert!(!STYLE.contains('<'));
    }
}
