//! `bellhop logs`: the requests of a Subscription, a line each, and as they come.

use super::client::Access;
use super::explain::{NO_TRIGGER, tone};
use super::output::{Cell, Format, Screen, Tone, clean, columns, document, json_line, print, shorten};
use super::request_log::{Look, RequestLog, Told, moment, selector};
use crate::config::duration;
use crate::log::model::{Outcome, Request, State};
use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use std::collections::HashMap;
use std::pin::pin;
use std::time::Duration;

/// Widths of the columns; requests come one by one, so they are not known beforehand.
const WIDTHS: [usize; 6] = [24, 38, 16, 12, 5, 6];
const HEADER: [&str; 7] = ["TIME", "REQUEST", "EVENT", "OUTCOME", "FIRED", "ANSWER", "WHY"];
/// Requests whose last line is remembered, so that nothing is printed twice.
const MAX_PRINTED: usize = 20_000;

/// Options of `bellhop logs`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The Subscription
    subscription: String,

    /// Print requests as they come and change, until Ctrl-C
    #[arg(short, long)]
    follow: bool,

    /// Only requests that are not older than this, such as 1h
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    since: Option<Duration>,

    /// Only what was refused, was given up, or has failed so far
    #[arg(long)]
    failed: bool,

    /// Only requests with this event
    #[arg(long, value_name = "NAME")]
    event: Option<String>,

    /// The newest requests alone, before it is followed
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    tail: usize,

    /// Print documents, or names, instead of lines; followed, each request is a document of its own
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    #[command(flatten)]
    access: Access,
}

/// Prints the requests.
///
/// # Errors
/// There is no such Subscription and nothing in the log of it, the log is not served, or the API server refused.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let cluster = options.access.cluster().await?;
    let log = RequestLog::new(&cluster);
    let fields = [("subscription", Some(options.subscription.as_str())), ("event", options.event.as_deref())];
    let selector = selector(&fields);
    let mut printer = Printer::new(options, Screen::stdout());
    if !options.follow {
        let filter = printer.filter;
        let mut requests = log.find(&selector, options.tail, |request| filter.look(request)).await?;
        if requests.is_empty() {
            // A name that was misspelt is not the same as one to which nothing came.
            cluster.get("Subscription", &options.subscription).await?;
        }
        requests.reverse();
        return Ok(print(&printer.all(&requests)?)?);
    }
    cluster.get("Subscription", &options.subscription).await?;
    print(&printer.header())?;
    let filter = printer.filter;
    let mut told = pin!(log.follow(selector, options.tail, move |request| filter.look(request)));
    while let Some(told) = told.next().await {
        let requests = match told? {
            Told::There(requests) => requests,
            Told::Changed(request) => vec![*request],
        };
        for request in requests {
            print(&printer.next(&request)?)?;
        }
    }
    Ok(())
}

/// Which requests are wanted.
#[derive(Clone, Copy)]
struct Filter {
    failed: bool,
    since: Option<Timestamp>,
}

impl Filter {
    /// What is thought of one of those that there are, the newest first.
    fn look(self, request: &Request) -> Look {
        let is_old =
            self.since.is_some_and(|since| moment(&request.received.time).is_ok_and(|received| received < since));
        match is_old {
            true => Look::End,
            false if self.failed && !failed(request) => Look::PassedOver,
            false => Look::Wanted,
        }
    }
}

struct Printer {
    screen: Screen,
    output: Option<Format>,
    filter: Filter,
    /// What was printed of a request last.
    printed: HashMap<String, String>,
}

impl Printer {
    fn new(options: &Options, screen: Screen) -> Self {
        let since = options.since.and_then(|since| Timestamp::now().checked_sub(since).ok());
        let filter = Filter { failed: options.failed, since };
        Self { screen, output: options.output, filter, printed: HashMap::new() }
    }

    /// What is there, at once.
    fn all(&self, requests: &[Request]) -> anyhow::Result<String> {
        let Some(format) = self.output else {
            let lines = requests.iter().map(|request| line(request, self.screen));
            return Ok([self.header()].into_iter().chain(lines).collect());
        };
        let names: Vec<_> = requests.iter().map(|request| request.metadata.name.clone()).collect();
        document(format, &serde_json::json!({"items": requests}), &names)
    }

