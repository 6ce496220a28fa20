//! Snapshots on their way from one node to the other.

use crate::announce::Neighbours;
use twinvm_log::Record;
use twinvm_machine::{Machine, MachineConfig, Restore, SnapshotBusy, SnapshotStream};
use twinvm_protocol::SessionId;

/// Bytes of RAM in one piece: below the channel's bound by more than a head needs.
const CHUNK_BYTES: usize = 128 << 10;
/// A piece's buffer is larger by this: the last page read into it goes over the mark.
const SPARE_BYTES: usize = 8 << 10;
/// Addresses of all cards: a few hundred bytes each.
const MAX_ADDRESSES_BYTES: usize = 64 << 10;
const LENGTH_BYTES: usize = 4;

/// A snapshot on its way to a joining node: learnt addresses, then the machine. Its
/// pages are read while the guest goes on, on another thread if the driver has one.
pub struct SnapshotSource {
    /// Read but not yet handed out.
    pending: Vec<u8>,
    stream: SnapshotStream,
}

impl SnapshotSource {
    /// Begins a snapshot of `machine` as it is now.
    pub(crate) fn new(
        neighbours: &Neighbours,
        machine: &mut Machine,
    ) -> Result<Self, SnapshotBusy> {
        let addresses = match postcard::to_stdvec(neighbours) {
            Ok(addresses) => addresses,
            Err(error) => unreachable!("encoding to memory failed: {error}"),
        };
        let mut pending = (addresses.len() as u32).to_le_bytes().to_vec();
        pending.extend_from_slice(&addresses);
        let stream = machine.snapshot(false)?;
        Ok(Self { pending, stream })
    }

    /// Reads the next piece; the flag says that it is the last. Behind it come empty
    /// ones.
    pub fn read_piece(&mut self) -> (Vec<u8>, bool) {
        self.pending
            .reserve((CHUNK_BYTES + SPARE_BYTES).saturating_sub(self.pending.len()));
        let missing = CHUNK_BYTES.saturating_sub(self.pending.len());
        self.stream.read(missing, &mut self.pending);
        let rest = self.pending.split_off(self.pending.len().min(CHUNK_BYTES));
        let bytes = std::mem::replace(&mut self.pending, rest);
        let last = self.stream.is_done() && self.pending.is_empty();
        (bytes, last)
    }
}

/// The pieces of a [`SnapshotSource`], as its driver has them read
/// ([`Env::read_snapshot`](crate::Env::read_snapshot)). Dropping it gives the snapshot
/// up.
pub trait SnapshotPieces {
    /// The next piece, without waiting.
    fn next_piece(&mut self) -> Piece;
}

/// What [`SnapshotPieces::next_piece`] has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes.
    Ready {
        /// Up to 128 KiB.
        bytes: Vec<u8>,
        /// Nothing comes behind them.
        last: bool,
    },
    /// It is still being read.
    Later,
    /// The host can't read it.
    Failed(String),
}

/// Read where it is asked for: for drivers without threads.
impl SnapshotPieces for SnapshotSource {
    fn next_piece(&mut self) -> Piece {
        let (bytes, last) = self.read_piece();
        Piece::Ready { bytes, last }
    }
}

/// A snapshot that is being sent as the channel takes it.
pub(crate) struct SnapshotOut {
    pub(crate) session: SessionId,
    pub(crate) pieces: Box<dyn SnapshotPieces>,
    pub(crate) offset: u64,
}

/// A snapshot that is being received, and the log that came meanwhile.
pub(crate) struct Install {
    pub(crate) session: SessionId,
    position: u64,
    ours: Neighbours,
    addresses: Option<Neighbours>,
    /// The first bytes, until the addresses are whole.
    head: Vec<u8>,
    offset: u64,
    restore: Option<Restore>,
    records: Vec<Record>,
    /// The last piece has come.
    pub(crate) is_whole: bool,
}

impl Install {
    pub(crate) fn new(
        session: SessionId,
        position: u64,
        config: MachineConfig,
        ours: Neighbours,
    ) -> Self {
        Self {
            session,
            position,
            ours,
            addresses: None,
            head: Vec::new(),
            offset: 0,
            restore: Some(Restore::new(Some(config))),
            records: Vec::new(),
            is_whole: false,
        }
    }

    pub(crate) fn chunk(&mut self, offset: u64, bytes: &[u8]) -> Result<(), String> {
        if offset != self.offset {
            return Err(format!(
                "snapshot piece at {offset}, expected {}",
                self.offset
            ));
        }
        self.offset += bytes.len() as u64;
        if self.addresses.is_some() {
            return self.restore_bytes(bytes);
        }
        self.head.extend_from_slice(bytes);
        let Some((len, rest)) = self.head.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(());
        };
        let len = u32::from_le_bytes(*len) as usize;
        if len > MAX_ADDRESSES_BYTES {
            return Err(format!(
                "snapshot: {len} bytes of addresses, at most {MAX_ADDRESSES_BYTES}"
            ));
        }
        let Some((addresses, machine)) = rest.split_at_checked(len) else {
            return Ok(());
        };
        let addresses: Neighbours = postcard::from_bytes(addresses)
            .map_err(|error| format!("snapshot: addresses: {error}"))?;
        if !self.ours.same_cards(&addresses) {
            return Err("snapshot: its network cards are not ours".to_owned());
        }
        self.addresses = Some(addresses);
        let machine = machine.to_vec();
        self.head = Vec::new();
        self.restore_bytes(&machine)
    }

    fn restore_bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        match &mut self.restore {
            Some(restore) => restore.push(bytes).map_err(|error| error.to_string()),
            None => Err("snapshot: a piece behind the last".to_owned()),
        }
    }

    pub(crate) fn push(&mut self, records: Vec<Record>) {
        self.records.extend(records);
    }

    pub(crate) fn backlog(&self) -> usize {
        self.records.len()
    }

    /// After the last piece: position, machine, addresses, and the records so far.
    pub(crate) fn finish(&mut self) -> Result<(u64, Machine, Neighbours, Vec<Record>), String> {
        let (Some(restore), Some(addresses)) = (self.restore.take(), self.addresses.take()) else {
            return Err("snapshot: cut short".to_owned());
        };
        let machine = restore.finish().map_err(|error| error.to_string())?;
        Ok((
            self.position,
            machine,
            addresses,
            std::mem::take(&mut self.records),
        ))
    }
}
