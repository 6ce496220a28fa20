//! What clients asked and were answered, and whether one register per key explains it.
//!
//! `twinvm_linear` says what that means and how it is found out. Keys are judged one by one.

use std::collections::BTreeMap;
use std::fmt;

use twinvm_linear as linear;

/// Calls before the one in question that are told.
const TOLD: usize = 12;

/// What is asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Its value.
    Get,
    /// It becomes this.
    Set(i64),
    /// It becomes one more; none counts as 0.
    Incr,
    /// It becomes the second if it is the first.
    Swap(i64, i64),
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To `Get`.
    Value(Option<i64>),
    /// To `Set`.
    Done,
    /// To `Incr`: the new value.
    Number(i64),
    /// To `Swap`: whether it was the first value.
    Swapped(bool),
}

/// One call. Times are nanoseconds of one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) client: u16,
    pub(crate) key: u16,
    pub(crate) ask: Ask,
    pub(crate) asked_ns: u64,
    /// When, and what; none if it never was.
    pub(crate) answered: Option<(u64, Answer)>,
}

impl linear::Call for Call {
    type Value = Option<i64>;

    fn asked(&self) -> u64 {
        self.asked_ns
    }

    fn answered(&self) -> Option<u64> {
        self.answered.map(|(at, _)| at)
    }

    fn happens(&self, state: Option<i64>) -> Option<Option<i64>> {
        let (next, answer) = match self.ask {
            Ask::Get => (state, Answer::Value(state)),
            Ask::Set(value) => (Some(value), Answer::Done),
            Ask::Incr => {
                let next = state.unwrap_or(0).checked_add(1)?;
                (Some(next), Answer::Number(next))
            }
            Ask::Swap(from, to) => match state == Some(from) {
                true => (Some(to), Answer::Swapped(true)),
                false => (state, Answer::Swapped(false)),
            },
        };
        let right = self.answered.is_none_or(|(_, got)| got == answer);
        right.then_some(next)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |ns: u64| ns / 1000;
        write!(f, "client {} at {} us: ", self.client, us(self.asked_ns))?;
        match self.ask {
            Ask::Get => write!(f, "GET")?,
            Ask::Set(value) => write!(f, "SET {value}")?,
            Ask::Incr => write!(f, "INCR")?,
            Ask::Swap(from, to) => write!(f, "{from} -> {to}")?,
        }
        match self.answered {
            None => write!(f, ", never answered"),
            Some((at, Answer::Value(None))) => write!(f, " = nothing, at {} us", us(at)),
            Some((at, Answer::Value(Some(value)))) => write!(f, " = {value}, at {} us", us(at)),
            Some((at, Answer::Done)) => write!(f, " = OK, at {} us", us(at)),
            Some((at, Answer::Number(value))) => write!(f, " = {value}, at {} us", us(at)),
            Some((at, Answer::Swapped(yes))) => write!(f, " = {yes}, at {} us", us(at)),
        }
    }
}

/// What a history is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One copy explains all answers.
    Linearizable,
    /// None does: the key, and the calls up to the first that no order explains.
    Violated { key: u16, calls: Vec<Call> },
    /// Too much was open at a time to say.
    Undecided { key: u16 },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => write!(f, "linearizable"),
            Self::Undecided { key } => write!(f, "key {key}: too many unanswered calls to say"),
            Self::Violated { key, calls } => {
                write!(f, "key {key}: no order explains the last of these:")?;
                calls.iter().try_for_each(|call| write!(f, "\n    {call}"))
            }
        }
    }
}

/// Judges a history whose keys all begin with no value.
pub(crate) fn judge(calls: &[Call]) -> Verdict {
    let mut keys: BTreeMap<u16, Vec<Call>> = BTreeMap::new();
    for call in calls {
        keys.entry(call.key).or_default().push(*call);
    }
    for (key, calls) in keys {
        match linear::judge(&calls, None) {
            linear::Verdict::Linearizable => {}
            linear::Verdict::Undecided => return Verdict::Undecided { key },
            linear::Verdict::Violated(at) => {
                let answered = |call: &Call| call.answered.map_or(0, |(at, _)| at);
                let last = answered(&calls[at]);
                let mut told = calls;
                told.retain(|call| answered(call) <= last);
                told.sort_by_key(answered);
                let from = told.len().saturating_sub(TOLD);
                let calls = told.split_off(from);
                return Verdict::Violated { key, calls };
            }
        }
    }
    Verdict::Linearizable
}

#[cfg(test)]
mod tests;
