//! `bellhop status`: what is not Ready in a workspace, and why, in one screen.

use super::client::{Access, Cluster, conditions, told};
use super::exit::Exit;
use super::output::{Cell, Format, Screen, Tone, age, clean, document, print, table, wrap};
use crate::api::{Condition, GROUP, reason, type_};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Objects that are read in one call.
const PAGE: u32 = 500;

/// Options of `bellhop status`.
#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    access: Access,

    /// Print a document, or the names of what is not Ready, instead of text
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// What there is to say of a workspace.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    namespace: String,
    ready: bool,
    subscriptions: Count,
    workflow_triggers: Count,
    /// Plugins first, then Subscriptions, then WorkflowTriggers: what comes first is often why the others are not Ready.
    not_ready: Vec<Problem>,
    /// What is Ready, but will not be for long.
    warnings: Vec<Problem>,
    /// What could not be looked at.
    notes: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Count {
    total: usize,
    ready: usize,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem {
    kind: &'static str,
    name: String,
    reason: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
}

/// Prints the report.
///
/// # Errors
/// [`Exit::NotReady`] if something is not Ready; the API server refused or did not answer.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let cluster = options.access.cluster().await?;
    let report = collect(&cluster).await?;
    let text = match options.output {
        None => render(&report, Screen::stdout(), Timestamp::now()),
        Some(format) => document(format, &report, &names(&report))?,
    };
    print(&text)?;
    if report.ready { Ok(()) } else { Err(Exit::NotReady(String::new()).into()) }
}

async fn collect(cluster: &Cluster) -> anyhow::Result<Report> {
    let mut report = Report { namespace: cluster.namespace.clone(), ..Report::default() };
    let (subscriptions, triggers) = tokio::try_join!(list(cluster, "Subscription"), list(cluster, "WorkflowTrigger"))?;
    let plugins: BTreeSet<_> =
        subscriptions.iter().filter_map(|one| one.data["spec"]["pluginRef"]["name"].as_str()).collect();
    for name in plugins {
        // That it is missing is what its Subscriptions say.
        match cluster.objects("TriggerPlugin").get_opt(name).await {
            Ok(plugin) => drop(plugin.map(|plugin| report.add("TriggerPlugin", &plugin))),
            Err(error) => report.notes.push(format!("TriggerPlugin {name}: {:#}", told(error))),
        }
    }
    report.subscriptions = report.add_all("Subscription", &subscriptions);
    report.workflow_triggers = report.add_all("WorkflowTrigger", &triggers);
    report.ready = report.not_ready.is_empty();
    Ok(report)
}

/// All objects of a kind in the workspace, by name.
async fn list(cluster: &Cluster, kind: &str) -> anyhow::Result<Vec<DynamicObject>> {
    let api = cluster.objects(kind);
    let mut params = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(told)?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    objects.sort_by_key(ResourceExt::name_any);
    Ok(objects)
}

impl Report {
    fn add_all(&mut self, kind: &'static str, objects: &[DynamicObject]) -> Count {
        let ready = objects.iter().filter(|object| self.add(kind, object)).count();
        Count { total: objects.len(), ready }
    }

