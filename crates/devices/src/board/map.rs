//! The physical address map and interrupt numbers of the QEMU `virt` board, as far as this board
//! has its parts. Everything outside these windows and RAM is a hole.

/// Reset ROM, read-only.
pub const ROM_BASE: u64 = 0x1000;
/// Window of the reset ROM in bytes.
pub const ROM_SIZE: u64 = 0xf000;
/// Finisher (`sifive,test0`, `syscon`).
pub const FINISHER_BASE: u64 = 0x10_0000;
/// Window of the finisher in bytes.
pub const FINISHER_SIZE: u64 = 0x1000;
/// Goldfish real-time clock.
pub const RTC_BASE: u64 = 0x10_1000;
/// Window of the real-time clock in bytes, for the device tree; only its registers answer.
pub const RTC_SIZE: u64 = 0x1000;
/// Bytes of registers that the real-time clock has, as in QEMU.
pub(super) const RTC_REGISTERS: u64 = 0x24;
/// Core-local interruptor.
pub const CLINT_BASE: u64 = 0x200_0000;
/// Window of the core-local interruptor in bytes.
pub const CLINT_SIZE: u64 = 0x1_0000;
/// Platform-level interrupt controller.
pub const PLIC_BASE: u64 = 0xc00_0000;
/// Window of the interrupt controller in bytes.
pub const PLIC_SIZE: u64 = 0x60_0000;
/// Interrupt sources of the PLIC (`riscv,ndev`).
pub const PLIC_SOURCES: u32 = 95;
/// Serial port.
pub const UART_BASE: u64 = 0x1000_0000;
/// Window of the serial port in bytes, for the device tree; only its registers answer.
pub const UART_SIZE: u64 = 0x100;
/// Bytes of registers that the serial port has, as in QEMU.
pub(super) const UART_REGISTERS: u64 = 8;
/// First virtio slot.
pub const VIRTIO_BASE: u64 = 0x1000_1000;
/// Distance between virtio slots, and the window of each for the device tree.
pub const VIRTIO_STRIDE: u64 = 0x1000;
/// Bytes of registers and configuration space that a slot has, as in QEMU.
pub(super) const VIRTIO_REGISTERS: u64 = 0x200;
/// Number of virtio slots.
pub const VIRTIO_SLOTS: usize = 8;

/// Interrupt of the first virtio slot; the others follow.
pub const VIRTIO_IRQ: u32 = 1;
/// Interrupt of the serial port.
pub const UART_IRQ: u32 = 10;
/// Interrupt of the real-time clock.
pub const RTC_IRQ: u32 = 11;

/// The address of virtio slot `slot`.
pub const fn virtio_base(slot: usize) -> u64 {
    VIRTIO_BASE + slot as u64 * VIRTIO_STRIDE
}

/// The interrupt of virtio slot `slot`.
pub const fn virtio_irq(slot: usize) -> u32 {
    VIRTIO_IRQ + slot as u32
}

/// What an address names, and the offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Rom(u64),
    Finisher(u64),
    Rtc(u64),
    Clint(u64),
    Plic(u64),
    Uart(u64),
    Virtio(usize, u64),
}

/// Finds the place of an access; `None` for holes, bad sizes and misaligned addresses. No window
/// ends inside an aligned access, so the whole access is in the place that its first byte names.
pub(super) fn place(pa: u64, size: usize) -> Option<Place> {
    if !matches!(size, 1 | 2 | 4 | 8) || !pa.is_multiple_of(size as u64) {
        return None;
    }
    let within = |base: u64, len: u64| pa.checked_sub(base).filter(|offset| *offset < len);
    if let Some(offset) = within(VIRTIO_BASE, VIRTIO_SLOTS as u64 * VIRTIO_STRIDE) {
        let slot = (offset / VIRTIO_STRIDE) as usize;
        let register = offset % VIRTIO_STRIDE;
        return (register < VIRTIO_REGISTERS).then_some(Place::Virtio(slot, register));
    }
    None.or_else(|| within(PLIC_BASE, PLIC_SIZE).map(Place::Plic))
        .or_else(|| within(UART_BASE, UART_REGISTERS).map(Place::Uart))
        .or_else(|| within(CLINT_BASE, CLINT_SIZE).map(Place::Clint))
        .or_else(|| within(RTC_BASE, RTC_REGISTERS).map(Place::Rtc))
        .or_else(|| within(FINISHER_BASE, FINISHER_SIZE).map(Place::Finisher))
        .or_else(|| within(ROM_BASE, ROM_SIZE).map(Place::Rom))
}
