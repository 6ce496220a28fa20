//! Power is cut while a database in the guest works, on both hosts at once, at any moment: what it
//! had acknowledged is on the disk, and the guest's file system can be used.
//!
//! The nodes are the product itself; strace takes down what they do to their disks' files. Out of
//! that come the contents that a medium could have after a power failure ([`trace`]): every write
//! since the last flush kept, dropped or torn, by chance. Each is checked by e2fsck, and by what
//! clients were told up to that moment; the last one starts the pair again.
//!
//! The small guest has Redis, which writes each command to a file on ext4 and makes it durable
//! before it answers. With `TWINVM_POWER_GUEST=debian`, as in `make durability`, it is PostgreSQL on a
//! whole Debian: that takes minutes, and the image of `make image-debian`.

mod debian;
mod trace;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::cluster::{A, B, Cluster, NAMES, wait_for};
use crate::disks::add_files;
use trace::{Dice, Trace};

/// The login shell's work: Redis again, its data on the disk.
const WORK: &str = "
[ -e /tmp/once ] && return
touch /tmp/once
for module in crc16 crc32c_generic mbcache jbd2 ext4; do insmod $HOME/$module.ko; done
mkdir -p /data
mount -t ext4 /dev/vda /data
redis-cli SHUTDOWN NOSAVE
redis-server --bind 0.0.0.0 --protected-mode no --save '' --hz 2 --dir /data --appendonly yes \\
    --appendfsync always --daemonize yes </dev/null >/dev/null 2>&1
";
/// Modules in that order, in the kernel's package.
const MODULES: [&str; 5] = ["crc16", "crc32c_generic", "mbcache", "jbd2", "ext4"];
const DISK_BYTES: u64 = 64 << 20;
/// Clients, each counting with a key of its own.
const CLIENTS: usize = 3;
/// How long they count, and how far at least.
const LOAD: Duration = Duration::from_secs(6);
const ANSWERS: usize = 100;
/// Moments at which power is cut, for each disk.
const CUTS: u64 = 40;
/// A client without an answer for this long has lost its server.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where Redis writes commands (redis.conf: `appenddirname`, `appendfilename`).
const COMMANDS: &str = "/appendonlydir/appendonly.aof.1.incr.aof";

/// Now, in microseconds since 1970, as strace has it.
fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_micros() as u64
}

/// Who was told which number, and when.
type Told = Arc<Mutex<Vec<(u64, usize, u64)>>>;

/// Clients at work. They end with their connections or when they are told to.
struct Clients {
    told: Told,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Each calls `next` with how often it has before, until it gives nothing: `next` returns
    /// once the server has acknowledged.
    fn start<N: FnMut(u64) -> Option<u64> + Send + 'static>(
        count: usize,
        mut connect: impl FnMut(usize) -> N,
    ) -> Self {
        let told = Told::default();
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|client| {
            let mut next = connect(client);
            let (told, stop) = (Arc::clone(&told), Arc::clone(&stop));
            thread::spawn(move || {
                for before in 0.. {
                    let Some(number) = next(before) else { return };
                    told.lock().unwrap().push((now_us(), client, number));
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        });
        Self {
            threads: threads.collect(),
            told,
            stop,
        }
    }

    /// Lets them work for a while, on a busy host for longer.
    #[track_caller]
    fn work(&self, time: Duration) {
        thread::sleep(time);
        wait_for("more answers", || {
            (self.told.lock().unwrap().len() > ANSWERS).then_some(())
        });
    }

    fn end(self) -> Vec<(u64, usize, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let told = self.told.lock().unwrap();
        told.clone()
    }
}

/// The last number of each client up to a moment.
fn told_by(told: &[(u64, usize, u64)], cut: u64) -> BTreeMap<usize, u64> {
    let until = told.iter().filter(|(at, ..)| *at <= cut);
    let mut last = BTreeMap::new();
    for (_, client, number) in until {
        let last = last.entry(*client).or_default();
        *last = (*number).max(*last);
    }
    last
}

/// The kernel's modules for ext4, out of the package that the image was made of.
fn modules() -> &'static [(String, Vec<u8>)] {
    static MODULES_READ: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    MODULES_READ.get_or_init(|| {
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/redis");
        let debs = image.join(".cache/debs");
        let package = fs::read_dir(&debs).unwrap().find_map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name()?.to_str()?;
            name.starts_with("linux-image-").then_some(path)
        });
        let package = package.expect("the kernel's package beside the image: make image");
        let folder = tempfile::tempdir().unwrap();
        let wanted: Vec<String> = MODULES.iter().map(|it| format!("'*/{it}.ko*'")).collect();
        let unpack = format!(
            "set -e; dpkg-deb --fsys-tarfile '{}' | tar -xf - --wildcards {}; \
             find . -name '*.ko.xz' -exec xz -d {{}} +; find . -name '*.ko' -exec mv {{}} . \\;",
            package.display(),
            wanted.join(" ")
        );
        run(Command::new("sh")
            .args(["-c", &unpack])
            .current_dir(folder.path()));
        let read = |name: &&str| {
            let file = format!("{name}.ko");
            let module = fs::read(folder.path().join(&file)).unwrap();
            (format!("root/{file}"), module)
        };
        MODULES.iter().map(read).collect()
    })
}

