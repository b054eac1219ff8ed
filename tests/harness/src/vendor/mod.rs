//! Stand-ins for external systems that nobody can run: small servers on loopback that behave, where it matters for the
//! life of a webhook, as the vendor documents it. They keep webhooks, call callback URLs with a signature, and can be
//! looked into.
//!
//! One file is one vendor and one peculiarity; its first lines say which, and which page or open-source library of the
//! vendor the facts come from. Where a delivery is signed in a way that the plugin language has no verification for,
//! the stand-in signs the raw body instead, and its first lines say that too. So a stand-in proves how Bellhop deals
//! with a peculiarity. It does not prove that Bellhop works with the vendor.
//!
//! - [`Vendor`] is what differs between them, [`Standin`] runs one.
//! - [`Desk`] is what a test looks into: which webhooks exist, when which existed, which calls came.

mod asked;
mod delivery;
mod desk;

pub mod airtable;
pub mod asana;
pub mod bitbucket;
pub mod calendly;
pub mod discord;
pub mod github;
pub mod gitlab;
pub mod gmail;
pub mod google_calendar;
pub mod google_pubsub;
pub mod harbor;
pub mod linear;
pub mod mailgun;
pub mod microsoft_graph;
pub mod notion;
pub mod pagerduty;
pub mod sentry;
pub mod shopify;
pub mod slack;
pub mod stripe;
pub mod telegram;
pub mod twilio;
pub mod typeform;
pub mod webflow;
pub mod zendesk;
pub mod zoom;

pub use asked::Asked;
pub use delivery::{Answered, Delivery};
pub use desk::{Desk, Life, Webhook, millis, now};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::server::{Call, Reply, Server};

/// What a vendor does.
pub trait Vendor: Send + Sync + 'static {
    /// Answers a call to the vendor's API.
    fn answer(&self, desk: &Arc<Desk>, asked: &Asked) -> Answer;

    /// The call that tells this webhook of an event, as the vendor names it. `number` differs from call to call.
    fn delivery(&self, webhook: &Webhook, event: &str, number: u64) -> Delivery;
}

/// An answer, or one that takes a while: a vendor may call the callback URL before it answers.
pub enum Answer {
    /// It is there.
    Now(Reply),
    /// It will be there.
    Later(BoxFuture<'static, Reply>),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer::Now(reply)
    }
}

/// An answer in JSON.
pub fn answer_json(status: u16, body: &Value) -> Reply {
    Reply::status(status).header("content-type", "application/json").body(body.to_string())
}

/// An answer in JSON with a message, which is what most vendors do with an error.
pub fn answer_error(status: u16, message: &str) -> Reply {
    answer_json(status, &json!({"message": message}))
}

/// A vendor on a free port of loopback. Dropping it ends it.
pub struct Standin<V> {
    server: Server,
    desk: Arc<Desk>,
    vendor: Arc<V>,
    numbers: Arc<AtomicU64>,
}

impl<V: Vendor> Standin<V> {
    /// Starts a vendor that has no webhooks.
    pub fn start(vendor: V) -> Result<Standin<V>> {
        let (desk, vendor) = (Arc::new(Desk::default()), Arc::new(vendor));
        let (books, behaviour) = (desk.clone(), vendor.clone());
        let server = Server::start(Arc::new(move |call: Call| {
            if let Some(status) = books.note(call.method.as_str(), &call.path) {
                return std::future::ready(answer_error(status, "the test lets this call fail")).boxed();
            }
            let held = books.held(call.method.as_str(), &call.path);
            let reply = match behaviour.answer(&books, &Asked::new(&call)) {
                Answer::Now(reply) => std::future::ready(reply).boxed(),
                Answer::Later(reply) => reply,
            };
            if held.is_zero() {
                return reply;
            }
            async move {
                let reply = reply.await;
                tokio::time::sleep(held).await;
                reply
            }
            .boxed()
        }))?;
        Ok(Standin { server, desk, vendor, numbers: Arc::default() })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The vendor's books.
    pub fn desk(&self) -> &Desk {
        &self.desk
    }

    /// The vendor itself.
    pub fn vendor(&self) -> &V {
        &self.vendor
    }

    /// Tells every webhook that wants it of an event. There must be one, and each must accept it. Gives their number.
    pub async fn send(&self, event: &str) -> Result<usize> {
        let sent = deliver(&self.desk, &*self.vendor, &self.numbers, event).await?;
        ensure!(sent > 0, "no webhook wants {event}: {:?}", self.desk.webhooks());
        Ok(sent)
    }

    /// Sends an event to every webhook that wants it, again and again, until [`Sending::stop`].
    pub fn keep_sending(&self, event: &str, every: Duration) -> Sending {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (desk, vendor, numbers) = (self.desk.clone(), self.vendor.clone(), self.numbers.clone());
        let event = event.to_owned();
        let task = tokio::spawn(async move {
            let mut sent = 0;
            let mut ticks = tokio::time::interval(every);
            while !stopped.load(Ordering::Acquire) {
                ticks.tick().await;
                sent += deliver(&desk, &*vendor, &numbers, &event).await?;
            }
            Ok(sent)
        });
        Sending { stop, task }
    }
}

async fn deliver<V: Vendor>(desk: &Desk, vendor: &V, numbers: &AtomicU64, event: &str) -> Result<usize> {
    let mut sent = 0;
    for webhook in desk.webhooks().iter().filter(|webhook| webhook.wants(event)) {
        let number = numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let answered = vendor.delivery(webhook, event, number).send().await;
        let what = || format!("{event} to the webhook {} ({:?})", webhook.id, desk.timeline());
        answered.and_then(Answered::accepted).with_context(what)?;
        sent += 1;
    }
    Ok(sent)
}

/// Deliveries that go on until they are stopped.
pub struct Sending {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<usize>>,
}

impl Sending {
    /// Stops, and gives how many deliveries were sent and accepted; fails if one was not accepted.
    pub async fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::Release);
        self.task.await?
    }
}
