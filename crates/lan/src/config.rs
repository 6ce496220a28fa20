//! What the switch is told: where to listen, what to forward, who the gateway is.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::ethernet::MacAddr;

/// Most forwards of one switch. Each distinct guest behind them holds a place in
/// the gateway's neighbour cache, which has 256.
pub const MAX_FORWARDS: usize = 128;
/// Addresses that can be leased: more than a switch has ports, and a bound on what a hostile port
/// can make it remember.
pub const MAX_LEASES: usize = 128;

/// Longest delay of a wire: beyond it nothing works any more that one could learn from.
pub const MAX_DELAY: Duration = Duration::from_secs(10);

/// One TCP forward: connections to `listen` on the host go to `guest` on the LAN.
///
/// Written `HOST:PORT=GUEST:PORT`, for instance `127.0.0.1:5432=10.0.2.15:5432`.
/// Host port 0 takes a free port, which [`crate::BoundAddrs`] then tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Address on the host.
    pub listen: SocketAddr,
    /// Address of the guest's server.
    pub guest: SocketAddrV4,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.listen, self.guest)
    }
}

/// The gateway: the station inside the switch from which forwards speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayConfig {
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Length of the network's prefix in bits, 8 to 30.
    pub prefix: u8,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        GatewayConfig {
            ip: Ipv4Addr::new(10, 0, 2, 2),
            prefix: 24,
            mac: MacAddr([0x52, 0x54, 0x00, 0x12, 0x34, 0x02]),
        }
    }
}

impl GatewayConfig {
    /// True if `ip` can be a host of the gateway's network, other than the gateway.
    pub(crate) fn is_guest(&self, ip: Ipv4Addr) -> bool {
        let host_bits = u32::MAX >> self.prefix;
        let ip_bits = ip.to_bits();
        (ip_bits ^ self.ip.to_bits()) & !host_bits == 0
            && ip != self.ip
            && ip_bits & host_bits != 0
            && ip_bits & host_bits != host_bits
    }
}

/// Everything the switch is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanConfig {
    /// Path of the Unix stream socket that nodes connect to.
    pub listen: PathBuf,
    /// TCP forwards, at most [`MAX_FORWARDS`].
    pub forwards: Vec<Forward>,
    /// The gateway's addresses.
    pub gateway: GatewayConfig,
    /// Addresses that the gateway gives to guests.
    pub dhcp: DhcpConfig,
    /// How bad the wires to the nodes are.
    pub impairment: Impairment,
}

/// How bad each wire between the switch and a node is, in each direction. The gateway and what
/// it forwards is inside the switch, behind no wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Impairment {
    /// Each frame is late by this time, at most [`MAX_DELAY`].
    pub delay: Duration,
    /// So many of a million frames are lost, at random.
    pub loss_ppm: u32,
}

/// What the DHCP server does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpConfig {
    /// Whether there is one.
    pub serve: bool,
    /// Addresses kept for one guest each, at most [`MAX_LEASES`].
    pub fixed: Vec<FixedLease>,
}

impl Default for DhcpConfig {
    fn default() -> Self {
        DhcpConfig {
            serve: true,
            fixed: Vec::new(),
        }
    }
}

/// An address kept for one guest, written `MAC=IP`: `52:54:00:12:34:56=10.0.2.20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedLease {
    /// The guest's Ethernet address.
    pub mac: MacAddr,
    /// The address that it gets.
    pub ip: Ipv4Addr,
}

