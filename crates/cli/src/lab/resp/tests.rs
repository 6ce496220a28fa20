use super::*;

#[test]
fn a_command_is_an_array_of_bulk_strings() {
    assert_eq!(
        command(&["INCR", "n"]),
        b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".to_vec()
    );
}

#[test]
fn each_kind_of_reply_is_cut_at_its_end() {
    let cases: [(&[u8], Reply); 5] = [
        (b":42\r\n", Reply::Integer(42)),
        (b"+PONG\r\n", Reply::Simple("PONG".into())),
        (b"-ERR no\r\n", Reply::Error("ERR no".into())),
        (b"$2\r\n17\r\n", Reply::Bulk(Some("17".into()))),
        (b"$-1\r\n", Reply::Bulk(None)),
    ];
    for (bytes, reply) in cases {
        for cut in 0..bytes.len() {
            assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} bytes of {reply:?}");
        }
        let mut longer = bytes.to_vec();
        longer.extend_from_slice(b":1\r\n");
        assert_eq!(parse(&longer), Ok(Some((reply, bytes.len()))));
    }
}

#[test]
fn what_is_no_reply_is_refused() {
    for bytes in [
        &b"hello\r\n"[..],
        b":1x\r\n",
        b"\r\n",
        b"$-2\r\n",
        b"$99999999\r\n",
        b"$1\r\nxyz",
        b":\xff\r\n",
    ] {
        assert!(parse(bytes).is_err(), "{bytes:?}");
    }
    assert!(parse(&vec![b'+'; MAX_REPLY_BYTES + 1]).is_err());
}
