//! Serving HTTP/1.1 to whoever connects, with or without TLS: bounded in connections, in the size of a head and in time.

use super::Peer;
use crate::telemetry::Metrics;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, info, warn};

/// What a listener allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// How long a connection may be idle between two requests. Longer than the 60 seconds after which load balancers
    /// give up idle connections, so that they never send a request on one that is being closed.
    pub idle: Duration,
    /// How long a request may take from its first byte until its answer begins, and before the first one a handshake.
    pub request: Duration,
    /// How long requests may go on after the end was announced.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            head_bytes: 64 * 1024,
            headers: 100,
            idle: Duration::from_secs(75),
            request: Duration::from_secs(30),
            grace: Duration::from_secs(10),
        }
    }
}

/// The certificates that a client has shown, its own first; an extension of each of its requests. That the client has the
/// key to its own is proven. Whether they are worth anything is up to whoever reads them.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// Serves until `shutdown`, then lets the requests under way end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    metrics: Option<Metrics>,
    shutdown: CancellationToken,
) {
    serve_streams(listener, router, limits, metrics, shutdown, |stream| std::future::ready(Ok((stream, None)))).await;
}

/// The same, with TLS.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let handshake = move |stream| {
        let opening = acceptor.accept(stream);
        async move {
            let stream = opening.await?;
            let shown = stream.get_ref().1.peer_certificates();
            let shown = shown.map(|shown| PeerCertificates(shown.iter().map(|one| one.clone().into_owned()).collect()));
            Ok((stream, shown))
        }
    };
    serve_streams(listener, router, limits, None, shutdown, handshake).await;
}

/// `open` makes of a connection what is served, and says what the client has shown.
async fn serve_streams<S, F>(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    metrics: Option<Metrics>,
    shutdown: CancellationToken,
    open: impl Fn(TcpStream) -> F,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<(S, Option<PeerCertificates>)>> + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(limits.head_bytes)
        .max_headers(limits.headers);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((stream, slot)) = accepted else { break };
        let peer = stream.peer_addr().ok().map(|peer| Peer(peer.ip()));
        let (opening, watcher, http, router) = (open(stream), graceful.watcher(), http.clone(), router.clone());
        let count = move |slots: &Semaphore| limits.connections - slots.available_permits();
        if let Some(metrics) = &metrics {
            metrics.connections(count(&slots));
        }
        let (slots, metrics) = (slots.clone(), metrics.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(limits.request, opening).await {
                Ok(Ok((stream, shown))) => {
                    let io = TokioIo::new(Timed::new(stream, limits.request));
                    let service = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
                        if let Some(peer) = peer {
                            request.extensions_mut().insert(peer);
                        }
                        if let Some(shown) = &shown {
                            request.extensions_mut().insert(shown.clone());
                        }
                        request
                    });
                    let connection = http.serve_connection(io, TowerToHyperService::new(service));
                    if let Err(error) = watcher.watch(connection).await {
                        // Scanners, probes and vanished senders: nothing that anybody could mend.
                        debug!(%error, "a connection ended early");
                    }
                }
                Ok(Err(error)) => debug!(%error, "a connection ended before its first request"),
                Err(_) => debug!("a connection took too long to its first request"),
            }
            drop(slot);
            if let Some(metrics) = metrics {
                metrics.connections(count(&slots));
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        info!("connections were still open when the time to end them was over");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small; waiting to fill a packet would only delay them.
                let _ = stream.set_nodelay(true);
                return Some((stream, slot));
            }
            Err(error) => {
                // Most likely too many open files; the connections that end will make room.
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// A connection that breaks when too much time passes between the first byte of a request and that of its answer.
struct Timed<S> {
    stream: S,
    limit: Duration,
    deadline: Option<Instant>,
    /// Made when first needed, then used again: most requests arrive at once and never wait.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, deadline: None, sleep: None }
    }

    fn poll_deadline(&mut self, deadline: Instant, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() != deadline {
            sleep.as_mut().reset(deadline);
        }
        ready!(sleep.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                if self.deadline.is_none() && buffer.filled().len() > before {
                    self.deadline = Some(Instant::now() + self.limit);
                }
                Poll::Ready(result)
            }
            Poll::Pending => match self.deadline {
                Some(deadline) => self.poll_deadline(deadline, context),
                None => Poll::Pending,
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.deadline = None;
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.deadline = None;
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
