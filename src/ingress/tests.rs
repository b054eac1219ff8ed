//! The public router over a real spool.

mod answers;
mod handshakes;
mod logged;
mod sent;
mod waits;

use super::*;
use crate::api::PublishedRoute;
use crate::routes::tests::{plugin_spec, published};
use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

const LIMIT: usize = 5 * 1024 * 1024;
const SECRET: &str = "secret-1";
const BODY: &str = r#"{"ref": "refs/heads/main"}"#;

struct Bench {
    _dir: TempDir,
    routes: Handle,
    spool: Spool,
    state: Arc<State>,
}

impl Bench {
    fn with(limits: crate::spool::Limits) -> Self {
        Self::with_timeout(limits, Duration::from_secs(30))
    }

    /// `timeout` is the longest time that a body may take.
    fn with_timeout(limits: crate::spool::Limits, timeout: Duration) -> Self {
        let dir = TempDir::new().unwrap();
        let spool = Spool::open(dir.path(), limits).unwrap();
        let metrics = Metrics::new();
        let routes = Handle::new(metrics.clone());
        routes.update(|index| {
            index.apply_plugin("forge", &plugin_spec());
            index.apply_route(published(1));
        });
        routes.set_synced();
        let state = State::new(routes.clone(), spool.clone(), metrics, Health::default(), LIMIT, timeout);
        Self { _dir: dir, routes, spool, state: Arc::new(state) }
    }

