//! Loads and stores of a block that go to one page together: the first of them checks
//! the page for all.
//!
//! Code reads and writes fields of one object, and its frame on the stack, at small
//! displacements from a register that stays as it is, or moves by constants. The first
//! access of such a group, its leader, looks whether all the bytes from the group's
//! lowest to its highest are in one page whose data entry allows what the group does.
//! The others take its word. If it says no, the block goes on out of line, where each
//! access is checked on its own, up to where no group is under way.
//!
//! It holds for the rest of the group, because what could take an entry back ends the
//! block ([`twinvm_cpu::tier::Window::interpret`]), and what might is in no group.

use super::words::{is_branch, written};
use twinvm_cpu::tier::{DecodedOp as Op, Kind};

/// Groups that can be under way at once, with a place on the stack each.
pub(super) const SLOTS: usize = 8;
/// Most bytes from a group's lowest to its highest: the larger, the more often they
/// are in two pages.
const MOST_BYTES: i32 = 512;
/// Integer registers, and the one for writes to x0.
const REGISTERS: usize = 33;
/// Farthest from what the base was at the leader.
const FARTHEST: i32 = 1 << 16;

/// How an op of a block makes its access, if it makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Checked on its own.
    Alone,
    /// Checks `low..high`, from the base's value, and leaves what is to be added to
    /// addresses in RDX, and on the stack if there is a slot.
    Leader {
        low: i32,
        high: i32,
        store: bool,
        slot: Option<u8>,
    },
    /// Finds in RDX what is to be added, unless it is to be taken from the stack.
    Member { from: Option<u8> },
}

/// A part of a block in which some group is under way at each op.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) last: usize,
}

/// What is known of a block's accesses.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Of each op; empty: all are alone.
    pub(super) roles: Vec<Role>,
    /// In their order.
    pub(super) spans: Vec<Span>,
}

impl Plan {
    pub(super) fn role(&self, k: usize) -> Role {
        self.roles.get(k).copied().unwrap_or(Role::Alone)
    }

    /// True if a span begins with op `k`.
    pub(super) fn span_from(&self, k: usize) -> bool {
        self.spans.iter().any(|span| span.first == k)
    }

    /// True if a span ends with op `k`.
    pub(super) fn span_until(&self, k: usize) -> bool {
        self.spans.iter().any(|span| span.last == k)
    }
}

/// An access of an op: its bytes, and whether it is a store.
fn access(kind: Kind) -> Option<(i32, bool)> {
    use Kind::*;
    Some(match kind {
        Lb | Lbu => (1, false),
        Lh | Lhu => (2, false),
        Lw | Lwu | Flw => (4, false),
        Ld | Fld => (8, false),
        Sb => (1, true),
        Sh => (2, true),
        Sw | Fsw => (4, true),
        Sd | Fsd => (8, true),
        _ => return None,
    })
}

/// True if a group can go on after the op: it changes nothing but registers, or is an
/// access.
fn goes_on(kind: Kind) -> bool {
    use Kind::*;
    let kind = kind as u8;
    let registers = kind <= CzeroNez as u8;
    let accesses = (Lb as u8..=Fsd as u8).contains(&kind);
    let branches = (Beq as u8..=Bgeu as u8).contains(&kind);
    let floats = (FaddS as u8..=FnmaddD as u8).contains(&kind);
    registers || accesses || branches || floats
}

fn is_float_access(kind: Kind) -> bool {
    use Kind::*;
    matches!(kind, Flw | Fld | Fsw | Fsd)
}

/// True if RDX is after the op what it was before; an access says so itself.
fn keeps_rdx(kind: Kind) -> bool {
    use Kind::*;
    is_branch(kind)
        || matches!(
            kind,
            Nop | Li
                | Auipc
                | Addi
                | Slti
                | Sltiu
                | Xori
                | Ori
                | Andi
                | Slli
                | Srli
                | Srai
                | Addiw
                | Slliw
                | Srliw
                | Sraiw
                | Add
                | Sub
                | Sll
                | Slt
                | Sltu
                | Xor
                | Srl
                | Sra
                | Or
                | And
                | Addw
                | Subw
                | Sllw
                | Srlw
                | Sraw
                | Mul
                | Mulw
                | AddUw
                | Sh1add
                | Sh2add
                | Sh3add
                | Sh1addUw
                | Sh2addUw
                | Sh3addUw
                | SlliUw
                | Andn
                | Orn
                | Xnor
                | Max
                | Maxu
                | Min
                | Minu
                | SextB
                | SextH
                | ZextH
                | Rol
                | Ror
                | Rori
                | Rolw
                | Rorw
                | Roriw
                | Rev8
                | Bclr
                | Bclri
                | Bext
                | Bexti
                | Binv
                | Binvi
                | Bset
                | Bseti
        )
}

