//! What the controller keeps of an accepted Subscription, in a Secret of Bellhop's own namespace: everything that its
//! deletion needs, so that a workspace can be deleted in one go, and the callback secret from before the create call.
//!
//! Times are milliseconds since the Unix epoch.

mod document;
mod secrets;
#[cfg(test)]
mod tests;
mod vault;
mod webhook;

pub use secrets::{Capture, Retired, SecretOrigin};
pub use vault::{AUTHORIZATION_VERSION_ANNOTATION, CUSTODY_LABEL, SUBSCRIPTION_ANNOTATION, Stored, Vault, read};
pub use webhook::{WebhookRecord, WebhookState};

use crate::api::{Subscription, SubscriptionSpec};
use crate::controller::authorization::AuthorizationRecord;
use crate::plugin::{Credentials, Secret};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The controller's memory of one accepted Subscription.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Custody {
    /// UID of the Subscription.
    pub uid: Uuid,
    /// Namespace of the Subscription.
    pub namespace: String,
    /// Name of the Subscription.
    pub name: String,
    /// The spec as it was accepted.
    pub accepted: SubscriptionSpec,
    /// The events, pinned at acceptance.
    pub events: Vec<String>,
    /// The unguessable last segment of the callback URL.
    pub token: String,

    /// The secret that proves callbacks; empty while an external system, or a user, has still to tell it, and where each
    /// webhook has one of its own.
    pub callback_secret: String,
    /// Who chooses the callback secret.
    #[serde(default)]
    pub secret_origin: SecretOrigin,
    /// Number of the callback secret; a webhook with a lower one does not have it yet.
    #[serde(default)]
    pub secret_version: u32,
    /// Callback secrets that are still accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub previous_secrets: Vec<Retired>,
    /// The value of the annotation that asks for a rotation, which was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<String>,

    /// The credentials that the external system confirmed last; they delete the webhook when the workspace is gone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, String>,
    /// The account of these credentials, as the external system names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// For OAuth: the client, an open link, a consent under way, the grant.
    #[serde(default)]
    pub authorization: AuthorizationRecord,
    /// For OAuth: the version of the authorization that the external system has confirmed by `verify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<u64>,

    /// What the calls before the first create call have captured.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub setup: BTreeMap<String, String>,
    /// How many of these calls were made.
    #[serde(default)]
    pub prepared: usize,
    /// What is known of the webhooks: one for each event where the external system needs that, else at most one; and,
    /// while one is being replaced, the old and the new one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<WebhookRecord>,
    /// What was found wrong with a webhook and mended, in words; until it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
}

impl Custody {
    /// Name of the Secret that keeps the Subscription with this UID.
    pub fn secret_name(uid: Uuid) -> String {
        format!("custody-{uid}")
    }

    /// Whether the Subscription still is what was accepted.
    ///
    /// The Subscription has already been decoded to today's type, as the accepted spec has, so that a field with a
    /// default that a newer version adds is not a change.
    pub fn matches(&self, subscription: &Subscription) -> bool {
        self.accepted == subscription.spec
    }

    /// A name that is this Subscription's alone, for external systems in which the caller names a webhook:
    /// `bellhop-` and 16 hexadecimal digits. It is derived from the callback URL's token, so it outlives the cluster as
    /// the URL does, and does not tell it.
    pub fn callback_name(&self) -> String {
        format!("bellhop-{}", &hex::encode(Sha256::digest(self.token.as_bytes()))[..16])
    }

    /// The credentials for calls to the external system.
    pub fn plugin_credentials(&self) -> Credentials {
        if let Some(token) = self.authorization.access_token() {
            let client_secret = Secret::from(self.authorization.client_secret.clone());
            return Credentials::AccessToken { token: Secret::from(token.to_owned()), client_secret };
        }
        if self.credentials.is_empty() {
            return Credentials::None;
        }
        let secret = |(key, value): (&String, &String)| (key.clone(), Secret::from(value.clone()));
        Credentials::ApiKey(self.credentials.iter().map(secret).collect())
    }

    /// Everything in here that must not be printed, besides the callback URL.
    pub fn everything_secret(&self) -> Vec<Secret> {
        let of_user = self.credentials.values().map(String::as_str);
        let of_oauth = self.authorization.secrets().into_iter();
        let own = self.secrets();
        of_user
            .chain(of_oauth)
            .chain(own.iter().map(String::as_str))
            .map(|text| Secret::from(text.to_owned()))
            .collect()
    }
}

impl std::fmt::Debug for Custody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Custody")
            .field("subscription", &format_args!("{}/{}", self.namespace, self.name))
            .field("uid", &self.uid)
            .field("webhooks", &self.webhooks)
            .finish_non_exhaustive()
    }
}
