//! A disturbed replay beside a plain one.
//!
//! Looking changes nothing: the disturbed side is run as it was, in the same slices, and compared
//! at their ends without a digest or any other call that touches its engine. Each pass replays
//! from the beginning and looks more closely into the window that the pass before has left, until
//! it is a single slice; and that is cut into steps.

use super::side::{Side, Stop, Tell};
use super::{ExplainError, Explanation, Found, Recorded, Searching};
use crate::perturb::Perturbation;
use crate::replay::{Divergence, ReplayExit};
use twinvm_machine::{Difference, first_difference};

/// Whole comparisons in one pass. With 256 MiB one costs 50 ms.
const COMPARISONS: u64 = 64;
/// Whole comparisons among the steps of one slice: quicker, most pages are known to be equal.
const STEP_COMPARISONS: u64 = 1024;
/// Each pass but the first leaves a 64th of its window; a run has far fewer than 2^60 slices.
const MAX_PASSES: u32 = 12;
/// Slices between two words to whoever waits.
const TELL_SLICES: u64 = 256;

/// Finds where a replay that [`Perturbation`] disturbs parts from one that nothing disturbs.
/// `perturbation` makes the disturbance anew for each pass, as it was; `until` is the step at
/// which the replay was to stop, `u64::MAX` if none; `divergence` is what it has found.
///
/// # Errors
/// The recording can't be read, or the plain replay diverges too.
pub fn explain_disturbed<E>(
    recorded: &mut dyn Recorded<Error = E>,
    perturbation: &mut dyn FnMut(&twinvm_machine::Machine) -> Perturbation,
    until: u64,
    divergence: &Divergence,
    tell: Tell<'_>,
) -> Result<Explanation, ExplainError<E>> {
    let mut search = Search {
        recorded,
        perturbation,
        until,
        tell,
        passes: 0,
    };
    let mut window = Window {
        lo: 0,
        hi: None,
        from: 0,
        to: divergence.icount,
        difference: None,
    };
    loop {
        let single = window.hi.is_some_and(|hi| hi - window.lo <= 1);
        if single {
            return search.inside(&window, divergence);
        }
        if search.passes >= MAX_PASSES || !search.narrow(&mut window)? {
            return Ok(vanished(divergence));
        }
    }
}

fn vanished(divergence: &Divergence) -> Explanation {
    Explanation {
        found: Found::Vanished,
        position: divergence.position,
        icount: divergence.icount,
        slice: None,
        difference: None,
        instructions: Vec::new(),
        notes: vec![
            "replayed again with the same seed, it doesn't diverge: the replay depends on something \
             outside of it"
                .to_owned(),
        ],
    }
}

/// What is known: after `lo` slices the machines are equal, after `hi` they are not.
struct Window {
    lo: u64,
    hi: Option<u64>,
    /// The steps of both.
    from: u64,
    to: u64,
    /// What differs after `hi` slices, or where the replay breaks off in the last of them.
    difference: Option<Difference>,
}

struct Search<'a, E> {
    recorded: &'a mut dyn Recorded<Error = E>,
    perturbation: &'a mut dyn FnMut(&twinvm_machine::Machine) -> Perturbation,
    until: u64,
    tell: Tell<'a>,
    passes: u32,
}

/// Both sides, and how many slices they have run.
struct Both<E> {
    plain: Side<E>,
    disturbed: Side<E>,
    perturbation: Perturbation,
    slices: u64,
}

/// How a slice of both has ended.
enum Ended {
    /// Both stand at its end.
    Level,
    /// The disturbed side has broken off, or the plain one can't come to where it stands.
    Apart,
    /// There is no more.
    Over,
}

