//! Against nbdkit and qemu-nbd, as Debian has them, and against servers that misbehave.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::Mutex;
use std::thread;

use crossbeam_channel::{Receiver, bounded};
use tempfile::TempDir;
use twinvm_machine::{DiskOp, MAX_DISK_REQUESTS};
use twinvm_nbd::server::{self, Agreed, House, No, Tls};
use twinvm_nbd::wire::{Command, Reader, Reply, Request};

use super::*;

const MIB: u64 = 1 << 20;
/// For steps that take a moment.
const LONG: Duration = Duration::from_secs(20);

fn spec(address: &str) -> NbdSpec {
    NbdSpec {
        address: Address::parse(address).unwrap(),
        read_only: false,
        keys: None,
        claim: Claim {
            vm: "shop".to_owned(),
            holder: 1,
            generation: 0,
        },
        beside: false,
        fencing: None,
    }
}

fn at_socket(path: &Path) -> String {
    format!("nbd+unix:///?socket={}", path.display())
}

/// A server's process. It ends with this.
struct Served {
    child: Child,
    socket: PathBuf,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

fn serve(folder: &Path, program: &str, args: &[&str]) -> Served {
    let socket = folder.join("socket");
    let mut command = Program::new(program);
    match program {
        "nbdkit" => command.arg("-f").arg("-U").arg(&socket),
        _ => command.args(["-t", "-e", "8", "-k"]).arg(&socket),
    };
    let child = command
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}: scripts/setup.sh test installs it"));
    let served = Served { child, socket };
    let until = Instant::now() + LONG;
    // The name is there a moment before somebody listens.
    while std::os::unix::net::UnixStream::connect(&served.socket).is_err() {
        assert!(Instant::now() < until, "{program} does not listen");
        thread::sleep(Duration::from_millis(5));
    }
    served
}

/// A disk, what it has done, and what a person has heard.
struct Running {
    disk: NbdDisk,
    done: Receiver<DiskDone>,
    said: Arc<Mutex<Vec<(NoteLevel, String)>>>,
    next: std::cell::Cell<u64>,
}

impl Running {
    fn start(target: NbdTarget) -> Self {
        let (done_in, done) = bounded(MAX_DISK_REQUESTS);
        let said = Arc::new(Mutex::new(Vec::new()));
        let tell = {
            let said = Arc::clone(&said);
            move |level, line| said.lock().unwrap().push((level, line))
        };
        Self {
            disk: NbdDisk::start(target, &done_in, Arc::new(tell)).unwrap(),
            done,
            said,
            next: std::cell::Cell::new(0),
        }
    }

    fn submit(&self, op: DiskOp, offset: u64, bytes: u64, data: &[u8]) -> u64 {
        let id = self.next.replace(self.next.get() + 1);
        self.disk.submit(DiskRequest {
            device: 3,
            id,
            op,
            offset,
            bytes,
            data: data.into(),
        });
        id
    }

    fn done(&self) -> DiskDone {
        self.done.recv_timeout(LONG).unwrap()
    }

    fn run(&self, op: DiskOp, offset: u64, bytes: u64, data: &[u8]) -> DiskDone {
        let id = self.submit(op, offset, bytes, data);
        let done = self.done();
        assert_eq!((done.device, done.id), (3, id));
        done
    }

    fn write(&self, offset: u64, data: &[u8]) -> DiskDone {
        let op = DiskOp::Write { durable: false };
        self.run(op, offset, data.len() as u64, data)
    }

    fn read(&self, offset: u64, bytes: u64) -> Vec<u8> {
        let done = self.run(DiskOp::Read, offset, bytes, &[]);
        assert_eq!((done.status, done.trouble), (0, None));
        done.data
    }