/// A group in the making.
#[derive(Debug, Clone, Copy)]
struct Group {
    /// What the base has moved by since the leader.
    moved: i32,
    leader: usize,
    last: usize,
    low: i32,
    high: i32,
    members: usize,
    store: bool,
    slot: Option<u8>,
}

/// Looks at all accesses of a block.
pub(super) fn plan(ops: &[Op]) -> Plan {
    let (groups, of) = gather(ops);
    if groups.iter().all(|group| group.members < 2) {
        return Plan::default();
    }
    assign(ops, groups, &of)
}

/// The groups, and to which each op belongs.
fn gather(ops: &[Op]) -> (Vec<Group>, Vec<Option<usize>>) {
    let mut groups: Vec<Group> = Vec::new();
    let mut of = vec![None; ops.len()];
    // The group that an access with this base may join.
    let mut open = [None; REGISTERS];
    let mut last_branch = 0;
    for (k, op) in ops.iter().enumerate() {
        if !goes_on(op.kind) {
            open = [None; REGISTERS];
            continue;
        }
        if is_branch(op.kind) {
            last_branch = k;
        }
        if let Some((size, store)) = access(op.kind)
            && op.rs1 != 0
        {
            let current = &mut open[usize::from(op.rs1)];
            let joins = |at: &usize| groups[*at].join(k, op.imm, size, store, last_branch);
            let joined = (*current).filter(joins);
            let at = joined.unwrap_or(groups.len());
            if joined.is_none() {
                groups.push(Group::new(k, op.imm, size, store));
            }
            (*current, of[k]) = (Some(at), Some(at));
        }
        let rd = op.rd;
        if written(op) != 0
            && let Some(at) = open[usize::from(rd)]
        {
            let group: &mut Group = &mut groups[at];
            if op.kind == Kind::Addi && op.rs1 == rd && group.moved.abs() < FARTHEST {
                group.moved += op.imm;
            } else {
                open[usize::from(rd)] = None;
            }
        }
    }
    (groups, of)
}

impl Group {
    fn new(k: usize, imm: i32, size: i32, store: bool) -> Self {
        Self {
            moved: 0,
            leader: k,
            last: k,
            low: imm,
            high: imm + size,
            members: 1,
            store,
            slot: None,
        }
    }

    /// True if the access has become one of the group.
    fn join(&mut self, k: usize, imm: i32, size: i32, store: bool, last_branch: usize) -> bool {
        // A page that is stored to only on some other way may take no fast stores.
        if store && !self.store && last_branch > self.leader {
            return false;
        }
        let low = self.low.min(self.moved + imm);
        let high = self.high.max(self.moved + imm + size);
        if high - low > MOST_BYTES {
            return false;
        }
        (self.low, self.high, self.last) = (low, high, k);
        self.members += 1;
        self.store |= store;
        true
    }
}

/// Who checks for whom, and where what is to be added is found.
fn assign(ops: &[Op], mut groups: Vec<Group>, of: &[Option<usize>]) -> Plan {
    let mut plan = Plan {
        roles: vec![Role::Alone; ops.len()],
        spans: Vec::new(),
    };
    // The group whose number to add is in RDX.
    let mut in_rdx = None;
    let mut from_stack = vec![false; ops.len()];
    let mut float = false;
    for (k, op) in ops.iter().enumerate() {
        // The first may have to load the guest's floating-point state, and uses RDX for it:
        // of the instructions before, those that the interpreter does have not.
        if !float && is_float_access(op.kind) {
            float = true;
            in_rdx = None;
        }
        match of[k].filter(|at| groups[*at].members > 1) {
            Some(at) => {
                from_stack[k] = groups[at].leader != k && in_rdx != Some(at);
                in_rdx = Some(at);
            }
            None if keeps_rdx(op.kind) => {}
            None => in_rdx = None,
        }
    }
    // Until when each slot is taken.
    let mut taken = [None; SLOTS];
    for (k, at) in of.iter().enumerate() {
        let Some(at) = at.filter(|at| groups[*at].members > 1) else {
            continue;
        };
        let group = &mut groups[at];
        if group.leader == k {
            let mut rest = k + 1..=group.last;
            if rest.any(|k| of[k] == Some(at) && from_stack[k]) {
                let free = taken
                    .iter()
                    .position(|last| last.is_none_or(|last| last < k));
                let Some(slot) = free else {
                    // Each for itself.
                    group.members = 0;
                    continue;
                };
                taken[slot] = Some(group.last);
                group.slot = Some(slot as u8);
            }
            plan.roles[k] = Role::Leader {
                low: group.low,
                high: group.high,
                store: group.store,
                slot: group.slot,
            };
            match plan.spans.last_mut() {
                Some(span) if span.last >= k => span.last = span.last.max(group.last),
                _ => plan.spans.push(Span {
                    first: k,
                    last: group.last,
                }),
            }
        } else {
            plan.roles[k] = Role::Member {
                from: group.slot.filter(|_| from_stack[k]),
            };
        }
    }
    plan
}
