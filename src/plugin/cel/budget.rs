//! What one evaluation may cost.
//!
//! CEL has no limit of its own, and a tenant's filter runs in the process that serves everyone. So each expression is
//! rewritten once, after it was checked: whatever can be copied, compared or searched passes through [`CHARGE`], and
//! whatever is iterated passes through [`LOOP`]. Both give their argument back and take its weight off the budget.

use super::value::pay;
use cel::ExecutionError;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelInt, CelList, CelMap};
use cel::common::value::CowVal;
use std::cell::Cell;

/// Work that one evaluation may do; a unit is roughly one value copied, compared or visited. The weights are such that no
/// expression takes 50 ms; `cargo bench --bench ingress -- expressions` measures it.
pub(crate) const LIMIT: u64 = 750_000;
/// The same where a sender waits for it, whom nothing may have proven yet; a few milliseconds.
pub(crate) const LIMIT_WHILE_WAITING: u64 = 100_000;
/// What an evaluation costs besides the work that it does; counted for [`work_done`] alone.
const EVALUATION: u64 = 50;
/// What one iteration costs besides its body.
const ITERATION: u64 = 4;
/// What the call of a function in the body of a loop costs, besides its arguments and what the function itself takes.
const FUNCTION: u64 = 5;

// No source can name them, because `@` is not part of the language.
pub(super) const CHARGE: &str = "@charge";
pub(super) const LOOP: &str = "@loop";
pub(super) const MATCHES: &str = "@matches";
pub(super) const GO_ON: &str = "@go_on";

thread_local! {
    static MOST: Cell<u64> = const { Cell::new(LIMIT) };
    static LEFT: Cell<u64> = const { Cell::new(LIMIT) };
    static SPENT: Cell<bool> = const { Cell::new(false) };
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// Starts the budget of one evaluation on this thread.
pub(super) fn start() {
    LEFT.set(MOST.get());
    SPENT.set(false);
}

/// What an evaluation may do on this thread.
pub(super) fn most() -> u64 {
    MOST.get()
}

/// Does something in which each evaluation may do no more than [`LIMIT_WHILE_WAITING`].
pub(crate) fn sparing<T>(work: impl FnOnce() -> T) -> T {
    /// Sets it back, also after a panic: other requests are answered on this thread.
    struct Before(u64);
    impl Drop for Before {
        fn drop(&mut self) {
            MOST.set(self.0);
        }
    }
    let _before = Before(MOST.replace(LIMIT_WHILE_WAITING));
    work()
}

/// Whether the evaluation wanted more than there was. `exists` and `||` can absorb the error, so it is asked at the end.
pub(super) fn is_spent() -> bool {
    SPENT.get()
}

/// What the evaluation has used.
pub(super) fn spent() -> u64 {
    MOST.get().saturating_sub(LEFT.get())
}

/// Ends an evaluation: what it has used counts as work of this thread.
pub(super) fn end() {
    DONE.set(DONE.get().wrapping_add(EVALUATION + spent()));
}

/// Work of all evaluations on this thread so far. Only differences mean something.
pub(crate) fn work_done() -> u64 {
    DONE.get()
}

/// What is left of the budget.
pub(super) fn left() -> u64 {
    LEFT.get()
}

/// Takes `cost` off the budget.
pub(super) fn take(cost: u64) -> Result<(), ExecutionError> {
    settle(LEFT.get().checked_sub(cost))
}

fn settle(left: Option<u64>) -> Result<(), ExecutionError> {
    // Once it is spent, it stays so: what absorbed the error must not go on with small things.
    match left.filter(|_| !SPENT.get()) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => {
            LEFT.set(0);
            SPENT.set(true);
            Err(ExecutionError::function_error("budget", "too much work"))
        }
    }
}

/// `@charge(value)`: the value, paid for.
pub(super) fn charge<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.pop().ok_or_else(|| ExecutionError::invalid_argument_count(1, 0))?;
    settle(pay(value.as_ref(), LEFT.get()))?;
    Ok(value)
}

/// `@go_on(value)`: the value, as long as anything is left. It costs nothing.
pub(super) fn go_on_with<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    take(0)?;
    args.pop().ok_or_else(|| ExecutionError::invalid_argument_count(1, 0))
}

/// `@loop(range, cost of the body)`: the range, with its iterations paid for.
pub(super) fn loop_over<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let body = args.pop().and_then(|cost| cost.downcast_ref::<CelInt>().map(|cost| *cost.inner())).unwrap_or(1);
    let range = args.pop().ok_or_else(|| ExecutionError::invalid_argument_count(2, 1))?;
    let count = if let Some(items) = range.downcast_ref::<CelList>() {
        items.inner().len()
    } else if let Some(fields) = range.downcast_ref::<CelMap>() {
        fields.inner().len()
    } else {
        0
    };
    take((count as u64).saturating_mul(body.unsigned_abs().saturating_add(ITERATION)))?;
    settle(pay(range.as_ref(), LEFT.get()))?;
    Ok(range)
}

