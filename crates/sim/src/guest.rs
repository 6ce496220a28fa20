//! The guest of every run: a server for a few registers, with a driver of its own for one network
//! card, in less than 250 instructions.
//!
//! A client asks for one operation (read, write, compare-and-set, add) on one key and gets the value
//! before it. The server keeps each client's last answer, so a question that comes twice is carried
//! out once, also when the second one comes after a takeover.
//!
//! Every answer carries its number and a value that mixes all that the guest has done so far, with
//! virtual time and how often it has polled its ring. So an answer that is lost, made twice, or made
//! from an input that came one instruction too early or too late has other bytes. The guest keeps
//! these values in its RAM: what a state contains can be read there ([`Contents`]).

mod asm;
mod code;

use twinvm_machine::{
    DiskConfig, Images, Machine, MachineConfig, NET_HEADER_BYTES, OnReset, SlotConfig,
};
use twinvm_replica::VOICE_PREFIX;

/// The guest's network card.
pub(crate) const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// Clients that the server knows.
pub(crate) const CLIENTS: u64 = 8;
/// Keys that it keeps.
pub(crate) const KEYS: u64 = 8;
/// Answers of one power-on that a run may see: their values have a table in the guest's RAM.
pub(crate) const MAX_ANSWERS: u64 = 4096;
/// Wall time at power-on number n is n of these: what the guest calls its boot.
pub(crate) const BOOT_NS: u64 = 1 << 48;

/// The slot of its disk.
pub(crate) const DISK_SLOT: u8 = 1;
/// Sectors of its disk, if it has one; it uses the first.
pub(crate) const DISK_SECTORS: u64 = 8;
const RAM_BYTES: u64 = 4 << 20;
/// Two addresses and a type.
const HEADER_BYTES: usize = 14;
/// An experimental EtherType (IEEE 802, local experimental 1).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Where the words of a question or answer begin in a packet.
const WORDS_AT: usize = 32;
const WORDS: usize = 8;
const PACKET_BYTES: usize = WORDS_AT + 8 * WORDS;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads.
    Get,
    /// Writes.
    Set(u64),
    /// Puts the second in the place of the first.
    Swap(u64, u64),
    /// Adds.
    Add(u64),
    /// From now on the guest never sleeps (or does again): it polls.
    Busy(bool),
    /// The guest powers itself off.
    PowerOff,
}

impl Op {
    fn words(self) -> [u64; 3] {
        match self {
            Self::Get => [0, 0, 0],
            Self::Set(value) => [1, value, 0],
            Self::Swap(from, to) => [2, from, to],
            Self::Add(by) => [3, by, 0],
            Self::Busy(on) => [4, u64::from(on), 0],
            Self::PowerOff => [0xff, 0, 0],
        }
    }

    /// The value after it, and whether it was done, from the value before it.
    pub(crate) fn apply(self, value: u64) -> (u64, bool) {
        match self {
            Self::Set(new) => (new, true),
            Self::Swap(from, to) if value == from => (to, true),
            Self::Swap(..) => (value, false),
            Self::Add(by) => (value.wrapping_add(by), true),
            Self::Get | Self::Busy(_) | Self::PowerOff => (value, true),
        }
    }
}

/// A question as a packet for the guest's network card (virtio 1.2 section 5.1.6: a header comes
/// before the frame).
pub fn question(client: u64, seq: u64, key: u64, op: Op) -> Vec<u8> {
    let [code, first, second] = op.words();
    let mut packet = vec![0; NET_HEADER_BYTES];
    packet.extend_from_slice(&MAC);
    packet.extend_from_slice(&[0x52, 0x54, 0, 0, 1, client as u8]);
    packet.extend_from_slice(&ETHERTYPE);
    packet.resize(WORDS_AT, 0);
    for word in [client, seq, code, key, first, second, 0, 0] {
        packet.extend_from_slice(&word.to_le_bytes());
    }
    packet
}

/// An answer of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who asked.
    pub client: u64,
    /// The number of the client's question.
    pub seq: u64,
    /// The key's value before the operation.
    pub value: u64,
    /// Whether the operation was done.
    pub done: bool,
    /// Counts this boot's answers from 1.
    pub number: u64,
    /// Mixes all that the guest did until then.
    pub chain: u64,
    /// Wall time at power-on, as the guest saw it (its highest 16 bits).
    pub boot: u64,
}

/// Whether a packet of the guest was sent by its backup.
pub(crate) fn is_voice(packet: &[u8]) -> bool {
    let source = packet.get(NET_HEADER_BYTES + 6..).unwrap_or_default();
    source.starts_with(&VOICE_PREFIX)
}

/// Reads a packet that the guest sent; `None` if it is no answer.
pub fn answer(packet: &[u8]) -> Option<Answer> {
    let ethertype = packet
        .get(NET_HEADER_BYTES + HEADER_BYTES - 2..)?
        .get(..2)?;
    if packet.len() != PACKET_BYTES || ethertype != ETHERTYPE {
        return None;
    }
    let word = |n: usize| {
        let bytes = &packet[WORDS_AT + 8 * n..][..8];
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    };
    Some(Answer {
        client: word(0),
        seq: word(1),
        value: word(2),
        done: word(3) == 1,
        number: word(4),
        chain: word(5),
        boot: word(6),
    })
}

/// What a machine's state holds of this guest's answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// 0 before the guest has looked at its clock.
    pub(crate) boot: u64,
    /// `chains[n - 1]` belongs to answer number n.
    pub(crate) chains: Vec<u64>,
}

impl Contents {
    pub(crate) fn of(machine: &Machine) -> Self {
        let words = |pa: u64, count: usize| -> Vec<u64> {
            let bytes = machine.ram(pa, 8 * count).unwrap_or_default();
            let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
            bytes.chunks_exact(8).map(word).collect()
        };
        let head = words(code::STATE, 2);
        let count = head[0].min(MAX_ANSWERS) as usize;
        Self {
            boot: head[1],
            chains: words(code::CHAINS + 8, count),
        }
    }

    pub(crate) fn contains(&self, answer: &Answer) -> bool {
        let index = (answer.number as usize).wrapping_sub(1);
        self.boot == answer.boot && self.chains.get(index) == Some(&answer.chain)
    }
}

/// The machine of a run: with a disk, the guest writes all that it knows there, makes it durable and
/// reads it back before it answers, and takes it from there when it starts.
pub(crate) fn machine(with_disk: bool) -> MachineConfig {
    let disk = SlotConfig::Disk(DiskConfig {
        sectors: DISK_SECTORS,
        read_only: false,
        number: 0,
    });
    let slots = [
        Some(SlotConfig::Net { mac: MAC }),
        with_disk.then_some(disk),
    ];
    MachineConfig {
        ram_bytes: RAM_BYTES,
        harts: 1,
        slots: slots.into_iter().flatten().collect(),
        cmdline: String::new(),
        images: Images::new(image(with_disk.then_some(0)), None),
        on_reset: OnReset::Exit,
    }
}

/// The guest as a Linux Image (Documentation/arch/riscv/boot-image-header.rst), with a disk of which
/// it uses this sector.
pub fn image(disk_sector: Option<u32>) -> Vec<u8> {
    let mut image = vec![0; 64];
    // jal x0, +64
    image[..4].copy_from_slice(&0x0400_006f_u32.to_le_bytes());
    image[16..24].copy_from_slice(&4096u64.to_le_bytes());
    image[56..60].copy_from_slice(b"RSC\x05");
    image.extend(
        code::program(disk_sector)
            .into_iter()
            .flat_map(u32::to_le_bytes),
    );
    image
}

#[cfg(test)]
mod tests;