    /// Takes down what is wrong with an object, and says whether it is Ready.
    fn add(&mut self, kind: &'static str, object: &DynamicObject) -> bool {
        let conditions = conditions(object);
        let condition = |type_: &str| conditions.iter().find(|condition| condition.type_ == type_);
        let problem = |reason: &str, message: &str, since: Option<Time>| Problem {
            kind,
            name: object.name_any(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            since,
        };
        let told = |condition: &Condition| {
            problem(&condition.reason, &condition.message, Some(condition.last_transition_time.clone()))
        };
        let observed = object.data["status"]["observedGeneration"].as_i64();
        let behind = observed < object.metadata.generation;
        let found = match condition(type_::READY) {
            _ if object.metadata.deletion_timestamp.is_some() => {
                let registered = condition(type_::WEBHOOK_REGISTERED);
                let why = registered.filter(|condition| condition.reason == reason::DELETION_FAILED);
                let why = why.map_or("it is being deleted", |condition| condition.message.as_str());
                Some(problem("Terminating", why, object.metadata.deletion_timestamp.clone()))
            }
            None => {
                let since = object.metadata.creation_timestamp.clone();
                Some(problem(reason::PENDING, "Bellhop has not looked at it yet; is its controller running?", since))
            }
            Some(ready) if ready.status != "True" => Some(told(ready)),
            Some(ready) if behind => {
                let message = "Bellhop has not looked at the last change yet; is its controller running?";
                Some(problem(reason::PENDING, message, Some(ready.last_transition_time.clone())))
            }
            Some(_) => None,
        };
        let warnings = [type_::EXPIRING, type_::RUNNER_AWAY].into_iter().filter_map(condition);
        self.warnings.extend(warnings.filter(|warning| warning.status == "True").map(told));
        let is_ready = found.is_none();
        self.not_ready.extend(found);
        is_ready
    }
}

fn names(report: &Report) -> Vec<String> {
    report.not_ready.iter().map(|one| format!("{}.{GROUP}/{}", one.kind.to_lowercase(), one.name)).collect()
}

/// For people.
fn render(report: &Report, screen: Screen, now: Timestamp) -> String {
    let problems = || report.not_ready.iter().map(|one| (one, Tone::Bad));
    let warnings = || report.warnings.iter().map(|one| (one, Tone::Warn));
    let row = |one: &Problem, tone| {
        let since = one.since.as_ref().map(|since| age(since.0, now)).unwrap_or_default();
        vec![one.kind.into(), one.name.as_str().into(), Cell(one.reason.clone(), tone), since.into()]
    };
    let all: Vec<_> = problems().chain(warnings()).collect();
    if !screen.terminal {
        // One line for each, with the message in it.
        let with_message = |(one, tone): &(&Problem, Tone)| {
            let mut row = row(one, *tone);
            row.push(one.message.as_str().into());
            row
        };
        return table(screen, &[], &all.iter().map(with_message).collect::<Vec<_>>());
    }
    let mut text = format!("{}: {}\n", report.namespace, summary(report, screen));
    let rows: Vec<_> = all.iter().map(|(one, tone)| row(one, *tone)).collect();
    if !rows.is_empty() {
        let rows = table(screen, &["KIND", "NAME", "REASON", "FOR"], &rows);
        let mut lines = rows.lines();
        // Writing to a String does not fail.
        let _ = writeln!(text, "\n{}", lines.next().unwrap_or_default());
        for (line, (one, _)) in lines.zip(&all) {
            let _ = writeln!(text, "{line}");
            for part in wrap(&clean(&one.message), screen.width.saturating_sub(4)) {
                let _ = writeln!(text, "    {part}");
            }
        }
    }
    for note in &report.notes {
        let _ = writeln!(text, "\nNot looked at: {}", clean(note));
    }
    text
}

fn summary(report: &Report, screen: Screen) -> String {
    let count = |count: &Count, one: &str| {
        let tone = if count.ready == count.total { Tone::Good } else { Tone::Bad };
        let ready = screen.paint(tone, &format!("{} of {}", count.ready, count.total));
        format!("{ready} {one}{}", if count.total == 1 { "" } else { "s" })
    };
    match (&report.subscriptions, &report.workflow_triggers) {
        (Count { total: 0, .. }, Count { total: 0, .. }) => "no Subscriptions and no WorkflowTriggers".to_owned(),
        (subscriptions, triggers) => {
            format!("{} and {} Ready", count(subscriptions, "Subscription"), count(triggers, "WorkflowTrigger"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::screens::{COLOURS, PIPE, TERMINAL};
    use super::*;
    use serde_json::{Value, json};

    fn object(name: &str, metadata: &Value, status: &Value) -> DynamicObject {
        let mut object = json!({
            "metadata": {"name": name, "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status,
        });
        for (key, value) in metadata.as_object().unwrap() {
            object["metadata"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn conditions(list: &[(&str, &str, &str, &str)]) -> Value {
        let list: Vec<_> = list
            .iter()
            .map(|(type_, status, reason, message)| {
                json!({"type": type_, "status": status, "reason": reason, "message": message,
                    "lastTransitionTime": "2026-01-01T00:10:00Z"})
            })
            .collect();
        json!({"observedGeneration": 1, "conditions": list})
    }

    fn report() -> Report {
        let mut report = Report { namespace: "team-a".to_owned(), ..Report::default() };
        let link = "somebody has to follow the link https://hooks.example.com/oauth/start/abcdefghijklmnopqrstuvwxyz";
        report.subscriptions = report.add_all(
            "Subscription",
            &[
                object("acme-web", &json!({}), &conditions(&[("Ready", "False", "AuthorizationRequired", link)])),
                object("good", &json!({}), &conditions(&[("Ready", "True", "Ready", "")])),
                object(
                    "short-lived",
                    &json!({}),
                    &conditions(&[("Ready", "True", "Ready", ""), ("Expiring", "True", "RenewalFailed", "503")]),
                ),
            ],
        );
        report.workflow_triggers = report.add_all("WorkflowTrigger", &[object("review", &json!({}), &json!({}))]);
        report.ready = report.not_ready.is_empty();
        report
    }

    fn now() -> Timestamp {
        "2026-01-01T00:15:00Z".parse().unwrap()
    }

    #[test]
    fn a_terminal_shows_each_reason_with_its_message() {
        assert_eq!(
            render(&report(), TERMINAL, now()),
            "team-a: 2 of 3 Subscriptions and 0 of 1 WorkflowTrigger Ready\n\
             \n\
             KIND              NAME          REASON                  FOR\n\
             Subscription      acme-web      AuthorizationRequired   5m\n\
             \x20   somebody has to follow the link\n\
             \x20   https://hooks.example.com/oauth/start/abcdefghijklmnopqrstuvwxyz\n\
             WorkflowTrigger   review        Pending                 15m\n\
             \x20   Bellhop has not looked at it yet; is its controller running?\n\
             Subscription      short-lived   RenewalFailed           5m\n\
             \x20   503\n"
        );
    }

    #[test]
    fn a_pipe_gets_one_line_for_each() {
        let text = render(&report(), PIPE, now());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(
            lines[1],
            "WorkflowTrigger\treview\tPending\t15m\tBellhop has not looked at it yet; is its controller running?"
        );
        assert_eq!(names(&report()), ["subscription.bellhop.dev/acme-web", "workflowtrigger.bellhop.dev/review"]);
    }

    #[test]
    fn a_good_workspace_is_one_line_and_colours_tell_good_from_bad() {
        let mut good = Report { namespace: "team-a".to_owned(), ..Report::default() };
        assert_eq!(render(&good, TERMINAL, now()), "team-a: no Subscriptions and no WorkflowTriggers\n");
        good.subscriptions = Count { total: 1, ready: 1 };
        assert_eq!(
            render(&good, COLOURS, now()),
            "team-a: \u{1b}[32m1 of 1\u{1b}[0m Subscription and \u{1b}[32m0 of 0\u{1b}[0m WorkflowTriggers Ready\n"
        );
        good.notes.push("TriggerPlugin gitea: forbidden".to_owned());
        assert!(render(&good, TERMINAL, now()).ends_with("\nNot looked at: TriggerPlugin gitea: forbidden\n"));
        assert!(render(&report(), COLOURS, now()).contains("\u{1b}[31mAuthorizationRequired\u{1b}[0m"));
    }

    #[test]
    fn what_is_being_deleted_or_was_not_looked_at_is_not_ready() {
        let mut report = Report::default();
        let ready = conditions(&[("Ready", "True", "Ready", "")]);
        assert!(!report.add("Subscription", &object("changed", &json!({"generation": 2}), &ready)));
        let failed = conditions(&[("WebhookRegistered", "False", "DeletionFailed", "the answer was 503")]);
        let going = json!({"deletionTimestamp": "2026-01-01T00:05:00Z"});
        assert!(!report.add("Subscription", &object("going", &going, &failed)));
        let told: Vec<_> = report.not_ready.iter().map(|one| (one.reason.as_str(), one.message.as_str())).collect();
        assert_eq!(
            told,
            [
                ("Pending", "Bellhop has not looked at the last change yet; is its controller running?"),
                ("Terminating", "the answer was 503"),
            ]
        );
    }
}
