use super::*;

fn parse(text: &str) -> Result<ArbiterAddress, AddressError> {
    ArbiterAddress::parse(text, |folder| PathBuf::from("/base").join(folder))
}

#[test]
fn addresses_are_parsed_once_and_shown_the_same() {
    for text in [
        "file:/shared/arbiter",
        "tcp:127.0.0.1:7790",
        "tcp:localhost:1",
        "tcp:[::1]:65535",
        "etcd:http://127.0.0.1:2379",
        "etcd:http://127.0.0.1:2379,http://[::1]:22379,http://localhost:3",
        "etcd:https://10.0.0.1:2379,https://[2001:db8::1]:2379,https://etcd.example:3",
    ] {
        assert_eq!(parse(text).expect(text).to_string(), text);
    }
    assert_eq!(
        parse("file:arbiter"),
        Ok(ArbiterAddress::File(PathBuf::from("/base/arbiter")))
    );
    let with_slash = parse("etcd:http://127.0.0.1:2379/").expect("an address");
    assert_eq!(with_slash.to_string(), "etcd:http://127.0.0.1:2379");
    for bad in [
        "",
        "file:",
        "tcp:",
        "tcp:::1:5",
        "tcp:127.0.0.1:65536",
        "tcp:127.0.0.1:+5",
        // Half of it in the clear.
        "etcd:http://127.0.0.1:1,https://127.0.0.1:2",
        "etcd:https://127.0.0.1:1,http://127.0.0.1:2",
        "etcd:ftp://127.0.0.1:1",
    ] {
        assert_eq!(parse(bad), Err(AddressError), "{bad}");
    }
    let many = ["http://127.0.0.1:1"; MAX_SERVERS + 1].join(",");
    assert_eq!(parse(&format!("etcd:{many}")), Err(AddressError));
    // With its own kind of keys a server may be anywhere.
    let far = |text: &str, cluster, etcd| {
        let kinds = KeyKinds { cluster, etcd };
        let checked = parse(text).expect(text).validate_supported(kinds);
        checked.map_err(|error| error.to_string())
    };
    assert_eq!(far("tcp:10.0.0.1:5", true, false), Ok(()));
    assert_eq!(far("etcd:https://10.0.0.1:5", false, true), Ok(()));
    for (address, cluster, etcd, why) in [
        ("etcd:http://10.0.0.1:5", true, false, "use https://"),
        (
            "etcd:https://10.0.0.1:5",
            true,
            false,
            "it takes [arbiter_tls]",
        ),
        (
            "etcd:https://127.0.0.1:5",
            false,
            false,
            "it takes [arbiter_tls]",
        ),
        // Nobody should think that these are used.
        (
            "etcd:http://127.0.0.1:5",
            false,
            true,
            "[arbiter_tls] is for",
        ),
        ("tcp:10.0.0.1:5", true, true, "[arbiter_tls] is for"),
        ("file:/arbiter", false, true, "[arbiter_tls] is for"),
    ] {
        let error = far(address, cluster, etcd).unwrap_err();
        assert!(error.contains(why) && !error.contains('\n'), "{error}");
    }
    for elsewhere in [
        "tcp:10.0.0.1:5",
        "tcp:[2001:db8::1]:5",
        "etcd:http://127.0.0.1:1,http://etcd.example:5",
    ] {
        let address = parse(elsewhere).expect(elsewhere);
        let error = address
            .open("shop", &ArbiterKeys::default())
            .err()
            .expect("a refusal")
            .to_string();
        assert!(
            error.contains("loopback") && !error.contains('\n'),
            "{error}"
        );
    }
}

#[test]
fn a_register_needs_a_name_that_fits() {
    let address = parse("tcp:127.0.0.1:1").expect("an address");
    assert!(address.open("shop", &ArbiterKeys::default()).is_ok());
    let error = address
        .open("a/b", &ArbiterKeys::default())
        .err()
        .expect("a refusal")
        .to_string();
    assert!(error.contains("\"a/b\""), "{error}");
}