    /// Waits until a person has heard this, and gives how bad it was said to be.
    fn hears(&self, what: &str) -> NoteLevel {
        let until = Instant::now() + LONG;
        loop {
            let said = self.said.lock().unwrap().clone();
            if let Some((level, _)) = said.iter().find(|(_, line)| line.contains(what)) {
                return *level;
            }
            assert!(Instant::now() < until, "{what:?} is not in {said:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Everything that a guest can ask for, many at a time.
fn works_as_a_disk(target: NbdTarget, file: &Path) {
    assert_eq!((target.sectors(), target.read_only()), (16 * 2048, false));
    let mut running = Running::start(target);
    let pattern = |n: u64| vec![n as u8 + 1; 128 << 10];
    for n in 0..64 {
        let durable = n % 2 == 0;
        let op = DiskOp::Write { durable };
        running.submit(op, n * (128 << 10), 128 << 10, &pattern(n));
    }
    let mut ids: Vec<u64> = (0..64)
        .map(|_| {
            let done = running.done();
            assert_eq!(
                (done.status, &done.data[..], done.trouble),
                (0, &[][..], None)
            );
            done.id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..64).collect::<Vec<u64>>());
    assert_eq!(running.run(DiskOp::Flush, 0, 0, &[]).status, 0);

    for n in 0..64 {
        running.submit(DiskOp::Read, n * (128 << 10), 128 << 10, &[]);
    }
    for _ in 0..64 {
        let done = running.done();
        assert!(done.status == 0 && done.data == pattern(done.id - 65));
    }
    let clear = [
        (DiskOp::Discard, 0),
        (DiskOp::WriteZeroes { unmap: true }, MIB),
        (DiskOp::WriteZeroes { unmap: false }, 2 * MIB),
    ];
    for (op, offset) in clear {
        assert_eq!(running.run(op, offset + 512, 4096, &[]).status, 0);
        let read = running.read(offset, 8192);
        assert!(read[..512].iter().all(|byte| *byte != 0));
        assert!(read[512..512 + 4096].iter().all(|byte| *byte == 0));
        assert!(read[512 + 4096..].iter().all(|byte| *byte != 0));
    }
    running.write(15 * MIB, &[9; 512]);
    running.disk.rest().unwrap();
    let mut bytes = [0; 512];
    fs::File::open(file)
        .unwrap()
        .read_exact_at(&mut bytes, 15 * MIB)
        .unwrap();
    assert_eq!(bytes, [9; 512]);
    assert_eq!(running.said.lock().unwrap().as_slice(), []);
}

fn image(folder: &Path) -> PathBuf {
    let file = folder.join("disk.img");
    fs::File::create(&file).unwrap().set_len(16 * MIB).unwrap();
    file
}

#[test]
fn nbdkit_and_qemu_nbd_are_disks() {
    let folder = TempDir::new().unwrap();
    let file = image(folder.path());
    let path = file.to_str().unwrap();
    let servers: [(&str, &[&str]); 5] = [
        ("nbdkit", &["file", path]),
        (
            "nbdkit",
            &["--filter=delay", "file", path, "rdelay=3ms", "wdelay=5ms"],
        ),
        ("nbdkit", &["--filter=nozero", "file", path]),
        (
            "nbdkit",
            &[
                "--filter=blocksize-policy",
                "file",
                path,
                "blocksize-minimum=512",
                "blocksize-maximum=65536",
                "blocksize-error-policy=error",
            ],
        ),
        ("qemu-nbd", &["-f", "raw", path]),
    ];
    for (program, args) in servers {
        let served = serve(folder.path(), program, args);
        let address = at_socket(&served.socket);
        let looked = NbdTarget::look(spec(&address)).unwrap();
        assert!(!looked.keeps_others_off().unwrap());
        assert!(looked.lets_others_read().unwrap());
        assert_eq!(looked.sectors(), 16 * 2048);
        works_as_a_disk(NbdTarget::open(spec(&address)).unwrap(), &file);
        // Without a connection to begin with.
        works_as_a_disk(looked, &file);
    }
}

/// One that doesn't say that its connections see the same.
#[test]
fn a_server_with_a_cache_for_each_connection_is_not_read_by_two() {
    let folder = TempDir::new().unwrap();
    let file = image(folder.path());
    let path = file.to_str().unwrap();
    let args = [
        "--filter=multi-conn",
        "file",
        path,
        "multi-conn-mode=disable",
    ];
    let served = serve(folder.path(), "nbdkit", &args);
    let mut spec = spec(&at_socket(&served.socket));
    let looked = NbdTarget::look(spec.clone()).unwrap();
    assert!(!looked.lets_others_read().unwrap());
    // What nobody writes to is the same for all.
    spec.read_only = true;
    let looked = NbdTarget::look(spec).unwrap();
    assert!(looked.lets_others_read().unwrap());
}

#[test]
fn exports_that_can_be_no_disk() {
    let folder = TempDir::new().unwrap();
    let refused = |args: &[&str]| {
        let served = serve(folder.path(), "nbdkit", args);
        let error = NbdTarget::open(spec(&at_socket(&served.socket))).err();
        let error = error.expect("refused");
        assert!(!error.passing);
        let address = at_socket(&served.socket);
        let line = error.to_string();
        line.strip_prefix(&format!("disk {address}: "))
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        refused(&["-r", "memory", "1M"]),
        "the export is read-only: export it for writing, or set readonly = true"
    );
    assert_eq!(
        refused(&["memory", "0"]),
        "the export is empty: give it a size"
    );
    assert_eq!(
        refused(&["memory", "513"]),
        "513 bytes are not a multiple of 512: export whole sectors, for instance with nbdkit's \
         filter truncate (round-up=512)"
    );
    let policy = [
        "--filter=blocksize-policy",
        "memory",
        "1M",
        "blocksize-minimum=4096",
    ];
    assert_eq!(
        refused(&policy),
        "its smallest block has 4096 bytes, a VM's sectors have 512: export it with smaller ones, \
         for instance with nbdkit's filter blocksize"
    );
    let served = serve(folder.path(), "nbdkit", &["-r", "memory", "1M"]);
    let mut read_only = spec(&at_socket(&served.socket));
    read_only.read_only = true;
    let target = NbdTarget::open(read_only).unwrap();
    assert!(target.read_only());
    let mut running = Running::start(target);
    assert_eq!(running.read(0, 4096), vec![0; 4096]);
    running.disk.rest().unwrap();
    drop(served);

    let gone = NbdTarget::open(spec("nbd+unix:///?socket=/nowhere"))
        .err()
        .unwrap();
    assert!(gone.passing);
    assert_eq!(
        gone.to_string(),
        "disk nbd+unix:///?socket=/nowhere: nobody listens there: start the server"
    );
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
            let _ = stream.read(&mut [0; 64]);
        });
        address
    };
    let other = NbdTarget::open(spec(&format!("nbd://{port}/x")))
        .err()
        .unwrap();
    assert_eq!(
        other.to_string(),
        format!("disk nbd://{port}/x: the server speaks something else than NBD")
    );
    let file = image(folder.path());
    let args = ["-x", "one", "-f", "raw", file.to_str().unwrap()];
    let served = serve(folder.path(), "qemu-nbd", &args);
    let other = NbdTarget::open(spec(&at_socket(&served.socket)))
        .err()
        .unwrap();
    assert!(
        other
            .to_string()
            .contains("the server has no export of this name"),
        "{other}"
    );
}

#[test]
fn what_the_server_fails_the_guest_hears_and_a_person_once() {
    let folder = TempDir::new().unwrap();
    let file = image(folder.path());
    let path = file.to_str().unwrap();
    let served = serve(
        folder.path(),
        "nbdkit",
        &[
            "--filter=error",
            "file",
            path,
            "error=ENOSPC",
            "error-pwrite-rate=100%",
        ],
    );
    let target = NbdTarget::open(spec(&at_socket(&served.socket))).unwrap();
    let address = at_socket(&served.socket);
    let mut running = Running::start(target);
    let first = running.write(0, &[1; 512]);
    assert_eq!(first.status, 1);
    assert_eq!(
        first.trouble.unwrap(),
        format!(
            "disk {address}: a write failed: the server has no room left; the guest gets an I/O \
             error (said once)"
        )
    );
    let second = running.write(0, &[1; 512]);
    assert_eq!((second.status, second.trouble), (1, None));
    assert_eq!(running.read(0, 512), vec![0; 512]);
    running.disk.rest().unwrap();
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let file = image(folder.path());
    let path = file.to_str().unwrap();
    // Requests that are under way when the server dies.
    let served = serve(
        folder.path(),
        "nbdkit",
        &["--filter=delay", "file", path, "wdelay=60"],
    );
    let address = at_socket(&served.socket);
    let running = Running::start(NbdTarget::open(spec(&address)).unwrap());
    assert_eq!(running.read(0, 512), vec![0; 512]);
    for n in 0..8u64 {
        let op = DiskOp::Write { durable: true };
        running.submit(op, n * 4096, 4096, &[n as u8 + 1; 4096]);
    }
    drop(served);
    let level =
        running.hears("the connection is lost (the server closed it): the guest's requests wait");
    assert_eq!(level, NoteLevel::Warn);
    running.submit(DiskOp::Read, 8 * 4096, 512, &[]);
    assert!(running.done.try_recv().is_err());

    // It comes back as another export.
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(MIB)
        .unwrap();
    let served = serve(folder.path(), "nbdkit", &["file", path]);
    running.hears(
        "the export has 1048576 bytes, and had 16777216 when the VM was started: export the same \
         one again; the guest's requests wait",
    );
    drop(served);
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(16 * MIB)
        .unwrap();
    let served = serve(folder.path(), "nbdkit", &["-r", "file", path]);
    running.hears("the export is read-only");
    drop(served);

    let served = serve(folder.path(), "nbdkit", &["file", path]);
    let mut ids: Vec<u64> = (0..9)
        .map(|_| {
            let done = running.done();
            assert_eq!((done.status, done.trouble), (0, None));
            done.id
        })
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..10).collect::<Vec<u64>>());
    assert_eq!(
        running.hears(": the server is there again"),
        NoteLevel::Info
    );
    for n in 0..8u64 {
        assert_eq!(running.read(n * 4096, 4096), vec![n as u8 + 1; 4096]);
    }
    let mut running = running;
    running.disk.rest().unwrap();
    drop(served);
}