impl FromStr for FixedLease {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<FixedLease, ConfigError> {
        let parsed = text.split_once('=').and_then(|(mac, ip)| {
            Some(FixedLease {
                mac: mac.parse().ok().filter(|mac: &MacAddr| mac.is_unicast())?,
                ip: ip.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| ConfigError::Lease(text.to_owned()))
    }
}

impl LanConfig {
    /// A switch on `listen` with the default gateway and no forwards.
    pub fn new(listen: impl Into<PathBuf>) -> LanConfig {
        LanConfig {
            listen: listen.into(),
            forwards: Vec::new(),
            gateway: GatewayConfig::default(),
            dhcp: DhcpConfig::default(),
            impairment: Impairment::default(),
        }
    }

    /// Checks what the types can't say.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let GatewayConfig { ip, prefix, mac } = self.gateway;
        if !(8..=30).contains(&prefix) {
            return Err(ConfigError::Prefix(prefix));
        }
        let host_bits = u32::MAX >> prefix;
        let host_part = ip.to_bits() & host_bits;
        if ip.octets()[0] == 0
            || ip.is_loopback()
            || ip.octets()[0] >= 224
            || host_part == 0
            || host_part == host_bits
        {
            return Err(ConfigError::GatewayIp { ip, prefix });
        }
        if !mac.is_unicast() {
            return Err(ConfigError::GatewayMac(mac));
        }
        if self.forwards.len() > MAX_FORWARDS {
            return Err(ConfigError::TooManyForwards(self.forwards.len()));
        }
        self.check_leases()?;
        let Impairment { delay, loss_ppm } = self.impairment;
        if delay > MAX_DELAY {
            return Err(ConfigError::Delay(delay));
        }
        if loss_ppm > 1_000_000 {
            return Err(ConfigError::Loss(f64::from(loss_ppm) / 1e4));
        }
        for forward in &self.forwards {
            if !self.gateway.is_guest(*forward.guest.ip()) {
                return Err(ConfigError::GuestOutside {
                    forward: forward.clone(),
                    ip,
                    prefix,
                });
            }
            if forward.guest.port() == 0 {
                return Err(ConfigError::GuestPort(forward.guest.to_string()));
            }
        }
        Ok(())
    }

    fn check_leases(&self) -> Result<(), ConfigError> {
        let fixed = &self.dhcp.fixed;
        if fixed.len() > MAX_LEASES {
            return Err(ConfigError::TooManyLeases(fixed.len()));
        }
        for (index, lease) in fixed.iter().enumerate() {
            let GatewayConfig { ip, prefix, .. } = self.gateway;
            if !self.gateway.is_guest(lease.ip) {
                let lease = lease.ip;
                return Err(ConfigError::LeaseOutside { lease, ip, prefix });
            }
            let double = |other: &FixedLease| other.mac == lease.mac || other.ip == lease.ip;
            if fixed[..index].iter().any(double) {
                return Err(ConfigError::DoubleLease {
                    mac: lease.mac,
                    ip: lease.ip,
                });
            }
        }
        Ok(())
    }
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// No address of a card and of a guest.
    #[error("lease `{0}`: expected MAC=IP, as in 52:54:00:12:34:56=10.0.2.20")]
    Lease(String),
    /// A lease for an address that no guest can have.
    #[error("lease of {lease}: the guests' network is {ip}/{prefix}, and {ip} is the gateway's")]
    LeaseOutside {
        /// The address.
        lease: Ipv4Addr,
        /// The gateway's.
        ip: Ipv4Addr,
        /// The network's prefix.
        prefix: u8,
    },
    /// A guest or an address named twice.
    #[error("lease `{mac}={ip}`: this guest or this address has a lease already")]
    DoubleLease {
        /// The guest.
        mac: MacAddr,
        /// The address.
        ip: Ipv4Addr,
    },
    /// More leases than addresses to give.
    #[error("{0} leases are too many: at most {MAX_LEASES}")]
    TooManyLeases(usize),
    /// No `=`.
    #[error("forward `{0}`: expected HOST:PORT=GUEST:PORT, as in 127.0.0.1:5432=10.0.2.15:5432")]
    NoEquals(String),
    /// The left side is no address.
    #[error(
        "forward `{forward}`: `{side}` is no address of this host: expected HOST:PORT, as in 127.0.0.1:5432 or [::1]:5432 (port 0 takes a free one)"
    )]
    HostAddress {
        /// The whole forward as given.
        forward: String,
        /// Its left side.
        side: String,
    },
    /// The right side is no IPv4 address with port.
    #[error(
        "forward `{forward}`: `{side}` is no guest address: expected an IPv4 address and a port, as in 10.0.2.15:5432"
    )]
    GuestAddress {
        /// The whole forward as given.
        forward: String,
        /// Its right side.
        side: String,
    },
    /// The guest's port is 0.
    #[error(
        "forward to `{0}`: guest port 0 is no port: name the port of the guest's server, 1 to 65535"
    )]
    GuestPort(String),
    /// The guest isn't on the gateway's network.
    #[error(
        "forward `{forward}`: the guest is no host of the LAN {ip}/{prefix}: give an address inside it, other than the gateway's"
    )]
    GuestOutside {
        /// The forward.
        forward: Forward,
        /// The gateway's address.
        ip: Ipv4Addr,
        /// The gateway's prefix length.
        prefix: u8,
    },
    /// Too many forwards.
    #[error("{0} forwards: one switch takes at most {MAX_FORWARDS}; start a second one")]
    TooManyForwards(usize),
    /// A delay that is too long.
    #[error("a delay of {} ms: at most {} ms", .0.as_millis(), MAX_DELAY.as_millis())]
    Delay(Duration),
    /// More than all frames, or less than none.
    #[error("a loss of {0} percent: expected 0 to 100")]
    Loss(f64),
    /// Prefix length out of range.
    #[error("gateway prefix length {0}: expected 8 to 30")]
    Prefix(u8),
    /// The gateway's address can't be a host's.
    #[error("gateway {ip}/{prefix}: not the address of a host: give one like 10.0.2.2/24")]
    GatewayIp {
        /// The address.
        ip: Ipv4Addr,
        /// The prefix length.
        prefix: u8,
    },
    /// The gateway's MAC is a group address or zero.
    #[error("gateway MAC {0}: not the address of one station: give one like 52:54:00:12:34:02")]
    GatewayMac(MacAddr),
}

impl FromStr for Forward {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (host, guest) = text
            .split_once('=')
            .ok_or_else(|| ConfigError::NoEquals(text.to_owned()))?;
        let listen = parse_host(host).ok_or_else(|| ConfigError::HostAddress {
            forward: text.to_owned(),
            side: host.to_owned(),
        })?;
        let guest: SocketAddrV4 = guest.parse().map_err(|_| ConfigError::GuestAddress {
            forward: text.to_owned(),
            side: guest.to_owned(),
        })?;
        if guest.port() == 0 {
            return Err(ConfigError::GuestPort(guest.to_string()));
        }
        Ok(Forward { listen, guest })
    }
}

/// An address, or a name such as `localhost` (its IPv4 address if it has one).
fn parse_host(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (name, port) = text.rsplit_once(':')?;
    if name.is_empty() || name.contains(':') {
        return None;
    }
    let port: u16 = port.parse().ok()?;
    let found: Vec<SocketAddr> = (name, port).to_socket_addrs().ok()?.collect();
    found
        .iter()
        .find(|address| address.is_ipv4())
        .or(found.first())
        .copied()
}

#[cfg(test)]
mod tests;