/// Runs a program to its good end; what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {done:?}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Programs that aren't in every user's PATH.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// Has the journal replayed, then everything checked.
fn check_file_system(image: &Path) -> Result<(), String> {
    // 1: something was mended, as orphans are (e2fsck(8)).
    for (options, good) in [("-p", &[0, 1][..]), ("-fn", &[0])] {
        let done = tool("e2fsck").arg(options).arg(image).output().unwrap();
        if !done.status.code().is_some_and(|code| good.contains(&code)) {
            return Err(format!("e2fsck {options}: {done:?}"));
        }
    }
    Ok(())
}

/// How often Redis has counted with each key, as its file says.
fn counted(image: &Path) -> BTreeMap<usize, u64> {
    let copy = image.with_extension("aof");
    let _ = fs::remove_file(&copy);
    let ask = format!("dump {COMMANDS} {}", copy.display());
    run(tool("debugfs").args(["-R", &ask]).arg(image));
    let mut counts = BTreeMap::new();
    let Ok(file) = File::open(&copy) else {
        return counts;
    };
    let mut lines = BufReader::new(file)
        .split(b'\n')
        .map_while(Result::ok)
        .skip_while(|line| line != b"INCR\r");
    // The name of a key stands two lines behind the command; the last one may not be whole.
    while let (Some(command), Some(length), Some(key)) = (lines.next(), lines.next(), lines.next())
    {
        let key = String::from_utf8(key).ok();
        let client = key.and_then(|key| key.strip_prefix("key")?.strip_suffix('\r')?.parse().ok());
        let (b"INCR\r", b"$4\r", Some(client)) = (&command[..], &length[..], client) else {
            break;
        };
        *counts.entry(client).or_default() += 1;
        // *2, $4
        lines.by_ref().take(2).for_each(drop);
    }
    counts
}

/// Everything that clients were told must be there.
fn compare(told: &BTreeMap<usize, u64>, found: &BTreeMap<usize, u64>) -> Result<(), String> {
    match told
        .iter()
        .all(|(client, number)| found.get(client) >= Some(number))
    {
        true => Ok(()),
        false => Err(format!("acknowledged {told:?}, found {found:?}")),
    }
}

/// A guest at work, and what is taken down.
struct Scene {
    vm: Cluster,
    /// Each disk as it was at the beginning.
    before: PathBuf,
}

