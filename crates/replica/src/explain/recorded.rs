//! A plain replay against what the recording holds of its digests.

use super::side::{Side, Stop, Tell};
use super::{ExplainError, Explanation, Found, Recorded};
use crate::replay::Divergence;
use twinvm_log::{Body, StateEntry};
use twinvm_machine::{Difference, Machine, MachineState, PAGE_BYTES, RAM_BASE};

/// Bytes of a differing page that are told.
const SHOWN_BYTES: usize = 32;

/// Goes to where a plain replay has diverged, and compares it there with what the recording
/// holds beside its log: `states`, the entries from the first on, as far as they can be read.
///
/// # Errors
/// The recording can't be read.
pub fn explain_recorded<E>(
    recorded: &mut dyn Recorded<Error = E>,
    divergence: &Divergence,
    states: &mut dyn Iterator<Item = StateEntry>,
    tell: Tell<'_>,
) -> Result<Explanation, ExplainError<E>> {
    tell(super::Searching::Pass {
        number: 1,
        from: 0,
        to: divergence.icount,
    });
    let mut side = Side::open(recorded)?;
    let mut hashes: Vec<u64> = side
        .replay
        .machine()
        .page_hashes()
        // All hashes of a restored machine are current.
        .map(|hash| hash.unwrap_or(0) as u64)
        .collect();
    let mut explanation = Explanation {
        found: Found::Recording,
        position: divergence.position,
        icount: divergence.icount,
        slice: None,
        difference: None,
        instructions: Vec::new(),
        notes: Vec::new(),
    };
    match side.trace_up_to(divergence.icount, tell) {
        Ok(instructions) => explanation.instructions = instructions,
        Err(Stop::Error(error)) => return Err(ExplainError::Recording(error)),
        Err(Stop::Diverged(other)) => {
            explanation
                .notes
                .push(format!("replayed again, it stops elsewhere: {other}"));
            return Ok(explanation);
        }
    }
    // Records for the same step that come before it change what is compared.
    let digest = match side.replay.apply_before(divergence.position) {
        Ok(()) => match side.replay.next_record().map(|record| &record.body) {
            Some(Body::Digest { digest }) => *digest,
            _ => {
                let note = "the recording holds the machine's state only at its digests, and this \
                            is none";
                explanation.notes.push(note.to_owned());
                return Ok(explanation);
            }
        },
        Err(other) => {
            explanation
                .notes
                .push(format!("replayed again, it stops elsewhere: {other}"));
            return Ok(explanation);
        }
    };
    for entry in states {
        for (page, hash) in &entry.pages {
            if let Some(known) = hashes.get_mut(*page as usize) {
                *known = *hash;
            }
        }
        if entry.position < divergence.position {
            continue;
        }
        if (entry.position, entry.digest) != (divergence.position, digest) {
            break;
        }
        let machine = side.replay.machine_mut();
        machine.digest();
        let found = state_difference(&entry, machine, &mut explanation.notes);
        explanation.difference = found.or_else(|| page_difference(&hashes, machine));
        if explanation.difference.is_none() {
            let note = "all that the recording holds of this digest is equal here";
            explanation.notes.push(note.to_owned());
        }
        return Ok(explanation);
    }
    let note = "the recording's file of states has nothing of this digest, so what differs can't be \
                named";
    explanation.notes.push(note.to_owned());
    Ok(explanation)
}

fn state_difference(
    entry: &StateEntry,
    machine: &Machine,
    notes: &mut Vec<String>,
) -> Option<Difference> {
    if entry.state.is_empty() {
        notes.push("the state of harts and devices was too long to be kept".to_owned());
        return None;
    }
    match MachineState::decode(&entry.state) {
        Ok(state) => state.first_difference(&machine.state()),
        Err(error) => {
            notes.push(format!("what the recording holds of this digest: {error}"));
            None
        }
    }
}

fn page_difference(recorded: &[u64], machine: &Machine) -> Option<Difference> {
    let own = machine.page_hashes().map(|hash| hash.unwrap_or(0) as u64);
    let (page, theirs, ours) = (0..)
        .zip(recorded.iter().zip(own))
        .find_map(|(page, (theirs, ours))| (*theirs != ours).then_some((page, *theirs, ours)))?;
    let pa = RAM_BASE + page * PAGE_BYTES as u64;
    let bytes = machine.ram(pa, SHOWN_BYTES).unwrap_or_default();
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(Difference {
        item: format!(
            "RAM page {:#x} (physical address {pa:#x})",
            pa / PAGE_BYTES as u64
        ),
        hart: None,
        left: format!("hash {theirs:#018x}"),
        right: format!("hash {ours:#018x}, begins {}", bytes.join(" ")),
    })
}
