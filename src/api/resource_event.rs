//! What an ingress asks the controller for, which alone makes the objects of `resource` runners.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// An event on its way to a trigger whose runner is the cluster. The controller takes nothing from it but what an expression
/// may see: what is made, and under whose rights, it reads in the trigger itself.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceEvent {
    /// Namespace of the WorkflowTrigger.
    pub namespace: String,
    /// Name of the WorkflowTrigger.
    pub trigger: String,
    /// UID of the WorkflowTrigger: another one of the same name gets nothing.
    pub trigger_uid: Uuid,
    /// Identity of the event, the same in every attempt.
    pub id: Uuid,
    /// Name of the event.
    pub event: String,
    /// Its place in the request, from 0.
    pub item: u32,
    /// The type of its CloudEvent.
    #[serde(rename = "type")]
    pub type_: String,
    /// When the request was accepted, as RFC 3339 has it.
    pub time: String,
    /// Name of the Subscription.
    pub subscription: String,
    /// Name of the TriggerPlugin.
    pub plugin: String,
    /// The workflow that the event was matched for.
    pub workflow: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// What the event hands to workflows.
    pub variables: Value,
}

impl ResourceEvent {
    /// Where the controller is asked, at its internal listener.
    pub const PATH: &'static str = "/internal/resources";
}

impl std::fmt::Debug for ResourceEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let trigger = format_args!("{}/{}", self.namespace, self.trigger);
        f.debug_struct("ResourceEvent").field("trigger", &trigger).field("id", &self.id).finish_non_exhaustive()
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum ResourceAnswer {
    /// The object is there.
    #[serde(rename_all = "camelCase")]
    Made {
        /// Whether it was there already, made for the same event.
        before: bool,
    },
    /// The API server did not make it.
    #[serde(rename_all = "camelCase")]
    Refused {
        /// HTTP status of its answer.
        status: u16,
        /// Its words.
        message: String,
        /// What it asked for in `Retry-After`.
        retry_after: Option<String>,
    },
    /// Nothing was asked of it, because something is missing that a person may still put there.
    #[serde(rename_all = "camelCase")]
    NotYet {
        /// What is missing.
        reason: String,
    },
    /// Nothing was asked of it, and it stays so until the trigger or an option changes.
    #[serde(rename_all = "camelCase")]
    Never {
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_read_as_they_are_written() {
        let refused = ResourceAnswer::Refused { status: 429, message: "slow".into(), retry_after: Some("3".into()) };
        let written = serde_json::to_value(&refused).unwrap();
        assert_eq!(written, json!({"outcome": "refused", "status": 429, "message": "slow", "retryAfter": "3"}));
        for answer in [refused, ResourceAnswer::Made { before: true }, ResourceAnswer::Never { reason: "x".into() }] {
            let written = serde_json::to_vec(&answer).unwrap();
            assert_eq!(serde_json::from_slice::<ResourceAnswer>(&written).unwrap(), answer);
        }
    }
}
