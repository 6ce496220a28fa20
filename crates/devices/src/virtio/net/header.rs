//! The header before every frame inside twinvm: `virtio_net_hdr` of a modern device (virtio 1.2
//! section 5.1.6), which says what of the work on a frame is still to be done.
//!
//! A packet is this header and the Ethernet frame. Packets stand in the log, in outputs and in the
//! ports of the host. Both sides of a packet may be hostile, so it is parsed where it comes in.

#[cfg(test)]
mod tests;

/// Bytes of the header.
pub const NET_HEADER_BYTES: usize = 12;
/// Smallest frame in either direction: an Ethernet header.
pub const MIN_FRAME_BYTES: usize = 14;
/// Largest frame in either direction: the longest IP packet, an Ethernet header, a VLAN tag.
pub const MAX_FRAME_BYTES: usize = 65_535 + 18;
/// Largest header and frame.
pub const MAX_PACKET_BYTES: usize = NET_HEADER_BYTES + MAX_FRAME_BYTES;

const FLAG_NEEDS_CSUM: u8 = 1;
const FLAG_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;
/// Where `num_buffers` stands, the header's last field.
pub(super) const NUM_BUFFERS_AT: usize = 10;
const NUM_BUFFERS: std::ops::Range<usize> = NUM_BUFFERS_AT..NET_HEADER_BYTES;

const FEATURE_CSUM: u64 = 1 << 0;
const FEATURE_GUEST_CSUM: u64 = 1 << 1;
const FEATURE_GUEST_TSO4: u64 = 1 << 7;
const FEATURE_GUEST_TSO6: u64 = 1 << 8;
const FEATURE_GUEST_ECN: u64 = 1 << 9;
const FEATURE_HOST_TSO4: u64 = 1 << 11;
const FEATURE_HOST_TSO6: u64 = 1 << 12;
const FEATURE_HOST_ECN: u64 = 1 << 13;

/// The feature bits of all offloads, in both directions.
pub(super) const OFFLOAD_FEATURES: u64 = FEATURE_CSUM
    | FEATURE_GUEST_CSUM
    | FEATURE_GUEST_TSO4
    | FEATURE_GUEST_TSO6
    | FEATURE_GUEST_ECN
    | FEATURE_HOST_TSO4
    | FEATURE_HOST_TSO6
    | FEATURE_HOST_ECN;

/// What a header says, checked against the length of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetHeader {
    /// A checksum that is still to be finished.
    pub checksum: Option<PartialChecksum>,
    /// The receiver need not check the checksums.
    pub data_valid: bool,
    /// The frame is several segments in one.
    pub segmentation: Option<Segmentation>,
}

/// A checksum of which only the pseudo header's part is in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the sum begins, from the start of the frame.
    pub start: u16,
    /// Where the checksum stands, from `start`. Its two bytes are inside the frame.
    pub offset: u16,
}

/// How a frame of several TCP segments is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// Over IPv6 instead of IPv4.
    pub ipv6: bool,
    /// The segments carry explicit congestion notification: CWR belongs to the first alone.
    pub ecn: bool,
    /// Payload of a segment in bytes; not zero.
    pub size: u16,
    /// A hint: bytes of all headers, at most the frame's length.
    pub header_bytes: u16,
}

impl NetHeader {
    /// What the first bytes of a packet say; `None` if they are no header for the rest of it, or
    /// the rest is no frame.
    pub fn of_packet(packet: &[u8]) -> Option<Self> {
        let (header, frame) = packet.split_first_chunk()?;
        Self::parse(header, frame.len())
    }

