//! What a server says, held against what it has said before.

use twinvm_protocol::{Generation, Outcome, Record};

/// Longest text of others in the journal, in characters.
const MAX_TEXT_CHARS: usize = 300;

/// The newest record that a register has shown to this process. A server that forgets, or a
/// wrong one behind the same address, is found by it.
#[derive(Debug, Default)]
pub(super) struct Guard {
    seen: Option<Record>,
}

impl Guard {
    /// The answer to a read.
    pub(super) fn read(&mut self, record: Option<Record>) -> Result<Outcome, String> {
        self.see(record)?;
        Ok(Outcome::Read(record))
    }

    /// A change took place, and the register held `record` after it.
    pub(super) fn won(
        &mut self,
        expect: Generation,
        proposed: &Record,
        record: &Record,
    ) -> Result<Outcome, String> {
        if record != proposed || expect.0.checked_add(1) != Some(record.generation.0) {
            return Err(format!(
                "says that {record} was won where {proposed} was proposed in place of generation {expect}"
            ));
        }
        self.see(Some(*record))?;
        Ok(Outcome::Won(*record))
    }

    /// A change did not take place by this request.
    pub(super) fn lost(&mut self, record: Option<Record>) -> Result<Outcome, String> {
        self.see(record)?;
        Ok(Outcome::Lost(record))
    }

    fn see(&mut self, now: Option<Record>) -> Result<(), String> {
        match (self.seen, now) {
            (Some(seen), None) => Err(format!(
                "shows no record where generation {} stood: is it the right one?",
                seen.generation
            )),
            (Some(seen), Some(now)) if now.generation < seen.generation => Err(format!(
                "shows generation {} where {} stood: is it the right one?",
                now.generation, seen.generation
            )),
            (Some(seen), Some(now)) if now.generation == seen.generation && now != seen => Err(
                format!("shows {now} where {seen} stood: is it the right one?"),
            ),
            (_, now) => {
                self.seen = now;
                Ok(())
            }
        }
    }
}

/// What somebody else has said, as a part of one line.
pub(super) fn one_line(text: &str) -> String {
    let shown = text.chars().take(MAX_TEXT_CHARS);
    shown
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
