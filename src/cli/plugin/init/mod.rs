//! `bellhop plugin init`: a plugin to begin with, which `lint` has nothing to say about and whose case passes.

use super::file::unread;
use crate::cli::exit::Exit;
use crate::cli::output::{clean, print};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The files, by name. `NAME` in them is the plugin's.
const FILES: [(&str, &str); 4] = [
    ("plugin.yaml", include_str!("plugin.yaml")),
    ("subscription.yaml", include_str!("subscription.yaml")),
    ("item-created.http", include_str!("case.http")),
    ("item-created.yaml", include_str!("case.yaml")),
];

/// Options of `bellhop plugin init`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Name of the plugin, and of the new folder
    name: String,

    /// Where the folder is made
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Writes the folder.
///
/// # Errors
/// The name cannot be that of a TriggerPlugin, the folder is there already, or it cannot be written.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = write(&options.dir, &options.name)?;
    let folder = clean(&folder.display().to_string());
    print(&format!(
        "{folder} is a plugin with one recorded request. Change it, and look after each step what you have:\n\n  \
         bellhop plugin lint {folder}/plugin.yaml\n  bellhop plugin test {folder}\n"
    ))?;
    Ok(())
}

fn write(dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    if !is_name(name) {
        let rule = "lower-case letters, digits and `-`, a letter or digit at both ends, at most 63";
        return Err(Exit::Usage(format!("{name:?} is no name for a TriggerPlugin: {rule}")).into());
    }
    let folder = dir.join(name);
    DirBuilder::new().create(&folder).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            Exit::Usage(format!("{}: is there already, and nothing is overwritten", folder.display())).into()
        }
        _ => unread(&folder, &error),
    })?;
    for (file, text) in FILES {
        let path = folder.join(file);
        let mut opened =
            OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| unread(&path, &error))?;
        opened.write_all(text.replace("NAME", name).as_bytes()).map_err(|error| unread(&path, &error))?;
    }
    Ok(folder)
}

/// Whether it is a name of one label (RFC 1123), which is also that of a file and of a folder.
fn is_name(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::super::{lint, test};
    use super::*;

    #[test]
    fn what_is_written_passes_lint_and_test() {
        let dir = tempfile::TempDir::new().unwrap();
        let folder = write(dir.path(), "my-forge").unwrap();
        let plugin = std::fs::read_to_string(folder.join("plugin.yaml")).unwrap();
        assert!(plugin.contains("name: my-forge\n") && !plugin.contains("NAME"));
        let report = lint::check(&plugin);
        assert_eq!((report.plugins, &report.problems[..]), (1, &[][..]));
        let tried = test::try_folder(&folder, None).unwrap();
        assert!(tried.len() == 1 && tried[0].passed, "{tried:?}");

        let why = write(dir.path(), "my-forge").unwrap_err().to_string();
        assert!(why.contains("there already"), "{why}");
        for wrong in ["", "My", "a/b", "..", "-a", "a.b", &"a".repeat(64)] {
            assert!(matches!(write(dir.path(), wrong).unwrap_err().downcast_ref(), Some(Exit::Usage(_))), "{wrong}");
        }
    }
}
