//! What clients asked and were answered, and whether one register per key explains it.
//!
//! A history is linearizable if every call can be thought to happen at one moment between its
//! being asked and its being answered, such that all answers are those of a single copy (Herlihy,
//! Wing: "Linearizability: a correctness condition for concurrent objects", 1990). A call without
//! an answer may have happened at any time after it was asked, or never. Keys are judged one by
//! one: a history is linearizable if each of its objects' is.
//!
//! The search follows the answers in time and keeps every state that the calls so far can have
//! led to, with those of the calls still open that must have happened for it (Lowe: "Testing for
//! linearizability", 2017). Few calls are open at a time, so there are few such states.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Calls of one key that may be open at a time: one for each client, and one for each connection
/// that was lost in a call.
pub(crate) const MAX_OPEN: usize = 64;
/// States that are kept. Unanswered calls double them in the worst case.
const MAX_STATES: usize = 1 << 18;
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

impl Call {
    /// The state after it, if it can have happened in `state` with the answer it got.
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
    let mut keys: BTreeMap<u16, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        keys.entry(call.key).or_default().push(call);
    }
    for (key, calls) in keys {
        match judge_key(&calls) {
            Ok(()) => {}
            Err(None) => return Verdict::Undecided { key },
            Err(Some(at)) => {
                let answered = |call: &&Call| call.answered.map_or(0, |(at, _)| at);
                let mut told: Vec<Call> = calls
                    .iter()
                    .filter(|call| answered(call) <= answered(&calls[at]))
                    .map(|call| **call)
                    .collect();
                told.sort_by_key(|call| answered(&call));
                let from = told.len().saturating_sub(TOLD);
                let calls = told.split_off(from);
                return Verdict::Violated { key, calls };
            }
        }
    }
    Verdict::Linearizable
}

/// A value, and the open calls (by place) that must have happened for it.
type State = (u64, Option<i64>);

/// The call that no order explains, or none if there were too many states to look at.
fn judge_key(calls: &[&Call]) -> Result<(), Option<usize>> {
    // Of what happens at one moment the asking comes first: then more is possible.
    let mut moments: Vec<(u64, bool, usize)> = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        moments.push((call.asked_ns, false, at));
        if let Some((answered_ns, _)) = call.answered {
            moments.push((answered_ns, true, at));
        }
    }
    moments.sort_unstable();
    let mut open: [Option<usize>; MAX_OPEN] = [None; MAX_OPEN];
    let mut states: BTreeSet<State> = BTreeSet::from([(0, None)]);
    for (_, is_answer, at) in moments {
        if !is_answer {
            let place = open.iter().position(Option::is_none).ok_or(None)?;
            open[place] = Some(at);
            continue;
        }
        let place = open.iter().position(|call| *call == Some(at));
        let place = place.unwrap_or_else(|| unreachable!("it was asked before it was answered"));
        states = until_happened(states, place, &open, calls).ok_or(None)?;
        if states.is_empty() {
            return Err(Some(at));
        }
        open[place] = None;
    }
    Ok(())
}

/// All states in which the call at `place` has happened, which is open no more in them; `None` if
/// there are too many.
fn until_happened(
    states: BTreeSet<State>,
    place: usize,
    open: &[Option<usize>; MAX_OPEN],
    calls: &[&Call],
) -> Option<BTreeSet<State>> {
    let mut done = BTreeSet::new();
    let mut seen = states.clone();
    let mut left: Vec<State> = states.into_iter().collect();
    while let Some((happened, value)) = left.pop() {
        if happened & (1 << place) != 0 {
            done.insert((happened & !(1 << place), value));
            continue;
        }
        for (other, call) in open.iter().enumerate() {
            let Some(at) = *call else { continue };
            if happened & (1 << other) != 0 {
                continue;
            }
            if let Some(value) = calls[at].happens(value) {
                let next = (happened | 1 << other, value);
                if seen.insert(next) {
                    left.push(next);
                }
            }
        }
        if seen.len() > MAX_STATES {
            return None;
        }
    }
    Some(done)
}

#[cfg(test)]
mod tests;
