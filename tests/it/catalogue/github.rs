//! GitHub: every payload that octokit has collected, and GitHub's own description of its webhooks.

use super::{Caller, made_up, plugin};
use anyhow::{Context, Result, ensure};
use bellhop::plugin::{CallbackRequest, Mismatch, Plugin, Secret, SubscriptionInfo, WholeEvent, whole_events};
use bellhop_harness::published;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

const SUBSCRIPTION: SubscriptionInfo<'static> = SubscriptionInfo { namespace: "team-a", name: "acme-web" };
const SECRET: &str = "q8Zr1vKp";

/// What is no event of the plugin: GitHub says hello with `ping`, and the others are sent by GitHub Enterprise Server to its
/// administrators, or were given up.
const ELSEWHERE: [&str; 5] = ["ping", "enterprise", "user", "cache_sync", "content_reference"];

/// Variables that not every event has.
const SOMETIMES: [&str; 5] = ["repository", "repositoryID", "organization", "sender", "tag"];

/// What one event's payloads showed.
#[derive(Default)]
struct Seen {
    payloads: usize,
    /// Variables that had a value.
    variables: BTreeSet<String>,
    /// Parameters that could be evaluated.
    parameters: BTreeSet<String>,
}

type Headers = Vec<(String, String)>;

/// A payload as GitHub sends it, in JSON and in a form.
fn requests(event: &str, payload: &Value) -> Vec<(Headers, Vec<u8>)> {
    let json = payload.to_string();
    let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &json).finish();
    [("application/json", json), ("application/x-www-form-urlencoded", form)]
        .into_iter()
        .map(|(content_type, body)| {
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any key is good");
            mac.update(body.as_bytes());
            let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
            let headers = [
                ("content-type", content_type),
                ("x-github-event", event),
                ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
                ("x-hub-signature-256", &signature),
            ];
            (headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(), body.into_bytes())
        })
        .collect()
}

/// Takes a payload: it is believed, is the event, and gives variables of their types. Every parameter is asked.
fn take(plugin: &Plugin, whole: &WholeEvent<'_>, payload: &Value, seen: &mut Seen) -> Result<()> {
    let name = &whole.event.name;
    for (headers, body) in requests(name, payload) {
        let request = CallbackRequest::stored("POST", "", &headers, &body);
        let verified = plugin.verify(&request, &[Secret::from(SECRET)]);
        ensure!(verified.is_ok(), "{name}: {verified:?}");
        let reading = plugin.read(&request).map_err(|bad| anyhow::anyhow!("{name}: {bad}"))?;
        let [event] = plugin.events(&reading)?.try_into().map_err(|all| anyhow::anyhow!("{name}: {all:?}"))?;
        ensure!(event.name.as_ref() == Ok(name), "{event:?} instead of {name}");
        let (variables, notes) = plugin.variables(&reading, &event);
        ensure!(notes.is_empty(), "{name}: {notes:?} in {payload:#}");
        seen.variables.extend(variables.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.clone()));
        plugin.compile_trigger(name, &Map::new(), None)?.matches(&reading, &event, &variables, SUBSCRIPTION)?;
        for (parameter, about) in &whole.parameters {
            let value = Map::from_iter([((*parameter).to_owned(), made_up::parameter(about.schema.value))]);
            let trigger = plugin.compile_trigger(name, &value, None)?;
            match trigger.matches(&reading, &event, &variables, SUBSCRIPTION) {
                Err(Mismatch::ParameterFailed { .. }) => {}
                Ok(()) | Err(Mismatch::Parameter { .. }) => {
                    seen.parameters.insert((*parameter).to_owned());
                }
                Err(other) => anyhow::bail!("{name} {parameter}: {other}"),
            }
        }
    }
    seen.payloads += 1;
    Ok(())
}

#[tokio::test]
async fn every_published_payload_is_an_event_with_its_variables() -> Result<()> {
    let (resource, plugin) = plugin("github")?;
    let whole = whole_events(&resource.spec.definitions, &resource.spec.events).0;
    let events: BTreeMap<&str, &WholeEvent<'_>> =
        whole.iter().map(|whole| (whole.event.name.as_str(), whole)).collect();
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, payload) in published::github_payloads().await? {
        if ELSEWHERE.contains(&name.as_str()) {
            continue;
        }
        let Some(whole) = events.get(name.as_str()) else {
            problems.push(format!("{name} is no event of the plugin"));
            continue;
        };
        if let Err(error) = take(&plugin, whole, &payload, seen.entry(name).or_default()) {
            problems.push(format!("{error:#}").chars().take(600).collect());
        }
    }
    let total: usize = seen.values().map(|seen| seen.payloads).sum();
    ensure!(problems.is_empty(), "{} of {total} payloads:\n{}", problems.len(), problems.join("\n"));
    println!("{total} payloads of {} events", seen.len());
    ensure!(seen.len() >= 57 && total >= 600, "{total} payloads of {} events", seen.len());
    Ok(())
}

