//! The request that a runner receives: a CloudEvent 1.0 in HTTP binary or structured mode.
//!
//! In binary mode the body is a JSON object, the event's variables; `content-type` is `application/json`. In structured mode
//! the body is a JSON object with the attributes, without `ce-`, and the variables in `data`; `content-type` is
//! `application/cloudevents+json`. The attributes:
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
//! Values in headers are percent-encoded as the HTTP binding says (section 3.1.3.2).

use http::{HeaderMap, HeaderName, HeaderValue};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
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
    /// The event's type.
    pub fn type_(&self) -> String {
        format!("dev.bellhop.{}.{}", self.plugin, self.event)
    }

    /// When the request was accepted, as RFC 3339 has it.
    pub fn time(&self) -> String {
        let accepted_at = i64::try_from(self.accepted_at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
        format!("{:.3}", accepted_at.unwrap_or_default())
    }

    fn source(&self) -> String {
        format!("/namespaces/{}/subscriptions/{}", self.namespace, self.subscription)
    }

    /// The content type and the body in structured mode.
    pub fn structured(&self, variables: &Value) -> (HeaderValue, Vec<u8>) {
        let event = json!({
            "specversion": "1.0",
            "id": self.id,
            "source": self.source(),
            "type": self.type_(),
            "time": self.time(),
            "workspace": self.namespace,
            "trigger": self.trigger,
            "workflow": self.workflow,
            "deliveryattempt": self.attempt,
            "datacontenttype": "application/json",
            "data": variables,
        });
        (HeaderValue::from_static("application/cloudevents+json"), event.to_string().into_bytes())
    }

    /// The headers in binary mode.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(16);
        let mut set = |name: &'static str, value: &str| {
            // Encoded values are visible ASCII, which every header may carry.
            if let Ok(value) = HeaderValue::from_str(&encode(value)) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("ce-specversion", "1.0");
        set("ce-id", &self.id.to_string());
        set("ce-source", &self.source());
        set("ce-type", &self.type_());
        set("ce-time", &self.time());
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

    fn attributes() -> Attributes<'static> {
        Attributes {
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
    }

    #[test]
    fn the_structured_mode_has_the_same_attributes_as_they_are() {
        let (content_type, body) = attributes().structured(&json!({"ref": "main"}));
        assert_eq!(content_type, "application/cloudevents+json");
        let expected = json!({
            "specversion": "1.0",
            "id": "00000000-0000-0000-0000-000000000000",
            "source": "/namespaces/team-a/subscriptions/acme-web",
            "type": "dev.bellhop.gitea.issue comment: \"ä\" 100%",
            "time": "2023-11-14T22:13:20.123Z",
            "workspace": "team-a",
            "trigger": "review",
            "workflow": "Euro € 😀",
            "deliveryattempt": 3,
            "datacontenttype": "application/json",
            "data": {"ref": "main"},
        });
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }

    #[test]
    fn the_binary_mode_has_the_attributes_as_headers() {
        let headers = attributes().headers();
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
