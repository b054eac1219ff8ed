//! The load: senders that keep their connection open and send the next request when the last one was answered.
//!
//! It has to be cheap, for it shares the machine with what it measures: a request is two pieces of memory and one
//! system call, and of an answer only the status and the length are read.

use super::push::{self, Request};
use anyhow::{Context, Result, bail, ensure};
use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Threads that send.
const THREADS: usize = 2;

/// What is sent, and to whom.
#[derive(Clone)]
pub struct Target {
    port: u16,
    request: Request,
    tokens: Arc<[String]>,
}

impl Target {
    /// Requests to the subscriptions with these numbers in turn.
    pub fn new(port: u16, request: &Request, subscriptions: Range<usize>) -> Self {
        Self { port, request: request.clone(), tokens: subscriptions.map(push::token).collect() }
    }
}

/// What senders met.
#[derive(Default)]
pub struct Outcome {
    /// Requests that were answered, at any time.
    pub answered: usize,
    /// Requests that were answered with 200 within the time that is measured.
    pub accepted: usize,
    /// How long each of them took, in microseconds.
    pub micros: Vec<u32>,
    /// Requests that were answered otherwise, at any time.
    pub refused: usize,
    /// The first such answer.
    pub refusal: Option<String>,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.accepted += other.accepted;
        self.micros.extend(other.micros);
        self.refused += other.refused;
        self.refusal = self.refusal.take().or(other.refusal);
    }
}

/// Sends as fast as answers come, on this many connections. What happens in `warm_up` is not counted.
///
/// # Errors
/// If a connection breaks. A refusal is part of the outcome.
pub fn flood(target: &Target, connections: usize, warm_up: Duration, time: Duration) -> Result<Outcome> {
    let from = Instant::now() + warm_up;
    let window = (from, from + time);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let target = target.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(flood_from(&target, (thread..connections).step_by(THREADS), connections, window))
            })
        })
        .collect();
    let mut outcome = Outcome::default();
    for thread in threads {
        outcome.add(thread.join().expect("a sender does not panic")?);
    }
    Ok(outcome)
}

async fn flood_from(
    target: &Target,
    senders: impl Iterator<Item = usize>,
    of: usize,
    (from, until): (Instant, Instant),
) -> Result<Outcome> {
    let mut tasks = JoinSet::new();
    for sender in senders {
        let target = target.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(&target).await?;
            let mut outcome = Outcome::default();
            // Each sender begins elsewhere, so that all subscriptions have their turn.
            let mut turn = sender * target.tokens.len() / of;
            loop {
                let (sent, answer) = connection.send(turn, Uuid::new_v4()).await?;
                let now = Instant::now();
                turn += 1;
                outcome.answered += 1;
                match answer {
                    Answer::Accepted if (from..until).contains(&now) => {
                        outcome.accepted += 1;
                        outcome.micros.push(micros(now - sent));
                    }
                    Answer::Accepted => {}
                    Answer::Refused(what) => {
                        outcome.refused += 1;
                        outcome.refusal.get_or_insert(what);
                    }
                }
                if now >= until {
                    return Ok::<_, anyhow::Error>(outcome);
                }
            }
        });
    }
    let mut outcome = Outcome::default();
    while let Some(done) = tasks.join_next().await {
        outcome.add(done.context("a sender")??);
    }
    Ok(outcome)
}

/// A request that was accepted: the event that it becomes, when it was sent, when its answer came.
pub type Accepted = (Uuid, Instant, Instant);

/// Sends at a rate (requests a second), on `connections` connections that take turns.
///
/// # Errors
/// If a connection breaks or a request is refused.
pub async fn stream(target: &Target, connections: u32, rate: u32, time: Duration) -> Result<Vec<Accepted>> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for sender in 0..connections {
        let target = target.clone();
        tasks.spawn(async move {
            let mut connection = Connection::open(&target).await?;
            let mut accepted = Vec::new();
            for turn in (sender..).step_by(connections as usize) {
                let due = start + Duration::from_secs(1) * turn / rate;
                if due >= start + time {
                    break;
                }
                tokio::time::sleep_until(due.into()).await;
                let delivery = Uuid::new_v4();
                let (sent, answer) = connection.send(turn as usize, delivery).await?;
                let Answer::Accepted = answer else { bail!("refused: {answer:?}") };
                let subscription = turn as usize % target.tokens.len();
                accepted.push((push::event_id(subscription, delivery), sent, Instant::now()));
            }
            Ok(accepted)
        });
    }
    let mut accepted = Vec::new();
    while let Some(done) = tasks.join_next().await {
        accepted.extend(done.context("a sender")??);
    }
    Ok(accepted)
}

/// Sends with a pause between an answer and the next request, on one connection and a thread of its own, until this is dropped.
/// That a request is refused is what such a sender has to expect.
pub struct Pest {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<usize>>>,
}

impl Pest {
    /// Begins.
    pub fn start(target: &Target, pause: Duration) -> Self {
        let (target, stop) = (target.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let send = async move || {
            let mut connection = Connection::open(&target).await?;
            let mut accepted = 0;
            while !stopped.load(Ordering::Relaxed) {
                let (_, answer) = connection.send(0, Uuid::new_v4()).await?;
                accepted += usize::from(matches!(answer, Answer::Accepted));
                tokio::time::sleep(pause).await;
            }
            Ok(accepted)
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(send())
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends it; gives how many requests were accepted.
    ///
    /// # Errors
    /// The connection broke.
    pub fn end(mut self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it ends once")?;
        thread.join().expect("a sender does not panic")
    }
}

impl Drop for Pest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[derive(Debug)]
enum Answer {
    Accepted,
    Refused(String),
}

struct Connection {
    stream: TcpStream,
    request: Request,
    tokens: Arc<[String]>,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", target.port)).await?;
        stream.set_nodelay(true)?;
        let (request, tokens) = (target.request.clone(), target.tokens.clone());
        Ok(Self { stream, request, tokens, buffer: Vec::with_capacity(4096) })
    }

    /// Sends a request; gives the time at which it was sent, and its answer.
    async fn send(&mut self, turn: usize, delivery: Uuid) -> Result<(Instant, Answer)> {
        self.request.address(&self.tokens[turn % self.tokens.len()], delivery);
        let sent = Instant::now();
        let (head, body) = self.request.parts();
        let written = self.stream.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).await?;
        // Usually nothing is left.
        if let Some(left) = written.checked_sub(head.len()) {
            self.stream.write_all(&body[left..]).await?;
        } else {
            self.stream.write_all(&head[written..]).await?;
            self.stream.write_all(body).await?;
        }
        self.buffer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
            if let Some((status, end)) = answer(&self.buffer)
                && self.buffer.len() >= end
            {
                ensure!(self.buffer.len() == end, "more than one answer to a request");
                return Ok((sent, status.map_or_else(Answer::Refused, |()| Answer::Accepted)));
            }
        }
    }
}

/// Whether the answer is a good one, and where it ends; nothing before all of its head is there.
fn answer(buffer: &[u8]) -> Option<(Result<(), String>, usize)> {
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&buffer[..end]);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let end = end + length.unwrap_or(0);
    let text = String::from_utf8_lossy(&buffer[..end.min(buffer.len())]);
    let good = text.starts_with("HTTP/1.1 200 ") && !text.contains("duplicate");
    Some((if good { Ok(()) } else { Err(text.into_owned()) }, end))
}
