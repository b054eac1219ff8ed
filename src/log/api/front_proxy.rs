//! Who asks. The API server has authenticated its user and says who it is in headers; they are believed only from somebody
//! who shows the front proxy's certificate. Which authority has signed that, which names it may have and how the headers
//! are called, the API server tells in a ConfigMap (`RequestHeaderAuthRequestProvider` of k8s.io/apiserver).

use super::status::Refusal;
use crate::ingress::PeerCertificates;
use crate::telemetry::Metrics;
use futures::StreamExt;
use http::{HeaderMap, HeaderName, StatusCode};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;

/// Where the API server tells how users are told.
pub const NAMESPACE: &str = "kube-system";
/// Name of the ConfigMap.
pub const CONFIG_MAP: &str = "extension-apiserver-authentication";
/// Group of those that the API server has not authenticated.
const UNAUTHENTICATED: &str = "system:unauthenticated";

/// A user as the API server knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct User {
    /// Their name.
    pub name: String,
    /// Their UID, if there is one.
    pub uid: String,
    /// Their groups.
    pub groups: BTreeSet<String>,
    /// What else the API server's authentication says of them, such as the scopes of a token.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Who may tell users, and how.
#[derive(Clone)]
pub struct FrontProxy {
    verifier: Arc<dyn ClientCertVerifier>,
    /// Common names that its certificate may have; any, if there is none.
    names: Vec<String>,
    user: Vec<HeaderName>,
    uid: Vec<HeaderName>,
    groups: Vec<HeaderName>,
    /// Beginnings of headers, in small letters.
    extra: Vec<String>,
}

/// Where the newest is found; nothing while it is not known.
pub type Known = watch::Receiver<Option<Arc<FrontProxy>>>;

/// Follows what the API server tells, as long as somebody has what this gives.
pub fn follow(client: kube::Client, metrics: Metrics) -> Known {
    let (newest, known) = watch::channel(None);
    tokio::spawn(async move {
        let config = watcher::Config::default().fields(&format!("metadata.name={CONFIG_MAP}"));
        let api = Api::<ConfigMap>::namespaced(client, NAMESPACE);
        let mut events = std::pin::pin!(crate::watch::watch(vec![api], &config, "ConfigMap", &metrics));
        let mut listed = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = newest.closed() => return,
            };
            match &event {
                Some(Event::Init) => listed = false,
                Some(Event::InitApply(_)) => listed = true,
                _ => {}
            }
            let read = match event {
                Some(Event::Apply(map) | Event::InitApply(map)) => FrontProxy::read(&map),
                Some(Event::InitDone) if listed => continue,
                Some(Event::Delete(_) | Event::InitDone) => {
                    Err(format!("there is no ConfigMap {NAMESPACE}/{CONFIG_MAP}"))
                }
                // A list that begins anew says nothing yet.
                Some(Event::Init) => continue,
                None => return,
            };
            let read = read.inspect_err(|why| tracing::warn!("the request log is answered to nobody: {why}"));
            newest.send_replace(read.ok().map(Arc::new));
        }
    });
    known
}

