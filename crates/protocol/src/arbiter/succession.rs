//! Who may go live after whom, by the register's history: the judge of simulations.

use crate::record::{Generation, NodeId, Record};

/// All who have gone live, in order. A life is a name that the simulation gives to each time that
/// a node goes live.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    lives: Vec<(u64, Record)>,
}

impl Succession {
    /// Node `id` goes live by this generation: it takes a won record, newer than that of anyone
    /// before. `history` has every record that there has been.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub fn goes_live(
        &mut self,
        life: u64,
        id: NodeId,
        generation: Generation,
        history: &[Record],
    ) -> Result<(), String> {
        let record = history.get((generation.0 as usize).wrapping_sub(1));
        let Some(record) = record.filter(|r| r.live.id == id) else {
            return Err(format!(
                "node {id:?} went live by generation {generation}, which it never won"
            ));
        };
        match self.lives.last() {
            Some((_, last)) if generation <= last.generation => Err(format!(
                "a node went live by generation {generation} after one by {}",
                last.generation
            )),
            _ => {
                self.lives.push((life, *record));
                Ok(())
            }
        }
    }

    /// The same without a machine: only for the node that the record before named live, and not
    /// if `held`, which is that the backup named there is up and holds the session.
    ///
    /// # Errors
    /// What is wrong, in one sentence.
    pub fn starts_cold(
        &mut self,
        life: u64,
        id: NodeId,
        generation: Generation,
        history: &[Record],
        held: bool,
    ) -> Result<(), String> {
        self.goes_live(life, id, generation, history)?;
        let before = (generation.0 as usize).checked_sub(2);
        let before = before.and_then(|n| history.get(n));
        if before.is_some_and(|r| r.live.id != id) {
            return Err("a node started cold that was not named live".into());
        }
        if held {
            return Err("a node started cold beside a backup that holds the VM".into());
        }
        Ok(())
    }

    /// The life that began last.
    pub fn newest(&self) -> Option<u64> {
        self.lives.last().map(|(life, _)| *life)
    }

    /// The first record after this life's own that names another one live, if there is one.
    ///
    /// # Errors
    /// It never was live.
    pub fn successor(&self, life: u64, history: &[Record]) -> Result<Option<Record>, String> {
        let own = self.lives.iter().find(|(known, _)| *known == life);
        let Some((_, own)) = own else {
            return Err("a node acted as the live one that never was it".into());
        };
        let after = history.get(own.generation.0 as usize..).unwrap_or(&[]);
        Ok(after.iter().find(|r| r.live != own.live).copied())
    }
}

#[cfg(test)]
mod tests;