    /// A request that came or changed; nothing, if it would be said twice.
    fn next(&mut self, request: &Request) -> anyhow::Result<String> {
        // It is told again as soon as it is held against the triggers.
        if request.outcome == Outcome::Received || self.filter.look(request) != Look::Wanted {
            return Ok(String::new());
        }
        let line = line(request, self.screen);
        let name = &request.metadata.name;
        if self.printed.get(name) == Some(&line) {
            return Ok(String::new());
        }
        if self.printed.len() >= MAX_PRINTED {
            self.printed.clear();
        }
        let is_new = self.printed.insert(name.clone(), line.clone()).is_none();
        match self.output {
            None => Ok(line),
            Some(Format::Json) => json_line(request),
            Some(Format::Yaml) => Ok(format!("---\n{}", document(Format::Yaml, request, &[])?)),
            Some(Format::Name) => Ok(if is_new { format!("{name}\n") } else { String::new() }),
        }
    }

    fn header(&self) -> String {
        if !self.screen.terminal || self.output.is_some() {
            return String::new();
        }
        columns(self.screen, &WIDTHS, &HEADER.map(|text| Cell(text.to_owned(), Tone::Faint)))
    }
}

/// One request in one line.
fn line(request: &Request, screen: Screen) -> String {
    let mut events: Vec<&str> = request.events.iter().map(|event| event.name.as_str()).collect();
    events.dedup();
    let triggers = || request.events.iter().flat_map(|event| &event.triggers);
    let fired = match triggers().count() {
        0 => "-".to_owned(),
        all => format!("{}/{all}", triggers().filter(|trigger| trigger.fired).count()),
    };
    let answer = request.answer.as_ref().map_or_else(|| "-".to_owned(), |answer| answer.status.to_string());
    let cells = [
        Cell::from(request.received.time.as_str()),
        request.metadata.name.as_str().into(),
        if events.is_empty() { "-".into() } else { events.join(",").into() },
        Cell(request.outcome.as_str().to_owned(), tone(request.outcome)),
        fired.into(),
        answer.into(),
        why(request).into(),
    ];
    let cells = cells.map(|Cell(text, tone)| Cell(clean(&text), tone));
    if !screen.terminal {
        return cells.map(|cell| cell.0).join("\t") + "\n";
    }
    let taken: usize = WIDTHS.iter().map(|width| width + 3).sum();
    // In a narrow terminal the reason wraps rather than vanishes.
    let left = Some(screen.width.saturating_sub(taken)).filter(|left| *left >= 20);
    let [.., Cell(why, _)] = &cells;
    let why = left.map_or_else(|| why.clone(), |left| shorten(why, left));
    let [time, name, event, outcome, fired, answer, _] = cells;
    columns(screen, &WIDTHS, &[time, name, event, outcome, fired, answer, why.into()])
}

/// Whether something went wrong, or has so far.
fn failed(request: &Request) -> bool {
    matches!(request.outcome, Outcome::Refused | Outcome::DeadLettered | Outcome::NoEvent) || failure(request).is_some()
}

/// The first delivery that was given up or has failed so far, in words.
fn failure(request: &Request) -> Option<String> {
    let triggers = || request.events.iter().flat_map(|event| &event.triggers);
    let dead = triggers().find_map(|trigger| {
        let delivery = trigger.delivery.as_ref().filter(|delivery| delivery.state == State::DeadLettered)?;
        Some(format!("{}: {}", trigger.name, delivery.reason.as_deref().unwrap_or("given up")))
    });
    dead.or_else(|| {
        triggers().find_map(|trigger| {
            let delivery = trigger.delivery.as_ref().filter(|delivery| delivery.state == State::Pending)?;
            let last = delivery.attempts.last()?;
            let what = last.error.clone().or_else(|| last.status.map(|status| format!("the answer was {status}")))?;
            Some(format!("{}: {what}", trigger.name))
        })
    })
}

