//! `bellhop listen`: shows the events that a draft would have fired on, while somebody tries it out.

mod captured;
mod forward;

use super::client::Access;
use super::exit::Exit;
use super::output::{Format, Screen, clean, print};
use super::request_log::{Heard, RequestLog};
use crate::config::duration;
use crate::log::model::Request;
use anyhow::bail;
use captured::{Shown, captured, render};
use forward::Forward;
use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The longest time that a draft listens.
const LONGEST: Duration = Duration::from_secs(3600);

/// Options of `bellhop listen`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The WorkflowTrigger, in mode Draft
    trigger: String,

    /// End after so many events; 0: when the time is over
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    count: usize,

    /// How long to listen, at most 1h
    #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = listening_time)]
    time: Duration,

    /// Send each event to this URL too, as the runner would get it; it is called from this machine
    #[arg(long, value_name = "URL", value_parser = Forward::parse)]
    forward: Option<url::Url>,

    /// Print each event as a document, or the name of its request, instead of text
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    #[command(flatten)]
    access: Access,
}

fn listening_time(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let allowed = Duration::from_secs(1)..=LONGEST;
    if allowed.contains(&time) { Ok(time) } else { Err("expected something from 1s to 1h".to_owned()) }
}

/// Listens. Whatever ends it, the draft does not listen any more afterwards.
///
/// # Errors
/// [`Exit::NotReady`] if nothing was captured in time, [`Exit::Interrupted`]; the trigger is no draft, the log is not served,
/// or the API server refused.
pub async fn run(options: &Options, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let cluster = options.access.cluster().await?;
    let name = &options.trigger;
    let trigger = cluster.get("WorkflowTrigger", name).await?;
    let mode = trigger.data["spec"]["mode"].as_str().unwrap_or("Published");
    if mode != "Draft" {
        let message = format!(
            "the WorkflowTrigger {name} is in mode {mode}; only one in mode Draft is listened to. What a published one did is \
             in `bellhop logs`"
        );
        return Err(Exit::Usage(message).into());
    }
    let log = RequestLog::new(&cluster);
    let (until, end) = (Timestamp::now().checked_add(options.time)?, Instant::now() + options.time);
    let mut session =
        Session { options, log: &log, until, seen: HashSet::new(), shown: 0, forward: None, not_forwarded: 0 };
    if let Some(url) = &options.forward {
        session.forward = Some(Forward::to(url.clone())?);
    }
    let heard = pin!(log.listen(name, end));
    let ended = tokio::select! {
        ended = tokio::time::timeout_at(end, session.watch(heard)) => ended.unwrap_or(Ok(())),
        () = shutdown.cancelled() => Err(Exit::Interrupted.into()),
    };
    ended?;
    session.result()
}

/// What has happened while it listens.
struct Session<'a> {
    options: &'a Options,
    log: &'a RequestLog,
    /// When it ends.
    until: Timestamp,
    /// Ids of the events that were shown.
    seen: HashSet<Uuid>,
    shown: usize,
    forward: Option<Forward>,
    not_forwarded: usize,
}

impl Session<'_> {
    /// Shows what is captured, until it is enough or the time is over.
    async fn watch(&mut self, mut heard: impl Stream<Item = anyhow::Result<Heard>> + Unpin) -> anyhow::Result<()> {
        while let Some(heard) = heard.next().await {
            match heard? {
                Heard::Begun(silent) => {
                    if let Some(silent) = silent {
                        eprintln!("Warning: {}", clean(&silent));
                    }
                    eprintln!("Listening to {} until {:.0}; Ctrl-C ends it.", self.options.trigger, self.until);
                }
                Heard::Captured(request) => self.look(&request).await?,
            }
            if self.options.count > 0 && self.shown >= self.options.count {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn look(&mut self, request: &Request) -> anyhow::Result<()> {
        let name = &self.options.trigger;
        if captured(request, name).all(|event| self.seen.contains(&event.id)) {
            return Ok(());
        }
        // Lists and watches leave out variables.
        let whole = self.log.get(&request.metadata.name).await?;
        for event in captured(&whole, name) {
            if (self.options.count > 0 && self.shown >= self.options.count) || !self.seen.insert(event.id) {
                continue;
            }
            self.shown += 1;
            let shown = Shown { request: &whole, event };
            print(&render(&shown, self.options.output, Screen::stdout())?)?;
            if let Some(forward) = &self.forward {
                match forward.send(&shown, name).await {
                    Ok(status) => eprintln!("Sent to {}: {status}", forward.url()),
                    Err(error) => {
                        self.not_forwarded += 1;
                        eprintln!("Not sent to {}: {error:#}", forward.url());
                    }
                }
            }
        }
        Ok(())
    }

    fn result(&self) -> anyhow::Result<()> {
        if self.not_forwarded > 0 {
            bail!("{} of {} events were not taken by the URL", self.not_forwarded, self.shown);
        }
        if self.shown == 0 {
            let time = self.options.time.as_secs();
            let message = format!(
                "nothing was captured in {time}s; `bellhop logs` shows what came, and why the draft did not want it"
            );
            return Err(Exit::NotReady(message).into());
        }
        Ok(())
    }
}
