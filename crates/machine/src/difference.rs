//! Where two machines that should be equal differ, named.
//!
//! Things are compared in a fixed order, the likely causes before what follows from them: time,
//! harts (pc, mode, registers, CSRs), whose turn it is, devices, interrupt controllers, RAM.

mod flatten;

use crate::digest::encoded;
use crate::harts::{Harts, HartsState};
use crate::machine::Machine;
use crate::output::Halt;
use crate::{PowerOn, RAM_BASE};
use flatten::{Style, first_in_values};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use twinvm_cpu::{CSR_NAMES, Clock, register_name};
use twinvm_devices::{BoardState, Persist};
use twinvm_mem::PAGE_BYTES;

/// Bytes of RAM that a difference shows.
const SHOWN_BYTES: usize = 8;

/// The first thing in which two machines differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What it is, for example `hart 0 a5`, `uart line` or `RAM page 0x80001 byte 0x10`.
    pub item: String,
    /// The hart whose it is, if it is one's.
    pub hart: Option<u32>,
    /// Its value in the first machine.
    pub left: String,
    /// Its value in the second.
    pub right: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} / {}", self.item, self.left, self.right)
    }
}

/// Time and harts, so that they can be kept and compared later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterState {
    icount: u64,
    clock: Clock,
    halted: Option<Halt>,
    power_on: PowerOn,
    harts: HartsState,
}

/// Everything of a machine but RAM, so that it can be kept and compared later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineState {
    registers: RegisterState,
    board: BoardState,
}

/// Bytes that are no [`MachineState`] or [`RegisterState`].
#[derive(Debug, thiserror::Error)]
#[error("not the state of a machine of this version: {0}")]
pub struct StateDecodeError(String);

fn decoded<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, StateDecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((state, [])) => Ok(state),
        Ok((_, rest)) => Err(StateDecodeError(format!(
            "{} bytes behind its end",
            rest.len()
        ))),
        Err(error) => Err(StateDecodeError(error.to_string())),
    }
}

impl MachineState {
    /// As bytes, for a file.
    pub fn encode(&self) -> Vec<u8> {
        encoded(self)
    }

    /// From [`MachineState::encode`]'s bytes. What comes out need not be a state that a machine
    /// can be in: it is for comparing.
    ///
    /// # Errors
    /// Other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateDecodeError> {
        decoded(bytes)
    }

    /// The first thing in which two states differ.
    pub fn first_difference(&self, other: &Self) -> Option<Difference> {
        let registers = self.registers.first_difference(&other.registers);
        registers.or_else(|| board_difference(&self.board, &other.board))
    }
}

#[cfg(feature = "mutations")]
impl MachineState {
    pub(crate) fn parts(self) -> (HartsState, BoardState) {
        (self.registers.harts, self.board)
    }
}

impl RegisterState {
    /// As bytes, for another node.
    pub fn encode(&self) -> Vec<u8> {
        encoded(self)
    }

    /// From [`RegisterState::encode`]'s bytes, for comparing.
    ///
    /// # Errors
    /// Other bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateDecodeError> {
        decoded(bytes)
    }

    /// The hart that has the turn, and its program counter.
    pub fn place(&self) -> Option<(u32, u64)> {
        self.harts.place()
    }

    /// The first thing in which two states differ.
    pub fn first_difference(&self, other: &Self) -> Option<Difference> {
        let time = self.time_difference(other);
        time.or_else(|| self.harts.first_difference(&other.harts))
    }

    fn time_difference(&self, other: &Self) -> Option<Difference> {
        let items = |state: &Self| {
            [
                ("icount", state.icount.to_string()),
                ("anchor icount", state.clock.icount.to_string()),
                ("anchor mtime", state.clock.mtime.to_string()),
                ("anchor rate", state.clock.rate.to_string()),
                ("anchor span", state.clock.span.to_string()),
                ("halted", format!("{:?}", state.halted)),
                ("power-on", format!("{:?}", state.power_on)),
            ]
        };
        if (self.icount, self.clock, self.halted, self.power_on)
            == (other.icount, other.clock, other.halted, other.power_on)
        {
            return None;
        }
        (items(self).into_iter().zip(items(other))).find_map(|((item, left), (_, right))| {
            (left != right).then(|| Difference {
                item: item.to_owned(),
                hart: None,
                left,
                right,
            })
        })
    }
}

