//! The request that a runner receives: a CloudEvent 1.0 in HTTP binary mode.
//!
//! The body is a JSON object, the event's variables; `content-type` is `application/json`. The attributes:
//!
//! | Header | Value |
//! |---|---|
//! | `ce-specversion` | `1.0` |
//! | `ce-id` | the event's id (UUID); the same in every attempt and after a redelivery. Several triggers can match one event: a runner dedupes by `ce-id` and `ce-trigger` together |
//! | `ce-source` | `/namespaces/<namespace>/subscriptions/<name>` |
//! | `ce-type` | `dev.bellhop.<plugin>.<event>` |
//! | `ce-time` | when the request was accepted (RFC 3339, UTC, milliseconds) |
//! | `ce-workspace` | the namespace |
//! | `ce-trigger` | name of the WorkflowTrigger |
//! | `ce-workflow` | the workflow that the runner is asked to start |
//! | `ce-deliveryattempt` | number of the attempt, from 1 |
//!
//! Values are percent-encoded as the HTTP binding says (section 3.1.3.2).

use http::{HeaderMap, HeaderName, HeaderValue};
use k8s_openapi::jiff::Timestamp;
use std::fmt::Write as _;
use uuid::Uuid;

/// What the attributes are made of.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// The event's id.
    pub id: Uuid,
    /// Namespace of the Subscription and the WorkflowTrigger.
    pub namespace: &'a str,
    /// Name of the Subscription.
    pub subscription: &'a str,
    /// Name of the TriggerPlugin.
    pub plugin: &'a str,
    /// Name of the event in the plugin.
    pub event: &'a str,
    /// When the request was accepted, in Unix milliseconds.
    pub accepted_at: u64,
    /// Name of the WorkflowTrigger.
    pub trigger: &'a str,
    /// The workflow.
    pub workflow: &'a str,
    /// Number of the attempt, from 1.
    pub attempt: u32,
}

impl Attributes<'_> {
    /// The headers of the request.
    pub fn headers(&self) -> HeaderMap {
        let accepted_at = i64::try_from(self.accepted_at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
        let mut headers = HeaderMap::with_capacity(16);
        let mut set = |name: &'static str, value: &str| {
            // Encoded values are visible ASCII, which every header may carry.
            if let Ok(value) = HeaderValue::from_str(&encode(value)) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("ce-specversion", "1.0");
        set("ce-id", &self.id.to_string());
        set("ce-source", &format!("/namespaces/{}/subscriptions/{}", self.namespace, self.subscription));
        set("ce-type", &format!("dev.bellhop.{}.{}", self.plugin, self.event));
        set("ce-time", &format!("{:.3}", accepted_at.unwrap_or_default()));
        set("ce-workspace", self.namespace);
        set("ce-trigger", self.trigger);
        set("ce-workflow", self.workflow);
        set("ce-deliveryattempt", &self.attempt.to_string());
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers
    }
}

/// Percent-encodes space, double quote, percent and everything outside of U+0021 to U+007E.
fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'"' | b'%' | ..=b' ' | 0x7f.. => {
                // Writing to a String does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes() {
        let headers = Attributes {
            id: Uuid::nil(),
            namespace: "team-a",
            subscription: "acme-web",
            plugin: "gitea",
            event: "issue comment: \"ä\" 100%",
            accepted_at: 1_700_000_000_123,
            trigger: "review",
            workflow: "Euro € 😀",
            attempt: 3,
        }
        .headers();
        let expected = [
            ("ce-specversion", "1.0"),
            ("ce-id", "00000000-0000-0000-0000-000000000000"),
            ("ce-source", "/namespaces/team-a/subscriptions/acme-web"),
            ("ce-type", "dev.bellhop.gitea.issue%20comment:%20%22%C3%A4%22%20100%25"),
            ("ce-time", "2023-11-14T22:13:20.123Z"),
            ("ce-workspace", "team-a"),
            ("ce-trigger", "review"),
            ("ce-workflow", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("ce-deliveryattempt", "3"),
            ("content-type", "application/json"),
        ];
        assert_eq!(headers.len(), expected.len());
        for (name, value) in expected {
            assert_eq!(headers[name], value, "{name}");
        }
    }

    #[test]
    fn control_characters_cannot_break_out_of_a_header() {
        assert_eq!(encode("a\r\nx: y\0\u{7f}"), "a%0D%0Ax:%20y%00%7F");
        assert_eq!(encode("!~"), "!~");
    }
}
