//! Reads and writes custodies.

use super::{Capture, Custody, document};
use crate::controller::{Failure, ignore_not_found};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Label of a Secret that is a custody; its value is always `subscription`.
pub const CUSTODY_LABEL: &str = "bellhop.dev/custody";
/// Annotation of a custody that names its Subscription, as `namespace/name`.
pub const SUBSCRIPTION_ANNOTATION: &str = "bellhop.dev/subscription";
/// Annotation of a custody whose value changes when somebody else than the Subscription's own pass has written an
/// authorization or a callback secret into it. The controller follows it.
pub const AUTHORIZATION_VERSION_ANNOTATION: &str = "bellhop.dev/authorization-version";
const KEY: &str = "custody.json";
/// How often a change is made again when others write at the same moment.
const MOST_CONFLICTS: usize = 10;

/// A custody together with the version of the Secret that it was read from.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The content.
    pub custody: Custody,
    resource_version: Option<String>,
    authorization_version: Option<String>,
}

impl Stored {
    /// The version of the Secret; it differs after every write.
    pub fn resource_version(&self) -> Option<&str> {
        self.resource_version.as_deref()
    }
}

/// Reads and writes custodies. Every read asks the API server, every write carries the version that was read.
///
/// Cheap to clone. Every replica of the controller may use it, also one that does not hold the Lease.
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
        match self.api.create(&PostParams::default(), &self.secret(&custody, None, None)).await {
            Ok(secret) => read(&secret),
            Err(kube::Error::Api(status)) if status.is_already_exists() => self
                .get(custody.uid)
                .await?
                .ok_or_else(|| Failure::Conflict(format!("custody of {}/{}", custody.namespace, custody.name))),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a changed custody, once. For a decision that holds only for what was read, such as taking a flow that may be
    /// used once; outcomes are stored with [`update`](Self::update). A change that concerns the authorization or the
    /// callback secret wakes the Subscription's pass.
    ///
    /// # Errors
    /// [`Failure::Conflict`] if it was written by somebody else since it was read; the API server failed.
    pub async fn replace(&self, stored: &Stored, custody: Custody) -> Result<Stored, Failure> {
        let version = match wakes(&stored.custody, &custody) {
            true => Some(Uuid::new_v4().to_string()),
            false => stored.authorization_version.clone(),
        };
        self.write(stored, custody, version).await
    }

    /// Changes a custody, beginning with what was read. If somebody else has written it since, it is read again and the
    /// change is made again to what they wrote, so that neither is lost. Whatever came of an external call is stored so.
    ///
    /// A change that concerns the authorization or the callback secret wakes the Subscription's pass.
    ///
    /// # Errors
    /// [`Failure::Conflict`] if the custody is gone, or others write it all the time; the API server failed.
    pub fn update<'a>(
        &'a self,
        stored: &'a Stored,
        change: impl FnMut(&mut Custody) + Send + 'a,
    ) -> BoxFuture<'a, Result<Stored, Failure>> {
        self.change(stored, change, true).boxed()
    }

    /// The same for the Subscription's own pass, which need not be woken.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn record<'a>(
        &'a self,
        stored: &'a Stored,
        change: impl FnMut(&mut Custody) + Send + 'a,
    ) -> BoxFuture<'a, Result<Stored, Failure>> {
        self.change(stored, change, false).boxed()
    }

    /// Takes a callback secret that an external system has told in a handshake; nothing if there is no such Subscription.
    /// The Subscription's pass is woken, and publishes it.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn capture(&self, uid: Uuid, secret: &str) -> Result<Option<Capture>, Failure> {
        let Some(stored) = self.get(uid).await? else { return Ok(None) };
        let mut outcome = Capture::Refused;
        self.update(&stored, |custody| outcome = custody.capture_secret(secret)).await?;
        Ok(Some(outcome))
    }

    async fn change(
        &self,
        stored: &Stored,
        mut change: impl FnMut(&mut Custody),
        wake: bool,
    ) -> Result<Stored, Failure> {
        let mut base = stored.clone();
        for _ in 0..MOST_CONFLICTS {
            let mut custody = base.custody.clone();
            change(&mut custody);
            if custody == base.custody {
                return Ok(base);
            }
            let version = match wake && wakes(&base.custody, &custody) {
                true => Some(Uuid::new_v4().to_string()),
                false => base.authorization_version.clone(),
            };
            match self.write(&base, custody, version).await {
                Err(Failure::Conflict(_)) => {
                    base = self.get(base.custody.uid).await?.ok_or_else(|| conflict(&stored.custody))?;
                }
                written => return written,
            }
        }
        Err(conflict(&stored.custody))
    }

    async fn write(&self, stored: &Stored, custody: Custody, version: Option<String>) -> Result<Stored, Failure> {
        let secret = self.secret(&custody, stored.resource_version.clone(), version.clone());
        let written = self.api.replace(&secret.name_any(), &PostParams::default(), &secret).await?;
        let resource_version = written.metadata.resource_version;
        Ok(Stored { custody, resource_version, authorization_version: version })
    }

    /// Removes the custody; that it is gone already is success.
    ///
    /// # Errors
    /// The API server failed.
    pub async fn remove(&self, uid: Uuid) -> Result<(), Failure> {
        ignore_not_found(self.api.delete(&Custody::secret_name(uid), &DeleteParams::default()).await)
    }

    fn secret(&self, custody: &Custody, resource_version: Option<String>, version: Option<String>) -> Secret {
        let json = serde_json::to_vec(custody).expect("a custody is JSON");
        let subscription = format!("{}/{}", custody.namespace, custody.name);
        let version = version.map(|version| (AUTHORIZATION_VERSION_ANNOTATION.to_owned(), version));
        let annotations = std::iter::once((SUBSCRIPTION_ANNOTATION.to_owned(), subscription)).chain(version);
        Secret {
            metadata: ObjectMeta {
                name: Some(Custody::secret_name(custody.uid)),
                namespace: Some(self.namespace.clone()),
                resource_version,
                labels: Some(BTreeMap::from([(CUSTODY_LABEL.to_owned(), "subscription".to_owned())])),
                annotations: Some(annotations.collect()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(json))])),
            type_: Some("bellhop.dev/custody".to_owned()),
            ..Secret::default()
        }
    }
}

/// Whether the Subscription's pass has something to do after this change by somebody else.
fn wakes(before: &Custody, after: &Custody) -> bool {
    before.callback_secret != after.callback_secret || before.authorization.version != after.authorization.version
}

fn conflict(custody: &Custody) -> Failure {
    Failure::Conflict(format!("custody of {}/{}", custody.namespace, custody.name))
}

/// Reads a custody's Secret.
///
/// # Errors
/// [`Failure::Unreadable`] names the Secret, never its content.
pub fn read(secret: &Secret) -> Result<Stored, Failure> {
    let json = secret.data.as_ref().and_then(|data| data.get(KEY));
    match json.and_then(|json| document::parse(&json.0).ok()) {
        Some(custody) => Ok(Stored {
            custody,
            resource_version: secret.metadata.resource_version.clone(),
            authorization_version: secret.annotations().get(AUTHORIZATION_VERSION_ANNOTATION).cloned(),
        }),
        None => Err(Failure::Unreadable(format!(
            "Secret {}/{}: the key {KEY} does not hold a custody",
            secret.namespace().unwrap_or_default(),
            secret.name_any()
        ))),
    }
}
