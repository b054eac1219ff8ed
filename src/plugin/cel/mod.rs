//! Expressions: CEL, compiled once, evaluated with a bounded effort, and never a panic.

mod budget;
mod check;
mod functions;
mod link;
pub(crate) mod value;

pub(crate) use budget::{sparing, work_done};
pub(crate) use check::Scope;
pub(crate) use value::Data;

use crate::plugin::error::{EvalError, Mistake};
use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, ExecutionError, Value};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Longest source of an expression, in bytes.
const LONGEST: usize = 4096;
/// Brackets inside each other in a source; checked before the parser sees it.
const BRACKETS: usize = 32;
/// Stack of the thread that compiles: a parser recurses with its source, and a source of 4096 bytes fits by far.
const STACK: usize = 16 << 20;

/// A compiled expression.
pub(crate) struct Expression {
    field: String,
    source: Box<str>,
    root: IdedExpr,
    used: BTreeSet<&'static str>,
    fields: BTreeSet<String>,
    headers: BTreeSet<String>,
    header: Option<Box<str>>,
    body_path: Option<Box<[String]>>,
    confidential: bool,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expression").field("field", &self.field).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Runs `work` on a thread with the stack that compiling needs, and gives back what it returns.
///
/// # Errors
/// A mistake without a position, if the thread cannot be started or the parser gave up on its input.
pub(crate) fn with_stack<T: Send>(field: &str, work: impl FnOnce() -> T + Send) -> Result<T, Mistake> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("compile".to_owned()).stack_size(STACK);
        let failed = |problem: &str| Mistake::new(field, format!("cannot be compiled: {problem}"));
        let running = thread.spawn_scoped(scope, work).map_err(|_| failed("no thread is left"))?;
        running.join().map_err(|_| failed("the parser gave up"))
    })
}

impl Expression {
    /// Compiles `source`, the value of `field`, which may mention what is in `scope`. Call it inside [`with_stack`].
    ///
    /// # Errors
    /// Every mistake found, with `line:column`.
    pub(crate) fn compile(field: &str, source: &str, scope: &Scope) -> Result<Self, Vec<Mistake>> {
        let fail = |problem: String| vec![Mistake::new(field, problem)];
        if source.trim().is_empty() {
            return Err(fail("is empty; write a CEL expression".to_owned()));
        }
        if source.len() > LONGEST {
            return Err(fail(format!("has {} bytes; an expression has at most {LONGEST}", source.len())));
        }
        if let Some(at) = too_nested(source) {
            let (at, found) = at;
            let position = check::position(source, at);
            return Err(fail(format!(
                "{position}: nested too deeply: {found} brackets inside each other; at most {BRACKETS}"
            )));
        }
        let parser = functions::ENV.parser().max_recursion_depth(DEEPEST_PARSE).error_recovery_limit(4);
        let (mut root, info) = parser.parse_with_source_info(source).map_err(|errors| {
            let mistakes = errors.errors.iter().take(3).map(|error| {
                let (line, column) = (error.pos.0.max(1), error.pos.1.max(1));
                let problem: String = error.msg.chars().take(300).collect();
                Mistake::new(field, format!("{line}:{column}: {problem}"))
            });
            mistakes.collect::<Vec<_>>()
        })?;
        let mut check = check::Check::new(scope, &info);
        check.visit(&root, 0, 0);
        if !check.problems.is_empty() {
            return Err(check.problems.into_iter().map(|problem| Mistake::new(field, problem)).collect());
        }
        let (used, fields, headers) = (check.used, check.fields, check.headers);
        let confidential = used.contains("credentials") || used.contains("callback");
        let (header, body_path) = (header_of(&root).map(Box::from), path_of(&root, "body").map(Box::from));
        budget::meter(&mut root);
        Ok(Self {
            field: field.to_owned(),
            source: source.into(),
            root,
            used,
            fields,
            headers,
            header,
            body_path,
            confidential,
        })
    }

    /// Stands where a mistake was found, so that the rest can be looked through; never evaluated.
    pub(crate) fn invalid() -> Self {
        Self {
            field: String::new(),
            source: Box::default(),
            root: IdedExpr::default(),
            used: BTreeSet::new(),
            fields: BTreeSet::new(),
            headers: BTreeSet::new(),
            header: None,
            body_path: None,
            confidential: true,
        }
    }

    /// The expression as its author wrote it.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether the expression mentions this variable.
    pub(crate) fn uses(&self, variable: &str) -> bool {
        self.used.contains(variable)
    }

