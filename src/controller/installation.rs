//! What is made once for an installation: its namespaces and its key.

use super::Failure;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use sha2::Sha256;
use std::collections::BTreeMap;

/// Name of the Secret with the installation key. Whoever restores it in a new cluster gets the same callback URLs.
pub const KEY_SECRET: &str = "bellhop-installation-key";
const KEY: &str = "key";

/// The key that callback URLs are derived from.
#[derive(Clone)]
pub struct InstallationKey(Vec<u8>);

impl InstallationKey {
    /// The last segment of a Subscription's callback URL: 32 bytes in base64url that nobody without the key can guess.
    pub fn token(&self, namespace: &str, name: &str, plugin: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        // None of the parts can hold a NUL, so no two Subscriptions have the same input.
        for part in ["bellhop callback v1", namespace, name, plugin] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

/// A new random secret: 32 bytes in base64url.
pub fn random_secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

/// Makes the namespaces that are missing.
///
/// # Errors
/// The API server failed, or Bellhop may neither read nor create them.
pub async fn ensure_namespaces(client: &kube::Client, names: &[&str]) -> Result<(), Failure> {
    let api = Api::<Namespace>::all(client.clone());
    for name in names {
        if api.get_opt(name).await?.is_some() {
            continue;
        }
        let metadata = ObjectMeta { name: Some((*name).to_owned()), ..ObjectMeta::default() };
        match api.create(&PostParams::default(), &Namespace { metadata, ..Namespace::default() }).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            other => drop(other?),
        }
    }
    Ok(())
}

/// Reads the installation key, or makes it at the first start.
///
/// # Errors
/// The API server failed, or the Secret has no key of at least 32 bytes.
pub async fn ensure_key(client: &kube::Client, namespace: &str) -> Result<InstallationKey, Failure> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    if api.get_opt(KEY_SECRET).await?.is_none() {
        let secret = Secret {
            metadata: ObjectMeta { name: Some(KEY_SECRET.to_owned()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(rand::random::<[u8; 32]>().to_vec()))])),
            ..Secret::default()
        };
        match api.create(&PostParams::default(), &secret).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            other => drop(other?),
        }
    }
    let secret = api.get(KEY_SECRET).await?;
    match secret.data.and_then(|mut data| data.remove(KEY)) {
        Some(ByteString(key)) if key.len() >= 32 => Ok(InstallationKey(key)),
        _ => Err(Failure::Unreadable(format!(
            "Secret {namespace}/{KEY_SECRET}: the key `{KEY}` must hold at least 32 bytes; restore it from your backup, \
             or delete the Secret to get new callback URLs for all Subscriptions"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_depends_on_every_part_and_on_nothing_else() {
        let key = InstallationKey(vec![7; 32]);
        let token = key.token("team-a", "web", "gitea");
        assert_eq!(token, key.token("team-a", "web", "gitea"));
        assert_eq!(token.len(), 43);
        assert_ne!(token, key.token("team-a", "webg", "itea"));
        assert_ne!(token, key.token("team-b", "web", "gitea"));
        assert_ne!(token, InstallationKey(vec![8; 32]).token("team-a", "web", "gitea"));
    }
}
