//! The condition of a check: a yes/no expression in CEL, read once, with bounds on what evaluating it may take.
//!
//! The interpreter has no budget of its own, and conditions are written by whoever may write a Rollout. So a text is
//! short and not nested deeply; only functions that do not multiply their input are known; no macro makes new
//! values; few values are added up; and every turn of a loop takes one of a fixed number of steps. Then the values that
//! occur are no larger than some times the input, and the time is bounded by the steps. That makes evaluation fit for
//! the pure part: the same input gives the same answer, and none takes long.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kube::core::cel::cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr};
use kube::core::cel::cel::objects::{Key, Map};
use kube::core::cel::cel::parser::Parser;
use kube::core::cel::cel::{Context, ExecutionError, Value as CelValue};
use serde_json::Value;

/// Bytes of a condition.
pub const LONGEST: usize = 1024;
/// Values that the input of an evaluation may have, all levels together.
pub const MOST_VALUES: usize = 2000;
/// Brackets within brackets. Reading takes up to 200 kB of stack for each when nothing is optimised, and a thread has 2 MiB.
const DEEPEST: u16 = 8;
/// Levels of the tree that a condition is read into: evaluating takes up to 20 kB of stack for each.
const MOST_LEVELS: usize = 32;
/// Words and signs of one condition: each may make that tree one level deeper, and reading takes stack, too.
const MOST_WORDS: usize = 250;
/// Turns of all loops of one evaluation together.
const STEPS: u32 = 10_000;
/// Operators `+` of one condition; `filter` and `exists_one` have one each.
const MOST_ADDITIONS: usize = 10;
/// The function that takes a step.
const STEP: &str = "@step";
const FUNCTIONS: [&str; 11] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "int",
    "uint",
    "double",
    "string",
    "min",
    "max",
];

/// A condition that can be evaluated.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    expression: Arc<IdedExpr>,
}

/// Why a condition cannot be used.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{problem}{}", at.map(|at| format!(" at character {} of {text:?}", at + 1)).unwrap_or_default())]
pub struct ConditionError {
    /// What was written.
    pub text: String,
    /// Where reading stopped, if it did: characters before that place.
    pub at: Option<usize>,
    /// What is wrong.
    pub problem: String,
}

impl ConditionError {
    /// What was written, and below it a mark at the place, where there is one.
    pub fn caret(&self) -> String {
        // A mark fits below one line only.
        match self.at.filter(|_| !self.text.contains('\n')) {
            Some(at) => format!("{}\n{}^ {}", self.text, " ".repeat(at), self.problem),
            None => self.problem.clone(),
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// Reads a condition over variables of these names.
    pub fn read(text: &str, variables: &[&str]) -> Result<Self, ConditionError> {
        let fail = |at, problem: String| ConditionError { text: text.to_owned(), at, problem };
        if text.len() > LONGEST {
            let text = text.chars().take(40).collect();
            let problem = format!("longer than {LONGEST} bytes");
            return Err(ConditionError { text, at: None, problem });
        }
        if let Some(at) = too_deep(text) {
            return Err(fail(
                Some(at),
                format!("nested deeper than {DEEPEST} brackets, or longer than {MOST_WORDS} words and signs"),
            ));
        }
        // The parser is somebody else's, and its input anybody's.
        let parsed = catch_unwind(|| Parser::new().max_recursion_depth(DEEPEST).parse(text));
        let mut expression = match parsed {
            Ok(Ok(expression)) => expression,
            Ok(Err(errors)) => {
                let first = errors.errors.first();
                let at = first.and_then(|error| place(text, error.pos));
                let problem = first.map_or("cannot be read", |error| error.msg.as_str());
                let problem = problem.lines().next().unwrap_or_default().chars().take(200).collect();
                return Err(fail(at, problem));
            }
            Err(_) => return Err(fail(None, "cannot be read".to_owned())),
        };
        let mut bounds = Bounds {
            names: variables.iter().map(|&name| name.to_owned()).collect(),
            additions: 0,
            levels: 0,
        };
        bounds.check(&mut expression).map_err(|problem| fail(None, problem))?;
        Ok(Self { text: text.to_owned(), expression: Arc::new(expression) })
    }

    /// Whether it holds; or why that cannot be told. `variables` are all of those it was read with, as JSON; one that is
    /// left out is not known.
    pub fn holds(&self, variables: &[(&str, &Value)]) -> Result<bool, String> {
        let mut left = MOST_VALUES;
        let mut context = Context::default();
        for (name, value) in variables {
            let value = value_of(value, &mut left)
                .ok_or_else(|| format!("{name} has more than {MOST_VALUES} values"))?;
            context.add_variable_from_value(*name, value);
        }
        let steps = Arc::new(AtomicU32::new(STEPS));
        let taken = steps.clone();
        context.add_function(STEP, move || -> Result<bool, ExecutionError> {
            let took = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            took.map(|_| true).map_err(|_| ExecutionError::function_error(STEP, "no more steps"))
        });
        let said = catch_unwind(AssertUnwindSafe(|| CelValue::resolve(&self.expression, &context)));
        if steps.load(Ordering::Relaxed) == 0 {
            return Err(format!("its loops took more than {STEPS} turns"));
        }
        match said {
            Ok(Ok(CelValue::Bool(holds))) => Ok(holds),
            Ok(Ok(_)) => Err("it is neither true nor false".to_owned()),
            Ok(Err(error)) => Err(in_words(&error)),
            Err(_) => Err("it cannot be evaluated".to_owned()),
        }
    }
}

/// Never with the values themselves: they may be anything that somebody answered.
fn in_words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no {key:.60}"),
        ExecutionError::UndeclaredReference(name) => format!("{name:.60} is not known"),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "a list is shorter than that".to_owned(),
        ExecutionError::FunctionError { function, .. } => format!("{function} cannot be done with that"),
        _ => "types do not go together".to_owned(),
    }
}

