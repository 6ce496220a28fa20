//! A laboratory for a protected VM: three hosts as network namespaces, clients whose calls are
//! recorded, and the judgement of what they were answered.
//!
//! The demonstration and the benchmarks use it, the tests of real faults take the same files, and
//! those of pairs the client of PostgreSQL: nothing here knows of the rest of the program.

pub(crate) mod clients;
pub(crate) mod history;
pub(crate) mod hosts;
pub(crate) mod pair;
mod patience;
pub(crate) mod pg;
pub(crate) mod resp;

/// Why something could not be done, in words for a person.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LabError(pub(crate) String);

impl LabError {
    /// Names the thing that an error is about.
    pub(crate) fn of<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self(format!("{what}: {error}"))
    }
}
