//! Whose certificates are believed.

use super::*;
use crate::external::read_authorities;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

/// A server with a certificate for `name`, signed by an authority of its own; gives the port and the authority in PEM.
async fn server(name: &str) -> (u16, String) {
    install_crypto();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                read_head(&mut stream).await;
                let _ = stream.write_all(&ok("{}")).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (port, authority.pem())
}

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// A client for which every name is this machine.
fn client_believing(file: Option<&tempfile::NamedTempFile>) -> Client {
    let mut settings = settings(&["127.0.0.0/8"]);
    settings.authorities = file.map(|file| read_authorities(file.path()).unwrap()).unwrap_or_default();
    let lookup: Lookup = Arc::new(|_| Box::pin(async { Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]) }));
    let resolver = settings.addresses.resolver_with(Reach::Public, lookup);
    Client::resolving_with(settings, resolver).unwrap()
}

#[tokio::test]
async fn a_private_authority_is_believed_only_if_the_administrator_names_it() {
    let (port, authority) = server("git.example.com").await;
    let url = format!("https://git.example.com:{port}/");
    let why = get(&client_believing(None), &url).await.unwrap_err().to_string();
    assert!(why.contains("could not be reached") && why.contains("certificate"), "{why}");

    let (_, another) = server("git.example.com").await;
    let why = get(&client_believing(Some(&file(another.as_bytes()))), &url).await.unwrap_err().to_string();
    assert!(why.contains("certificate"), "{why}");

    // Several in one file, with what people write between them.
    let bundle = file(format!("# ours\n{another}\n# and theirs\n{authority}").as_bytes());
    get(&client_believing(Some(&bundle)), &url).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_another_name_is_refused() {
    let (port, authority) = server("other.example.com").await;
    let client = client_believing(Some(&file(authority.as_bytes())));
    let why = get(&client, &format!("https://git.example.com:{port}/")).await.unwrap_err().to_string();
    assert!(why.contains("not valid for name") && why.contains("git.example.com"), "{why}");
    get(&client, &format!("https://other.example.com:{port}/")).await.unwrap();
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    install_crypto();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, said) in [
        (&b""[..], "holds no certificate"),
        (b"hello", "holds no certificate"),
        (b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", "does not hold certificates in PEM"),
        (broken.as_bytes(), "holds a certificate that is broken"),
    ] {
        let file = file(content);
        let error = format!("{:#}", read_authorities(file.path()).unwrap_err());
        assert!(error.contains(said) && error.contains(&file.path().display().to_string()), "{error}");
    }
    let error = format!("{:#}", read_authorities(std::path::Path::new("/no/such/ca.pem")).unwrap_err());
    assert!(error.contains("/no/such/ca.pem cannot be read") && error.contains("No such file"), "{error}");
}
