//! The three kinds of the group `bellhop.dev`: data, schema, validation rules. No I/O.

// Several printer columns have one attribute each, which clippy takes for repetitions.
#![allow(clippy::duplicated_attributes)]

mod conditions;
mod crds;
mod editor;
mod jwt;
mod plugin_event;
mod published;
mod published_keys;
mod published_runner;
mod reference;
mod report;
mod resource_event;
mod runner;
mod schema;
mod subscription;
mod trigger_plugin;
mod trigger_status;
mod verification;
mod workflow_trigger;

pub use conditions::{Conditions, Is, reason, type_};
pub use crds::{all_crds, to_yaml};
pub use editor::trigger_plugin_schema;
pub use jwt::*;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
pub use plugin_event::*;
pub use published::{PREFER, PUBLISHED_LABEL, PublishedController, PublishedIdentity, PublishedRoute, RouteVersion};
pub use published_keys::PublishedKeys;
pub use published_runner::PublishedRunner;
pub use reference::to_markdown;
pub use report::{Away, AwayReport, Gone, Report, Seen, Tally, Told, TriggerReport};
pub use resource_event::{ResourceAnswer, ResourceEvent};
pub use runner::*;
pub use subscription::*;
pub use trigger_plugin::*;
pub use trigger_status::*;
pub use verification::*;
pub use workflow_trigger::*;

/// The API group of every kind of Bellhop.
pub const GROUP: &str = "bellhop.dev";

/// Label of a Secret that holds credentials: names the TriggerPlugin that may use them.
///
/// A Secret without it is never read, so that a person who may create Subscriptions cannot use Bellhop to read Secrets.
pub const CREDENTIALS_FOR_LABEL: &str = "bellhop.dev/credentials-for";

/// Annotation of a Subscription: with the value `Orphan`, its webhook stays in the external system when it is deleted.
pub const DELETION_POLICY_ANNOTATION: &str = "bellhop.dev/deletion-policy";

/// Annotation of a Subscription: whenever its value changes, the callback secret is replaced. A time is a good value.
pub const ROTATE_ANNOTATION: &str = "bellhop.dev/rotate-requested-at";

/// Annotation of a Secret with an OAuth client: with the value `true`, it is the workspace's default for its plugin.
pub const DEFAULT_CLIENT_ANNOTATION: &str = "bellhop.dev/is-default-client";

/// Annotation of a ServiceAccount: with the value `true`, WorkflowTriggers of its namespace may name it in
/// `spec.runner.resource`, so that objects are made under its rights.
pub const ALLOW_RESOURCE_RUNNERS_ANNOTATION: &str = "bellhop.dev/allow-resource-runners";

/// The finalizer of Subscriptions (their webhook has to be deleted) and of TriggerPlugins in use.
pub const FINALIZER: &str = "bellhop.dev/finalizer";

/// A reference to an object of a known kind in the same namespace, or to a cluster-scoped one.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}
