//! What the controller publishes for the ingress: one Secret for each live callback URL, and one that says how the
//! controller itself is reached, in a namespace that holds nothing else. The ingress serves from these alone and never
//! reads a credential of an external system.

use http::HeaderName;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// Label of a published Secret; its value is `route`, `runner` or `controller`.
pub const PUBLISHED_LABEL: &str = "bellhop.dev/published";
/// Header with which the controller tells an ingress how long it may take to serve a route, as RFC 7240 has it: `wait=8`
/// is eight seconds.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
const KEY: &str = "route.json";

/// A live callback URL and what the ingress has to know of its Subscription.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedRoute {
    /// The unguessable last segment of the callback URL.
    pub token: String,
    /// The callback secrets, any of which proves the sender; more than one only while a secret is being rotated.
    pub callback_secrets: Vec<String>,
    /// UID of the Subscription.
    pub uid: Uuid,
    /// Namespace of the Subscription.
    pub namespace: String,
    /// Name of the Subscription.
    pub name: String,
    /// Name of its TriggerPlugin.
    pub plugin: String,
    /// The subscribed events, pinned at acceptance.
    pub events: Vec<String>,
    /// The callback URL as it was registered, where the external system signs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether the secret that callbacks are signed with from now on has still to be told, so that one which nothing proves
    /// may be genuine: it is to come back, and not to be lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_secret: bool,
}

/// Which Subscription's route, and with which content.
///
/// Only who knows the callback secrets can compute the digest, so it also proves that whoever asks for a route by it is
/// the controller that published it.
#[derive(Clone)]
pub struct RouteVersion {
    /// UID of the Subscription.
    pub uid: Uuid,
    /// SHA-256 of the content, in hexadecimal.
    pub digest: String,
}

impl PartialEq for RouteVersion {
    /// In a time that does not depend on where the digests differ.
    fn eq(&self, other: &Self) -> bool {
        self.uid == other.uid && bool::from(self.digest.as_bytes().ct_eq(other.digest.as_bytes()))
    }
}

impl PublishedRoute {
    /// Identifies the content.
    pub fn version(&self) -> RouteVersion {
        RouteVersion { uid: self.uid, digest: hex::encode(Sha256::digest(self.to_json())) }
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings are JSON")
    }

    /// Name of the Secret that publishes the route of the Subscription with this UID.
    pub fn secret_name(uid: Uuid) -> String {
        format!("route-{uid}")
    }

    /// The Secret that publishes this route in `namespace`.
    pub fn to_secret(&self, namespace: &str) -> Secret {
        let json = self.to_json();
        Secret {
            metadata: ObjectMeta {
                name: Some(Self::secret_name(self.uid)),
                namespace: Some(namespace.to_owned()),
                labels: Some(BTreeMap::from([(PUBLISHED_LABEL.to_owned(), "route".to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(json))])),
            type_: Some("bellhop.dev/route".to_owned()),
            ..Secret::default()
        }
    }

    /// Reads a published Secret.
    ///
    /// # Errors
    /// A line that says what is wrong with the Secret; it never contains its content.
    pub fn from_secret(secret: &Secret) -> Result<Self, String> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let json = secret.data.as_ref().and_then(|data| data.get(KEY)).ok_or(format!("Secret {name}: no key {KEY}"))?;
        serde_json::from_slice(&json.0).map_err(|_| format!("Secret {name}: the key {KEY} does not hold a route"))
    }
}

/// How the ingress knows the controller, and the controller the ingress.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedController {
    /// The authorities of the controller's certificate, as PEM, one after the other; more than one only while the
    /// authority is being replaced.
    pub authorities: String,
    /// What the ingress proves itself with to the controller, and the controller to the ingress.
    pub key: String,
    /// What the ingress' log listener serves with; an earlier version of the controller publishes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<PublishedIdentity>,
}

/// A certificate with its private key, both as PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedIdentity {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for PublishedIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedIdentity").finish_non_exhaustive()
    }
}

impl PublishedController {
    /// Name of the Secret that publishes it.
    pub const SECRET: &str = "controller";
    const KEY: &str = "controller.json";

    /// The Secret that publishes this in `namespace`.
    pub fn to_secret(&self, namespace: &str) -> Secret {
        let json = serde_json::to_vec(self).expect("strings are JSON");
        Secret {
            metadata: ObjectMeta {
                name: Some(Self::SECRET.to_owned()),
                namespace: Some(namespace.to_owned()),
                labels: Some(BTreeMap::from([(PUBLISHED_LABEL.to_owned(), "controller".to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(Self::KEY.to_owned(), ByteString(json))])),
            type_: Some("bellhop.dev/controller".to_owned()),
            ..Secret::default()
        }
    }

    /// Reads the published Secret.
    ///
    /// # Errors
    /// A line that says what is wrong with the Secret; it never contains its content.
    pub fn from_secret(secret: &Secret) -> Result<Self, String> {
        let json = secret.data.as_ref().and_then(|data| data.get(Self::KEY));
        let read = json.and_then(|json| serde_json::from_slice(&json.0).ok());
        read.ok_or(format!("Secret {}: the key {} does not say how the controller is reached", Self::SECRET, Self::KEY))
    }
}

impl std::fmt::Debug for PublishedController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedController").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for PublishedRoute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedRoute")
            .field("subscription", &format_args!("{}/{}", self.namespace, self.name))
            .field("uid", &self.uid)
            .field("plugin", &self.plugin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_survives_its_secret_and_is_not_debugged() {
        let route = PublishedRoute {
            token: "the-token".into(),
            callback_secrets: vec!["the-secret".into()],
            uid: Uuid::nil(),
            namespace: "team-a".into(),
            name: "acme-web".into(),
            plugin: "gitea".into(),
            awaits_secret: false,
            events: vec!["push".into()],
            url: None,
        };
        assert_eq!(PublishedRoute::from_secret(&route.to_secret("bellhop-ingress")).unwrap(), route);
        let other = PublishedRoute { callback_secrets: vec!["another".into()], ..route.clone() };
        assert!(route.version() == route.version() && route.version() != other.version());
        let debug = format!("{route:?}");
        assert!(!debug.contains("the-token") && !debug.contains("the-secret"), "{debug}");
    }

    #[test]
    fn the_controller_survives_its_secret_and_is_not_debugged() {
        let log = Some(PublishedIdentity { certificate: "PEM".into(), key: "hunter3".into() });
        let published = PublishedController { authorities: "PEM".into(), key: "hunter2".into(), log };
        let secret = published.to_secret("bellhop-ingress");
        assert_eq!(PublishedController::from_secret(&secret).unwrap(), published);
        assert!(!format!("{published:?} {:?}", published.log).contains("hunter"));
        let error = PublishedController::from_secret(&Secret::default()).unwrap_err();
        assert!(error.contains("controller.json"), "{error}");
    }

    #[test]
    fn a_broken_secret_is_an_error_without_content() {
        let data = Some(BTreeMap::from([(KEY.to_owned(), ByteString(b"hunter2".to_vec()))]));
        let secret = Secret { data, ..Secret::default() };
        let error = PublishedRoute::from_secret(&secret).unwrap_err();
        assert!(error.contains("does not hold a route") && !error.contains("hunter2"), "{error}");
    }
}
