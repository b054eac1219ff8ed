//! Cases that pass, cases that must not, and those of the catalogue.

use super::*;
use crate::cli::output::screens::{PIPE, TERMINAL};
use tempfile::TempDir;

const PLUGIN: &str = r"
apiVersion: bellhop.dev/v1alpha1
kind: TriggerPlugin
metadata: {name: forge}
spec:
  displayName: Forge
  allowedOrigins: ['https://forge.example']
  parameters: {type: object, properties: {owner: {type: string}}}
  callback:
    verification: [{token: {header: x-token}}]
    handshakes:
    - when: body.challenge != ''
      answer: {headers: {x-echo: body.challenge}, body: body.challenge}
    items: body.list
    event: item.type
    deliveryID: request.headers['x-id']
  events:
  - name: push
    title: Push
    parameters:
      branch: {schema: {type: string}, match: item.branch == value}
    variables:
      branch: {type: string, value: item.branch}
      size: {type: integer, value: item.size}
  - {name: issue, title: Issue}
";

const REQUEST: &str = r#"POST /hooks/x HTTP/1.1
X-Token: hunter2
X-Id: 7

{"list": [{"type": "ping"}, {"type": "push", "branch": "main", "size": 3}]}"#;

const EXPECTED: &str = r"
subscription: {secret: hunter2, parameters: {owner: acme}}
expect:
  answer: {status: 200, headers: {content-type: application/json}}
  events:
  - name: push
    item: 1
    deliveryID: '7'
    variables: {branch: main, size: 3}
    triggers:
    - {parameters: {branch: main}, fires: true}
    - {parameters: {branch: x}, fires: false, reason: parameter branch}
    - {filter: variables.size > 3, fires: false, reason: the filter is false}
";

/// The differences of one case, a line each.
fn differences(request: &str, expected: &str) -> Vec<String> {
    let folder = folder(request, expected);
    let tried = try_folder(folder.path(), None).unwrap().remove(0);
    assert_eq!(tried.passed, tried.differences.is_empty());
    tried.differences.into_iter().map(|Difference { field, problem }| format!("{field}: {problem}")).collect()
}

