//! What NBD servers and clients send.

use std::io::{self, Read, Write};
use std::sync::Arc;

use twinvm_nbd::address::Address;
use twinvm_nbd::client::Haggle;
use twinvm_nbd::server::{self, Agreed, House, No, Tls};
use twinvm_nbd::transfers::{Job, Next, Transfers};
use twinvm_nbd::wire::{
    Claim, Command, Export, ExportFlags, MAX_BLOCK_BYTES, Reader, Reply, Request,
};

use crate::input::Input;

/// Answers that are heard of one connection.
const MAX_ANSWERS: usize = 64;

/// What is read stands there, what is written is kept.
struct Wire<'a> {
    from: &'a [u8],
    to: Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.from.read(bytes)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct One {
    generation: u64,
}

fn export() -> Export {
    let all = ExportFlags::HAS_FLAGS | ExportFlags::SEND_FLUSH | ExportFlags::SEND_FUA;
    Export {
        bytes: 1 << 20,
        flags: ExportFlags(all),
        block_bytes: 1,
        payload_bytes: server::PAYLOAD_BYTES,
    }
}

impl House for One {
    fn names(&self) -> Vec<String> {
        vec!["disk".to_owned()]
    }

    fn look(&self, export_name: &str) -> Result<Export, No> {
        match export_name {
            "disk" | "" => Ok(export()),
            _ => Err(No::Unknown),
        }
    }

    fn claim(&mut self, export_name: &str, claim: &Claim) -> Result<(), No> {
        self.look(export_name)?;
        if claim.generation < self.generation {
            return Err(No::Policy(format!("generation {}", self.generation)));
        }
        self.generation = claim.generation;
        Ok(())
    }

    fn read_beside(&mut self, export_name: &str, reader: &Reader) -> Result<(), No> {
        self.look(export_name)?;
        match reader.vm.as_str() {
            "shop" => Ok(()),
            _ => Err(No::Policy("another VM's".to_owned())),
        }
    }

    fn enter(&mut self, export_name: &str) -> Result<Export, No> {
        self.look(export_name)
    }
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let head = [
        b"IHAVEOPT".to_vec(),
        number.to_be_bytes().to_vec(),
        (data.len() as u32).to_be_bytes().to_vec(),
        data.to_vec(),
    ];
    head.concat()
}

/// What a client says that claims an export and goes; with a `look` before that, if it wants one.
fn client_words(look: bool) -> Vec<u8> {
    let name = [&4u32.to_be_bytes()[..], b"disk"].concat();
    let wanted = [&name[..], &[0, 1, 0, 3]].concat();
    let claim = [
        &[1][..],
        &[7; 16],
        &[0, 0, 0, 0, 0, 0, 0, 9],
        &name,
        &4u32.to_be_bytes(),
        b"shop",
    ];
    let reader = [&[1][..], &[7; 16], &name, &4u32.to_be_bytes(), b"shop"];
    let words = [
        3u32.to_be_bytes().to_vec(),
        option(0x7476_6d01, &claim.concat()),
        option(0x7476_6d02, &reader.concat()),
        if look {
            [option(3, &[]), option(6, &wanted)].concat()
        } else {
            Vec::new()
        },
        option(7, &wanted),
    ];
    words.concat()
}

fn serve(words: &[u8], tls: Tls) -> (io::Result<Agreed>, Vec<u8>, &[u8]) {
    let mut wire = Wire {
        from: words,
        to: Vec::new(),
    };
    let mut house = One { generation: 3 };
    let agreed = server::greet(&mut wire)
        .and_then(|zeroes| server::haggle(&mut wire, &mut house, tls, zeroes));
    (agreed, wire.to, wire.from)
}

