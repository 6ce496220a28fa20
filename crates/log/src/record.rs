//! One record: what happened to the machine, and after which step.
//!
//! On the wire a record is a tag byte, the number of steps since the record before it, and
//! the fields of its kind. The low four bits of the tag are the kind; the high bits leave
//! out what need not be said twice (see [`SAME_ICOUNT`]).

use crate::varint::{Cursor, put};

/// The longest frame a record carries with its header of 12 bytes (virtio 1.2 section 5.1.6):
/// several TCP segments in one IP packet of at most 65,535 bytes, an Ethernet header, a VLAN tag.
/// Longer frames must be dropped before they are logged.
pub const MAX_FRAME_BYTES: usize = 12 + 65_535 + 18;
/// The most console input one record carries. Longer input is split by the host.
pub const MAX_CONSOLE_BYTES: usize = 4096;
/// The most random bytes one record carries. A larger request is answered in part.
pub const MAX_ENTROPY_BYTES: usize = 4096;
/// The most bytes of a disk's contents one record carries: the largest read that a disk allows.
pub const MAX_DISK_BYTES: usize = 128 * 1024;

// Kinds of record. Persisted numbers: never change or reuse one.
const KIND_ANCHOR: u8 = 1;
const KIND_NET_RX: u8 = 2;
const KIND_CONSOLE_RX: u8 = 3;
const KIND_ENTROPY: u8 = 4;
const KIND_OUTPUT: u8 = 5;
const KIND_DIGEST: u8 = 6;
const KIND_END: u8 = 7;
const KIND_BLOCK_DONE: u8 = 8;
const KIND_PORT_RX: u8 = 9;
const KIND_BLOCK_ENDED: u8 = 10;
const KIND_DISK_WRITE: u8 = 11;

const KIND_MASK: u8 = 0x0f;
/// Same instruction count as the record before it (or the batch's base): no step count follows.
const SAME_ICOUNT: u8 = 0x80;
/// An anchor with the rate of the anchor before it in its batch: no rate follows.
const SAME_RATE: u8 = 0x10;
/// An anchor with the span of the anchor before it in its batch: no span follows.
const SAME_SPAN: u8 = 0x20;

/// One entry of the log. It applies after step `icount` and before the next one; records
/// with equal counts apply in the order of their positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Steps since power-on.
    pub icount: u64,
    /// What happened.
    pub body: Body,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Ties virtual time to the instruction count.
    Anchor {
        /// Virtual time at `icount`, in ticks of 100 ns.
        mtime: u64,
        /// Ticks of 100 ns per step, 32.32 fixed point.
        rate: u64,
        /// Ticks after which time stands still until the next anchor.
        span: u64,
        /// A cheap hash of the running hart's registers at `icount`.
        tell_tale: u16,
    },
    /// A frame from the network, for the given network device.
    NetRx {
        /// Index of the device on its board.
        device: u8,
        /// The header (`virtio_net_hdr`, virtio 1.2 section 5.1.6) and the Ethernet frame, at most
        /// [`MAX_FRAME_BYTES`].
        frame: Vec<u8>,
    },
    /// Bytes typed at the serial console, at most [`MAX_CONSOLE_BYTES`].
    ConsoleRx {
        /// The bytes, in order.
        bytes: Vec<u8>,
    },
    /// Bytes typed at a virtio console, at most [`MAX_CONSOLE_BYTES`].
    PortRx {
        /// Index of the device on its board.
        device: u8,
        /// The bytes, in order.
        bytes: Vec<u8>,
    },
    /// Random bytes for an entropy device.
    Entropy {
        /// Index of the device on its board.
        device: u8,
        /// The bytes, at most [`MAX_ENTROPY_BYTES`].
        bytes: Vec<u8>,
    },
    /// A disk's request has ended.
    BlockDone {
        /// Index of the device on its board.
        device: u8,
        /// The request's number.
        id: u64,
        /// How it went, as the guest sees it: 0 done, 1 failed.
        status: u8,
        /// What a read that was done has read, at most [`MAX_DISK_BYTES`].
        data: Vec<u8>,
    },
    /// The same, of a disk that each side has a copy of: what a read has read comes from the
    /// replaying side's own copy, and here is only what tells that it is the same.
    BlockEnded {
        /// Index of the device on its board.
        device: u8,
        /// The request's number.
        id: u64,
        /// How it went, as the guest sees it: 0 done, 1 failed.
        status: u8,
        /// Hash of what the request was and of what it read or wrote.
        hash: u64,
    },
    /// The guest has asked for a change of a disk that both sides reach. It is an output: carried
    /// out once whoever follows holds this record.
    DiskWrite {
        /// Index of the device on its board.
        device: u8,
        /// The request's number.
        id: u64,
        /// Hash of what the request is and of what it writes.
        hash: u64,
    },
    /// Covers every output made up to `icount`.
    Output {
        /// Hash of the bytes that left the guest.
        hash: u64,
    },
    /// The digest of the whole machine at `icount`.
    Digest {
        /// Registers, devices and memory in one number.
        digest: u128,
    },
    /// The last record of a finished recording: a replay runs to its `icount` and stops.
    End {
        /// Why the run ended; the machine's exit reason as a number.
        reason: u8,
    },
}

