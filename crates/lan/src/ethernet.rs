//! What the switch needs to know of an Ethernet frame: addresses, and whether it
//! announces that a station is now reached through this port.

use std::fmt;
use std::str::FromStr;

/// Bytes of an Ethernet header: destination, source, EtherType.
pub(crate) const HEADER_BYTES: usize = 14;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_RARP: u16 = 0x8035;

/// Bytes of an ARP or RARP packet for Ethernet and IPv4 (RFC 826, RFC 903).
const ARP_BYTES: usize = 28;

/// An Ethernet hardware address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The broadcast address.
    pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

    /// True for an address that one station can own: neither group address nor zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The source of a guest's frames that its backup sends (`output = "backup"`): nobody's
    /// address, and no way to the guest.
    pub(crate) fn is_voice(self) -> bool {
        self.0[..3] == VOICE_PREFIX
    }
}

/// How the addresses begin that `twinvm node` gives such frames.
const VOICE_PREFIX: [u8; 3] = [0x76, 0x6d, 0x62];

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no MAC address: write six bytes in hexadecimal, as in 52:54:00:12:34:02")]
pub struct MacAddrError(String);

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(text: &str) -> Result<Self, MacAddrError> {
        let error = || MacAddrError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|c| c.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        match parts.next() {
            None => Ok(MacAddr(bytes)),
            Some(_) => Err(error()),
        }
    }
}

/// A frame's addresses and meaning for the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Destination address.
    pub(crate) dst: MacAddr,
    /// Source address.
    pub(crate) src: MacAddr,
    /// The frame says: `src` is reached here from now on.
    pub(crate) announces: bool,
}

impl Header {
    /// Reads the header of a frame; `None` if the frame is shorter than one.
    pub(crate) fn parse(frame: &[u8]) -> Option<Header> {
        let dst = mac_at(frame, 0)?;
        let src = mac_at(frame, 6)?;
        let ethertype = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
        let packet = &frame[HEADER_BYTES..];
        Some(Header {
            dst,
            src,
            announces: src.is_unicast() && is_announcement(ethertype, src, packet),
        })
    }
}

/// RARP with the sender's own address, as hypervisors send it after moving a
/// guest, or ARP whose sender and target protocol address are the same
/// (gratuitous ARP, RFC 5227 section 1.1).
fn is_announcement(ethertype: u16, src: MacAddr, packet: &[u8]) -> bool {
    if packet.len() < ARP_BYTES || mac_at(packet, 8) != Some(src) {
        return false;
    }
    match ethertype {
        ETHERTYPE_RARP => true,
        ETHERTYPE_ARP => packet[14..18] == packet[24..28] && packet[14..18] != [0; 4],
        _ => false,
    }
}

fn mac_at(bytes: &[u8], at: usize) -> Option<MacAddr> {
    bytes
        .get(at..at + 6)?
        .try_into()
        .ok()
        .map(|mac: [u8; 6]| MacAddr(mac))
}

#[cfg(test)]
mod tests;
