use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use super::*;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32 + 4).to_be_bytes();
    [&[kind], &length[..], body].concat()
}

/// A row of texts.
fn row_of(values: &[Option<&str>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            None => body.extend(u32::MAX.to_be_bytes()),
            Some(text) => {
                body.extend((text.len() as u32).to_be_bytes());
                body.extend(text.as_bytes());
            }
        }
    }
    message(b'D', &body)
}

#[test]
fn messages_are_cut_out_whole_or_not_at_all() {
    let row = row_of(&[Some("12"), None, Some("")]);
    let values = vec![Some("12".to_owned()), None, Some(String::new())];
    let both = [&row[..], &message(b'Z', b"I")].concat();
    let (first, length) = parse(&both).unwrap().unwrap();
    assert_eq!((first, length), (Message::Row(values), row.len()));
    let (second, _) = parse(&both[length..]).unwrap().unwrap();
    assert_eq!(second, Message::Ready(b'I'));
    for cut in 0..row.len() {
        assert!(parse(&row[..cut]).unwrap().is_none(), "{cut}");
    }
}

#[test]
fn an_error_has_its_code_and_text() {
    let body = b"SERROR\0C40001\0Mtry again\0Ffile.c\0\0";
    let (found, _) = parse(&message(b'E', body)).unwrap().unwrap();
    let expected = Message::Error("40001".to_owned(), "try again".to_owned());
    assert_eq!(found, expected);
}

#[test]
fn what_is_not_the_protocol_is_refused() {
    let too_long = [b"D", &(u32::MAX - 1).to_be_bytes()[..]].concat();
    let bad = [
        message(b'?', b""),
        message(b'Z', b""),
        message(b'D', b"\0"),
        message(b'D', b"\0\x01\0\0\0\x09ab"),
        message(b'E', b"Cnever ended"),
        message(b'R', b"\0"),
        b"D\0\0\0\x03".to_vec(),
        too_long,
    ];
    for bytes in bad {
        let found = parse(&bytes);
        assert!(
            matches!(found, Err(PgError::Protocol(_))),
            "{bytes:?}: {found:?}"
        );
    }
}

/// A server that says the next of `answers` to each message that comes.
fn server(answers: Vec<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for answer in answers {
            let mut piece = [0; 1024];
            if stream.read(&mut piece).unwrap() == 0 {
                return;
            }
            // In pieces: nothing may depend on how bytes come.
            for part in answer.chunks(3) {
                stream.write_all(part).unwrap();
            }
        }
    });
    address
}

#[test]
fn queries_have_rows_and_errors_and_the_connection_goes_on() {
    let ready = message(b'Z', b"I");
    let hello = [
        message(b'R', &[0; 4]),
        message(b'S', b"a\0b\0"),
        ready.clone(),
    ]
    .concat();
    let rows = [
        message(b'T', b"\0\0"),
        row_of(&[Some("1")]),
        row_of(&[Some("2")]),
        message(b'C', b"SELECT 2\0"),
        ready.clone(),
    ];
    let refused = [message(b'E', b"C23505\0Mtwice\0\0"), ready].concat();
    let address = server(vec![hello, refused, rows.concat()]);
    let mut pg = Pg::connect(address, "r", "d", Duration::from_secs(20)).unwrap();
    let error = pg.query("INSERT", || true).unwrap_err();
    assert_eq!(error.to_string(), "the server says 23505: twice");
    let rows = pg.query("SELECT", || true).unwrap();
    assert_eq!(rows, [[Some("1".to_owned())], [Some("2".to_owned())]]);
    // The server has gone: that is told, not waited for.
    let error = pg.query("SELECT", || true).unwrap_err();
    assert!(matches!(error, PgError::Connection(_)), "{error}");
}

#[test]
fn a_server_that_wants_a_password_is_told() {
    let address = server(vec![message(b'R', &[0, 0, 0, 5])]);
    let error = Pg::connect(address, "r", "d", Duration::from_secs(20)).unwrap_err();
    assert!(error.to_string().contains("password"), "{error}");
}
