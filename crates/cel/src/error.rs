//! Why a program did not compile or gave no value, in upstream's words.

use std::fmt;

/// Why an evaluation gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    pub message: String,
    pub kind: EvalErrorKind,
}

/// Errors that a caller treats in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvalErrorKind {
    /// The expression failed: `no such key: x`, `division by zero`.
    Failed,
    /// It cost more than its budget.
    CostLimitExceeded,
}

impl EvalError {
    pub fn new(message: impl Into<String>) -> EvalError {
        EvalError { message: message.into(), kind: EvalErrorKind::Failed }
    }

    pub(crate) fn no_such_overload() -> EvalError {
        EvalError::new("no such overload")
    }

    pub(crate) fn cost_limit() -> EvalError {
        EvalError {
            message: "operation cancelled: actual cost limit exceeded".into(),
            kind: EvalErrorKind::CostLimitExceeded,
        }
    }
}

/// One fault of an expression and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// From 1. Faults of the expression as a whole have line -1.
    pub line: i64,
    /// In characters, from 0.
    pub column: i64,
    pub message: String,
}

/// All faults of an expression. Printed, they are what upstream prints: each with its line and a caret under its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CompileErrors {
    pub issues: Vec<Issue>,
    pub stage: Stage,
    text: String,
}

/// Where an expression failed before it ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is not a well-typed expression.
    Compilation,
    /// It is, but a constant part of it has no value, such as `int('a')`. The error prints as that part's message.
    Instantiation,
}

/// Lines longer than this many bytes are not shown.
const MAX_SNIPPET: usize = 16384;
/// Faults after these are only counted.
const MAX_ISSUES: usize = 100;

impl CompileErrors {
    pub(crate) fn new(mut issues: Vec<Issue>, text: &str) -> CompileErrors {
        issues.sort_by_key(|issue| (issue.line, issue.column));
        CompileErrors { issues, stage: Stage::Compilation, text: text.to_owned() }
    }

    pub(crate) fn instantiation(message: String, text: &str) -> CompileErrors {
        let issues = vec![Issue { line: -1, column: -1, message }];
        CompileErrors { issues, stage: Stage::Instantiation, text: text.to_owned() }
    }
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stage == Stage::Instantiation {
            return self.issues.iter().try_for_each(|issue| f.write_str(&issue.message));
        }
        for (at, issue) in self.issues.iter().take(MAX_ISSUES).enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "ERROR: <input>:{}:{}: {}", issue.line, issue.column + 1, issue.message)?;
            let line = usize::try_from(issue.line - 1).ok();
            let Some(snippet) = line.and_then(|line| self.text.split('\n').nth(line)) else { continue };
            if snippet.len() > MAX_SNIPPET || self.text.is_empty() {
                continue;
            }
            let snippet = snippet.replace('\t', " ");
            let mut marks = String::new();
            let mut chars = snippet.chars();
            for _ in 0..issue.column {
                let Some(c) = chars.next() else { break };
                marks.push(if c.len_utf8() > 1 { '\u{ff0e}' } else { '.' });
            }
            marks.push(if chars.next().is_some_and(|c| c.len_utf8() > 1) { '\u{ff3e}' } else { '^' });
            write!(f, "\n | {snippet}\n | {marks}")?;
        }
        if self.issues.len() > MAX_ISSUES {
            write!(f, "\n{} more errors were truncated", self.issues.len() - MAX_ISSUES)?;
        }
        Ok(())
    }
}