impl HartsState {
    fn first_difference(&self, other: &Self) -> Option<Difference> {
        if self == other {
            return None;
        }
        let (ours, theirs) = (value_of(self), value_of(other));
        let (mut ours, mut theirs) = (Fields(ours), Fields(theirs));
        let none = Value::Array(Vec::new());
        let (left, right) = (ours.take("harts"), theirs.take("harts"));
        let both = left.as_array().zip(right.as_array());
        let (left, right) = both.filter(|(a, b)| a.len() == b.len()).unzip();
        let harts = (left.into_iter().flatten()).zip(right.into_iter().flatten());
        for (id, (left, right)) in harts.enumerate() {
            if let Some(difference) = hart_difference(id as u32, left, right) {
                return Some(difference);
            }
        }
        // Number of harts, or what belongs to none: whose turn it is and until when.
        let mut rest = |field: &str, name: &str| {
            let (left, right) = (ours.take(field), theirs.take(field));
            first_in_values(name, &left, &right, Style::Decimal)
        };
        rest("status", "hart status")
            .or_else(|| rest("running", "running hart"))
            .or_else(|| rest("turn_end", "end of the turn"))
            .or_else(|| {
                first_in_values(
                    "number of harts",
                    &Value::from(self.count()),
                    &Value::from(other.count()),
                    Style::Decimal,
                )
            })
            .or_else(|| first_in_values("harts", &value_of(self), &none, Style::Decimal))
    }
}

/// The fields in which a hart's saved form is looked through; what is not named here comes last.
const HART_FIELDS: [&str; 9] = [
    "pc",
    "mode",
    "waiting",
    "x",
    "f",
    "fcsr",
    "csrs",
    "reservation",
    "counters",
];

fn hart_difference(id: u32, left: &Value, right: &Value) -> Option<Difference> {
    let (mut left, mut right) = (Fields(left.clone()), Fields(right.clone()));
    let mut found = HART_FIELDS.iter().find_map(|field| {
        let (left, right) = (left.take(field), right.take(field));
        let name = format!("hart {id} ");
        let element = |n: usize| match *field {
            "x" => register_name(n as u8 + 1, false).to_owned(),
            "f" => register_name(n as u8, true).to_owned(),
            "csrs" => CSR_NAMES.get(n).map_or(String::new(), |n| (*n).to_owned()),
            _ => ["cycle counter", "instret counter"]
                .get(n)
                .map_or(String::new(), |n| (*n).to_owned()),
        };
        if let ("x" | "f" | "csrs" | "counters", Value::Array(left), Value::Array(right)) =
            (*field, &left, &right)
            && left.len() == right.len()
        {
            return (left.iter().zip(right).enumerate()).find_map(|(n, (left, right))| {
                first_in_values(&(name.clone() + &element(n)), left, right, Style::Hex)
            });
        }
        first_in_values(&(name + field), &left, &right, Style::Hex)
    });
    if found.is_none() {
        found = first_in_values(&format!("hart {id}"), &left.0, &right.0, Style::Decimal);
    }
    found.map(|difference| Difference {
        hart: Some(id),
        ..difference
    })
}

/// Devices before the interrupt controllers, which follow them.
fn board_difference(left: &BoardState, right: &BoardState) -> Option<Difference> {
    if left == right {
        return None;
    }
    let (mut left, mut right) = (Fields(value_of(left)), Fields(value_of(right)));
    for device in ["uart", "rtc", "finisher"] {
        let (left, right) = (left.take(device), right.take(device));
        if let Some(found) = first_in_values(device, &left, &right, Style::Hex) {
            return Some(found);
        }
    }
    let (slots, other_slots) = (left.take("slots"), right.take("slots"));
    if let (Value::Array(slots), Value::Array(others)) = (&slots, &other_slots) {
        for (n, (left, right)) in slots.iter().zip(others).enumerate() {
            if let Some(found) = slot_difference(n, left, right) {
                return Some(found);
            }
        }
    }
    first_in_values("virtio slots", &slots, &other_slots, Style::Hex).or_else(|| {
        ["clint", "plic", "rom"].into_iter().find_map(|device| {
            let (left, right) = (left.take(device), right.take(device));
            first_in_values(device, &left, &right, Style::Hex)
        })
    })
}

/// A slot is saved as its kind and, inside, the registers and the device behind them.
fn slot_difference(n: usize, left: &Value, right: &Value) -> Option<Difference> {
    let inside = |slot: &Value| {
        let (kind, state) = slot.as_object()?.iter().next()?;
        Some((kind.clone(), Fields(state.clone())))
    };
    let name = format!("virtio slot {n}");
    match (inside(left), inside(right)) {
        (Some((kind, mut left)), Some((other, mut right))) if kind == other => {
            let name = format!("{name} ({}):", kind.to_lowercase());
            let (device, other) = (left.take("device"), right.take("device"));
            first_in_values(&name, &device, &other, Style::Hex)
                .or_else(|| first_in_values(&name, &left.0, &right.0, Style::Hex))
        }
        _ => first_in_values(&name, left, right, Style::Hex),
    }
}