impl Scene {
    fn new(flush: &'static str) -> Self {
        let mut vm = Cluster::redis();
        let mut files = vec![("root/.profile", WORK.as_bytes())];
        let modules = modules();
        files.extend(modules.iter().map(|(name, data)| (&name[..], &data[..])));
        add_files(&mut vm, &files);
        vm.file.protect = format!("flush = {flush:?}\n");
        vm.file.more = "[[disk]]\npath = \"{name}.img\"\nsize = \"64M\"\n".to_owned();
        vm.write();
        let before = vm.path("before.img");
        File::create(&before).unwrap().set_len(DISK_BYTES).unwrap();
        run(tool("mke2fs").args(["-q", "-t", "ext4"]).arg(&before));
        let scene = Self { vm, before };
        scene.copy(&scene.image(A));
        scene
    }

    fn image(&self, node: usize) -> PathBuf {
        self.vm.path(&format!("{}.img", NAMES[node]))
    }

    fn trace(&self, node: usize) -> PathBuf {
        self.vm.path(&format!("{}.trace", NAMES[node]))
    }

    fn copy(&self, to: &Path) {
        run(Command::new("cp")
            .args(["--sparse=always"])
            .args([&self.before, to]));
    }

    fn start_traced(&mut self, node: usize) {
        let (disk, trace) = (self.image(node), self.trace(node));
        let way = trace::way(disk.to_str().unwrap(), trace.to_str().unwrap());
        self.vm.start_by(&way, node, &trace::OPEN, &[]);
    }

    /// Waits for the Redis whose data is on the disk.
    #[track_caller]
    fn await_redis(&self) -> SocketAddr {
        let redis = self.vm.redis.unwrap();
        wait_for("Redis on the disk", || {
            let dir = ask(&mut connect(redis)?, &["CONFIG", "GET", "dir"], 5)?;
            (dir.last()? == "/data").then_some(())
        });
        redis
    }

    /// Kills all nodes that run, at once.
    fn cut_power(&mut self, nodes: &[usize]) -> Vec<Trace> {
        let pids: Vec<u32> = nodes.iter().map(|&node| self.vm.pid(node)).collect();
        for &node in nodes {
            self.vm.signal(node, rustix::process::Signal::KILL);
        }
        let read = |(&node, pid): (&usize, u32)| {
            self.vm.kill(node);
            Trace::read(&self.trace(node), pid)
        };
        nodes.iter().zip(pids).map(read).collect()
    }

    /// Looks at what a disk may be after a power failure at `cut`.
    fn judge(
        &self,
        trace: &Trace,
        cut: u64,
        seed: u64,
        told: &[(u64, usize, u64)],
    ) -> Result<usize, String> {
        let image = self.vm.path("after.img");
        self.copy(&image);
        let file = File::options().write(true).open(&image).unwrap();
        let open = trace.cut(&file, cut, &mut Dice(seed));
        check_file_system(&image)
            .and_then(|()| compare(&told_by(told, cut), &counted(&image)))
            .map_err(|error| format!("seed {seed}, {open} writes not durable: {error}"))?;
        Ok(open)
    }
}

fn connect(redis: SocketAddr) -> Option<BufReader<TcpStream>> {
    let stream = TcpStream::connect(redis).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    Some(BufReader::new(stream))
}

/// Sends a command and reads so many lines.
fn ask(stream: &mut BufReader<TcpStream>, command: &[&str], lines: usize) -> Option<Vec<String>> {
    let words = command
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    let text = format!("*{}\r\n{}", command.len(), words.collect::<String>());
    stream.get_mut().write_all(text.as_bytes()).ok()?;
    let line = |_| {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        line.strip_suffix("\r\n").map(str::to_owned)
    };
    (0..lines).map(line).collect()
}

/// Counts on one key for ever.
fn counter(redis: SocketAddr, client: usize) -> impl FnMut(u64) -> Option<u64> {
    let mut stream = connect(redis);
    let key = format!("key{client}");
    move |_| {
        let reply = ask(stream.as_mut()?, &["INCR", &key], 1)?;
        reply[0].strip_prefix(':')?.parse().ok()
    }
}

