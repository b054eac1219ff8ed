//! Secrets that a user or the administrator has put somewhere for a plugin.
//!
//! Only the label says that a plugin may use one, so the metadata is read first: the content of a Secret that is not meant
//! for this plugin is never asked for.

use super::Failure;
use crate::api::CREDENTIALS_FOR_LABEL;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;

/// What was found under a name.
pub enum Labelled {
    /// There is no Secret.
    Missing,
    /// It is not meant for the plugin.
    ForOthers,
    /// It is, and this is in it.
    Content(Content),
}

/// What is in a Secret.
pub struct Content(BTreeMap<String, ByteString>);

impl Content {
    /// The text under a key, without blanks around it; nothing if it is empty or no text.
    pub fn text(&self, key: &str) -> Option<String> {
        let text = std::str::from_utf8(&self.0.get(key)?.0).ok()?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Which keys there are, in words.
    pub fn keys(&self) -> String {
        match self.0.len() {
            0 => "no keys".to_owned(),
            _ => format!("the keys {}", self.0.keys().cloned().collect::<Vec<_>>().join(", ")),
        }
    }
}

/// Reads a Secret that has to be labelled for this plugin.
///
/// # Errors
/// The API server failed.
pub async fn read(client: &kube::Client, namespace: &str, name: &str, plugin: &str) -> Result<Labelled, Failure> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let is_for_plugin =
        |labels: &BTreeMap<String, String>| labels.get(CREDENTIALS_FOR_LABEL).is_some_and(|value| value == plugin);
    let Some(metadata) = api.get_metadata_opt(name).await? else { return Ok(Labelled::Missing) };
    let secret = if is_for_plugin(metadata.labels()) { api.get_opt(name).await? } else { None };
    Ok(match secret.filter(|secret| is_for_plugin(secret.labels())) {
        Some(secret) => Labelled::Content(Content(secret.data.unwrap_or_default())),
        None => Labelled::ForOthers,
    })
}