    /// The expression, which gives a secret: no message of it shows what it worked on.
    pub(crate) fn confidential(mut self) -> Self {
        self.confidential = true;
        self
    }

    /// Whether the expression mentions this field of a record, such as `callback.secret`.
    pub(crate) fn mentions(&self, field: &str) -> bool {
        self.fields.contains(field)
    }

    /// The fields of a variable that the expression mentions by name.
    pub(crate) fn fields_of<'a>(&'a self, variable: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter_map(move |field| field.strip_prefix(variable)?.strip_prefix('.'))
    }

    /// Names, in lower case, of the request's headers that the expression looks up.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &str> {
        self.headers.iter().map(String::as_str)
    }

    /// The name in lower case, if all that the expression does is look up a request's header.
    pub(crate) fn header(&self) -> Option<&str> {
        self.header.as_deref()
    }

    /// The names of the fields, from the outside inwards, if all that the expression does is look up one in the body.
    pub(crate) fn body_path(&self) -> Option<&[String]> {
        self.body_path.as_deref()
    }

    /// Path of the expression's field.
    pub(crate) fn field(&self) -> &str {
        &self.field
    }

    /// Evaluates with these variables and hands the value to `read`, which says what is wrong with it.
    ///
    /// # Errors
    /// Why there is no value, or what `read` says. Values of variables appear in the message only where `read` puts
    /// them, and where the name of a missing key was computed from them.
    pub(crate) fn evaluate<T>(
        &self,
        variables: &Variables<'_>,
        read: impl FnOnce(&dyn Val) -> Result<T, String>,
    ) -> Result<T, EvalError> {
        let fail = |reason: String| EvalError::new(&self.field, reason);
        budget::start();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut context = Context::with_env(Arc::clone(&functions::ENV));
            context.set_variable_resolver(variables);
            let value = Value::resolve_val(&self.root, &context);
            if budget::is_spent() {
                return Err(format!("cannot be evaluated: it takes more than {} steps", budget::most()));
            }
            value
                .map_err(|error| format!("cannot be evaluated: {}", self.describe(&error)))
                .and_then(|value| read(&*value))
        }));
        budget::end();
        match outcome {
            Ok(result) => result.map_err(fail),
            Err(_) => Err(fail("cannot be evaluated: the interpreter gave up".to_owned())),
        }
    }

    /// Evaluates to a boolean.
    ///
    /// # Errors
    /// As [`Expression::evaluate`]; another type is an error.
    pub(crate) fn boolean(&self, variables: &Variables<'_>) -> Result<bool, EvalError> {
        self.evaluate(variables, |value| {
            let boolean = value.downcast_ref::<cel::common::types::CelBool>().map(|value| *value.inner());
            boolean.ok_or_else(|| format!("is {}, not a bool", value::describe_type(value)))
        })
    }

    /// Evaluates to a string.
    ///
    /// # Errors
    /// As [`Expression::evaluate`]; another type is an error.
    pub(crate) fn text(&self, variables: &Variables<'_>) -> Result<String, EvalError> {
        self.evaluate(variables, |value| {
            let text = value.downcast_ref::<cel::common::types::CelString>().map(|value| value.inner().to_owned());
            text.ok_or_else(|| format!("is {}, not a string", value::describe_type(value)))
        })
    }

    /// Evaluates to JSON.
    ///
    /// # Errors
    /// As [`Expression::evaluate`]; what JSON cannot write is an error.
    pub(crate) fn json(&self, variables: &Variables<'_>) -> Result<serde_json::Value, EvalError> {
        self.evaluate(variables, value::to_json)
    }

    /// Evaluates to a list of at most `most` items.
    ///
    /// # Errors
    /// As [`Expression::evaluate`]; another type and a longer list are errors.
    pub(crate) fn list(&self, variables: &Variables<'_>, most: usize) -> Result<Vec<Data>, EvalError> {
        self.evaluate(variables, |value| {
            let items = value.downcast_ref::<cel::common::types::CelList>().map(|list| list.inner());
            let items = items.ok_or_else(|| format!("is {}, not a list", value::describe_type(value)))?;
            if items.len() > most {
                return Err(format!("has {} items; at most {most} are read", items.len()));
            }
            items.iter().map(|item| value::own(item.as_ref())).collect()
        })
    }

    // The crate's own messages print the values; they could be credentials, and they could be megabytes.
    fn describe(&self, error: &ExecutionError) -> String {
        let known = |name: &str| self.source.contains(name);
        let secret = self.confidential;
        let text = match error {
            ExecutionError::NoSuchKey(name) if !secret || known(name) => format!("no such key: {name}"),
            ExecutionError::NoSuchKey(_) => "no such key".to_owned(),
            ExecutionError::UndeclaredReference(name) => format!("there is no `{name}` here"),
            ExecutionError::NoSuchOverload(overload) => overload.to_string(),
            ExecutionError::UnexpectedType { got, want } => format!("found {got} instead of {want}"),
            ExecutionError::FunctionError { function, message } if !secret => format!("{function}: {message}"),
            ExecutionError::FunctionError { function, .. } => format!("{function} failed"),
            ExecutionError::ValuesNotComparable(a, b) => {
                format!("a {} cannot be compared to a {}", a.type_of(), b.type_of())
            }
            ExecutionError::UnsupportedBinaryOperator(operator, a, b) => {
                format!("{operator} cannot combine a {} and a {}", a.type_of(), b.type_of())
            }
            ExecutionError::UnsupportedKeyType(key) => format!("a {} cannot be a key", key.type_of()),
            ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
            ExecutionError::RemainderByZero(_) => "remainder by zero".to_owned(),
            ExecutionError::Overflow(operator, ..) => format!("the result of {operator} does not fit 64 bits"),
            ExecutionError::IndexOutOfBounds(Value::Int(index)) => format!("index out of range: {index}"),
            ExecutionError::IndexOutOfBounds(_) => "index out of range".to_owned(),
            ExecutionError::DuplicateKey(_) => "a key is there twice".to_owned(),
            _ => "the types do not fit".to_owned(),
        };
        text.chars().take(300).collect()
    }
}

