//! Guests of a few instructions, made here: a RISC-V Linux Image whose code is ours.
//!
//! Encodings: RISC-V Instruction Set Manual, volume I, chapters 2 and "RV32/64G Instruction Set
//! Listings".

#![allow(dead_code)] // Each test uses some of it.

/// The SBI's system reset extension.
const SBI_SRST: u32 = 0x5352_5354;
const FINISHER: u32 = 0x10_0000;
const UART: u32 = 0x1000_0000;
const VIRTIO: u32 = 0x1000_1000;

const ZERO: u32 = 0;
const T0: u32 = 5;
const T1: u32 = 6;
const T2: u32 = 7;
const S0: u32 = 8;
const S2: u32 = 18;
const A0: u32 = 10;
const A1: u32 = 11;
const A6: u32 = 16;
const A7: u32 = 17;
const T3: u32 = 28;

/// Instructions, one word each.
#[derive(Default)]
struct Code(Vec<u32>);

impl Code {
    fn here(&self) -> i32 {
        self.0.len() as i32 * 4
    }

    fn itype(&mut self, opcode: u32, funct3: u32, rd: u32, rs1: u32, imm: i32) {
        assert!((-2048..2048).contains(&imm));
        let imm = (imm as u32 & 0xfff) << 20;
        self.0
            .push(imm | rs1 << 15 | funct3 << 12 | rd << 7 | opcode);
    }

    fn addi(&mut self, rd: u32, rs1: u32, imm: i32) {
        self.itype(0x13, 0, rd, rs1, imm);
    }

    /// Sets a register to any 32-bit value, zero-extended.
    fn set(&mut self, rd: u32, value: u32) {
        // In parts of 10, 11 and 11 bits, so that nothing is sign-extended.
        self.addi(rd, ZERO, (value >> 22) as i32);
        for shift in [11, 0] {
            self.itype(0x13, 1, rd, rd, 11); // slli
            self.addi(rd, rd, (value >> shift & 0x7ff) as i32);
        }
    }

    fn lbu(&mut self, rd: u32, rs1: u32, imm: i32) {
        self.itype(0x03, 4, rd, rs1, imm);
    }

    fn andi(&mut self, rd: u32, rs1: u32, imm: i32) {
        self.itype(0x13, 7, rd, rs1, imm);
    }

    /// `rdtime`: reads CSR 0xc01.
    fn rdtime(&mut self, rd: u32) {
        self.0.push(0xc01 << 20 | 2 << 12 | rd << 7 | 0x73);
    }

    fn ecall(&mut self) {
        self.0.push(0x73);
    }

    fn add(&mut self, rd: u32, rs1: u32, rs2: u32) {
        self.0.push(rs2 << 20 | rs1 << 15 | rd << 7 | 0x33);
    }

    fn store(&mut self, funct3: u32, rs2: u32, rs1: u32, imm: u32) {
        assert!(imm < 32);
        self.0
            .push(rs2 << 20 | rs1 << 15 | funct3 << 12 | imm << 7 | 0x23);
    }

    fn sb(&mut self, rs2: u32, rs1: u32, imm: u32) {
        self.store(0, rs2, rs1, imm);
    }

    fn sw(&mut self, rs2: u32, rs1: u32, imm: u32) {
        self.store(2, rs2, rs1, imm);
    }

    fn sd(&mut self, rs2: u32, rs1: u32, imm: u32) {
        self.store(3, rs2, rs1, imm);
    }

    /// A branch `offset` bytes on: beq (0), bne (1) or bltu (6).
    fn branch(&mut self, funct3: u32, rs1: u32, rs2: u32, offset: i32) {
        assert!((-4096..4096).contains(&offset));
        let o = offset as u32;
        let high = (o >> 12 & 1) << 31 | (o >> 5 & 0x3f) << 25;
        let low = (o >> 1 & 0xf) << 8 | (o >> 11 & 1) << 7;
        self.0
            .push(high | rs2 << 20 | rs1 << 15 | funct3 << 12 | low | 0x63);
    }

    fn jump_back(&mut self, to: i32) {
        self.branch(0, ZERO, ZERO, to - self.here());
    }

    /// Writes text on the serial port.
    fn print(&mut self, text: &str) {
        self.set(S0, UART);
        for byte in text.bytes() {
            self.addi(T0, ZERO, i32::from(byte));
            self.sb(T0, S0, 0);
        }
    }

    fn finisher(&mut self, value: u32) {
        self.set(T0, FINISHER);
        self.set(T1, value);
        self.sw(T1, T0, 0);
        self.spin();
    }

    fn spin(&mut self) {
        self.branch(0, ZERO, ZERO, 0);
    }

