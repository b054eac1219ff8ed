//! What a person wants to have sent to a Subscription, and what came of that: as the controller hands it to an ingress, and as
//! people ask for it.

use super::model::name;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What is sent. What is left out is that of the event's sample; without an event, it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SendSpec {
    /// The event of the plugin whose sample is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Headers, name to value, in place of the sample's of the same name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Query without the question mark, in place of the sample's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The body, in place of the sample's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The same as base64, for a body that is no text.
    #[serde(default, rename = "bodyBase64", skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

/// The same, and who wishes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SendWish {
    /// What is sent.
    pub spec: SendSpec,
    /// The user who wishes it.
    pub by: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// The name of the request in the log.
    pub request: String,
    /// Why it is not signed; absent: it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsigned: Option<String>,
}

impl Sent {
    /// A request that a replica has taken.
    pub fn new(replica: &str, id: Uuid, unsigned: Option<String>) -> Self {
        Self { request: name(replica, id), unsigned }
    }
}
