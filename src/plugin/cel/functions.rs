//! The functions of the language: CEL's standard library, the strings of its strings extension, base64, and `glob`.
//!
//! The strings extension of the crate is not used as it is, because `replace` and `join` can make a small input so
//! large that the process dies of it; here the size of a result is paid for before it is made.

use super::budget::{CHARGE, GO_ON, LOOP, MATCHES, charge, go_on_with, left, loop_over, take};
use super::value::Parsed;
use cel::common::types::{
    BYTES_TYPE, CelBool, CelBytes, CelInt, CelList, CelString, DYN_TYPE, INT_TYPE, LIST_TYPE, STRING_TYPE, Type,
};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use globset::{GlobBuilder, GlobMatcher};
use regex::{Regex, RegexBuilder};
use regex_automata::dfa::dense;
use regex_automata::nfa::thompson::{self, NFA};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

/// Every function and macro that an expression may call.
pub(super) const NAMES: &[&str] = &[
    "all",
    "base64.decode",
    "base64.encode",
    "bool",
    "bytes",
    "charAt",
    "contains",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "glob",
    "has",
    "hasValue",
    "indexOf",
    "int",
    "join",
    "json",
    "lastIndexOf",
    "lowerAscii",
    "map",
    "matches",
    "nextLink",
    "optional.none",
    "optional.of",
    "optional.ofNonZeroValue",
    "or",
    "orValue",
    "replace",
    "size",
    "split",
    "startsWith",
    "string",
    "substring",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "value",
];

/// Names before a dot that belong to a function's name.
pub(super) const NAMESPACES: &[&str] = &["base64", "optional"];

/// Type names that an expression may mention, as in `type(x) == string`.
pub(super) const TYPES: &[&str] =
    &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "timestamp", "duration", "type", "uint"];

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Answer<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// The environment that every expression is compiled for and evaluated in.
pub(super) static ENV: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(environment().expect("the functions do not clash with each other")));

fn environment() -> Result<Env, DeclarationError> {
    let mut env = Env::stdlib();
    env.add_extension(cel::extensions::encoders)?;
    env.add_overload(CHARGE, "charge", vec![DYN_TYPE], charge)?;
    env.add_overload(GO_ON, "go_on", vec![DYN_TYPE], go_on_with)?;
    env.add_overload(LOOP, "loop", vec![DYN_TYPE, INT_TYPE], loop_over)?;
    env.add_overload("glob", "glob", vec![STRING_TYPE, STRING_TYPE], glob)?;
    env.add_overload("glob", "glob_any", vec![LIST_TYPE, STRING_TYPE], glob)?;
    env.add_overload("json", "json_text", vec![STRING_TYPE], json)?;
    env.add_overload("json", "json_bytes", vec![BYTES_TYPE], json)?;
    env.add_overload("nextLink", "next_link", vec![STRING_TYPE], next_link)?;
    env.add_overload(MATCHES, "matches", vec![STRING_TYPE, STRING_TYPE], matches)?;
    let text = |count: usize| (0..count).map(|_| STRING_TYPE).collect::<Vec<Type>>();
    let members: [(&str, &str, Type, Vec<Type>, cel::common::functions::Function); 17] = [
        (MATCHES, "member_matches", STRING_TYPE, text(1), matches),
        ("charAt", "char_at", STRING_TYPE, vec![INT_TYPE], char_at),
        ("indexOf", "index_of", STRING_TYPE, text(1), index_of),
        ("indexOf", "index_of_from", STRING_TYPE, vec![STRING_TYPE, INT_TYPE], index_of),
        ("lastIndexOf", "last_index_of", STRING_TYPE, text(1), last_index_of),
        ("join", "join", LIST_TYPE, vec![], join),
        ("join", "join_with", LIST_TYPE, text(1), join),
        ("lowerAscii", "lower_ascii", STRING_TYPE, vec![], lower_ascii),
        ("upperAscii", "upper_ascii", STRING_TYPE, vec![], upper_ascii),
        ("trim", "trim", STRING_TYPE, vec![], trim),
        ("replace", "replace", STRING_TYPE, text(2), replace),
        ("replace", "replace_n", STRING_TYPE, vec![STRING_TYPE, STRING_TYPE, INT_TYPE], replace),
        ("split", "split", STRING_TYPE, text(1), split),
        ("split", "split_n", STRING_TYPE, vec![STRING_TYPE, INT_TYPE], split),
        ("substring", "substring", STRING_TYPE, vec![INT_TYPE], substring),
        ("substring", "substring_to", STRING_TYPE, vec![INT_TYPE, INT_TYPE], substring),
        ("glob", "member_glob", STRING_TYPE, text(1), glob),
    ];
    for (name, id, target, args, function) in members {
        env.add_member_overload(name, id, target, args, function)?;
    }
    Ok(env)
}

