use std::io::Cursor;

use super::*;
use crate::client::{Claimed, Haggle, HaggleError};

/// One export, which belongs to the highest generation.
#[derive(Default)]
struct One {
    generation: u64,
    entered: bool,
}

fn export() -> Export {
    Export {
        bytes: 1 << 20,
        flags: ExportFlags(ExportFlags::HAS_FLAGS | ExportFlags::SEND_FLUSH),
        block_bytes: 1,
        payload_bytes: PAYLOAD_BYTES,
    }
}

impl House for One {
    fn names(&self) -> Vec<String> {
        vec!["disk".to_owned()]
    }

    fn look(&self, name: &str) -> Result<Export, No> {
        (name == "disk").then(export).ok_or(No::Unknown)
    }

    fn claim(&mut self, name: &str, claim: &Claim) -> Result<(), No> {
        self.look(name)?;
        if claim.generation < self.generation {
            return Err(No::Policy(format!("generation {} has it", self.generation)));
        }
        self.generation = claim.generation;
        Ok(())
    }

    fn read_beside(&mut self, name: &str, reader: &Reader) -> Result<(), No> {
        self.look(name)?;
        match reader.vm.as_str() {
            "shop" => Ok(()),
            other => Err(No::Policy(format!("{other} is another VM"))),
        }
    }

    fn enter(&mut self, name: &str) -> Result<Export, No> {
        let export = self.look(name)?;
        self.entered = true;
        Ok(export)
    }
}

/// Both ends in one thread: what is read stands there already, what is written is kept.
struct Both<R, W> {
    from: R,
    to: W,
}

impl<R: Read, W> Read for Both<R, W> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.from.read(bytes)
    }
}

impl<R, W: Write> Write for Both<R, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a client against a server, over a pair of pipes.
fn talk<T>(house: &mut (impl House + Send), tls: Tls, client: impl FnOnce(Pipe) -> T) -> T {
    let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(move || {
            let mut stream = b;
            let no_zeroes = greet(&mut stream)?;
            haggle(&mut stream, house, tls, no_zeroes)
        });
        let result = client(a);
        let _ = server.join().unwrap();
        result
    })
}

type Pipe = std::os::unix::net::UnixStream;

fn claim(generation: u64) -> Claim {
    Claim {
        vm: "shop".to_owned(),
        holder: 1,
        generation,
    }
}

#[test]
fn a_client_claims_looks_and_goes() {
    let mut house = One::default();
    let found = talk(&mut house, Tls::No, |stream| {
        let mut haggle = Haggle::greet(stream).unwrap();
        assert!(haggle.knows_claims().unwrap());
        assert!(haggle.knows_readers().unwrap());
        assert_eq!(haggle.info("disk").unwrap(), export());
        assert_eq!(haggle.claim("disk", &claim(3)).unwrap(), Claimed::Held);
        haggle.go("disk").unwrap().0
    });
    assert_eq!(found, export());
    assert!(house.entered);

    let refused = talk(&mut house, Tls::No, |stream| {
        let mut haggle = Haggle::greet(stream).unwrap();
        let refused = haggle.claim("disk", &claim(2)).unwrap_err();
        haggle.leave();
        refused.to_string()
    });
    assert_eq!(refused, "refuses: generation 3 has it");

    let reader = |vm: &str| Reader {
        vm: vm.to_owned(),
        holder: 2,
    };
    house.entered = false;
    talk(&mut house, Tls::No, |stream| {
        let mut haggle = Haggle::greet(stream).unwrap();
        let refused = haggle.read_beside("disk", &reader("bank")).unwrap_err();
        assert_eq!(refused.to_string(), "refuses: bank is another VM");
        haggle.read_beside("disk", &reader("shop")).unwrap();
        haggle.go("disk").unwrap();
    });
    assert_eq!((house.entered, house.generation), (true, 3));

    let unknown = talk(&mut house, Tls::No, |stream| {
        Haggle::greet(stream)
            .unwrap()
            .go("other")
            .unwrap_err()
            .to_string()
    });
    assert_eq!(unknown, "has no export of this name");
    let no_keys = talk(&mut house, Tls::No, |stream| {
        Haggle::greet(stream)
            .unwrap()
            .start_tls()
            .unwrap_err()
            .to_string()
    });
    assert_eq!(no_keys, "refuses: this server was started without keys");
    let wants = talk(&mut house, Tls::Due, |stream| {
        Haggle::greet(stream)
            .unwrap()
            .go("disk")
            .unwrap_err()
            .to_string()
    });
    assert_eq!(wants, "wants TLS: use nbds://");
    talk(&mut house, Tls::Due, |stream| {
        Haggle::greet(stream)
            .unwrap()
            .start_tls()
            .map(drop)
            .unwrap();
    });
}

fn heard(bytes: &[u8]) -> HaggleError {
    let stream = Both {
        from: Cursor::new(bytes.to_vec()),
        to: io::sink(),
    };
    match Haggle::greet(stream) {
        Err(error) => error,
        Ok(haggle) => haggle.go("x").map(|(export, _)| export).unwrap_err(),
    }
}

fn greeting() -> Vec<u8> {
    let mut bytes = b"NBDMAGICIHAVEOPT".to_vec();
    bytes.extend_from_slice(&[0, 3]);
    bytes
}

fn go_reply(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    answer(&mut out, OPT_GO, kind, data).unwrap();
    out
}