/// Characters before the place that the parser names, lines and columns from 1.
fn place(text: &str, (line, column): (isize, isize)) -> Option<usize> {
    let (line, column) = (usize::try_from(line - 1).ok()?, usize::try_from(column - 1).ok()?);
    let before: usize = text.split_inclusive('\n').take(line).map(|line| line.chars().count()).sum();
    Some((before + column).min(text.chars().count()))
}

/// Where a text is so long or nested so deeply that reading it would need a large stack. What is in a string counts,
/// too: such strings are rare.
fn too_deep(text: &str) -> Option<usize> {
    let (mut open, mut words, mut in_word) = (0_u16, 0, false);
    text.chars().position(|c| {
        match c {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        let (before, sign) = (in_word, !(c.is_alphanumeric() || c.is_whitespace() || c == '_'));
        in_word = !sign && !c.is_whitespace();
        words += usize::from(sign || in_word && !before);
        open > DEEPEST || words > MOST_WORDS
    })
}

/// What an expression may have, checked from the outside inwards.
struct Bounds {
    names: Vec<String>,
    additions: usize,
    levels: usize,
}

impl Bounds {
    fn check(&mut self, expression: &mut IdedExpr) -> Result<(), String> {
        self.levels += 1;
        if self.levels > MOST_LEVELS {
            return Err(format!(
                "more than {MOST_LEVELS} operators in a row or in each other; use brackets to part them"
            ));
        }
        let checked = self.inside(expression);
        self.levels -= 1;
        checked
    }

    fn inside(&mut self, expression: &mut IdedExpr) -> Result<(), String> {
        match &mut expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) if self.names.contains(name) => Ok(()),
            Expr::Ident(name) => Err(format!("{name} is not known here; there are {}", self.known())),
            Expr::Select(select) => self.check(&mut select.operand),
            Expr::List(list) => list.elements.iter_mut().try_for_each(|element| self.check(element)),
            Expr::Map(map) => map.entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.check(&mut entry.key)?;
                    self.check(&mut entry.value)
                }
                EntryExpr::StructField(_) => Err("messages cannot be made here".to_owned()),
            }),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(_) | Expr::Unspecified => Err("messages cannot be made here".to_owned()),
        }
    }

    fn known(&self) -> String {
        let names = self.names.iter().filter(|name| !name.starts_with('@'));
        names.map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    fn call(&mut self, call: &mut CallExpr) -> Result<(), String> {
        let name = call.func_name.as_str();
        // Operators have names that nobody can write: `_+_`, `!_`, `@in`.
        let operator = name.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
        if !operator && !FUNCTIONS.contains(&name) {
            return Err(format!("{name} is no function here; there are {}", FUNCTIONS.join(", ")));
        }
        if name == "_+_" {
            self.additions += 1;
            if self.additions > MOST_ADDITIONS {
                return Err(format!("more than {MOST_ADDITIONS} additions"));
            }
        }
        if let Some(target) = &mut call.target {
            self.check(target)?;
        }
        call.args.iter_mut().try_for_each(|argument| self.check(argument))
    }

    /// The macros are loops; `map` is the one that makes new values, which could grow without end.
    fn comprehension(&mut self, comprehension: &mut ComprehensionExpr) -> Result<(), String> {
        self.check(&mut comprehension.iter_range)?;
        let inner = [comprehension.iter_var.clone(), comprehension.accu_var.clone()];
        if makes_values(comprehension) {
            return Err("map is not supported; use all, exists, exists_one or filter".to_owned());
        }
        let names = self.names.len();
        self.names.extend(inner);
        self.check(&mut comprehension.loop_step)?;
        self.check(&mut comprehension.loop_cond)?;
        self.check(&mut comprehension.result)?;
        self.names.truncate(names);
        let condition = std::mem::take(&mut comprehension.loop_cond);
        let step = call(STEP, Vec::new());
        comprehension.loop_cond = call("_&&_", vec![step, condition]);
        Ok(())
    }
}