/// A house with one export and no claims.
struct Plain;

fn export() -> Export {
    Export {
        bytes: MIB,
        flags: ExportFlags(ExportFlags::HAS_FLAGS),
        block_bytes: 1,
        payload_bytes: 1 << 20,
    }
}

impl House for Plain {
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
    fn look(&self, _: &str) -> Result<Export, No> {
        Ok(export())
    }
    fn claim(&mut self, _: &str, _: &Claim) -> Result<(), No> {
        Ok(())
    }
    fn read_beside(&mut self, _: &str, _: &Reader) -> Result<(), No> {
        Ok(())
    }
    fn enter(&mut self, name: &str) -> Result<Export, No> {
        self.look(name)
    }
}

/// The connection is given up and made again, and in the end the guest has its answer.
#[test]
fn servers_that_answer_nonsense() {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let good = |cookie| Reply { error: 0, cookie }.encode().to_vec();
    type Answer = Box<dyn Fn(u64) -> Vec<u8> + Send>;
    let answers: Vec<(Answer, &str)> = vec![
        (
            Box::new(move |cookie| good(cookie + 1)),
            "the server answers what was not asked",
        ),
        (
            Box::new(|_| b"HTTP/1.1 400 Bad".to_vec()),
            "the server answers something else than NBD",
        ),
        (
            Box::new(|cookie| {
                Reply {
                    error: Reply::ESHUTDOWN,
                    cookie,
                }
                .encode()
                .to_vec()
            }),
            "the server ends",
        ),
        // Half a sector, and the end.
        (
            Box::new(move |cookie| [good(cookie), vec![0; 256]].concat()),
            "the server closed it",
        ),
        (
            Box::new(move |cookie| [good(cookie), vec![7; 512], good(cookie)].concat()),
            "the server answers what was not asked",
        ),
    ];
    let expected: Vec<&str> = answers.iter().map(|(_, why)| *why).collect();
    let serving = thread::spawn(move || {
        for (answer, _) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let no_zeroes = server::greet(&mut stream).unwrap();
            let agreed = server::haggle(&mut stream, &mut Plain, Tls::No, no_zeroes).unwrap();
            assert_eq!(agreed, Agreed::Requests(export()));
            let mut head = [0; Request::BYTES];
            stream.read_exact(&mut head).unwrap();
            let request = Request::decode(&head).unwrap();
            assert_eq!((request.command, request.bytes), (Command::Read, 512));
            stream.write_all(&answer(request.cookie)).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read(&mut head);
        }
    });
    let target = NbdTarget::open(spec(&at_socket(&socket))).unwrap();
    let running = Running::start(target);
    running.submit(DiskOp::Read, 0, 512, &[]);
    let done = running.done();
    assert_eq!(
        (done.status, done.data, done.trouble),
        (0, vec![7; 512], None)
    );
    for why in expected {
        running.hears(&format!("the connection is lost ({why})"));
    }
    serving.join().unwrap();
}
