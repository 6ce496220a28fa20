//! Guests of a few instructions, as Linux Image files.

use crate::{Images, Machine, MachineConfig, OnReset, PowerOn, SlotConfig};

pub(crate) const A0: u32 = 10;
pub(crate) const A1: u32 = 11;
pub(crate) const A6: u32 = 16;
pub(crate) const A7: u32 = 17;
pub(crate) const T0: u32 = 5;
pub(crate) const T1: u32 = 6;

/// Where an Image with text offset 0x20_0000 lies.
pub(crate) const ENTRY: u64 = 0x8020_0000;
const HEADER: usize = 64;

/// Instructions one behind the other.
#[derive(Default)]
pub(crate) struct Asm(pub(super) Vec<u32>);

impl Asm {
    pub(crate) fn op(mut self, raw: u32) -> Self {
        self.0.push(raw);
        self
    }

    /// addi rd, x0, imm (-2048..2047)
    pub(crate) fn li(self, rd: u32, imm: i32) -> Self {
        self.addi(rd, 0, imm)
    }

    pub(crate) fn addi(self, rd: u32, rs1: u32, imm: i32) -> Self {
        self.op((imm as u32) << 20 | rs1 << 15 | rd << 7 | 0x13)
    }

    /// lui + addi: any 32-bit value, sign-extended.
    pub(crate) fn li32(self, rd: u32, value: u32) -> Self {
        let low = ((value as i32) << 20) >> 20;
        let high = value.wrapping_sub(low as u32);
        self.op(high | rd << 7 | 0x37)
            .op((low as u32) << 20 | rd << 15 | rd << 7 | 0x1b)
    }

    /// An even address below 4 GiB, not sign-extended: three instructions.
    pub(crate) fn address(self, rd: u32, value: u32) -> Self {
        self.li32(rd, value >> 1)
            .op(1 << 20 | rd << 15 | 1 << 12 | rd << 7 | 0x13)
    }

    /// sd rs2, imm(rs1)
    pub(crate) fn sd(self, rs2: u32, rs1: u32, imm: i32) -> Self {
        let imm = imm as u32;
        self.op((imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | 3 << 12 | (imm & 31) << 7 | 0x23)
    }

    /// ld rd, imm(rs1)
    pub(crate) fn ld(self, rd: u32, rs1: u32, imm: i32) -> Self {
        self.op((imm as u32) << 20 | rs1 << 15 | 3 << 12 | rd << 7 | 0x03)
    }

    /// beq x0, x0, back by `bytes`
    pub(crate) fn loop_back(self, bytes: i32) -> Self {
        let imm = -bytes as u32;
        self.op((imm >> 12 & 1) << 31
            | (imm >> 5 & 0x3f) << 25
            | (imm >> 1 & 0xf) << 8
            | (imm >> 11 & 1) << 7
            | 0x63)
    }

    pub(crate) fn wfi(self) -> Self {
        self.op(0x1050_0073)
    }

    /// An SBI call with the arguments already in place.
    pub(crate) fn sbi(self, extension: u32, function: i32) -> Self {
        self.li32(A7, extension).li(A6, function).op(0x73)
    }

    pub(crate) fn print(self, byte: u8) -> Self {
        self.li(A0, i32::from(byte)).sbi(0x4442_434e, 2)
    }

    pub(crate) fn system_reset(self, kind: i32) -> Self {
        self.li(A0, kind).li(A1, 0).sbi(0x5352_5354, 0)
    }

    /// A Linux Image (Documentation/arch/riscv/boot-image-header.rst).
    pub(crate) fn image(self) -> Vec<u8> {
        let mut file = vec![0u8; HEADER];
        // j +64
        file[..4].copy_from_slice(&0x0400_006fu32.to_le_bytes());
        file[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
        let size = (HEADER + self.0.len() * 4) as u64;
        file[16..24].copy_from_slice(&size.to_le_bytes());
        file[0x20..0x24].copy_from_slice(&2u32.to_le_bytes());
        file[0x30..0x38].copy_from_slice(b"RISCV\0\0\0");
        file[0x38..0x3c].copy_from_slice(b"RSC\x05");
        for op in self.0 {
            file.extend_from_slice(&op.to_le_bytes());
        }
        file
    }
}

pub(crate) fn config(guest: Asm) -> MachineConfig {
    MachineConfig {
        ram_bytes: 16 << 20,
        harts: 1,
        slots: vec![
            SlotConfig::Net {
                mac: [2, 0, 0, 0, 0, 1],
            },
            SlotConfig::Rng,
        ],
        cmdline: "test".to_owned(),
        images: Images::new(guest.image(), None),
        on_reset: OnReset::Restart,
    }
}

pub(crate) const POWER_ON: PowerOn = PowerOn {
    rng_seed: [3; 32],
    rtc_base_ns: 1_700_000_000_000_000_000,
};

pub(crate) fn machine(guest: Asm) -> Machine {
    Machine::new(config(guest), POWER_ON).unwrap()
}

/// Counts up a word in RAM for ever.
pub(crate) fn counter() -> Asm {
    Asm::default()
        .address(T0, 0x8040_0000)
        .ld(T1, T0, 0)
        .addi(T1, T1, 1)
        .sd(T1, T0, 0)
        .addi(T0, T0, 8)
        .loop_back(16)
}

/// A small generator of numbers that repeat (xorshift64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
