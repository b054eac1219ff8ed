//! What docs/plugins.md says, tried.

use super::{lint, test};
use crate::cli::output::screens::PIPE;
use std::collections::BTreeMap;
use std::path::Path;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plugins.md"));

/// The files of the tutorial, put together from the blocks behind `<!-- file: … -->`.
fn files() -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for part in PAGE.split("<!-- file: ").skip(1) {
        let (name, rest) = part.split_once(" -->\n```").unwrap();
        let block = rest.split_once('\n').unwrap().1.split_once("```\n").unwrap().0;
        // A file with a request ends where its body does.
        let block = if name.ends_with(".http") { block.strip_suffix('\n').unwrap() } else { block };
        files.entry(name.to_owned()).or_default().push_str(block);
    }
    files
}

#[test]
fn the_tutorial_ends_with_a_tested_plugin() {
    let folder = tempfile::TempDir::new().unwrap();
    for (name, text) in files() {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let plugin = &files()["plugin.yaml"];
    let report = lint::check(plugin);
    assert_eq!((report.plugins, &report.problems[..]), (1, &[][..]));
    let tried = test::try_folder(folder.path(), None).unwrap();
    assert!(tried.len() == 2 && tried.iter().all(|tried| tried.passed), "{tried:#?}");

    // The example of a difference.
    let misspelt = plugin.replace("match: glob(value, body.ticket.queue)", "match: glob(value, body.ticket.quue)");
    std::fs::write(folder.path().join("plugin.yaml"), misspelt).unwrap();
    let tried = test::try_folder(folder.path(), None).unwrap();
    let difference = &tried[1].differences[0];
    let line = format!("      {}: {}\n", difference.field, difference.problem);
    assert!(PAGE.contains(&line), "{line}");
}

#[test]
fn the_tutorials_mistakes_are_found_as_it_shows_them() {
    let mut source = files()["plugin.yaml"].clone();
    for (right, wrong) in [
        ("healthy: events", "healty: events"),
        ("    title: A ticket was opened\n", ""),
        ("match: glob(value, body.ticket", "match: glob(value, bdy.ticket"),
    ] {
        assert_eq!(source.matches(right).count(), 1, "{right}");
        source = source.replace(right, wrong);
    }
    let shown = PAGE.split_once("$ bellhop plugin lint helpdesk/plugin.yaml\n").unwrap().1.split_once("```").unwrap().0;
    assert_eq!(lint::text(PIPE, "helpdesk/plugin.yaml", &source), shown);
}

#[test]
fn every_command_of_the_tutorial_is_there() {
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/triggerplugin.schema.json").exists());
    let commands = <crate::cli::Cli as clap::CommandFactory>::command();
    let plugin = commands.find_subcommand("plugin").unwrap();
    for line in PAGE.lines().filter_map(|line| line.trim_start_matches("$ ").strip_prefix("bellhop plugin ")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(plugin.find_subcommand(name).is_some(), "{line}");
    }
}