#[test]
fn servers_that_are_none() {
    assert_eq!(
        heard(b"SSH-2.0-OpenSSH_9.2\r\n").to_string(),
        "speaks something else than NBD"
    );
    assert_eq!(heard(b"").to_string(), "closed the connection");
    let old = [b"NBDMAGIC".to_vec(), OLD_STYLE.to_be_bytes().to_vec()].concat();
    assert!(
        heard(&old)
            .to_string()
            .starts_with("speaks the old NBD handshake")
    );
    let garbled = |answers: &[Vec<u8>]| heard(&[greeting(), answers.concat()].concat()).to_string();
    let size = [&[0, 0][..], &1024u64.to_be_bytes(), &[0, 1]].concat();
    let blocks = |least: u32, most: u32| {
        let sizes = [least, 4096, most].map(u32::to_be_bytes).concat();
        go_reply(REP_INFO, &[&[0, 3][..], &sizes].concat())
    };
    assert_eq!(
        garbled(&[go_reply(REP_ACK, &[])]),
        "answers without the export's size, which is not the NBD protocol"
    );
    assert_eq!(
        garbled(&[go_reply(REP_INFO, &size[..8])]),
        "answers half a description, which is not the NBD protocol"
    );
    for (least, most) in [
        (3, 4096),
        (0, 4096),
        (1 << 20, 1 << 20),
        (512, 511),
        (4096, 5000),
    ] {
        let answers = [
            go_reply(REP_INFO, &size),
            blocks(least, most),
            go_reply(REP_ACK, &[]),
        ];
        assert_eq!(
            garbled(&answers),
            "answers sizes of blocks that can't be, which is not the NBD protocol"
        );
    }
    // It would never end.
    assert_eq!(
        garbled(&vec![go_reply(REP_INFO, &size); 300]),
        "answers without an end, which is not the NBD protocol"
    );
    let mut long = go_reply(REP_INFO, &[]);
    let at = long.len() - 4;
    long[at..].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(
        garbled(&[long]),
        "answers more than there is to say, which is not the NBD protocol"
    );
    // Its own words are one line.
    assert_eq!(
        garbled(&[go_reply(REP_ERR_POLICY, b"go\naway")]),
        "refuses: go away"
    );
}

#[test]
fn clients_that_are_none() {
    let hears = |bytes: &[u8]| {
        let mut stream = Both {
            from: Cursor::new(bytes.to_vec()),
            to: io::sink(),
        };
        greet(&mut stream)
            .and_then(|zeroes| haggle(&mut stream, &mut One::default(), Tls::No, zeroes))
    };
    assert!(hears(b"GET ").is_err());
    assert!(hears(&[0, 0, 0, 3]).is_err());
    let option = |option: u32, bytes: u32, data: &[u8]| {
        let head = [OPTION.to_be_bytes().to_vec(), option.to_be_bytes().to_vec()].concat();
        [&head[..], &bytes.to_be_bytes(), data].concat()
    };
    let flags = [0, 0, 0, 3];
    assert!(hears(&[&flags[..], &option(OPT_LIST, u32::MAX, &[])].concat()).is_err());
    // Options without an end.
    let many = option(99, 0, &[]).repeat(MAX_OPTIONS + 1);
    assert!(hears(&[&flags[..], &many].concat()).is_err());
    let left = hears(&[&flags[..], &option(OPT_ABORT, 0, &[])].concat());
    assert_eq!(left.unwrap(), Agreed::Left);
    let old = hears(&[&flags[..], &option(OPT_EXPORT_NAME, 4, b"disk")].concat());
    assert_eq!(old.unwrap(), Agreed::Requests(export()));
}

#[test]
fn which_requests_are_carried_out() {
    let request = |command, flags, offset, bytes| Request {
        flags,
        command,
        cookie: 1,
        offset,
        bytes,
    };
    let writable = export();
    let fixed = Export {
        flags: ExportFlags(ExportFlags::HAS_FLAGS | ExportFlags::READ_ONLY),
        ..writable
    };
    let size = 1 << 20;
    assert_eq!(judge(&request(Command::Read, 0, size - 1, 1), &writable), 0);
    assert_eq!(
        judge(&request(Command::Read, 0, size, 1), &writable),
        Reply::EINVAL
    );
    assert_eq!(
        judge(&request(Command::Read, 0, u64::MAX, 2), &writable),
        Reply::EINVAL
    );
    assert_eq!(
        judge(&request(Command::Write, 0, size, 1), &writable),
        Reply::ENOSPC
    );
    assert_eq!(
        judge(&request(Command::Write, Request::FUA, 0, 1), &writable),
        0
    );
    assert_eq!(
        judge(&request(Command::Write, Request::NO_HOLE, 0, 1), &writable),
        Reply::EINVAL
    );
    assert_eq!(
        judge(&request(Command::Write, 0, 0, 1), &fixed),
        Reply::EPERM
    );
    assert_eq!(
        judge(&request(Command::Trim, 0, 0, 1), &fixed),
        Reply::EPERM
    );
    assert_eq!(
        judge(&request(Command::Other(7), 0, 0, 1), &writable),
        Reply::EINVAL
    );
    let large = Export {
        bytes: u64::MAX,
        ..writable
    };
    let long = PAYLOAD_BYTES + 1;
    assert_eq!(
        judge(&request(Command::Read, 0, 0, long), &large),
        Reply::EOVERFLOW
    );
    assert_eq!(
        judge(&request(Command::WriteZeroes, 2, 0, u32::MAX), &large),
        0
    );
}