impl FrontProxy {
    /// Reads the ConfigMap.
    ///
    /// # Errors
    /// It does not say who is to be believed; a line that names the key.
    pub fn read(map: &ConfigMap) -> Result<Self, String> {
        let data = |key: &str| map.data.as_ref().and_then(|data| data.get(key)).map(String::as_str);
        let at = |key: &str| format!("ConfigMap {NAMESPACE}/{CONFIG_MAP}: {key}");
        let list = |key: &str| match data(key) {
            None | Some("") => Ok(Vec::new()),
            Some(json) => serde_json::from_str::<Vec<String>>(json).map_err(|_| format!("{}: is no list", at(key))),
        };
        let headers = |key: &str| {
            let names = list(key)?.into_iter().map(|name| name.parse().map_err(|_| format!("{}: {name:?}", at(key))));
            names.collect::<Result<Vec<HeaderName>, String>>()
        };
        let authority = "requestheader-client-ca-file";
        let pem = data(authority).filter(|pem| !pem.is_empty());
        let pem = pem.ok_or_else(|| {
            format!("{}: is missing; the API server runs without --requestheader-client-ca-file", at(authority))
        })?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| format!("{}: is no PEM", at(authority)))?;
            roots.add(certificate).map_err(|error| format!("{}: {error}", at(authority)))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let user = headers("requestheader-username-headers")?;
        if user.is_empty() {
            return Err(format!("{}: is missing", at("requestheader-username-headers")));
        }
        Ok(Self {
            verifier: verifier.map_err(|error| format!("{}: {error}", at(authority)))?,
            names: list("requestheader-allowed-names")?,
            user,
            uid: headers("requestheader-uid-headers")?,
            groups: headers("requestheader-group-headers")?,
            extra: list("requestheader-extra-headers-prefix")?.iter().map(|p| p.to_ascii_lowercase()).collect(),
        })
    }

    /// The user for whom the front proxy asks.
    ///
    /// # Errors
    /// 401: nobody has shown the front proxy's certificate, or the proxy names no user, or an anonymous one.
    pub fn authenticate(&self, shown: Option<&PeerCertificates>, headers: &HeaderMap) -> Result<User, Refusal> {
        self.believe(shown)?;
        let name = values(headers, &self.user).next().ok_or_else(|| refused("the API server names no user"))?;
        let user = User {
            name: name.to_owned(),
            uid: values(headers, &self.uid).next().unwrap_or_default().to_owned(),
            groups: values(headers, &self.groups).map(str::to_owned).collect(),
            extra: self.extra(headers),
        };
        match user.groups.contains(UNAUTHENTICATED) {
            true => Err(refused("log in: the request log is for users that the API server knows")),
            false => Ok(user),
        }
    }

    fn believe(&self, shown: Option<&PeerCertificates>) -> Result<(), Refusal> {
        let Some((leaf, chain)) = shown.and_then(|shown| shown.0.split_first()) else {
            return Err(refused("ask the API server: only its front proxy is answered here"));
        };
        let unknown = || refused("this certificate is not that of the API server's front proxy");
        self.verifier.verify_client_cert(leaf, chain, UnixTime::now()).map_err(|_| unknown())?;
        match self.names.is_empty() || common_names(leaf).iter().any(|name| self.names.contains(name)) {
            true => Ok(()),
            false => Err(unknown()),
        }
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            let key = self.extra.iter().find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                extra.entry(unescaped(key)).or_default().push(value.to_owned());
            }
        }
        extra
    }
}

fn refused(why: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, why)
}

