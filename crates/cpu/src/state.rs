//! A hart's state as it is written into snapshots and digests.

use crate::csr::legal;
use crate::hart::{Counter, Hart, Mode, Reservation};
use crate::pmp::{self, Pmp};
use serde::{Deserialize, Serialize};

/// Everything of a [`Hart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HartState {
    /// x1–x31.
    pub x: Vec<u64>,
    /// f0–f31, raw bits.
    pub f: Vec<u64>,
    /// Program counter.
    pub pc: u64,
    /// Privilege mode.
    pub mode: Mode,
    /// WFI without a pending interrupt since.
    pub waiting: bool,
    /// Physical address and size of the LR reservation.
    pub reservation: Option<(u64, u8)>,
    /// mhartid.
    pub id: u64,
    /// Steps that other harts took, up to the start of this hart's last turn.
    pub foreign_steps: u64,
    /// Step count at which this hart's turn ended; `None` while it has the turn.
    pub away_since: Option<u64>,
    /// Traps taken.
    pub traps: u64,
    /// fcsr.
    pub fcsr: u8,
    /// Counters: cycle and instret, each as offset and held value.
    counters: [Counter; 2],
    /// CSRs in the order of [`CSR_NAMES`].
    pub csrs: Vec<u64>,
}

/// A CSR that is one field of the hart.
struct Field {
    name: &'static str,
    get: fn(&Hart) -> u64,
    slot: fn(&mut Hart) -> &mut u64,
    /// Returns a value as it is if the CSR can hold it.
    legal: fn(u64) -> u64,
}

macro_rules! field {
    ($name:ident) => {
        field!($name, |value| value)
    };
    ($name:ident, $legal:expr) => {
        Field {
            name: stringify!($name),
            get: |hart| hart.$name,
            slot: |hart| &mut hart.$name,
            legal: $legal,
        }
    };
}

const FIELDS: [Field; 22] = [
    field!(mstatus, legal::mstatus),
    field!(medeleg, legal::medeleg),
    field!(mideleg, legal::mideleg),
    field!(mie, legal::mie),
    field!(mip, legal::mip),
    field!(mtvec, legal::tvec),
    field!(mscratch),
    field!(mepc, legal::epc),
    field!(mcause),
    field!(mtval),
    field!(mcounteren, legal::counteren),
    field!(mcountinhibit, legal::mcountinhibit),
    field!(menvcfg, legal::menvcfg),
    field!(stvec, legal::tvec),
    field!(sscratch),
    field!(sepc, legal::epc),
    field!(scause),
    field!(stval),
    field!(scounteren, legal::counteren),
    field!(senvcfg, legal::senvcfg),
    field!(satp, |value| legal::satp(value).unwrap_or(0)),
    field!(stimecmp),
];

const PMP_NAMES: [&str; 2 + pmp::ENTRIES] = [
    "pmpcfg0",
    "pmpcfg2",
    "pmpaddr0",
    "pmpaddr1",
    "pmpaddr2",
    "pmpaddr3",
    "pmpaddr4",
    "pmpaddr5",
    "pmpaddr6",
    "pmpaddr7",
    "pmpaddr8",
    "pmpaddr9",
    "pmpaddr10",
    "pmpaddr11",
    "pmpaddr12",
    "pmpaddr13",
    "pmpaddr14",
    "pmpaddr15",
];

const CSRS: usize = FIELDS.len() + PMP_NAMES.len();

/// Names of the CSRs in [`HartState::csrs`].
pub const CSR_NAMES: [&str; CSRS] = {
    let mut names = [""; CSRS];
    let mut n = 0;
    while n < CSRS {
        names[n] = if n < FIELDS.len() {
            FIELDS[n].name
        } else {
            PMP_NAMES[n - FIELDS.len()]
        };
        n += 1;
    }
    names
};

/// A hart state that no hart of this version can have: names what is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HartStateError(pub &'static str);

impl std::fmt::Display for HartStateError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hart state: bad {}", self.0)
    }
}

impl std::error::Error for HartStateError {}

impl Hart {
    /// The whole state, for a snapshot or a digest.
    pub fn save(&self) -> HartState {
        let mut csrs: Vec<u64> = FIELDS.iter().map(|field| (field.get)(self)).collect();
        csrs.extend([0, 1].map(|half| self.pmp.cfg(half)));
        csrs.extend((0..pmp::ENTRIES).map(|n| self.pmp.addr(n)));
        HartState {
            x: self.x.0[1..32].to_vec(),
            f: self.f.0[..32].to_vec(),
            pc: self.pc,
            mode: self.mode,
            waiting: self.waiting,
            reservation: self.reservation.get(),
            id: self.id,
            foreign_steps: self.foreign_steps,
            away_since: self.away_since,
            traps: self.traps,
            fcsr: self.frm << 5 | self.fflags,
            counters: [self.cycle, self.instret],
            csrs,
        }
    }

    /// A hart from a saved state.
    ///
    /// # Errors
    /// A state that no hart can reach: a value that a CSR cannot hold, or parts
    /// that contradict each other.
    pub fn restore(state: &HartState) -> Result<Self, HartStateError> {
        let bad = |what| Err(HartStateError(what));
        if state.x.len() != 31 || state.f.len() != 32 {
            return bad("register count");
        }
        if state.csrs.len() != CSRS {
            return bad("csr count");
        }
        if state.pc & 1 != 0 {
            return bad("pc");
        }
        if let Some((pa, size)) = state.reservation {
            let sized = (size == 4 || size == 8) && pa.is_multiple_of(u64::from(size));
            if !sized || state.away_since.is_some() {
                return bad("reservation");
            }
        }
        let mut hart = Hart::new(state.id, state.pc);
        hart.x.0[1..32].copy_from_slice(&state.x);
        hart.f.0[..32].copy_from_slice(&state.f);
        hart.mode = state.mode;
        hart.waiting = state.waiting;
        hart.reservation = state
            .reservation
            .map_or(Reservation::NONE, |(pa, size)| Reservation::at(pa, size));
        hart.foreign_steps = state.foreign_steps;
        hart.away_since = state.away_since;
        hart.traps = state.traps;
        hart.fflags = state.fcsr & 0x1f;
        hart.frm = state.fcsr >> 5;
        let (fields, pmp) = state.csrs.split_at(FIELDS.len());
        for (field, value) in FIELDS.iter().zip(fields) {
            if (field.legal)(*value) != *value {
                return bad(field.name);
            }
            *(field.slot)(&mut hart) = *value;
        }
        let addr = std::array::from_fn(|n| pmp[2 + n]);
        match Pmp::restore([pmp[0], pmp[1]], addr) {
            Some(pmp) => hart.pmp = pmp,
            None => return bad("pmp"),
        }
        for (counter, bit) in state.counters.iter().zip([0, 2]) {
            if counter.held.is_some() != (hart.mcountinhibit >> bit & 1 != 0) {
                return bad("counter");
            }
        }
        [hart.cycle, hart.instret] = state.counters;
        Ok(hart)
    }
}

#[cfg(test)]
mod tests;
