//! How problems are shown: as compilers do.

use super::super::yaml::line_and_column;
use super::check::Report;
use super::{Problem, Severity};
use crate::cli::output::{Screen, clean};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt::Write;

/// The problems of a file, and how many there are.
pub fn text(screen: Screen, name: &str, source: &str, report: &Report) -> String {
    let renderer = if screen.colours { Renderer::styled() } else { Renderer::plain() };
    let mut text = String::new();
    for problem in &report.problems {
        let _ = writeln!(text, "{}\n", renderer.render(&[group(name, source, problem)]));
    }
    for (kind, at) in &report.skipped {
        let (line, _) = line_and_column(source, *at);
        let _ =
            writeln!(text, "{}:{line}: the {} is skipped: only TriggerPlugins are looked at", clean(name), clean(kind));
    }
    let count = |severity: Severity| report.problems.iter().filter(|problem| problem.severity == severity).count();
    let summary = summary(count(Severity::Error), count(Severity::Warning));
    let _ = writeln!(text, "{}: {summary}", clean(name));
    text
}

fn group<'a>(name: &'a str, source: &'a str, problem: &'a Problem) -> annotate_snippets::Group<'a> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let annotation = AnnotationKind::Primary.span(problem.span.clone()).label(problem.field.as_deref());
    let title = level.primary_title(clean(&problem.message));
    title.element(Snippet::source(source).path(name).annotation(annotation))
}

/// Numbers of problems in words.
pub fn summary(errors: usize, warnings: usize) -> String {
    let some = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    };
    match (errors, warnings) {
        (0, 0) => "no mistakes".to_owned(),
        (_, 0) => some(errors, "mistake"),
        (0, _) => format!("no mistakes, {}", some(warnings, "warning")),
        _ => format!("{}, {}", some(errors, "mistake"), some(warnings, "warning")),
    }
}
