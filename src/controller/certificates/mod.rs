//! The certificate of the internal listener. The controller is its own authority: nothing else has to be installed, and
//! nobody else is trusted.
//!
//! Everything lies in one Secret of Bellhop's namespace. Any replica renews what is due, with the version that it has read,
//! so that all agree; each follows the Secret and takes up what another has renewed. What clients need, the authorities and
//! the key with which the ingress proves itself, is published by the controller that holds the Lease (`publish.rs`).

mod clients;
mod issue;
mod plan;
mod publish;

pub use clients::Whoever;
pub use publish::{Objects, publish};

use super::{Failure, backoff};
use crate::api::{PublishedController, PublishedIdentity};
use crate::log::SERVER_NAME;
use crate::telemetry::Metrics;
use arc_swap::ArcSwapOption;
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Name of the Secret that holds authority, certificate and key.
pub const SECRET: &str = "bellhop-certificates";
const KEY: &str = "certificates.json";

/// How long certificates are valid; renewed when two thirds are over.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// The authority.
    pub authority: Duration,
    /// The certificate that the listener shows.
    pub leaf: Duration,
}

/// When something is valid, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// When it was made.
    pub from: i64,
    /// When it ends.
    pub until: i64,
}

impl Period {
    fn new(now: i64, life: Duration) -> Self {
        Self { from: now, until: now.saturating_add(i64::try_from(life.as_secs()).unwrap_or(i64::MAX)) }
    }

    /// When two thirds are over.
    fn due(&self) -> i64 {
        self.from.saturating_add(self.until.saturating_sub(self.from) / 3 * 2)
    }

    fn is_over(&self, now: i64) -> bool {
        now >= self.until
    }
}

/// A certificate with its private key, both as PEM.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    pem: String,
    key: String,
    period: Period,
}

/// An authority of before, without its key: what it has signed is still believed.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Former {
    pem: String,
    until: i64,
}

/// What the internal listener is, to those that talk to it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    authority: Certificate,
    #[serde(default)]
    former: Vec<Former>,
    leaf: Certificate,
    names: BTreeSet<String>,
    key: String,
    /// The certificate of the ingress' log listener, for [`SERVER_NAME`]; renewed together with the other one. An earlier
    /// version has made none.
    #[serde(default)]
    ingress: Option<Certificate>,
}

impl Identity {
    /// The authorities that clients have to believe, as PEM, one after the other.
    pub fn bundle(&self) -> String {
        let former = self.former.iter().map(|former| former.pem.as_str());
        std::iter::once(self.authority.pem.as_str()).chain(former).map(|pem| format!("{}\n", pem.trim_end())).collect()
    }

    /// What the ingress proves itself with.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What the ingress has to know.
    pub fn published(&self) -> PublishedController {
        let log = self.ingress.as_ref();
        let log = log.map(|leaf| PublishedIdentity { certificate: leaf.pem.clone(), key: leaf.key.clone() });
        PublishedController { authorities: self.bundle(), key: self.key.clone(), log }
    }