fn text<'a>(args: &'a Args<'_, '_>, at: usize) -> Result<&'a str, ExecutionError> {
    args.get(at)
        .and_then(|value| value.downcast_ref::<CelString>())
        .map(CelString::inner)
        .ok_or_else(|| ExecutionError::invalid_argument_count(at + 1, args.len()))
}

fn number(args: &Args<'_, '_>, at: usize) -> Option<i64> {
    args.get(at).and_then(|value| value.downcast_ref::<CelInt>()).map(|number| *number.inner())
}

fn made<'b, 'v>(text: String) -> CowVal<'b, 'v> {
    CowVal::owned(CelString::from(text))
}

fn out_of_range(function: &str, index: i64) -> ExecutionError {
    ExecutionError::function_error(function, format!("index out of range: {index}"))
}

/// The byte offset of a code point's index; the length itself is an index too.
fn offset(function: &str, text: &str, index: i64) -> Result<usize, ExecutionError> {
    let wanted = usize::try_from(index).map_err(|_| out_of_range(function, index))?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(wanted).ok_or_else(|| out_of_range(function, index))
}

fn char_at<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let this = text(&args, 0)?;
    let from = offset("charAt", this, number(&args, 1).unwrap_or(0))?;
    Ok(made(this[from..].chars().next().map(String::from).unwrap_or_default()))
}

fn index_of<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (this, needle) = (text(&args, 0)?, text(&args, 1)?);
    let from = offset("indexOf", this, number(&args, 2).unwrap_or(0))?;
    let found = this[from..].find(needle).map_or(-1, |at| this[..from + at].chars().count() as i64);
    Ok(CowVal::owned(CelInt::from(found)))
}

fn last_index_of<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (this, needle) = (text(&args, 0)?, text(&args, 1)?);
    let found = this.rfind(needle).map_or(-1, |at| this[..at].chars().count() as i64);
    Ok(CowVal::owned(CelInt::from(found)))
}

fn join<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let separator = if args.len() > 1 { text(&args, 1)? } else { "" };
    let items = args.first().and_then(|list| list.downcast_ref::<CelList>()).map(CelList::inner).unwrap_or_default();
    take((separator.len() as u64).saturating_mul(items.len() as u64) / 32)?;
    let mut parts = Vec::with_capacity(items.len());
    for item in items {
        let part = item.downcast_ref::<CelString>().ok_or_else(|| ExecutionError::UnexpectedType {
            got: item.get_type().name().to_owned(),
            want: "string".to_owned(),
        })?;
        parts.push(part.inner());
    }
    Ok(made(parts.join(separator)))
}

fn lower_ascii<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(made(text(&args, 0)?.to_ascii_lowercase()))
}

fn upper_ascii<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(made(text(&args, 0)?.to_ascii_uppercase()))
}

fn trim<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    Ok(made(text(&args, 0)?.trim().to_owned()))
}

fn replace<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (this, from, to) = (text(&args, 0)?, text(&args, 1)?, text(&args, 2)?);
    let most = number(&args, 3).and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let found = this.matches(from).take(most).count();
    // Each is a copy of its own.
    take((found as u64).saturating_mul(1 + to.len() as u64 / 32))?;
    Ok(made(this.replacen(from, to, found)))
}

fn split<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (this, separator) = (text(&args, 0)?, text(&args, 1)?);
    let most = number(&args, 2).and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let count = if separator.is_empty() { this.len() } else { this.matches(separator).count() + 1 };
    take(count.min(most).saturating_mul(2) as u64)?;
    let parts: Vec<&str> = match (most, separator.is_empty()) {
        (0, _) => Vec::new(),
        (most, false) => this.splitn(most, separator).collect(),
        // Between code points, with what is left in the last part.
        (most, true) => {
            let ends = this.char_indices().map(|(at, c)| (at, at + c.len_utf8()));
            let parts = ends.enumerate().take(most);
            parts.map(|(i, (at, end))| if i + 1 == most { &this[at..] } else { &this[at..end] }).collect()
        }
    };
    let parts: Vec<Box<dyn Val>> =
        parts.into_iter().map(|part| Box::new(CelString::from(part.to_owned())) as Box<dyn Val>).collect();
    Ok(CowVal::owned(CelList::from(parts)))
}

