//! PostgreSQL on a whole Debian: `make durability`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::trace::{self, Dice, Trace};
use super::{Clients, check_file_system, compare, now_us, run, told_by};
use crate::cluster::{A, B, Cluster, Guest, NAMES, wait_within};
use crate::pg::Pg;

const UP: &str = "twinvm: guest is up";
const PORT: u16 = 5432;
/// Services start on a busy host, and a disk of 3 GiB is compared.
const LIMIT: Duration = Duration::from_secs(400);
const CLIENTS: usize = 4;
const LOAD: Duration = Duration::from_secs(30);
/// Moments for each disk whose file system is checked.
const CUTS: u64 = 10;
/// Moments for each disk from which the guest boots again and PostgreSQL is asked.
const BOOTS: u64 = 2;

const TABLES: &str = "
CREATE TABLE power (client int, n bigint, filler text, PRIMARY KEY (client, n));
CREATE TABLE counts (client int PRIMARY KEY, n bigint);
INSERT INTO counts SELECT client, 0 FROM generate_series(0, 15) AS client;
";

fn image(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image/debian");
    let file = folder.join(name);
    file.canonicalize()
        .unwrap_or_else(|error| panic!("{}: {error}: make image-debian", file.display()))
}

/// A VM with nodes whose disks are files of their own.
fn machine(flush: &'static str) -> Cluster {
    let text = fs::read_to_string(image("VM.toml")).unwrap();
    let cmdline = text.lines().find_map(|line| {
        let value = line.strip_prefix("cmdline = \"")?;
        value.strip_suffix('"')
    });
    let guest = Guest {
        kernel: image("kernel"),
        initrd: Some(image("initrd.cpio")),
        cmdline: cmdline.unwrap().to_owned(),
        memory: "512M",
    };
    let mut vm = Cluster::of(guest, PORT);
    let bytes = fs::metadata(image("disk.img")).unwrap().len();
    vm.file.protect = format!("flush = {flush:?}\n");
    vm.file.more = format!("[[disk]]\npath = \"{{name}}.img\"\nsize = \"{bytes}\"\n");
    vm.write();
    vm
}

fn disk(vm: &Cluster, node: usize) -> PathBuf {
    vm.path(&format!("{}.img", NAMES[node]))
}

fn copy(to: &Path) {
    let from = image("disk.img");
    run(Command::new("cp")
        .args(["--sparse=always"])
        .args([&from, to]));
}

fn start_traced(vm: &mut Cluster, node: usize) {
    let (disk, trace) = (disk(vm, node), vm.path(&format!("{}.trace", NAMES[node])));
    let way = trace::way(disk.to_str().unwrap(), trace.to_str().unwrap());
    vm.start_by(&way, node, &trace::OPEN, &[]);
}

fn connect(address: SocketAddr) -> Option<Pg> {
    Pg::connect(address, "postgres", "postgres", Duration::from_secs(30)).ok()
}

fn query(pg: &mut Pg, sql: &str) -> Option<Vec<Vec<String>>> {
    let until = Instant::now() + Duration::from_secs(30);
    let rows = pg.query(sql, || Instant::now() < until).ok()?;
    rows.into_iter()
        .map(|row| row.into_iter().collect())
        .collect()
}

/// Puts in the next number and counts it, in one transaction.
fn writer(address: SocketAddr, client: usize) -> impl FnMut(u64) -> Option<u64> {
    let mut pg = connect(address);
    move |before| {
        let number = before + 1;
        let sql = format!(
            "INSERT INTO power VALUES ({client}, {number}, repeat(md5('{number}'), 8)); \
             UPDATE counts SET n = n + 1 WHERE client = {client}"
        );
        query(pg.as_mut()?, &sql).map(|_| number)
    }
}

/// What the tables say; a transaction is in both of them or in none.
fn found(address: SocketAddr) -> BTreeMap<usize, u64> {
    let rows = wait_within(LIMIT, "PostgreSQL", || {
        query(
            &mut connect(address)?,
            "SELECT c.client, c.n, count(p.n), coalesce(max(p.n), 0) FROM counts c \
             LEFT JOIN power p USING (client) GROUP BY c.client, c.n",
        )
    });
    let row = |row: Vec<String>| {
        let numbers: Vec<u64> = row.iter().map(|value| value.parse().unwrap()).collect();
        let [client, counted, rows, last] = numbers[..] else {
            panic!("{row:?}")
        };
        assert_eq!((counted, counted), (rows, last), "client {client}");
        (client as usize, counted)
    };
    rows.into_iter().map(row).collect()
}

