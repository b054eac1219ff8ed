//! Every plugin of the stories and of the catalogue is one that Bellhop accepts.

use bellhop::api::TriggerPlugin;
use bellhop::plugin::Plugin;
use std::path::Path;

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

#[test]
fn every_plugin_of_the_catalogue_compiles() {
    let (count, problems) = compile_all("charts/bellhop-plugins/plugins");
    assert!(count >= 14, "{count} plugins");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
