//! The guest's program (virtio 1.2 sections 4.2.2, registers; 2.7, rings; 5.1, network card; and
//! the PLIC, clock and SBI of the `virt` board).

use super::asm::*;

const VIRTIO: u32 = 0x1000_1000;
/// The next slot.
const DISK: u32 = 0x1000_2000;
const PLIC: u32 = 0x0c00_0000;
const RTC: u32 = 0x0010_1000;
/// SBI extension "SRST".
const SBI_RESET: u32 = 0x5352_5354;

/// Descriptors of the receive queue; its ring and used ring a page further on each, then the same
/// for the transmit queue.
const QUEUES: u32 = 0x8010_0000;
/// Eight buffers of 2048 bytes.
const BUFFERS: u32 = 0x8010_8000;
/// Number of answers, boot, [`MAGIC`], number of the answer that is under way, then from 64 the keys' values and from 128 what is kept per client:
/// number of its last question, value and outcome that it got (32 bytes each).
pub(super) const STATE: u64 = 0x8011_0000;
/// What each answer was made from, by its number.
pub(super) const CHAINS: u64 = 0x8012_0000;
/// The disk: descriptors, ring and used ring a page further on each, then the three requests'
/// headers, and their statuses.
const DISK_QUEUE: u32 = 0x8013_0000;
const DISK_HEADERS: u32 = DISK_QUEUE + 0x3000;
const DISK_STATUS: u32 = DISK_QUEUE + 0x3100;
/// What was read from it.
const SCRATCH: u32 = 0x8013_8000;
/// In the sector that holds the state: it is one.
const MAGIC: u32 = 0x7477_696e;
/// Requests, by the number of their first descriptor.
const DISK_WRITE: u32 = 0;
const DISK_FLUSH: u32 = 3;
const DISK_READ: u32 = 5;
/// Looks at the ring before the guest sleeps.
const POLLS: u32 = 40;
/// Odd, so that nothing is lost by it.
const MIX: u32 = 0x9e37_79b1;

/// In this order the program keeps: s0 device, s1 receive table, s2 transmit table, s3 buffers,
/// s4 PLIC's claim register, s5 buffers seen in the used ring, s6 answers, s7 receive ring, s8
/// receive used ring, s9 transmit ring, s10 polls, s11 next slot of the transmit ring; a2 [`MIX`],
/// a3 boot, a4 next slot of the receive ring, a5 polls left, a6 state, a7 chains, tp the chain, gp
/// whether it never sleeps.
pub(super) fn program(disk_sector: Option<u32>) -> Vec<u32> {
    let with_disk = disk_sector.is_some();
    let mut a = Asm::default();
    start(&mut a, disk_sector);
    wait(&mut a, with_disk);
    serve(&mut a);
    reply(&mut a, with_disk);
    power_off(&mut a);
    queue(&mut a);
    if with_disk {
        disk(&mut a);
    }
    a.finish()
}

fn start(a: &mut Asm, disk_sector: Option<u32>) {
    interrupts(a);
    if let Some(sector) = disk_sector {
        disk_start(a, sector);
    }
    a.li(S0, VIRTIO);
    a.sw(ZERO, 0x70, S0); // Status: reset
    a.li(T0, 3);
    a.sw(T0, 0x70, S0); // ACKNOWLEDGE | DRIVER
    a.li(T0, 1);
    a.sw(T0, 0x24, S0); // DriverFeaturesSel 1
    a.sw(T0, 0x20, S0); // DriverFeatures: VERSION_1 (bit 32)
    a.li(T0, 11);
    a.sw(T0, 0x70, S0); // ... | FEATURES_OK
    a.li(S1, QUEUES);
    a.li(S7, QUEUES + 0x1000);
    a.li(S8, QUEUES + 0x2000);
    a.li(S2, QUEUES + 0x3000);
    a.li(S9, QUEUES + 0x4000);
    a.li(S3, BUFFERS);
    a.li(A6, STATE as u32);
    a.li(A7, CHAINS as u32);
    a.li(A2, MIX);
    a.li(A0, 0);
    a.mv(A1, S1);
    a.jal(RA, "queue");
    a.li(A0, 1);
    a.mv(A1, S2);
    a.jal(RA, "queue");
    // The boot is in the upper half of wall time's upper half.
    a.li(T0, RTC);
    a.lwu(T1, 0, T0);
    a.lwu(A3, 4, T0);
    a.srli(A3, A3, 16);
    a.sd(A3, 8, A6);
    a.mv(TP, A3);
    // All buffers are for receiving.
    a.li(T0, 0);
    a.li(T3, 8);
    a.label("offer");
    a.slli(T1, T0, 4);
    a.add(T1, T1, S1);
    a.slli(T2, T0, 11);
    a.add(T2, T2, S3);
    a.sd(T2, 0, T1);
    a.li(T4, 2047);
    a.sw(T4, 8, T1);
    a.li(T4, 2); // WRITE
    a.sh(T4, 12, T1);
    a.slli(T1, T0, 1);
    a.add(T1, T1, S7);
    a.sh(T0, 4, T1);
    a.addi(T0, T0, 1);
    a.bne(T0, T3, "offer");
    a.sh(T0, 2, S7);
    a.li(T0, 15);
    a.sw(T0, 0x70, S0); // ... | DRIVER_OK
    a.li(S5, 0);
    a.li(S6, 0);
    a.li(S10, 0);
    a.li(S11, 0);
    a.li(A4, 8);
    a.li(GP, 0);
}

