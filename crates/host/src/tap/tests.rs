use super::*;

fn refusal(name: &str) -> String {
    let (events, _heard) = bounded(1);
    let error = TapPort::open(name, events).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn names_that_no_interface_has() {
    for name in ["", "sixteen-letters-", "zero\0inside"] {
        assert!(refusal(name).contains("1 to 15 bytes"));
    }
}

#[test]
fn an_interface_that_is_not_there_is_an_error_with_its_mend() {
    let error = refusal("twinvm-absent");
    if std::path::Path::new(TUN).exists() {
        assert!(
            error.contains("ip tuntap add dev twinvm-absent mode tap user $USER")
                || error.contains(TUN),
            "{error}"
        );
    } else {
        assert!(error.contains("module `tun`"), "{error}");
    }
}

#[test]
fn a_device_that_can_not_be_opened_has_a_mend_for_each_cause() {
    let told = |kind: io::ErrorKind| {
        let (name, source) = ("x".to_owned(), kind.into());
        TapError::NoTun { name, source }.to_string()
    };
    assert!(told(io::ErrorKind::PermissionDenied).contains("let this user open it"));
    assert!(told(io::ErrorKind::NotFound).contains("load the kernel's module `tun`"));
}

#[test]
fn an_interface_of_another_kind_is_an_error_with_its_mend() {
    // Every network namespace has it.
    let error = refusal("lo");
    let told = ["no TAP interface", "no right", TUN];
    assert!(told.iter().any(|part| error.contains(part)), "{error}");
}

#[test]
fn what_the_kernel_gives_gets_its_one_form() {
    let mut bytes = vec![0; NET_HEADER_BYTES + 60];
    bytes[0] = 0x82;
    bytes[2..12].fill(7);
    let mut expected = vec![0; NET_HEADER_BYTES + 60];
    expected[0] = 2;
    assert_eq!(proper(&bytes), Some(expected));
    assert_eq!(proper(&bytes[..25]), None);
    bytes[1] = 5;
    assert_eq!(proper(&bytes), None, "UDP segments");
}
