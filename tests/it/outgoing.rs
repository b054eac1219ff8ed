//! What the administrator says about calls to external systems, and what these ask for, is kept to.

use crate::faults::impatient;
use crate::support::{PATIENCE, Workspace, options};
use anyhow::{Context, Result, ensure};
use bellhop_harness::proxy::{Action, Proxy};
use bellhop_harness::server::Reply;
use bellhop_harness::world;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// The authority that the Bellhop of [`impatient`] believes.
static AUTHORITY: LazyLock<CertifiedIssuer<'static, KeyPair>> = LazyLock::new(authority);

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
}

/// The file with [`AUTHORITY`].
pub fn authority_file() -> Result<String> {
    let file = world::dir().join("authority.pem");
    std::fs::write(&file, AUTHORITY.pem())?;
    Ok(file.display().to_string())
}

/// Something that speaks TLS in front of a port of this machine, as `localhost`; gives its port.
async fn terminate_tls(authority: &CertifiedIssuer<'static, KeyPair>, port: u16) -> Result<u16> {
    bellhop_harness::http::install_crypto();
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(["localhost".to_owned()])?.signed_by(&key, authority)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let own_port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut inside = acceptor.accept(stream).await?;
                let mut outside = TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut inside, &mut outside).await
            });
        }
    });
    Ok(own_port)
}

#[tokio::test]
async fn a_private_authority_is_believed_if_the_administrator_names_it_and_no_other() -> Result<()> {
    let own = impatient().await;
    let gitea = &world::shared().await.gitea;
    let mut workspace = Workspace::new(&own.control_plane, gitea, "authority").await?;

    workspace.base_url = format!("https://localhost:{}", terminate_tls(&authority(), gitea.port()).await?);
    workspace.create_subscription(workspace.subscription("stranger")).await?;
    let words: &[&[&str]] = &[&["could not be reached", "certificate"]];
    workspace.subscription_says("stranger", "Authorized", "False", "ExternalSystemFailed", words).await?;

    workspace.base_url = format!("https://localhost:{}", terminate_tls(&AUTHORITY, gitea.port()).await?);
    workspace.create_subscription(workspace.subscription("ours")).await?;
    workspace.subscription_is("ours", "Ready", "True", "").await?;

    // The certificate is for another name than this.
    workspace.base_url = workspace.base_url.replace("localhost", "127.0.0.1");
    workspace.create_subscription(workspace.subscription("misnamed")).await?;
    let words: &[&[&str]] = &[&["not valid for name"]];
    workspace.subscription_says("misnamed", "Authorized", "False", "ExternalSystemFailed", words).await?;
    ensure!(workspace.hooks().await?.len() == 1);
    Ok(())
}

#[tokio::test]
async fn a_pause_that_is_asked_for_is_kept_by_all_subscriptions_with_the_same_credentials() -> Result<()> {
    const PAUSE: Duration = Duration::from_secs(30);
    let own = impatient().await;
    let gitea = &world::shared().await.gitea;
    let mut workspace = Workspace::new(&own.control_plane, gitea, "pause").await?;
    let proxy = Proxy::start(&gitea.url())?;
    workspace.base_url = proxy.url();
    let began = Instant::now();
    // As GitHub does it: 403, nothing left, and a point in time.
    proxy.on_call(move |_| {
        let end = std::time::SystemTime::now() + PAUSE.saturating_sub(began.elapsed());
        let end = end.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs() + 1);
        let reply = Reply::status(403).body(r#"{"message": "API rate limit exceeded"}"#);
        Action::Respond(reply.header("x-ratelimit-remaining", "0").header("x-ratelimit-reset", &end.to_string()))
    });
    let names: Vec<String> = (0..8).map(|number| format!("sub-{number}")).collect();
    for name in &names {
        workspace.create_subscription(workspace.subscription(name)).await?;
    }
    let words: &[&[&str]] = &[&["API rate limit exceeded"], &["asks for a pause until"]];
    for name in &names {
        workspace.subscription_says(name, "Authorized", "False", "ExternalSystemFailed", words).await?;
    }
    tokio::time::sleep_until(began + PAUSE - Duration::from_secs(10)).await;
    let calls: usize = proxy.counts().values().sum();
    ensure!(began.elapsed() < PAUSE, "this machine is too slow for a pause of {PAUSE:?}");
    // Those that were under way when the first answer came.
    ensure!((1..=4).contains(&calls), "{calls} calls");
    proxy.pass();
    tokio::time::sleep_until(began + PAUSE).await;
    for name in &names {
        workspace.subscription_is(name, "Ready", "True", "").await?;
    }
    ensure!(workspace.hooks().await?.len() == names.len());
    Ok(())
}

#[tokio::test]
async fn a_wrong_file_of_authorities_ends_the_process_with_its_name() -> Result<()> {
    let world = world::shared().await;
    let data = world::dir().join("wrong-authorities");
    let (port, private_port) = (bellhop_harness::ports::free_port()?, bellhop_harness::ports::free_port()?);
    let options = options("wrong-authorities", &world.control_plane);
    let mut command = Command::new(&options.binary);
    command
        .args(["run", "--public-url=http://127.0.0.1:1", "--external-ca-file=/no/such/file.pem"])
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg(format!("--private-listen=127.0.0.1:{private_port}"))
        .arg(format!("--data-dir={}", data.display()))
        .env("KUBECONFIG", &options.kubeconfig);
    let process = tokio::process::Command::from(command).kill_on_drop(true).output();
    let ended = tokio::time::timeout(PATIENCE, process).await.context("it does not end")??;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.code() == Some(1), "{}: {said}", ended.status);
    ensure!(said.contains("--external-ca-file: /no/such/file.pem cannot be read: No such file"), "{said}");
    Ok(())
}