#[test]
fn what_was_acknowledged_outlives_a_power_failure_of_both_hosts() {
    match std::env::var("TWINVM_POWER_GUEST").as_deref() {
        Err(_) | Ok("redis") => play(),
        Ok("debian") => debian::play(),
        Ok(other) => panic!("TWINVM_POWER_GUEST={other}: redis or debian"),
    }
}

/// What Redis has acknowledged outlives a power failure of both hosts.
fn play() {
    let mut scene = Scene::new("both");
    scene.start_traced(A);
    let redis = scene.await_redis();
    scene.start_traced(B);
    scene.vm.await_protected(A);
    let generation = scene.vm.generation();
    let from = now_us();
    let clients = Clients::start(CLIENTS, |client| counter(redis, client));
    clients.work(LOAD);
    let status = scene.vm.status(A).unwrap();
    let traces = scene.cut_power(&[A, B]);
    let to = now_us();
    let told = clients.end();
    // The backup's disk was judged by its own flushes all the while.
    assert_eq!(
        (&status["protected"], status["generation"].as_u64()),
        (&true.into(), Some(generation))
    );

    let mut dice = Dice(to | 1);
    let mut open = 0;
    for (node, trace) in traces.iter().enumerate() {
        let (writes, flushes) = trace.counts();
        // One flush may be for all clients.
        let least = ANSWERS / CLIENTS / 2;
        assert!(flushes > least && writes > least, "{writes}, {flushes}");
        for round in 0..CUTS {
            let cut = match round {
                0 => to,
                _ => trace.moment(from, to, &mut dice),
            };
            let judged = scene.judge(trace, cut, dice.roll(u64::MAX) | 1, &told);
            open += judged.unwrap_or_else(|why| panic!("node {}: {why}", NAMES[node]));
        }
    }
    // There was something to lose.
    println!(
        "{} answers, {open} writes that were not durable",
        told.len()
    );
    assert!(open > CUTS as usize, "{open}");

    // Both hosts get their power back.
    for (node, trace) in traces.iter().enumerate() {
        let image = scene.image(node);
        match node {
            A => scene.copy(&image),
            _ => File::options()
                .write(true)
                .open(&image)
                .unwrap()
                .set_len(0)
                .unwrap(),
        }
        let file = File::options().write(true).open(&image).unwrap();
        file.set_len(DISK_BYTES).unwrap();
        trace.cut(&file, to, &mut dice);
    }
    for node in [A, B] {
        scene.vm.start(node);
    }
    scene.await_redis();
    scene.vm.await_protected(A);
    let mut found = BTreeMap::new();
    for client in 0..CLIENTS {
        let mut stream = connect(redis).unwrap();
        let lines = ask(&mut stream, &["GET", &format!("key{client}")], 2).unwrap();
        found.insert(client, lines[1].parse().unwrap());
    }
    compare(&told_by(&told, to), &found).unwrap();
}

/// The same test finds a flush that does nothing.
#[test]
fn a_flush_that_makes_nothing_durable_is_found() {
    let mut scene = Scene::new("never");
    scene.start_traced(A);
    let redis = scene.await_redis();
    let from = now_us();
    let clients = Clients::start(CLIENTS, |client| counter(redis, client));
    clients.work(LOAD / 3);
    let traces = scene.cut_power(&[A]);
    let to = now_us();
    let told = clients.end();
    let mut dice = Dice(to | 1);
    let mut lost = 0;
    for _ in 0..CUTS / 4 {
        let cut = traces[0].moment(from + (to - from) / 2, to, &mut dice);
        let judged = scene.judge(&traces[0], cut, dice.roll(u64::MAX) | 1, &told);
        lost += u64::from(judged.is_err());
    }
    // By chance a medium may have kept it all.
    assert!(lost > CUTS / 20, "{lost} of {}", CUTS / 4);
}