/// A byte string above its bound: its name, its length and the bound.
pub(crate) type Oversize = (&'static str, usize, usize);

/// What both sides remember from record to record inside one batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    icount: u64,
    mtime: u64,
    rate: u64,
    span: u64,
}

impl Context {
    pub(crate) fn new(base_icount: u64) -> Self {
        Self {
            icount: base_icount,
            mtime: 0,
            rate: 0,
            span: 0,
        }
    }
}

/// Appends `record`; its count must not be below that of the record before it.
///
/// On error `out` may hold part of the record; the caller cuts it off.
pub(crate) fn encode(
    record: &Record,
    context: &mut Context,
    out: &mut Vec<u8>,
) -> Result<(), Oversize> {
    let steps = record.icount - context.icount;
    let tag_at = out.len();
    out.push(if steps == 0 { SAME_ICOUNT } else { 0 });
    if steps > 0 {
        put(out, steps);
    }
    context.icount = record.icount;
    out[tag_at] |= match &record.body {
        Body::Anchor {
            mtime,
            rate,
            span,
            tell_tale,
        } => {
            let mut tag = KIND_ANCHOR;
            // Wrapping: time that goes back is the machine's business to refuse, not ours to lose.
            put(out, mtime.wrapping_sub(context.mtime));
            if *rate == context.rate {
                tag |= SAME_RATE;
            } else {
                put(out, *rate);
            }
            if *span == context.span {
                tag |= SAME_SPAN;
            } else {
                put(out, *span);
            }
            out.extend_from_slice(&tell_tale.to_le_bytes());
            (context.mtime, context.rate, context.span) = (*mtime, *rate, *span);
            tag
        }
        Body::NetRx { device, frame } => {
            out.push(*device);
            put_bytes(out, "frame", frame, MAX_FRAME_BYTES)?;
            KIND_NET_RX
        }
        Body::ConsoleRx { bytes } => {
            put_bytes(out, "console input", bytes, MAX_CONSOLE_BYTES)?;
            KIND_CONSOLE_RX
        }
        Body::PortRx { device, bytes } => {
            out.push(*device);
            put_bytes(out, "console input", bytes, MAX_CONSOLE_BYTES)?;
            KIND_PORT_RX
        }
        Body::Entropy { device, bytes } => {
            out.push(*device);
            put_bytes(out, "entropy", bytes, MAX_ENTROPY_BYTES)?;
            KIND_ENTROPY
        }
        Body::BlockDone {
            device,
            id,
            status,
            data,
        } => {
            out.push(*device);
            put(out, *id);
            out.push(*status);
            put_bytes(out, "disk contents", data, MAX_DISK_BYTES)?;
            KIND_BLOCK_DONE
        }
        Body::BlockEnded {
            device,
            id,
            status,
            hash,
        } => {
            out.push(*device);
            put(out, *id);
            out.push(*status);
            out.extend_from_slice(&hash.to_le_bytes());
            KIND_BLOCK_ENDED
        }
        Body::DiskWrite { device, id, hash } => {
            out.push(*device);
            put(out, *id);
            out.extend_from_slice(&hash.to_le_bytes());
            KIND_DISK_WRITE
        }
        Body::Output { hash } => {
            out.extend_from_slice(&hash.to_le_bytes());
            KIND_OUTPUT
        }
        Body::Digest { digest } => {
            out.extend_from_slice(&digest.to_le_bytes());
            KIND_DIGEST
        }
        Body::End { reason } => {
            out.push(*reason);
            KIND_END
        }
    };
    Ok(())
}

