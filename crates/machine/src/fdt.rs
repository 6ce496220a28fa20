//! The device tree: QEMU's `virt` board, as far as this machine has its parts.
//!
//! Names, properties and values are those of QEMU's own tree for the board (bindings in the
//! Linux kernel's Documentation/devicetree). Virtio slots and harts come in ascending order,
//! so a guest numbers its disks and network cards by slot.

use crate::loader::FileProblem;
use twinvm_cpu::{CACHE_BLOCK_BYTES, EXTENSIONS, TICKS_PER_SECOND};
use twinvm_devices::MAX_HARTS;
use twinvm_devices::map::{self, VIRTIO_SLOTS};
use twinvm_mem::RAM_BASE;
use vm_fdt::FdtWriter;

/// The most bytes a tree may take; the loader keeps that much free for it.
pub(crate) const MAX_FDT_BYTES: u64 = 64 * 1024;
/// The longest command line: Linux on RISC-V reads 1024 bytes with the final zero and drops
/// the rest without a word.
const MAX_CMDLINE_BYTES: usize = 1023;

/// First word of a flattened tree, big-endian.
const FDT_MAGIC: u32 = 0xd00d_feed;
const FDT_HEADER_BYTES: u64 = 40;

const PHANDLE_PLIC: u32 = 1;
const PHANDLE_FINISHER: u32 = 2;
/// Phandle of hart 0's interrupt controller; those of the other harts follow.
const PHANDLE_FIRST_INTC: u32 = 3;

// Local interrupt numbers (RISC-V privileged architecture, mcause).
const IRQ_M_SOFT: u32 = 3;
const IRQ_M_TIMER: u32 = 7;
const IRQ_S_EXT: u32 = 9;
const IRQ_M_EXT: u32 = 11;

const UART_CLOCK_HZ: u32 = 3_686_400;
const FINISHER_POWEROFF: u32 = 0x5555;
const FINISHER_REBOOT: u32 = 0x7777;
const SERIAL_PATH: &str = "/soc/serial@10000000";

/// What one machine's tree says in place of another's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FdtConfig<'a> {
    /// Size of RAM in bytes.
    pub(crate) ram_bytes: u64,
    /// Number of harts, 1 to [`MAX_HARTS`].
    pub(crate) harts: u32,
    /// Command line of the kernel, at most [`MAX_CMDLINE_BYTES`].
    pub(crate) cmdline: &'a str,
    /// Where the initial RAM disk starts and ends, if there is one.
    pub(crate) initrd: Option<(u64, u64)>,
    /// Seed of the kernel's random number generator.
    pub(crate) rng_seed: Option<[u8; 32]>,
}

/// Why there is no tree for a configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FdtError {
    /// Too long for the kernel to read.
    #[error(
        "the kernel command line has {len} bytes, Linux reads at most {MAX_CMDLINE_BYTES}: shorten it"
    )]
    CmdlineTooLong {
        /// Its length.
        len: usize,
    },
    /// A zero byte would end the command line early.
    #[error("the kernel command line has a zero byte at offset {at}: remove it")]
    CmdlineZero {
        /// Where.
        at: usize,
    },
    /// No hart, or too many.
    #[error("harts = {0}, allowed are 1 to {MAX_HARTS}")]
    Harts(u32),
    /// The tree is too long.
    #[error("the device tree takes {len} bytes, allowed are {MAX_FDT_BYTES}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The writer refused something that the checks above let through.
    #[error("device tree writer: {0}")]
    Writer(#[from] vm_fdt::Error),
}

/// Writes the tree as a flattened device tree (Devicetree Specification 0.4, chapter 5).
///
/// # Errors
/// [`FdtError`], naming what is out of bounds.
pub(crate) fn build(config: FdtConfig<'_>) -> Result<Vec<u8>, FdtError> {
    check(&config)?;
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_string("compatible", "riscv-virtio")?;
    fdt.property_string("model", "riscv-virtio,twinvm")?;
    chosen(&mut fdt, &config)?;
    let aliases = fdt.begin_node("aliases")?;
    fdt.property_string("serial0", SERIAL_PATH)?;
    fdt.end_node(aliases)?;
    let memory = fdt.begin_node(&format!("memory@{RAM_BASE:x}"))?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &[RAM_BASE, config.ram_bytes])?;
    fdt.end_node(memory)?;
    cpus(&mut fdt, config.harts)?;
    syscon(&mut fdt, "poweroff", "syscon-poweroff", FINISHER_POWEROFF)?;
    syscon(&mut fdt, "reboot", "syscon-reboot", FINISHER_REBOOT)?;
    soc(&mut fdt, config.harts)?;
    fdt.end_node(root)?;
    let tree = fdt.finish()?;
    if tree.len() as u64 > MAX_FDT_BYTES {
        return Err(FdtError::TooLong { len: tree.len() });
    }
    Ok(tree)
}