/// What these headers say, without what is empty.
fn values<'a>(headers: &'a HeaderMap, names: &'a [HeaderName]) -> impl Iterator<Item = &'a str> {
    let values = names.iter().flat_map(|name| headers.get_all(name));
    values.filter_map(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

/// The key of a header as it was before characters that a header's name cannot have were written as `%2f`.
fn unescaped(key: &str) -> String {
    let plain = percent_encoding::percent_decode_str(key).decode_utf8();
    plain.map_or_else(|_| key.to_owned(), |plain| plain.into_owned())
}

fn common_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let names = certificate.subject().iter_common_name();
    names.filter_map(|name| name.as_str().ok().map(str::to_owned)).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use serde_json::json;

    /// An authority that signs certificates of clients.
    pub struct Authority(Issuer<'static, KeyPair>, String);

    impl Authority {
        /// A new one.
        pub fn new() -> Self {
            let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            Self(Issuer::new(params, key), pem)
        }

        /// A certificate with this common name, and its key, as PEM.
        pub fn issue(&self, name: &str) -> (String, String) {
            let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
        }

        /// As a client shows it.
        pub fn shown(&self, name: &str) -> PeerCertificates {
            let leaf = CertificateDer::from_pem_slice(self.issue(name).0.as_bytes()).unwrap();
            PeerCertificates(vec![leaf].into())
        }

        /// What an API server tells whose front proxy has certificates of this authority with these common names.
        pub fn config_map(&self, names: &[&str]) -> ConfigMap {
            serde_json::from_value(json!({"metadata": {"name": CONFIG_MAP}, "data": {
                "requestheader-client-ca-file": self.1,
                "requestheader-allowed-names": json!(names).to_string(),
                "requestheader-username-headers": r#"["X-Remote-User"]"#,
                "requestheader-uid-headers": r#"["X-Remote-Uid"]"#,
                "requestheader-group-headers": r#"["X-Remote-Group"]"#,
                "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
            }}))
            .unwrap()
        }
    }

    /// Headers that tell this user.
    pub fn told(name: &str, groups: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", name.parse().unwrap());
        for group in groups {
            headers.append("x-remote-group", group.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_user_is_believed_from_the_front_proxy_alone() {
        let (own, other) = (Authority::new(), Authority::new());
        let proxy = FrontProxy::read(&own.config_map(&["front-proxy"])).unwrap();
        let headers = told("jane", &["a", "b"]);
        let user = proxy.authenticate(Some(&own.shown("front-proxy")), &headers).unwrap();
        assert_eq!((user.name.as_str(), user.groups.len()), ("jane", 2));
        let refused = [
            None,
            Some(PeerCertificates(vec![].into())),
            Some(own.shown("somebody")),
            Some(other.shown("front-proxy")),
            Some(PeerCertificates(vec![CertificateDer::from(vec![1, 2, 3])].into())),
        ];
        for shown in refused {
            let refusal = proxy.authenticate(shown.as_ref(), &headers).unwrap_err();
            assert_eq!(refusal.code(), StatusCode::UNAUTHORIZED, "{shown:?}");
        }
        // Kubernetes: without names, every certificate of the authority will do.
        let any = FrontProxy::read(&own.config_map(&[])).unwrap();
        assert!(any.authenticate(Some(&own.shown("somebody")), &headers).is_ok());
        assert!(any.authenticate(Some(&other.shown("somebody")), &headers).is_err());
    }

    #[test]
    fn nobody_and_anybody_are_refused() {
        let own = Authority::new();
        let proxy = FrontProxy::read(&own.config_map(&["front-proxy"])).unwrap();
        let ask = |headers: &HeaderMap| proxy.authenticate(Some(&own.shown("front-proxy")), headers);
        assert!(ask(&HeaderMap::new()).is_err());
        assert!(ask(&told("", &["a"])).is_err());
        assert!(ask(&told("system:anonymous", &[UNAUTHENTICATED])).is_err());
    }

    #[test]
    fn all_that_is_said_of_a_user_is_read() {
        let own = Authority::new();
        let proxy = FrontProxy::read(&own.config_map(&["front-proxy"])).unwrap();
        let mut headers = told("jane", &["a"]);
        headers.insert("x-remote-uid", "17".parse().unwrap());
        headers.append("x-remote-extra-example.org%2fscopes", "x".parse().unwrap());
        headers.append("x-remote-extra-example.org%2fscopes", "y".parse().unwrap());
        let user = proxy.authenticate(Some(&own.shown("front-proxy")), &headers).unwrap();
        assert_eq!(user.uid, "17");
        assert_eq!(user.extra, [("example.org/scopes".to_owned(), vec!["x".to_owned(), "y".to_owned()])].into());
    }

    #[test]
    fn what_cannot_be_read_is_believed_by_nobody() {
        let own = Authority::new();
        for (key, value, word) in [
            ("requestheader-client-ca-file", "", "--requestheader-client-ca-file"),
            ("requestheader-client-ca-file", "x", "requestheader-client-ca-file"),
            ("requestheader-username-headers", "[]", "requestheader-username-headers"),
            ("requestheader-allowed-names", "front-proxy", "requestheader-allowed-names: is no list"),
        ] {
            let mut map = own.config_map(&["front-proxy"]);
            map.data.as_mut().unwrap().insert(key.to_owned(), value.to_owned());
            let why = FrontProxy::read(&map).map(drop).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}
