//! Requests of the guest: from a descriptor chain to a checked value (virtio 1.2 section 5.2.6).

use std::sync::Arc;

use twinvm_mem::Memory;

use super::{DiskConfig, MAX_DISCARD_SECTORS, MAX_REQUEST_BYTES, SECTOR_BYTES};
use crate::virtio::ring::{Chain, HeldChain, RingError};

/// The request did what it asked for.
pub(super) const STATUS_OK: u8 = 0;
/// The request failed.
pub(super) const STATUS_IOERR: u8 = 1;
/// The device doesn't know this kind of request.
pub(super) const STATUS_UNSUPP: u8 = 2;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// Type, reserved, sector.
const HEADER_BYTES: usize = 16;
/// Sector, number of sectors, flags: one range of a discard or write-zeroes request.
const RANGE_BYTES: usize = 16;
const RANGE_UNMAP: u32 = 1;
/// Answer to a request for the disk's name.
const ID_BYTES: usize = 20;

/// What a disk request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskOp {
    /// Read sectors.
    Read,
    /// Write sectors.
    Write {
        /// The data must be on stable storage before the request counts as done: the driver
        /// doesn't flush.
        durable: bool,
    },
    /// Make everything stable that was done before this request.
    Flush,
    /// The guest no longer needs these sectors; from then on they read as zero.
    Discard,
    /// Fill sectors with zeros.
    WriteZeroes {
        /// The storage behind them may be given back.
        unmap: bool,
    },
}

/// A request as it leaves the machine, for the one that keeps the disk's contents.
///
/// Next hop: the host's disk, which answers with a status and, for a read, the data; the answer
/// enters as a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskRequest {
    /// Virtio slot of the disk.
    pub device: u8,
    /// Number of the request, unique for this disk from power-on on.
    pub id: u64,
    /// What to do.
    pub op: DiskOp,
    /// First byte on the disk, a multiple of [`SECTOR_BYTES`]; 0 for a flush.
    pub offset: u64,
    /// Number of bytes; 0 for a flush. The range is within the disk.
    pub bytes: u64,
    /// What a write writes.
    pub data: Arc<[u8]>,
}

/// A request that the device holds.
#[derive(Debug)]
pub(super) struct Held {
    /// Its number once it has left; `None` while it waits for one that it overlaps.
    pub(super) id: Option<u64>,
    /// The buffer to give back; `None` if the guest has reset the device meanwhile.
    pub(super) chain: Option<HeldChain>,
    pub(super) op: DiskOp,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) data: Arc<[u8]>,
}

impl Held {
    /// Whether two requests touch the same sectors and one of them changes them.
    pub(super) fn conflicts(&self, other: &Held) -> bool {
        let both_read = self.op == DiskOp::Read && other.op == DiskOp::Read;
        let apart =
            self.offset + self.bytes <= other.offset || other.offset + other.bytes <= self.offset;
        // A flush has no bytes and covers only what was done before it: it waits for nothing.
        !both_read && !apart && self.bytes > 0 && other.bytes > 0
    }

    /// Bytes that the request keeps in memory, here or at the host.
    pub(super) fn buffered(&self) -> u64 {
        match self.op {
            DiskOp::Read | DiskOp::Write { .. } => self.bytes,
            DiskOp::Flush | DiskOp::Discard | DiskOp::WriteZeroes { .. } => 0,
        }
    }
}

/// What a chain turned out to be.
pub(super) enum Parsed {
    /// Answered at once, with this status and data.
    Answer { status: u8, data: Vec<u8> },
    /// Work for the outside.
    Work { op: DiskOp, offset: u64, bytes: u64 },
}

fn fails(status: u8) -> Parsed {
    Parsed::Answer {
        status,
        data: Vec::new(),
    }
}

