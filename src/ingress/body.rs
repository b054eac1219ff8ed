//! Reading a body without trusting its sender: bounded in size, in time and in the memory of all bodies together.

use crate::routes::Traffic;
use crate::telemetry::Metrics;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Memory is reserved in steps of at least this size, so that a body costs few atomic operations.
const STEP: usize = 64 * 1024;
/// How long an oversized body is read and thrown away: many senders read an answer only after they have sent all.
const DRAIN: Duration = Duration::from_secs(1);

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is larger than the limit.
    TooLarge,
    /// It took too long.
    Timeout,
    /// The bodies in flight, of all routes or of this one, fill the memory that is set aside for them.
    Busy,
    /// The sender stopped in the middle.
    Broken,
}

/// The memory that bodies in flight may take, in all and for one route.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    route: usize,
    used: AtomicUsize,
}

impl Budget {
    /// Room for the largest body many times over; no route can take more than a quarter.
    pub fn new(body_limit: usize) -> Self {
        let total = body_limit.saturating_mul(8).max(256 * 1024 * 1024);
        Self { total, route: total / 4, used: AtomicUsize::new(0) }
    }

    /// Bytes that are reserved now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// Memory that is reserved for one body until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    traffic: Arc<Traffic>,
    bytes: usize,
}

impl Reservation {
    fn new(budget: &Arc<Budget>, traffic: &Arc<Traffic>) -> Self {
        Self { budget: budget.clone(), traffic: traffic.clone(), bytes: 0 }
    }

    /// Reserves up to `bytes` in all.
    fn grow(&mut self, bytes: usize) -> Result<(), BodyError> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        // Counted first and given back if it was too much: two bodies at once can only make the bound stricter.
        let total = self.budget.used.fetch_add(more, Ordering::Relaxed) + more;
        let route = self.traffic.body_bytes.fetch_add(more, Ordering::Relaxed) + more;
        self.bytes += more;
        if total > self.budget.total || route > self.budget.route { Err(BodyError::Busy) } else { Ok(()) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.traffic.body_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What bounds the reading of a body.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Largest body in bytes.
    pub limit: usize,
    /// Longest time to the last byte.
    pub timeout: Duration,
    /// Memory of all bodies.
    pub budget: Arc<Budget>,
}

/// What the head of a request says of its body.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// `Content-Length`.
    pub length: Option<u64>,
    /// Whether the sender waits for the permission to send it (`Expect: 100-continue`).
    pub waits: bool,
}

/// Reads a body. The reservation must live as long as the body is in use.
///
/// # Errors
/// See [`BodyError`].
pub async fn read(
    mut body: Body,
    declared: Declared,
    bounds: &Bounds,
    traffic: &Arc<Traffic>,
) -> Result<(Bytes, Reservation), BodyError> {
    let too_large = declared.length.is_some_and(|length| length > bounds.limit as u64);
    if too_large && declared.waits {
        return Err(BodyError::TooLarge);
    }
    let result = match too_large {
        true => Err(BodyError::TooLarge),
        false => tokio::time::timeout(bounds.timeout, receive(&mut body, declared.length, bounds, traffic))
            .await
            .unwrap_or(Err(BodyError::Timeout)),
    };
    if result.is_err() {
        let _ = tokio::time::timeout(DRAIN, drain(&mut body, bounds.limit)).await;
    }
    result
}

async fn receive(
    body: &mut Body,
    declared: Option<u64>,
    bounds: &Bounds,
    traffic: &Arc<Traffic>,
) -> Result<(Bytes, Reservation), BodyError> {
    let declared = declared.and_then(|length| usize::try_from(length).ok());
    let mut reservation = Reservation::new(&bounds.budget, traffic);
    // Only what has arrived is reserved: who announces much and sends nothing holds little.
    reservation.grow(declared.unwrap_or(0).min(STEP))?;
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        let length = first.len() + rest.len() + data.len();
        if length > bounds.limit {
            return Err(BodyError::TooLarge);
        }
        if length > reservation.bytes {
            reservation.grow(length.next_multiple_of(STEP))?;
        }
        if first.is_empty() && rest.is_empty() {
            // Most bodies come in one piece, which is not copied.
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(declared.unwrap_or(0).max(length));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    let body = if rest.is_empty() { first } else { rest.freeze() };
    Ok((body, reservation))
}

/// Throws away at most `limit` further bytes.
async fn drain(body: &mut Body, limit: usize) {
    let mut left = limit.saturating_mul(4);
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > left {
            return;
        }
        left -= length;
    }
}

/// Publishes the memory in use.
pub fn report(budget: &Budget, metrics: &Metrics) {
    metrics.body_bytes(budget.used());
}