impl<E> Both<E> {
    /// One more slice of the disturbed side, as it was, and the plain one goes where it went.
    fn slice(&mut self, until: u64) -> Result<Ended, ExplainError<E>> {
        self.disturbed.feed().map_err(ExplainError::Recording)?;
        let budget = until.saturating_sub(self.disturbed.at().0);
        let result = self.perturbation.run(&mut self.disturbed.replay, budget);
        self.disturbed.replay.machine_mut().take_console();
        self.slices += 1;
        let to = self.disturbed.at();
        let Ok(exit) = result else {
            // To where it broke off, before the record that it couldn't apply. If the plain side
            // can't come there either, a closer look tells.
            let _ = self.plain.up_to(to.0, &mut |_| {});
            let _ = self.plain.replay.apply_before(to.1);
            return Ok(Ended::Apart);
        };
        self.plain.catch_up(to).map_err(Stop::of_plain)?;
        let over = match exit {
            ReplayExit::Busy => to.0 >= until,
            ReplayExit::Output { .. } => false,
            ReplayExit::Starved => self.disturbed.is_dry(),
            ReplayExit::End { .. } => true,
        };
        Ok(match () {
            () if self.plain.at() != to => Ended::Apart,
            () if over => Ended::Over,
            () => Ended::Level,
        })
    }

    fn difference(&self) -> Option<Difference> {
        first_difference(self.plain.replay.machine(), self.disturbed.replay.machine())
    }

    fn register_difference(&self) -> Option<Difference> {
        let plain = self.plain.replay.machine();
        plain.first_register_difference(self.disturbed.replay.machine())
    }
}

