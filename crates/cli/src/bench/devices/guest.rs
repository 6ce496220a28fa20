//! Guests of a few instructions for a bare machine: each sets the network card up and then does one
//! thing over and over.

use twinvm_machine::SlotConfig;

const ZERO: u32 = 0;
const T0: u32 = 5;
const T1: u32 = 6;
const T2: u32 = 7;
/// Registers of the network card.
const S0: u32 = 8;
/// The ring of what the driver offers.
const S1: u32 = 9;
const T3: u32 = 28;

/// Of the card in the first slot.
const VIRTIO: u32 = 0x1000_1000;
const DESCRIPTORS: u32 = 0x8010_0000;
const OFFERED: u32 = 0x8010_1000;
const USED: u32 = 0x8010_2000;
const PACKET: u32 = 0x8010_3000;
/// The header of 12 bytes and the shortest frame.
const PACKET_BYTES: u32 = 12 + 60;
/// The transmit queue of a network card (virtio 1.2 section 5.1.2).
const TRANSMIT: u32 = 1;
const QUEUE_NOTIFY: i32 = 0x050;
const DEVICE_STATUS: i32 = 0x070;

/// The device that the guests use, in the first slot.
pub(super) const CARD: SlotConfig = SlotConfig::Net {
    mac: [2, 0, 0, 0, 0, 1],
};

/// What a guest does over and over, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Reads a register of the card.
    Read,
    /// Tells the card of a transmit queue with nothing new in it.
    Notify,
    /// Offers a packet of 60 bytes and tells the card.
    Send,
}

impl Turn {
    pub(super) const ALL: [Self; 3] = [Self::Read, Self::Notify, Self::Send];

    /// The row's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "a register of a device is read",
            Self::Notify => "a device is notified, its queue is empty",
            Self::Send => "a device is notified, and sends a frame of 60 bytes",
        }
    }

    /// The instructions of a turn without the access, and the access.
    fn parts(self) -> (Vec<u32>, u32) {
        let notify = sw(T1, S0, QUEUE_NOTIFY);
        match self {
            Self::Read => (Vec::new(), lw(T3, S0, DEVICE_STATUS)),
            Self::Notify => (Vec::new(), notify),
            // The ring names descriptor 0 everywhere.
            Self::Send => (vec![addi(T2, T2, 1), sh(T2, S1, 2)], notify),
        }
    }

    /// The program, with the access or without; and the instructions of one turn.
    pub(super) fn program(self, access: bool) -> (Vec<u8>, u64) {
        let (mut turn, last) = self.parts();
        turn.extend(access.then_some(last));
        turn.push(addi(T0, T0, 1));
        let back = -4 * turn.len() as i32;
        turn.push(jal(ZERO, back));
        let steps = turn.len() as u64;
        let code = setup().into_iter().chain(turn);
        (code.flat_map(u32::to_le_bytes).collect(), steps)
    }
}

/// Starts the card with the transmit queue alone (virtio 1.2 sections 3.1.1 and 4.2.3).
fn setup() -> Vec<u32> {
    let registers = [
        (DEVICE_STATUS, 1 | 2),
        // VIRTIO_F_VERSION_1 and no other feature.
        (0x024, 1),
        (0x020, 1),
        (0x024, 0),
        (0x020, 0),
        (DEVICE_STATUS, 1 | 2 | 8),
        (0x030, TRANSMIT),
        (0x038, 256),
        (0x080, DESCRIPTORS),
        (0x084, 0),
        (0x090, OFFERED),
        (0x094, 0),
        (0x0a0, USED),
        (0x0a4, 0),
        (0x044, 1),
        (DEVICE_STATUS, 1 | 2 | 8 | 4),
    ];
    let mut code = Vec::new();
    code.extend(address(S0, VIRTIO));
    code.extend(address(S1, DESCRIPTORS));
    for (offset, value) in [(0, PACKET), (8, PACKET_BYTES)] {
        code.extend(word(T0, value));
        code.push(sw(T0, S1, offset));
    }
    for (offset, value) in registers {
        code.extend(word(T0, value));
        code.push(sw(T0, S0, offset));
    }
    code.extend(address(S1, OFFERED));
    code.push(addi(T1, ZERO, TRANSMIT as i32));
    code
}

fn i_type(imm: i32, rs1: u32, funct3: u32, rd: u32, opcode: u32) -> u32 {
    (imm as u32) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

fn store(funct3: u32, rs2: u32, rs1: u32, imm: i32) -> u32 {
    let imm = imm as u32;
    (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | (imm & 31) << 7 | 0x23
}

fn addi(rd: u32, rs1: u32, imm: i32) -> u32 {
    i_type(imm, rs1, 0, rd, 0x13)
}

fn lw(rd: u32, rs1: u32, imm: i32) -> u32 {
    i_type(imm, rs1, 2, rd, 0x03)
}

fn sh(rs2: u32, rs1: u32, imm: i32) -> u32 {
    store(1, rs2, rs1, imm)
}

fn sw(rs2: u32, rs1: u32, imm: i32) -> u32 {
    store(2, rs2, rs1, imm)
}

fn jal(rd: u32, by: i32) -> u32 {
    let by = by as u32;
    let high = (by >> 20 & 1) << 31 | (by >> 1 & 0x3ff) << 21;
    high | (by >> 11 & 1) << 20 | (by >> 12 & 0xff) << 12 | rd << 7 | 0x6f
}

/// A register's lower half gets any value, its upper half a copy of the sign.
fn word(rd: u32, value: u32) -> [u32; 2] {
    let low = ((value as i32) << 20) >> 20;
    let high = value.wrapping_sub(low as u32);
    [high | rd << 7 | 0x37, i_type(low, rd, 0, rd, 0x1b)]
}

/// A register gets an even number below 2^32.
fn address(rd: u32, value: u32) -> [u32; 3] {
    let [high, low] = word(rd, value >> 1);
    [high, low, i_type(1, rd, 1, rd, 0x13)]
}
