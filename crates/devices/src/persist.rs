//! Saving and restoring device state.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A device whose every bit can be saved and restored.
///
/// The state type is apart from the live type: it holds plain values in an order that is the same
/// on every node, so that a hash of its encoding is a digest of the device. There are no default
/// methods: a device that keeps no state says so.
pub trait Persist: Sized {
    /// The saved form.
    type State: Serialize + DeserializeOwned + PartialEq + Debug + Clone;

    /// The state as it is now.
    fn save(&self) -> Self::State;

    /// A device in exactly this state, or why the state cannot be one that [`save`](Self::save)
    /// gave.
    fn restore(state: Self::State) -> Result<Self, StateError>;
}

/// Why a saved device state was refused: it came from a damaged or hostile source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A number outside what the device can hold.
    #[error("saved device state: {field} is {value:#x}, expected at most {max:#x}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What was found.
        value: u64,
        /// The greatest value allowed.
        max: u64,
    },
    /// A list of the wrong length.
    #[error("saved device state: {field} has {found} entries, expected {min} to {max}")]
    BadLength {
        /// The field.
        field: &'static str,
        /// What was found.
        found: usize,
        /// The least length allowed.
        min: usize,
        /// The greatest length allowed.
        max: usize,
    },
    /// Fields that contradict each other.
    #[error("saved device state: {what}")]
    Inconsistent {
        /// What does not fit together.
        what: &'static str,
    },
}

/// Refuses a value above `max`.
pub(crate) fn at_most(
    field: &'static str,
    value: impl Into<u64>,
    max: impl Into<u64>,
) -> Result<(), StateError> {
    let (value, max) = (value.into(), max.into());
    if value > max {
        return Err(StateError::OutOfRange { field, value, max });
    }
    Ok(())
}

/// Refuses a length outside `min..=max`.
pub(crate) fn length(
    field: &'static str,
    found: usize,
    min: usize,
    max: usize,
) -> Result<(), StateError> {
    if found < min || found > max {
        return Err(StateError::BadLength {
            field,
            found,
            min,
            max,
        });
    }
    Ok(())
}

/// Refuses a state in which `holds` is false.
pub(crate) fn consistent(holds: bool, what: &'static str) -> Result<(), StateError> {
    if holds {
        Ok(())
    } else {
        Err(StateError::Inconsistent { what })
    }
}
