//! What the ingress needs of a runner's Secrets: one Secret for each WorkflowTrigger that has any, beside the routes.

use super::{PUBLISHED_LABEL, Runner};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use uuid::Uuid;

const KEY: &str = "runner.json";
/// Says which trigger such a Secret is for: namespace and name, so that its content need not be read to know.
const TRIGGER_ANNOTATION: &str = "bellhop.dev/trigger";
/// Begins the name of such a Secret.
const PREFIX: &str = "runner-";
/// Begins a signing secret that is written in base64, as Standard Webhooks has it.
const WHSEC: &str = "whsec_";

/// The credentials and the signing key of a runner.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedRunner {
    /// UID of the WorkflowTrigger.
    pub uid: Uuid,
    /// Namespace of the WorkflowTrigger.
    pub namespace: String,
    /// Name of the WorkflowTrigger.
    pub name: String,
    /// Which runner they may be sent to: see [`PublishedRunner::is_for`].
    pub runner: String,
    /// The credentials that the runner's headers use, by their keys.
    #[serde(default)]
    pub credentials: BTreeMap<String, String>,
    /// The key that requests are signed with, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
}

impl PublishedRunner {
    /// Secrets for the WorkflowTrigger with this UID, namespace and name, and for exactly this runner.
    pub fn new(uid: Uuid, namespace: &str, name: &str, runner: &Runner) -> Self {
        Self {
            uid,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            runner: digest(runner),
            credentials: BTreeMap::new(),
            signing_key: None,
        }
    }

    /// Whether these are the secrets of exactly this runner.
    ///
    /// Triggers and published Secrets arrive by different watches. Without a look at this, the credentials of the runner
    /// that a trigger had could be sent to the one that it has.
    pub fn is_for(&self, runner: &Runner) -> bool {
        self.runner == digest(runner)
    }

    /// The key that requests are signed with; nothing if there is none.
    pub fn signing_key(&self) -> Option<Vec<u8>> {
        BASE64_STANDARD.decode(self.signing_key.as_ref()?).ok().filter(|key| !key.is_empty())
    }

    /// Takes a signing secret as a person has written it: `whsec_` and base64, or the secret itself.
    ///
    /// # Errors
    /// What is wrong with it, without its content.
    pub fn set_signing_secret(&mut self, secret: &str) -> Result<(), &'static str> {
        let key = match secret.strip_prefix(WHSEC) {
            Some(encoded) => BASE64_STANDARD.decode(encoded).map_err(|_| "what follows whsec_ is not base64")?,
            None => secret.as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err("it is empty");
        }
        self.signing_key = Some(BASE64_STANDARD.encode(key));
        Ok(())
    }

    /// Name of the Secret that publishes the secrets of the WorkflowTrigger with this UID.
    pub fn secret_name(uid: Uuid) -> String {
        format!("{PREFIX}{uid}")
    }

    /// The UID in the name of such a Secret.
    pub fn uid_in(secret_name: &str) -> Option<Uuid> {
        let uid = secret_name.strip_prefix(PREFIX)?.parse().ok()?;
        (Self::secret_name(uid) == secret_name).then_some(uid)
    }

    /// Namespace and name of the WorkflowTrigger that such a Secret is for.
    pub fn trigger_of<K: ResourceExt>(secret: &K) -> Option<(&str, &str)> {
        secret.annotations().get(TRIGGER_ANNOTATION)?.split_once('/')
    }

    /// Label selector of such Secrets.
    pub fn selector() -> String {
        format!("{PUBLISHED_LABEL}=runner")
    }

    /// The Secret that publishes these secrets in `namespace`.
    pub fn to_secret(&self, namespace: &str) -> Secret {
        let json = serde_json::to_vec(self).expect("strings are JSON");
        let trigger = format!("{}/{}", self.namespace, self.name);
        Secret {
            metadata: ObjectMeta {
                name: Some(Self::secret_name(self.uid)),
                namespace: Some(namespace.to_owned()),
                labels: Some(BTreeMap::from([(PUBLISHED_LABEL.to_owned(), "runner".to_owned())])),
                annotations: Some(BTreeMap::from([(TRIGGER_ANNOTATION.to_owned(), trigger)])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(json))])),
            type_: Some("bellhop.dev/runner".to_owned()),
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
        let read: Self = serde_json::from_slice(&json.0)
            .map_err(|_| format!("Secret {name}: the key {KEY} does not hold the secrets of a runner"))?;
        match Self::secret_name(read.uid) == name {
            true => Ok(read),
            false => Err(format!("Secret {name}: it holds the secrets of another trigger than its name says")),
        }
    }
}

