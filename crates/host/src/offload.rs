//! What a network card with offloads does, in software, for wires that have none: finishing
//! checksums and cutting TCP frames into segments.
//!
//! The frames come from the guest and may be hostile: what is not as its header says is dropped by
//! the caller, never guessed at.

use std::ops::Range;

use twinvm_machine::{NET_HEADER_BYTES, NetHeader, PartialChecksum, Segmentation};

#[cfg(test)]
mod tests;

const MAC_BYTES: usize = 12;
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const PROTOCOL_TCP: u8 = 6;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const TCP_HEADER_BYTES: usize = 20;
/// Where the checksum stands in a TCP header (RFC 9293 section 3.1).
const TCP_CHECKSUM: usize = 16;
const TCP_FLAGS: usize = 13;
const FLAG_FIN: u8 = 0x01;
const FLAG_PSH: u8 = 0x08;
const FLAG_CWR: u8 = 0x80;
/// IPv6 extension headers that may stand before TCP (RFC 8200 section 4): hop-by-hop options,
/// routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
/// More of them than any stack sends.
const MAX_EXTENSIONS: usize = 4;
/// Most bytes of all segments of a packet: each repeats the headers, so small segments behind long
/// headers make thousands of times more of it. Stacks send segments of 48 bytes at least, which
/// with the longest headers of theirs is a quarter of this.
const MAX_SEGMENTED_BYTES: usize = 1 << 20;

/// A packet that is not what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet is not what its header says")]
pub struct Unfit;

/// Gives `emit` the frames that a packet stands for, in order, with nothing left to do: one frame,
/// or the segments that it is to be cut into. The next hop is the wire.
pub fn plain_frames(packet: &[u8], mut emit: impl FnMut(&[u8])) -> Result<(), Unfit> {
    let header = NetHeader::of_packet(packet).ok_or(Unfit)?;
    let frame = &packet[NET_HEADER_BYTES..];
    match (header.checksum, header.segmentation) {
        (None, _) => emit(frame),
        (Some(sum), None) => {
            let mut frame = frame.to_vec();
            finish(&mut frame, sum);
            emit(&frame);
        }
        (Some(sum), Some(cut)) => Layout::of(frame, sum, cut)?.segments(frame, &mut emit),
    }
    Ok(())
}

/// Finishes a checksum: its field holds the pseudo header's part.
fn finish(frame: &mut [u8], sum: PartialChecksum) {
    let value = fold(add(0, &frame[usize::from(sum.start)..]));
    put(frame, sum.at(), not_zero(!value));
}

/// Where the headers of a TCP frame stand.
struct Layout {
    /// From the IP header to the TCP header.
    ip: Range<usize>,
    ipv6: bool,
    /// The payload's start.
    payload: usize,
    /// Payload of a segment.
    size: usize,
}

impl Layout {
    fn of(frame: &[u8], sum: PartialChecksum, cut: Segmentation) -> Result<Self, Unfit> {
        let mut at = MAC_BYTES;
        if ethertype(frame, at)? == ETHERTYPE_VLAN {
            at += 4;
        }
        let expected = if cut.ipv6 {
            ETHERTYPE_IPV6
        } else {
            ETHERTYPE_IPV4
        };
        if ethertype(frame, at)? != expected {
            return Err(Unfit);
        }
        let start = at + 2;
        let ip = frame.get(start..).ok_or(Unfit)?;
        let end = if cut.ipv6 { ipv6(ip) } else { ipv4(ip) }.ok_or(Unfit)?;
        let tcp = start + end;
        let header = frame.get(tcp..tcp + TCP_HEADER_BYTES).ok_or(Unfit)?;
        let tcp_bytes = usize::from(header[12] >> 4) * 4;
        let payload = tcp + tcp_bytes;
        let data = frame.len().checked_sub(payload).ok_or(Unfit)?;
        let segments = data.div_ceil(cut.size.into());
        let proper = tcp_bytes >= TCP_HEADER_BYTES
            && data + segments * payload <= MAX_SEGMENTED_BYTES
            && usize::from(sum.start) == tcp
            && usize::from(sum.offset) == TCP_CHECKSUM;
        proper
            .then_some(Self {
                ip: start..tcp,
                ipv6: cut.ipv6,
                payload,
                size: cut.size.into(),
            })
            .ok_or(Unfit)
    }

