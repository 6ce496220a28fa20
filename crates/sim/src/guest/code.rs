//! The guest's program (virtio 1.2 sections 4.2.2, registers; 2.7, rings; 5.1, network card; and
//! the PLIC, clock and SBI of the `virt` board).

use super::asm::*;

const VIRTIO: u32 = 0x1000_1000;
const PLIC: u32 = 0x0c00_0000;
const RTC: u32 = 0x0010_1000;
/// SBI extension "SRST".
const SBI_RESET: u32 = 0x5352_5354;

/// Descriptors of the receive queue; its ring and used ring a page further on each, then the same
/// for the transmit queue.
const QUEUES: u32 = 0x8010_0000;
/// Eight buffers of 2048 bytes.
const BUFFERS: u32 = 0x8010_8000;
/// Number of answers, boot, then from 64 the keys' values and from 128 what is kept per client:
/// number of its last question, value and outcome that it got (32 bytes each).
pub(super) const STATE: u64 = 0x8011_0000;
/// What each answer was made from, by its number.
pub(super) const CHAINS: u64 = 0x8012_0000;
/// Looks at the ring before the guest sleeps.
const POLLS: u32 = 40;
/// Odd, so that nothing is lost by it.
const MIX: u32 = 0x9e37_79b1;

/// In this order the program keeps: s0 device, s1 receive table, s2 transmit table, s3 buffers,
/// s4 PLIC's claim register, s5 buffers seen in the used ring, s6 answers, s7 receive ring, s8
/// receive used ring, s9 transmit ring, s10 polls, s11 next slot of the transmit ring; a2 [`MIX`],
/// a3 boot, a4 next slot of the receive ring, a5 polls left, a6 state, a7 chains, tp the chain, gp
/// whether it never sleeps.
pub(super) fn program() -> Vec<u32> {
    let mut a = Asm::default();
    start(&mut a);
    wait(&mut a);
    serve(&mut a);
    reply(&mut a);
    power_off(&mut a);
    queue(&mut a);
    a.finish()
}

fn start(a: &mut Asm) {
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
    a.li(T1, PLIC);
    a.li(T0, 1);
    a.sw(T0, 4, T1); // priority of source 1
    a.li(T1, PLIC + 0x2000);
    a.li(T0, 2);
    a.sw(T0, 0x80, T1); // enabled for context 1 (hart 0, S)
    a.li(S4, PLIC + 0x20_1000);
    a.sw(ZERO, 0, S4); // threshold
    a.li(T0, 0x200);
    a.set_sie(T0); // external interrupts end a WFI; none is taken
    a.li(S5, 0);
    a.li(S6, 0);
    a.li(S10, 0);
    a.li(S11, 0);
    a.li(A4, 8);
    a.li(GP, 0);
}

fn wait(a: &mut Asm) {
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
    a.lwu(T1, 0x60, S0); // InterruptStatus
    a.sw(T1, 0x64, S0); // InterruptACK
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
fn reply(a: &mut Asm) {
    a.label("answer");
    a.addi(S6, S6, 1);
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
