use super::web::{Page, parse};
use super::*;

#[test]
fn the_shell_counts_without_a_hole() {
    assert_eq!(counted("1\n2\n3\n"), Ok(3));
    assert_eq!(counted(""), Ok(0));
    assert!(
        counted("1\n3\n")
            .unwrap_err()
            .contains("after 1 came \"3\"")
    );
    assert!(counted("1\n1\n").is_err());
    assert!(counted("1\nConnection closed\n").is_err());
}

const SAID: &str = "\
pgbench (15.18, server 17.11)
transaction type: <builtin: TPC-B (sort of)>
number of transactions actually processed: 321
number of failed transactions: 0 (0.000%)
latency average = 4.2 ms
";

#[test]
fn pgbench_says_what_it_did() {
    assert_eq!(processed(SAID), Some(321));
    assert_eq!(processed(&SAID.replace(": 0 (", ": 2 (")), None);
    assert_eq!(processed("pgbench: error: connection lost\n"), None);
    let aborted = format!("pgbench: client 0 aborted in command 4\n{SAID}");
    assert_eq!(processed(&aborted), None);
}

#[test]
fn pgbenchs_tables_have_what_was_acknowledged() {
    assert_eq!(judge(321, &["321", "-5", "-5", "-5", "-5"]), Ok(321));
    let lost = judge(321, &["320", "-5", "-5", "-5", "-5"]).unwrap_err();
    assert!(lost.contains("320 are in its history"), "{lost}");
    assert!(judge(321, &["321", "-5", "-5", "-6", "-5"]).is_err());
    assert!(judge(321, &["321"]).is_err());
}

#[test]
fn a_page_is_read_when_it_is_whole() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc";
    for cut in 0..whole.len() {
        assert_eq!(parse(&whole[..cut]), Ok(None), "{cut}");
    }
    let page = |is_last| {
        Ok(Some(Page {
            body: b"abc".to_vec(),
            is_last,
        }))
    };
    assert_eq!(parse(whole), page(false));
    let last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
    assert_eq!(parse(last), page(true));
    assert!(parse(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_err());
    assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc").is_err());
    assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
}

#[test]
fn base64_is_that_of_the_rfc() {
    let known = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foobar", "Zm9vYmFy"),
    ];
    for (plain, coded) in known {
        assert_eq!(base64(plain.as_bytes()), coded);
    }
    assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
}