/// Boots the guest from what a disk may be after a power failure.
fn boot(trace: &Trace, cut: u64, seed: u64) -> BTreeMap<usize, u64> {
    let mut vm = machine("live");
    let path = disk(&vm, A);
    copy(&path);
    let file = File::options().write(true).open(&path).unwrap();
    trace.cut(&file, cut, &mut Dice(seed));
    vm.start(A);
    vm.await_console(A, UP, LIMIT);
    found(vm.redis.unwrap())
}

/// What PostgreSQL has acknowledged outlives a power failure of both hosts.
pub(super) fn play() {
    let mut vm = machine("both");
    for node in [A, B] {
        // The joining node compares: all that differs is what the guest has written.
        copy(&disk(&vm, node));
    }
    start_traced(&mut vm, A);
    vm.await_console(A, UP, LIMIT);
    let address = vm.redis.unwrap();
    let mut pg = wait_within(LIMIT, "PostgreSQL", || connect(address));
    query(&mut pg, TABLES).unwrap();
    eprintln!("the guest is up");
    start_traced(&mut vm, B);
    let protected = |vm: &Cluster| {
        let status = vm.status(A)?;
        (status["role"] == "live" && status["protected"] == true)
            .then(|| status["generation"].as_u64())
    };
    let generation = wait_within(LIMIT, "a protected VM", || protected(&vm));
    let from = now_us();
    let clients = Clients::start(CLIENTS, |client| writer(address, client));
    clients.work(LOAD);
    assert_eq!(protected(&vm), Some(generation), "protection was lost");
    let pids = [vm.pid(A), vm.pid(B)];
    for node in [A, B] {
        vm.signal(node, rustix::process::Signal::KILL);
    }
    let traces = [A, B].map(|node| {
        vm.kill(node);
        Trace::read(&vm.path(&format!("{}.trace", NAMES[node])), pids[node])
    });
    let to = now_us();
    let told = clients.end();
    eprintln!(
        "{} transactions acknowledged; writes and flushes: {:?}, {:?}",
        told.len(),
        traces[A].counts(),
        traces[B].counts()
    );

    let mut dice = Dice(to | 1);
    for (node, trace) in traces.iter().enumerate() {
        let path = vm.path("after.img");
        for round in 0..CUTS {
            let (cut, seed) = (trace.moment(from, to, &mut dice), dice.roll(u64::MAX) | 1);
            copy(&path);
            let file = File::options().write(true).open(&path).unwrap();
            let open = trace.cut(&file, cut, &mut Dice(seed));
            drop(file);
            check_file_system(&path).unwrap_or_else(|why| {
                panic!("node {}, cut {cut}, seed {seed}: {why}", NAMES[node])
            });
            eprintln!(
                "node {}, {}/{CUTS}: the file system is clean, {open} writes were not durable",
                NAMES[node],
                round + 1
            );
        }
        fs::remove_file(&path).unwrap();
    }

    // Both hosts get their power back.
    for (node, trace) in traces.iter().enumerate() {
        let (path, base) = (disk(&vm, node), vm.path("base.img"));
        copy(&base);
        // The same file: it isn't another one that was put in its place.
        run(Command::new("cp")
            .args(["--sparse=always"])
            .args([&base, &path]));
        fs::remove_file(&base).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        trace.cut(&file, to, &mut dice);
    }
    for node in [A, B] {
        vm.start(node);
    }
    wait_within(LIMIT, "a protected VM", || protected(&vm));
    wait_within(LIMIT, "PostgreSQL", || connect(address));
    let now = found(address);
    compare(&told_by(&told, to), &now).unwrap();
    eprintln!("the pair started again: {now:?}");
    drop(vm);

    for (node, trace) in traces.iter().enumerate() {
        for _ in 0..BOOTS {
            let (cut, seed) = (trace.moment(from, to, &mut dice), dice.roll(u64::MAX) | 1);
            let (told, found) = (told_by(&told, cut), boot(trace, cut, seed));
            compare(&told, &found).unwrap_or_else(|why| {
                panic!("node {}, cut {cut}, seed {seed}: {why}", NAMES[node])
            });
            eprintln!(
                "node {}: acknowledged {told:?}, after the boot there are {found:?}",
                NAMES[node]
            );
        }
    }
}
