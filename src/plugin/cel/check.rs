//! Which expressions are accepted: what they may mention, and how deep they may go.

use super::functions::{NAMES, NAMESPACES, TYPES, compile_glob, compile_regex};
use crate::plugin::error::nearest;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};
use std::collections::BTreeSet;

/// Depth of an expression's tree; bounds the stack of an evaluation.
pub(super) const DEEPEST: usize = 48;
/// Comprehensions inside each other in a plugin, which an administrator writes: each multiplies the work by the length of a
/// list.
const COMPREHENSIONS: usize = 2;
/// The same in what a workspace writes: its triggers.
const COMPREHENSIONS_OF_WORKSPACES: usize = 1;

/// What an expression may mention, and who writes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    variables: Vec<(&'static str, Option<Vec<String>>)>,
    of_workspace: bool,
}

impl Scope {
    /// For an expression that a workspace writes, and no administrator.
    pub(crate) fn of_workspace(self) -> Self {
        Self { of_workspace: true, ..self }
    }

    /// Adds a variable of any shape.
    pub(crate) fn any(mut self, name: &'static str) -> Self {
        self.variables.push((name, None));
        self
    }

    /// Adds a record that has exactly these fields.
    pub(crate) fn record<S: Into<String>>(mut self, name: &'static str, fields: impl IntoIterator<Item = S>) -> Self {
        self.variables.push((name, Some(fields.into_iter().map(Into::into).collect())));
        self
    }

    fn names(&self) -> Vec<&'static str> {
        self.variables.iter().map(|(name, _)| *name).collect()
    }
}

/// Whether a call such as `optional.of(x)` is written like a method, but is not one.
pub(super) fn is_qualified(call: &CallExpr) -> bool {
    match call.target.as_deref() {
        Some(IdedExpr { expr: Expr::Ident(name), .. }) => {
            NAMESPACES.contains(&name.as_str()) && NAMES.contains(&format!("{name}.{}", call.func_name).as_str())
        }
        _ => false,
    }
}

pub(super) struct Check<'a> {
    scope: &'a Scope,
    source: &'a SourceInfo,
    /// Variables of the comprehensions around the current node.
    bound: Vec<String>,
    /// Variables of the scope that the expression mentions.
    pub(super) used: BTreeSet<&'static str>,
    /// Fields of variables that it mentions, such as `callback.secret`.
    pub(super) fields: BTreeSet<String>,
    /// Names of a request's headers that it looks up.
    pub(super) headers: BTreeSet<String>,
    pub(super) problems: Vec<String>,
}

