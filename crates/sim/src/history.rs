//! What the clients asked and what they were answered.

use std::collections::{BTreeMap, BTreeSet};

use crate::guest::{Answer, Op};
use crate::linear::Entry;
use twinvm_linear::{Verdict, judge};

/// One question.
#[derive(Clone, Debug)]
struct Asked {
    client: u64,
    seq: u64,
    key: u64,
    op: Op,
    at: u64,
    /// The boots whose guest may have got it.
    reached: BTreeSet<u64>,
    /// By boot: when the first answer came, the value before, whether it was done.
    answers: BTreeMap<u64, (u64, u64, bool)>,
}

/// All questions of a run.
#[derive(Default)]
pub(crate) struct History {
    /// What the guest knows survives its end: all its boots are one.
    lasts: bool,
    asked: Vec<Asked>,
    index: BTreeMap<(u64, u64), usize>,
}

/// What a look at a history found out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Judged {
    /// Operations in histories that are linearizable.
    pub(crate) operations: u64,
    /// Operations in histories that were too hard to judge.
    pub(crate) unjudged: u64,
}

impl History {
    pub(crate) fn new(lasts: bool) -> Self {
        Self {
            lasts,
            ..Self::default()
        }
    }

    /// The life of the registers that this boot belongs to.
    fn life(&self, boot: u64) -> u64 {
        match self.lasts {
            true => 0,
            false => boot,
        }
    }

    pub(crate) fn ask(&mut self, client: u64, seq: u64, key: u64, op: Op, at: u64) {
        self.index.insert((client, seq), self.asked.len());
        self.asked.push(Asked {
            client,
            seq,
            key,
            op,
            at,
            reached: BTreeSet::new(),
            answers: BTreeMap::new(),
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.asked.len()
    }

    /// A guest of this boot gets the question.
    pub(crate) fn reaches(&mut self, client: u64, seq: u64, boot: u64) {
        let boot = self.life(boot);
        if let Some(n) = self.index.get(&(client, seq)) {
            self.asked[*n].reached.insert(boot);
        }
    }

    /// The client gets an answer.
    pub(crate) fn answered(&mut self, answer: &Answer, at: u64) -> Result<(), String> {
        let Some(n) = self.index.get(&(answer.client, answer.seq)) else {
            return Err(format!(
                "an answer to a question that nobody asked: {answer:?}"
            ));
        };
        let boot = self.life(answer.boot);
        let asked = &mut self.asked[*n];
        if !asked.reached.contains(&boot) {
            return Err(format!(
                "an answer from a boot that never got the question: {answer:?}"
            ));
        }
        let (_, value, done) =
            *asked
                .answers
                .entry(boot)
                .or_insert((at, answer.value, answer.done));
        if (value, done) != (answer.value, answer.done) {
            return Err(format!(
                "client {} was answered in two ways: value {value}, done {done}, then {answer:?}",
                answer.client
            ));
        }
        Ok(())
    }

    /// Every key of every boot is a register, and its history must be linearizable.
    pub(crate) fn judge(&self) -> Result<Judged, String> {
        let mut registers: BTreeMap<(u64, u64), Vec<&Asked>> = BTreeMap::new();
        for asked in &self.asked {
            for boot in &asked.reached {
                registers.entry((*boot, asked.key)).or_default().push(asked);
            }
        }
        let mut judged = Judged::default();
        for ((boot, key), asked) in registers {
            let entries: Vec<Entry> = asked
                .iter()
                .map(|asked| Entry {
                    op: asked.op,
                    asked: asked.at,
                    answered: asked.answers.get(&boot).copied(),
                })
                // A read without an answer says nothing.
                .filter(|entry| entry.answered.is_some() || entry.op != Op::Get)
                .collect();
            match judge(&entries, 0) {
                Verdict::Linearizable => judged.operations += entries.len() as u64,
                Verdict::Undecided => judged.unjudged += entries.len() as u64,
                Verdict::Violated(_) => {
                    let mut text = format!("the history of key {key} is not linearizable:");
                    for asked in asked {
                        text.push_str(&format!(
                            "\n  client {} question {} {:?} asked {} answered {:?}",
                            asked.client,
                            asked.seq,
                            asked.op,
                            asked.at,
                            asked.answers.get(&boot)
                        ));
                    }
                    return Err(text);
                }
            }
        }
        Ok(judged)
    }
}