#[tokio::test]
async fn the_plugin_knows_all_that_github_describes() -> Result<()> {
    let (resource, plugin) = plugin("github")?;
    let description = published::github_description().await?;
    let whole = whole_events(&resource.spec.definitions, &resource.spec.events).0;
    let events: BTreeMap<&str, &WholeEvent<'_>> =
        whole.iter().map(|whole| (whole.event.name.as_str(), whole)).collect();
    let mut problems = Vec::new();
    let mut actions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for webhook in description["webhooks"].as_object().context("webhooks")?.values() {
        let webhook = &webhook["post"];
        let name = webhook["x-github"]["subcategory"].as_str().context("a subcategory")?.replace('-', "_");
        if name == "ping" {
            continue;
        }
        let kinds = webhook["x-github"]["supported-webhook-types"].as_array().cloned().unwrap_or_default();
        places.entry(name.clone()).or_default().extend(kinds.iter().filter_map(Value::as_str).map(str::to_owned));
        let payload = made_up::payload(&description, &webhook["requestBody"]["content"]["application/json"]["schema"]);
        if let Some(action) = payload["action"].as_str() {
            actions.entry(name.clone()).or_default().insert(action.to_owned());
        }
        let Some(whole) = events.get(name.as_str()) else {
            problems.push(format!("{name} is no event of the plugin"));
            continue;
        };
        if let Err(error) = take(&plugin, whole, &payload, seen.entry(name).or_default()) {
            problems.push(format!("{error:#}").chars().take(300).collect());
        }
    }
    for (name, whole) in &events {
        let Some(seen) = seen.get(*name) else {
            problems.push(format!("{name} is not described"));
            continue;
        };
        let unset = whole.variables.keys().filter(|variable| !SOMETIMES.contains(variable));
        let unset = unset.filter(|variable| !seen.variables.contains(**variable));
        problems.extend(unset.map(|variable| format!("{name}: the variable {variable} never has a value")));
        let failing = whole.parameters.keys().filter(|parameter| **parameter != "repositories");
        let failing = failing.filter(|parameter| !seen.parameters.contains(**parameter));
        problems.extend(failing.map(|parameter| format!("{name}: the parameter {parameter} can never be evaluated")));
        let schema = whole.parameters.get("actions").map(|parameter| &parameter.schema.value["items"]["enum"]);
        let offered: BTreeSet<String> = schema.map_or_else(BTreeSet::new, |values| {
            values.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        });
        let described = actions.get(*name).cloned().unwrap_or_default();
        // GitHub's page may know more of them than the package. The names of one event's actions are users' own.
        if !described.is_subset(&offered) && *name != "repository_dispatch" {
            problems.push(format!("{name}: the actions {offered:?} instead of {described:?}"));
        }
    }
    problems.extend(registered(&plugin, &places)?);
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

/// A webhook is made with all the events that a repository or an organization can have, and with no other one.
fn registered(plugin: &Plugin, places: &BTreeMap<String, BTreeSet<String>>) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (place, parameters, url) in [
        ("repository", json!({"owner": "acme", "repository": "web"}), "https://api.github.com/repos/acme/web/hooks"),
        ("organization", json!({"organization": "acme"}), "https://api.github.com/orgs/acme/hooks"),
    ] {
        let parameters = parameters.as_object().cloned().context("parameters")?;
        plugin.check_parameters(&parameters).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
        let caller = Caller::new(SECRET, places.keys().cloned());
        let call = plugin.create_call(&caller.context(&parameters, "https://hooks.example.com/hooks/x"))?;
        ensure!(call.url.as_str() == url, "{}", call.url);
        let body: Value = serde_json::from_slice(&call.body.context("a body")?)?;
        let asked: BTreeSet<&str> =
            body["events"].as_array().context("events")?.iter().filter_map(Value::as_str).collect();
        for (event, kinds) in places {
            // Classic projects are switched off, whatever the description says.
            let expected = kinds.contains(place) && !event.starts_with("project_") && event != "project";
            if asked.contains(event.as_str()) != expected {
                problems.push(format!("{event}: a webhook of a {place} asks for it: {}", !expected));
            }
        }
    }
    Ok(problems)
}