    fn new() -> Self {
        Self::with(crate::spool::Limits::default())
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value, Response<()>) {
        let response = router(self.state.clone()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (parts.status, json, Response::from_parts(parts, ()))
    }

    async fn status(&self, request: Request<Body>) -> StatusCode {
        self.send(request).await.0
    }

    async fn private(&self, path: &str) -> (StatusCode, String) {
        self.ask(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = private_router(self.state.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// What was stored, if anything.
    async fn stored(&self) -> Option<Arc<crate::spool::Request>> {
        tokio::time::timeout(Duration::from_millis(200), self.spool.next_unmatched()).await.ok()
    }
}

fn sign(body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn signed(body: &str) -> http::request::Builder {
    Request::post("/hooks/token-1")
        .header("x-signature", sign(body.as_bytes()))
        .header("x-event", "push")
        .header("x-delivery", "d-1")
        .header("content-type", "application/json")
}

fn good() -> Request<Body> {
    signed(BODY).body(BODY.into()).unwrap()
}

#[tokio::test]
async fn a_request_is_stored_before_it_is_answered() {
    let bench = Bench::new();
    let (status, body, _) = bench.send(good()).await;
    let id = request_id(Uuid::from_u128(1), Some("d-1"), b"");
    assert_eq!((status, body), (StatusCode::OK, json!({"id": id})));
    let stored = bench.stored().await.unwrap();
    assert_eq!((stored.id, &*stored.body, stored.name.as_str()), (id, BODY.as_bytes(), "sub-1"));
    assert_eq!((stored.namespace.as_str(), stored.delivery_id.as_deref()), ("team-a", Some("d-1")));

    let (status, body, _) = bench.send(good()).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"id": id, "duplicate": true})));
    assert!(bench.stored().await.is_none());
    let metrics = bench.private("/metrics").await.1;
    assert!(metrics.contains(r#"bellhop_requests_total{plugin="forge",answer="duplicate"} 1"#), "{metrics}");
}

#[tokio::test]
async fn without_a_delivery_id_the_body_identifies_a_request() {
    let bench = Bench::new();
    let send = |body: &'static str| {
        let mut request = signed(body).body(Body::from(body)).unwrap();
        request.headers_mut().remove("x-delivery");
        bench.send(request)
    };
    let (first, again, other) = (send(BODY).await, send(BODY).await, send(r#"{"ref": "x"}"#).await);
    assert_eq!(first.1["id"], again.1["id"]);
    assert_eq!(again.1["duplicate"], true);
    assert_ne!(first.1["id"], other.1["id"]);
}

#[tokio::test]
async fn secrets_are_not_stored() {
    let bench = Bench::new();
    let request = Request::put("/hooks/token-1?a=1&b=%20")
        .header("X-Token", SECRET)
        .header("authorization", "Bearer hunter2")
        .header("cookie", "session=hunter2")
        .header("x-event", "push")
        .header("x-huge", "y".repeat(40_000))
        .body(Body::from(BODY));
    assert_eq!(bench.status(request.unwrap()).await, StatusCode::OK);
    let stored = bench.stored().await.unwrap();
    // That they came is known, and not what they said.
    let kept = [("x-token", "***"), ("authorization", "***"), ("cookie", "***"), ("x-event", "push")];
    assert_eq!(stored.headers, kept.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!((stored.method.as_str(), stored.query.as_str()), ("PUT", "a=1&b=%20"));
}

#[tokio::test]
async fn unknown_urls_are_not_found() {
    let bench = Bench::new();
    for path in [
        "/hooks/token-2",
        "/hooks/",
        "/hooks",
        "/",
        "/hooks/token-1/x",
        "/hooks/..%2ftoken-1",
        "/hooks/%ff",
        "/metrics",
    ] {
        for method in [Method::GET, Method::POST, Method::DELETE, Method::OPTIONS] {
            let mut request = good();
            *request.uri_mut() = path.parse().unwrap();
            *request.method_mut() = method.clone();
            assert_eq!(bench.status(request).await, StatusCode::NOT_FOUND, "{method} {path}");
        }
    }
    let mut broken = plugin_spec();
    broken.callback.event.push('(');
    bench.routes.update(|index| index.apply_plugin("forge", &broken));
    assert_eq!(bench.status(good()).await, StatusCode::NOT_FOUND);
    assert!(bench.stored().await.is_none());
}

#[tokio::test]
async fn whoever_cannot_prove_it_is_refused() {
    let bench = Bench::new();
    let signature = sign(BODY.as_bytes());
    let other = sign(b"{}");
    let wrong = [
        vec![],
        vec![("x-signature", "")],
        vec![("x-signature", &signature[..32])],
        vec![("x-signature", other.as_str())],
        vec![("x-signature", signature.as_str()), ("x-signature", signature.as_str())],
        vec![("x-signature", "zz")],
        vec![("x-token", "")],
        vec![("x-token", "secret-2")],
        vec![("x-token", "secret-1 ")],
        vec![("x-token", "secret-1,secret-1")],
    ];
    for headers in wrong {
        let mut request = Request::post("/hooks/token-1").header("x-event", "push");
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let (status, body, _) = bench.send(request.body(BODY.into()).unwrap()).await;
        // The header's value is trimmed by no one; what is not equal is not equal.
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{headers:?}");
        assert!(!body.to_string().contains("secret-1"), "{body}");
    }
    let without_secret = PublishedRoute { callback_secrets: vec![String::new()], ..published(1) };
    bench.routes.update(|index| index.apply_route(without_secret));
    let empty = Request::post("/hooks/token-1").header("x-token", "").header("x-event", "push");
    assert_eq!(bench.status(empty.body(BODY.into()).unwrap()).await, StatusCode::UNAUTHORIZED);
    assert!(bench.stored().await.is_none());
}

#[tokio::test]
async fn what_a_secret_would_prove_that_is_still_to_be_told_comes_back_and_is_not_believed() {
    let bench = Bench::new();
    let token = |token: &str| Request::post("/hooks/token-1").header("x-token", token).header("x-event", "push");
    for secrets in [Vec::new(), vec!["before-3f6d".to_owned()]] {
        let route = PublishedRoute { callback_secrets: secrets.clone(), awaits_secret: true, ..published(1) };
        bench.routes.update(|index| index.apply_route(route));
        let (status, body, response) = bench.send(token("next-77e0").body(BODY.into()).unwrap()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        assert_eq!(response.headers()["retry-after"], "5");
        // What has no proof at all will have none later either, if there is one to have.
        let bare = Request::post("/hooks/token-1").header("x-event", "push").body(BODY.into()).unwrap();
        let expected = if secrets.is_empty() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNAUTHORIZED };
        assert_eq!(bench.status(bare).await, expected);
        assert!(bench.stored().await.is_none());
    }
    // The one before is accepted still.
    assert_eq!(bench.status(token("before-3f6d").body(BODY.into()).unwrap()).await, StatusCode::OK);
}

#[tokio::test]
async fn a_body_must_be_what_the_plugin_reads() {
    let bench = Bench::new();
    for (content_type, body) in [
        ("application/json", "{"),
        ("application/json", "{}{}"),
        ("application/json", "ref=1"),
        ("multipart/form-data; boundary=x", "--x--"),
        ("text/plain", "{}"),
    ] {
        let mut request = signed(body).body(Body::from(body)).unwrap();
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        let (status, answer, _) = bench.send(request).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{content_type} {body}");
        assert!(answer["error"].as_str().is_some_and(|error| error.len() > 10), "{answer}");
    }
    assert!(bench.stored().await.is_none());
}

#[tokio::test]
async fn compressed_bodies_are_refused_unread() {
    let bench = Bench::new();
    for (encoding, expected) in [
        ("gzip", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("identity, gzip", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("br", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("Identity", StatusCode::OK),
    ] {
        let request = signed(BODY).header("content-encoding", encoding).body(BODY.into()).unwrap();
        assert_eq!(bench.status(request).await, expected, "{encoding}");
    }
}

#[tokio::test]
async fn large_bodies_are_refused_with_flat_memory() {
    let bench = Bench::new();
    let announced = signed(BODY).header("content-length", LIMIT + 1).header("expect", "100-continue");
    let (status, _, response) = bench.send(announced.body(Body::empty()).unwrap()).await;
    assert_eq!((status, &response.headers()["connection"]), (StatusCode::PAYLOAD_TOO_LARGE, &"close".parse().unwrap()));

    let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])).take(96);
    let (status, _, response) = bench.send(signed(BODY).body(Body::from_stream(chunks)).unwrap()).await;
    assert_eq!((status, &response.headers()["connection"]), (StatusCode::PAYLOAD_TOO_LARGE, &"close".parse().unwrap()));
    assert_eq!(bench.state.bounds.budget.used(), 0);

    let largest = format!("\"{}\"", "x".repeat(LIMIT - 2));
    let pieces: Vec<_> =
        largest.as_bytes().chunks(100_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    let request = signed(&largest).body(Body::from_stream(futures::stream::iter(pieces))).unwrap();
    assert_eq!(bench.status(request).await, StatusCode::OK);
    assert_eq!(bench.stored().await.unwrap().body.len(), LIMIT);
}

#[tokio::test]
async fn slow_and_broken_bodies_end() {
    let bench = Bench::with_timeout(crate::spool::Limits::default(), Duration::from_millis(300));
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let (status, _, response) = bench.send(signed(BODY).body(Body::from_stream(never)).unwrap()).await;
    assert_eq!((status, &response.headers()["connection"]), (StatusCode::REQUEST_TIMEOUT, &"close".parse().unwrap()));
    let broken = futures::stream::iter([Ok(b"{".to_vec()), Err(std::io::Error::other("gone"))]);
    assert_eq!(bench.status(signed(BODY).body(Body::from_stream(broken)).unwrap()).await, StatusCode::BAD_REQUEST);
    assert!(bench.stored().await.is_none());
}

#[tokio::test]
async fn bodies_in_flight_are_bounded() {
    let bench = Bench::new();
    // One route may hold a quarter of the memory; another still gets its share.
    bench.routes.update(|index| {
        index.apply_route(PublishedRoute { callback_secrets: vec![SECRET.into()], ..published(2) });
    });
    let route = bench.routes.by_token("token-1").unwrap();
    let quarter = LIMIT.saturating_mul(8).max(256 << 20) / 4;
    route.traffic().body_bytes.fetch_add(quarter, Ordering::Relaxed);
    let (status, _, response) = bench.send(good()).await;
    assert_eq!((status, &response.headers()["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap()));
    let mut other = good();
    *other.uri_mut() = "/hooks/token-2".parse().unwrap();
    assert_eq!(bench.status(other).await, StatusCode::OK);
    // The route's counter survives a change of the route.
    bench.routes.update(|index| index.apply_route(PublishedRoute { events: vec![], ..published(1) }));
    assert_eq!(bench.status(good()).await, StatusCode::SERVICE_UNAVAILABLE);
    route.traffic().body_bytes.fetch_sub(quarter, Ordering::Relaxed);
    assert_eq!(bench.status(good()).await, StatusCode::OK);
    assert_eq!(route.traffic().body_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn who_knows_a_routes_content_is_told_whether_it_is_served() {
    let bench = Bench::new();
    let ask = async |uid: Uuid, digest: &str, wait: &str| {
        let request = Request::get(format!("/routes/{uid}")).header("if-match", format!("\"{digest}\""));
        bench.ask(request.header("prefer", wait).body(Body::empty()).unwrap()).await.0
    };
    let known = published(1).version();
    assert_eq!(ask(known.uid, &known.digest, "").await, StatusCode::NO_CONTENT);
    for (uid, digest) in [(known.uid, ""), (known.uid, &*"0".repeat(64)), (published(2).uid, &*known.digest)] {
        assert_eq!(ask(uid, digest, "wait=0").await, StatusCode::PRECONDITION_FAILED, "{uid} {digest}");
    }
    assert_eq!(bench.private("/routes/x").await.0, StatusCode::BAD_REQUEST);
    // An answer can be waited for.
    let later = published(2).version();
    let publish = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        bench.routes.update(|index| index.apply_route(published(2)));
    };
    let (answer, ()) = tokio::join!(ask(later.uid, &later.digest, "wait=5"), publish);
    assert_eq!(answer, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_process_that_ends_is_not_ready_and_still_accepts() {
    let bench = Bench::new();
    bench.state.health.end();
    let (status, body) = bench.private("/readyz").await;
    assert_eq!((status, &*body), (StatusCode::SERVICE_UNAVAILABLE, "the process ends\n"));
    assert_eq!(bench.status(good()).await, StatusCode::OK);
}

#[tokio::test]
async fn before_the_routes_are_known_senders_are_told_to_come_back() {
    let bench = Bench::new();
    let metrics = Metrics::new();
    let routes = Handle::new(metrics.clone());
    let state =
        State::new(routes.clone(), bench.spool.clone(), metrics, Health::default(), LIMIT, Duration::from_secs(1));
    let bench = Bench { routes, state: Arc::new(state), ..bench };
    let (status, _, response) = bench.send(good()).await;
    assert_eq!((status, &response.headers()["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap()));
    let (status, body) = bench.private("/readyz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && body.contains("routes"), "{body}");
    assert_eq!(bench.private("/healthz").await.0, StatusCode::OK);
    bench.routes.set_synced();
    assert_eq!(bench.private("/readyz").await.0, StatusCode::OK);
    bench.state.health.spool_works(false);
    let (status, body) = bench.private("/readyz").await;
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && body.contains("spool"), "{body}");
}

#[tokio::test]
async fn a_full_share_is_told_to_come_back_and_others_go_on() {
    let limits = crate::spool::Limits { max_bytes_per_subscription: 64 << 10, ..Default::default() };
    let bench = Bench::with(limits);
    bench.routes.update(|index| {
        index.apply_route(PublishedRoute { callback_secrets: vec![SECRET.into()], ..published(2) });
    });
    let mut last = None;
    for n in 0..20 {
        let mut request = good();
        request.headers_mut().insert("x-delivery", n.to_string().parse().unwrap());
        last = Some(bench.send(request).await);
    }
    let (status, body, response) = last.unwrap();
    assert_eq!((status, &response.headers()["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"30".parse().unwrap()));
    assert!(!body.to_string().contains("bytes"), "{body}");
    let mut other = good();
    *other.uri_mut() = "/hooks/token-2".parse().unwrap();
    assert_eq!(bench.status(other).await, StatusCode::OK);
}

/// Serves on a real socket.
async fn listen(bench: &Bench, limits: Limits) -> (std::net::SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    tokio::spawn(serve(listener, router(bench.state.clone()), limits, None, end.clone()));
    (address, end)
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut text)).await.expect("closed");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn six_mebibytes_in_chunks_are_answered_413_on_the_wire() {
    let bench = Bench::new();
    let (address, _end) = listen(&bench, Limits::default()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"POST /hooks/token-1 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..96 {
        stream.write_all(&chunk).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn slow_and_oversized_heads_end() {
    let bench = Bench::new();
    let limits = Limits { request: Duration::from_millis(200), ..Limits::default() };
    let (address, _end) = listen(&bench, limits).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"POST /hooks/token-1 HTTP/1.1\r\nhost:").await.unwrap();
    read_all(&mut slow).await;

    let mut large = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /hooks/token-1 HTTP/1.1\r\nhost: x\r\nx-a: {}\r\n\r\n", "y".repeat(200_000));
    large.write_all(head.as_bytes()).await.unwrap();
    let answer = read_all(&mut large).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");

    let mut many = TcpStream::connect(address).await.unwrap();
    let head = format!("GET /hooks/token-1 HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-a: b\r\n".repeat(200));
    many.write_all(head.as_bytes()).await.unwrap();
    let answer = read_all(&mut many).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn connections_are_kept_limited_and_ended_gracefully() {
    let bench = Bench::new();
    let limits = Limits { connections: 1, request: Duration::from_millis(200), ..Limits::default() };
    let (address, end) = listen(&bench, limits).await;
    let get = b"GET /hooks/unknown HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = TcpStream::connect(address).await.unwrap();
    let mut buffer = [0; 1024];
    for _ in 0..2 {
        first.write_all(get).await.unwrap();
        assert!(first.read(&mut buffer).await.unwrap() > 0);
        // Idle between two requests for longer than a request may take.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(get).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut buffer)).await;
    assert!(early.is_err(), "the limit is one connection");
    drop(first);
    assert!(second.read(&mut buffer).await.unwrap() > 0);
    end.cancel();
    assert_eq!(read_all(&mut second).await, "");
}

/// The networks of a plugin are a condition besides the proof, and nobody but a trusted proxy says who somebody is.
#[tokio::test]
async fn a_request_from_elsewhere_is_refused_however_it_is_signed() {
    let mut bench = Bench::new();
    let mut spec = plugin_spec();
    spec.callback.from = vec!["198.51.100.0/24".to_owned()];
    spec.callback.handshakes = vec![serde_json::from_value(json!({"when": "'challenge' in request.query"})).unwrap()];
    bench.routes.update(|index| index.apply_plugin("forge", &spec));
    let state = Arc::into_inner(bench.state).unwrap().with_trusted_proxies(&["10.0.0.0/8".parse().unwrap()]);
    bench.state = Arc::new(state);
    let from = |mut request: Request<Body>, peer: Option<&str>, forwarded: Option<&str>| {
        if let Some(peer) = peer {
            request.extensions_mut().insert(Peer(peer.parse().unwrap()));
        }
        if let Some(forwarded) = forwarded {
            request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
        }
        request
    };
    for (peer, forwarded, status) in [
        (None, None, StatusCode::UNAUTHORIZED),
        (None, Some("198.51.100.7"), StatusCode::UNAUTHORIZED),
        (Some("192.0.2.1"), None, StatusCode::UNAUTHORIZED),
        (Some("192.0.2.1"), Some("198.51.100.7"), StatusCode::UNAUTHORIZED),
        (Some("10.0.0.1"), None, StatusCode::UNAUTHORIZED),
        (Some("10.0.0.1"), Some("198.51.100.7, 192.0.2.1"), StatusCode::UNAUTHORIZED),
        (Some("10.0.0.1"), Some("unknown"), StatusCode::UNAUTHORIZED),
        (Some("10.0.0.1"), Some("192.0.2.1, 198.51.100.7"), StatusCode::OK),
        (Some("198.51.100.7"), None, StatusCode::OK),
    ] {
        assert_eq!(bench.status(from(good(), peer, forwarded)).await, status, "{peer:?} {forwarded:?}");
        let handshake = Request::get("/hooks/token-1?challenge=1").body(Body::empty()).unwrap();
        assert_eq!(bench.status(from(handshake, peer, forwarded)).await, status, "{peer:?} {forwarded:?}");
    }
    // From the right place, the proof is still asked for.
    let unsigned = Request::post("/hooks/token-1").header("x-event", "push").body(Body::from("{}")).unwrap();
    assert_eq!(bench.status(from(unsigned, Some("198.51.100.7"), None)).await, StatusCode::UNAUTHORIZED);
}

/// A real connection has an address.
#[tokio::test]
async fn the_address_of_a_connection_is_that_of_its_requests() {
    let bench = Bench::new();
    for (network, expected) in [("127.0.0.0/8", "200 OK"), ("192.0.2.0/24", "401 Unauthorized")] {
        let mut spec = plugin_spec();
        spec.callback.from = vec![network.to_owned()];
        bench.routes.update(|index| index.apply_plugin("forge", &spec));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = tokio_util::sync::CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router(bench.state.clone()), Limits::default(), None, end.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /hooks/token-1 HTTP/1.1\r\nhost: x\r\nx-signature: {}\r\nx-event: push\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{BODY}",
            sign(BODY.as_bytes()),
            BODY.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{network}: {answer}");
        end.cancel();
        serving.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn while_a_large_body_is_judged_the_thread_serves_others() {
    let state = Bench::new().state;
    let (judged_by_others, others) = std::sync::mpsc::channel();
    // Blocks until another task of the only thread has run.
    let judging = tokio::spawn(async move {
        let work = move || others.recv_timeout(Duration::from_secs(30)).is_ok();
        super::hook::apart(&state, super::hook::LARGE, work).await
    });
    tokio::task::yield_now().await;
    let other = tokio::spawn(async move { judged_by_others.send(()) });
    assert!(judging.await.unwrap() && other.await.unwrap().is_ok());
}
