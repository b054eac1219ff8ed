//! The catalogue's plugins, with requests that the external systems sent.

use super::*;
use hmac::{Hmac, KeyInit as _, Mac as _};

const SUBSCRIPTION: SubscriptionInfo<'static> = SubscriptionInfo { namespace: "team-a", name: "acme-web" };

fn recorded(file: &str) -> String {
    let path = format!("{}/tests/catalogue/github/{file}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

type Delivery = (Vec<(String, String)>, Vec<u8>);

/// A recorded delivery as GitHub sends it: in JSON and in a form, signed.
fn deliveries(file: &str) -> Vec<Delivery> {
    let event = file.rsplit_once('-').unwrap().0;
    let json = recorded(file);
    let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &json).finish();
    [("application/json", json), ("application/x-www-form-urlencoded", form)]
        .into_iter()
        .map(|(content_type, body)| {
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"s3cret").unwrap();
            mac.update(body.as_bytes());
            let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
            let pairs = headers(&[
                ("Content-Type", content_type),
                ("X-GitHub-Event", event),
                ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
                ("X-Hub-Signature-256", &signature),
            ]);
            (pairs, body.into_bytes())
        })
        .collect()
}

/// Reads a recorded delivery in both encodings, checks that both say the same, and gives back its variables and
/// what `ask` says of them.
fn github(file: &str, ask: impl Fn(&Plugin, &Reading, &Event, &Map<String, Value>)) {
    let plugin = example("github-push");
    let mut seen = Vec::new();
    for (pairs, body) in deliveries(file) {
        let request = CallbackRequest::stored("POST", "", &pairs, &body);
        plugin.verify(&request, &[Secret::from("s3cret")]).unwrap();
        let mut tampered = body.clone();
        tampered.push(b' ');
        let tampered = CallbackRequest::stored("POST", "", &pairs, &tampered);
        assert_eq!(plugin.verify(&tampered, &[Secret::from("s3cret")]).unwrap_err().label(), "mismatch");
        plugin.check_body(&request).unwrap();
        assert_eq!(plugin.delivery_id(&request).unwrap().as_deref(), Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"));
        let name = plugin.event_from_headers(&request).unwrap();
        let reading = plugin.read(&request).unwrap();
        let events = plugin.events(&reading).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].name.as_ref().ok(), name.as_ref());
        let (variables, notes) = plugin.variables(&reading, &events[0]);
        assert_eq!(notes, [], "{file}");
        ask(&plugin, &reading, &events[0], &variables);
        seen.push(variables);
    }
    assert_eq!(seen[0], seen[1]);
}

fn asked(file: &str, expected: Value, questions: &[(Value, bool)]) {
    github(file, |plugin, reading, event, variables| {
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(variables.get(name), Some(value), "{file}: {name}");
        }
        for (parameters, matches) in questions {
            let name = event.name.as_deref().unwrap();
            let trigger = plugin
                .compile_trigger(name, &object(parameters.clone()), None)
                .unwrap_or_else(|e| panic!("{parameters}: {e}"));
            let result = trigger.matches(reading, event, variables, SUBSCRIPTION);
            assert_eq!(result.is_ok(), *matches, "{file} {parameters}: {result:?}");
            if let Err(mismatch) = result {
                assert!(matches!(mismatch, Mismatch::Parameter { .. }), "{file} {parameters}: {mismatch}");
            }
        }
    });
}

