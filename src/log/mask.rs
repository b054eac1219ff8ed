//! What the request log does not show.
//!
//! Masked are: header fields that carry credentials by their meaning, by their name or by what the plugin says; values of the
//! query whose name, or the plugin, says that they are secret; and the callback secrets of the Subscription, wherever they occur: in
//! header fields, the query, the body, variables and reasons.

use super::model::MASK;
use crate::routes::Route;
use serde_json::Value;
use std::borrow::Cow;

/// Header fields that carry credentials.
const SECRET_HEADERS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];
/// What names of secrets contain.
const TELLING: [&str; 8] = ["token", "secret", "password", "passwd", "apikey", "api_key", "api-key", "access_key"];

/// What has to be masked for one Subscription.
#[derive(Clone, Default)]
pub struct Mask {
    /// The callback secrets, as they are and as JSON and forms write them.
    secrets: Vec<Vec<u8>>,
    /// Names, in lower case, of further header fields.
    headers: Vec<String>,
    /// Names of further parameters of the query.
    queries: Vec<String>,
}

impl Mask {
    /// What a route says; without one, only what all have in common is masked.
    pub fn of(route: Option<&Route>) -> Self {
        let Some(route) = route else { return Self::default() };
        let (headers, queries) = (route.secret_headers().to_vec(), route.secret_queries().to_vec());
        let mask = Self { secrets: Vec::new(), headers, queries };
        route.secrets().iter().fold(mask, |mask, secret| mask.with(secret.expose()))
    }

    /// The same, and another secret.
    pub fn with(mut self, secret: &[u8]) -> Self {
        if secret.is_empty() {
            return self;
        }
        let mut add = |form: Vec<u8>| {
            if !self.secrets.contains(&form) {
                self.secrets.push(form);
            }
        };
        add(secret.to_vec());
        if let Ok(text) = std::str::from_utf8(secret) {
            add(Value::from(text).to_string().trim_matches('"').as_bytes().to_vec());
        }
        add(url::form_urlencoded::byte_serialize(secret).collect::<String>().into_bytes());
        // The longest first: a form that contains another one must not leave a rest.
        self.secrets.sort_by_key(|form| std::cmp::Reverse(form.len()));
        self
    }

    /// Bytes of the longest secret.
    pub fn longest(&self) -> usize {
        self.secrets.first().map_or(0, Vec::len)
    }

    fn tells(&self, content: &[u8]) -> bool {
        self.secrets.iter().any(|secret| find(content, secret).is_some())
    }

    /// Content with every secret masked.
    pub fn bytes<'a>(&self, content: &'a [u8]) -> Cow<'a, [u8]> {
        let mut masked = Cow::Borrowed(content);
        for secret in &self.secrets {
            if find(&masked, secret).is_some() {
                masked = Cow::Owned(replaced(&masked, secret));
            }
        }
        masked
    }

    /// Text with every secret masked.
    pub fn text(&self, text: &str) -> String {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => text.to_owned(),
            Cow::Owned(masked) => String::from_utf8_lossy(&masked).into_owned(),
        }
    }

    /// The value of a header field (its name in lower case).
    pub fn header(&self, name: &str, value: &str) -> String {
        let secret = SECRET_HEADERS.contains(&name)
            || self.headers.iter().any(|header| header == name)
            || is_telling(name)
            || self.tells(value.as_bytes());
        if secret { MASK.to_owned() } else { value.to_owned() }
    }

    /// A query, as it came, with the values masked that are secret.
    pub fn query(&self, query: &str) -> String {
        let part = |part: &str| {
            let decoded = |text: &str| -> String {
                let pair = url::form_urlencoded::parse(text.as_bytes()).next();
                pair.map(|(name, value)| format!("{name}{value}")).unwrap_or_default()
            };
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let called = decoded(name);
            let secret = is_telling(&called.to_ascii_lowercase()) || self.queries.contains(&called);
            match secret && !value.is_empty() {
                true => format!("{name}={MASK}"),
                false if self.tells(part.as_bytes()) || self.tells(decoded(part).as_bytes()) => MASK.to_owned(),
                false => part.to_owned(),
            }
        };
        query.split('&').map(part).collect::<Vec<_>>().join("&")
    }

    /// Masks every string in a value, names of fields included.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) if self.tells(text.as_bytes()) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                if fields.keys().any(|name| self.tells(name.as_bytes())) {
                    *fields = std::mem::take(fields).into_iter().map(|(name, v)| (self.text(&name), v)).collect();
                }
                fields.values_mut().for_each(|field| self.value(field));
            }
            _ => {}
        }
    }
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// Whether the name, in lower case, is that of a secret.
fn is_telling(name: &str) -> bool {
    matches!(name, "key" | "auth") || TELLING.iter().any(|word| name.contains(word))
}

fn find(content: &[u8], secret: &[u8]) -> Option<usize> {
    content.windows(secret.len()).position(|window| window == secret)
}

fn replaced(content: &[u8], secret: &[u8]) -> Vec<u8> {
    let (mut masked, mut rest) = (Vec::with_capacity(content.len()), content);
    while let Some(at) = find(rest, secret) {
        masked.extend_from_slice(&rest[..at]);
        masked.extend_from_slice(MASK.as_bytes());
        rest = &rest[at + secret.len()..];
    }
    masked.extend_from_slice(rest);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A secret that JSON and forms write in other ways.
    const SECRET: &str = "q7\"x/Vb+9w";

    fn mask() -> Mask {
        let (headers, queries) = (vec!["x-hook-proof".into()], vec!["Proof".into()]);
        Mask { secrets: Vec::new(), headers, queries }.with(SECRET.as_bytes())
    }

    #[test]
    fn headers_are_masked_by_meaning_by_name_and_by_value() {
        let mask = mask();
        for name in ["authorization", "proxy-authorization", "cookie", "x-hook-proof", "x-gitlab-token", "x-api-key"] {
            assert_eq!(mask.header(name, "v"), MASK, "{name}");
        }
        assert_eq!(mask.header("x-event", &format!("before {SECRET}")), MASK);
        assert_eq!(mask.header("x-hub-signature-256", "sha256=ab"), "sha256=ab");
        assert_eq!(Mask::default().header("cookie", "v"), MASK);
    }

    #[test]
    fn a_query_keeps_what_is_not_secret() {
        let encoded: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let query = format!("a=b&access_token=v&x%54oken=v&%50roof=v&proof=v&c={encoded}&{encoded}=1&token=&d");
        let expected = "a=b&access_token=***&x%54oken=***&%50roof=***&proof=v&***&***&token=&d";
        assert_eq!(mask().query(&query), expected);
        assert_eq!(mask().query(""), "");
    }

    #[test]
    fn a_callback_secret_is_masked_wherever_it_is() {
        let mask = mask();
        let form: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
        let json = json!({"s": SECRET}).to_string();
        for text in [SECRET, form.as_str(), json.as_str()] {
            let masked = mask.text(&format!("a{text}b{text}"));
            assert!(masked.contains(MASK) && !masked.contains("Vb") && !masked.contains("q7"), "{masked}");
        }
        let mut value = json!({"list": [SECRET, 1], (SECRET): {"deep": format!("x{SECRET}")}});
        mask.value(&mut value);
        assert_eq!(value, json!({"list": ["***", 1], "***": {"deep": "x***"}}));
        assert!(matches!(mask.bytes(b"nothing"), Cow::Borrowed(_)));
        assert!(!format!("{mask:?}").contains("Vb"));
        assert_eq!(Mask::default().with(b"").text("text"), "text");
    }
}
