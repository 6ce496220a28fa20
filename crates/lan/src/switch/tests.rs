use super::*;

const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GUEST: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
const A: PortId = PortId(1);
const B: PortId = PortId(2);
const C: PortId = PortId(3);

fn plain(src: MacAddr, dst: MacAddr) -> Header {
    Header {
        dst,
        src,
        announces: false,
    }
}

fn announce(src: MacAddr) -> Header {
    Header {
        dst: MacAddr::BROADCAST,
        src,
        announces: true,
    }
}

#[test]
fn learns_floods_and_forgets() {
    let mut switch = Switch::new(GATEWAY);
    let unknown = switch.frame_from(A, &plain(GUEST, OTHER));
    assert_eq!(
        unknown.destination,
        Destination::Flood { to_gateway: false }
    );
    assert_eq!(
        switch.frame_from(B, &plain(OTHER, GUEST)).destination,
        Destination::Port(A)
    );
    assert_eq!(
        switch.frame_from(A, &plain(GUEST, GATEWAY)).destination,
        Destination::Gateway
    );
    assert_eq!(
        switch
            .frame_from(A, &plain(GUEST, MacAddr::BROADCAST))
            .destination,
        Destination::Flood { to_gateway: true }
    );
    assert_eq!(
        switch.frame_from(A, &plain(GUEST, GUEST)).destination,
        Destination::Nowhere
    );
    assert_eq!(switch.port_left(A), vec![GUEST]);
    assert_eq!(
        switch.route(GUEST),
        Destination::Flood { to_gateway: false }
    );
    assert_eq!(switch.route(OTHER), Destination::Port(B));
}

#[test]
fn nobody_speaks_as_the_gateway_or_as_a_group() {
    let mut switch = Switch::new(GATEWAY);
    for src in [GATEWAY, MacAddr::BROADCAST, MacAddr([0; 6])] {
        assert_eq!(
            switch.frame_from(A, &plain(src, OTHER)).destination,
            Destination::Nowhere
        );
        assert_eq!(switch.route(src), Destination::Flood { to_gateway: false });
    }
}

#[test]
fn a_station_that_moves_or_announces_itself_has_arrived() {
    let mut switch = Switch::new(GATEWAY);
    assert_eq!(switch.frame_from(A, &plain(GUEST, GATEWAY)).arrived, None);
    assert_eq!(switch.frame_from(A, &plain(GUEST, GATEWAY)).arrived, None);
    assert_eq!(
        switch.frame_from(B, &plain(GUEST, GATEWAY)).arrived,
        Some(GUEST)
    );
    assert_eq!(switch.route(GUEST), Destination::Port(B));
    let again = switch.frame_from(B, &announce(GUEST));
    assert_eq!((again.arrived, again.is_news), (Some(GUEST), false));
}

#[test]
fn late_frames_of_the_loser_do_not_draw_the_traffic_back() {
    let mut switch = Switch::new(GATEWAY);
    switch.frame_from(A, &plain(GUEST, GATEWAY));
    switch.frame_from(B, &announce(GUEST));
    let late = switch.frame_from(A, &plain(GUEST, GATEWAY));
    assert_eq!(
        (late.destination, late.arrived),
        (Destination::Gateway, None)
    );
    assert_eq!(switch.route(GUEST), Destination::Port(B));
    // The next takeover goes the other way.
    switch.frame_from(A, &announce(GUEST));
    assert_eq!(switch.route(GUEST), Destination::Port(A));
    // And a winner that leaves frees the address.
    switch.port_left(A);
    switch.frame_from(B, &plain(GUEST, GATEWAY));
    assert_eq!(switch.route(GUEST), Destination::Port(B));
}

#[test]
fn a_flood_of_addresses_fills_only_its_own_share() {
    let mut switch = Switch::new(GATEWAY);
    for index in 0..10_000u32 {
        let [_, b, c, d] = index.to_be_bytes();
        switch.frame_from(A, &plain(MacAddr([6, 0, 1, b, c, d]), GATEWAY));
    }
    assert_eq!(switch.stations.len(), MAX_STATIONS_PER_PORT);
    switch.frame_from(B, &plain(GUEST, GATEWAY));
    assert_eq!(switch.route(GUEST), Destination::Port(B));
    // Moving to the full port: not learnt there, and not left at the old one.
    switch.frame_from(A, &plain(GUEST, GATEWAY));
    assert_eq!(
        switch.route(GUEST),
        Destination::Flood { to_gateway: false }
    );
    switch.frame_from(C, &plain(GUEST, GATEWAY));
    assert_eq!(switch.route(GUEST), Destination::Port(C));
    switch.port_left(A);
    assert_eq!(switch.stations.len(), 1);
    assert_eq!(switch.per_port.values().sum::<usize>(), 1);
}