    /// What a header says of a frame of `frame_bytes`; `None` if it contradicts itself or the
    /// frame. Unknown flags and `num_buffers` are ignored (sections 5.1.6.2.2 and 5.1.6.4.2).
    pub fn parse(bytes: &[u8; NET_HEADER_BYTES], frame_bytes: usize) -> Option<Self> {
        if !(MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&frame_bytes) {
            return None;
        }
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let [flags, kind, ..] = *bytes;
        let checksum = (flags & FLAG_NEEDS_CSUM != 0).then(|| PartialChecksum {
            start: word(6),
            offset: word(8),
        });
        if checksum.is_some_and(|sum| sum.at() + 2 > frame_bytes) {
            return None;
        }
        let segmentation = match kind & !GSO_ECN {
            GSO_NONE if kind == GSO_NONE => None,
            GSO_TCPV4 | GSO_TCPV6 => Some(Segmentation {
                ipv6: kind & !GSO_ECN == GSO_TCPV6,
                ecn: kind & GSO_ECN != 0,
                size: word(4),
                header_bytes: word(2),
            }),
            _ => return None,
        };
        let proper = segmentation.is_none_or(|cut| {
            cut.size > 0 && usize::from(cut.header_bytes) <= frame_bytes && checksum.is_some()
        });
        proper.then_some(Self {
            checksum,
            data_valid: flags & FLAG_DATA_VALID != 0 && checksum.is_none(),
            segmentation,
        })
    }

    /// The header in its one form: fields that say nothing are zero, and so is `num_buffers`.
    pub fn to_bytes(&self) -> [u8; NET_HEADER_BYTES] {
        let mut bytes = [0; NET_HEADER_BYTES];
        if let Some(sum) = self.checksum {
            bytes[0] = FLAG_NEEDS_CSUM;
            bytes[6..8].copy_from_slice(&sum.start.to_le_bytes());
            bytes[8..10].copy_from_slice(&sum.offset.to_le_bytes());
        } else if self.data_valid {
            bytes[0] = FLAG_DATA_VALID;
        }
        if let Some(cut) = self.segmentation {
            let kind = if cut.ipv6 { GSO_TCPV6 } else { GSO_TCPV4 };
            bytes[1] = if cut.ecn { kind | GSO_ECN } else { kind };
            bytes[2..4].copy_from_slice(&cut.header_bytes.to_le_bytes());
            bytes[4..6].copy_from_slice(&cut.size.to_le_bytes());
        }
        bytes
    }
}

impl PartialChecksum {
    /// Where the checksum stands, from the start of the frame.
    pub fn at(&self) -> usize {
        usize::from(self.start) + usize::from(self.offset)
    }
}

/// Says in the header of a packet over how many buffers it is spread.
pub(super) fn set_num_buffers(packet: &mut [u8], buffers: u16) {
    packet[NUM_BUFFERS].copy_from_slice(&buffers.to_le_bytes());
}

/// Which work on frames one side leaves to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetOffloads {
    /// Finishing checksums.
    pub checksum: bool,
    /// Cutting TCP over IPv4 into segments.
    pub tso4: bool,
    /// Cutting TCP over IPv6 into segments.
    pub tso6: bool,
    /// Cutting segments that carry explicit congestion notification.
    pub ecn: bool,
}

impl NetOffloads {
    /// What a guest that accepted `features` takes: frames to it may carry such headers.
    pub fn to_guest(features: u64) -> Self {
        Self::from_bits(
            features,
            [
                FEATURE_GUEST_CSUM,
                FEATURE_GUEST_TSO4,
                FEATURE_GUEST_TSO6,
                FEATURE_GUEST_ECN,
            ],
        )
    }

    /// What a guest that accepted `features` may send.
    pub(super) fn from_guest(features: u64) -> Self {
        Self::from_bits(
            features,
            [
                FEATURE_CSUM,
                FEATURE_HOST_TSO4,
                FEATURE_HOST_TSO6,
                FEATURE_HOST_ECN,
            ],
        )
    }

    /// A feature without those that it requires counts for nothing (section 5.1.3.1).
    fn from_bits(features: u64, bits: [u64; 4]) -> Self {
        let [checksum, tso4, tso6, ecn] = bits.map(|bit| features & bit != 0);
        let (tso4, tso6) = (checksum && tso4, checksum && tso6);
        Self {
            checksum,
            tso4,
            tso6,
            ecn: ecn && (tso4 || tso6),
        }
    }

    /// Whether a packet with this header may pass.
    pub fn permit(&self, header: &NetHeader) -> bool {
        let checksum = self.checksum || header.checksum.is_none();
        let segmentation = header.segmentation.is_none_or(|cut| {
            let tso = if cut.ipv6 { self.tso6 } else { self.tso4 };
            tso && (self.ecn || !cut.ecn)
        });
        checksum && segmentation
    }
}