/// Identifies everything that is said of a runner.
fn digest(runner: &Runner) -> String {
    hex::encode(Sha256::digest(serde_json::to_vec(runner).expect("strings are JSON")))
}

impl std::fmt::Debug for PublishedRunner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedRunner")
            .field("trigger", &format_args!("{}/{}", self.namespace, self.name))
            .field("uid", &self.uid)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(url: &str) -> Runner {
        Runner { url: Some(url.to_owned()), ..Runner::default() }
    }

    fn published() -> PublishedRunner {
        let mut published = PublishedRunner::new(Uuid::from_u128(7), "team-a", "review", &runner("http://a/"));
        published.credentials.insert("token".into(), "hunter2".into());
        published.set_signing_secret("whsec_aHVudGVyMw==").unwrap();
        published
    }

    #[test]
    fn secrets_survive_publication_and_are_not_debugged() {
        let secret = published().to_secret("bellhop-ingress");
        assert_eq!(PublishedRunner::uid_in(secret.metadata.name.as_deref().unwrap()), Some(Uuid::from_u128(7)));
        assert_eq!(PublishedRunner::trigger_of(&secret), Some(("team-a", "review")));
        assert_eq!(PublishedRunner::from_secret(&secret).unwrap(), published());
        let debug = format!("{:?}", published());
        assert!(!debug.contains("hunter2") && !debug.contains("aHVudGVyMw"), "{debug}");
        for name in ["runner-", "runner-x", "route-00000000-0000-0000-0000-000000000007", "runner"] {
            assert_eq!(PublishedRunner::uid_in(name), None, "{name}");
        }
    }

    #[test]
    fn a_broken_or_misnamed_secret_is_an_error_without_content() {
        let data = Some(BTreeMap::from([(KEY.to_owned(), ByteString(b"hunter2".to_vec()))]));
        let error = PublishedRunner::from_secret(&Secret { data, ..Secret::default() }).unwrap_err();
        assert!(error.contains("does not hold") && !error.contains("hunter2"), "{error}");
        let mut misnamed = published().to_secret("bellhop-ingress");
        misnamed.metadata.name = Some(PublishedRunner::secret_name(Uuid::from_u128(8)));
        assert!(PublishedRunner::from_secret(&misnamed).unwrap_err().contains("another trigger"));
        assert!(PublishedRunner::from_secret(&Secret::default()).is_err());
    }

    #[test]
    fn secrets_are_for_one_runner() {
        assert!(published().is_for(&runner("http://a/")));
        assert!(!published().is_for(&runner("http://b/")));
        let mut changed = runner("http://a/");
        changed.headers.insert("x-copy".into(), "credentials.token".into());
        assert!(!published().is_for(&changed));
    }

    #[test]
    fn signing_secrets_are_base64_with_a_prefix_or_themselves() {
        let mut published = published();
        assert_eq!(published.signing_key().unwrap(), b"hunter3");
        published.set_signing_secret("plain").unwrap();
        assert_eq!(published.signing_key().unwrap(), b"plain");
        for wrong in ["", "whsec_", "whsec_%%%"] {
            assert!(published.set_signing_secret(wrong).is_err(), "{wrong}");
        }
        assert_eq!(published.signing_key().unwrap(), b"plain", "a mistake changes nothing");
    }
}