/// An object whose fields are taken one after the other.
struct Fields(Value);

impl Fields {
    fn take(&mut self, field: &str) -> Value {
        let fields = self.0.as_object_mut();
        fields
            .and_then(|fields| fields.remove(field))
            .unwrap_or_default()
    }
}

fn value_of<T: Serialize>(state: &T) -> Value {
    match serde_json::to_value(state) {
        Ok(value) => value,
        Err(error) => unreachable!("a saved state has text keys only: {error}"),
    }
}

impl Machine {
    /// Everything but RAM, as it is now.
    pub fn state(&self) -> MachineState {
        MachineState {
            registers: self.moment().state(),
            board: self.board.save(),
        }
    }

    /// [`Machine::moment`] into a former one's memory.
    pub fn moment_into(&self, moment: &mut Moment) {
        moment.icount = self.icount;
        moment.clock = self.clock;
        moment.halted = self.halted;
        moment.power_on = self.power_on;
        moment.harts.clone_from(&self.harts);
    }

    /// Time and harts as they are now: little to copy, and nothing is encoded.
    pub fn moment(&self) -> Moment {
        Moment {
            icount: self.icount,
            clock: self.clock,
            halted: self.halted,
            power_on: self.power_on,
            harts: self.harts.clone(),
        }
    }

    /// The first difference in time and harts alone: quick enough to be asked after every step.
    pub fn first_register_difference(&self, other: &Machine) -> Option<Difference> {
        let quick = (self.icount, self.clock, self.halted)
            == (other.icount, other.clock, other.halted)
            && self.harts.save() == other.harts.save();
        if quick {
            return None;
        }
        self.state().first_difference(&other.state())
    }
}

/// The first thing in which two machines differ that should be equal: the same step, the same
/// records applied. Neither is changed by being compared, not even inside.
pub fn first_difference(left: &Machine, right: &Machine) -> Option<Difference> {
    left.state()
        .first_difference(&right.state())
        .or_else(|| ram_difference(left, right))
}

/// Time and harts of a machine at one moment.
pub struct Moment {
    icount: u64,
    clock: Clock,
    halted: Option<Halt>,
    power_on: PowerOn,
    harts: Harts,
}

impl Moment {
    /// To be compared, or encoded.
    pub fn state(&self) -> RegisterState {
        RegisterState {
            icount: self.icount,
            clock: self.clock,
            halted: self.halted,
            power_on: self.power_on,
            harts: self.harts.save(),
        }
    }
}

fn ram_difference(left: &Machine, right: &Machine) -> Option<Difference> {
    let (size, other) = (left.mem.ram_bytes(), right.mem.ram_bytes());
    if size != other {
        return Some(Difference {
            item: "RAM bytes".to_owned(),
            hart: None,
            left: size.to_string(),
            right: other.to_string(),
        });
    }
    let at = left.mem.first_difference(&right.mem)?;
    let page = (at - RAM_BASE) / PAGE_BYTES as u64;
    let bytes = |machine: &Machine| machine.mem.page(page as usize).map(<[u8]>::to_vec);
    page_difference(page as u32, &bytes(left)?, &bytes(right)?)
}

/// The first byte in which two contents of a page differ, `page` counted from the start of RAM.
pub fn page_difference(page: u32, left: &[u8], right: &[u8]) -> Option<Difference> {
    let offset = left.iter().zip(right).position(|(a, b)| a != b)?;
    // Whole aligned words: the neighbours tell what kind of value it is.
    let shown = offset & !(SHOWN_BYTES - 1);
    let bytes = |page: &[u8]| {
        let bytes = page.get(shown..).unwrap_or_default();
        hex(&bytes[..bytes.len().min(SHOWN_BYTES)])
    };
    let base = page_address(page);
    Some(Difference {
        item: format!(
            "RAM page {:#x}, offset {offset:#x} (physical address {:#x}, bytes from {:#x})",
            base / PAGE_BYTES as u64,
            base + offset as u64,
            base + shown as u64,
        ),
        hart: None,
        left: bytes(left),
        right: bytes(right),
    })
}

/// Physical address of a page that is counted from the start of RAM.
pub fn page_address(page: u32) -> u64 {
    RAM_BASE + u64::from(page) * PAGE_BYTES as u64
}

/// Bytes as people read them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(" ")
}

#[cfg(test)]
mod tests;