fn interrupts(a: &mut Asm) {
    a.li(T1, PLIC);
    a.li(T0, 1);
    a.sw(T0, 4, T1); // priority of source 1
    a.sw(T0, 8, T1); // and 2
    a.li(T1, PLIC + 0x2000);
    a.li(T0, 6);
    a.sw(T0, 0x80, T1); // enabled for context 1 (hart 0, S)
    a.li(S4, PLIC + 0x20_1000);
    a.sw(ZERO, 0, S4); // threshold
    a.li(T0, 0x200);
    a.set_sie(T0); // external interrupts end a WFI; none is taken
}

/// Sets the disk up (virtio 1.2 section 5.2), and takes the state from it if it has one.
fn disk_start(a: &mut Asm, sector: u32) {
    let descriptors = [
        (DISK_HEADERS, 16, 1, 1),
        (STATE as u32, 512, 1, 2),
        (DISK_STATUS, 1, 2, 0),
        (DISK_HEADERS + 16, 16, 1, 4),
        (DISK_STATUS + 4, 1, 2, 0),
        (DISK_HEADERS + 32, 16, 1, 6),
        (SCRATCH, 512, 3, 7),
        (DISK_STATUS + 8, 1, 2, 0),
    ];
    for (n, (pa, len, flags, next)) in (0..).zip(descriptors) {
        a.li(T0, DISK_QUEUE + 16 * n);
        a.li(T1, pa);
        a.sd(T1, 0, T0);
        a.li(T1, len);
        a.sw(T1, 8, T0);
        a.li(T1, flags);
        a.sh(T1, 12, T0);
        a.li(T1, next);
        a.sh(T1, 14, T0);
    }
    a.li(T0, DISK_HEADERS);
    for (at, kind) in [(0, 1), (16, 4), (32, 0)] {
        a.li(T1, kind);
        a.sw(T1, at, T0);
    }
    // Memory is zero at power-on.
    if sector > 0 {
        a.li(T1, sector);
        a.sd(T1, 8, T0);
        a.sd(T1, 40, T0);
    }
    a.li(S0, DISK);
    a.sw(ZERO, 0x70, S0); // Status: reset
    a.li(T0, 3);
    a.sw(T0, 0x70, S0); // ACKNOWLEDGE | DRIVER
    a.sw(ZERO, 0x24, S0); // DriverFeaturesSel 0
    a.li(T0, 1 << 9);
    a.sw(T0, 0x20, S0); // DriverFeatures: FLUSH
    a.li(T0, 1);
    a.sw(T0, 0x24, S0);
    a.sw(T0, 0x20, S0); // VERSION_1
    a.li(T0, 11);
    a.sw(T0, 0x70, S0); // ... | FEATURES_OK
    a.li(A0, 0);
    a.li(A1, DISK_QUEUE);
    a.jal(RA, "queue");
    a.li(T0, 15);
    a.sw(T0, 0x70, S0); // ... | DRIVER_OK
    a.li(S0, VIRTIO);
    a.li(A0, DISK_READ);
    a.jal(RA, "disk");
    a.li(A6, STATE as u32);
    a.li(T0, SCRATCH);
    a.ld(T1, 16, T0);
    a.li(T2, MAGIC);
    a.sd(T2, 16, A6);
    a.bne(T1, T2, "fresh");
    // Keys, and what is kept per client.
    a.addi(T0, T0, 64);
    a.addi(T1, A6, 64);
    a.li(T2, 40);
    a.label("load");
    a.ld(T3, 0, T0);
    a.sd(T3, 0, T1);
    a.addi(T0, T0, 8);
    a.addi(T1, T1, 8);
    a.addi(T2, T2, -1);
    a.bne(T2, ZERO, "load");
    a.label("fresh");
}