/// A client at our server: it gets nothing that it may not have, and no endless answers.
pub fn nbd_client(data: &[u8]) {
    let mut input = Input::new(data);
    let tls = [Tls::No, Tls::Due, Tls::Yes][usize::from(input.byte() % 3)];
    let request = Request {
        flags: 0,
        command: Command::Write,
        cookie: 1,
        offset: 4096,
        bytes: 4096,
    };
    let words = [client_words(true), request.encode().to_vec()].concat();
    let words = input.mutate(words);
    let (agreed, answers, mut rest) = serve(&words, tls);
    assert!(answers.len() <= 64 * words.len() + 4096);
    let Ok(Agreed::Requests(found)) = agreed else {
        return;
    };
    assert!(tls != Tls::Due && found == export());
    while let Some((head, after)) = rest.split_first_chunk() {
        rest = after;
        let Some(request) = Request::decode(head) else {
            return;
        };
        assert_eq!(request.encode(), *head);
        let ranged = !matches!(request.command, Command::Flush | Command::Disconnect);
        if server::judge(&request, &found) == 0 && ranged {
            let end = request.offset.checked_add(request.bytes.into());
            assert!(end.is_some_and(|end| end <= found.bytes));
        }
    }
}

/// A server at our client: each job ends once, with as many bytes as it asked for, and nothing that
/// was not asked for counts.
pub fn nbd_server(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(address) = Address::parse(text)
    {
        assert_eq!(Address::parse(&address.to_string()), Ok(address));
    }
    let mut input = Input::new(data);
    let jobs = input.byte();
    let good = serve(&client_words(false), Tls::No).1;
    let replies: Vec<u8> = (0..8)
        .flat_map(|cookie| Reply { error: 0, cookie }.encode())
        .collect();
    let words = input.mutate([good, replies, vec![0; 4096]].concat());
    let wire = Wire {
        from: &words,
        to: Vec::new(),
    };
    let Ok(mut haggle) = Haggle::greet(wire) else {
        return;
    };
    let claim = Claim {
        vm: "shop".to_owned(),
        holder: 7,
        generation: 9,
    };
    if haggle.claim("disk", &claim).is_err() {
        return;
    }
    let Ok((export, wire)) = haggle.go("disk") else {
        return;
    };
    assert!(export.block_bytes.is_power_of_two() && export.block_bytes <= MAX_BLOCK_BYTES);
    assert!(export.payload_bytes >= 512);
    answers(jobs, &export, wire.from);
}

fn answers(jobs: u8, export: &Export, mut words: &[u8]) {
    let mut transfers = Transfers::default();
    let mut lengths = Vec::new();
    for n in 0..u64::from(jobs % 8) {
        let offset = n * 8192;
        let (job, length) = match (n + u64::from(jobs / 8)) % 4 {
            0 => (
                Job::Read {
                    offset,
                    bytes: 1024,
                },
                1024,
            ),
            1 => {
                let data: Arc<[u8]> = vec![1; 2048].into();
                let durable = jobs & 1 == 0;
                (
                    Job::Write {
                        offset,
                        data,
                        durable,
                    },
                    0,
                )
            }
            2 => (Job::Flush, 0),
            _ => {
                let (bytes, unmap) = (4096, true);
                (
                    Job::Zero {
                        offset,
                        bytes,
                        unmap,
                    },
                    0,
                )
            }
        };
        transfers.submit(n as usize, job);
        lengths.push(Some(length));
    }
    let mut ends = |tag: usize, result: Result<Vec<u8>, u32>| {
        let length = lengths[tag].take().expect("a job ends once");
        assert!(result.is_err() || result.is_ok_and(|data| data.len() == length));
    };
    for _ in 0..MAX_ANSWERS {
        while let Some(next) = transfers.next_frame(export) {
            match next {
                Next::Send(frame) => assert!(Request::decode(&frame.head).is_some()),
                Next::Ended(ended) => ends(ended.tag, ended.result),
            }
        }
        let Some((head, rest)) = words.split_first_chunk() else {
            break;
        };
        let Some(reply) = Reply::decode(head) else {
            break;
        };
        assert_eq!(reply.encode(), *head);
        let Ok(bytes) = transfers.data_bytes(&reply) else {
            break;
        };
        assert!(bytes <= 1024);
        let Some((data, rest)) = rest.split_at_checked(bytes) else {
            break;
        };
        words = rest;
        match transfers.answered(&reply, data, export) {
            Ok(Some(ended)) => ends(ended.tag, ended.result),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    transfers.lost();
    assert!(!transfers.waits());
}
