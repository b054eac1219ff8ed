//! `bellhop plugin test`: recorded requests, replayed against a plugin.

pub mod case;
mod compare;
mod replay;
#[cfg(test)]
mod tests;

use super::file;
use crate::cli::exit::Exit;
use crate::cli::output::{Format, Screen, Tone, clean, document, print};
use crate::plugin::{Plugin, join};
use anyhow::{anyhow, bail};
use case::{Case, Kind};
use compare::Difference;
use replay::Tested;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the plugins of a catalogue are, seen from a folder above.
const CATALOGUE: &str = "charts/bellhop-plugins/plugins";

/// Options of `bellhop plugin test`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A folder with cases: `<case>.http` is a request as it came, `<case>.yaml` what is expected of it
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,

    /// The plugin; left out: plugin.yaml in the folder, else charts/bellhop-plugins/plugins/<name of the folder>.yaml in a
    /// folder above
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,

    /// Print a document, or the names of the cases that failed, instead of text
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// What became of a case.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tried {
    /// The file with the request.
    pub case: String,
    /// Where the request is from, if the case could be read and says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How near it is to the real thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Whether all is as expected.
    pub passed: bool,
    /// What is not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// Replays all cases of the folders.
///
/// # Errors
/// There are differences; a folder has no plugin or no cases.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let mut tried = Vec::new();
    for folder in &options.folders {
        tried.extend(try_folder(folder, options.plugin.as_deref())?);
    }
    let failed: Vec<_> = tried.iter().filter(|tried| !tried.passed).map(|tried| tried.case.clone()).collect();
    match options.output {
        Some(format) => print(&document(format, &tried, &failed)?)?,
        None => print(&shown(Screen::stdout(), &tried))?,
    }
    match failed.len() {
        0 => Ok(()),
        failed => bail!("{failed} of {} cases failed", tried.len()),
    }
}

/// Replays all cases of a folder.
///
/// # Errors
/// The folder has no plugin or no cases, or the plugin has mistakes.
pub fn try_folder(folder: &Path, plugin: Option<&Path>) -> anyhow::Result<Vec<Tried>> {
    let cases = case::list(folder)?;
    let plugin = match plugin {
        Some(file) => file.to_owned(),
        None => find_plugin(folder)?,
    };
    let (name, spec) = file::plugin(&plugin)?;
    let compiled = Plugin::compile(&name, &spec).map_err(|mistakes| {
        let file = plugin.display();
        anyhow!("{file} has mistakes, which `bellhop plugin lint {file}` shows in their places: {}", join(&mistakes))
    })?;
    let plugin = Tested { name, spec, compiled };
    Ok(cases.iter().map(|request| try_case(&plugin, request)).collect())
}

/// A case that cannot be read is one that differs, so that the others are tried as well.
fn try_case(plugin: &Tested, request: &Path) -> Tried {
    let case = case::case(request);
    let differences = match &case {
        Ok(case) => differences(plugin, case, request),
        Err(error) => Err(format!("{error:#}")),
    };
    let differences = differences.unwrap_or_else(|problem| vec![Difference { field: "case".to_owned(), problem }]);
    let (source, kind) = case.map_or((None, None), |case| (case.source, case.kind));
    Tried { case: request.display().to_string(), source, kind, passed: differences.is_empty(), differences }
}

fn differences(plugin: &Tested, case: &Case, request: &Path) -> Result<Vec<Difference>, String> {
    let request = case::request(request).map_err(|error| format!("{error:#}"))?;
    let outcome = replay::replay(plugin, case, request)?;
    Ok(compare::compare(&case.expect, &outcome))
}

/// The file of the plugin that a folder is about.
fn find_plugin(folder: &Path) -> anyhow::Result<PathBuf> {
    let beside = folder.join(case::PLUGIN);
    if beside.exists() {
        return Ok(beside);
    }
    let whole = folder.canonicalize().map_err(|error| file::unread(folder, &error))?;
    let name = whole.file_name().unwrap_or_default().to_string_lossy();
    let above = whole.ancestors().map(|above| above.join(CATALOGUE).join(format!("{name}.yaml")));
    above.into_iter().find(|file| file.exists()).ok_or_else(|| {
        let folder = folder.display();
        Exit::NotFound(format!(
            "{folder}: there is no plugin.yaml, and no {CATALOGUE}/{name}.yaml above; name it with --plugin"
        ))
        .into()
    })
}

fn shown(screen: Screen, tried: &[Tried]) -> String {
    let mut text = String::new();
    for Tried { case, passed, differences, .. } in tried {
        let (word, tone) = if *passed { ("ok  ", Tone::Good) } else { ("FAIL", Tone::Bad) };
        let _ = writeln!(text, "{}  {}", screen.paint(tone, word), clean(case));
        for Difference { field, problem } in differences {
            let _ = writeln!(text, "      {}: {}", screen.paint(Tone::Strong, &clean(field)), clean(problem));
        }
    }
    let failed = tried.iter().filter(|tried| !tried.passed).count();
    let cases = if tried.len() == 1 { "1 case".to_owned() } else { format!("{} cases", tried.len()) };
    let _ = writeln!(
        text,
        "{cases}, {}",
        if failed == 0 { "all as expected".to_owned() } else { format!("{failed} failed") }
    );
    text
}
