//! Every plugin of the stories is one that Bellhop accepts.

use bellhop::api::TriggerPlugin;
use bellhop::plugin::Plugin;
use std::path::Path;

#[test]
fn every_plugin_of_the_stories_compiles() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/vendors");
    let mut count = 0;
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the folder of the stories") {
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
    assert!(count >= 20, "{count} plugins");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
