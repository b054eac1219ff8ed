//! The certificate of the log listener. The controller makes it and publishes it with its key.

use crate::api::PublishedController;
use arc_swap::ArcSwapOption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use tokio::sync::watch;

/// The name that every replica's certificate is for: they are reached by addresses, which come and go.
pub const SERVER_NAME: &str = "bellhop-ingress.bellhop.internal";

/// Serves with what is published, as long as somebody publishes.
pub fn server_config(published: watch::Receiver<Option<PublishedController>>) -> Arc<rustls::ServerConfig> {
    let resolver = Resolver::follow(published);
    Arc::new(rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver))
}

/// Gives rustls the newest certificate for each new connection; without one, connections fail.
#[derive(Debug, Default)]
struct Resolver(ArcSwapOption<CertifiedKey>);

impl Resolver {
    fn follow(mut published: watch::Receiver<Option<PublishedController>>) -> Arc<Self> {
        let resolver = Arc::new(Self::default());
        let weak = Arc::downgrade(&resolver);
        tokio::spawn(async move {
            loop {
                let identity = published.borrow_and_update().as_ref().and_then(|published| published.log.clone());
                let Some(resolver) = weak.upgrade() else { return };
                if let Some(identity) = identity {
                    match certified(&identity.certificate, &identity.key) {
                        Ok(certified) => resolver.0.store(Some(Arc::new(certified))),
                        Err(_) => tracing::error!("the published certificate of the log listener cannot be used"),
                    }
                }
                drop(resolver);
                if published.changed().await.is_err() {
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

fn certified(certificate: &str, key: &str) -> anyhow::Result<CertifiedKey> {
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    Ok(CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?)
}