/// Checks a tree that was given in place of the machine's own, as far as it matters here: the
/// head of the flattened form (Devicetree Specification 0.4, section 5.2), and that it fits.
///
/// # Errors
/// [`FileProblem`], with what to do about it.
pub(crate) fn check_given(tree: &[u8]) -> Result<(), FileProblem> {
    let word = |at: usize| Some(u32::from_be_bytes(*tree.get(at..)?.first_chunk()?));
    if word(0) != Some(FDT_MAGIC) {
        return Err(FileProblem::NoTree);
    }
    let have = tree.len() as u64;
    let need = word(4)
        .map_or(FDT_HEADER_BYTES, u64::from)
        .max(FDT_HEADER_BYTES);
    if need > have {
        return Err(FileProblem::Truncated { have, need });
    }
    if have > MAX_FDT_BYTES {
        return Err(FileProblem::TooLong {
            have,
            most: MAX_FDT_BYTES,
        });
    }
    Ok(())
}

fn check(config: &FdtConfig<'_>) -> Result<(), FdtError> {
    let len = config.cmdline.len();
    if len > MAX_CMDLINE_BYTES {
        return Err(FdtError::CmdlineTooLong { len });
    }
    if let Some(at) = config.cmdline.bytes().position(|byte| byte == 0) {
        return Err(FdtError::CmdlineZero { at });
    }
    if config.harts == 0 || config.harts as usize > MAX_HARTS {
        return Err(FdtError::Harts(config.harts));
    }
    Ok(())
}

fn chosen(fdt: &mut FdtWriter, config: &FdtConfig<'_>) -> Result<(), FdtError> {
    let node = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", config.cmdline)?;
    fdt.property_string("stdout-path", SERIAL_PATH)?;
    if let Some((start, end)) = config.initrd {
        fdt.property_u64("linux,initrd-start", start)?;
        fdt.property_u64("linux,initrd-end", end)?;
    }
    if let Some(seed) = &config.rng_seed {
        fdt.property("rng-seed", seed)?;
    }
    fdt.end_node(node)?;
    Ok(())
}