fn folder(request: &str, expected: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in [("plugin.yaml", PLUGIN), ("case.http", request), ("case.yaml", expected)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn what_is_as_expected_passes() {
    assert_eq!(differences(REQUEST, EXPECTED), Vec::<String>::new());
    let refused = "subscription: {secret: another}\nexpect: {verified: false}";
    assert_eq!(differences(REQUEST, refused), Vec::<String>::new());
    let nothing = "subscription: {secret: hunter2, events: [issue]}\nexpect: {}";
    assert_eq!(differences(REQUEST, nothing), Vec::<String>::new());
    let challenge = "POST /hooks/x HTTP/1.1\r\n\r\n{\"challenge\": \"abc\"}";
    let echo = "expect: {answer: {status: 200, headers: {x-echo: abc}, body: abc}}";
    assert_eq!(differences(challenge, echo), Vec::<String>::new());
    let empty = REQUEST.replace(r#"{"type": "ping"}, {"type": "push", "branch": "main", "size": 3}"#, "");
    assert_eq!(differences(&empty, "subscription: {secret: hunter2}\nexpect: {note: no event}"), Vec::<String>::new());
}

#[test]
fn every_field_of_an_expectation_can_fail() {
    for (from, to, expected) in [
        ("secret: hunter2", "secret: another", "verified: the sender is not proven: "),
        ("status: 200", "status: 202", "answer.status: expected 202, found 200"),
        ("content-type: application/json", "x-echo: a", "answer.headers.x-echo: expected a, found none"),
        ("{status: 200,", "{body: {id: a},", r#"answer.body: expected {"id":"a"}, found {"id":"#),
        ("{status: 200,", "{body: ok,", r#"answer.body: expected "ok", found "#),
        ("  events:\n", "  note: late\n  events:\n", r#"note: expected "late", found none"#),
        ("  answer", "  verified: false\n  answer", "verified: the sender is proven, which was not expected"),
        ("- name: push", "- name: issue", "events[0].name: expected `issue`, found `push`"),
        ("item: 1", "item: 0", "events[0].item: expected 0, found 1"),
        ("deliveryID: '7'", "deliveryID: '8'", "events[0].deliveryID: expected 8, found 7"),
        ("branch: main, size", "branch: x, size", r#"events[0].variables.branch: expected "x", found "main""#),
        ("size: 3}", "sise: 3}", "events[0].variables.sise: expected 3, found that the event has no such variable"),
        ("fires: true}", "fires: false}", "events[0].triggers[0]: fires, which was not expected"),
        (
            "{branch: x}, fires: false,",
            "{branch: x}, fires: true,",
            "events[0].triggers[1]: does not fire: parameter branch",
        ),
        ("parameter branch}", "no branch}", "events[0].triggers[1].reason: expected \"no branch\", found"),
        ("{branch: x}", "{brunch: x}", "events[0].triggers[1]: the trigger is not valid: parameters.brunch: unknown"),
        ("size > 3", "sise > 3", "events[0].triggers[2]: the trigger is not valid: filter: "),
        ("owner: acme", "ouner: acme", "case: subscription: parameters.ouner: unknown parameter"),
        ("{secret: hunter2", "{events: [pull], secret: hunter2", "case: subscription: events[0]: "),
        ("expect:", "expects:", "case: "),
    ] {
        let changed = EXPECTED.replacen(from, to, 1);
        assert_ne!(changed, EXPECTED, "{from}");
        let found = differences(REQUEST, &changed);
        assert!(found.first().is_some_and(|first| first.starts_with(expected)), "{to}: {found:#?}");
    }
}

#[test]
fn what_nobody_expected_is_a_difference() {
    let found = differences(REQUEST, "subscription: {secret: hunter2}\nexpect: {}");
    assert_eq!(found, ["events[0]: expected nothing, found the event `push`"]);
    let two = format!("{EXPECTED}  - {{name: issue}}\n");
    assert_eq!(
        differences(REQUEST, &two),
        ["events[1]: expected the event `issue`, found `ping`, which is not one of the Subscription's events"]
    );
    let unnamed = REQUEST.replace(r#""ping""#, "1");
    assert!(
        differences(&unnamed, EXPECTED)[0]
            .starts_with("events[0]: expected the event `push`, found one that goes nowhere: ")
    );
    let no_list = REQUEST.replace("list", "lost");
    assert!(
        differences(&no_list, EXPECTED)[0].starts_with("note: spec.callback.items "),
        "{:?}",
        differences(&no_list, EXPECTED)
    );
    let sizeless = REQUEST.replace("size", "sise");
    let expected = EXPECTED.replace(", size: 3}", "}");
    assert!(
        differences(&sizeless, &expected)[0].starts_with("events[0].variables: variable size: cannot be evaluated")
    );
    // Who names it null says that it may be missing.
    let expected = EXPECTED.replace("size: 3}", "size: null}").replace("the filter is false", "cannot be compared");
    let found = differences(&sizeless, &expected);
    assert!(found.iter().all(|line| !line.contains("variables")), "{found:?}");
    let handshake = "POST /hooks/x HTTP/1.1\n\n{\"challenge\": \"abc\"}";
    let found = differences(handshake, "expect: {verified: false}");
    assert_eq!(found[0], "verified: nobody asked whether the sender is proven");
}

#[test]
fn a_folder_is_complete() {
    let folder = folder(REQUEST, EXPECTED);
    let whole = |folder: &Path| try_folder(folder, None).map(drop).map_err(|error| format!("{error:#}"));
    assert_eq!(whole(folder.path()), Ok(()));
    for (file, text, why) in [
        ("case.yaml", EXPECTED, "case.yaml is missing"),
        ("case.http", REQUEST, "case.http is missing"),
        ("plugin.yaml", PLUGIN, "--plugin"),
    ] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
        let found = whole(folder.path()).unwrap_err();
        assert!(found.contains(why), "{file}: {found}");
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let empty = TempDir::new().unwrap();
    assert!(whole(empty.path()).unwrap_err().contains("there are no cases"));
    let broken = PLUGIN.replace("item.type", "itm.type");
    std::fs::write(folder.path().join("plugin.yaml"), broken).unwrap();
    assert!(whole(folder.path()).unwrap_err().contains("spec.callback.event"));
}

#[test]
fn the_output_names_each_difference() {
    let difference = Difference { field: "answer.status".to_owned(), problem: "expected 200, found 401".to_owned() };
    let tried = [
        Tried { case: "a.http".to_owned(), source: None, kind: None, passed: true, differences: Vec::new() },
        Tried { case: "b.http".to_owned(), source: None, kind: None, passed: false, differences: vec![difference] },
    ];
    let expected = "ok    a.http\nFAIL  b.http\n      answer.status: expected 200, found 401\n2 cases, 1 failed\n";
    assert_eq!(shown(PIPE, &tried), expected);
    assert_eq!(shown(TERMINAL, &tried[..1]), "ok    a.http\n1 case, all as expected\n");
}

/// Every recorded request of the catalogue, with what its case says of it, and where each is from.
#[test]
fn the_catalogue() {
    let catalogue = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/catalogue");
    let (mut problems, mut count) = (String::new(), 0);
    for entry in std::fs::read_dir(catalogue).unwrap() {
        let folder = entry.unwrap().path();
        let tried = try_folder(&folder, None).unwrap_or_else(|error| panic!("{error:#}"));
        count += tried.len();
        if tried.iter().any(|tried| !tried.passed) {
            problems.push_str(&shown(TERMINAL, &tried));
        }
        for Tried { case, source, kind, .. } in tried {
            if kind.is_none() || source.is_none_or(|source| source.trim().is_empty()) {
                problems.push_str(&format!("{case}: `source` or `kind` is missing\n"));
            }
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
    assert!(count > 0, "there is nothing in the catalogue");
}