fn put_bytes(
    out: &mut Vec<u8>,
    what: &'static str,
    bytes: &[u8],
    max: usize,
) -> Result<(), Oversize> {
    if bytes.len() > max {
        return Err((what, bytes.len(), max));
    }
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    Ok(())
}

/// Reads one record.
pub(crate) fn decode(
    cursor: &mut Cursor<'_>,
    context: &mut Context,
) -> Result<Record, &'static str> {
    let tag = cursor.byte()?;
    if tag & SAME_ICOUNT == 0 {
        let steps = cursor.varint()?;
        if steps == 0 {
            return Err("zero steps not in their shortest form");
        }
        context.icount = context
            .icount
            .checked_add(steps)
            .ok_or("instruction count above 64 bits")?;
    }
    let kind = tag & KIND_MASK;
    let flags = tag & !(KIND_MASK | SAME_ICOUNT);
    if flags != 0 && (kind != KIND_ANCHOR || flags & !(SAME_RATE | SAME_SPAN) != 0) {
        return Err("flags that this kind of record doesn't have");
    }
    let body = match kind {
        KIND_ANCHOR => {
            context.mtime = context.mtime.wrapping_add(cursor.varint()?);
            if flags & SAME_RATE == 0 {
                context.rate = cursor.varint()?;
            }
            if flags & SAME_SPAN == 0 {
                context.span = cursor.varint()?;
            }
            Body::Anchor {
                mtime: context.mtime,
                rate: context.rate,
                span: context.span,
                tell_tale: u16::from_le_bytes(cursor.array()?),
            }
        }
        KIND_NET_RX => Body::NetRx {
            device: cursor.byte()?,
            frame: cursor.bytes(MAX_FRAME_BYTES)?,
        },
        KIND_CONSOLE_RX => Body::ConsoleRx {
            bytes: cursor.bytes(MAX_CONSOLE_BYTES)?,
        },
        KIND_PORT_RX => Body::PortRx {
            device: cursor.byte()?,
            bytes: cursor.bytes(MAX_CONSOLE_BYTES)?,
        },
        KIND_ENTROPY => Body::Entropy {
            device: cursor.byte()?,
            bytes: cursor.bytes(MAX_ENTROPY_BYTES)?,
        },
        KIND_BLOCK_DONE => Body::BlockDone {
            device: cursor.byte()?,
            id: cursor.varint()?,
            status: cursor.byte()?,
            data: cursor.bytes(MAX_DISK_BYTES)?,
        },
        KIND_BLOCK_ENDED => Body::BlockEnded {
            device: cursor.byte()?,
            id: cursor.varint()?,
            status: cursor.byte()?,
            hash: u64::from_le_bytes(cursor.array()?),
        },
        KIND_DISK_WRITE => Body::DiskWrite {
            device: cursor.byte()?,
            id: cursor.varint()?,
            hash: u64::from_le_bytes(cursor.array()?),
        },
        KIND_OUTPUT => Body::Output {
            hash: u64::from_le_bytes(cursor.array()?),
        },
        KIND_DIGEST => Body::Digest {
            digest: u128::from_le_bytes(cursor.array()?),
        },
        KIND_END => Body::End {
            reason: cursor.byte()?,
        },
        _ => return Err("unknown kind of record"),
    };
    Ok(Record {
        icount: context.icount,
        body,
    })
}