impl<E> Search<'_, E> {
    fn begin(&mut self, from: u64, to: u64) -> Result<Both<E>, ExplainError<E>> {
        self.passes += 1;
        (self.tell)(Searching::Pass {
            number: self.passes,
            from,
            to,
        });
        let plain = Side::open(self.recorded)?;
        let disturbed = Side::open(self.recorded)?;
        let perturbation = (self.perturbation)(disturbed.replay.machine());
        Ok(Both {
            plain,
            disturbed,
            perturbation,
            slices: 0,
        })
    }

    /// Replays both and makes the window smaller; false if they don't part.
    fn narrow(&mut self, window: &mut Window) -> Result<bool, ExplainError<E>> {
        let mut both = self.begin(window.from, window.to)?;
        let (first, last) = (window.lo, window.hi.unwrap_or(u64::MAX));
        // In the first pass nobody knows how many slices there are.
        let slices = window.hi.map(|hi| (hi - window.lo).div_ceil(COMPARISONS));
        let steps = window.to.saturating_sub(both.plain.at().0) / COMPARISONS + 1;
        let mut next_steps = both.plain.at().0;
        loop {
            let ended = both.slice(self.until)?;
            let at = both.disturbed.at().0;
            if both.slices.is_multiple_of(TELL_SLICES) {
                (self.tell)(Searching::At(at));
            }
            let whole = match slices {
                Some(slices) => (both.slices - first.min(both.slices)).is_multiple_of(slices),
                None => at >= next_steps,
            };
            let difference = match ended {
                _ if both.slices <= first => None,
                Ended::Apart | Ended::Over => both.difference(),
                Ended::Level if whole || both.slices >= last => {
                    next_steps = at.saturating_add(steps);
                    both.difference()
                }
                Ended::Level => both.register_difference(),
            };
            if matches!(ended, Ended::Apart) || difference.is_some() {
                (window.hi, window.to) = (Some(both.slices), at);
                window.difference = difference;
                return Ok(true);
            }
            // Where it was to show at the latest, it doesn't.
            if matches!(ended, Ended::Over) || both.slices >= last {
                return Ok(false);
            }
            if whole && both.slices >= first {
                (window.lo, window.from) = (both.slices, at);
            }
        }
    }

    /// Looks into the one slice that is left.
    fn inside(
        &mut self,
        window: &Window,
        divergence: &Divergence,
    ) -> Result<Explanation, ExplainError<E>> {
        let slice = (window.from, window.to);
        let mut explanation = Explanation {
            found: Found::Step,
            position: divergence.position,
            icount: divergence.icount,
            slice: Some(slice),
            difference: None,
            instructions: Vec::new(),
            notes: Vec::new(),
        };
        // Steps of the slice between which it must be.
        let (mut lo, mut hi) = slice;
        loop {
            let seen = self.steps(window.lo, lo, hi)?;
            let Seen {
                found,
                equal,
                at,
                position,
                difference,
                note,
            } = seen;
            let exact = found != Found::Step || at - equal <= 1 || (equal, at) == (lo, hi);
            if !exact && self.passes < MAX_PASSES {
                (lo, hi) = (equal, at);
                continue;
            }
            explanation.found = found;
            explanation.notes.extend(note);
            (explanation.icount, explanation.position) = (at, position);
            explanation.difference = difference;
            break;
        }
        if explanation.found == Found::Slice {
            explanation.icount = slice.1;
            explanation.difference = window.difference.clone();
            explanation.notes.push(
                "cut into single steps, the slice is equal: the fault lies in how a run of steps is \
                 executed, or where it is cut"
                    .to_owned(),
            );
        }
        let mut plain = Side::open(self.recorded)?;
        let traced = plain.trace_up_to(explanation.icount, self.tell);
        explanation.instructions = traced.map_err(Stop::of_plain)?;
        Ok(explanation)
    }

    /// Runs both sides to the slice after `slices`, and through it one step after the other.
    /// Between the steps `lo` and `hi` they are compared, registers after each, all else as
    /// often as there is time for it.
    fn steps(&mut self, slices: u64, lo: u64, hi: u64) -> Result<Seen, ExplainError<E>> {
        let mut both = self.begin(lo, hi)?;
        while both.slices < slices {
            both.slice(self.until)?;
            if both.slices.is_multiple_of(TELL_SLICES) {
                (self.tell)(Searching::At(both.disturbed.at().0));
            }
        }
        let (from, position) = both.disturbed.at();
        let seen = |found, at, position, difference| Seen {
            found,
            equal: from,
            at,
            position,
            difference,
            note: None,
        };
        both.disturbed.feed().map_err(ExplainError::Recording)?;
        both.plain.feed().map_err(ExplainError::Recording)?;
        if let Err(failed) = both.perturbation.disturb(&mut both.disturbed.replay) {
            return Ok(Seen {
                note: Some(failed.what),
                ..seen(Found::Disturbance, from, position, both.difference())
            });
        }
        if let Some(difference) = both.difference() {
            return Ok(seen(Found::Disturbance, from, position, Some(difference)));
        }
        // From here on pages that were not stored to need not be compared.
        both.plain.replay.machine_mut().digest();
        both.disturbed.replay.machine_mut().digest();
        let stride = (hi - lo).div_ceil(STEP_COMPARISONS).max(1);
        let mut equal = from;
        loop {
            let at = both.disturbed.at().0;
            // Behind the last step only what is due there is left.
            let result = if at < hi {
                both.disturbed.replay.run_up_to(at.saturating_add(1))
            } else {
                both.disturbed.replay.run(0)
            };
            let (now, position) = both.disturbed.at();
            let plain = &mut both.plain.replay;
            plain.run_up_to(now).map_err(ExplainError::PlainDiverged)?;
            if result.is_err() {
                plain
                    .apply_before(position)
                    .map_err(ExplainError::PlainDiverged)?;
            }
            for side in [&mut both.plain, &mut both.disturbed] {
                side.replay.machine_mut().take_console();
                side.feed().map_err(ExplainError::Recording)?;
            }
            if at >= hi && result.is_ok() {
                return Ok(seen(Found::Slice, now, position, None));
            }
            let whole = now >= hi || (now > lo && (now - lo).is_multiple_of(stride));
            let difference = match &result {
                Err(_) => both.difference(),
                Ok(_) if whole => both.difference(),
                Ok(_) if now > lo => both.register_difference(),
                Ok(_) => None,
            };
            match (result, difference) {
                (_, Some(difference)) => {
                    return Ok(Seen {
                        equal,
                        ..seen(Found::Step, now, position, Some(difference))
                    });
                }
                (Err(check), None) => {
                    // The plain replay fails there too: it is the recording that differs.
                    both.plain
                        .replay
                        .run(0)
                        .map_err(ExplainError::PlainDiverged)?;
                    return Ok(Seen {
                        note: Some(format!(
                            "registers, devices and RAM of both replays are equal here, and yet: {}",
                            check.what
                        )),
                        ..seen(Found::Check, now, position, None)
                    });
                }
                // The log has ended.
                (Ok(_), None) if now == at => {
                    return Ok(seen(Found::Slice, now, position, None));
                }
                (Ok(_), None) if whole || now <= lo => equal = now,
                (Ok(_), None) => {}
            }
        }
    }
}

/// What the steps of a slice have shown.
struct Seen {
    found: Found,
    /// The last step at which all was compared and equal.
    equal: u64,
    /// The step at which it shows, and the position of the next record there.
    at: u64,
    position: u64,
    difference: Option<Difference>,
    note: Option<String>,
}
