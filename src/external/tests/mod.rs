//! The client against servers of the tests, which do what a good external system never would.

mod addresses;
mod limits;
mod oauth;
mod tls;

use super::address::{AddressPolicy, Lookup};
use super::{BudgetKey, CallFailure, Client, Settings, address::Reach};
use crate::plugin::{HttpCall, HttpResponse, Secret};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

const TIMEOUT: Duration = Duration::from_secs(10);

fn settings(allowed: &[&str]) -> Settings {
    Settings {
        addresses: AddressPolicy::new(allowed.iter().map(|network| network.parse().unwrap()).collect()),
        authorities: Vec::new(),
        timeout: TIMEOUT,
        calls_per_second: 1000.0,
    }
}

fn client(allowed: &[&str]) -> Client {
    install_crypto();
    Client::new(settings(allowed)).unwrap()
}

/// A client whose names are resolved by `lookup`.
fn client_with(allowed: &[&str], lookup: Lookup) -> Client {
    install_crypto();
    let settings = settings(allowed);
    let resolver = settings.addresses.resolver_with(Reach::Public, lookup);
    Client::resolving_with(settings, resolver).unwrap()
}

fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn call(method: &str, url: &str) -> HttpCall {
    HttpCall {
        method: method.parse().unwrap(),
        url: url.parse().unwrap(),
        headers: http::HeaderMap::from_iter([(
            http::header::AUTHORIZATION,
            http::HeaderValue::from_static("token t0ps3cret"),
        )]),
        body: None,
    }
}

async fn get(client: &Client, url: &str) -> Result<HttpResponse, CallFailure> {
    send(client, call("GET", url)).await
}

async fn send(client: &Client, call: HttpCall) -> Result<HttpResponse, CallFailure> {
    let secret = Secret::from("t0ps3cret".to_owned());
    client.send(call, &[&secret], &BudgetKey::new("gitea", [&secret])).await
}

/// A server that answers every request on its port, as raw as it comes, and remembers the heads of the requests.
struct Raw {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    /// Answers with these bytes, and closes the connection.
    async fn answering(answer: impl Into<Vec<u8>>) -> Raw {
        let answer = answer.into();
        Raw::start(move |_| answer.clone()).await
    }

    async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Raw {
        Raw::speaking(move |head, mut stream| {
            let answer = answer(&head);
            async move {
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        })
        .await
    }

    /// Does what it likes with the stream after the head of the request.
    async fn speaking<F>(speak: impl Fn(String, tokio::net::TcpStream) -> F + Send + Sync + 'static) -> Raw
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (seen, speak) = (heads.clone(), Arc::new(speak));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, speak) = (seen.clone(), speak.clone());
                tokio::spawn(async move {
                    let head = read_head(&mut stream).await;
                    seen.lock().unwrap().push(head.clone());
                    speak(head, stream).await;
                });
            }
        });
        Raw { port, heads }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

async fn read_head(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).into_bytes()
}