fn call(name: &str, args: Vec<IdedExpr>) -> IdedExpr {
    let call = CallExpr { func_name: name.to_owned(), target: None, args };
    IdedExpr { id: 0, expr: Expr::Call(call) }
}

/// Whether a loop collects anything but the elements it goes over: `filter` does `test ? list + [element] : list`.
fn makes_values(comprehension: &ComprehensionExpr) -> bool {
    if !matches!(comprehension.accu_init.expr, Expr::List(_) | Expr::Map(_)) {
        return false;
    }
    let Expr::Call(CallExpr { func_name, args, .. }) = &comprehension.loop_step.expr else { return true };
    let ("_?_:_", [_, IdedExpr { expr: Expr::Call(add), .. }, _]) = (func_name.as_str(), args.as_slice())
    else {
        return true;
    };
    let itself =
        |element: &IdedExpr| matches!(&element.expr, Expr::Ident(name) if *name == comprehension.iter_var);
    !add.args.iter().any(|added| matches!(&added.expr, Expr::List(list) if list.elements.iter().all(itself)))
}

fn value_of(value: &Value, left: &mut usize) -> Option<CelValue> {
    *left = left.checked_sub(1)?;
    Some(match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => CelValue::Int(whole),
            (None, Some(whole)) => CelValue::UInt(whole),
            (None, None) => CelValue::Float(number.as_f64()?),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => {
            let items: Option<Vec<CelValue>> = items.iter().map(|item| value_of(item, left)).collect();
            CelValue::List(Arc::new(items?))
        }
        Value::Object(fields) => {
            let field = |(key, value): (&String, &Value)| {
                Some((Key::String(Arc::new(key.clone())), value_of(value, left)?))
            };
            let map: Option<HashMap<Key, CelValue>> = fields.iter().map(field).collect();
            CelValue::Map(Map { map: Arc::new(map?) })
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Condition, ConditionError> {
        Condition::read(text, &["status", "result"])
    }

    fn holds(text: &str, status: u16, result: &Value) -> Result<bool, String> {
        read(text).unwrap().holds(&[("status", &json!(status)), ("result", result)])
    }

    #[test]
    fn conditions_hold_or_not() {
        let result = json!({
            "ready": true, "count": 3, "rate": 0.5, "whole": 2.0, "name": "web-7", "x-y": 1,
            "pods": [{"ok": true, "tags": ["a"]}, {"ok": true, "tags": []}],
        });
        for (text, expected) in [
            ("status == 200", true),
            ("status >= 200 && status < 300 && result.ready", true),
            ("status in [200, 204]", true),
            ("result.count > 3", false),
            ("result.count >= 2.5", true),
            ("result.rate < 1", true),
            ("result.whole == 2.0 && result.whole < 3", true),
            ("result[\"x-y\"] == 1", true),
            ("has(result.gone)", false),
            ("result.name.startsWith('web-') && result.name.matches('^web-[0-9]$')", true),
            ("size(result.pods) == 2 && result.pods.all(p, p.ok)", true),
            ("result.pods.exists(p, p.tags.exists(t, t == 'b'))", false),
            ("result.pods.filter(p, size(p.tags) == 0).size() == 1", true),
            ("result.pods.exists_one(p, 'a' in p.tags)", true),
            ("result.ready ? status == 200 : status == 503", true),
        ] {
            assert_eq!(holds(text, 200, &result), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_neither() {
        let result = json!({"secret": "hunter2", "list": [1], "zero": 0});
        for (text, said) in [
            ("result.gone.deeper == 1", "there is no gone"),
            ("result.secret > 1", "types do not go together"),
            ("result.secret", "it is neither true nor false"),
            ("1 / result.zero == 1", "it divides by zero"),
            ("result.list[5] == 1", "a list is shorter than that"),
            ("int(result.secret) == 1", "cannot be done with that"),
        ] {
            let why = holds(text, 200, &result).unwrap_err();
            assert!(why.contains(said) && !why.contains("hunter2"), "{text}: {why}");
        }
        let many = json!((0..MOST_VALUES).collect::<Vec<_>>());
        assert!(holds("result.size() > 1", 200, &many).unwrap_err().contains("more than 2000 values"));
        let unknown = read("has(result.x)").unwrap().holds(&[]);
        assert_eq!(unknown, Err("result is not known".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_marked() {
        for (text, said) in [
            ("status = 200", "^ Syntax error"),
            ("status == ", "^ Syntax error"),
            ("stauts == 200", "stauts is not known here; there are status, result"),
            ("result.map(x, x + x).size() > 1", "map is not supported"),
            ("result.map(x, true, x + x).size() > 1", "map is not supported"),
            ("result.reverse() == 1", "reverse is no function here"),
            ("a.b.C{x: 1} == 1", "messages cannot be made here"),
            ("1+1+1+1+1+1+1+1+1+1+1+1 > 1", "more than 10 additions"),
            (&"x".repeat(1025), "longer than 1024 bytes"),
            ("", "Syntax error"),
            ("all(1)", "all is no function here"),
            ("result.all(x)", "all is no function here"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.caret().contains(said), "{text}: {}", error.caret());
        }
        assert_eq!(read("status = 200").unwrap_err().at, Some(7));
    }

    /// The operator's threads have 2 MiB.
    #[test]
    fn no_text_takes_the_stack_or_the_time() {
        let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        let texts = [
            nested("(", ")", 500),
            nested("[", "]", 500),
            nested("{1:", "}", 200),
            nested("!", "", 1000),
            nested("-", "", 1000),
            nested("- ", "", 500),
            nested("size(", ")", 150),
            nested("true ? 1 : ", "", 90),
            nested("", ".a", 500),
            nested("", "[0]", 300),
            nested("", "-1", 500),
            nested("true || ", "", 120),
            nested("", " in 1", 200),
            nested("", " in 1", 124),
            nested("", "-1", 124),
            nested("", ".a", 124),
            nested("", "[0]", 82),
            nested("!", "", 249),
            nested("true || ", "", 82),
            nested("(", ")", usize::from(DEEPEST)),
            nested("[", "]", usize::from(DEEPEST)),
            nested("{1:", "}", usize::from(DEEPEST)),
            nested("size(", ")", usize::from(DEEPEST)),
            nested("1+(", ")", usize::from(DEEPEST)),
            nested("result.all(x, ", ")", usize::from(DEEPEST)),
            nested("true ? (", "): 1", usize::from(DEEPEST)),
            format!("{}{}", "!".repeat(99), "(".repeat(usize::from(DEEPEST))),
            "(".repeat(usize::from(DEEPEST)),
            nested("result.all(x, ", ")", 60),
            "'".repeat(1024),
            "\u{10ffff}".repeat(256),
        ];
        let small = std::thread::Builder::new().stack_size(2 << 20);
        let read_all = move || {
            for text in texts {
                if let Ok(condition) = read(&text) {
                    drop(condition.holds(&[("result", &json!([[0], 1]))]));
                }
            }
        };
        small.spawn(read_all).unwrap().join().unwrap();
    }

    #[test]
    fn loops_have_so_many_turns_and_no_more() {
        let many = json!((0..1000).collect::<Vec<_>>());
        let text = "result.all(a, result.all(b, result.all(c, a + b + c >= 0)))";
        assert_eq!(holds(text, 200, &many), Err("its loops took more than 10000 turns".to_owned()));
        assert_eq!(holds("result.all(a, a >= 0)", 200, &many), Ok(true));
    }
}
