//! Power-on: what lies in RAM and in the reset ROM, and where the harts start.
//!
//! Two ways in. A kernel alone starts in supervisor mode, set up as SBI firmware would leave it,
//! and the machine answers its SBI calls. With firmware, harts start in machine mode in the reset
//! ROM, which passes on to the firmware as QEMU's `virt` board does: a0 = hart id, a1 = device
//! tree, a2 = OpenSBI's `struct fw_dynamic_info`.

use crate::config::{MachineConfig, PowerOn};
use crate::fdt;
use crate::harts::{HartStatus, Harts};
use crate::image::ImageKind;
use crate::loader::{self, LoadError, LoadPlan};
use crate::machine::MachineError;
use std::ops::Range;
use twinvm_cpu::Hart;
use twinvm_devices::map::ROM_BASE;
use twinvm_mem::{Memory, PAGE_SHIFT, RAM_BASE};

/// `struct fw_dynamic_info` begins here in the reset ROM (OpenSBI, docs/firmware/fw_dynamic.md).
const INFO_OFFSET: u64 = 0x28;
/// "OSBI".
const INFO_MAGIC: u64 = 0x4942_534f;
const INFO_VERSION: u64 = 2;
/// The next stage runs in supervisor mode.
const INFO_NEXT_MODE: u64 = 1;
const INFO_OPTIONS: u64 = 0;
const INFO_BOOT_HART: u64 = 0;

/// What the reset ROM executes; the words behind it are `entry`, the tree's address and the info.
const ROM_CODE: [u32; 6] = [
    0x0000_0297, // auipc t0, 0
    // addi a2, t0, INFO_OFFSET
    (INFO_OFFSET as u32) << 20 | 0x0002_8613,
    0xf140_2573, // csrr a0, mhartid
    0x0202_b583, // ld a1, 32(t0)
    0x0182_b283, // ld t0, 24(t0)
    0x0002_8067, // jr t0
];

/// Everything that a power-on or a reset puts into place.
pub(crate) struct Boot {
    plan: LoadPlan,
    tree: Vec<u8>,
    firmware: bool,
}

impl Boot {
    pub(crate) fn new(config: &MachineConfig, power_on: &PowerOn) -> Result<Self, MachineError> {
        let images = &config.images;
        let plan = loader::plan(images, config.ram_bytes)?;
        let tree = device_tree(config, &plan, Some(power_on.rng_seed))?;
        Ok(Self {
            plan,
            tree,
            firmware: images.has(ImageKind::Firmware),
        })
    }

    /// Contents of the reset ROM; without firmware there is none.
    pub(crate) fn rom(&self) -> Vec<u8> {
        if !self.firmware {
            return Vec::new();
        }
        let words = [
            self.plan.entry,
            self.plan.fdt_addr,
            INFO_MAGIC,
            INFO_VERSION,
            self.plan.next.unwrap_or(0),
            INFO_NEXT_MODE,
            INFO_OPTIONS,
            INFO_BOOT_HART,
        ];
        let mut rom: Vec<u8> = ROM_CODE.into_iter().flat_map(u32::to_le_bytes).collect();
        rom.extend(words.into_iter().flat_map(u64::to_le_bytes));
        rom
    }

    /// Puts the images and the device tree into RAM, which is zeroed.
    pub(crate) fn load(
        &self,
        config: &MachineConfig,
        mem: &mut Memory,
    ) -> Result<(), MachineError> {
        let all = 0..mem.pages() as u32;
        self.load_pages(config, mem, std::slice::from_ref(&all))?;
        mem.mark_loaded(all);
        Ok(())
    }

    /// Puts into these pages of RAM, which are zeroed, what [`Boot::load`] puts there.
    pub(crate) fn load_pages(
        &self,
        config: &MachineConfig,
        mem: &mut Memory,
        pages: &[Range<u32>],
    ) -> Result<(), MachineError> {
        // One for all pieces: the host need not find memory for each.
        let mut piece = Vec::new();
        for kind in [ImageKind::Firmware, ImageKind::Kernel, ImageKind::Initrd] {
            for (range, unpack) in config.images.ranges(kind) {
                // What of this piece goes where.
                let parts: Vec<(u64, Range<usize>)> = self
                    .places(kind)
                    .filter_map(|(pa, of_file)| {
                        let part = range.start.max(of_file.start)..range.end.min(of_file.end);
                        let pa = pa + part.start.saturating_sub(of_file.start) as u64;
                        let wanted = clip(pa, part.len(), pages).next().is_some();
                        wanted.then(|| (pa, part.start - range.start..part.end - range.start))
                    })
                    .collect();
                if parts.is_empty() {
                    continue;
                }
                unpack(&mut piece);
                for (pa, part) in parts {
                    self.store(mem, pa, &piece[part], pages)?;
                }
            }
        }
        self.store(mem, self.plan.fdt_addr, &self.tree, pages)
    }

