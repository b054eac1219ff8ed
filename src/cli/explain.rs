//! `bellhop explain`: the whole story of one request, as a tree.

use super::client::Access;
use super::output::{Format, Screen, Tone, clean, document, print, shorten};
use super::request_log::RequestLog;
use super::tree::Node;
use crate::log::model::{Attempt, Delivery, Event, Outcome, Request, State, Trigger};
use serde_json::Value;

/// Characters of a value that are shown; `-o yaml` shows everything.
const MAX_VALUE: usize = 100;
/// What is said of an event that was held against no trigger: the log does not know the others.
pub const NO_TRIGGER: &str =
    "no WorkflowTrigger that is published, and no draft that listened, was for this event when it came";

/// Options of `bellhop explain`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name of the request, from `logs`
    request: String,

    /// Print the request as a document, with its headers and its body, instead of the tree
    #[arg(short, long, value_enum)]
    output: Option<Format>,

    #[command(flatten)]
    access: Access,
}

/// Prints the story.
///
/// # Errors
/// There is no such request, the log is not served, or the API server refused.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let log = RequestLog::new(&options.access.cluster().await?);
    let request = log.get(&options.request).await?;
    print(&match options.output {
        None => tree(&request, Screen::stdout()).draw(),
        Some(format) => document(format, &request, std::slice::from_ref(&request.metadata.name))?,
    })?;
    Ok(())
}

/// What an outcome is, for those who see colours.
pub fn tone(outcome: Outcome) -> Tone {
    match outcome {
        Outcome::Delivered | Outcome::Captured => Tone::Good,
        Outcome::Received | Outcome::Pending => Tone::Warn,
        Outcome::DeadLettered | Outcome::Refused | Outcome::NoEvent => Tone::Bad,
        Outcome::NotFired | Outcome::NotSubscribed | Outcome::Ping | Outcome::Handshake | Outcome::Duplicate => {
            Tone::Faint
        }
    }
}

/// The story of a request.
pub fn tree(request: &Request, screen: Screen) -> Node {
    let subscription = &request.subscription;
    let plugin = subscription.plugin.as_ref().map(|plugin| format!(" ({plugin})")).unwrap_or_default();
    let mut root = Node::new(format!(
        "{}   {}   {}",
        screen.paint(Tone::Strong, &clean(&request.metadata.name)),
        clean(&format!("{}{plugin}", subscription.name)),
        screen.paint(tone(request.outcome), request.outcome.as_str()),
    ));
    root.add(Node::new(clean(&received(request))));
    if let Some(verification) = &request.verification {
        let why = verification.message.as_ref().map(|why| format!(": {}", clean(why))).unwrap_or_default();
        root.add(Node::new(match verification.verified {
            true => format!("{}{why}", screen.paint(Tone::Good, "verified")),
            false => format!("{}{why}", screen.paint(Tone::Bad, "not verified")),
        }));
    }
    if let Some(answer) = &request.answer {
        let after = answer.after_millis.map(|millis| format!(" after {millis} ms")).unwrap_or_default();
        let message = answer.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        let by = answer.trigger.as_ref().map(|trigger| format!(" by the runner of {trigger}")).unwrap_or_default();
        let note = answer.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        let text = format!("answered   {} {}{by}{after}{message}{note}", answer.status, answer.reason);
        root.add(Node::new(clean(&text)));
    }
    for event in &request.events {
        root.add(event_node(event, screen));
    }
    if let Some(note) = &request.note {
        root.add(Node::new(format!("note   {}", clean(note))));
    }
    root
}

fn received(request: &Request) -> String {
    let received = &request.received;
    let mut text = format!("received   {}   {}", received.time, received.method);
    if !received.query.is_empty() {
        text.push_str(&format!(" ?{}", received.query));
    }
    if let Some(body) = &received.body {
        text.push_str(&format!(", {} bytes", body.bytes));
    }
    if let Some(id) = &received.delivery_id {
        text.push_str(&format!(", delivery {id}"));
    }
    text
}