/// Rewrites a checked expression so that it pays for what it does.
pub(super) fn meter(expr: &mut IdedExpr) {
    match &mut expr.expr {
        Expr::Call(call) => {
            let lazy = matches!(
                call.func_name.as_str(),
                operators::CONDITIONAL
                    | operators::LOGICAL_AND
                    | operators::LOGICAL_OR
                    | operators::LOGICAL_NOT
                    | operators::NOT_STRICTLY_FALSE
                    | operators::INDEX
                    | operators::OPT_INDEX
                    | operators::OPT_SELECT
            );
            if call.func_name == "matches" {
                call.func_name = MATCHES.to_owned();
            }
            let qualified = super::check::is_qualified(call);
            if let Some(target) = &mut call.target
                && !qualified
            {
                meter(target);
                wrap(target);
            }
            // `map` and `filter` append to their result: the interpreter does it in place, as long as it recognises the
            // expression. What is appended is paid for in its list.
            let appends = call.func_name == operators::ADD && call.args.first().is_some_and(is_accumulator);
            for arg in &mut call.args {
                meter(arg);
                if !lazy && !appends {
                    wrap(arg);
                }
            }
            if matches!(call.func_name.as_str(), operators::OPT_INDEX | operators::OPT_SELECT)
                && let Some(from) = call.args.first_mut()
            {
                go_on(from);
            }
            // Optional selection copies what it selects.
            if matches!(call.func_name.as_str(), operators::OPT_INDEX | operators::OPT_SELECT) {
                wrap(expr);
            }
        }
        Expr::Comprehension(comprehension) => {
            let body = nodes(&comprehension.loop_step).saturating_add(nodes(&comprehension.loop_cond));
            meter(&mut comprehension.iter_range);
            let range = std::mem::take(&mut comprehension.iter_range);
            let cost = IdedExpr {
                id: range.id,
                expr: Expr::Literal(LiteralValue::Int(CelInt::from(i64::try_from(body).unwrap_or(i64::MAX)))),
            };
            comprehension.iter_range = call_of(LOOP, vec![range, cost]);
            meter(&mut comprehension.accu_init);
            meter(&mut comprehension.loop_step);
            meter(&mut comprehension.result);
            // `all` and `exists` go on after an error. `map` and `filter` do not, and their condition has to stay a literal.
            if !matches!(comprehension.loop_cond.expr, Expr::Literal(_)) {
                go_on(&mut comprehension.loop_cond);
            }
        }
        Expr::List(list) => {
            for element in &mut list.elements {
                meter(element);
                wrap(element);
            }
        }
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    meter(&mut entry.key);
                    meter(&mut entry.value);
                    wrap(&mut entry.value);
                }
            }
        }
        Expr::Select(select) => meter(&mut select.operand),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn wrap(expr: &mut IdedExpr) {
    let free = match &expr.expr {
        Expr::Literal(_) => true,
        // The interpreter recognises it by its place in the expression.
        Expr::Ident(_) => is_accumulator(expr),
        Expr::Call(call) => call.func_name == CHARGE,
        _ => false,
    };
    if !free {
        let inner = std::mem::take(expr);
        *expr = call_of(CHARGE, vec![inner]);
    }
}

/// Whether this is the accumulator of a comprehension.
fn is_accumulator(expr: &IdedExpr) -> bool {
    matches!(&expr.expr, Expr::Ident(name) if name.starts_with('@'))
}

/// Lets an expression fail once nothing is left, before somebody does something with it that costs.
fn go_on(expr: &mut IdedExpr) {
    let inner = std::mem::take(expr);
    *expr = call_of(GO_ON, vec![inner]);
}

fn call_of(function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    let id = args.first().map_or(0, |arg| arg.id);
    IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) }
}

/// Number of nodes of an expression.
fn nodes(expr: &IdedExpr) -> u64 {
    1 + match &expr.expr {
        Expr::Call(call) if !call.func_name.starts_with(['_', '@', '!', '-']) => {
            let args = call.args.iter().map(nodes);
            FUNCTION + call.target.iter().map(|t| nodes(t)).chain(args).sum::<u64>()
        }
        Expr::Call(call) => call.target.iter().map(|t| nodes(t)).chain(call.args.iter().map(nodes)).sum(),
        // An inner loop pays for its iterations itself.
        Expr::Comprehension(comprehension) => nodes(&comprehension.iter_range),
        Expr::List(list) => list.elements.iter().map(nodes).sum(),
        Expr::Map(map) => map
            .entries
            .iter()
            .map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => nodes(&entry.key) + nodes(&entry.value),
                EntryExpr::StructField(field) => nodes(&field.value),
            })
            .sum(),
        Expr::Select(select) => nodes(&select.operand),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    }
}
