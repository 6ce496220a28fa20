use super::*;

fn forward(text: &str) -> Result<Forward, String> {
    text.parse::<Forward>().map_err(|error| error.to_string())
}

#[test]
fn forwards_read_and_print() {
    let parsed = forward("127.0.0.1:0=10.0.2.15:80").unwrap();
    assert_eq!(parsed.listen, "127.0.0.1:0".parse().unwrap());
    assert_eq!(parsed.guest, "10.0.2.15:80".parse().unwrap());
    assert_eq!(parsed.to_string(), "127.0.0.1:0=10.0.2.15:80");
    assert!(forward("[::1]:8080=10.0.2.15:80").unwrap().listen.is_ipv6());
    let local = forward("localhost:8080=10.0.2.15:80").unwrap().listen;
    assert!(local.ip().is_loopback() && local.port() == 8080);
}

#[test]
fn bad_forwards_name_the_side_and_the_mend() {
    for (text, expected) in [
        ("127.0.0.1:80", "expected HOST:PORT=GUEST:PORT"),
        ("127.0.0.1=10.0.2.15:80", "`127.0.0.1` is no address"),
        (":80=10.0.2.15:80", "`:80` is no address"),
        (
            "127.0.0.1:70000=10.0.2.15:80",
            "`127.0.0.1:70000` is no address",
        ),
        ("127.0.0.1:80=10.0.2.15", "`10.0.2.15` is no guest"),
        ("127.0.0.1:80=guest:80", "`guest:80` is no guest"),
        ("127.0.0.1:80=10.0.2.15:0", "guest port 0"),
    ] {
        let message = forward(text).unwrap_err();
        assert!(message.contains(expected), "{text}: {message}");
        assert!(!message.contains('\n'));
    }
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let with = |change: &dyn Fn(&mut LanConfig)| {
        let mut config = LanConfig::new("/tmp/lan.sock");
        config.forwards = vec![forward("127.0.0.1:0=10.0.2.15:80").unwrap()];
        change(&mut config);
        config.check()
    };
    assert_eq!(with(&|_| ()), Ok(()));
    assert_eq!(
        with(&|c| c.gateway.prefix = 32),
        Err(ConfigError::Prefix(32))
    );
    assert_eq!(with(&|c| c.gateway.prefix = 0), Err(ConfigError::Prefix(0)));
    for ip in [
        "10.0.2.0",
        "10.0.2.255",
        "127.0.0.1",
        "224.0.0.1",
        "0.0.0.5",
    ] {
        let ip: Ipv4Addr = ip.parse().unwrap();
        assert_eq!(
            with(&|c| c.gateway.ip = ip),
            Err(ConfigError::GatewayIp { ip, prefix: 24 })
        );
    }
    assert!(with(&|c| c.gateway.mac = MacAddr::BROADCAST).is_err());
    for guest in [
        "10.0.3.15:80",
        "10.0.2.2:80",
        "10.0.2.255:80",
        "10.0.2.0:80",
    ] {
        let guest: SocketAddrV4 = guest.parse().unwrap();
        let error = with(&|c| c.forwards[0].guest = guest).unwrap_err();
        assert!(error.to_string().contains("10.0.2.2/24"), "{error}");
    }
    let many = with(&|c| c.forwards = vec![c.forwards[0].clone(); MAX_FORWARDS + 1]);
    assert_eq!(many, Err(ConfigError::TooManyForwards(MAX_FORWARDS + 1)));
}

#[test]
fn leases_are_addresses_of_guests_each_once() {
    let lease = |text: &str| text.parse::<FixedLease>();
    let good = lease("52:54:00:12:34:56=10.0.2.20").unwrap();
    assert_eq!(good.ip, Ipv4Addr::new(10, 0, 2, 20));
    for bad in [
        "",
        "10.0.2.20",
        "52:54:00:12:34:56=",
        "52:54:00:12:34=10.0.2.20",
        "ff:ff:ff:ff:ff:ff=10.0.2.20",
        "52:54:00:12:34:56=10.0.2.20:80",
    ] {
        assert_eq!(lease(bad), Err(ConfigError::Lease(bad.to_owned())));
    }
    let with = |fixed: Vec<FixedLease>| {
        let mut config = LanConfig::new("/tmp/lan.sock");
        config.dhcp.fixed = fixed;
        config.check()
    };
    let other = lease("52:54:00:12:34:57=10.0.2.21").unwrap();
    assert_eq!(with(vec![good, other]), Ok(()));
    let same_mac = FixedLease {
        mac: good.mac,
        ..other
    };
    let same_ip = FixedLease {
        ip: good.ip,
        ..other
    };
    for second in [same_mac, same_ip] {
        let error = with(vec![good, second]);
        assert!(matches!(error, Err(ConfigError::DoubleLease { .. })));
    }
    for ip in [Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 3, 20)] {
        let error = with(vec![FixedLease { ip, ..good }]);
        assert!(matches!(error, Err(ConfigError::LeaseOutside { .. })));
    }
    let many = with(vec![good; MAX_LEASES + 1]);
    assert_eq!(many, Err(ConfigError::TooManyLeases(MAX_LEASES + 1)));
}
