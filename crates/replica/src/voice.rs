//! The guest's packets as a backup sends them (`output = "backup"`).
//!
//! Frames to the guest have to reach the live node, but bridges learn where a station is from the
//! source of its frames. So a backup's frames carry a source of their own, which nobody sends to:
//! a bridge that has learnt where the guest is keeps that, and one that has not sends to all. What
//! the guest's neighbours know of its address is in the payload of ARP and of neighbour
//! discovery (RFC 826; RFC 4861, sections 4.6.1 and 7.2.5), which stays as the guest wrote it.

use twinvm_machine::NET_HEADER_BYTES;

/// How these addresses begin: locally administered (IEEE 802-2014, section 8.4), not a group's.
pub const VOICE_PREFIX: [u8; 3] = [0x76, 0x6d, 0x62];

/// The usual beginning of a guest's address; with it the rest is kept as it is.
const USUAL_PREFIX: [u8; 3] = [0x52, 0x54, 0x00];

/// Where the source of a packet's frame stands.
const SOURCE: std::ops::Range<usize> = NET_HEADER_BYTES + 6..NET_HEADER_BYTES + 12;

/// The source under which a backup sends what a station with the address `mac` says.
pub fn voice_of(mac: [u8; 6]) -> [u8; 6] {
    let [a, b, c] = VOICE_PREFIX;
    let own = [0, 1, 2].map(|n| mac[3 + n] ^ mac[n] ^ USUAL_PREFIX[n]);
    [a, b, c, own[0], own[1], own[2]]
}

/// Gives a packet of the guest its voice. What is no packet with a station's source stays as it is.
pub(crate) fn give_voice(packet: &mut [u8]) {
    let Some(source) = packet.get_mut(SOURCE) else {
        return;
    };
    let mac = source.first_chunk::<6>().copied().unwrap_or_default();
    if mac[0] & 1 == 0 {
        source.copy_from_slice(&voice_of(mac));
    }
}

/// Whether a packet from the wire is what a backup sends for the card `mac`: the guest never hears
/// itself.
pub(crate) fn is_echo(mac: [u8; 6], packet: &[u8]) -> bool {
    is_from(voice_of(mac), packet)
}

/// Whether a packet's source is this address.
pub(crate) fn is_from(mac: [u8; 6], packet: &[u8]) -> bool {
    packet.get(SOURCE) == Some(&mac[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

    fn packet(source: [u8; 6]) -> Vec<u8> {
        let mut packet = vec![0x11; NET_HEADER_BYTES + 60];
        packet[SOURCE].copy_from_slice(&source);
        packet
    }

    #[test]
    fn a_voice_is_a_stations_own_and_nobody_elses() {
        assert_eq!(voice_of(MAC), [0x76, 0x6d, 0x62, 1, 2, 3]);
        assert_ne!(voice_of([0x52, 0x54, 0, 1, 2, 4]), voice_of(MAC));
        assert_ne!(voice_of([0x02, 0x54, 0, 1, 2, 3]), voice_of(MAC));
        let local_station = VOICE_PREFIX[0] & 3;
        assert_eq!(local_station, 2, "locally administered, not a group");
    }

    #[test]
    fn only_the_source_changes() {
        let mut spoken = packet(MAC);
        give_voice(&mut spoken);
        assert_eq!(spoken, packet(voice_of(MAC)));
        for len in 0..SOURCE.end {
            let mut short = packet(MAC);
            short.truncate(len);
            let before = short.clone();
            give_voice(&mut short);
            assert_eq!(short, before, "{len} bytes");
        }
        let group = [0x53; 6];
        let mut odd = packet(group);
        give_voice(&mut odd);
        assert_eq!(odd, packet(group));
    }

    #[test]
    fn the_guest_does_not_hear_itself() {
        let mut spoken = packet(MAC);
        assert!(!is_echo(MAC, &spoken));
        give_voice(&mut spoken);
        assert!(is_echo(MAC, &spoken));
        assert!(!is_echo([0x52, 0x54, 0, 1, 2, 4], &spoken));
        assert!(!is_echo(MAC, &spoken[..SOURCE.end - 1]));
    }
}
