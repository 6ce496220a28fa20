//! What can be wrong with a VM.toml, in words for the person who wrote it.

use std::fmt;
use std::path::PathBuf;

/// A problem and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmTomlError {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; `None` if the problem is in none.
    pub line: Option<usize>,
    /// The problem.
    pub problem: Problem,
}

impl fmt::Display for VmTomlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.problem)
    }
}

impl std::error::Error for VmTomlError {}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file can't be read.
    #[error("cannot read the file: {0}")]
    Unreadable(String),
    /// Not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// A key that means nothing here.
    #[error("unknown key \"{key}\"{place}, {hint}")]
    UnknownKey {
        /// The key.
        key: String,
        /// In which table, with " in " before it; empty at the top.
        place: String,
        /// The nearest key, or all of them.
        hint: String,
    },
    /// A key that must be there.
    #[error("{key} is missing{place}")]
    Missing {
        /// The key.
        key: &'static str,
        /// In which table, with " in " before it; empty at the top.
        place: String,
    },
    /// A value of another type.
    #[error("{key} must be {expected}, found {found}")]
    WrongType {
        /// The key.
        key: &'static str,
        /// The type it must have.
        expected: &'static str,
        /// The type it has.
        found: &'static str,
    },
    /// A value of the right type that can't be.
    #[error("{key} = {found}: expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value, as in the file.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// Values that don't go together.
    #[error("{0}")]
    Conflict(String),
}