fn cpus(fdt: &mut FdtWriter, harts: u32) -> Result<(), FdtError> {
    let isa = isa_string();
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    fdt.property_u32("timebase-frequency", TICKS_PER_SECOND as u32)?;
    for hart in 0..harts {
        let cpu = fdt.begin_node(&format!("cpu@{hart:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_u32("reg", hart)?;
        fdt.property_string("status", "okay")?;
        fdt.property_string("compatible", "riscv")?;
        fdt.property_string("riscv,isa", &isa)?;
        fdt.property_string("riscv,isa-base", "rv64i")?;
        string_list(fdt, "riscv,isa-extensions", EXTENSIONS)?;
        fdt.property_u32("riscv,cbom-block-size", CACHE_BLOCK_BYTES as u32)?;
        fdt.property_u32("riscv,cboz-block-size", CACHE_BLOCK_BYTES as u32)?;
        fdt.property_string("mmu-type", "riscv,sv48")?;
        let intc = fdt.begin_node("interrupt-controller")?;
        fdt.property_u32("#interrupt-cells", 1)?;
        fdt.property_null("interrupt-controller")?;
        fdt.property_string("compatible", "riscv,cpu-intc")?;
        fdt.property_phandle(PHANDLE_FIRST_INTC + hart)?;
        fdt.end_node(intc)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(cpus)?;
    Ok(())
}

/// `rv64` with the single letters, then the longer names, each behind an underscore.
fn isa_string() -> String {
    let mut isa = String::from("rv64");
    for name in EXTENSIONS {
        if name.len() > 1 {
            isa.push('_');
        }
        isa.push_str(name);
    }
    isa
}

fn syscon(fdt: &mut FdtWriter, name: &str, compatible: &str, value: u32) -> Result<(), FdtError> {
    let node = fdt.begin_node(name)?;
    fdt.property_string("compatible", compatible)?;
    fdt.property_u32("regmap", PHANDLE_FINISHER)?;
    fdt.property_u32("offset", 0)?;
    fdt.property_u32("value", value)?;
    fdt.end_node(node)?;
    Ok(())
}

fn soc(fdt: &mut FdtWriter, harts: u32) -> Result<(), FdtError> {
    let soc = fdt.begin_node("soc")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_string("compatible", "simple-bus")?;
    fdt.property_null("ranges")?;

    let test = begin_device(fdt, "test", map::FINISHER_BASE, map::FINISHER_SIZE)?;
    compatible(fdt, &["sifive,test1", "sifive,test0", "syscon"])?;
    fdt.property_phandle(PHANDLE_FINISHER)?;
    fdt.end_node(test)?;

    let rtc = begin_device(fdt, "rtc", map::RTC_BASE, map::RTC_SIZE)?;
    compatible(fdt, &["google,goldfish-rtc"])?;
    interrupt(fdt, map::RTC_IRQ)?;
    fdt.end_node(rtc)?;

    let clint = begin_device(fdt, "clint", map::CLINT_BASE, map::CLINT_SIZE)?;
    compatible(fdt, &["sifive,clint0", "riscv,clint0"])?;
    let lines = local_interrupts(harts, [IRQ_M_SOFT, IRQ_M_TIMER]);
    fdt.property_array_u32("interrupts-extended", &lines)?;
    fdt.end_node(clint)?;

    let plic = begin_device(fdt, "plic", map::PLIC_BASE, map::PLIC_SIZE)?;
    compatible(fdt, &["sifive,plic-1.0.0", "riscv,plic0"])?;
    fdt.property_u32("#address-cells", 0)?;
    fdt.property_u32("#interrupt-cells", 1)?;
    fdt.property_null("interrupt-controller")?;
    let lines = local_interrupts(harts, [IRQ_M_EXT, IRQ_S_EXT]);
    fdt.property_array_u32("interrupts-extended", &lines)?;
    fdt.property_u32("riscv,ndev", map::PLIC_SOURCES)?;
    fdt.property_phandle(PHANDLE_PLIC)?;
    fdt.end_node(plic)?;

    let serial = begin_device(fdt, "serial", map::UART_BASE, map::UART_SIZE)?;
    compatible(fdt, &["ns16550a"])?;
    fdt.property_u32("clock-frequency", UART_CLOCK_HZ)?;
    interrupt(fdt, map::UART_IRQ)?;
    fdt.end_node(serial)?;

    for slot in 0..VIRTIO_SLOTS {
        let base = map::virtio_base(slot);
        let virtio = begin_device(fdt, "virtio_mmio", base, map::VIRTIO_STRIDE)?;
        compatible(fdt, &["virtio,mmio"])?;
        interrupt(fdt, map::virtio_irq(slot))?;
        fdt.end_node(virtio)?;
    }
    fdt.end_node(soc)?;
    Ok(())
}

fn begin_device(
    fdt: &mut FdtWriter,
    name: &str,
    base: u64,
    bytes: u64,
) -> Result<vm_fdt::FdtWriterNode, FdtError> {
    let node = fdt.begin_node(&format!("{name}@{base:x}"))?;
    fdt.property_array_u64("reg", &[base, bytes])?;
    Ok(node)
}

fn compatible(fdt: &mut FdtWriter, names: &[&str]) -> Result<(), FdtError> {
    string_list(fdt, "compatible", names)
}

fn string_list(fdt: &mut FdtWriter, property: &str, strings: &[&str]) -> Result<(), FdtError> {
    let strings = strings.iter().map(|&string| string.to_owned()).collect();
    fdt.property_string_list(property, strings)?;
    Ok(())
}

fn interrupt(fdt: &mut FdtWriter, irq: u32) -> Result<(), FdtError> {
    fdt.property_u32("interrupts", irq)?;
    fdt.property_u32("interrupt-parent", PHANDLE_PLIC)?;
    Ok(())
}

/// For each hart its interrupt controller with each of `lines`, hart by hart. The PLIC's
/// contexts are numbered in this order.
fn local_interrupts(harts: u32, lines: [u32; 2]) -> Vec<u32> {
    (0..harts)
        .flat_map(|hart| lines.map(|line| [PHANDLE_FIRST_INTC + hart, line]))
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests;
