//! Physical memory protection (RISC-V Privileged Architecture, section 3.7):
//! 16 entries, a grain of 4 bytes.

/// Entries implemented.
pub(crate) const ENTRIES: usize = 16;

/// Bits of an entry's configuration, and of what is allowed somewhere.
pub(crate) mod perm {
    pub(crate) const R: u8 = 1;
    pub(crate) const W: u8 = 2;
    pub(crate) const X: u8 = 4;
    pub(crate) const ALL: u8 = R | W | X;
}

const MODE_SHIFT: u32 = 3;
const MODE: u8 = 3 << MODE_SHIFT;
const TOR: u8 = 1 << MODE_SHIFT;
const NA4: u8 = 2 << MODE_SHIFT;
const NAPOT: u8 = 3 << MODE_SHIFT;
const LOCKED: u8 = 1 << 7;
/// pmpaddr holds bits 55:2 of an address.
const ADDR_MASK: u64 = (1 << 54) - 1;
/// The end of physical addresses.
const END: u64 = 1 << 56;

/// The PMP registers of a hart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pmp {
    cfg: [u8; ENTRIES],
    addr: [u64; ENTRIES],
}

/// What a byte of pmpcfg holds after `value` is written: bits 5 and 6 don't
/// exist, and write without read is reserved: it loses the write.
fn legal_cfg(value: u8) -> u8 {
    let value = value & (LOCKED | MODE | perm::ALL);
    if value & (perm::R | perm::W) == perm::W {
        value & !perm::W
    } else {
        value
    }
}

impl Pmp {
    /// All entries off, as at reset: S and U may access nothing.
    pub(crate) fn new() -> Self {
        Self {
            cfg: [0; ENTRIES],
            addr: [0; ENTRIES],
        }
    }

    /// Entry 0 allows everything, as firmware leaves it for a supervisor.
    pub(crate) fn open() -> Self {
        let mut pmp = Self::new();
        pmp.cfg[0] = NAPOT | perm::ALL;
        pmp.addr[0] = ADDR_MASK;
        pmp
    }

    /// The registers pmpcfg0 (`half` 0) and pmpcfg2 (1).
    pub(crate) fn cfg(&self, half: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.cfg[8 * (half & 1)..][..8]);
        u64::from_le_bytes(bytes)
    }

    /// Writes pmpcfg0 or pmpcfg2; locked entries stay as they are.
    pub(crate) fn write_cfg(&mut self, half: usize, value: u64) {
        let entries = &mut self.cfg[8 * (half & 1)..][..8];
        for (entry, new) in entries.iter_mut().zip(value.to_le_bytes()) {
            if *entry & LOCKED == 0 {
                *entry = legal_cfg(new);
            }
        }
    }

    pub(crate) fn addr(&self, n: usize) -> u64 {
        self.addr[n % ENTRIES]
    }

    /// Writes pmpaddr`n`, unless it is locked by its own entry or as the lower
    /// bound of a locked TOR entry.
    pub(crate) fn write_addr(&mut self, n: usize, value: u64) {
        let own = self.cfg[n] & LOCKED != 0;
        let bound = self
            .cfg
            .get(n + 1)
            .is_some_and(|next| next & LOCKED != 0 && next & MODE == TOR);
        if !own && !bound {
            self.addr[n] = value & ADDR_MASK;
        }
    }

    /// The registers with these values; `None` if they cannot hold them.
    pub(crate) fn restore(cfg: [u64; 2], addr: [u64; ENTRIES]) -> Option<Self> {
        let mut pmp = Self::new();
        let bytes = cfg.iter().flat_map(|half| half.to_le_bytes());
        for (entry, value) in pmp.cfg.iter_mut().zip(bytes) {
            *entry = value;
        }
        pmp.addr = addr;
        let legal = pmp.cfg.iter().all(|cfg| legal_cfg(*cfg) == *cfg)
            && addr.iter().all(|addr| addr & !ADDR_MASK == 0);
        legal.then_some(pmp)
    }

    /// First byte of an entry's region and the byte after its last.
    fn region(&self, n: usize) -> Option<(u64, u64)> {
        let addr = self.addr[n];
        let (start, end) = match self.cfg[n] & MODE {
            TOR => {
                let bottom = n.checked_sub(1).map_or(0, |below| self.addr[below]);
                (bottom << 2, addr << 2)
            }
            NA4 => (addr << 2, (addr << 2) + 4),
            NAPOT => {
                // Trailing ones give the size: 2^(ones + 3) bytes.
                let low = addr ^ addr.wrapping_add(1);
                let start = (addr & !low) << 2;
                (start, start + ((low + 1) << 2))
            }
            _ => return None,
        };
        (start < end).then_some((start, end.min(END)))
    }

    /// What M-mode (`machine`) or S and U may do, address by address.
    pub(crate) fn map(&self, machine: bool) -> PmpMap {
        let entries: [Option<(u64, u64)>; ENTRIES] = std::array::from_fn(|n| self.region(n));
        let mut bounds = vec![0];
        for (start, end) in entries.iter().flatten() {
            bounds.extend([*start, *end]);
        }
        bounds.retain(|bound| *bound < END);
        bounds.sort_unstable();
        bounds.dedup();
        let mut regions: Vec<Region> = Vec::with_capacity(bounds.len());
        let mut last = None;
        for start in bounds {
            // The lowest-numbered entry decides.
            let entry = entries
                .iter()
                .position(|e| e.is_some_and(|(from, to)| from <= start && start < to));
            if last == Some(entry) {
                continue;
            }
            last = Some(entry);
            let allowed = match entry.map(|n| self.cfg[n]) {
                Some(cfg) if machine && cfg & LOCKED == 0 => perm::ALL,
                Some(cfg) => cfg & perm::ALL,
                None if machine => perm::ALL,
                None => 0,
            };
            regions.push(Region { start, allowed });
        }
        PmpMap { regions }
    }
}

/// From here to the next region's start one entry decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    start: u64,
    allowed: u8,
}

/// The physical address space, cut where another entry decides. Regions with
/// equal rights stay apart: an access that is partly in each faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PmpMap {
    /// Sorted; the first starts at 0.
    regions: Vec<Region>,
}

impl PmpMap {
    /// Everything is allowed everywhere.
    pub(crate) fn open() -> Self {
        Self {
            regions: vec![Region {
                start: 0,
                allowed: perm::ALL,
            }],
        }
    }

    /// What is allowed for all of `len` bytes from `pa` by the one entry that
    /// decides there; `None` if more than one has a say.
    fn uniform(&self, pa: u64, len: u64) -> Option<u8> {
        let after = self.regions.partition_point(|region| region.start <= pa);
        let region = self.regions.get(after.checked_sub(1)?)?;
        let end = self.regions.get(after).map_or(END, |next| next.start);
        (pa < end && len <= end - pa).then_some(region.allowed)
    }

    /// What an access of `len` bytes at `pa` may do: nothing, if the deciding
    /// entry doesn't match all its bytes.
    pub(crate) fn allowed(&self, pa: u64, len: u64) -> u8 {
        self.uniform(pa, len).unwrap_or(0)
    }

    /// What is allowed in a whole page, if it is the same for each access there.
    pub(crate) fn page(&self, page: u64) -> Option<u8> {
        self.uniform(page, twinvm_mem::PAGE_BYTES as u64)
    }
}

#[cfg(test)]
mod tests;
