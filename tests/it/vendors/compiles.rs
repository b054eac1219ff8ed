//! Every plugin of the stories and of the catalogue is one that Bellhop accepts, and those of the catalogue one that `lint` praises.

use bellhop::api::TriggerPlugin;
use bellhop::plugin::Plugin;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// How many plugins a folder has, and what is wrong with them.
fn compile_all(folder: &str) -> (usize, Vec<String>) {
    let mut count = 0;
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).expect("the folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        count += 1;
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let plugin: TriggerPlugin = match serde_saphyr::from_str(&text) {
            Ok(plugin) => plugin,
            Err(error) => {
                problems.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        let name = plugin.metadata.name.unwrap_or_default();
        if let Err(mistakes) = Plugin::compile(&name, &plugin.spec) {
            problems.extend(mistakes.iter().map(|mistake| format!("{}: {mistake}", path.display())));
        }
    }
    (count, problems)
}

#[test]
fn every_plugin_of_the_stories_compiles() {
    let (count, problems) = compile_all("tests/it/vendors");
    assert!(count >= 9, "{count} plugins");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Warnings of `bellhop plugin lint` that a plugin of the catalogue may have, each with the reason why it has to.
const ACCEPTED: [(&str, &str, &str); 5] = [
    ("asana", "spec.callback.deliveryID", "Asana sends no id; the body has the times of its events"),
    (
        "cloudevents",
        "spec.callback.verification[1]",
        "who receives CloudEvents has to take the token from the query too",
    ),
    ("generic-token", "spec.callback.verification[7]", "some senders can set no header"),
    ("generic-token", "spec.callback.verification[8]", "some senders can set no header"),
    ("zoom", "spec.callback.deliveryID", "Zoom sends no id; the body has the time of the event"),
];

#[test]
fn lint_has_nothing_to_say_of_the_catalogue_but_what_is_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/bellhop-plugins/plugins");
    let files: Vec<_> =
        std::fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("an entry").path()).collect();
    assert!(files.len() >= 14, "{} plugins", files.len());
    let lint = Command::new(env!("CARGO_BIN_EXE_bellhop")).args(["plugin", "lint", "-o", "json"]).args(files).output();
    let lint = lint.expect("bellhop can be started");
    let problems: Vec<Value> = serde_json::from_slice(&lint.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&lint.stderr)));
    let told: BTreeSet<(String, String)> = problems
        .iter()
        .map(|problem| {
            assert_eq!(problem["severity"], "warning", "{problem:#}");
            let file = Path::new(problem["file"].as_str().expect("a file")).file_stem().expect("a name");
            (file.to_string_lossy().into_owned(), problem["field"].as_str().unwrap_or_default().to_owned())
        })
        .collect();
    let accepted = ACCEPTED.iter().map(|(plugin, field, _)| ((*plugin).to_owned(), (*field).to_owned())).collect();
    assert_eq!(told, accepted, "{problems:#?}");
}