    /// Where parts of a file go: physical address, and range of the file.
    fn places(&self, kind: ImageKind) -> impl Iterator<Item = (u64, Range<usize>)> {
        let segments = self.plan.segments.iter().filter(move |s| s.image == kind);
        let initrd = self.plan.initrd.filter(|_| kind == ImageKind::Initrd);
        let initrd = initrd.map(|(from, to)| (from, 0..(to - from) as usize));
        segments.map(|s| (s.pa, s.range.clone())).chain(initrd)
    }

    /// Stores what of `bytes` lies in `pages`.
    fn store(
        &self,
        mem: &mut Memory,
        pa: u64,
        bytes: &[u8],
        pages: &[Range<u32>],
    ) -> Result<(), MachineError> {
        let does_not_fit =
            |_| MachineError::DeviceTree(format!("{} bytes do not fit", self.tree.len()));
        mem.slice(pa, bytes.len()).map_err(does_not_fit)?;
        for part in clip(pa, bytes.len(), pages) {
            mem.store(pa + part.start as u64, &bytes[part])
                .map_err(does_not_fit)?;
        }
        Ok(())
    }

    /// The harts as they start. Without firmware the first one enters the kernel, which starts
    /// the others through the SBI.
    pub(crate) fn harts(&self, count: u32) -> Harts {
        let hart = |id: u32| {
            if self.firmware {
                return (Hart::new(u64::from(id), ROM_BASE), HartStatus::Started);
            }
            let mut hart = Hart::new(u64::from(id), self.plan.entry);
            if id > 0 {
                return (hart, HartStatus::Stopped);
            }
            hart.enter_supervisor(self.plan.entry, self.plan.fdt_addr);
            (hart, HartStatus::Started)
        };
        let (harts, status) = (0..count).map(hart).unzip();
        Harts::new(harts, status)
    }
}

/// The tree that was given, or the machine's own.
fn device_tree(
    config: &MachineConfig,
    plan: &LoadPlan,
    rng_seed: Option<[u8; 32]>,
) -> Result<Vec<u8>, MachineError> {
    if let Some(tree) = config.images.unpack(ImageKind::DeviceTree) {
        fdt::check_given(&tree).map_err(|problem| LoadError::File {
            image: ImageKind::DeviceTree,
            problem,
        })?;
        return Ok(tree);
    }
    fdt::build(fdt::FdtConfig {
        ram_bytes: config.ram_bytes,
        harts: config.harts,
        cmdline: &config.cmdline,
        initrd: plan.initrd,
        rng_seed,
    })
    .map_err(|error| MachineError::DeviceTree(error.to_string()))
}

impl MachineConfig {
    /// The device tree that a guest of this configuration gets; of the machine's own, all but the
    /// `rng-seed`, which is drawn at each power-on.
    ///
    /// # Errors
    /// As [`crate::Machine::new`].
    pub fn device_tree(&self) -> Result<Vec<u8>, MachineError> {
        device_tree(self, &loader::plan(&self.images, self.ram_bytes)?, None)
    }
}

/// The parts of `len` bytes at `pa` that lie in `pages`, as ranges of these bytes.
fn clip(pa: u64, len: usize, pages: &[Range<u32>]) -> impl Iterator<Item = Range<usize>> {
    let offset = move |page: u32| {
        let at = RAM_BASE + (u64::from(page) << PAGE_SHIFT);
        usize::try_from(at.saturating_sub(pa)).map_or(len, |at| at.min(len))
    };
    let parts = pages
        .iter()
        .map(move |run| offset(run.start)..offset(run.end));
    parts.filter(|part| !part.is_empty())
}
