//! `bellhop replay`: has requests delivered again.

use super::client::{Access, Cluster};
use super::exit::Exit;
use super::output::{Format, clean, document, print};
use super::request_log::{Look, RequestLog, selector};
use crate::log::model::{ReplayedDelivery, Request, State};
use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::sync::atomic::Ordering;

/// Requests of one trigger that are looked through for dead letters, the newest ones.
const MAX_REQUESTS: usize = 100_000;

/// Options of `bellhop replay`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Options {
    /// Name of the request, from `logs`
    #[arg(group = "what")]
    request: Option<String>,

    /// Deliver to this WorkflowTrigger alone; left out: to all that fired
    #[arg(long, value_name = "NAME", requires = "request")]
    trigger: Option<String>,

    /// Deliver everything again that was given up for this WorkflowTrigger
    #[arg(long, value_name = "TRIGGER", group = "what")]
    dead_letters: Option<String>,

    /// Print a document, or the names of the requests, instead of lines
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    #[command(flatten)]
    access: Access,
}

/// One request that was delivered again.
#[derive(Debug, PartialEq, Serialize)]
struct Done {
    request: String,
    deliveries: Vec<ReplayedDelivery>,
}

/// Replays.
///
/// # Errors
/// Something cannot be replayed, and why, or it is not known whether it was everything; the log is not served, or the API
/// server refused.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let cluster = options.access.cluster().await?;
    let log = RequestLog::new(&cluster);
    let (done, problems) = match (&options.request, &options.dead_letters) {
        (Some(name), _) => {
            let deliveries = log.replay(name, options.trigger.as_deref(), false).await?.deliveries;
            (vec![Done { request: name.clone(), deliveries }], Vec::new())
        }
        (None, Some(trigger)) => dead_letters(&cluster, &log, trigger).await?,
        (None, None) => return Err(Exit::Usage("name a request, or a trigger with --dead-letters".to_owned()).into()),
    };
    let names: Vec<_> = done.iter().map(|one| one.request.clone()).collect();
    print(&match options.output {
        None => done.iter().map(lines).collect(),
        Some(format) => document(format, &serde_json::json!({"replayed": done}), &names)?,
    })?;
    if problems.is_empty() { Ok(()) } else { Err(anyhow!(problems.join("; "))) }
}

/// Replays what was given up, one request after the other, and gives also what is wrong with that.
async fn dead_letters(cluster: &Cluster, log: &RequestLog, trigger: &str) -> anyhow::Result<(Vec<Done>, Vec<String>)> {
    let look = |request: &Request| if has_dead_letter(request, trigger) { Look::Wanted } else { Look::PassedOver };
    let (dead, cut) = log.find_among(&selector(&[("trigger", Some(trigger))]), MAX_REQUESTS, look).await?;
    let mut problems = Vec::new();
    if cluster.warnings.load(Ordering::Relaxed) > 0 {
        problems.push("it may not be everything: see the warnings".to_owned());
    }
    if cut {
        problems.push(format!("it may not be everything: only the newest {MAX_REQUESTS} requests were looked through"));
    }
    if dead.is_empty() && problems.is_empty() {
        // A name that was misspelt is not the same as a trigger without dead letters.
        cluster.get("WorkflowTrigger", trigger).await?;
        eprintln!("Nothing was given up for the WorkflowTrigger {trigger}.");
    }
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::new(dead.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos} of {len}   {msg}") {
        bar.set_style(style);
    }
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    // The oldest one first, as they came.
    for request in dead.iter().rev() {
        let name = request.metadata.name.clone();
        bar.set_message(clean(&name));
        match log.replay(&name, Some(trigger), true).await {
            Ok(replayed) => done.push(Done { request: name, deliveries: replayed.deliveries }),
            // One that is gone from the log meanwhile does not hold up the others.
            Err(error) => failed.push(format!("{name}: {error:#}")),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if let Some(first) = failed.first() {
        let all = failed.len() + done.len();
        problems.push(format!("{} of {all} could not be replayed; the first: {first}", failed.len()));
    }
    Ok((done, problems))
}

fn has_dead_letter(request: &Request, trigger: &str) -> bool {
    let mut triggers = request.events.iter().flat_map(|event| &event.triggers).filter(|one| one.name == trigger);
    triggers.any(|one| one.delivery.as_ref().is_some_and(|delivery| delivery.state == State::DeadLettered))
}

fn lines(done: &Done) -> String {
    if done.deliveries.is_empty() {
        return format!("{}: there was nothing to deliver\n", clean(&done.request));
    }
    let line =
        |one: &ReplayedDelivery| format!("{}: {}, event {}\n", clean(&done.request), clean(&one.trigger), one.event);
    done.deliveries.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::explain::tests::request;
    use super::*;

    #[test]
    fn dead_letters_are_those_of_the_trigger() {
        assert!(has_dead_letter(&request(), "notify"));
        assert!(!has_dead_letter(&request(), "build") && !has_dead_letter(&request(), "release"));
    }

    #[test]
    fn what_was_replayed_is_told() {
        let event = request().metadata.uid;
        let delivery = ReplayedDelivery { trigger: "build".to_owned(), event };
        let done = Done { request: "0-a".to_owned(), deliveries: vec![delivery] };
        assert_eq!(lines(&done), "0-a: build, event 5f000000-0000-4000-8000-000000000001\n");
        assert_eq!(
            lines(&Done { request: "0-a".to_owned(), deliveries: vec![] }),
            "0-a: there was nothing to deliver\n"
        );
    }
}
