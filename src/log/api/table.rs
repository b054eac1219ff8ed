//! Requests as a table, which kubectl prints.

use super::entry::Entry;
use serde_json::{Value, json};

/// What of its object each row has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata.
    Metadata,
    /// All of it.
    Object,
}

/// Name, whether only `-o wide` shows it, what it means.
const COLUMNS: [(&str, bool, &str); 8] = [
    ("Name", false, "Name of the request: the replica of the ingress that has it, and its id."),
    ("Subscription", false, "The Subscription whose callback URL was called."),
    ("Event", false, "What the request says happened; several events are separated by commas."),
    ("Outcome", false, "What came of it."),
    ("Fired", false, "How many triggers fired, of those that were held against its events."),
    ("Answer", false, "HTTP status that the sender was answered with."),
    ("Plugin", true, "The TriggerPlugin of the Subscription."),
    ("Age", false, "How long ago it was received."),
];
/// Most characters of a cell: what a request brings must not tear up the table.
const MAX_CELL: usize = 63;

/// A table of these requests at `now` (Unix milliseconds); `metadata` is that of the list.
pub fn table(entries: &[Entry], include: Include, metadata: Value, now: i64) -> Value {
    let columns: Vec<_> = COLUMNS
        .iter()
        .map(|(name, wide, description)| {
            let format = if *name == "Name" { "name" } else { "" };
            json!({
                "name": name, "type": "string", "format": format, "description": description, "priority": u8::from(*wide),
            })
        })
        .collect();
    let rows: Vec<_> = entries.iter().map(|entry| row(entry, include, now)).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns, "rows": rows,
    })
}

fn row(entry: &Entry, include: Include, now: i64) -> Value {
    let events: Vec<_> = entry.event_names().collect();
    let fired = match entry.fired() {
        (_, 0) => "-".to_owned(),
        (fired, all) => format!("{fired}/{all}"),
    };
    let answer = match entry.answer() {
        0 => "-".to_owned(),
        status => status.to_string(),
    };
    let cells = [
        cell(entry.name()),
        cell(entry.subscription()),
        cell(&events.join(",")),
        cell(entry.outcome()),
        fired,
        answer,
        cell(entry.plugin()),
        age(entry.created(), now),
    ];
    let mut row = json!({"cells": cells});
    match include {
        Include::None => {}
        Include::Object => row["object"] = entry.0.clone(),
        Include::Metadata => {
            let metadata = entry.0["metadata"].clone();
            row["object"] =
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
        }
    }
    row
}

fn cell(text: &str) -> String {
    match text {
        "" => "-".to_owned(),
        text if text.chars().count() <= MAX_CELL => text.to_owned(),
        text => text.chars().take(MAX_CELL - 1).chain(['…']).collect(),
    }
}

/// The time since then as kubectl writes it (`duration.HumanDuration` in k8s.io/apimachinery).
fn age(created: &str, now: i64) -> String {
    let Ok(created) = created.parse::<k8s_openapi::jiff::Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = (now - created.as_millisecond()) / 1000;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let both = |whole: i64, unit: char, rest: i64, part: char| match rest {
        0 => format!("{whole}{unit}"),
        rest => format!("{whole}{unit}{rest}{part}"),
    };
    match seconds {
        // Clocks differ.
        i64::MIN..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => both(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => both(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => both(hours / 24, 'd', hours % 24, 'h'),
        _ => format!("{}d", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry(json!({
            "kind": "Request", "metadata": {
                "name": "0-5f", "namespace": "team-a", "resourceVersion": "7",
                "creationTimestamp": "2026-03-01T12:00:00.250Z",
            },
            "subscription": {"name": "acme-web", "plugin": "gitea"}, "outcome": "Delivered", "answer": {"status": 200},
            "events": [{"name": "push", "triggers": [{"name": "a", "fired": true}, {"name": "b", "fired": false}]}],
        }))
    }

    const NOW: i64 = 1_772_366_402_750;

    #[test]
    fn a_row_says_what_came_of_a_request() {
        let table = table(&[entry()], Include::Metadata, json!({"resourceVersion": "9"}), NOW);
        let cells = json!(["0-5f", "acme-web", "push", "Delivered", "1/2", "200", "gitea", "2s"]);
        assert_eq!(table["rows"][0]["cells"], cells);
        assert_eq!(table["columnDefinitions"].as_array().unwrap().len(), cells.as_array().unwrap().len());
        assert_eq!(table["columnDefinitions"][0]["format"], "name");
        assert_eq!(table["metadata"]["resourceVersion"], "9");
        let object = &table["rows"][0]["object"];
        assert_eq!(
            (&object["kind"], &object["metadata"]["namespace"]),
            (&json!("PartialObjectMetadata"), &json!("team-a"))
        );
        assert_eq!(row(&entry(), Include::Object, NOW)["object"], entry().0);
        assert!(row(&entry(), Include::None, NOW).get("object").is_none());
    }

    #[test]
    fn what_is_missing_or_long_leaves_the_table_whole() {
        let refused =
            Entry(json!({"metadata": {"name": "0-a"}, "outcome": "Refused", "events": [{"name": "x".repeat(100)}]}));
        let row = row(&refused, Include::None, NOW);
        let event = row["cells"][2].as_str().unwrap();
        assert_eq!(event.chars().count(), MAX_CELL);
        assert_eq!(row["cells"], json!(["0-a", "-", event, "Refused", "-", "-", "-", "<unknown>"]));
    }

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        let start = "2026-03-01T12:00:00Z";
        for (seconds, text) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (40_000_000, "462d"),
        ] {
            let created = start.parse::<k8s_openapi::jiff::Timestamp>().unwrap().as_millisecond();
            assert_eq!(age(start, created + seconds * 1000), text, "{seconds}");
        }
    }
}