    /// The code as a Linux Image (Documentation/arch/riscv/boot-image-header.rst).
    fn image(self) -> Vec<u8> {
        let mut image = vec![0; 64];
        // jal x0, +64
        image[..4].copy_from_slice(&0x0400_006f_u32.to_le_bytes());
        image[16..24].copy_from_slice(&4096u64.to_le_bytes());
        image[56..60].copy_from_slice(b"RSC\x05");
        for word in self.0 {
            image.extend_from_slice(&word.to_le_bytes());
        }
        image
    }
}

/// Where `disk_writer` keeps its queue and its sector.
const QUEUE: u32 = 0x8040_0000;
const SECTOR: u32 = QUEUE + 0x4000;
/// What it writes: the first bytes of the disk.
pub(crate) const WRITTEN: u32 = 0x0bad_cafe;

/// Writes the first sector of the disk in the first virtio slot, says so when the disk has done
/// it, and powers off (virtio 1.2, sections 2.7, 4.2 and 5.2).
pub(crate) fn disk_writer() -> Vec<u8> {
    let (avail, used, header, status) =
        (QUEUE + 0x1000, QUEUE + 0x2000, QUEUE + 0x3000, SECTOR + 512);
    let mut code = Code::default();
    let put = |code: &mut Code, at: u32, value: u32| {
        code.set(T0, at);
        code.set(T1, value);
        code.sw(T1, T0, 0);
    };
    // Addresses, lengths, flags (next 1, writable 2) and what comes next.
    for (n, (pa, len, flags, next)) in [(header, 16, 1, 1), (SECTOR, 512, 1, 2), (status, 1, 2, 0)]
        .into_iter()
        .enumerate()
    {
        let at = QUEUE + 16 * n as u32;
        for (offset, value) in [(0, pa), (8, len), (12, next << 16 | flags)] {
            put(&mut code, at + offset, value);
        }
    }
    put(&mut code, avail, 1 << 16);
    put(&mut code, header, 1);
    put(&mut code, SECTOR, WRITTEN);
    put(&mut code, status, 0xff);
    for (register, value) in [
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x38, 8),
        (0x80, QUEUE),
        (0x90, avail),
        (0xa0, used),
        (0x44, 1),
        (0x70, 15),
        (0x50, 0),
    ] {
        put(&mut code, VIRTIO + register, value);
    }
    code.set(T2, used);
    let top = code.here();
    code.lbu(T0, T2, 2);
    code.branch(0, T0, ZERO, top - code.here());
    code.set(T2, status);
    code.lbu(T0, T2, 0);
    // Stays here if the disk has failed.
    code.branch(1, T0, ZERO, 0);
    code.print("written\n");
    code.finisher(0x5555);
    code.image()
}

/// Sectors that `disk_worker` writes and reads.
pub(crate) const WORKED_SECTORS: u64 = 24;

/// For `rounds` rounds gives the disk in the first virtio slot four requests at once: a write of
/// sector round % 16, a flush, a read of sector (round + 5) % 16, a write of sector
/// 16 + round % 8. A written sector begins with its round. What is read is stored in RAM. Prints a
/// dot after each round, an `E` after a request that has failed, `end` when all is done, and then
/// spins.
pub(crate) fn disk_worker(rounds: u32) -> Vec<u8> {
    let (avail, used) = (QUEUE + 0x1000, QUEUE + 0x2000);
    let (headers, status) = (QUEUE + 0x3000, QUEUE + 0x3100);
    let data = |n: u32| SECTOR + 512 * n;
    let mut code = Code::default();
    let put = |code: &mut Code, at: u32, value: u32| {
        code.set(T0, at);
        code.set(T1, value);
        code.sw(T1, T0, 0);
    };
    // Addresses, lengths, flags (next 1, writable 2) and what comes next.
    let header = |n: u32| headers + 16 * n;
    let descriptors = [
        (header(0), 16, 1, 1),
        (data(0), 512, 1, 2),
        (status, 1, 2, 0),
        (header(1), 16, 1, 4),
        (status + 1, 1, 2, 0),
        (header(2), 16, 1, 6),
        (data(1), 512, 3, 7),
        (status + 2, 1, 2, 0),
        (header(3), 16, 1, 9),
        (data(2), 512, 1, 10),
        (status + 3, 1, 2, 0),
    ];
    for (n, (pa, len, flags, next)) in (0..).zip(descriptors) {
        for (offset, value) in [(0, pa), (8, len), (12, next << 16 | flags)] {
            put(&mut code, QUEUE + 16 * n + offset, value);
        }
    }
    // Every fourth place of the ring has the same request.
    for (n, (low, high)) in (0..8).zip([(0, 3), (5, 8)].into_iter().cycle()) {
        put(&mut code, avail + 4 + 4 * n, high << 16 | low);
    }
    for (n, kind) in [(0, 1), (1, 4), (2, 0), (3, 1)] {
        put(&mut code, header(n), kind);
    }
    for (register, value) in [
        (0x70, 3),
        (0x24, 0),
        (0x20, 1 << 9), // flush
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x38, 16),
        (0x80, QUEUE),
        (0x90, avail),
        (0xa0, used),
        (0x44, 1),
        (0x70, 15),
    ] {
        put(&mut code, VIRTIO + register, value);
    }
    code.addi(S2, ZERO, 0);
    code.set(T3, 0x8080_0000);
    let top = code.here();
    for (at, add, mask, base) in [(0, 0, 15, 0), (2, 5, 15, 0), (3, 0, 7, 16)] {
        code.addi(T1, S2, add);
        code.andi(T1, T1, mask);
        code.addi(T1, T1, base);
        code.set(T0, header(at) + 8);
        code.sw(T1, T0, 0);
    }
    for n in [0, 2] {
        code.set(T0, data(n));
        code.sd(S2, T0, 0);
        code.rdtime(T1);
        code.sd(T1, T0, 8);
    }
    code.addi(S2, S2, 1);
    // Four more are available.
    code.set(T0, avail);
    code.add(T1, S2, S2);
    code.add(T1, T1, T1);
    code.store(1, T1, T0, 2);
    code.set(T0, VIRTIO);
    code.addi(T0, T0, 0x50);
    code.sw(ZERO, T0, 0);
    code.andi(T1, T1, 0xff);
    code.set(T2, used);
    let poll = code.here();
    code.lbu(T0, T2, 2);
    code.branch(1, T0, T1, poll - code.here());
    // What was read is kept, and how it went.
    code.set(T2, data(1));
    code.lbu(T0, T2, 0);
    code.sd(T0, T3, 0);
    code.lbu(T0, T2, 8);
    code.sd(T0, T3, 8);
    code.addi(T3, T3, 16);
    code.set(S0, UART);
    code.set(T2, status);
    for n in 0..4 {
        code.lbu(T0, T2, n);
        code.branch(0, T0, ZERO, 12);
        code.addi(T0, ZERO, i32::from(b'E'));
        code.sb(T0, S0, 0);
    }
    code.addi(T0, ZERO, i32::from(b'.'));
    code.sb(T0, S0, 0);
    code.set(T1, rounds);
    code.branch(6, S2, T1, top - code.here());
    code.print("end");
    code.spin();
    code.image()
}

