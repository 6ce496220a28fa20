//! The system calls on `/dev/net/tun` and on interfaces (Linux, `linux/if_tun.h`, `linux/if.h`,
//! Documentation/networking/tuntap.rst).
#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io::Result;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};
use twinvm_machine::{NET_HEADER_BYTES, NetOffloads};

/// Bytes of an interface's name with the zero at its end.
const NAME_BYTES: usize = 16;
/// The rest of `struct ifreq` behind the flags.
const REST_BYTES: usize = 22;

const SIOCGIFFLAGS: Opcode = 0x8913;
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<i32>(b'T', 216);
const TUNSETVNETLE: Opcode = opcode::write::<i32>(b'T', 220);

const IFF_UP: u16 = 1;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

const TUN_F_CSUM: usize = 0x01;
const TUN_F_TSO4: usize = 0x02;
const TUN_F_TSO6: usize = 0x04;
const TUN_F_TSO_ECN: usize = 0x08;

/// `struct ifreq` with flags in its union.
#[repr(C)]
struct Request {
    name: [u8; NAME_BYTES],
    flags: u16,
    rest: [u8; REST_BYTES],
}

impl Request {
    /// A request about the interface; `None` if no interface can have this name.
    fn about(name: &str, flags: u16) -> Option<Self> {
        if name.is_empty() || name.len() >= NAME_BYTES || name.contains('\0') {
            return None;
        }
        let mut bytes = [0; NAME_BYTES];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Self {
            name: bytes,
            flags,
            rest: [0; REST_BYTES],
        })
    }
}

/// Whether an interface can have this name.
pub(super) fn is_name(name: &str) -> bool {
    Request::about(name, 0).is_some()
}

/// Attaches an open `/dev/net/tun` to the TAP interface, with a virtio header before each frame.
pub(super) fn attach(tun: impl AsFd, name: &str) -> Result<()> {
    let Some(mut request) = Request::about(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) else {
        return Err(rustix::io::Errno::NODEV);
    };
    // SAFETY: the request has the layout and size of `struct ifreq`, which this call reads and
    // writes and keeps no pointer to.
    unsafe {
        ioctl(&tun, Updater::<'_, TUNSETIFF, Request>::new(&mut request))?;
    }
    // SAFETY: these calls read one `int` and keep no pointer to it.
    unsafe {
        ioctl(
            &tun,
            Setter::<TUNSETVNETHDRSZ, i32>::new(NET_HEADER_BYTES as i32),
        )?;
        ioctl(&tun, Setter::<TUNSETVNETLE, i32>::new(1))
    }
}

/// Says which headers the reader of an attached `/dev/net/tun` understands.
pub(super) fn set_offloads(tun: impl AsFd, offloads: NetOffloads) -> Result<()> {
    let bits = [
        (offloads.checksum, TUN_F_CSUM),
        (offloads.tso4, TUN_F_TSO4),
        (offloads.tso6, TUN_F_TSO6),
        (offloads.ecn, TUN_F_TSO_ECN),
    ];
    let bits = bits.into_iter().filter(|(on, _)| *on);
    let bits = bits.fold(0, |sum, (_, bit)| sum | bit);
    // SAFETY: the argument of this call is a number, no pointer.
    unsafe { ioctl(tun, IntegerSetter::<TUNSETOFFLOAD>::new_usize(bits)) }
}

/// Whether the interface is up; `socket` is any socket.
pub(super) fn is_up(socket: impl AsFd, name: &str) -> Result<bool> {
    let Some(mut request) = Request::about(name, 0) else {
        return Err(rustix::io::Errno::NODEV);
    };
    // SAFETY: the request has the layout and size of `struct ifreq`, which this call reads and
    // writes and keeps no pointer to.
    unsafe {
        ioctl(
            socket,
            Updater::<'_, SIOCGIFFLAGS, Request>::new(&mut request),
        )?;
    }
    Ok(request.flags & IFF_UP != 0)
}
