//! A disturbed replay beside a plain one.
//!
//! Looking changes nothing: the disturbed side is run as it was, in the same slices, and compared
//! at their ends without a digest or any other call that touches its engine. Each pass replays
//! from the beginning and looks more closely into the window that the pass before has left, until
//! it is a single slice; and that is cut into steps.
//!
//! The plain side is interpreted, which is the reference; what the other runs on is the
//! recording's choice ([`Recorded::open`]). A single step never enters a translated block, so a
//! slice that is equal in steps is run again with each instruction translated by itself. If that is
//! equal too, the shortest run from the slice's beginning that differs is looked for.

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
/// Passes in search of the shortest run: a slice has fewer than 2^20 steps.
const RUN_PASSES: u32 = 20;
/// Slices between two words to whoever waits.
const TELL_SLICES: u64 = 256;

/// Finds where a replay that [`Perturbation`] disturbs parts from one that nothing disturbs.
/// `perturbation` makes the disturbance anew for each pass, as it was; `until` is the step at
/// which the replay was to stop, `u64::MAX` if none; `divergence` is what it has found.
///
/// # Errors
/// The recording can't be read, or the plain replay diverges too, and in the same way.
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
            if self.plain.at() == to && self.difference().is_none() {
                // If it fails in the same way, it is the recording that differs.
                let same = self.plain.replay.run(0);
                same.map_err(ExplainError::PlainDiverged)?;
            }
            return Ok(Ended::Apart);
        };
        match self.plain.catch_up(to) {
            Ok(()) => {}
            Err(Stop::Diverged(_)) => return Ok(Ended::Apart),
            Err(Stop::Error(error)) => return Err(ExplainError::Recording(error)),
        }
        let over = match exit {
            ReplayExit::Busy => to.0 >= until,
            ReplayExit::Output { .. } => false,
            ReplayExit::Starved => self.disturbed.is_dry(),
            // Recordings have what their disks have read.
            ReplayExit::End { .. } | ReplayExit::Waits | ReplayExit::DiskDiffers { .. } => true,
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
        let mut plain = Side::open(self.recorded)?;
        plain.interpret();
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
        let mut seen = self.closer(window, slice, Pieces::Steps)?;
        if seen.found == Found::Slice {
            let alone = self.closer(window, slice, Pieces::Translations)?;
            if alone.found == Found::Step {
                seen = alone;
                let note = "interpreted step by step the slice is equal, with each instruction \
                            translated by itself it is not: the translation of the last one is wrong";
                explanation.notes.push(note.to_owned());
            }
        }
        if seen.found == Found::Slice {
            seen = self.shortest_run(window, slice, divergence.position)?;
            explanation.slice = Some((slice.0, seen.at));
        }
        explanation.found = seen.found;
        explanation.notes.extend(seen.note);
        (explanation.icount, explanation.position) = (seen.at, seen.position);
        explanation.difference = seen.difference;
        let mut plain = Side::open(self.recorded)?;
        let traced = plain.trace_up_to(explanation.icount, self.tell);
        explanation.instructions = traced.map_err(Stop::of_plain)?;
        Ok(explanation)
    }

    /// Looks into the slice, until a single step of it is left.
    fn closer(
        &mut self,
        window: &Window,
        (mut lo, mut hi): (u64, u64),
        pieces: Pieces,
    ) -> Result<Seen, ExplainError<E>> {
        loop {
            let seen = self.steps(window.lo, lo, hi, pieces)?;
            let (equal, at) = (seen.equal, seen.at);
            let exact = seen.found != Found::Step || at - equal <= 1 || (equal, at) == (lo, hi);
            if exact || self.passes >= MAX_PASSES {
                return Ok(seen);
            }
            (lo, hi) = (equal, at);
        }
    }

    /// Both sides before the slice after `slices`.
    fn before(&mut self, slices: u64, lo: u64, hi: u64) -> Result<Both<E>, ExplainError<E>> {
        let mut both = self.begin(lo, hi)?;
        while both.slices < slices {
            both.slice(self.until)?;
            if both.slices.is_multiple_of(TELL_SLICES) {
                (self.tell)(Searching::At(both.disturbed.at().0));
            }
        }
        Ok(both)
    }

    /// How many steps from the slice's beginning it takes in one run until the sides differ.
    fn shortest_run(
        &mut self,
        window: &Window,
        slice: (u64, u64),
        position: u64,
    ) -> Result<Seen, ExplainError<E>> {
        let (mut equal, mut at) = slice;
        let mut difference = window.difference.clone();
        let mut found_at = None;
        let most = self.passes + RUN_PASSES;
        while at - equal > 1 && self.passes < most {
            let middle = equal + (at - equal) / 2;
            let mut both = self.before(window.lo, equal, at)?;
            let disturb = &mut both.perturbation;
            // It was found to be equal after this.
            let _ = disturb.disturb(&mut both.disturbed.replay);
            let run = both.disturbed.up_to(middle, &mut |_| {});
            let to = both.disturbed.at();
            let level = both.plain.up_to(to.0, &mut |_| {});
            let _ = both.plain.replay.apply_before(to.1);
            let found = both.difference();
            if run.is_err() || level.is_err() || found.is_some() {
                at = middle;
                found_at = Some(to.1);
                difference = found;
            } else {
                equal = middle;
            }
        }
        let note = match found_at {
            Some(_) => format!(
                "cut into single steps the slice is equal, also with each instruction translated by \
                 itself; in one run from step {} the machines are equal up to step {equal}: the fault \
                 lies in the block that ends with step {at}, or in what was known before the slice",
                slice.0
            ),
            None => {
                "cut into single steps, the slice is equal: the fault lies in how a run of steps \
                     is executed, or where it is cut"
                    .to_owned()
            }
        };
        Ok(Seen {
            found: Found::Slice,
            equal,
            at,
            position: found_at.unwrap_or(position),
            difference,
            note: Some(note),
        })
    }

    /// Runs both sides to the slice after `slices`, and through it one step after the other.
    /// Between the steps `lo` and `hi` they are compared, registers after each, all else as
    /// often as there is time for it.
    fn steps(
        &mut self,
        slices: u64,
        lo: u64,
        hi: u64,
        pieces: Pieces,
    ) -> Result<Seen, ExplainError<E>> {
        let mut both = self.before(slices, lo, hi)?;
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
        if pieces == Pieces::Translations {
            both.disturbed.replay.machine_mut().translate_singly();
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
            if let Err(failed) = plain.run_up_to(now) {
                if result.is_err() {
                    return Err(ExplainError::PlainDiverged(failed));
                }
                return Ok(Seen {
                    equal,
                    note: Some(format!("here the plain replay fails: {}", failed.what)),
                    ..seen(Found::Step, now, position, both.difference())
                });
            }
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

/// How a slice is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// Steps, which are interpreted.
    Steps,
    /// Steps, each of which is a block that is translated.
    Translations,
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
