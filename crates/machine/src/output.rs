//! What leaves the guest.

use xxhash_rust::xxh3::Xxh3;

use crate::{DiskRequest, disk_hash};

/// Why a machine has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Halt {
    /// The guest powered itself off, or the finisher said pass.
    PowerOff,
    /// The guest reset itself and the configuration says that this is the end.
    Reset,
    /// The finisher said fail, with a code.
    Fail(u16),
}

/// One thing that leaves the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputItem {
    /// A packet from the network device in this virtio slot.
    Frame {
        /// Virtio slot.
        device: u8,
        /// The header ([`NetHeader`](crate::NetHeader)) and the Ethernet frame.
        bytes: Vec<u8>,
    },
    /// A change of a disk that other machines reach too. No machine makes it an output; whoever
    /// drives one does.
    Disk(DiskRequest),
    /// The machine has ended. Nothing follows.
    Halt(Halt),
}

/// Everything that one step of the guest gave out.
///
/// Next hop: the live node appends its hash to the log as an `Output` record and
/// queues the items in the output gate under that record's position; the backup
/// compares the hash and keeps the items until they are known to be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The step after which it was made.
    pub icount: u64,
    /// The items in the order in which the guest made them.
    pub items: Vec<OutputItem>,
}

impl Output {
    /// Hash over all items, lengths included.
    pub fn hash(&self) -> u64 {
        let mut hash = Xxh3::new();
        for item in &self.items {
            match item {
                OutputItem::Frame { device, bytes } => {
                    hash.update(&[1, *device]);
                    hash.update(&(bytes.len() as u64).to_le_bytes());
                    hash.update(bytes);
                }
                OutputItem::Disk(request) => {
                    hash.update(&[3]);
                    hash.update(&request.id.to_le_bytes());
                    hash.update(&disk_hash(request, &[]).to_le_bytes());
                }
                OutputItem::Halt(halt) => {
                    let (kind, code) = match halt {
                        Halt::PowerOff => (1, 0),
                        Halt::Reset => (2, 0),
                        Halt::Fail(code) => (3, *code),
                    };
                    hash.update(&[2, kind]);
                    hash.update(&code.to_le_bytes());
                }
            }
        }
        hash.digest()
    }
}
