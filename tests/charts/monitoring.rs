//! Alerts and dashboard ask for what Bellhop exports, and name what exists.

use crate::support::{bellhop, find, items, name, read, read_yaml};
use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;

fn exported() -> BTreeSet<String> {
    let series: BTreeSet<String> = read("src/telemetry.rs")
        .lines()
        .filter_map(|line| {
            line.strip_prefix("//! | `bellhop_")?.split('`').next().map(|rest| format!("bellhop_{rest}"))
        })
        .collect();
    assert!(series.len() > 15, "src/telemetry.rs has its table no longer: {series:?}");
    series
}

/// The series that an expression names, each with what follows it.
fn series(expression: &str) -> Vec<(String, String)> {
    let pattern = Regex::new(r"(bellhop_[a-z_]+?)(_bucket|_count|_sum)?\b([^a-z_]?.{0,30})").unwrap();
    pattern.captures_iter(expression).map(|found| (found[1].to_owned(), found[3].to_owned())).collect()
}

fn assert_balanced(expression: &str) {
    for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
        let count = |c| expression.matches(c).count();
        assert_eq!(count(open), count(close), "{open}{close}: {expression}");
    }
}

#[test]
fn alerts_name_series_that_exist_and_say_what_to_do() {
    let exported = exported();
    let telemetry = read("src/telemetry.rs");
    let values = read_yaml("charts/bellhop/values.yaml");
    let setting = Regex::new(r"\b(?:ingress|networkPolicy|controller)\.[a-zA-Z]+(?:\.[a-zA-Z]+)*").unwrap();
    let other_alert = Regex::new(r"\bBellhop[A-Z]\w+").unwrap();
    let alerts = read_yaml("charts/bellhop/files/alerts.yaml");
    let mut names = BTreeSet::new();
    for alert in items(&alerts) {
        let alert_name = alert["alert"].as_str().unwrap();
        assert!(names.insert(alert_name), "{alert_name} is there twice");
        let expression = alert["expr"].as_str().unwrap();
        assert_balanced(expression);
        let used = series(expression);
        assert!(!used.is_empty(), "{alert_name} asks for nothing");
        for (series, follows) in used {
            assert!(exported.contains(&series), "{alert_name}: nothing exports {series}");
            assert!(follows.starts_with("{SELECTOR"), "{alert_name}: {series} is of every installation");
        }
        if let Some(answers) = expression.split("answer=~\"").nth(1) {
            for answer in answers.split('"').next().unwrap().split('|') {
                assert!(telemetry.contains(&format!("=> \"{answer}\"")), "{alert_name}: there is no answer {answer}");
            }
        }
        assert!(matches!(alert["labels"]["severity"].as_str(), Some("warning" | "critical")), "{alert_name}: severity");
        for (field, least) in [("summary", 10), ("description", 60), ("action", 60)] {
            let text = alert["annotations"][field].as_str().unwrap_or_default();
            assert!(text.len() >= least && text.ends_with('.'), "{alert_name}: {field} is {text:?}");
            for path in setting.find_iter(text) {
                let pointer = format!("/{}", path.as_str().replace('.', "/"));
                assert!(values.pointer(&pointer).is_some(), "{alert_name}: there is no value {}", path.as_str());
            }
            for other in other_alert.find_iter(text) {
                assert!(
                    items(&alerts).iter().any(|alert| alert["alert"] == other.as_str()),
                    "{alert_name}: {}",
                    other.as_str()
                );
            }
        }
    }
    for expected in [
        "BellhopAuthorizationLost",
        "BellhopDeadLetters",
        "BellhopNoLeader",
        "BellhopRequestsRefused",
        "BellhopSpoolFilling",
        "BellhopWatchStalled",
        "BellhopWebhookExpires",
        "BellhopWebhooksOrphaned",
    ] {
        assert!(names.contains(expected), "there is no alert {expected}");
    }
}

#[test]
fn reasons_in_alerts_and_dashboard_are_reasons_of_bellhop() {
    let reasons = read("src/api/conditions.rs");
    let reason = Regex::new(r#"reason=~?\\?"([A-Za-z|]+)"#).unwrap();
    let mut seen = 0;
    for path in ["charts/bellhop/files/alerts.yaml", "charts/bellhop/dashboards/bellhop.json"] {
        for found in reason.captures_iter(&read(path)) {
            for reason in found[1].split('|') {
                assert!(reasons.contains(&format!("\"{reason}\"")), "{path}: there is no reason {reason}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 2);
}

#[test]
fn the_rule_is_rendered_with_the_values() {
    let args = ["--set=monitoring.prometheusRule.enabled=true"];
    let objects = bellhop(&args);
    let rule = find(&objects, "PrometheusRule", "bellhop");
    let rules = items(&rule["spec"]["groups"][0]["rules"]);
    assert_eq!(rules.len(), items(&read_yaml("charts/bellhop/files/alerts.yaml")).len());
    let text = rule.to_string();
    assert!(!text.contains("SELECTOR"), "{text}");
    let expires = rules.iter().find(|rule| rule["alert"] == "BellhopWebhookExpires").unwrap();
    let expected = "max by (plugin, reason) (bellhop_subscriptions_expiring{namespace=\"bellhop-system\"}) > 0";
    assert_eq!(expires["expr"], expected);

    let objects = bellhop(&[args[0], "--set-string=monitoring.prometheusRule.selector=job=~\"bellhop.*\""]);
    let text = find(&objects, "PrometheusRule", "bellhop").to_string();
    assert!(text.contains(r#"bellhop_leader{job=~\"bellhop.*\"}"#), "{text}");
}

#[test]
fn the_dashboard_shows_every_series_and_no_other() {
    let text = read("charts/bellhop/dashboards/bellhop.json");
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let (mut ids, mut places, mut shown) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for panel in items(&dashboard["panels"]) {
        assert!(ids.insert(panel["id"].as_u64()), "two panels have the id {}", panel["id"]);
        assert!(!panel["title"].as_str().unwrap_or_default().is_empty());
        let place = |field: &str| panel["gridPos"][field].as_u64().unwrap();
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(
                    x < 24 && places.insert((x, y)),
                    "{}: lies on another panel, or beside the grid",
                    panel["title"]
                );
            }
        }
        for target in items(&panel["targets"]) {
            let expression = target["expr"].as_str().unwrap();
            assert_balanced(expression);
            for (series, follows) in series(expression) {
                let selector = r#"{namespace="$namespace"}"#;
                assert!(follows.starts_with(selector), "{}: {expression}", panel["title"]);
                shown.insert(series);
            }
        }
    }
    assert_eq!(shown, exported(), "what the dashboard shows is not what Bellhop exports");

    let objects = bellhop(&["--set=monitoring.dashboard.enabled=true"]);
    let map = objects.iter().find(|object| name(object) == "bellhop-dashboard").unwrap();
    let rendered: Value = serde_json::from_str(map["data"]["bellhop.json"].as_str().unwrap()).unwrap();
    assert_eq!(rendered, dashboard);
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
}