/// Has the disk carry out the request whose first descriptor is a0, and waits for it; once more
/// as long as it fails. Leaves t2, t4 and t5 alone.
fn disk(a: &mut Asm) {
    a.label("disk");
    a.li(A1, DISK_QUEUE + 0x1000);
    a.lhu(T0, 2, A1);
    a.andi(T1, T0, 7);
    a.slli(T1, T1, 1);
    a.add(T1, T1, A1);
    a.sh(A0, 4, T1);
    a.addi(T0, T0, 1);
    a.sh(T0, 2, A1);
    a.slli(T0, T0, 48);
    a.srli(T0, T0, 48);
    a.li(A1, DISK);
    a.sw(ZERO, 0x50, A1); // QueueNotify
    a.label("disk works");
    a.li(A1, DISK_QUEUE + 0x2000);
    a.lhu(T1, 2, A1);
    a.beq(T1, T0, "disk done");
    a.wfi();
    a.lwu(T3, 4, S4); // PLIC claim
    a.beq(T3, ZERO, "disk works");
    acknowledge(a, T1, T6, true);
    a.sw(T3, 4, S4); // PLIC complete
    a.j("disk works");
    a.label("disk done");
    a.li(T1, DISK_STATUS);
    a.lwu(T3, 0, T1);
    for at in [4, 8] {
        a.lwu(T6, at, T1);
        a.add(T3, T3, T6);
    }
    a.bne(T3, ZERO, "disk");
    a.ret();
    // What was read is not what was written.
    a.label("wrong");
    a.j("wrong");
}

/// Tells both devices that their interrupts were seen.
fn acknowledge(a: &mut Asm, one: Reg, other: Reg, with_disk: bool) {
    a.lwu(one, 0x60, S0); // InterruptStatus
    a.sw(one, 0x64, S0); // InterruptACK
    if with_disk {
        a.li(other, DISK);
        a.lwu(one, 0x60, other);
        a.sw(one, 0x64, other);
    }
}

fn wait(a: &mut Asm, with_disk: bool) {
    a.label("again");
    a.li(A5, POLLS);
    a.label("poll");
    a.lhu(T0, 2, S8);
    a.bne(T0, S5, "serve");
    a.addi(S10, S10, 1);
    a.bne(GP, ZERO, "poll");
    a.addi(A5, A5, -1);
    a.bne(A5, ZERO, "poll");
    a.wfi();
    a.lwu(T0, 4, S4); // PLIC claim
    a.beq(T0, ZERO, "again");
    acknowledge(a, T1, T3, with_disk);
    a.sw(T0, 4, S4); // PLIC complete
    a.j("again");
}

/// Takes a question from the used ring and carries it out, if it is new.
fn serve(a: &mut Asm) {
    a.label("serve");
    a.andi(T1, S5, 7);
    a.slli(T1, T1, 3);
    a.add(T1, T1, S8);
    a.lwu(T2, 4, T1); // buffer
    a.addi(S5, S5, 1);
    a.slli(S5, S5, 48);
    a.srli(S5, S5, 48);
    a.slli(T4, T2, 11);
    a.add(T4, T4, S3);
    a.ld(T5, 32, T4); // client
    a.andi(T5, T5, 7);
    a.slli(T5, T5, 5);
    a.add(T5, T5, A6); // what is kept of it is at 128 from here
    a.ld(T6, 48, T4); // operation
    a.li(T0, 0xff);
    a.beq(T6, T0, "off");
    a.ld(T0, 40, T4); // number of the question
    a.ld(T1, 128, T5);
    a.bltu(T0, T1, "give back"); // older than the last one
    a.beq(T0, T1, "answer"); // the last one again
    a.sd(T0, 128, T5);
    a.ld(T1, 56, T4); // key
    a.andi(T1, T1, 7);
    a.slli(T1, T1, 3);
    a.add(T1, T1, A6); // its value is at 64 from here
    a.ld(T0, 64, T1);
    a.sd(T0, 136, T5);
    a.li(T3, 1);
    a.sd(T3, 144, T5);
    a.beq(T6, ZERO, "answer"); // get
    a.ld(T3, 64, T4);
    a.li(A0, 1);
    a.bne(T6, A0, "not set");
    a.sd(T3, 64, T1);
    a.j("answer");
    a.label("not set");
    a.li(A0, 2);
    a.bne(T6, A0, "not swap");
    a.beq(T0, T3, "swap");
    a.sd(ZERO, 144, T5);
    a.j("answer");
    a.label("swap");
    a.ld(T3, 72, T4);
    a.sd(T3, 64, T1);
    a.j("answer");
    a.label("not swap");
    a.li(A0, 3);
    a.bne(T6, A0, "not add");
    a.add(T0, T0, T3);
    a.sd(T0, 64, T1);
    a.j("answer");
    a.label("not add");
    a.mv(GP, T3);
}

