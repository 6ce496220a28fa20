//! Single values: addresses, names, sizes.

use std::fmt;
use std::net::Ipv6Addr;

/// What a name may be, in words.
pub const NAME_EXPECTED: &str = "1 to 64 letters, digits, - _ . (not first . or -)";
/// The longest name of a VM, a node or a host.
const MAX_NAME_BYTES: usize = 64;
const MAX_HOST_BYTES: usize = 253;
/// Linux's IFNAMSIZ without the final zero.
const MAX_INTERFACE_BYTES: usize = 15;

/// The address of a network card: unicast and not all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Parses six pairs of hexadecimal digits with colons between them.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next()?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        let multicast = mac[0] & 1 != 0;
        (parts.next().is_none() && !multicast && mac != [0; 6]).then_some(Self(mac))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// A host name or an address; IPv6 without its brackets.
    pub host: String,
    /// The TCP port, not 0.
    pub port: u16,
}

impl Channel {
    /// Parses `host:port` or `[ipv6]:port`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        if port.is_empty() || !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
        let host = if let Some(inside) = host.strip_prefix('[') {
            inside
                .strip_suffix(']')?
                .parse::<Ipv6Addr>()
                .ok()?
                .to_string()
        } else {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
            if host.is_empty() || host.len() > MAX_HOST_BYTES || !host.bytes().all(good) {
                return None;
            }
            host.to_owned()
        };
        Some(Self { host, port })
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Whether `text` can name a VM or a node. Names become parts of paths.
pub fn is_name(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(good)
        && !text.starts_with(['.', '-'])
}

/// Whether `text` can name a network interface of Linux.
pub(crate) fn is_interface(text: &str) -> bool {
    (1..=MAX_INTERFACE_BYTES).contains(&text.len())
        && !matches!(text, "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'))
}

/// Bytes in a size such as `256M`: digits, then K, M or G for powers of 1024.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

const PAGE_BYTES: u64 = 4096;
const MIN_MEMORY_BYTES: u64 = 1 << 20;
const MAX_MEMORY_BYTES: u64 = 64 << 30;
/// What a memory size may be, in words.
pub const MEMORY_EXPECTED: &str = "whole pages of 4096 bytes, from \"1M\" to \"64G\"";

/// Whether a VM can have this much memory.
pub(crate) fn is_memory(bytes: u64) -> bool {
    (MIN_MEMORY_BYTES..=MAX_MEMORY_BYTES).contains(&bytes) && bytes.is_multiple_of(PAGE_BYTES)
}

/// What a disk's size has to be.
pub(crate) const DISK_EXPECTED: &str = "a size of whole sectors of 512 bytes such as \"4G\"";

/// Bytes of a disk in a size such as `4G`; `None` if no disk can have that many.
pub(crate) fn disk_bytes(text: &str) -> Option<u64> {
    let fits = |bytes: &u64| (1..=i64::MAX as u64).contains(bytes) && bytes.is_multiple_of(512);
    size(text).filter(fits)
}

/// Bytes of memory in a size such as `256M`; `None` if a VM can't have that much.
pub fn memory_bytes(text: &str) -> Option<u64> {
    size(text).filter(|bytes| is_memory(*bytes))
}
