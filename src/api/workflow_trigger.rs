//! `WorkflowTrigger`: the wish to start one workflow on one event of one subscription.

use super::{NameRef, Runner, WorkflowTriggerStatus};
use kube::{CustomResource, KubeSchema, core::Duration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A WorkflowTrigger says which event of which Subscription starts which workflow on which runner.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "bellhop.dev",
    version = "v1alpha1",
    kind = "WorkflowTrigger",
    plural = "workflowtriggers",
    shortname = "wt",
    category = "bellhop",
    namespaced,
    derive = "PartialEq",
    status = "WorkflowTriggerStatus",
    doc = "Starts one workflow on one event of one Subscription",
    selectable = ".spec.subscriptionRef.name",
    selectable = ".spec.workflow",
    printcolumn(name = "Subscription", type_ = "string", json_path = ".spec.subscriptionRef.name"),
    printcolumn(name = "Event", type_ = "string", json_path = ".spec.event"),
    printcolumn(name = "Workflow", type_ = "string", json_path = ".spec.workflow"),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Last fired", type_ = "date", json_path = ".status.lastFired"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowTriggerSpec {
    /// The Subscription, in the same namespace.
    pub subscription_ref: NameRef,

    /// Name of the event; it must be one of the Subscription's events.
    #[schemars(length(min = 1, max = 128))]
    pub event: String,

    /// The event's parameters, checked against the schemas in the plugin. All that are set must match.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schemars(schema_with = "super::schema::free_object")]
    pub parameters: serde_json::Map<String, serde_json::Value>,

    /// CEL expression over `variables`, `event` and `subscription`: whether the event starts the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub filter: Option<String>,

    /// The runner's name for the workflow.
    #[schemars(length(min = 1, max = 253))]
    pub workflow: String,

    /// When the trigger fires: `Published` on every event that matches, `Draft` only while somebody listens, `Suspended`
    /// never.
    #[serde(default)]
    pub mode: Mode,

    /// What runs the workflow.
    pub runner: Runner,

    /// How an event is delivered to the runner.
    #[serde(default)]
    pub delivery: DeliveryPolicy,
}

/// Whether a trigger fires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// On every event that matches.
    #[default]
    Published,
    /// Only while somebody listens.
    Draft,
    /// Never.
    Suspended,
}

/// How an event is delivered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeliveryPolicy {
    /// How long the runner may take to answer, from 1s to 5m.
    #[schemars(schema_with = "super::schema::duration")]
    pub timeout: Duration,
    /// Attempts before the delivery becomes a dead letter.
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: u32,
    /// Whether events are delivered one at a time, in the order in which their requests were received. One that fails
    /// holds back the rest of this trigger until it is delivered or a dead letter.
    pub ordered: bool,
    /// Whether the sender of the request gets what the runner answers, where the plugin lets the sender wait for it: the
    /// first attempt's answer, if its status is from 200 to 299 and its body is JSON or plain text. If several triggers of
    /// an event have this, the first answer counts.
    pub answer: bool,
}

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            timeout: Duration::from(std::time::Duration::from_secs(30)),
            max_attempts: 12,
            ordered: false,
            answer: false,
        }
    }
}
