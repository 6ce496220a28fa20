//! Which Ethernet address each forwarded-to guest has.
//!
//! The stack asks by ARP at most once a second, for all its neighbours together,
//! and forgets after a minute. Waiting for that would put seconds into a first
//! connection or a takeover. So the gateway learns guests' addresses from any of
//! their frames, keeps them, and tells the stack before it has to ask.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use smoltcp::time::{Duration, Instant};

use crate::ethernet::MacAddr;

/// How often the stack is told again; it forgets after 60 s.
const REFRESH: Duration = Duration::from_secs(20);

/// The guests of the forwards. Only these are kept: the number is bounded by the
/// configuration.
pub(super) struct Neighbours {
    guests: BTreeMap<Ipv4Addr, Option<MacAddr>>,
    told_at: Option<Instant>,
}

impl Neighbours {
    pub(super) fn new(guests: impl IntoIterator<Item = Ipv4Addr>) -> Neighbours {
        Neighbours {
            guests: guests.into_iter().map(|ip| (ip, None)).collect(),
            told_at: None,
        }
    }

    /// Takes an address from a guest's ARP packet. True if that is news.
    pub(super) fn learn(&mut self, ip: Ipv4Addr, mac: MacAddr) -> bool {
        match self.guests.get_mut(&ip) {
            Some(known) if mac.is_unicast() && *known != Some(mac) => {
                *known = Some(mac);
                true
            }
            _ => false,
        }
    }

    /// Takes an address from a guest's IPv4 packet, unless one is known: only ARP
    /// says that an address changed hands.
    pub(super) fn learn_if_unknown(&mut self, ip: Ipv4Addr, mac: MacAddr) -> bool {
        self.get(ip).is_none() && self.learn(ip, mac)
    }

    pub(super) fn get(&self, ip: Ipv4Addr) -> Option<MacAddr> {
        self.guests.get(&ip).copied().flatten()
    }

    /// The addresses the stack has to hear again, now and then.
    pub(super) fn refresh(&mut self, now: Instant) -> Vec<(Ipv4Addr, MacAddr)> {
        if self.told_at.is_some_and(|told| now < told + REFRESH) {
            return Vec::new();
        }
        self.told_at = Some(now);
        self.guests
            .iter()
            .filter_map(|(&ip, &mac)| Some((ip, mac?)))
            .collect()
    }
}