    /// The path under which the API server asks about objects, `/admission/<token>`. Nobody else is told the token. It is
    /// derived, so that all replicas agree and nothing more has to be stored; the ingress, which has the key, could derive
    /// it too, and whoever learns the token does not learn the key.
    pub fn admission_path(&self) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_bytes()).expect("HMAC takes keys of every length");
        mac.update(b"bellhop admission v1");
        // The API server takes only lower case letters, digits, dots and dashes in such a path.
        format!("/admission/{}", hex::encode(mac.finalize().into_bytes()))
    }

    /// What rustls serves with.
    fn certified(&self) -> anyhow::Result<CertifiedKey> {
        let chain = vec![CertificateDer::from_pem_slice(self.leaf.pem.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(self.leaf.key.as_bytes())?;
        Ok(CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?)
    }

    fn to_secret(&self, resource_version: Option<String>) -> SecretObject {
        let json = serde_json::to_vec(self).expect("an identity is JSON");
        SecretObject {
            metadata: ObjectMeta { name: Some(SECRET.to_owned()), resource_version, ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(json))])),
            type_: Some("bellhop.dev/certificates".to_owned()),
            ..SecretObject::default()
        }
    }

    fn from_secret(secret: &SecretObject) -> Option<Self> {
        let identity: Self = serde_json::from_slice(&secret.data.as_ref()?.get(KEY)?.0).ok()?;
        // A Secret that somebody has edited must not end in a listener that nobody can talk to.
        identity.certified().ok().map(|_| identity)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("authority", &self.authority.period)
            .field("leaf", &self.leaf.period)
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// Where the newest identity is found; nothing until it was read or made for the first time.
pub type Newest = watch::Receiver<Option<Arc<Identity>>>;

/// Reads, makes and renews the identity.
pub struct Keeper {
    api: Api<SecretObject>,
    names: BTreeSet<String>,
    lives: Lives,
    metrics: Metrics,
    newest: watch::Sender<Option<Arc<Identity>>>,
}

impl Keeper {
    /// A keeper for the Secret in `namespace`; the certificate is for `names` (DNS names and addresses).
    pub fn new(
        client: kube::Client,
        namespace: &str,
        names: BTreeSet<String>,
        lives: Lives,
        metrics: Metrics,
    ) -> (Self, Newest) {
        let (newest, receiver) = watch::channel(None);
        (Self { api: Api::namespaced(client, namespace), names, lives, metrics, newest }, receiver)
    }

    /// Keeps the identity for ever; to stop it, drop it.
    pub async fn run(self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={SECRET}"));
        let mut changes = std::pin::pin!(crate::watch::watch(vec![self.api.clone()], &config, "Secret", &self.metrics));
        let mut failures = 0;
        loop {
            let pause = match self.pass().await {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                // Another replica was faster: the next pass reads what it has made.
                Err(Failure::Conflict(_)) => backoff(1),
                Err(failure) => {
                    failures += 1;
                    tracing::warn!(error = %failure, "the certificate of the internal listener cannot be kept");
                    backoff(failures)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = changes.next() => {}
            }
        }
    }

    /// Does what is due, and says how long nothing will be.
    async fn pass(&self) -> Result<Duration, Failure> {
        let secret = self.api.get_opt(SECRET).await?;
        let mut stored = secret.as_ref().and_then(Identity::from_secret);
        if secret.is_some() && stored.is_none() {
            tracing::warn!("Secret {SECRET}: it does not hold what Bellhop has put there, and is made anew");
        }
        let now = unix_seconds();
        let step = plan::plan(now, stored.as_ref(), &self.names);
        let pause = match step {
            plan::Step::Keep(pause) => pause,
            step => {
                tracing::info!(?step, "renewing the certificate of the internal listener");
                let made = issue::carry_out(step, stored, &self.names, now, self.lives).map_err(|error| {
                    Failure::Unreadable(format!("the certificate of the internal listener cannot be made: {error}"))
                })?;
                let version = secret.and_then(|secret| secret.metadata.resource_version);
                self.write(&made, version).await?;
                stored = Some(made);
                // The next pass says when it is due again.
                Duration::ZERO
            }
        };
        let stored = stored.map(Arc::new);
        self.newest.send_if_modified(|newest| {
            let changed = *newest != stored;
            *newest = stored.clone();
            changed
        });
        Ok(pause)
    }

    async fn write(&self, identity: &Identity, version: Option<String>) -> Result<(), Failure> {
        let secret = identity.to_secret(version.clone());
        let written = match version {
            None => self.api.create(&PostParams::default(), &secret).await,
            Some(_) => self.api.replace(SECRET, &PostParams::default(), &secret).await,
        };
        match written {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Err(Failure::Conflict(SECRET.to_owned())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Gives rustls the newest certificate for each new connection.
#[derive(Debug, Default)]
pub struct Resolver(ArcSwapOption<CertifiedKey>);

impl Resolver {
    /// A resolver that takes up every new identity, as long as the keeper lives.
    pub fn follow(mut newest: Newest) -> Arc<Self> {
        let resolver = Arc::new(Self::default());
        let weak = Arc::downgrade(&resolver);
        tokio::spawn(async move {
            loop {
                let identity = newest.borrow_and_update().clone();
                let Some(resolver) = weak.upgrade() else { return };
                match identity.map(|identity| identity.certified()) {
                    Some(Ok(certified)) => resolver.0.store(Some(Arc::new(certified))),
                    Some(Err(error)) => tracing::error!(%error, "a certificate cannot be served"),
                    None => {}
                }
                drop(resolver);
                if newest.changed().await.is_err() {
                    return;
                }
            }
        });
        resolver
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

/// A new identity for 127.0.0.1.
#[cfg(test)]
pub fn made_for_tests() -> Identity {
    let lives = Lives { authority: Duration::from_secs(9000), leaf: Duration::from_secs(900) };
    let names = BTreeSet::from(["127.0.0.1".to_owned()]);
    issue::carry_out(plan::Step::RenewAll, None, &names, unix_seconds(), lives).expect("an identity")
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_admission_is_one_of_an_installation_and_tells_nothing() {
        let (one, other) = (made_for_tests(), made_for_tests());
        let path = one.admission_path();
        assert_eq!(path, one.clone().admission_path());
        assert_ne!(path, other.admission_path());
        let token = path.strip_prefix("/admission/").expect("the path");
        assert!(token.len() == 64 && token.chars().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase()), "{token}");
        assert!(!path.contains(one.key()));
    }

    #[test]
    fn an_identity_survives_its_secret_and_is_not_debugged() {
        let made = made_for_tests();
        let secret = made.to_secret(None);
        assert!(Identity::from_secret(&secret).as_ref() == Some(&made));
        let debug = format!("{made:?}");
        assert!(!debug.contains(&made.key) && !debug.contains("PRIVATE"), "{debug}");
        let broken =
            SecretObject { data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(b"{}".to_vec()))])), ..secret };
        assert!(Identity::from_secret(&broken).is_none());
    }
}
