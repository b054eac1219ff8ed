//! What the controller keeps of an accepted Subscription, in a Secret of Bellhop's own namespace: everything that its
//! deletion needs, so that a workspace can be deleted in one go, and the callback secret from before the create call.

use super::Failure;
use crate::api::{Subscription, SubscriptionSpec};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Label of a Secret that is a custody; its value is always `subscription`.
pub const CUSTODY_LABEL: &str = "bellhop.dev/custody";
const KEY: &str = "custody.json";

/// What is known of the webhook in the external system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WebhookState {
    /// No create call was ever made.
    #[default]
    None,
    /// A create call was or is about to be made; whether it arrived is not known.
    Creating,
    /// The webhook exists, with this Subscription's callback URL and secret.
    Registered {
        /// The external system's id of the webhook.
        id: String,
    },
}

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
    /// The secret that proves callbacks.
    pub callback_secret: String,
    /// The credentials that the external system confirmed last; they delete the webhook when the workspace is gone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, String>,
    /// The account of these credentials, as the external system names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// What is known of the webhook.
    #[serde(default)]
    pub webhook: WebhookState,
    /// What is known of the authorization by OAuth.
    #[serde(default)]
    pub authorization: super::authorization::AuthorizationRecord,
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
}

impl std::fmt::Debug for Custody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Custody")
            .field("subscription", &format_args!("{}/{}", self.namespace, self.name))
            .field("uid", &self.uid)
            .field("webhook", &self.webhook)
            .finish_non_exhaustive()
    }
}

/// A custody together with the version of the Secret that it was read from.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The content.
    pub custody: Custody,
    resource_version: Option<String>,
}

/// Reads and writes custodies. Every read asks the API server, every write carries the version that was read.
#[derive(Clone)]
pub struct Vault {
    api: Api<Secret>,
    namespace: String,
}

impl Vault {
    /// The vault in `namespace`.
    pub fn new(client: kube::Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    /// The custody of the Subscription with this UID, if there is one.
    ///
    /// # Errors
    /// The API server failed, or the Secret does not hold a custody.
    pub async fn get(&self, uid: Uuid) -> Result<Option<Stored>, Failure> {
        self.api.get_opt(&Custody::secret_name(uid)).await?.map(|secret| read(&secret)).transpose()
    }

    /// Creates the custody; if another process has created it meanwhile, gives that one.
    ///
    /// # Errors
    /// The API server failed.
    pub async fn create(&self, custody: Custody) -> Result<Stored, Failure> {
        match self.api.create(&PostParams::default(), &self.secret(&custody, None)).await {
            Ok(secret) => read(&secret),
            Err(kube::Error::Api(status)) if status.is_already_exists() => self
                .get(custody.uid)
                .await?
                .ok_or_else(|| Failure::Conflict(format!("custody of {}/{}", custody.namespace, custody.name))),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a changed custody.
    ///
    /// # Errors
    /// [`Failure::Conflict`] if it was written by somebody else since it was read; the API server failed.
    pub async fn replace(&self, stored: &Stored, custody: Custody) -> Result<Stored, Failure> {
        let secret = self.secret(&custody, stored.resource_version.clone());
        let written = self.api.replace(&secret.name_any(), &PostParams::default(), &secret).await?;
        Ok(Stored { custody, resource_version: written.metadata.resource_version })
    }

    /// Removes the custody; that it is gone already is success.
    ///
    /// # Errors
    /// The API server failed.
    pub async fn remove(&self, uid: Uuid) -> Result<(), Failure> {
        super::ignore_not_found(self.api.delete(&Custody::secret_name(uid), &DeleteParams::default()).await)
    }

    fn secret(&self, custody: &Custody, resource_version: Option<String>) -> Secret {
        let json = serde_json::to_vec(custody).expect("a custody is JSON");
        Secret {
            metadata: ObjectMeta {
                name: Some(Custody::secret_name(custody.uid)),
                namespace: Some(self.namespace.clone()),
                resource_version,
                labels: Some(BTreeMap::from([(CUSTODY_LABEL.to_owned(), "subscription".to_owned())])),
                annotations: Some(BTreeMap::from([(
                    "bellhop.dev/subscription".to_owned(),
                    format!("{}/{}", custody.namespace, custody.name),
                )])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(json))])),
            type_: Some("bellhop.dev/custody".to_owned()),
            ..Secret::default()
        }
    }
}

/// Reads a custody's Secret.
///
/// # Errors
/// [`Failure::Unreadable`] names the Secret, never its content.
pub fn read(secret: &Secret) -> Result<Stored, Failure> {
    let json = secret.data.as_ref().and_then(|data| data.get(KEY));
    let custody = json.and_then(|json| serde_json::from_slice(&json.0).ok());
    match custody {
        Some(custody) => Ok(Stored { custody, resource_version: secret.metadata.resource_version.clone() }),
        None => Err(Failure::Unreadable(format!(
            "Secret {}/{}: the key {KEY} does not hold a custody",
            secret.namespace().unwrap_or_default(),
            secret.name_any()
        ))),
    }
}