fn event_node(event: &Event, screen: Screen) -> Node {
    let name = if event.name.is_empty() { "without a name".to_owned() } else { clean(&event.name) };
    let mut node = Node::new(format!("event {}   {}", screen.paint(Tone::Strong, &name), event.id));
    if let Some(why) = &event.skipped {
        node.add(Node::new(screen.paint(Tone::Faint, &format!("went nowhere: {}", clean(why)))));
    }
    let variables = event.variables.as_ref().and_then(Value::as_object).filter(|variables| !variables.is_empty());
    if let Some(variables) = variables {
        let mut list = Node::new("variables");
        for (name, value) in variables {
            list.add(Node::new(clean(&format!("{name} = {}", shorten(&value.to_string(), MAX_VALUE)))));
        }
        node.add(list);
    }
    for note in &event.notes {
        node.add(Node::new(screen.paint(Tone::Warn, &clean(note))));
    }
    for trigger in &event.triggers {
        node.add(trigger_node(trigger, screen));
    }
    if event.triggers.is_empty() && event.skipped.is_none() {
        node.add(Node::new(screen.paint(Tone::Faint, NO_TRIGGER)));
    }
    node
}

fn trigger_node(trigger: &Trigger, screen: Screen) -> Node {
    let why = trigger.reason.as_ref().map(|why| format!(": {}", clean(why))).unwrap_or_default();
    let (mark, what) = match (trigger.fired, trigger.captured, &trigger.delivery) {
        (_, true, None) => (screen.paint(Tone::Good, "●"), "captured for somebody who listened".to_owned()),
        (false, _, None) => (screen.paint(Tone::Faint, "✗"), format!("did not fire{why}")),
        (_, _, None) => (screen.paint(Tone::Good, "✓"), "fired".to_owned()),
        (_, _, Some(delivery)) => delivered(delivery, screen),
    };
    let mut node =
        Node::new(format!("{mark} {}   workflow {}   {what}", clean(&trigger.name), clean(&trigger.workflow)));
    if let Some(replayed) = &trigger.replayed {
        let by = replayed.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        node.add(Node::new(clean(&format!("replayed at {}{by}", replayed.time))));
    }
    for attempt in trigger.delivery.iter().flat_map(|delivery| &delivery.attempts) {
        node.add(attempt_node(attempt, screen));
    }
    node
}

fn delivered(delivery: &Delivery, screen: Screen) -> (String, String) {
    match delivery.state {
        State::Delivered => (screen.paint(Tone::Good, "✓"), screen.paint(Tone::Good, "delivered")),
        State::Pending => {
            let next = delivery.next_attempt.as_ref().map(|at| format!(", next attempt at {at}")).unwrap_or_default();
            (screen.paint(Tone::Warn, "…"), screen.paint(Tone::Warn, &format!("pending{}", clean(&next))))
        }
        State::DeadLettered => {
            let why = delivery.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            (screen.paint(Tone::Bad, "!"), screen.paint(Tone::Bad, &format!("given up{}", clean(&why))))
        }
    }
}

fn attempt_node(attempt: &Attempt, screen: Screen) -> Node {
    let is_good = attempt.error.is_none() && attempt.status.is_some_and(|status| (200..300).contains(&status));
    let status = attempt.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
    let status = screen.paint(if is_good { Tone::Good } else { Tone::Bad }, &status);
    let rest = [attempt.error.as_ref(), attempt.answer.as_ref()];
    let rest: String =
        rest.into_iter().flatten().map(|text| format!("   {}", shorten(&clean(text), MAX_VALUE))).collect();
    let url = if attempt.url.is_empty() { String::new() } else { format!("   {}", clean(&attempt.url)) };
    Node::new(format!("{}   {status} after {} ms{url}{rest}", clean(&attempt.time), attempt.duration_millis))
}

#[cfg(test)]
pub mod tests {
    use super::super::output::screens::{COLOURS, TERMINAL};
    use super::*;
    use serde_json::json;