impl<'a> Check<'a> {
    pub(super) fn new(scope: &'a Scope, source: &'a SourceInfo) -> Self {
        Self {
            scope,
            source,
            bound: Vec::new(),
            used: BTreeSet::new(),
            fields: BTreeSet::new(),
            headers: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, id: u64, problem: String) {
        let offset = self.source.offset_for(id).map_or(0, |(start, _)| start as usize);
        self.problems.push(format!("{}: {problem}", position(&self.source.source, offset)));
    }

    /// Checks a tree that is `depth` deep already, inside of `loops` comprehensions.
    pub(super) fn visit(&mut self, node: &IdedExpr, depth: usize, loops: usize) {
        if depth > DEEPEST {
            // One message is enough for the whole tree below.
            if !self.problems.iter().any(|problem| problem.contains("nested too deeply")) {
                let found = depth + levels(node);
                self.problem(node.id, format!("nested too deeply: {found} levels; at most {DEEPEST}"));
            }
            return;
        }
        let depth = depth + 1;
        match &node.expr {
            Expr::Ident(name) => self.identifier(node.id, name),
            Expr::Select(select) => {
                self.field(select.operand.id, &select.operand.expr, &select.field, node.id);
                if is_headers(&select.operand) {
                    self.headers.insert(select.field.to_ascii_lowercase());
                }
                self.visit(&select.operand, depth, loops);
            }
            Expr::Call(call) => {
                self.call(node.id, call);
                if let Some(target) = &call.target
                    && !is_qualified(call)
                {
                    self.visit(target, depth, loops);
                }
                for arg in &call.args {
                    self.visit(arg, depth, loops);
                }
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element, depth, loops)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.visit(&entry.key, depth, loops);
                        self.visit(&entry.value, depth, loops);
                    }
                }
            }
            Expr::Comprehension(comprehension) => {
                let (most, whose) = match self.scope.of_workspace {
                    true => (COMPREHENSIONS_OF_WORKSPACES, "in a WorkflowTrigger"),
                    false => (COMPREHENSIONS, "in a TriggerPlugin"),
                };
                if loops >= most {
                    let found = loops + comprehensions(node);
                    let problem = format!(
                        "{found} of all, exists, exists_one, filter and map inside each other; {whose}, at most {most}"
                    );
                    self.problem(node.id, problem);
                    return;
                }
                self.visit(&comprehension.iter_range, depth, loops);
                self.visit(&comprehension.accu_init, depth, loops);
                let bound = self.bound.len();
                self.bound.push(comprehension.iter_var.clone());
                self.bound.extend(comprehension.iter_var2.clone());
                self.visit(&comprehension.loop_cond, depth, loops + 1);
                self.visit(&comprehension.loop_step, depth, loops + 1);
                self.visit(&comprehension.result, depth, loops + 1);
                self.bound.truncate(bound);
            }
            Expr::Struct(message) => {
                self.problem(node.id, format!("there is no message type `{}`", message.type_name));
            }
            Expr::Literal(_) => {}
            Expr::Unspecified => self.problem(node.id, "this is not an expression".to_owned()),
        }
    }

    fn identifier(&mut self, id: u64, name: &str) {
        // `@result` is the accumulator of a comprehension.
        if name.starts_with('@') || self.bound.iter().any(|bound| bound == name) {
            return;
        }
        let plain = name.strip_prefix('.').unwrap_or(name);
        if let Some((known, _)) = self.scope.variables.iter().find(|(known, _)| *known == plain) {
            self.used.insert(known);
        } else if !TYPES.contains(&plain) {
            let names = self.scope.names();
            let hint =
                nearest(plain, names.iter().copied()).map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
            self.problem(id, format!("unknown variable `{plain}`; {hint}here are: {}", names.join(", ")));
        }
    }

    fn field(&mut self, operand: u64, root: &Expr, field: &str, id: u64) {
        let Expr::Ident(name) = root else { return };
        if self.bound.iter().any(|bound| bound == name) {
            return;
        }
        let Some((_, fields)) = self.scope.variables.iter().find(|(known, _)| known == name) else { return };
        self.fields.insert(format!("{name}.{field}"));
        let Some(fields) = fields else { return };
        // `has(x.y)` asks whether the field is there; that it never can be is a mistake all the same.
        if !fields.iter().any(|known| known == field) {
            let hint = nearest(field, fields.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`? "));
            let there = if fields.is_empty() { "nothing".to_owned() } else { fields.join(", ") };
            let at = if self.source.offset_for(operand).is_some() { operand } else { id };
            self.problem(at, format!("`{name}` has no `{field}`; {}it has: {there}", hint.unwrap_or_default()));
        }
    }

    fn call(&mut self, id: u64, call: &CallExpr) {
        let name = match call.target.as_deref() {
            Some(IdedExpr { expr: Expr::Ident(target), .. }) if NAMESPACES.contains(&target.as_str()) => {
                format!("{target}.{}", call.func_name)
            }
            _ => call.func_name.clone(),
        };
        // Operators are calls too; their names, such as `_+_` and `@in`, cannot be written.
        let operator = name.starts_with(['_', '@', '!', '-']);
        if !operator && !NAMES.contains(&name.as_str()) {
            let hint =
                nearest(&name, NAMES.iter().copied()).map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
            self.problem(id, format!("unknown function `{name}`; {hint}here are: {}", NAMES.join(", ")));
        }
        let literal = |arg: Option<&IdedExpr>| match arg.map(|arg| &arg.expr) {
            Some(Expr::Literal(LiteralValue::String(text))) => Some(text.inner().to_owned()),
            _ => None,
        };
        if let [from, key] = call.args.as_slice()
            && matches!(call.func_name.as_str(), operators::INDEX | operators::OPT_INDEX | operators::OPT_SELECT)
            && let Some(key) = literal(Some(key))
        {
            match &from.expr {
                Expr::Ident(record) => drop(self.fields.insert(format!("{record}.{key}"))),
                _ if is_headers(from) => drop(self.headers.insert(key.to_ascii_lowercase())),
                _ => {}
            }
        }
        let pattern = match (name.as_str(), call.target.as_deref()) {
            ("matches", Some(_)) => literal(call.args.first()).map(|p| compile_regex(&p).err()),
            ("matches", None) => literal(call.args.get(1)).map(|p| compile_regex(&p).err()),
            ("glob", Some(target)) => literal(Some(target)).map(|p| compile_glob(&p).err()),
            ("glob", None) => literal(call.args.first()).map(|p| compile_glob(&p).err()),
            _ => None,
        };
        if let Some(Some(problem)) = pattern {
            self.problem(id, problem);
        }
    }
}

/// The expressions that an expression is made of.
fn parts(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Select(select) => vec![&select.operand],
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => {
            let entries = map.entries.iter().filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some([&entry.key, &entry.value]),
                EntryExpr::StructField(_) => None,
            });
            entries.flatten().collect()
        }
        Expr::Comprehension(c) => vec![&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result],
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

/// Levels of a tree below its root; the parser has bounded them.
fn levels(node: &IdedExpr) -> usize {
    parts(node).into_iter().map(|part| 1 + levels(part)).max().unwrap_or(0)
}

/// Comprehensions inside each other. What a comprehension walks over is beside it and not inside.
fn comprehensions(node: &IdedExpr) -> usize {
    let deepest = |parts: &[&IdedExpr]| parts.iter().map(|part| comprehensions(part)).max().unwrap_or(0);
    match &node.expr {
        Expr::Comprehension(c) => deepest(&[&c.iter_range]).max(1 + deepest(&[&c.loop_cond, &c.loop_step, &c.result])),
        _ => deepest(&parts(node)),
    }
}

/// Whether the expression is `request.headers`.
fn is_headers(expr: &IdedExpr) -> bool {
    match &expr.expr {
        Expr::Select(select) => {
            select.field == "headers" && matches!(&select.operand.expr, Expr::Ident(name) if name == "request")
        }
        _ => false,
    }
}

/// `line:column` of a character, both counted from 1.
pub(super) fn position(source: &str, offset: usize) -> String {
    let (mut line, mut column) = (1, 1);
    for character in source.chars().take(offset) {
        (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    format!("{line}:{column}")
}
