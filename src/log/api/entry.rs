//! One request of the log, as the ingress tells it. It is passed on as it came, so that an ingress that is newer than the
//! controller can tell more; here is what the controller itself reads in it.

use crate::log::model::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A request of the log: an object of the kind `Request`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Entry(pub Value);

impl Entry {
    fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Its name, `<replica>-<uuid>`.
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.text("/metadata/resourceVersion").parse().unwrap_or(Version::NONE)
    }

    /// Writes the version so that a watch can begin at it, which has to know whose it is.
    pub fn place_version(&mut self) {
        let number = self.name().split_once('-').map_or("", |(number, _)| number);
        let version = format!("{number}:{}", self.version());
        self.0["metadata"]["resourceVersion"] = Value::String(version);
    }

    /// When it was received, as RFC 3339 has it.
    pub fn created(&self) -> &str {
        self.text("/metadata/creationTimestamp")
    }

    /// Name of its Subscription.
    pub fn subscription(&self) -> &str {
        self.text("/subscription/name")
    }

    /// Name of the TriggerPlugin.
    pub fn plugin(&self) -> &str {
        self.text("/subscription/plugin")
    }

    /// What came of it.
    pub fn outcome(&self) -> &str {
        self.text("/outcome")
    }

    /// Status of the answer; 0: none was given.
    pub fn answer(&self) -> u64 {
        self.0.pointer("/answer/status").and_then(Value::as_u64).unwrap_or(0)
    }

    fn events(&self) -> impl Iterator<Item = &Value> {
        self.0["events"].as_array().into_iter().flatten()
    }

    /// The names of its events.
    pub fn event_names(&self) -> impl Iterator<Item = &str> {
        self.events().filter_map(|event| event["name"].as_str())
    }

    fn triggers(&self) -> impl Iterator<Item = &Value> {
        self.events().flat_map(|event| event["triggers"].as_array().into_iter().flatten())
    }

    /// The names of the triggers that were held against it.
    pub fn trigger_names(&self) -> impl Iterator<Item = &str> {
        self.triggers().filter_map(|trigger| trigger["name"].as_str())
    }

    /// Whether a draft of this name has captured one of its events.
    pub fn captured_by(&self, name: &str) -> bool {
        self.triggers().any(|trigger| trigger["captured"] == true && trigger["name"] == name)
    }

    /// How many triggers fired, of how many.
    pub fn fired(&self) -> (usize, usize) {
        let fired = |trigger: &&Value| trigger["fired"] == true;
        (self.triggers().filter(fired).count(), self.triggers().count())
    }
}
