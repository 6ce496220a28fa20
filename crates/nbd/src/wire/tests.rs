use super::*;

#[test]
fn heads_are_what_the_specification_says() {
    let request = Request {
        flags: Request::FUA,
        command: Command::Write,
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1000,
        bytes: 512,
    };
    let bytes = request.encode();
    assert_eq!(
        bytes,
        [
            0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x10, 0,
            0, 0, 2, 0
        ]
    );
    assert_eq!(Request::decode(&bytes), Some(request));
    let mut other = bytes;
    other[0] = 0x26;
    assert_eq!(Request::decode(&other), None);
    for number in 0..10 {
        assert_eq!(Command::of(number).number(), number);
    }

    let reply = Reply {
        error: Reply::ENOSPC,
        cookie: 7,
    };
    let bytes = reply.encode();
    assert_eq!(
        bytes,
        [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 0, 7]
    );
    assert_eq!(Reply::decode(&bytes), Some(reply));
    // The first bytes of a structured answer.
    assert_eq!(
        Reply::decode(&[0x66, 0x8e, 0x33, 0xef, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        None
    );
}

#[test]
fn a_claim_has_one_form() {
    let claim = Claim {
        vm: "shop".to_owned(),
        holder: 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00,
        generation: 9,
    };
    let data = claim.encode("disk");
    assert_eq!(
        Claim::decode(&data),
        Some(("disk".to_owned(), claim.clone()))
    );
    for cut in 0..data.len() {
        assert_eq!(Claim::decode(&data[..cut]), None);
    }
    let mut long = data.clone();
    long.push(0);
    assert_eq!(Claim::decode(&long), None);
    let mut other = data;
    other[0] = 2;
    assert_eq!(Claim::decode(&other), None);
}

#[test]
fn what_others_write_is_one_line() {
    assert_eq!(one_line(b"a\nb\x1b[1m"), "a b [1m");
    assert_eq!(one_line(&[b'x'; 5000]).len(), 200);
    assert_eq!(one_line(&[0xff, b'a']), "\u{fffd}a");
}
