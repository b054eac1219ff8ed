//! A small HTTP/1.1 server on a thread of its own, which can stop at once, start again on the same port, and drop a
//! connection without an answer.
//!
//! It has its own runtime, so that it neither depends on the runtime of the test that started it nor competes with it.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::{HeaderMap, Method, Request, Response};
use axum::serve::{IncomingStream, Listener};
use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// A request with its whole body.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The path with its query, as it was sent.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status code; 0 closes the connection without an answer.
    status: u16,
    headers: Vec<(String, String)>,
    body: ReplyBody,
    delay: Duration,
}

#[derive(Debug, Clone)]
enum ReplyBody {
    Whole(Bytes),
    /// So many spaces, in chunks, without `Content-Length`.
    Blank(u64),
    /// What comes, as it comes; of a reply and its clones, the first one that is sent has it.
    Stream(Arc<Mutex<Option<Body>>>),
}

impl Reply {
    /// An empty answer with this status.
    pub fn status(status: u16) -> Reply {
        Reply { status, headers: Vec::new(), body: ReplyBody::Whole(Bytes::new()), delay: Duration::ZERO }
    }

    /// 200, empty.
    pub fn ok() -> Reply {
        Reply::status(200)
    }

    /// No answer at all: the connection is closed.
    pub fn dropped() -> Reply {
        Reply::status(0)
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Reply {
        self.body = ReplyBody::Whole(body.into());
        self
    }

    /// Sets the body to so many spaces, which are sent without an announcement of their number.
    pub fn blank(mut self, bytes: u64) -> Reply {
        self.body = ReplyBody::Blank(bytes);
        self
    }

    /// Sets the body to what comes, as it comes.
    pub fn stream(mut self, body: Body) -> Reply {
        self.body = ReplyBody::Stream(Arc::new(Mutex::new(Some(body))));
        self
    }

    /// Waits before answering.
    pub fn after(mut self, delay: Duration) -> Reply {
        self.delay = delay;
        self
    }
}

/// Answers requests.
pub type Handler = Arc<dyn Fn(Call) -> BoxFuture<'static, Reply> + Send + Sync>;

/// A server on a port, of loopback unless told otherwise. Dropping it stops it.
pub struct Server {
    address: SocketAddr,
    handler: Handler,
    runtime: Mutex<Option<Runtime>>,
}

impl Server {
    /// Starts a server on a free port.
    pub fn start(handler: Handler) -> Result<Server> {
        Server::start_on(crate::ports::free_port()?, handler)
    }

    /// Starts a server on this port.
    pub fn start_on(port: u16, handler: Handler) -> Result<Server> {
        Server::start_at((Ipv4Addr::LOCALHOST, port).into(), handler)
    }

    /// Starts a server at this address.
    pub fn start_at(address: SocketAddr, handler: Handler) -> Result<Server> {
        let server = Server { address, handler, runtime: Mutex::new(None) };
        server.start_again()?;
        Ok(server)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops at once: open connections are closed, requests in hand get no answer, new connections are refused.
    pub fn stop(&self) {
        if let Some(runtime) = self.runtime.lock().expect("no panic while the lock is held").take() {
            // Tasks are dropped by the runtime's own thread; the port is free when this returns.
            let stopper = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(5)));
            let _ = stopper.join();
        }
    }

    /// Starts a stopped server on the same port.
    pub fn start_again(&self) -> Result<()> {
        let mut running = self.runtime.lock().expect("no panic while the lock is held");
        if running.is_some() {
            return Ok(());
        }
        let address = self.address;
        let socket = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(format!("server-{}", address.port()))
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            Cuttable(TcpListener::from_std(socket)?)
        };
        let handler = self.handler.clone();
        let router = Router::new().fallback(move |ConnectInfo(Cut(cut)): ConnectInfo<Cut>, request: Request<Body>| {
            let handler = handler.clone();
            async move { answer(handler, cut, request).await }
        });
        runtime.spawn(async move {
            let service = router.into_make_service_with_connect_info::<Cut>();
            let _ = axum::serve(listener, service).await;
        });
        *running = Some(runtime);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Server({})", self.url())
    }
}

async fn answer(
    handler: Handler,
    cut: Arc<AtomicBool>,
    request: Request<Body>,
) -> std::result::Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let cut_off = || {
        cut.store(true, Ordering::Release);
        Response::new(Body::empty())
    };
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return Ok(cut_off());
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let reply = handler(Call { method: parts.method, path, headers: parts.headers, body }).await;
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    if reply.status == 0 {
        return Ok(cut_off());
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    let body = match reply.body {
        ReplyBody::Whole(bytes) => Body::from(bytes),
        ReplyBody::Blank(bytes) => blank(bytes),
        ReplyBody::Stream(body) => body.lock().expect("no panic while the lock is held").take().unwrap_or_default(),
    };
    Ok(response.body(body).expect("the test gave a valid status and headers"))
}

fn blank(bytes: u64) -> Body {
    const CHUNK: u64 = 64 * 1024;
    static SPACES: [u8; CHUNK as usize] = [b' '; CHUNK as usize];
    let chunks = (0..bytes.div_ceil(CHUNK)).map(move |number| {
        let left = (bytes - number * CHUNK).min(CHUNK);
        Ok::<_, Infallible>(Bytes::from_static(&SPACES[..usize::try_from(left).unwrap_or(SPACES.len())]))
    });
    Body::from_stream(futures::stream::iter(chunks))
}

/// Tells a connection to fail from now on.
#[derive(Debug, Clone)]
struct Cut(Arc<AtomicBool>);

impl Connected<IncomingStream<'_, Cuttable>> for Cut {
    fn connect_info(stream: IncomingStream<'_, Cuttable>) -> Cut {
        stream.remote_addr().clone()
    }
}

/// A listener whose connections can be made to fail; a connection's "address" is what cuts it.
struct Cuttable(TcpListener);

impl Listener for Cuttable {
    type Io = CuttableStream;
    type Addr = Cut;

    async fn accept(&mut self) -> (CuttableStream, Cut) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let cut = Cut(Arc::new(AtomicBool::new(false)));
                    return (CuttableStream { stream, cut: cut.clone() }, cut);
                }
                // Too many open files, most likely: the next one may do better.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Cut> {
        Ok(Cut(Arc::default()))
    }
}

struct CuttableStream {
    stream: TcpStream,
    cut: Cut,
}

impl CuttableStream {
    fn check(&self) -> io::Result<()> {
        if self.cut.0.load(Ordering::Acquire) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
