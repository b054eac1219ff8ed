//! `bellhop plugin lint`: every mistake of a file at once, in its place.

mod check;
mod render;
mod structure;
#[cfg(test)]
mod tests;
mod warnings;

use super::file;
use super::yaml::line_and_column;
use crate::cli::exit::Exit;
use crate::cli::output::{Format, Screen, document, print};
use anyhow::bail;
use check::Report;
pub use check::check;
use serde::Serialize;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Options of `bellhop plugin lint`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A file with TriggerPlugins; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// End with 1 on warnings too
    #[arg(long)]
    deny_warnings: bool,

    /// Print a document, or the names of the files with mistakes, instead of text
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The plugin cannot be used.
    Error,
    /// It can, but is not as good as it could be.
    Warning,
}

/// Something that is not right.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The field, such as `spec.callback.event`; none where the file is no YAML.
    pub field: Option<String>,
    /// What was found and what would be right.
    pub message: String,
    /// Its bytes in the file.
    pub span: Range<usize>,
}

/// A problem, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
    severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    message: &'a str,
}

/// What was found in a file.
struct Linted {
    name: String,
    source: String,
    report: Report,
}

/// Prints the problems of the files.
///
/// # Errors
/// There are mistakes, or warnings that are denied; a file cannot be read; there is no TriggerPlugin in any of them.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let linted = options.files.iter().map(|file| lint(file)).collect::<anyhow::Result<Vec<_>>>()?;
    let count = |severity: Severity| {
        let problems = linted.iter().flat_map(|linted| &linted.report.problems);
        problems.filter(|problem| problem.severity == severity).count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match options.output {
        Some(format) => {
            let told: Vec<_> = linted.iter().flat_map(Linted::told).collect();
            let bad = linted.iter().filter(|linted| linted.is_bad(options.deny_warnings));
            print(&document(format, &told, &bad.map(|linted| linted.name.clone()).collect::<Vec<_>>())?)?;
        }
        None => {
            let screen = Screen::stdout();
            let texts = linted.iter().map(|linted| render::text(screen, &linted.name, &linted.source, &linted.report));
            print(&texts.collect::<String>())?;
        }
    }
    if errors > 0 || options.deny_warnings && warnings > 0 {
        bail!("{}", render::summary(errors, warnings));
    }
    if linted.iter().all(|linted| linted.report.plugins == 0) {
        return Err(Exit::NotFound("there is no TriggerPlugin to look at".to_owned()).into());
    }
    Ok(())
}

fn lint(file: &Path) -> anyhow::Result<Linted> {
    let source = match file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()).map_err(|error| file::unread(file, &error))?,
        false => file::read(file)?,
    };
    Ok(Linted { name: file.display().to_string(), report: check(&source), source })
}

impl Linted {
    fn told(&self) -> impl Iterator<Item = Told<'_>> {
        self.report.problems.iter().map(|problem| {
            let (line, column) = line_and_column(&self.source, problem.span.start);
            let (end_line, end_column) = line_and_column(&self.source, problem.span.end);
            let (file, message, field) = (self.name.as_str(), problem.message.as_str(), problem.field.as_deref());
            Told { file, line, column, end_line, end_column, severity: problem.severity, field, message }
        })
    }

    fn is_bad(&self, deny_warnings: bool) -> bool {
        self.report.problems.iter().any(|problem| deny_warnings || problem.severity == Severity::Error)
    }
}

/// The problems of a file's text, as they are shown.
#[cfg(test)]
pub fn text(screen: Screen, name: &str, source: &str) -> String {
    render::text(screen, name, source, &check(source))
}
