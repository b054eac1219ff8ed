//! What the recorded requests of the catalogue show: ten events of each plugin at least, and each of their variables.

use super::page::catalogue;
use super::recorded::{Recorded, folder, of_the_catalogue};
use super::*;
use std::collections::{BTreeMap, BTreeSet};

/// How many events of a plugin are shown at least, if it has as many.
const SHOWN: usize = 10;

/// Variables that are null by nature in events that are shown: the plugin, the events, the variables, and why.
/// What Gitea has sent is recorded, so nothing is made up for it. GitHub's are asked for in `tests/it/catalogue/github.rs`, of
/// every payload that is published.
const NULL: &[(&str, &[&str], &[&str], &str)] = &[
    (
        "asana",
        &["task.changed", "task.deleted", "task.undeleted", "project.changed", "project.deleted", "attachment.deleted"],
        &["parent", "parentType"],
        "only what is added somewhere, or removed from there, has a parent",
    ),
    ("asana", &["task.deleted"], &["user"], "the one that is shown was deleted by nobody"),
    (
        "asana",
        &[
            "project.changed",
            "project.deleted",
            "section.added",
            "goal.added",
            "team_membership.removed",
            "workspace_membership.added",
        ],
        &["subtype"],
        "Asana shows subtypes of tasks, stories and attachments",
    ),
    (
        "discord",
        &["LOBBY_MESSAGE_DELETE"],
        &["author", "channel", "content"],
        "Discord says which message, and no more",
    ),
    ("gitea", &["push"], &["tag"], "the pushes are of branches"),
    ("gitea", &["package"], &["repository"], "the package belongs to none"),
    ("gitea", &["workflow_run", "workflow_job"], &["conclusion"], "they have not ended"),
    (
        "gitlab",
        &["note", "wiki_page", "pipeline", "emoji", "vulnerability"],
        &["changes"],
        "GitLab tells the changes of issues and merge requests",
    ),
    ("gitlab", &["pipeline", "vulnerability"], &["action"], "their status or state says it"),
    ("gitlab", &["emoji"], &["url"], "a reaction has no page; targetURL is that of what it is on"),
    ("gitlab", &["release", "milestone", "resource_access_token"], &["user"], "GitLab does not say who did it"),
    ("shopify", &["orders/create", "orders/fulfilled"], &["cancelReason"], "they are not cancelled"),
    ("shopify", &["orders/create"], &["fulfillmentStatus"], "nothing is fulfilled yet"),
    ("shopify", &["orders/edited", "checkouts/update", "app/uninstalled"], &["adminID"], "Shopify sends none"),
    ("shopify", &["orders/edited", "inventory_levels/update"], &["id"], "the ids are of what they are about"),
    (
        "shopify",
        &["products/delete"],
        &["adminID", "handle", "productType", "status", "tags", "title", "updatedAt", "variants", "vendor"],
        "Shopify sends the id alone",
    ),
    ("shopify", &["fulfillments/create"], &["shipmentStatus"], "it has not left yet"),
    ("shopify", &["app/uninstalled"], &["domain"], "it is null in Shopify's example"),
    ("stripe", &["charge.succeeded"], &["failureCode", "failureMessage"], "it has not failed"),
    ("stripe", &["refund.created"], &["failureReason"], "it has not failed"),
    (
        "zoom",
        &[
            "meeting.created",
            "meeting.updated",
            "meeting.deleted",
            "meeting.started",
            "meeting.participant_joined",
            "meeting.participant_left",
            "meeting.registration_created",
            "recording.completed",
            "recording.transcript_completed",
        ],
        &["endTime"],
        "Zoom says the end of what has ended",
    ),
    (
        "zoom",
        &[
            "meeting.started",
            "meeting.ended",
            "meeting.participant_joined",
            "meeting.participant_left",
            "meeting.registration_created",
            "webinar.ended",
            "recording.completed",
            "recording.transcript_completed",
        ],
        &["operator"],
        "no user of the account did it",
    ),
    ("zoom", &["meeting.participant_joined"], &["leaveTime", "leaveReason"], "the participant is there"),
    ("zoom", &["meeting.participant_left"], &["joinTime"], "Zoom says when the participant left"),
];

/// The events that a plugin's requests show, each with those of its variables that have a value in one of them.
fn shown(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let plugin = of_the_catalogue(name);
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for recorded in Recorded::all(&folder(name)).iter().filter(|recorded| recorded.verified) {
        // A handshake may have no body that could be read.
        let Ok(reading) = plugin.read(&recorded.request()) else { continue };
        for event in plugin.events(&reading).unwrap_or_default() {
            let Some(event_name) = event.name.as_ref().ok().filter(|name| plugin.event(name).is_some()) else {
                continue;
            };
            let (variables, _) = plugin.variables(&reading, &event);
            let set = variables.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name);
            shown.entry(event_name.clone()).or_default().extend(set);
        }
    }
    shown
}

#[test]
fn ten_events_of_every_plugin_are_shown_or_all_that_it_has() {
    let mut lacking = Vec::new();
    for (name, plugin) in catalogue() {
        let (shown, all) = (shown(&name), plugin.spec.events.len());
        if shown.len() < all.min(SHOWN) {
            lacking.push(format!("{name}: {} of {all}: {:?}", shown.len(), shown.keys()));
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
}

#[test]
fn every_variable_of_an_event_that_is_shown_has_a_value_in_some_request() {
    let (mut unset, mut excused) = (BTreeSet::new(), BTreeSet::new());
    for (name, plugin) in catalogue().into_iter().filter(|(name, _)| name != "github") {
        let shown = shown(&name);
        let (whole, _) = whole_events(&plugin.spec.definitions, &plugin.spec.events);
        for event in whole {
            let Some(set) = shown.get(&event.event.name) else { continue };
            let without = event.variables.keys().filter(|variable| !set.contains(**variable));
            unset.extend(without.map(|variable| format!("{name} {} {variable}", event.event.name)));
        }
    }
    for (name, events, variables, why) in NULL {
        assert!(!why.is_empty());
        let pairs = events.iter().flat_map(|event| variables.iter().map(move |variable| (event, variable)));
        excused.extend(pairs.map(|(event, variable)| format!("{name} {event} {variable}")));
    }
    let never: Vec<_> = unset.difference(&excused).collect();
    assert!(never.is_empty(), "variables that no request gives a value: {never:#?}");
    let needless: Vec<_> = excused.difference(&unset).collect();
    assert!(needless.is_empty(), "they have a value after all: {needless:#?}");
}
