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
    ] {
        assert_eq!(parse(bad), Err(AddressError), "{bad}");
    }
    let many = ["http://127.0.0.1:1"; MAX_SERVERS + 1].join(",");
    assert_eq!(parse(&format!("etcd:{many}")), Err(AddressError));
    // With keys the server may be anywhere; etcd may not yet.
    let far = |text: &str| parse(text).expect(text).validate_supported(true);
    assert!(far("tcp:10.0.0.1:5").is_ok() && far("etcd:http://10.0.0.1:5").is_err());
    for elsewhere in [
        "tcp:10.0.0.1:5",
        "tcp:[2001:db8::1]:5",
        "etcd:http://127.0.0.1:1,http://etcd.example:5",
    ] {
        let address = parse(elsewhere).expect(elsewhere);
        let error = address
            .open("shop", None)
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
    assert!(address.open("shop", None).is_ok());
    let error = address
        .open("a/b", None)
        .err()
        .expect("a refusal")
        .to_string();
    assert!(error.contains("\"a/b\""), "{error}");
}
