//! The runner: takes every event and notes which one came when.

use super::LAST;
use super::load::Accepted;
use anyhow::{Context, Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use bellhop_harness::ports::free_port;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;

type Noted = Arc<Mutex<HashMap<Uuid, Vec<Instant>>>>;

/// What the time until an arrival begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// The request is sent.
    Request,
    /// It is answered.
    Answer,
}

/// A runner on a thread of its own, which ends with the process.
pub struct Runner {
    /// Where events go.
    pub url: String,
    noted: Noted,
}

impl Runner {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let port = free_port()?;
        let socket = std::net::TcpListener::bind(("127.0.0.1", port))?;
        socket.set_nonblocking(true)?;
        let noted = Noted::default();
        let notes = noted.clone();
        let take = async move |headers: HeaderMap, _: Bytes| {
            let id = headers.get("ce-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
            if let Some(id) = id {
                let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                notes.entry(id).or_default().push(Instant::now());
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(socket)?
        };
        std::thread::Builder::new()
            .name("runner".to_owned())
            .spawn(move || runtime.block_on(async { axum::serve(listener, Router::new().fallback(take)).await }))
            .context("the runner's thread")?;
        Ok(Self { url: format!("http://127.0.0.1:{port}/runs"), noted })
    }

    /// What arrived since the last call: each event's id, and when it came for each of its triggers.
    pub fn take(&self) -> HashMap<Uuid, Vec<Instant>> {
        std::mem::take(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many deliveries arrived since the last [`take`](Self::take).
    pub fn count(&self) -> usize {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).values().map(Vec::len).sum()
    }

    /// Waits until so many deliveries have arrived.
    ///
    /// # Errors
    /// None came for [`LAST`].
    pub async fn wait_for(&self, deliveries: usize) -> Result<()> {
        let (mut seen, mut moved) = (0, Instant::now());
        while seen < deliveries {
            if moved.elapsed() > LAST {
                bail!("{seen} of {deliveries} deliveries have arrived, and none in the last {LAST:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            let now = self.count();
            if now > seen {
                (seen, moved) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// Microseconds from `since` of each of these requests until each of its deliveries, one for each trigger, has arrived. They
    /// are on their way at the same time as the answer.
    ///
    /// # Errors
    /// One does not arrive.
    pub async fn ways(&self, accepted: &[Accepted], triggers: usize, since: Since) -> Result<Vec<u32>> {
        self.wait_for(accepted.len() * triggers).await?;
        let arrived = self.take();
        let mut ways = Vec::with_capacity(accepted.len() * triggers);
        for (event, sent, answered) in accepted {
            let since = if since == Since::Request { sent } else { answered };
            let times = arrived.get(event).with_context(|| format!("the event {event} has not arrived"))?;
            for at in times {
                ways.push(u32::try_from(at.saturating_duration_since(*since).as_micros())?);
            }
        }
        Ok(ways)
    }
}
