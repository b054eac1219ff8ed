//! Public keys of external systems that the controller has fetched: one Secret for each JWK Set, beside the routes. Nothing in
//! it is secret, but the ingress reads one kind of object alone.

use super::PUBLISHED_LABEL;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const KEY: &str = "keys.json";
/// Begins the name of such a Secret.
const PREFIX: &str = "keys-";

/// The public keys of one JWK Set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedKeys {
    /// Where they were fetched.
    pub url: String,
    /// The JWK Set, with those of its keys that prove something.
    pub jwks: Value,
}

impl PublishedKeys {
    /// Name of the Secret that publishes the keys at this URL.
    pub fn secret_name(url: &str) -> String {
        format!("{PREFIX}{}", &hex::encode(Sha256::digest(url))[..40])
    }

    /// Whether a Secret has the name of one that publishes keys.
    pub fn is_name(secret_name: &str) -> bool {
        secret_name.starts_with(PREFIX)
    }

    /// Label selector of such Secrets.
    pub fn selector() -> String {
        format!("{PUBLISHED_LABEL}=keys")
    }

    /// The Secret that publishes these keys in `namespace`.
    pub fn to_secret(&self, namespace: &str) -> Secret {
        let json = serde_json::to_vec(self).expect("strings are JSON");
        Secret {
            metadata: ObjectMeta {
                name: Some(Self::secret_name(&self.url)),
                namespace: Some(namespace.to_owned()),
                labels: Some(BTreeMap::from([(PUBLISHED_LABEL.to_owned(), "keys".to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(json))])),
            type_: Some("bellhop.dev/keys".to_owned()),
            ..Secret::default()
        }
    }

    /// Reads such a Secret.
    ///
    /// # Errors
    /// A line that says what is wrong with the Secret.
    pub fn from_secret(secret: &Secret) -> Result<Self, String> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let json = secret.data.as_ref().and_then(|data| data.get(KEY));
        let keys: Option<Self> = json.and_then(|json| serde_json::from_slice(&json.0).ok());
        keys.filter(|keys| Self::secret_name(&keys.url) == name)
            .ok_or(format!("Secret {name}: the key {KEY} does not hold public keys"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_secret() {
        let url = "https://keys.example/jwks".to_owned();
        let keys = PublishedKeys { url, jwks: serde_json::json!({"keys": [{"kty": "RSA"}]}) };
        let mut secret = keys.to_secret("bellhop-ingress");
        assert_eq!(PublishedKeys::from_secret(&secret), Ok(keys));
        assert!(PublishedKeys::is_name(secret.metadata.name.as_deref().unwrap()));
        // Keys of one place must not pass for those of another.
        secret.metadata.name = Some(PublishedKeys::secret_name("https://other.example/jwks"));
        assert!(PublishedKeys::from_secret(&secret).is_err());
    }
}
