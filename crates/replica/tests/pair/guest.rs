//! A guest of 145 instructions with a driver for one network card.
//!
//! It answers every frame: addresses swapped, and at the start of the payload three numbers
//! (u64, little-endian): how many frames it has answered, the virtual time, and how often it
//! has polled its ring. So an answer that is lost, made twice, or made from an input that came
//! one instruction too early or too late has other bytes. A frame whose payload begins with
//! 0xff powers it off.

use twinvm_replica::voice_of;

/// Bytes before the payload: two addresses and a type.
const HEADER_BYTES: usize = 14;
/// Bytes of a frame to the guest: the payload has room for the answer's three numbers.
const FRAME_BYTES: usize = HEADER_BYTES + 32;

/// The guest's network card.
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// Who sends it frames.
pub(crate) const CLIENT: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

/// A frame that asks the guest for an answer.
pub(crate) fn question() -> Vec<u8> {
    let mut frame = vec![0; FRAME_BYTES];
    frame[..6].copy_from_slice(&MAC);
    frame[6..12].copy_from_slice(&CLIENT);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// A frame that powers the guest off.
pub(crate) fn power_off() -> Vec<u8> {
    let mut frame = question();
    frame[HEADER_BYTES] = 0xff;
    frame
}

/// The number of an answer, from 1; `None` if the frame is none.
pub(crate) fn answer(frame: &[u8]) -> Option<u64> {
    let by_guest = |source: &[u8]| source == MAC || source == voice_of(MAC);
    let is_answer = frame.len() == FRAME_BYTES && frame[..6] == CLIENT && by_guest(&frame[6..12]);
    let number = frame.get(HEADER_BYTES..HEADER_BYTES + 8)?;
    is_answer.then(|| u64::from_le_bytes(number.try_into().unwrap()))
}

/// The guest as a Linux Image (Documentation/arch/riscv/boot-image-header.rst).
pub(crate) fn image() -> Vec<u8> {
    let mut image = vec![0; 64];
    // jal x0, +64
    image[..4].copy_from_slice(&0x0400_006f_u32.to_le_bytes());
    image[16..24].copy_from_slice(&4096u64.to_le_bytes());
    image[56..60].copy_from_slice(b"RSC\x05");
    image.extend(CODE.iter().flat_map(|word| word.to_le_bytes()));
    image
}

/// Assembled with `as -march=rv64gc_zicsr` and `.option norvc`; virtio 1.2 sections 4.2.2
/// (registers), 2.7 (rings) and 5.1 (network card), and the PLIC of the `virt` board.
#[rustfmt::skip]
pub(crate) const CODE: [u32; 145] = [
    0x10001437, // start:  lui   s0, 0x10001             # virtio slot 0
    0x06042823, //         sw    zero, 0x70(s0)          # Status: reset
    0x00300293, //         li    t0, 3
    0x06542823, //         sw    t0, 0x70(s0)            # ACKNOWLEDGE | DRIVER
    0x00100293, //         li    t0, 1
    0x02542223, //         sw    t0, 0x24(s0)            # DriverFeaturesSel 1
    0x02542023, //         sw    t0, 0x20(s0)            # DriverFeatures: VERSION_1 (bit 32)
    0x00b00293, //         li    t0, 11
    0x06542823, //         sw    t0, 0x70(s0)            # ... | FEATURES_OK
    0x400804b7, //         lui   s1, 0x40080
    0x00149493, //         slli  s1, s1, 1               # 0x80100000: receive table; ring +0x1000, used +0x2000
    0x00003337, //         lui   t1, 3
    0x00648933, //         add   s2, s1, t1              # 0x80103000: transmit table; ring +0x1000, used +0x2000
    0x00010337, //         lui   t1, 0x10
    0x006489b3, //         add   s3, s1, t1              # 0x80110000: eight buffers of 2048 bytes
    0x00001337, //         lui   t1, 1
    0x00648bb3, //         add   s7, s1, t1              # receive ring
    0x006b8c33, //         add   s8, s7, t1              # receive used ring
    0x00690cb3, //         add   s9, s2, t1              # transmit ring
    0x00000513, //         li    a0, 0
    0x00048593, //         mv    a1, s1
    0x1b4000ef, //         jal   ra, queue
    0x00100513, //         li    a0, 1
    0x00090593, //         mv    a1, s2
    0x1a8000ef, //         jal   ra, queue
    0x00000293, //         li    t0, 0                   # offer all buffers for receiving
    0x00429313, // offer:  slli  t1, t0, 4
    0x00930333, //         add   t1, t1, s1
    0x00b29393, //         slli  t2, t0, 11
    0x013383b3, //         add   t2, t2, s3
    0x00733023, //         sd    t2, 0(t1)
    0x7ff00e13, //         li    t3, 2047
    0x01c32423, //         sw    t3, 8(t1)
    0x00200e13, //         li    t3, 2                   # WRITE
    0x01c31623, //         sh    t3, 12(t1)
    0x00129313, //         slli  t1, t0, 1
    0x01730333, //         add   t1, t1, s7
    0x00531223, //         sh    t0, 4(t1)
    0x00128293, //         addi  t0, t0, 1
    0x0082a313, //         slti  t1, t0, 8
    0xfc0314e3, //         bnez  t1, offer
    0x005b9123, //         sh    t0, 2(s7)
    0x00f00293, //         li    t0, 15
    0x06542823, //         sw    t0, 0x70(s0)            # ... | DRIVER_OK
    0x0c000337, //         lui   t1, 0xc000              # PLIC: priority of source 1
    0x00100293, //         li    t0, 1
    0x00532223, //         sw    t0, 4(t1)
    0x0c002337, //         lui   t1, 0xc002
    0x00200293, //         li    t0, 2
    0x08532023, //         sw    t0, 0x80(t1)            # enabled for context 1 (hart 0, S)
    0x0c201a37, //         lui   s4, 0xc201
    0x000a2023, //         sw    zero, 0(s4)             # threshold
    0x20000293, //         li    t0, 0x200
    0x1042a073, //         csrs  sie, t0                 # external interrupts end a WFI; none is taken
    0x00000a93, //         li    s5, 0                   # buffers seen in the used ring
    0x00000b13, //         li    s6, 0                   # frames answered
    0x00000d13, //         li    s10, 0                  # polls
    0x00000d93, //         li    s11, 0                  # next slot of the transmit ring
    0x00800713, //         li    a4, 8                   # next slot of the receive ring
    0x7d000793, // again:  li    a5, 2000
    0x002c5283, // poll:   lhu   t0, 2(s8)
    0x03529663, //         bne   t0, s5, serve
    0x001d0d13, //         addi  s10, s10, 1
    0xfff78793, //         addi  a5, a5, -1
    0xfe0798e3, //         bnez  a5, poll
    0x10500073, //         wfi
    0x004a2283, //         lw    t0, 4(s4)               # PLIC claim
    0xfe0280e3, //         beqz  t0, again
    0x06042303, //         lw    t1, 0x60(s0)            # InterruptStatus
    0x06642223, //         sw    t1, 0x64(s0)            # InterruptACK
    0x005a2223, //         sw    t0, 4(s4)               # PLIC complete
    0xfd1ff06f, //         j     again
    0x007af313, // serve:  andi  t1, s5, 7
    0x00331313, //         slli  t1, t1, 3
    0x01830333, //         add   t1, t1, s8
    0x00432383, //         lw    t2, 4(t1)               # buffer
    0x00832e03, //         lw    t3, 8(t1)               # bytes
    0x001a8a93, //         addi  s5, s5, 1
    0x030a9a93, //         slli  s5, s5, 48
    0x030ada93, //         srli  s5, s5, 48
    0x00b39e93, //         slli  t4, t2, 11
    0x013e8eb3, //         add   t4, t4, s3
    0x01aecf03, //         lbu   t5, 26(t4)              # first byte of the payload
    0x0ff00f93, //         li    t6, 0xff
    0x09ff0e63, //         beq   t5, t6, off
    0x001b0b13, //         addi  s6, s6, 1
    0x000e9523, //         sh    zero, 10(t4)            # the header for sending is all zero
    0x00cedf03, //         lhu   t5, 12(t4)              # swap the addresses
    0x012edf83, //         lhu   t6, 18(t4)
    0x01fe9623, //         sh    t6, 12(t4)
    0x01ee9923, //         sh    t5, 18(t4)
    0x00eedf03, //         lhu   t5, 14(t4)
    0x014edf83, //         lhu   t6, 20(t4)
    0x01fe9723, //         sh    t6, 14(t4)
    0x01ee9a23, //         sh    t5, 20(t4)
    0x010edf03, //         lhu   t5, 16(t4)
    0x016edf83, //         lhu   t6, 22(t4)
    0x01fe9823, //         sh    t6, 16(t4)
    0x01ee9b23, //         sh    t5, 22(t4)
    0x016ebd23, //         sd    s6, 26(t4)              # payload: answers so far, time, polls so far
    0xc0102f73, //         rdtime t5
    0x03eeb123, //         sd    t5, 34(t4)
    0x03aeb523, //         sd    s10, 42(t4)
    0x007df293, //         andi  t0, s11, 7
    0x00429313, //         slli  t1, t0, 4
    0x01230333, //         add   t1, t1, s2
    0x01d33023, //         sd    t4, 0(t1)
    0x01c32423, //         sw    t3, 8(t1)
    0x00129313, //         slli  t1, t0, 1
    0x01930333, //         add   t1, t1, s9
    0x00531223, //         sh    t0, 4(t1)
    0x001d8d93, //         addi  s11, s11, 1
    0x01bc9123, //         sh    s11, 2(s9)
    0x00100313, //         li    t1, 1
    0x04642823, //         sw    t1, 0x50(s0)            # QueueNotify: transmit
    0x00777293, //         andi  t0, a4, 7
    0x00129313, //         slli  t1, t0, 1
    0x01730333, //         add   t1, t1, s7
    0x00731223, //         sh    t2, 4(t1)
    0x00170713, //         addi  a4, a4, 1
    0x00eb9123, //         sh    a4, 2(s7)
    0x04042823, //         sw    zero, 0x50(s0)          # QueueNotify: receive
    0xf05ff06f, //         j     again
    0x535258b7, // off:    lui   a7, 0x53525             # SBI SRST: shut down
    0x35488893, //         addi  a7, a7, 0x354
    0x00000813, //         li    a6, 0
    0x00000513, //         li    a0, 0
    0x00000593, //         li    a1, 0
    0x00000073, //         ecall
    0xfe9ff06f, //         j     off
    0x02a42823, // queue:  sw    a0, 0x30(s0)            # QueueSel
    0x00800293, //         li    t0, 8
    0x02542c23, //         sw    t0, 0x38(s0)            # QueueSize
    0x08b42023, //         sw    a1, 0x80(s0)            # descriptors
    0x08042223, //         sw    zero, 0x84(s0)
    0x00001337, //         lui   t1, 1
    0x006583b3, //         add   t2, a1, t1
    0x08742823, //         sw    t2, 0x90(s0)            # driver's ring
    0x08042a23, //         sw    zero, 0x94(s0)
    0x006383b3, //         add   t2, t2, t1
    0x0a742023, //         sw    t2, 0xa0(s0)            # used ring
    0x0a042223, //         sw    zero, 0xa4(s0)
    0x00100293, //         li    t0, 1
    0x04542223, //         sw    t0, 0x44(s0)            # QueueReady
    0x00008067, //         ret
];