/// Why it has its outcome, in a few words; nothing, where there is nothing to explain.
fn why(request: &Request) -> String {
    if let Some(failure) = failure(request) {
        return failure;
    }
    let refusal = || {
        let verification = request.verification.as_ref().filter(|verification| !verification.verified);
        let answer = request.answer.as_ref();
        verification.and_then(|one| one.message.clone()).or_else(|| answer.and_then(|one| one.message.clone()))
    };
    let not_fired = || {
        let mut triggers = request.events.iter().flat_map(|event| &event.triggers).peekable();
        if triggers.peek().is_none() {
            return Some(NO_TRIGGER.to_owned());
        }
        let mut others = triggers.filter(|trigger| !trigger.fired);
        others.find_map(|trigger| Some(format!("{}: {}", trigger.name, trigger.reason.as_ref()?)))
    };
    let why = match request.outcome {
        Outcome::Refused | Outcome::NoEvent => refusal(),
        Outcome::NotFired => not_fired(),
        _ => None,
    };
    why.or_else(|| request.note.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::explain::tests::request;
    use super::super::output::screens::{COLOURS, PIPE, TERMINAL};
    use super::*;

    const NAME: &str = "0-5f000000-0000-4000-8000-000000000001";

    fn printer(screen: Screen) -> Printer {
        Printer { screen, output: None, filter: Filter { failed: false, since: None }, printed: HashMap::new() }
    }

    #[test]
    fn a_request_is_a_line() {
        let wide = Screen { width: 160, ..TERMINAL };
        assert_eq!(
            printer(wide).all(&[request()]).unwrap(),
            format!(
                "TIME                       REQUEST                                  EVENT              OUTCOME        FIRED   ANSWER   WHY\n\
                 2026-01-01T10:00:00.123Z   {NAME}   push               DeadLettered   2/4     202      notify: 12 attempts have failed\n"
            )
        );
        assert_eq!(
            line(&request(), PIPE),
            format!(
                "2026-01-01T10:00:00.123Z\t{NAME}\tpush\tDeadLettered\t2/4\t202\tnotify: 12 attempts have failed\n"
            )
        );
        assert!(line(&request(), COLOURS).contains("\u{1b}[31mDeadLettered\u{1b}[0m"));
    }

    #[test]
    fn what_is_followed_is_said_once_and_again_when_it_has_changed() {
        let mut printer = printer(PIPE);
        let mut request = request();
        request.outcome = Outcome::Received;
        assert_eq!(printer.next(&request).unwrap(), "");
        request.outcome = Outcome::Pending;
        assert!(printer.next(&request).unwrap().contains("\tPending\t"));
        assert_eq!(printer.next(&request).unwrap(), "");
        request.outcome = Outcome::Delivered;
        assert!(printer.next(&request).unwrap().contains("\tDelivered\t"));
        printer.output = Some(Format::Name);
        request.outcome = Outcome::DeadLettered;
        assert_eq!(printer.next(&request).unwrap(), "", "its name was said");
    }

    #[test]
    fn failed_and_since_leave_out_the_others() {
        let mut good = request();
        good.events[0].triggers.retain(|trigger| trigger.name == "build");
        good.outcome = Outcome::Delivered;
        let mut trying = good.clone();
        trying.outcome = Outcome::Pending;
        let delivery = trying.events[0].triggers[0].delivery.as_mut().unwrap();
        delivery.state = State::Pending;
        delivery.attempts.truncate(1);
        assert_eq!((failed(&good), failed(&trying), failed(&request())), (false, true, true));
        assert_eq!(why(&trying), "build: the answer was 500");
        let since = |time: &str| Filter { failed: false, since: Some(time.parse().unwrap()) };
        assert_eq!(since("2026-01-01T10:00:00.124Z").look(&request()), Look::End);
        assert_eq!(since("2026-01-01T10:00:00.123Z").look(&request()), Look::Wanted);
        // Times are compared as times, whatever zone they are written in.
        assert_eq!(since("2026-01-01T11:00:00.123+01:00").look(&request()), Look::Wanted);
        let failures = Filter { failed: true, since: None };
        assert_eq!((failures.look(&good), failures.look(&trying)), (Look::PassedOver, Look::Wanted));
    }

    #[test]
    fn outcomes_are_explained() {
        let mut refused = request();
        refused.events.clear();
        refused.outcome = Outcome::Refused;
        refused.verification =
            Some(crate::log::model::Verification { verified: false, message: Some("no signature".to_owned()) });
        assert_eq!(why(&refused), "no signature");
        let mut not_fired = request();
        not_fired.outcome = Outcome::NotFired;
        not_fired.events[0].triggers.retain(|trigger| trigger.name == "release");
        assert_eq!(why(&not_fired), "release: parameter branches: [\"release/*\"] does not match");
        not_fired.events[0].triggers.clear();
        assert_eq!(why(&not_fired), NO_TRIGGER);
    }
}
