//! Whether one copy of an object explains what many have seen of it.
//!
//! A history is linearizable if every call can be thought to happen at one moment between its
//! being asked and its being answered, such that all answers are those of a single copy (Herlihy,
//! Wing: "Linearizability: a correctness condition for concurrent objects", 1990). A call without
//! an answer may have happened at any time after it was asked, or never. A history of several
//! objects is linearizable if that of each is.
//!
//! The search follows the answers in time and keeps every state that the calls so far can have
//! led to, with those of the calls still open that must have happened for it (Lowe: "Testing for
//! linearizability", 2017). Few calls are open at a time, so there are few such states.

use std::collections::BTreeSet;

/// Calls of one object that may be open at a time: one for each client, and those that were never
/// answered.
pub const MAX_OPEN: usize = 64;
/// States that are kept. Unanswered calls double them in the worst case.
const MAX_STATES: usize = 1 << 18;

/// One call. Times are of one clock.
pub trait Call {
    /// The object's value.
    type Value: Copy + Ord;

    /// When it was asked.
    fn asked(&self) -> u64;

    /// When it was answered, if it ever was.
    fn answered(&self) -> Option<u64>;

    /// The value after it, if it can have happened on this one with the answer it got.
    fn happens(&self, value: Self::Value) -> Option<Self::Value>;
}

/// What a history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// One copy explains all answers.
    Linearizable,
    /// None does: the first call in time of answers, by its index, that no order explains.
    Violated(usize),
    /// Too much was open at a time to say.
    Undecided,
}

/// An object's value, and the open calls (by place) that must have happened for it.
type State<V> = (u64, V);
/// The calls that are open, by place.
type Open = [Option<usize>; MAX_OPEN];

/// Judges the history of one object that begins with this value. The calls may be in any order.
pub fn judge<C: Call>(calls: &[C], first: C::Value) -> Verdict {
    // Of what happens at one moment the asking comes first: then more is possible.
    let mut moments: Vec<(u64, bool, usize)> = Vec::new();
    for (at, call) in calls.iter().enumerate() {
        moments.push((call.asked(), false, at));
        if let Some(answered) = call.answered() {
            // One that is answered before it was asked is answered at once.
            moments.push((answered.max(call.asked()), true, at));
        }
    }
    moments.sort_unstable();
    let mut open: Open = [None; MAX_OPEN];
    let mut states = BTreeSet::from([(0, first)]);
    for (_, is_answer, at) in moments {
        let wanted = is_answer.then_some(at);
        let Some(place) = open.iter().position(|call| *call == wanted) else {
            return Verdict::Undecided;
        };
        if !is_answer {
            open[place] = Some(at);
            continue;
        }
        match until_happened(states, place, &open, calls) {
            None => return Verdict::Undecided,
            Some(none) if none.is_empty() => return Verdict::Violated(at),
            Some(left) => states = left,
        }
        open[place] = None;
    }
    Verdict::Linearizable
}

/// All states in which the call at `place` has happened, which is open no more in them; `None` if
/// there are too many.
fn until_happened<C: Call>(
    states: BTreeSet<State<C::Value>>,
    place: usize,
    open: &Open,
    calls: &[C],
) -> Option<BTreeSet<State<C::Value>>> {
    let mut done = BTreeSet::new();
    let mut seen = states.clone();
    let mut left: Vec<State<C::Value>> = states.into_iter().collect();
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
