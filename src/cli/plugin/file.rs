//! Files that a person names.

use super::super::exit::Exit;
use crate::api::TriggerPluginSpec;
use anyhow::{Context, bail};
use serde_json::Value;
use std::io;
use std::path::Path;

/// The text of a file.
///
/// # Errors
/// [`Exit::NotFound`] if it is not there, [`Exit::Usage`] if it cannot be read or is not text.
pub fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).map_err(|error| unread(path, &error))
}

/// The end of a command that cannot read a file or folder.
pub fn unread(path: &Path, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound(format!("{}: there is no such file or folder", path.display())),
        _ => Exit::Usage(format!("{}: {error}", path.display())),
    }
    .into()
}

/// The one TriggerPlugin of a file, with its name.
///
/// # Errors
/// As [`read`]; or the file is no YAML, or holds none or several.
pub fn plugin(path: &Path) -> anyhow::Result<(String, TriggerPluginSpec)> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&read(path)?).map_err(|error| {
        anyhow::anyhow!("{}: {}", path.display(), error.to_string().lines().next().unwrap_or_default())
    })?;
    let mut plugins = documents.into_iter().filter(|document| document["kind"] == "TriggerPlugin");
    let (Some(plugin), None) = (plugins.next(), plugins.next()) else {
        bail!("{}: expected exactly one TriggerPlugin", path.display());
    };
    let name = plugin["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let spec = plugin.get("spec").cloned().unwrap_or_default();
    let spec = serde_json::from_value(spec).with_context(|| format!("{}: spec", path.display()))?;
    Ok((name, spec))
}