#[test]
fn pushes() {
    let after = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";
    let expected = json!({
        "ref": "refs/heads/master", "branch": "master", "tag": null, "after": after, "deleted": false, "forced": false,
        "repository": "Codertocat/Hello-World", "repositoryID": 186_853_002, "pusher": "Codertocat"
    });
    asked(
        "push-1",
        expected,
        &[
            (json!({}), true),
            (json!({"branches": ["main", "mast*"]}), true),
            (json!({"branches": ["main"]}), false),
            (json!({"tags": ["**"]}), false),
            (json!({"paths": ["*.md"]}), true),
            (json!({"paths": ["docs/**"]}), false),
            (json!({"pushers": ["Codertocat"], "deleted": false, "forced": false}), true),
            (json!({"forced": true}), false),
            (json!({"messageContains": "zzz"}), false),
        ],
    );
    let expected = json!({"ref": "refs/tags/simple-tag", "branch": null, "tag": "simple-tag", "deleted": true, "headCommit": null, "commits": []});
    asked(
        "push-2",
        expected,
        &[
            (json!({"tags": ["simple-*"], "deleted": true}), true),
            (json!({"branches": ["*"]}), false),
            (json!({"paths": ["**"]}), false),
        ],
    );
}

#[test]
fn pull_requests() {
    let expected = json!({
        "action": "opened", "number": 2, "title": "Update the README with new information.", "author": "Codertocat",
        "baseBranch": "master", "headBranch": "changes", "labels": ["bug"], "draft": false, "merged": false
    });
    asked(
        "pull_request-1",
        expected,
        &[
            (json!({"actions": ["opened", "synchronize"], "baseBranches": ["master"], "labels": ["bug", "x"]}), true),
            (json!({"actions": ["closed"]}), false),
            (json!({"labels": ["feature"]}), false),
            (json!({"headBranches": ["feature/*"]}), false),
            (json!({"authors": ["Codertocat"], "draft": false, "merged": false}), true),
        ],
    );
    asked("pull_request-2", json!({"action": "closed"}), &[(json!({"actions": ["closed"]}), true)]);
}

#[test]
fn issues_and_comments() {
    let expected = json!({"action": "opened", "number": 1, "labels": ["bug"], "author": "Codertocat", "state": "open"});
    asked(
        "issues-1",
        expected,
        &[
            (json!({"labels": ["bug"], "titleContains": "SPELLING"}), true),
            (json!({"titleContains": "crash"}), false),
            (json!({"assignees": ["nobody"]}), false),
        ],
    );
    asked("issues-2", json!({"action": "labeled"}), &[(json!({"actions": ["labeled"]}), true)]);
    let comment = "You are totally right! I'll get this fixed right away.";
    let expected =
        json!({"action": "created", "comment": comment, "commentID": 492_700_400, "pullRequest": false, "number": 1});
    asked(
        "issue_comment-1",
        expected,
        &[
            (
                json!({"contains": "totally right", "commenters": ["Codertocat"], "pullRequest": false, "labels": ["bug"]}),
                true,
            ),
            (json!({"contains": "/deploy"}), false),
            (json!({"pullRequest": true}), false),
        ],
    );
    asked("issue_comment-2", json!({"action": "deleted"}), &[(json!({"actions": ["created", "edited"]}), false)]);
}

#[test]
fn releases() {
    asked(
        "release-1",
        json!({"action": "published", "tag": "0.0.1", "prerelease": false}),
        &[(json!({"tags": ["0.*"], "prerelease": false}), true), (json!({"tags": ["v*"]}), false)],
    );
    asked("release-2", json!({"action": "deleted"}), &[(json!({"actions": ["published"]}), false)]);
}

#[test]
fn a_ping_is_no_event_of_the_plugin() {
    github("ping-1", |plugin, _, event, variables| {
        assert_eq!(event.name.as_deref(), Ok("ping"));
        assert!(variables.is_empty());
        assert!(!plugin.pin_events(None).unwrap().contains(&"ping".to_owned()));
    });
}

