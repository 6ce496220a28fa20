use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tempfile::TempDir;
use twinvm_nbd::client::{Claimed, Haggle, HaggleError};
use twinvm_nbd::wire::{Claim, Command, Export, ExportFlags, Reader, Reply, Request};

use super::*;

const BYTES: u64 = 1 << 20;

/// Opens a disk that nobody has open. A process that another test has just started holds a copy of
/// every lock until it executes its program.
fn open(path: &Path) -> DiskFile {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        match DiskFile::open(path, false) {
            Ok(file) => return file,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn start(path: &Path) -> DiskServer {
    let file = open(path);
    let listen = "127.0.0.1:0".parse().unwrap();
    DiskServer::start(listen, vec![("disk".to_owned(), file)], None, |_| {}).unwrap()
}

fn image(folder: &TempDir) -> std::path::PathBuf {
    let path = folder.path().join("disk.img");
    File::create(&path).unwrap().set_len(BYTES).unwrap();
    path
}

fn claim(generation: u64, holder: u128) -> Claim {
    Claim {
        vm: "shop".to_owned(),
        holder,
        generation,
    }
}

/// A client that asks by hand.
struct Client {
    stream: TcpStream,
}

fn greeted(server: &DiskServer) -> Haggle<TcpStream> {
    let stream = TcpStream::connect(server.local_addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    Haggle::greet(stream).unwrap()
}

fn text(error: HaggleError) -> String {
    error.to_string()
}

impl Client {
    fn plain(server: &DiskServer) -> Result<Self, String> {
        let (_, stream) = greeted(server).go("disk").map_err(text)?;
        Ok(Self { stream })
    }

    fn claims(server: &DiskServer, claim: &Claim) -> Result<Self, String> {
        let mut haggle = greeted(server);
        assert_eq!(haggle.claim("disk", claim).map_err(text)?, Claimed::Held);
        let (export, stream) = haggle.go("disk").map_err(text)?;
        let flags = ExportFlags(0b1_0110_1101);
        assert_eq!(
            export,
            Export {
                bytes: BYTES,
                flags,
                block_bytes: 1,
                payload_bytes: 1 << 20
            }
        );
        Ok(Self { stream })
    }

    fn reads(server: &DiskServer, vm: &str, holder: u128) -> Result<Self, String> {
        let mut haggle = greeted(server);
        let vm = vm.to_owned();
        let reader = Reader { vm, holder };
        haggle.read_beside("disk", &reader).map_err(text)?;
        let (export, stream) = haggle.go("disk").map_err(text)?;
        assert_eq!(export.flags, ExportFlags(0b1_0000_0111));
        Ok(Self { stream })
    }

    fn send(&mut self, command: Command, offset: u64, bytes: u32, data: &[u8]) -> io::Result<()> {
        let request = Request {
            flags: 0,
            command,
            cookie: 5,
            offset,
            bytes,
        };
        self.stream.write_all(&request.encode())?;
        self.stream.write_all(data)
    }

    /// The error of an answer.
    fn hear(&mut self) -> io::Result<u32> {
        let mut head = [0; Reply::BYTES];
        self.stream.read_exact(&mut head)?;
        let reply = Reply::decode(&head).unwrap();
        assert_eq!(reply.cookie, 5);
        Ok(reply.error)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<u32> {
        self.send(Command::Write, offset, data.len() as u32, data)?;
        self.hear()
    }

    fn read(&mut self, offset: u64, bytes: u32) -> Vec<u8> {
        self.send(Command::Read, offset, bytes, &[]).unwrap();
        assert_eq!(self.hear().unwrap(), 0);
        let mut data = vec![0; bytes as usize];
        self.stream.read_exact(&mut data).unwrap();
        data
    }
}

#[test]
fn a_write_that_comes_after_a_takeover_is_rejected() {
    let folder = TempDir::new().unwrap();
    let path = image(&folder);
    let server = start(&path);
    let mut old = Client::claims(&server, &claim(3, 1)).unwrap();
    assert_eq!(old.write(0, &[1; 512]).unwrap(), 0);
    // Half of it is there already when the other node takes over.
    old.send(Command::Write, 512, 512, &[2; 256]).unwrap();
    let mut new = Client::claims(&server, &claim(7, 2)).unwrap();
    assert_eq!(new.read(0, 1024), [vec![1; 512], vec![0; 512]].concat());
    // The other half, and whole ones.
    let _ = old.stream.write_all(&[2; 256]);
    let late = old.write(512, &[2; 512]);
    assert!(late.is_err(), "{late:?}");
    assert_eq!(new.read(0, 1024), [vec![1; 512], vec![0; 512]].concat());
    // Nor does he get in again, now or ever.
    let refused = "refuses: generation 7 has taken over from generation 3";
    assert_eq!(
        Client::claims(&server, &claim(3, 1)).err().unwrap(),
        refused
    );
    drop(server);
    let server = start(&path);
    assert_eq!(
        Client::claims(&server, &claim(3, 1)).err().unwrap(),
        refused
    );
    assert_eq!(
        Client::claims(&server, &claim(7, 1)).err().unwrap(),
        "refuses: generation 7 is another node's"
    );
    assert!(Client::claims(&server, &claim(7, 2)).is_ok());
    // An answer and its durability are one.
    let held = std::fs::read_to_string(folder.path().join("disk.img.holder")).unwrap();
    assert_eq!(
        held,
        format!("twinvm disk 1\nvm shop\ngeneration 7\nholder {:032x}\n", 2)
    );
}

/// Many writes of the old one are under way, in the server's queues too, while the new one takes
/// over: none of them changes what the new one has read.
#[test]
fn nothing_of_an_older_generation_begins_after_the_claims_answer() {
    let folder = TempDir::new().unwrap();
    let path = image(&folder);
    let server = start(&path);
    for generation in 1..30u64 {
        let mut old = Client::claims(&server, &claim(2 * generation, 1)).unwrap();
        let mut stream = old.stream.try_clone().unwrap();
        let writing = thread::spawn(move || {
            for n in 0..512u64 {
                let request = Request {
                    flags: 0,
                    command: Command::Write,
                    cookie: n,
                    offset: n % 64 * 4096,
                    bytes: 4096,
                };
                let data = [(generation + n) as u8; 4096];
                let sent = stream.write_all(&request.encode());
                if sent.and_then(|()| stream.write_all(&data)).is_err() {
                    return;
                }
            }
        });
        // It is in the middle of it.
        old.stream.read_exact(&mut [0; 16 * 3]).unwrap();
        let mut new = Client::claims(&server, &claim(2 * generation + 1, 2)).unwrap();
        let before = new.read(0, 64 * 4096);
        let _ = writing.join();
        assert!(new.read(0, 64 * 4096) == before);
    }
}

#[test]
fn who_gets_an_export() {
    let folder = TempDir::new().unwrap();
    let path = image(&folder);
    let server = start(&path);
    // Nobody's generation keeps others off while it is there.
    let mut run = Client::claims(&server, &claim(0, 1)).unwrap();
    assert_eq!(
        Client::claims(&server, &claim(0, 2)).err().unwrap(),
        "refuses: somebody else uses the disk"
    );
    assert_eq!(
        Client::plain(&server).err().unwrap(),
        "refuses: a VM uses the disk"
    );
    // The same one comes again over another connection.
    let again = Client::claims(&server, &claim(0, 1)).unwrap();
    assert!(run.write(0, &[1; 512]).is_err());
    drop(again);
    // Any other NBD client, and several of them.
    let until = Instant::now() + Duration::from_secs(20);
    let mut plain = loop {
        match Client::plain(&server) {
            Ok(plain) => break plain,
            Err(why) => assert!(Instant::now() < until, "{why}"),
        }
    };
    let mut other = Client::plain(&server).unwrap();
    assert_eq!(plain.write(0, &[3; 512]).unwrap(), 0);
    assert_eq!(other.read(0, 512), [3; 512]);
    assert_eq!(
        Client::claims(&server, &claim(0, 2)).err().unwrap(),
        "refuses: somebody else uses the disk"
    );
    assert!(!folder.path().join("disk.img.holder").exists());
    // A pair has it for good.
    let mut pair = Client::claims(&server, &claim(1, 9)).unwrap();
    assert!(plain.write(0, &[4; 512]).is_err());
    assert!(other.write(0, &[4; 512]).is_err());
    assert_eq!(pair.read(0, 512), [3; 512]);
    drop(pair);
    assert_eq!(
        Client::plain(&server).err().unwrap(),
        "refuses: the disk belongs to a pair, whose nodes say their generation"
    );
    assert_eq!(
        Client::claims(&server, &claim(0, 1)).err().unwrap(),
        "refuses: the disk belongs to a pair (generation 1): start that with twinvm node"
    );
    let mut foreign = claim(5, 1);
    foreign.vm = "other".to_owned();
    assert_eq!(
        Client::claims(&server, &foreign).err().unwrap(),
        "refuses: the disk belongs to the VM shop: give each VM one of its own"
    );
    foreign.vm = "a\nvm b".to_owned();
    assert_eq!(
        Client::claims(&server, &foreign).err().unwrap(),
        "refuses: this is no VM's name"
    );
    let mut haggle = greeted(&server);
    assert_eq!(haggle.info("disk").unwrap().bytes, BYTES);
    assert_eq!(haggle.info("").unwrap().bytes, BYTES);
    assert_eq!(
        haggle.info("x").unwrap_err().to_string(),
        "has no export of this name"
    );
}

#[test]
fn a_backup_reads_beside_the_node_that_has_the_disk_and_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let path = image(&folder);
    let server = start(&path);
    let refused = |vm| Client::reads(&server, vm, 2).err().unwrap();
    assert_eq!(
        refused("shop"),
        "refuses: no node of a pair has the disk yet"
    );
    let mut live = Client::claims(&server, &claim(3, 1)).unwrap();
    assert_eq!(refused("bank"), "refuses: the disk belongs to the VM shop");
    let mut backup = Client::reads(&server, "shop", 2).unwrap();
    assert_eq!(live.write(0, &[7; 512]).unwrap(), 0);
    assert_eq!(backup.read(0, 512), [7; 512]);
    assert_eq!(backup.write(0, &[8; 512]).unwrap(), Reply::EPERM);
    for command in [Command::Trim, Command::WriteZeroes] {
        backup.send(command, 0, 512, &[]).unwrap();
        assert_eq!(backup.hear().unwrap(), Reply::EPERM);
    }
    assert_eq!(live.read(0, 512), [7; 512]);
    // The live node comes again over another connection, and so does the backup.
    let mut live = Client::claims(&server, &claim(3, 1)).unwrap();
    assert_eq!(backup.read(0, 512), [7; 512]);
    let mut again = Client::reads(&server, "shop", 2).unwrap();
    assert!(backup.write(0, &[8; 512]).is_err(), "its first one is over");
    assert_eq!(live.write(0, &[9; 512]).unwrap(), 0);
    assert_eq!(again.read(0, 512), [9; 512]);
    // It has the disk from now on, and what it was before is over too.
    let mut backup = Client::claims(&server, &claim(4, 2)).unwrap();
    assert!(again.write(0, &[8; 512]).is_err());
    assert!(live.write(0, &[8; 512]).is_err());
    assert_eq!(backup.write(0, &[1; 512]).unwrap(), 0);
    // Others may read too, but not as many as like.
    let mut readers: Vec<Client> = (10..18)
        .map(|n| Client::reads(&server, "shop", n).unwrap())
        .collect();
    assert_eq!(readers[7].read(0, 512), [1; 512]);
    assert_eq!(refused("shop"), "refuses: too many clients read the disk");
}

#[test]
fn requests_that_are_refused_and_clients_that_talk_nonsense() {
    let folder = TempDir::new().unwrap();
    let path = image(&folder);
    let server = start(&path);
    let mut client = Client::plain(&server).unwrap();
    assert_eq!(client.write(BYTES - 256, &[1; 512]).unwrap(), Reply::ENOSPC);
    client.send(Command::Read, BYTES, 1, &[]).unwrap();
    assert_eq!(client.hear().unwrap(), Reply::EINVAL);
    client.send(Command::Other(7), 0, 512, &[]).unwrap();
    assert_eq!(client.hear().unwrap(), Reply::EINVAL);
    client.send(Command::Read, 0, u32::MAX, &[]).unwrap();
    assert_eq!(client.hear().unwrap(), Reply::EOVERFLOW);
    for bytes in [0, 4096] {
        client.send(Command::Trim, 0, bytes, &[]).unwrap();
        assert_eq!(client.hear().unwrap(), 0);
        client.send(Command::WriteZeroes, 0, bytes, &[]).unwrap();
        assert_eq!(client.hear().unwrap(), 0);
    }
    client.send(Command::Flush, 0, 0, &[]).unwrap();
    assert_eq!(client.hear().unwrap(), 0);
    // More data than was agreed on.
    client.send(Command::Write, 0, u32::MAX, &[0; 64]).unwrap();
    assert!(client.hear().is_err());
    let mut client = Client::plain(&server).unwrap();
    client.stream.write_all(&[0; Request::BYTES]).unwrap();
    assert!(client.hear().is_err());
    // The server is there for others.
    let mut client = Client::plain(&server).unwrap();
    assert_eq!(client.read(0, 512), [0; 512]);
    // What was asked before a polite end is done.
    client.send(Command::Write, 0, 512, &[8; 512]).unwrap();
    client.send(Command::Disconnect, 0, 0, &[]).unwrap();
    assert_eq!(client.hear().unwrap(), 0);
    let mut bytes = [0; 512];
    File::open(&path)
        .unwrap()
        .read_exact_at(&mut bytes, 0)
        .unwrap();
    assert_eq!(bytes, [8; 512]);
}

#[test]
fn what_a_server_can_not_start_with() {
    let folder = TempDir::new().unwrap();
    let path = image(&folder);
    let file = || open(&path);
    let refused = |listen: &str, names: Vec<(String, DiskFile)>| {
        let listen = listen.parse().unwrap();
        DiskServer::start(listen, names, None, |_| {})
            .err()
            .unwrap()
            .to_string()
    };
    let disk = || "disk".to_owned();
    assert!(refused("0.0.0.0:0", vec![(disk(), file())]).contains("without --keys"));
    let holder = folder.path().join("disk.img.holder");
    for wrong in [
        "",
        "twinvm disk 1\nvm shop\ngeneration 0\nholder 0\n",
        "twinvm disk 2\n",
    ] {
        std::fs::write(&holder, wrong).unwrap();
        assert_eq!(
            refused("127.0.0.1:0", vec![(disk(), file())]),
            format!(
                "{}: says nothing about who has the disk: bring it back from a copy, or remove \
                 it if no node that had the disk is left",
                holder.display()
            )
        );
    }
    std::fs::remove_file(&holder).unwrap();
    let second = folder.path().join("second");
    File::create(&second).unwrap().set_len(512).unwrap();
    let second = open(&second);
    assert_eq!(
        refused("127.0.0.1:0", vec![(disk(), file()), (disk(), second)]),
        "two exports are named disk: give each its own, as NAME=FILE"
    );
}