    /// The segments, as RFC 9293 and the network stacks have them: sequence numbers and IPv4
    /// identifications go on, FIN and PSH are the last one's, CWR is the first one's (RFC 3168
    /// section 6.1.2).
    fn segments(&self, frame: &[u8], emit: &mut impl FnMut(&[u8])) {
        let tcp = self.ip.end;
        let (headers, payload) = frame.split_at(self.payload);
        let first_sequence = u32::from_be_bytes([
            headers[tcp + 4],
            headers[tcp + 5],
            headers[tcp + 6],
            headers[tcp + 7],
        ]);
        let flags = headers[tcp + TCP_FLAGS];
        let identification = word(headers, self.ip.start + 4);
        let count = payload.len().div_ceil(self.size).max(1);
        let mut segment = Vec::with_capacity(headers.len() + self.size);
        for index in 0..count {
            let from = index * self.size;
            let until = (from + self.size).min(payload.len());
            segment.clear();
            segment.extend_from_slice(headers);
            segment.extend_from_slice(&payload[from..until]);

            let sequence = first_sequence.wrapping_add(from as u32);
            segment[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
            let mut own = flags;
            if index > 0 {
                own &= !FLAG_CWR;
            }
            if index + 1 < count {
                own &= !(FLAG_FIN | FLAG_PSH);
            }
            segment[tcp + TCP_FLAGS] = own;
            let ip = self.ip.start;
            if self.ipv6 {
                let len = segment.len() - ip - IPV6_HEADER_BYTES;
                put(&mut segment, ip + 4, len as u16);
            } else {
                let len = segment.len() - ip;
                put(&mut segment, ip + 2, len as u16);
                put(
                    &mut segment,
                    ip + 4,
                    identification.wrapping_add(index as u16),
                );
                put(&mut segment, ip + 10, 0);
                let sum = fold(add(0, &segment[self.ip.clone()]));
                put(&mut segment, ip + 10, !sum);
            }
            put(&mut segment, tcp + TCP_CHECKSUM, 0);
            let sum = fold(add(self.pseudo_header(&segment), &segment[tcp..]));
            put(&mut segment, tcp + TCP_CHECKSUM, not_zero(!sum));
            emit(&segment);
        }
    }

    /// The sum over the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1).
    fn pseudo_header(&self, segment: &[u8]) -> u64 {
        let ip = self.ip.start;
        let addresses = if self.ipv6 {
            ip + 8..ip + 40
        } else {
            ip + 12..ip + 20
        };
        let len = segment.len() - self.ip.end;
        add(len as u64 + u64::from(PROTOCOL_TCP), &segment[addresses])
    }
}

fn ethertype(frame: &[u8], at: usize) -> Result<[u8; 2], Unfit> {
    let found = frame.get(at..at + 2).ok_or(Unfit)?;
    Ok([found[0], found[1]])
}

/// Bytes of the IPv4 header before TCP, if the packet is one whole TCP segment.
fn ipv4(ip: &[u8]) -> Option<usize> {
    let header = ip.get(..IPV4_HEADER_BYTES)?;
    let bytes = usize::from(header[0] & 0x0f) * 4;
    // More fragments, or not the first.
    let fragment = word(header, 6) & 0x3fff != 0;
    let proper = header[0] >> 4 == 4
        && bytes >= IPV4_HEADER_BYTES
        && usize::from(word(header, 2)) == ip.len()
        && header[9] == PROTOCOL_TCP
        && !fragment;
    proper.then_some(bytes)
}

/// Bytes of the IPv6 header and its extensions before TCP, if the packet is one whole TCP segment.
fn ipv6(ip: &[u8]) -> Option<usize> {
    let header = ip.get(..IPV6_HEADER_BYTES)?;
    if header[0] >> 4 != 6 || usize::from(word(header, 4)) != ip.len() - IPV6_HEADER_BYTES {
        return None;
    }
    let mut next = header[6];
    let mut at = IPV6_HEADER_BYTES;
    for _ in 0..=MAX_EXTENSIONS {
        if next == PROTOCOL_TCP {
            return Some(at);
        }
        if !EXTENSIONS.contains(&next) {
            return None;
        }
        let extension = ip.get(at..at + 2)?;
        next = extension[0];
        at += 8 + 8 * usize::from(extension[1]);
    }
    None
}

/// The big-endian word at `at`.
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A checksum of zero is sent as its other form: zero would mean none in UDP (RFC 768), and is the
/// same in TCP.
fn not_zero(sum: u16) -> u16 {
    if sum == 0 { 0xffff } else { sum }
}

/// Adds big-endian words to a ones' complement sum (RFC 1071), an odd last byte as if a zero
/// followed. Four bytes at a time: the sum of words is the same modulo 2^16 - 1.
fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum = sum;
    for chunk in words {
        sum += u64::from(u32::from_be_bytes(*chunk));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum + u64::from(u32::from_be_bytes(last))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
