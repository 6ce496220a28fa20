//! The output gate: outputs wait here, in order, for the ack of their own `Output` record.

use std::collections::VecDeque;

use crate::record::Position;

/// Outputs the gate holds before the live node's execution must wait: at 30 µs per slice
/// and an ack well under a millisecond, thousands mean that the backup is not keeping up.
pub const GATE_MAX_ITEMS: usize = 8192;
/// Bytes it holds before execution must wait.
pub const GATE_MAX_BYTES: usize = 32 << 20;

/// How far the gate is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// Nothing leaves.
    Nothing,
    /// Outputs at or below this position leave.
    UpTo(Position),
    /// Everything leaves.
    Everything,
}

/// A first-in first-out queue of outputs, each with the position of its own record.
///
/// The queue is bounded by asking, not by refusing: when [`Gate::full`] says so, execution
/// waits. What one more step still makes is taken all the same: nothing is dropped here.
#[derive(Clone, Debug)]
pub struct Gate<T> {
    items: VecDeque<(Position, usize, T)>,
    bytes: usize,
    last_pushed: Position,
    released: Position,
}

impl<T> Default for Gate<T> {
    fn default() -> Self {
        Self::new(Position(0))
    }
}

/// An output was handed over with a lower position than one before it: a fault of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("output at position {position} comes after one at {last}")]
pub struct OutOfOrder {
    /// The output's position.
    pub position: Position,
    /// The highest position before it.
    pub last: Position,
}

impl<T> Gate<T> {
    /// An empty gate; everything at or below `released` has left already.
    pub fn new(released: Position) -> Self {
        Self {
            items: VecDeque::new(),
            bytes: 0,
            last_pushed: released,
            released,
        }
    }

    /// Takes an output of `bytes` bytes whose record ends at `position`. It leaves through
    /// [`Gate::pop`].
    pub fn push(&mut self, position: Position, bytes: usize, item: T) -> Result<(), OutOfOrder> {
        if position < self.last_pushed {
            return Err(OutOfOrder {
                position,
                last: self.last_pushed,
            });
        }
        self.last_pushed = position;
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.push_back((position, bytes, item));
        Ok(())
    }

    /// The oldest output, if `permit` lets it go.
    pub fn pop(&mut self, permit: Permit) -> Option<(Position, T)> {
        let first = self.items.front()?.0;
        let open = match permit {
            Permit::Nothing => false,
            Permit::UpTo(position) => first <= position,
            Permit::Everything => true,
        };
        if !open {
            return None;
        }
        let (position, bytes, item) = self.items.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.released = self.released.max(position);
        Some((position, item))
    }

    /// The highest position that has left (or was dropped as proven, on a backup).
    pub fn released(&self) -> Position {
        self.released
    }

    /// Raises [`Gate::released`] for outputs that will never be pushed because the other
    /// side has sent them already.
    pub fn raise_released(&mut self, position: Position) {
        self.released = self.released.max(position);
    }

    /// Outputs waiting.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The position of the oldest output that waits.
    pub fn first(&self) -> Option<Position> {
        self.items.front().map(|item| item.0)
    }

    /// Whether execution must wait until something has left.
    pub fn full(&self) -> bool {
        self.items.len() >= GATE_MAX_ITEMS || self.bytes >= GATE_MAX_BYTES
    }
}

#[cfg(test)]
mod tests;
