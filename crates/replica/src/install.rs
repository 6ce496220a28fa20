//! Snapshots on their way from one node to the other.

use crate::announce::Neighbours;
use twinvm_log::Record;
use twinvm_machine::{Machine, MachineConfig, Output};
use twinvm_protocol::message::MAX_CHUNK_BYTES;
use twinvm_protocol::{Event as ProtocolEvent, SessionId};

/// What a snapshot may need beside RAM pages and their numbers.
const SNAPSHOT_OVERHEAD_BYTES: u64 = 16 << 20;
const LENGTH_BYTES: usize = 4;

/// The bytes sent to a joining node: learnt addresses, then the machine.
pub(crate) fn pack(neighbours: &Neighbours, machine: &Machine) -> Vec<u8> {
    let head = match postcard::to_stdvec(neighbours) {
        Ok(head) => head,
        Err(error) => unreachable!("encoding to memory failed: {error}"),
    };
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes.append(&mut machine.save(false));
    bytes
}

/// The reverse of [`pack`], for a node with this configuration.
pub(crate) fn unpack(
    bytes: &[u8],
    config: &MachineConfig,
    ours: &Neighbours,
) -> Result<(Machine, Neighbours), String> {
    let (len, rest) = bytes
        .split_first_chunk::<LENGTH_BYTES>()
        .ok_or("snapshot: empty")?;
    let len = u32::from_le_bytes(*len) as usize;
    let (head, machine) = rest.split_at_checked(len).ok_or("snapshot: cut short")?;
    let neighbours: Neighbours =
        postcard::from_bytes(head).map_err(|error| format!("snapshot: addresses: {error}"))?;
    if !ours.same_cards(&neighbours) {
        return Err("snapshot: its network cards are not ours".to_owned());
    }
    let machine =
        Machine::restore(machine, Some(config.clone())).map_err(|error| error.to_string())?;
    Ok((machine, neighbours))
}

/// A snapshot that is being sent, piece by piece as the channel takes it.
pub(crate) struct SnapshotOut {
    pub(crate) session: SessionId,
    bytes: Vec<u8>,
    offset: usize,
}

impl SnapshotOut {
    pub(crate) fn new(session: SessionId, bytes: Vec<u8>) -> Self {
        Self {
            session,
            bytes,
            offset: 0,
        }
    }

    /// The next piece, and its size.
    pub(crate) fn next_chunk(&mut self) -> (ProtocolEvent<Output>, usize) {
        let end = (self.offset + MAX_CHUNK_BYTES).min(self.bytes.len());
        let bytes = self.bytes[self.offset..end].to_vec();
        let len = bytes.len();
        let event = ProtocolEvent::SnapshotChunk {
            session: self.session,
            offset: self.offset as u64,
            bytes,
            last: end == self.bytes.len(),
        };
        self.offset = end;
        (event, len)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.offset == self.bytes.len()
    }
}

/// A snapshot that is being received, and the log that came meanwhile.
pub(crate) struct Install {
    pub(crate) session: SessionId,
    position: u64,
    limit: u64,
    bytes: Vec<u8>,
    records: Vec<Record>,
}

impl Install {
    pub(crate) fn new(session: SessionId, position: u64, ram_bytes: u64) -> Self {
        // Each page carries its number, 4 bytes in 4096.
        let limit = ram_bytes + ram_bytes / 1024 + SNAPSHOT_OVERHEAD_BYTES;
        Self {
            session,
            position,
            limit,
            bytes: Vec::new(),
            records: Vec::new(),
        }
    }

    pub(crate) fn chunk(&mut self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        if offset != self.bytes.len() as u64 {
            return Err(format!(
                "snapshot piece at {offset}, expected {}",
                self.bytes.len()
            ));
        }
        if offset + bytes.len() as u64 > self.limit {
            return Err(format!("snapshot is larger than {} bytes", self.limit));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn push(&mut self, records: Vec<Record>) {
        self.records.extend(records);
    }

    pub(crate) fn backlog(&self) -> usize {
        self.records.len()
    }

    /// Position, snapshot, and the records after it.
    pub(crate) fn take(&mut self) -> (u64, Vec<u8>, Vec<Record>) {
        (
            self.position,
            std::mem::take(&mut self.bytes),
            std::mem::take(&mut self.records),
        )
    }
}
