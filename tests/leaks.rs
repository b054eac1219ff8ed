//! No Secret value in any log, event, status or metric: searched for in what the last run of the integration tests has
//! left. Cargo runs test targets by name, so `it` has run before this one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[test]
fn no_secret_is_in_what_the_integration_tests_have_left() {
    let run = newest_run().expect("target/it has no run with secrets: run `cargo test --test it` first");
    // Each test notes all that there are, so most are there many times.
    let secrets: BTreeSet<String> = fs::read_to_string(run.join("secrets"))
        .expect("the list of secrets")
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    let searched: Vec<PathBuf> = files(&run.join("log"));
    // Guards the test itself: a search without secrets, or in nothing, would always succeed.
    assert!(!secrets.is_empty() && !searched.is_empty(), "{} secrets, {searched:?}", secrets.len());
    let mut bytes = 0;
    for path in &searched {
        let content = String::from_utf8_lossy(&fs::read(path).expect("a readable file")).into_owned();
        bytes += content.len();
        for secret in &secrets {
            for spelling in [secret.clone(), STANDARD.encode(secret), hex::encode(secret)] {
                assert!(
                    !content.contains(&spelling),
                    "{} holds a secret, or a spelling of it, that begins with {:?}",
                    path.display(),
                    spelling.chars().take(4).collect::<String>()
                );
            }
        }
    }
    eprintln!("{} secrets looked for in {} files with {bytes} bytes", secrets.len(), searched.len());
}

fn newest_run() -> Option<PathBuf> {
    let runs = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/it")).ok()?;
    let with_secrets = runs.filter_map(|run| {
        let path = run.ok()?.path();
        let written: SystemTime = path.join("secrets").metadata().ok()?.modified().ok()?;
        Some((written, path))
    });
    with_secrets.max().map(|(_, path)| path)
}

/// What Bellhop has written, and what people can see of it; the logs of the parts around it are not its own.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder of the logs");
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            (name.starts_with("bellhop") || name.starts_with("seen-")).then_some(path)
        })
        .collect()
}
