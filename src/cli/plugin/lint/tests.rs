//! Mistakes of every kind in their places, and the plugins of this repository.

use super::*;
use crate::cli::output::screens::{COLOURS, PIPE};

const GOOD: &str = r#"apiVersion: bellhop.dev/v1alpha1
kind: TriggerPlugin
metadata: {name: forge}
spec:
  displayName: Forge
  allowedOrigins: ["https://forge.example"]
  parameters: {type: object, properties: {owner: {type: string}}}
  authorization: {apiKey: {keys: [token]}}
  webhook:
    find:
      method: GET
      url: https://forge.example/{parameters.owner}/hooks
      items: response.body
      match: item.url == callback.url
      id: string(item.id)
    create:
      method: POST
      url: https://forge.example/{parameters.owner}/hooks
      body: >-
        {'url': callback.url,
         'secret': callback.secret}
      capture: {id: string(response.body.id)}
    delete: {method: DELETE, url: "https://forge.example/hooks/{webhook.id}"}
  callback:
    verification:
    - hmac: {header: x-signature, algorithm: sha256, encoding: hex}
    event: request.headers['x-event']
    deliveryID: request.headers['x-id']
  events:
  - name: push
    title: Somebody pushed
    parameters:
      branch:
        description: The branch.
        schema: {type: string}
        match: |
          body.ref ==
            'refs/heads/' + value
    variables:
      ref: {type: string, value: body.ref}
  documentationURL: https://forge.example/docs
"#;

/// Severity, line, column, what is pointed at, and the message of each problem.
fn problems(source: &str) -> Vec<(Severity, usize, usize, String, String)> {
    let problems = check(source).problems.into_iter();
    let told = problems.map(|problem| {
        let (line, column) = line_and_column(source, problem.span.start);
        (problem.severity, line, column, source[problem.span].to_owned(), problem.message)
    });
    told.collect()
}

/// The problems of the good plugin after some changes.
fn changed(changes: &[(&str, &str)]) -> Vec<(Severity, usize, usize, String, String)> {
    let mut source = GOOD.to_owned();
    for (from, to) in changes {
        let next = source.replacen(from, to, 1);
        assert_ne!(source, next, "{from}");
        source = next;
    }
    problems(&source)
}

#[test]
fn a_good_plugin_has_no_problems() {
    assert_eq!(problems(GOOD), []);
}

#[test]
fn every_kind_of_mistake_is_found_at_once_in_its_place() {
    let found = changed(&[
        ("displayName: Forge", "displayName: on"),
        ("{parameters.owner}/hooks", "{parameters.ownr}/hooks"),
        ("match: item.url", "match: itm.url"),
        ("'secret': callback.secret}", "'secret': callback.scret}"),
        ("algorithm: sha256", "algorithm: sha265"),
        ("deliveryID: request", "deliveryId: request"),
        ("title: Somebody pushed\n", "description: x\n"),
        ("'refs/heads/' + value", "'refs/heads/' + valeu"),
        ("type: string, value: body.ref", "type: strin, value: body.ref"),
    ]);
    let places: Vec<_> = found
        .iter()
        .filter(|(severity, ..)| *severity == Severity::Error)
        .map(|(_, line, column, at, message)| {
            (*line, *column, at.as_str(), message.split(';').next().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        places,
        [
            (5, 16, "on", "expected a string, found a boolean"),
            (12, 35, "parameters.ownr", "unknown variable `parameters.ownr`"),
            (14, 14, "itm", "unknown variable `itm`"),
            (21, 20, "callback", "`callback` has no `scret`"),
            (26, 46, "sha265", "\"sha265\" is none of the values"),
            (28, 5, "deliveryId", "unknown field"),
            (30, 5, "name", "is required"),
            (31, 5, "description", "unknown field"),
            (38, 29, "valeu", "unknown variable `valeu`"),
            (40, 19, "strin", "\"strin\" is none of the values"),
        ]
    );
    let hints =
        ["put it into quotes", "did you mean `parameters.owner`?", "did you mean `item`?", "did you mean `secret`?"];
    for hint in hints.iter().chain(&["did you mean `sha256`?", "did you mean `deliveryID`?", "did you mean `value`?"]) {
        assert!(found.iter().any(|(.., message)| message.contains(hint)), "{hint}: {found:#?}");
    }
}

#[test]
fn the_definitions_own_rules_and_choices_are_kept() {
    let two = changed(&[("{header: x-signature,", "{header: x-signature, query: s,")]);
    let (_, line, _, at, message) = &two[0];
    assert_eq!((*line, at.as_str(), message.as_str()), (26, "hmac", "set exactly one of header, query and field"));
    let both = changed(&[("    - hmac: {", "    - none: {}\n      hmac: {")]);
    assert!(
        both[0].4.starts_with("set exactly one of hmac, none, ") || both[0].4.contains("hmac and none are set"),
        "{both:?}"
    );
    let long = format!("name: {}", "a".repeat(64));
    assert!(!changed(&[("name: forge", &long)]).is_empty());
    assert!(!changed(&[("name: forge", "name: Forge")]).is_empty());
    assert!(!changed(&[("bellhop.dev/v1alpha1", "bellhop.dev/v1")]).is_empty());
}

#[test]
fn what_follows_from_a_mistake_is_not_told_again() {
    let errors = |changes: &[(&str, &str)]| {
        let found = changed(changes).into_iter().filter(|(severity, ..)| *severity == Severity::Error);
        found.map(|(_, line, _, _, message)| (line, message)).collect::<Vec<_>>()
    };
    assert_eq!(errors(&[("    event: request.headers['x-event']\n", "")]), [(24, "is required".to_owned())]);
    assert_eq!(
        errors(&[("event: request.headers['x-event']", "event: [1]")]),
        [(27, "expected a string, found an array".to_owned())]
    );
    let events = GOOD.split_once("  events:\n").unwrap().0;
    let found: Vec<_> = problems(events).into_iter().filter(|(severity, ..)| *severity == Severity::Error).collect();
    assert!(found.len() == 1 && found[0].4 == "is required", "{found:?}");
    assert_eq!(
        check("kind: TriggerPlugin\n").problems.iter().filter(|problem| problem.message == "is required").count(),
        3
    );
    let nothing = problems("kind: TriggerPlugin\nspec: 7\nmetadata: {name: a}\napiVersion: bellhop.dev/v1alpha1\n");
    assert_eq!(nothing.iter().filter(|(severity, ..)| *severity == Severity::Error).count(), 1, "{nothing:?}");
}

#[test]
fn warnings_are_no_mistakes() {
    let found = changed(&[
        ("https://forge.example\"]", "http://forge.example\"]"),
        ("- hmac: {header: x-signature, algorithm: sha256, encoding: hex}", "- none: {}"),
        ("    deliveryID: request.headers['x-id']\n", ""),
        ("title: Somebody pushed", "title: push"),
        ("        description: The branch.\n", ""),
        ("  documentationURL: https://forge.example/docs\n", ""),
    ]);
    let lines: Vec<_> = found.iter().map(|(_, line, ..)| *line).collect();
    let warnings = found.iter().filter(|(severity, ..)| *severity == Severity::Warning).count();
    // The calls go to another origin than the one that is left, which only a call can tell.
    assert_eq!((warnings, found.len()), (6, 6), "{found:#?}");
    assert_eq!(lines, [4, 6, 24, 26, 30, 32]);
}

#[test]
fn other_documents_are_skipped_and_broken_ones_told() {
    let source = format!("kind: Subscription\n---\n{GOOD}---\na: 1\n---\n");
    let report = check(&source);
    assert_eq!((report.plugins, &report.skipped[..]), (1, &[("Subscription".to_owned(), 0)][..]));
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].message.contains("`kind` is missing"), "{:?}", report.problems);
    let broken = problems("kind: TriggerPlugin\nspec: [\n");
    assert!(broken.len() == 1 && broken[0].1 >= 2, "{broken:?}");
}