fn substring<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let this = text(&args, 0)?;
    let start = offset("substring", this, number(&args, 1).unwrap_or(0))?;
    let end = number(&args, 2).map_or(Ok(this.len()), |end| offset("substring", this, end))?;
    let part = this.get(start..end).ok_or_else(|| ExecutionError::function_error("substring", "start is after end"))?;
    Ok(made(part.to_owned()))
}

/// `json(text)`, or `json(bytes)`: the value that is written as JSON inside of a text.
fn json<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let fail = |problem: String| ExecutionError::function_error("json", problem);
    let written = args.first().and_then(|value| match value.downcast_ref::<CelBytes>() {
        Some(bytes) => std::str::from_utf8(bytes.inner()).ok(),
        None => value.downcast_ref::<CelString>().map(CelString::inner),
    });
    let written = written.ok_or_else(|| fail("the bytes are no text".to_owned()))?;
    take(written.len() as u64 / 32)?;
    let room = left() / JSON_VALUE;
    let (parsed, used) = super::value::within(room, || serde_json::from_str::<Parsed>(written));
    take(used.saturating_mul(JSON_VALUE))?;
    let parsed = parsed.map_err(|error| fail(format!("this is not JSON: {error}")))?;
    Ok(CowVal::Owned(parsed.0))
}

/// `nextLink(text)`: the target of the next page in a Link header.
fn next_link<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let header = text(&args, 0)?;
    // It is looked at byte by byte.
    take(header.len() as u64 / 8)?;
    Ok(made(super::link::next(header).unwrap_or_default().to_owned()))
}

thread_local! {
    static GLOBS: RefCell<HashMap<String, Rc<Pattern<GlobMatcher>>>> = RefCell::new(HashMap::new());
    static REGEXES: RefCell<HashMap<String, Rc<Pattern<Regex>>>> = RefCell::new(HashMap::new());
}

/// Longest glob or regular expression, in bytes.
const LONGEST_PATTERN: usize = 1024;
/// Largest regular expression when it is compiled, in bytes. A short one can become large: each `\pL` has hundreds of ranges.
const LARGEST_REGEX: usize = 256 * 1024;
/// Most memory in which a regular expression remembers where it was, in bytes.
const REGEX_MEMORY: usize = 256 * 1024;
/// Largest automaton that is small, in bytes.
const SMALL_AUTOMATON: usize = 64 * 1024;
/// What eight bytes cost for each state of an automaton that is not small, and if nothing is known of it.
const STATE_RATE: u64 = 4;
const UNKNOWN_RATE: u64 = 10_000;
/// Patterns of each kind that a thread keeps.
const CACHED: usize = 64;
/// What it costs to compile a glob, a regular expression, and either besides for each of its bytes. A short regular expression
/// can have large classes.
const COMPILE_GLOB: u64 = 2_000;
const COMPILE_REGEX: u64 = 12_000;
const COMPILE_BYTE: u64 = 40;
/// What a value or a name costs that is read from JSON inside of a text.
const JSON_VALUE: u64 = 3;

/// A compiled pattern, and what it costs to hold eight bytes against it.
#[derive(Debug)]
pub(super) struct Pattern<T> {
    matcher: T,
    rate: u64,
}

impl<T> Pattern<T> {
    /// Pays for a look at `text`.
    fn pay(&self, text: &str) -> Result<(), ExecutionError> {
        take(1 + (text.len() as u64).saturating_mul(self.rate) / 8)
    }
}

/// What eight bytes cost. A pattern that becomes a small automaton looks at each byte once. Any other one may have to look at
/// each of its states for each byte.
fn rate(pattern: &str, utf8: bool) -> u64 {
    let syntax = regex_automata::util::syntax::Config::new().utf8(utf8);
    let limits =
        dense::Config::new().dfa_size_limit(Some(SMALL_AUTOMATON)).determinize_size_limit(Some(SMALL_AUTOMATON));
    let nfa = NFA::compiler()
        .syntax(syntax)
        .configure(thompson::Config::new().utf8(utf8).nfa_size_limit(Some(2 * LARGEST_REGEX)))
        .build(pattern);
    let Ok(nfa) = nfa else { return UNKNOWN_RATE };
    match dense::Builder::new().configure(limits).build_from_nfa(&nfa) {
        Ok(_) => 1,
        Err(_) => (nfa.states().len() as u64).saturating_mul(STATE_RATE),
    }
}