    /// A request with everything that can be told of one.
    pub fn request() -> Request {
        let id = "5f000000-0000-4000-8000-000000000001";
        serde_json::from_value(json!({
            "apiVersion": "log.bellhop.dev/v1alpha1", "kind": "Request",
            "metadata": {"name": format!("0-{id}"), "namespace": "team-a", "uid": id,
                "creationTimestamp": "2026-01-01T10:00:00Z", "resourceVersion": "1"},
            "subscription": {"name": "acme-web", "uid": id, "plugin": "gitea"},
            "outcome": "DeadLettered",
            "received": {"time": "2026-01-01T10:00:00.123Z", "method": "POST", "deliveryID": "72d3",
                "headers": [], "body": {"bytes": 1234, "text": "{}", "truncated": false}},
            "answer": {"status": 202, "afterMillis": 3, "reason": "Accepted"},
            "verification": {"verified": true},
            "events": [{
                "name": "push", "item": 0, "id": id,
                "variables": {"ref": "refs/heads/main", "title": "a\u{1b}[31mb"},
                "notes": ["pusher: no such key: pusher"],
                "triggers": [
                    {"name": "build", "uid": id, "workflow": "build", "fired": true,
                        "delivery": {"state": "Delivered", "attempts": [
                            {"time": "2026-01-01T10:00:00.130Z", "url": "http://runner/runs", "status": 500,
                                "durationMillis": 12, "answer": "busy"},
                            {"time": "2026-01-01T10:00:05.130Z", "url": "http://runner/runs", "status": 202,
                                "durationMillis": 8}]}},
                    {"name": "notify", "uid": id, "workflow": "notify", "fired": true,
                        "replayed": {"time": "2026-01-01T11:00:00.000Z", "by": "jane"},
                        "delivery": {"state": "DeadLettered", "reason": "12 attempts have failed", "attempts": [
                            {"time": "2026-01-01T10:00:00.130Z", "url": "http://gone/", "durationMillis": 1,
                                "error": "connection refused"}]}},
                    {"name": "release", "uid": id, "workflow": "release", "fired": false,
                        "reason": "parameter branches: [\"release/*\"] does not match"},
                    {"name": "try", "uid": id, "workflow": "try", "fired": false, "captured": true}]}],
        }))
        .unwrap()
    }

    #[test]
    fn the_story_is_told_from_the_receipt_to_each_attempt() {
        assert_eq!(
            tree(&request(), TERMINAL).draw(),
            r#"0-5f000000-0000-4000-8000-000000000001   acme-web (gitea)   DeadLettered
├─ received   2026-01-01T10:00:00.123Z   POST, 1234 bytes, delivery 72d3
├─ verified
├─ answered   202 Accepted after 3 ms
└─ event push   5f000000-0000-4000-8000-000000000001
   ├─ variables
   │  ├─ ref = "refs/heads/main"
   │  └─ title = "a\u001b[31mb"
   ├─ pusher: no such key: pusher
   ├─ ✓ build   workflow build   delivered
   │  ├─ 2026-01-01T10:00:00.130Z   500 after 12 ms   http://runner/runs   busy
   │  └─ 2026-01-01T10:00:05.130Z   202 after 8 ms   http://runner/runs
   ├─ ! notify   workflow notify   given up: 12 attempts have failed
   │  ├─ replayed at 2026-01-01T11:00:00.000Z by jane
   │  └─ 2026-01-01T10:00:00.130Z   no answer after 1 ms   http://gone/   connection refused
   ├─ ✗ release   workflow release   did not fire: parameter branches: ["release/*"] does not match
   └─ ● try   workflow try   captured for somebody who listened
"#
        );
        let colours = tree(&request(), COLOURS).draw();
        assert!(colours.contains("\u{1b}[31mgiven up: 12 attempts have failed\u{1b}[0m"), "{colours}");
        assert!(colours.contains("\u{1b}[31m500\u{1b}[0m after") && colours.contains("\u{1b}[32m202\u{1b}[0m after"));
    }

    #[test]
    fn a_refused_request_says_why_and_an_event_without_triggers_says_that() {
        let mut request = request();
        request.outcome = Outcome::Refused;
        request.events.clear();
        request.note = Some("12 others like it were left out".to_owned());
        request.verification =
            Some(crate::log::model::Verification { verified: false, message: Some("a header is missing".to_owned()) });
        let text = tree(&request, TERMINAL).draw();
        assert!(text.contains("├─ not verified: a header is missing\n"), "{text}");
        assert!(text.ends_with("└─ note   12 others like it were left out\n"), "{text}");
        let mut request = tests::request();
        request.events[0].triggers.clear();
        assert!(tree(&request, TERMINAL).draw().ends_with(&format!("   └─ {NO_TRIGGER}\n")));
        request.events[0].skipped = Some("not subscribed".to_owned());
        assert!(tree(&request, TERMINAL).draw().contains("   ├─ went nowhere: not subscribed\n"));
    }
}