/// What the sectors begin with after so many rounds of `disk_worker`.
pub(crate) fn worked(rounds: u64) -> Vec<u64> {
    let mut sectors = vec![0; WORKED_SECTORS as usize];
    for round in 0..rounds {
        sectors[(round % 16) as usize] = round;
        sectors[(16 + round % 8) as usize] = round;
    }
    sectors
}

/// Says hello and powers off through the SBI.
pub(crate) fn hello() -> Vec<u8> {
    let mut code = Code::default();
    code.print("hello\n");
    code.set(A7, SBI_SRST);
    code.addi(A6, ZERO, 0);
    code.addi(A0, ZERO, 0);
    code.addi(A1, ZERO, 0);
    code.ecall();
    code.spin();
    code.image()
}

/// Writes this value to the finisher.
pub(crate) fn finish(value: u32) -> Vec<u8> {
    let mut code = Code::default();
    code.finisher(value);
    code.image()
}

/// Waits for interrupts, of which none is enabled.
pub(crate) fn sleep() -> Vec<u8> {
    let mut code = Code::default();
    code.print("asleep\n");
    let top = code.here();
    code.0.push(0x1050_0073); // wfi
    code.jump_back(top);
    code.image()
}

/// For ever writes the time into one place after another of a MiB of RAM, and beside it each
/// key that was typed, which it also sends back. A key `q` powers off by the finisher.
pub(crate) fn worker() -> Vec<u8> {
    let mut code = Code::default();
    code.print("working\n");
    code.set(T3, 0x8040_0000);
    let start = code.here();
    code.addi(S2, ZERO, 0);
    let top = code.here();
    code.add(T2, T3, S2);
    code.rdtime(T0);
    code.sd(T0, T2, 0);
    code.lbu(T0, S0, 5);
    code.andi(T0, T0, 1);
    let no_key = code.0.len();
    code.spin(); // patched below
    code.lbu(T0, S0, 0);
    code.sd(T0, T2, 8);
    code.sb(T0, S0, 0);
    code.addi(T1, ZERO, i32::from(b'q'));
    let no_quit = code.0.len();
    code.spin(); // patched below
    code.finisher(0x5555);
    for (at, funct3, rs1, rs2) in [(no_key, 0, T0, ZERO), (no_quit, 1, T0, T1)] {
        let mut branch = Code::default();
        branch.branch(funct3, rs1, rs2, (code.0.len() - at) as i32 * 4);
        code.0[at] = branch.0[0];
    }
    code.addi(S2, S2, 1032);
    code.set(T1, 1 << 20);
    code.branch(6, S2, T1, top - code.here());
    code.jump_back(start);
    code.image()
}
