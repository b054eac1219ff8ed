//! What the catalogue promises of each plugin, and of GitHub's parameters by name.

use super::page::catalogue;
use crate::plugin::whole_events;

/// GitHub's events with the parameters that a user of other products looks for, besides the event's actions. What GitHub does not
/// send, the plugin's description says: files of a pull request, the message of a dismissed review, a key's fingerprint, and
/// severity and branch of a leaked secret.
const GITHUB: &[(&str, &[&str])] = &[
    ("branch_protection_configuration", &["actions"]),
    ("branch_protection_rule", &["actions", "patterns"]),
    ("check_run", &["actions", "names", "branches", "apps", "conclusions", "senders"]),
    ("check_suite", &["actions", "conclusions", "branches", "apps"]),
    ("code_scanning_alert", &["actions", "severities", "states", "rules", "tools", "branches"]),
    ("commit_comment", &["actions", "contains", "commenters", "commits", "paths"]),
    ("create", &["refTypes", "refs"]),
    ("custom_property_values", &[]),
    ("delete", &["refTypes", "refs"]),
    ("dependabot_alert", &["actions", "severities", "states", "ecosystems", "packages", "manifests"]),
    ("deploy_key", &["actions", "titles"]),
    ("deployment", &["actions", "environments", "refs", "creators"]),
    ("deployment_status", &["environments", "states", "refs", "creators"]),
    ("discussion", &["actions", "categories", "authors", "titleContains", "bodyContains"]),
    ("discussion_comment", &["actions", "contains", "commenters"]),
    ("fork", &[]),
    ("gollum", &["actions", "titles"]),
    ("issue_comment", &["actions", "contains", "commenters", "labels", "states", "pullRequest"]),
    ("issue_dependencies", &["actions", "blockedIssues", "blockingIssues"]),
    ("issues", &["actions", "labels", "assignees", "authors", "milestones", "titleContains", "bodyContains", "states"]),
    ("label", &["actions", "names", "colors"]),
    ("member", &["actions", "members"]),
    ("merge_group", &["actions", "baseBranches", "headSHAs"]),
    ("meta", &[]),
    ("milestone", &["actions", "titles", "states", "dueOn", "creators"]),
    ("package", &["actions", "packageTypes", "names"]),
    ("page_build", &[]),
    ("public", &[]),
    (
        "pull_request",
        &[
            "actions",
            "baseBranches",
            "headBranches",
            "authors",
            "draft",
            "labels",
            "reviewers",
            "minChangedLines",
            "maxChangedLines",
            "merged",
        ],
    ),
    ("pull_request_review", &["actions", "states", "reviewers", "authors", "numbers", "contains", "dismissers"]),
    (
        "pull_request_review_comment",
        &["actions", "contains", "commenters", "paths", "positions", "authors", "numbers", "deleters"],
    ),
    ("pull_request_review_thread", &["actions", "resolved", "threadAuthors", "paths"]),
    ("push", &["refs", "branches", "tags", "pushers", "deleted", "forced", "messageContains", "paths", "ignoredPaths"]),
    ("registry_package", &["actions", "packageTypes", "names"]),
    ("release", &["actions", "tags", "targets", "prerelease", "draft", "authors"]),
    ("repository", &["actions", "visibilities", "nameContains"]),
    ("repository_advisory", &["actions"]),
    ("repository_import", &[]),
    ("repository_ruleset", &["actions"]),
    ("repository_vulnerability_alert", &["actions"]),
    ("secret_scanning_alert", &["actions", "secretTypes"]),
    ("security_and_analysis", &[]),
    ("star", &[]),
    ("status", &[]),
    ("sub_issues", &["actions", "parentIssues", "childIssues"]),
    ("watch", &["actions", "senders"]),
    ("workflow_job", &["actions", "workflows", "jobs", "branches", "conclusions", "senders", "runnerLabels"]),
    ("workflow_run", &["actions", "workflows", "branches", "conclusions", "actors"]),
];

#[test]
fn githubs_events_have_the_parameters_that_are_looked_for() {
    let github = &catalogue()["github"].spec;
    let (whole, mistakes) = whole_events(&github.definitions, &github.events);
    assert!(mistakes.is_empty(), "{mistakes:?}");
    let mut lacking = Vec::new();
    for (name, parameters) in GITHUB {
        match whole.iter().find(|whole| whole.event.name == *name) {
            None => lacking.push((*name).to_owned()),
            Some(whole) => lacking.extend(
                parameters
                    .iter()
                    .filter(|wanted| !whole.parameters.contains_key(**wanted))
                    .map(|wanted| format!("{name}.{wanted}")),
            ),
        }
    }
    assert!(lacking.is_empty(), "{lacking:?}");
    assert!(github.webhook.as_ref().is_some_and(|webhook| webhook.create.is_some()));
    assert!(github.authorization.api_key.is_some() && github.authorization.oauth2.is_some());
}

/// What makes the webhook can also verify credentials and delete it; what is left out is said.
#[test]
fn every_plugin_says_what_it_is_and_what_it_leaves_out() {
    let catalogue = catalogue();
    assert!(catalogue.len() >= 19, "{} plugins", catalogue.len());
    for (name, plugin) in &catalogue {
        let spec = &plugin.spec;
        assert!(spec.initials.is_some(), "{name}: initials");
        assert!(
            spec.documentation_url.as_ref().is_some_and(|url| url.starts_with("https://")),
            "{name}: documentation"
        );
        let description = spec.description.as_deref().unwrap_or_default().to_lowercase();
        assert!(description.contains("left out"), "{name} does not say what is left out: {description}");
        match &spec.webhook {
            Some(webhook) => {
                assert!(webhook.create.is_some() && webhook.delete.is_some(), "{name}: create and delete");
                assert!(webhook.verify.is_some(), "{name}: verify");
                assert!(webhook.find.is_some() || webhook.read.is_some(), "{name}: find or read");
            }
            None => {
                let by_hand = description.contains("by hand") || description.contains("every sender");
                assert!(by_hand, "{name} does not say that its webhook is made by hand: {description}");
            }
        }
        // Those with fewer have no more: changes are all that Graph tells of, and some senders have no list of events.
        let few = [
            "cloudevents",
            "generic-hmac",
            "generic-token",
            "microsoft-graph",
            "sentry",
            "standard-webhooks",
            "twilio",
        ];
        assert!(spec.events.len() >= 10 || few.contains(&name.as_str()), "{name}: {} events", spec.events.len());
    }
}