/// Makes the answer in the question's buffer, sends it, and gives the buffer back.
fn reply(a: &mut Asm, with_disk: bool) {
    a.label("answer");
    a.addi(S6, S6, 1);
    // The state is on the disk, and was read from there, before anybody hears of it.
    if with_disk {
        a.sd(S6, 24, A6);
        for request in [DISK_WRITE, DISK_FLUSH, DISK_READ] {
            a.li(A0, request);
            a.jal(RA, "disk");
        }
        a.li(T0, SCRATCH);
        a.ld(T0, 24, T0);
        a.bne(T0, S6, "wrong");
    }
    a.ld(T0, 40, T4);
    a.add(TP, TP, T0);
    a.ld(T0, 136, T5);
    a.sd(T0, 48, T4); // value
    a.add(TP, TP, T0);
    a.ld(T0, 144, T5);
    a.sd(T0, 56, T4); // done
    a.add(TP, TP, T0);
    a.rdtime(T0);
    a.add(TP, TP, T0);
    a.add(TP, TP, S10);
    a.mul(TP, TP, A2);
    a.srli(T0, TP, 29);
    a.xor(TP, TP, T0);
    a.sd(S6, 64, T4); // number
    a.sd(TP, 72, T4); // chain
    a.sd(A3, 80, T4); // boot
    a.slli(T0, S6, 52); // modulo 4096
    a.srli(T0, T0, 49);
    a.add(T0, T0, A7);
    a.sd(TP, 0, T0);
    a.sd(S6, 0, A6);
    for at in [12, 14, 16] {
        // The addresses change places.
        a.lhu(T0, at, T4);
        a.lhu(T1, at + 6, T4);
        a.sh(T1, at, T4);
        a.sh(T0, at + 6, T4);
    }
    a.sd(ZERO, 0, T4); // the header for sending is all zero
    a.sw(ZERO, 8, T4);
    a.andi(T0, S11, 7);
    a.slli(T1, T0, 4);
    a.add(T1, T1, S2);
    a.sd(T4, 0, T1);
    a.li(T3, super::PACKET_BYTES as u32);
    a.sw(T3, 8, T1);
    a.slli(T1, T0, 1);
    a.add(T1, T1, S9);
    a.sh(T0, 4, T1);
    a.addi(S11, S11, 1);
    a.sh(S11, 2, S9);
    a.li(T1, 1);
    a.sw(T1, 0x50, S0); // QueueNotify: transmit
    a.label("give back");
    a.andi(T0, A4, 7);
    a.slli(T1, T0, 1);
    a.add(T1, T1, S7);
    a.sh(T2, 4, T1);
    a.addi(A4, A4, 1);
    a.sh(A4, 2, S7);
    a.sw(ZERO, 0x50, S0); // QueueNotify: receive
    a.j("again");
}

fn power_off(a: &mut Asm) {
    a.label("off");
    a.li(A7, SBI_RESET);
    a.li(A6, 0);
    a.li(A0, 0);
    a.li(A1, 0);
    a.ecall();
    a.j("off");
}

/// Sets up queue a0 with its table at a1.
fn queue(a: &mut Asm) {
    a.label("queue");
    a.sw(A0, 0x30, S0); // QueueSel
    a.li(T0, 8);
    a.sw(T0, 0x38, S0); // QueueSize
    a.li(T1, 0x1000);
    for register in [0x80, 0x90, 0xa0] {
        // Descriptors, the driver's ring, the used ring.
        a.sw(A1, register, S0);
        a.sw(ZERO, register + 4, S0);
        a.add(A1, A1, T1);
    }
    a.li(T0, 1);
    a.sw(T0, 0x44, S0); // QueueReady
    a.ret();
}