/// Compiles a glob: `*` and `?` stop at `/`, `**` as a whole segment does not, `[a-z]` and `{a,b}` are alternatives.
///
/// # Errors
/// What is wrong with the pattern.
pub(super) fn compile_glob(pattern: &str) -> Result<Pattern<GlobMatcher>, String> {
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!("the glob has {} bytes; at most {LONGEST_PATTERN}", pattern.len()));
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(true).build();
    glob.map(|glob| Pattern { rate: rate(glob.regex(), false), matcher: glob.compile_matcher() })
        .map_err(|error| format!("{:?} is no glob: {}", pattern, error.kind()))
}

/// Compiles a regular expression of RE2's syntax.
///
/// # Errors
/// What is wrong with the pattern, in one line.
pub(super) fn compile_regex(pattern: &str) -> Result<Pattern<Regex>, String> {
    if pattern.len() > LONGEST_PATTERN {
        return Err(format!("the regular expression has {} bytes; at most {LONGEST_PATTERN}", pattern.len()));
    }
    let built = RegexBuilder::new(pattern).size_limit(LARGEST_REGEX).dfa_size_limit(REGEX_MEMORY).build();
    built.map(|matcher| Pattern { rate: rate(pattern, true), matcher }).map_err(|error| {
        if let regex::Error::CompiledTooBig(_) = error {
            return format!("{pattern:?} is too large when it is compiled: at most {LARGEST_REGEX} bytes");
        }
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("{pattern:?} is no regular expression: {reason}")
    })
}

fn cached<T>(
    cache: &'static std::thread::LocalKey<RefCell<HashMap<String, Rc<T>>>>,
    (function, cost): (&str, u64),
    pattern: &str,
    compile: fn(&str) -> Result<T, String>,
) -> Result<Rc<T>, ExecutionError> {
    if let Some(found) = cache.with_borrow(|cache| cache.get(pattern).cloned()) {
        return Ok(found);
    }
    // Compiling is what a hostile pattern makes expensive.
    take(cost.saturating_add((pattern.len() as u64).saturating_mul(COMPILE_BYTE)))?;
    let compiled = compile(pattern).map_err(|problem| ExecutionError::function_error(function, problem))?;
    // Clones of a regular expression do not share the memory that makes it fast.
    let compiled = Rc::new(compiled);
    cache.with_borrow_mut(|cache| {
        if cache.len() >= CACHED {
            cache.clear();
        }
        cache.insert(pattern.to_owned(), Rc::clone(&compiled));
    });
    Ok(compiled)
}

/// `glob(pattern, text)`, `pattern.glob(text)`, or `glob(patterns, text)`, which asks whether any matches.
fn glob<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let candidate = text(&args, 1)?;
    let is_match = |pattern: &str| {
        let glob = cached(&GLOBS, ("glob", COMPILE_GLOB), pattern, compile_glob)?;
        glob.pay(candidate)?;
        Ok(glob.matcher.is_match(candidate))
    };
    let matches = match args.first().and_then(|patterns| patterns.downcast_ref::<CelList>()) {
        Some(patterns) => {
            let mut found = false;
            for pattern in patterns.inner() {
                let pattern = pattern.downcast_ref::<CelString>().ok_or_else(|| ExecutionError::UnexpectedType {
                    got: pattern.get_type().name().to_owned(),
                    want: "string".to_owned(),
                })?;
                found |= is_match(pattern.inner())?;
            }
            found
        }
        None => is_match(text(&args, 0)?)?,
    };
    Ok(CowVal::owned(CelBool::from(matches)))
}

/// `text.matches(pattern)`, or `matches(text, pattern)`.
fn matches<'b, 'v>(args: Args<'b, 'v>) -> Answer<'b, 'v> {
    let (candidate, pattern) = (text(&args, 0)?, text(&args, 1)?);
    let regex = cached(&REGEXES, ("matches", COMPILE_REGEX), pattern, compile_regex)?;
    regex.pay(candidate)?;
    Ok(CowVal::owned(CelBool::from(regex.matcher.is_match(candidate))))
}
