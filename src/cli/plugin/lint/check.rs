//! All checks of a file: YAML, the definition's schema and rules, and what Bellhop itself says of a plugin.

use super::super::yaml::{self, Kind, Node, in_text};
use super::structure::Structure;
use super::{Problem, Severity, warnings};
use crate::api::TriggerPluginSpec;
use crate::plugin::{Mistake, Plugin};
use serde_json::Value;
use std::ops::Range;

/// What was found in a file.
#[derive(Debug, Default)]
pub struct Report {
    /// Every problem, in the order of the file.
    pub problems: Vec<Problem>,
    /// Number of TriggerPlugins.
    pub plugins: usize,
    /// Kinds of the other documents, and where they begin.
    pub skipped: Vec<(String, usize)>,
}

/// Looks for problems in a file.
pub fn check(source: &str) -> Report {
    let (documents, broken) = yaml::parse(source);
    let mut report = Report::default();
    for broken in broken {
        let (severity, field) = (Severity::Error, None);
        report.problems.push(Problem { severity, field, message: broken.problem, span: broken.span });
    }
    for document in &documents {
        let kind = document.get("kind").and_then(Node::text);
        match (kind, &document.kind) {
            (Some("TriggerPlugin"), _) => {
                report.plugins += 1;
                plugin(source, document, &mut report.problems);
            }
            (Some(kind), _) => report.skipped.push((kind.to_owned(), document.span.start)),
            // An empty document, as behind a `---` at the end.
            (None, Kind::Scalar { .. }) if document.to_json().is_null() => {}
            (None, _) => {
                let message = "is no resource: `kind` is missing; a plugin has `kind: TriggerPlugin`".to_owned();
                let span = document.find("kind").range(source);
                report.problems.push(Problem { severity: Severity::Error, field: None, message, span });
            }
        }
    }
    report.problems.sort_by_key(|problem| (problem.span.start, problem.severity));
    report
}

fn plugin(source: &str, document: &Node, problems: &mut Vec<Problem>) {
    let mut value = document.to_json();
    let structure = Structure::check(&mut value);
    let mut add = |severity: Severity, mistake: &Mistake| {
        // A mistake of the structure has been told; what follows from it has not to be.
        let named = structure.is_unknown(&mistake.field).then(|| document.find(&mistake.field).key_range());
        let span = named.flatten().unwrap_or_else(|| place(source, document, mistake));
        let message = mistake.position().map_or(mistake.problem.as_str(), |(.., problem)| problem).to_owned();
        let problem = Problem { severity, field: Some(mistake.field.clone()), message, span };
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    };
    structure.mistakes.iter().for_each(|mistake| add(Severity::Error, mistake));
    // What was repaired can be compiled, so that mistakes of the structure do not hide the others.
    let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let spec = match serde_json::from_value::<TriggerPluginSpec>(value.get("spec").cloned().unwrap_or(Value::Null)) {
        Ok(spec) => spec,
        Err(error) if structure.mistakes.is_empty() => {
            add(Severity::Error, &Mistake::new("spec", error.to_string()));
            return;
        }
        Err(_) => return,
    };
    let compiled = Plugin::compile(&name, &spec);
    for mistake in compiled.err().iter().flatten().filter(|mistake| !structure.explains(&mistake.field)) {
        add(Severity::Error, mistake);
    }
    for warning in warnings::of(&spec).iter().filter(|warning| !structure.explains(&warning.field)) {
        add(Severity::Warning, warning);
    }
}

/// Where a mistake is in the file.
fn place(source: &str, document: &Node, mistake: &Mistake) -> Range<usize> {
    let found = document.find(&mistake.field);
    let inside = mistake.position().filter(|_| found.whole);
    let inside = inside.and_then(|(line, column, _)| in_text(source, found.value, line, column));
    inside.or_else(|| variable(source, found.value, &mistake.problem)).unwrap_or_else(|| found.range(source))
}

/// Where a variable that is not known stands in a URL template, whose mistakes have no position.
fn variable(source: &str, scalar: &Node, problem: &str) -> Option<Range<usize>> {
    let name = problem.strip_prefix("unknown variable `")?.split('`').next()?;
    scalar.text()?;
    let at = scalar.span.start + source.get(scalar.span.clone())?.find(name)?;
    Some(at..at + name.len())
}