/// Payloads in the form of Gitea 1.26's modules/structs; nulls stand where Go has empty slices.
#[test]
fn gitea() {
    let plugin = example("gitea-push");
    let ask = |name: &str, body: &Value, parameters: Value| {
        let pairs =
            headers(&[("Content-Type", "application/json"), ("X-Gitea-Event", name), ("X-Gitea-Delivery", "d")]);
        let text = body.to_string();
        let reading = plugin.read(&CallbackRequest::stored("POST", "", &pairs, text.as_bytes())).unwrap();
        let event = plugin.events(&reading).unwrap().remove(0);
        let (variables, notes) = plugin.variables(&reading, &event);
        assert_eq!(notes, [], "{name}");
        let trigger = plugin
            .compile_trigger(name, &object(parameters.clone()), None)
            .unwrap_or_else(|e| panic!("{parameters}: {e}"));
        let result = trigger.matches(&reading, &event, &variables, SUBSCRIPTION);
        if let Err(mismatch) = &result {
            assert!(matches!(mismatch, Mismatch::Parameter { .. }), "{parameters}: {mismatch}");
        }
        (variables, result.is_ok())
    };
    let user = json!({"id": 1, "login": "alice"});
    let repository = json!({"id": 1, "full_name": "acme/web", "clone_url": "http://127.0.0.1:3000/acme/web.git"});
    let commit = json!({"id": "a", "message": "m", "added": null, "removed": [], "modified": ["docs/a/b.md"]});
    let push = json!({
        "ref": "refs/heads/main", "before": "0", "after": "1", "compare_url": "", "commits": [commit], "total_commits": 1,
        "head_commit": commit, "repository": repository, "pusher": user, "sender": user
    });
    let (variables, matched) =
        ask("push", &push, json!({"branches": ["main"], "paths": ["docs/**"], "pushers": ["alice"]}));
    assert!(matched);
    assert_eq!((&variables["branch"], &variables["commitCount"]), (&json!("main"), &json!(1)));
    assert!(!ask("push", &push, json!({"paths": ["src/**"]})).1);
    assert!(!ask("push", &push, json!({"tags": ["*"]})).1);
    let mut deleted = push.clone();
    deleted["commits"] = Value::Null;
    deleted["head_commit"] = Value::Null;
    assert_eq!(ask("push", &deleted, json!({})).0["commits"], json!([]));
    assert!(!ask("push", &deleted, json!({"paths": ["**"]})).1);

    let created = json!({"sha": "1", "ref": "v1", "ref_type": "tag", "repository": repository, "sender": user});
    assert!(ask("create", &created, json!({"refTypes": ["tag"], "refs": ["v*"]})).1);
    assert!(!ask("delete", &created, json!({"refTypes": ["branch"]})).1);

    let base = json!({"label": "main", "ref": "main", "sha": "1"});
    let pull = json!({
        "number": 3, "title": "t", "body": "", "labels": [{"id": 1, "name": "bug"}], "user": user, "draft": false, "merged": false,
        "html_url": "", "base": base, "head": base, "state": "open"
    });
    let request =
        json!({"action": "opened", "number": 3, "pull_request": pull, "repository": repository, "sender": user});
    let (variables, matched) = ask(
        "pull_request",
        &request,
        json!({"actions": ["opened"], "labels": ["bug"], "baseBranches": ["main"], "draft": false}),
    );
    assert!(matched);
    assert_eq!(variables["labels"], json!(["bug"]));
    assert!(!ask("pull_request", &request, json!({"merged": true})).1);

    let mut unlabelled = pull.clone();
    unlabelled["labels"] = Value::Null;
    let issue = json!({"action": "opened", "number": 3, "issue": unlabelled, "repository": repository, "sender": user});
    assert_eq!(ask("issues", &issue, json!({"titleContains": "T"})).0["labels"], json!([]));
    assert!(!ask("issues", &issue, json!({"labels": ["bug"]})).1);
    let comment = json!({"id": 9, "body": "/deploy now", "user": user, "html_url": ""});
    let comment = json!({"action": "created", "issue": pull, "comment": comment, "repository": repository, "sender": user, "is_pull": true});
    assert!(ask("issue_comment", &comment, json!({"contains": "/deploy", "pullRequest": true})).1);
    let release = json!({"tag_name": "v1", "name": "One", "body": "", "draft": false, "prerelease": false, "target_commitish": "main", "html_url": ""});
    let release = json!({"action": "published", "release": release, "repository": repository, "sender": user});
    assert!(ask("release", &release, json!({"tags": ["v*"], "prerelease": false})).1);
}
