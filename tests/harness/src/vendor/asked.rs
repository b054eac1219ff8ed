//! A call as a vendor reads it.

use axum::http::HeaderMap;
use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;

use crate::server::Call;

/// A call, taken apart.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The method.
    pub method: String,
    segments: Vec<String>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    /// Takes a call apart.
    pub fn new(call: &Call) -> Asked {
        let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        Asked {
            method: call.method.to_string(),
            segments: path.split('/').skip(1).map(decoded).collect(),
            query: pairs(query),
            headers: call.headers.clone(),
            body: call.body.clone(),
        }
    }

    /// The path's segments, each decoded by itself.
    pub fn segments(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// A parameter of the query; empty if it is not there.
    pub fn query(&self, name: &str) -> &str {
        first(&self.query, name)
    }

    /// A header; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body, if it is JSON and the call says so; else null.
    pub fn json(&self) -> Value {
        let is_json = self.header("content-type").starts_with("application/json");
        if is_json { serde_json::from_slice(&self.body).unwrap_or_default() } else { Value::Null }
    }

    /// The fields of the body, if it is form-encoded and the call says so.
    pub fn form(&self) -> Vec<(String, String)> {
        let is_form = self.header("content-type").starts_with("application/x-www-form-urlencoded");
        if is_form { pairs(&String::from_utf8_lossy(&self.body)) } else { Vec::new() }
    }

    /// User and password of HTTP Basic authentication (RFC 7617).
    pub fn basic(&self) -> Option<(String, String)> {
        let encoded = self.header("authorization").strip_prefix("Basic ")?;
        let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?).ok()?;
        text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
    }

    /// The origin that the caller used: `http://HOST:PORT`.
    pub fn origin(&self) -> String {
        format!("http://{}", self.header("host"))
    }
}

/// The first value of a field; empty if it is not there.
pub fn first<'a>(fields: &'a [(String, String)], name: &str) -> &'a str {
    fields.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
}

/// Every value of a field.
pub fn every(fields: &[(String, String)], name: &str) -> Vec<String> {
    fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
}

/// A list of strings in JSON; what is no string is left away.
pub fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A string in JSON; empty if it is none.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn pairs(encoded: &str) -> Vec<(String, String)> {
    reqwest::Url::parse(&format!("http://vendor/?{encoded}"))
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default()
}

/// In a path, a plus sign is a plus sign.
fn decoded(segment: &str) -> String {
    let fields = pairs(&format!("s={}", segment.replace('+', "%2B").replace('&', "%26")));
    first(&fields, "s").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_taken_apart() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Basic YXBpOmtleTox".parse().unwrap());
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        let call = Call {
            method: "POST".parse().unwrap(),
            path: "/bot1%3AA+b/acme%2Fweb?cursor=a%26b&page=2".to_owned(),
            headers,
            body: Bytes::from_static(b"url=http%3A%2F%2Fa&e%5B%5D=x&e%5B%5D=y"),
        };
        let asked = Asked::new(&call);
        assert_eq!(asked.segments(), ["bot1:A+b", "acme/web"]);
        assert_eq!((asked.query("cursor"), asked.query("page"), asked.query("none")), ("a&b", "2", ""));
        assert_eq!(asked.basic(), Some(("api".to_owned(), "key:1".to_owned())));
        assert_eq!(first(&asked.form(), "url"), "http://a");
        assert_eq!(every(&asked.form(), "e[]"), ["x", "y"]);
        assert!(asked.json().is_null());
    }
}