/// The header's name of `request.headers['name']`.
fn header_of(root: &IdedExpr) -> Option<String> {
    let Expr::Call(CallExpr { func_name, target: None, args }) = &root.expr else { return None };
    let [IdedExpr { expr: Expr::Select(select), .. }, IdedExpr { expr: Expr::Literal(literal), .. }] = args.as_slice()
    else {
        return None;
    };
    let (Expr::Ident(variable), LiteralValue::String(name)) = (&select.operand.expr, literal) else { return None };
    let name = name.inner();
    let plain = func_name == operators::INDEX && variable == "request" && select.field == "headers" && !select.test;
    (plain && !name.chars().any(|c| c.is_ascii_uppercase())).then(|| name.to_owned())
}

/// The path of `variable.a['b'].c`, at least one name; also where the value is made a string.
fn path_of(root: &IdedExpr, variable: &str) -> Option<Vec<String>> {
    let mut at = match &root.expr {
        Expr::Call(CallExpr { func_name, target: None, args }) if func_name == "string" => args.first()?,
        _ => root,
    };
    let mut path = Vec::new();
    loop {
        match &at.expr {
            Expr::Ident(name) if name == variable && !path.is_empty() => break,
            Expr::Select(select) if !select.test => {
                path.push(select.field.clone());
                at = &select.operand;
            }
            Expr::Call(CallExpr { func_name, target: None, args }) if func_name == operators::INDEX => {
                let [of, IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. }] = args.as_slice() else {
                    return None;
                };
                path.push(name.inner().to_owned());
                at = of;
            }
            _ => return None,
        }
    }
    path.reverse();
    Some(path)
}

const DEEPEST_PARSE: u16 = 64;

/// Where brackets are first nested too deeply, as a number of characters, and how deeply they are at most.
fn too_nested(source: &str) -> Option<(usize, usize)> {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    let (mut first, mut deepest) = (None, 0);
    for (at, character) in source.chars().enumerate() {
        match (quote, character) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth = depth.saturating_sub(1),
            (None, _) => {}
        }
        if depth > BRACKETS {
            first = first.or(Some(at));
            deepest = deepest.max(depth);
        }
    }
    first.map(|at| (at, deepest))
}

/// The variables of one evaluation; nothing is copied.
#[derive(Default)]
pub(crate) struct Variables<'a>(Vec<(&'static str, &'a dyn Val)>);

impl<'a> Variables<'a> {
    /// Adds a variable.
    pub(crate) fn with(mut self, name: &'static str, value: &'a Data) -> Self {
        self.0.push((name, value.as_ref()));
        self
    }
}

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let variable = variable.strip_prefix('.').unwrap_or(variable);
        self.0.iter().find(|(name, _)| *name == variable).map(|(_, value)| CowVal::Borrowed(*value as &'b dyn Val))
    }
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