/// Reads the request that `chain` holds, without a write's data.
///
/// # Errors
/// [`RingError::BadRequest`] if there is no whole header, or no room to say how it went.
pub(super) fn parse(
    config: &DiskConfig,
    durable: bool,
    mem: &Memory,
    chain: &Chain,
) -> Result<Parsed, RingError> {
    let mut header = [0; HEADER_BYTES];
    if chain.read(mem, 0, &mut header)? < HEADER_BYTES {
        return Err(RingError::BadRequest);
    }
    // The last writable byte is the status, however the buffers are cut (section 2.7.4).
    let room = chain
        .writable_bytes()
        .checked_sub(1)
        .ok_or(RingError::BadRequest)?;
    let [kind, _reserved, low, high] = words(&header);
    let sector = u64::from(high) << 32 | u64::from(low);
    let payload = chain.readable_bytes() - HEADER_BYTES as u64;
    Ok(match kind {
        TYPE_IN => transfer(config, DiskOp::Read, sector, room),
        TYPE_OUT if config.read_only => fails(STATUS_IOERR),
        TYPE_OUT => transfer(config, DiskOp::Write { durable }, sector, payload),
        TYPE_FLUSH => Parsed::Work {
            op: DiskOp::Flush,
            offset: 0,
            bytes: 0,
        },
        TYPE_GET_ID => {
            let mut name = config.name().into_bytes();
            name.resize(ID_BYTES, 0);
            name.truncate(usize::try_from(room).unwrap_or(ID_BYTES).min(ID_BYTES));
            Parsed::Answer {
                status: STATUS_OK,
                data: name,
            }
        }
        TYPE_DISCARD | TYPE_WRITE_ZEROES if config.read_only => fails(STATUS_UNSUPP),
        TYPE_DISCARD | TYPE_WRITE_ZEROES => {
            // One range at a time, as the configuration space says.
            if payload != RANGE_BYTES as u64 {
                return Ok(fails(STATUS_IOERR));
            }
            let mut range = [0; RANGE_BYTES];
            chain.read(mem, HEADER_BYTES as u64, &mut range)?;
            clearing(config, kind, &range)
        }
        _ => fails(STATUS_UNSUPP),
    })
}

/// A read or a write.
fn transfer(config: &DiskConfig, op: DiskOp, sector: u64, bytes: u64) -> Parsed {
    let whole = bytes.is_multiple_of(SECTOR_BYTES) && bytes <= MAX_REQUEST_BYTES;
    match config.range(sector, bytes / SECTOR_BYTES) {
        Some((offset, bytes)) if whole && bytes > 0 => Parsed::Work { op, offset, bytes },
        Some(_) if bytes == 0 => fails(STATUS_OK),
        _ => fails(STATUS_IOERR),
    }
}

/// A discard or write-zeroes request with its one range.
fn clearing(config: &DiskConfig, kind: u32, range: &[u8; RANGE_BYTES]) -> Parsed {
    let [low, high, sectors, flags] = words(range);
    let unmap = flags & RANGE_UNMAP != 0;
    let op = match kind {
        // No flag means anything for a discard (section 5.2.6.2).
        TYPE_DISCARD if flags != 0 => return fails(STATUS_UNSUPP),
        TYPE_DISCARD => DiskOp::Discard,
        _ if flags & !RANGE_UNMAP != 0 => return fails(STATUS_UNSUPP),
        _ => DiskOp::WriteZeroes { unmap },
    };
    if sectors > MAX_DISCARD_SECTORS {
        return fails(STATUS_IOERR);
    }
    match config.range(u64::from(high) << 32 | u64::from(low), sectors.into()) {
        Some((_, 0)) => fails(STATUS_OK),
        Some((offset, bytes)) => Parsed::Work { op, offset, bytes },
        None => fails(STATUS_IOERR),
    }
}

/// Four little-endian words.
fn words(bytes: &[u8; 16]) -> [u32; 4] {
    std::array::from_fn(|i| {
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[4 * i..4 * i + 4]);
        u32::from_le_bytes(word)
    })
}

/// The data of a write, copied out of guest RAM.
pub(super) fn write_data(mem: &Memory, chain: &Chain, bytes: u64) -> Result<Arc<[u8]>, RingError> {
    let mut data = vec![0; bytes as usize];
    chain.read(mem, HEADER_BYTES as u64, &mut data)?;
    Ok(data.into())
}