#[test]
fn problems_are_shown_as_compilers_do() {
    let source = GOOD.replace("match: item.url", "match: itm.url");
    let text = render::text(PIPE, "forge.yaml", &source, &check(&source));
    let expected = "\
error: unknown variable `itm`; did you mean `item`? here are: item, parameters, callback
  --> forge.yaml:14:14
   |
14 |       match: itm.url == callback.url
   |              ^^^ spec.webhook.find.match

forge.yaml: 1 mistake
";
    assert_eq!(text, expected);
    assert!(render::text(COLOURS, "forge.yaml", &source, &check(&source)).contains("\u{1b}["));
    assert_eq!(render::text(PIPE, "forge.yaml", GOOD, &check(GOOD)), "forge.yaml: no mistakes\n");
}

#[test]
fn the_end_says_what_was_found() {
    let folder = tempfile::TempDir::new().unwrap();
    let run = |text: &str, deny_warnings: bool| {
        let file = folder.path().join("plugin.yaml");
        std::fs::write(&file, text).unwrap();
        let options = Options { files: vec![file], deny_warnings, output: Some(Format::Name) };
        super::run(&options).map_or_else(|error| crate::cli::exit::code(&error), |()| 0)
    };
    let warned = GOOD.replace("title: Somebody pushed", "title: push");
    assert_eq!((run(GOOD, true), run(&warned, false), run(&warned, true)), (0, 0, 1));
    assert_eq!(
        (run(&GOOD.replace("itm", "item").replace("item.url", "x.url"), false), run("kind: Pod", false)),
        (1, 3)
    );
    let missing = Options { files: vec![folder.path().join("no.yaml")], deny_warnings: false, output: None };
    assert_eq!(crate::cli::exit::code(&super::run(&missing).unwrap_err()), 3);
}

/// Every TriggerPlugin in these folders of the repository.
#[test]
fn no_plugin_of_the_repository_has_a_mistake() {
    let mut waiting = ["charts/bellhop-plugins/plugins", "examples", "tests/it/vendors"]
        .map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .to_vec();
    let (mut plugins, mut problems) = (0, String::new());
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if path.extension().is_none_or(|extension| extension != "yaml") || !text.contains("kind: TriggerPlugin") {
                continue;
            }
            let mut report = check(&text);
            report.problems.retain(|problem| problem.severity == Severity::Error);
            plugins += report.plugins;
            if !report.problems.is_empty() {
                problems += &render::text(PIPE, &path.display().to_string(), &text, &report);
            }
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
    assert!(plugins > 15, "{plugins}");
}
