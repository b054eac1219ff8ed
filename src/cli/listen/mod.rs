//! `bellhop listen`: shows the events that a draft would have fired on, while somebody tries it out.

mod captured;
mod forward;

use super::client::Access;
use super::exit::Exit;
use super::output::{Format, Screen, clean, print};
use super::request_log::{BEGINS_WITHIN, Heard, RequestLog};
use crate::config::duration;
use crate::log::model::Request;
use anyhow::{anyhow, bail};
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
/// [`Exit::NotReady`] if nothing was captured in time, [`Exit::Interrupted`]; the trigger is no draft or did not begin to listen,
/// the log is not served, or the API server refused.
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
    let forward = options.forward.clone().map(Forward::to).transpose()?;
    let mut session = Session { options, log: &log, seen: HashSet::new(), shown: 0, forward, not_forwarded: 0 };
    let heard = pin!(log.listen(name, options.time));
    tokio::select! {
        ended = session.watch(heard, options.time.max(BEGINS_WITHIN)) => ended?,
        () = shutdown.cancelled() => return Err(Exit::Interrupted.into()),
    }
    session.result()
}

/// What has happened while it listens.
struct Session<'a> {
    options: &'a Options,
    log: &'a RequestLog,
    /// Ids of the events that were shown.
    seen: HashSet<Uuid>,
    shown: usize,
    forward: Option<Forward>,
    not_forwarded: usize,
}

impl Session<'_> {
    /// Shows what is captured, until it is enough or the time is over, which counts from the moment in which it listens.
    async fn watch(
        &mut self,
        mut heard: impl Stream<Item = anyhow::Result<Heard>> + Unpin,
        begins_within: Duration,
    ) -> anyhow::Result<()> {
        let mut end = None;
        let begins = Instant::now() + begins_within;
        loop {
            let next = match tokio::time::timeout_at(end.unwrap_or(begins), heard.next()).await {
                Ok(Some(heard)) => heard?,
                Err(_) if end.is_none() => {
                    bail!("the draft {} did not begin to listen in {}s", self.options.trigger, begins_within.as_secs())
                }
                Ok(None) | Err(_) => return Ok(()),
            };
            match next {
                Heard::Begun(silent) => {
                    if let Some(silent) = silent {
                        eprintln!("Warning: {}", clean(&silent));
                    }
                    let end = *end.get_or_insert_with(|| Instant::now() + self.options.time);
                    let until = Timestamp::now().checked_add(end.saturating_duration_since(Instant::now()))?;
                    eprintln!("Listening to {} until {until:.0}; Ctrl-C ends it.", self.options.trigger);
                }
                Heard::Captured(request) => self.look(&request).await?,
            }
            if self.options.count > 0 && self.shown >= self.options.count {
                return Ok(());
            }
        }
    }

    async fn look(&mut self, request: &Request) -> anyhow::Result<()> {
        let name = &self.options.trigger;
        if captured(request, name).all(|event| self.seen.contains(&event.id)) {
            return Ok(());
        }
        // Lists and watches leave out variables.
        let (whole, unread) = match self.log.get_patiently(&request.metadata.name).await {
            Ok(whole) => (whole, false),
            Err(error) => {
                eprintln!("Warning: the variables are missing: {}", clean(&format!("{error:#}")));
                (request.clone(), true)
            }
        };
        for event in captured(&whole, name) {
            if (self.options.count > 0 && self.shown >= self.options.count) || !self.seen.insert(event.id) {
                continue;
            }
            self.shown += 1;
            let shown = Shown { request: &whole, event };
            print(&render(&shown, self.options.output, Screen::stdout())?)?;
            if let Some(forward) = &self.forward {
                let sent = match unread {
                    true => Err(anyhow!("its variables are missing")),
                    false => forward.send(&shown, name).await,
                };
                match sent {
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

#[cfg(test)]
mod tests {
    use super::super::exit::code;
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[tokio::test]
    async fn a_draft_that_does_not_begin_to_listen_is_an_error() {
        let options = Line::parse_from(["listen", "draft", "--for", "1s"]).options;
        let log = RequestLog::for_tests();
        let mut session =
            Session { options: &options, log: &log, seen: HashSet::new(), shown: 0, forward: None, not_forwarded: 0 };
        let error = session.watch(futures::stream::pending(), Duration::from_millis(10)).await.unwrap_err();
        assert_eq!((code(&error), error.to_string().as_str()), (1, "the draft draft did not begin to listen in 0s"));
        // Its time begins when it listens.
        let begun = futures::stream::iter([Ok(Heard::Begun(None))]).chain(futures::stream::pending());
        session.watch(begun, Duration::from_millis(10)).await.unwrap();
        assert_eq!(code(&session.result().unwrap_err()), 4);
    }
}
