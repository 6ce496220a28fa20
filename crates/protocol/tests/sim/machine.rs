//! A toy guest: its state is a hash chain over its log, each input asks for an output some
//! steps later, and what the output is depends on everything consumed until then.

use super::rng::mix;

/// An output, tagged with the whole history that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    pub(crate) boot: u64,
    pub(crate) position: u64,
    pub(crate) chain: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rec {
    Input { icount: u64, data: u64 },
    Output { icount: u64, tag: u64 },
    Halt { icount: u64 },
}

pub(crate) const REC_BYTES: usize = 17;

impl Rec {
    pub(crate) fn bytes(&self) -> [u8; REC_BYTES] {
        let (tag, icount, data) = match *self {
            Rec::Input { icount, data } => (1, icount, data),
            Rec::Output { icount, tag } => (2, icount, tag),
            Rec::Halt { icount } => (3, icount, 0),
        };
        let mut out = [0; REC_BYTES];
        out[0] = tag;
        out[1..9].copy_from_slice(&icount.to_le_bytes());
        out[9..].copy_from_slice(&data.to_le_bytes());
        out
    }

    pub(crate) fn parse(bytes: &[u8]) -> Rec {
        let icount = u64::from_le_bytes(bytes[1..9].try_into().unwrap());
        let data = u64::from_le_bytes(bytes[9..].try_into().unwrap());
        match bytes[0] {
            1 => Rec::Input { icount, data },
            2 => Rec::Output { icount, tag: data },
            3 => Rec::Halt { icount },
            tag => panic!("record tag {tag}"),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Vm {
    pub(crate) boot: u64,
    pub(crate) icount: u64,
    pub(crate) chain: u64,
    /// The chain after each record: what "this state contains that log" is decided by.
    pub(crate) history: Vec<u64>,
    /// All outputs made so far.
    pub(crate) outs: Vec<Out>,
    due: Vec<u64>,
    pub(crate) halted: bool,
}

impl Vm {
    pub(crate) fn power_on(boot: u64) -> Self {
        Self {
            boot,
            icount: 0,
            chain: mix(boot),
            history: Vec::new(),
            outs: Vec::new(),
            due: Vec::new(),
            halted: false,
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.history.len() as u64
    }

    pub(crate) fn contains(&self, out: &Out) -> bool {
        self.boot == out.boot && contains(&self.history, out)
    }

    fn append(&mut self, rec: Rec) -> Rec {
        for word in rec.bytes().chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            self.chain = mix(self.chain ^ u64::from_le_bytes(padded)).wrapping_add(1);
        }
        self.history.push(self.chain);
        rec
    }

    fn output(&mut self) -> Out {
        let out = Out {
            boot: self.boot,
            position: self.end(),
            chain: self.chain,
        };
        self.outs.push(out);
        out
    }

    /// Runs `steps` as the live node does; the records and outputs this makes.
    pub(crate) fn run(&mut self, steps: u64) -> Vec<(Rec, Out)> {
        let target = self.icount + steps;
        let mut made = Vec::new();
        while let Some(icount) = self.due.first().copied().filter(|d| *d <= target) {
            self.due.remove(0);
            self.icount = icount;
            let tag = self.chain;
            let rec = self.append(Rec::Output { icount, tag });
            made.push((rec, self.output()));
        }
        self.icount = target;
        made
    }

    pub(crate) fn input(&mut self, data: u64) -> Rec {
        let icount = self.icount;
        self.due.push(icount + 1 + data % 40);
        self.due.sort_unstable();
        self.append(Rec::Input { icount, data })
    }

    pub(crate) fn halt(&mut self) -> Rec {
        self.halted = true;
        let icount = self.icount;
        self.append(Rec::Halt { icount })
    }

    /// Replays one record. `Err` if the original went another way.
    pub(crate) fn apply(&mut self, rec: Rec) -> Result<Option<Out>, String> {
        let (Rec::Input { icount, .. } | Rec::Output { icount, .. } | Rec::Halt { icount }) = rec;
        let late = self.due.first().is_some_and(|d| *d < icount);
        if late || icount < self.icount {
            return Err(format!("at {} asked to go to {icount}", self.icount));
        }
        self.icount = icount;
        match rec {
            Rec::Input { data, .. } => {
                self.input(data);
                Ok(None)
            }
            Rec::Output { tag, .. } => {
                if self.due.first() != Some(&icount) || tag != self.chain {
                    return Err(format!("output at {icount} differs"));
                }
                self.due.remove(0);
                self.append(rec);
                Ok(Some(self.output()))
            }
            Rec::Halt { .. } => {
                self.halt();
                Ok(None)
            }
        }
    }
}

pub(crate) fn contains(history: &[u64], out: &Out) -> bool {
    let index = (out.position as usize).wrapping_sub(1);
    history.get(index) == Some(&out.chain)
}
