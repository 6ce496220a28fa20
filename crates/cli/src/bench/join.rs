//! What a copy of the disks costs when a node joins: bytes, and the guest's speed meanwhile.

use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::Duration;

use super::Bench;
use super::debians::{ALONE, Debians, Shell};
use super::report::{Bar, Row, Section};
use crate::demo::error::DemoError;

const TITLE: &str = "A node joins, the guest computing and writing to its disk";
/// Windows before and after, and beside a neighbour.
const BESIDE: Duration = Duration::from_secs(10);
/// How long the backup is away before it joins again.
const AWAY: Duration = Duration::from_secs(60);
/// Bytes that a joining node may be sent, as a part of those in use.
const MOST_FIRST: f64 = 1.0;
/// The same as a part of those that were written meanwhile.
const MOST_AGAIN: f64 = 1.05;
/// How much slower the guest may be.
const MOST_SLOWED_PERCENT: f64 = 10.0;

/// Computes and writes a block somewhere, for ever, and counts that.
const LOAD: &str = "
import hashlib, mmap, os, random
rounds = os.open(\"/dev/shm/rounds\", os.O_RDWR | os.O_CREAT)
os.ftruncate(rounds, 4096)
count = mmap.mmap(rounds, 4096)
file = os.open(\"FILE\", os.O_RDWR)
bytes = os.urandom(65536)
random.seed(1)
done = 0
while True:
    for _ in range(8):
        hashlib.sha256(bytes).digest()
    at = random.randrange(BLOCKS) * 4096
    os.pwrite(file, bytes[done % 60000:][:4096], at)
    done += 1
    count[0:8] = done.to_bytes(8, \"little\")
";

/// Ends that.
const END: &str = "pkill -f [h]ashlib; true";

/// What the guest has done up to a moment of its own clock.
#[derive(Debug, Clone, Copy)]
struct Mark {
    rounds: f64,
    seconds: f64,
    /// To its disk.
    written: f64,
}

impl Mark {
    fn take(bench: &Bench, shell: &mut Shell) -> Result<Self, DemoError> {
        let said = shell.run(
            bench,
            "od -An -tu8 -N8 /dev/shm/rounds; cut -d\" \" -f1 /proc/uptime; \
             awk \"{print \\$7 * 512}\" /sys/block/vda/stat",
        )?;
        let numbers: Vec<f64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        match numbers[..] {
            [rounds, seconds, written] => Ok(Self {
                rounds,
                seconds,
                written,
            }),
            _ => Err(DemoError::failed(format!("the guest's counters: {said}"))),
        }
    }

    fn rate_since(&self, earlier: &Self) -> f64 {
        (self.rounds - earlier.rounds) / (self.seconds - earlier.seconds).max(0.01)
    }
}

/// Joins the VM of `debians`, which is alone, twice: the first time with nothing, then after a while
/// away. `file` of so many bytes is there in the guest, and in its neighbour. It is protected in the
/// end.
pub(super) fn measure(
    bench: &Bench,
    debians: &mut Debians<'_>,
    (shell, neighbour): (&mut Shell, &mut Shell),
    (file, file_bytes): (&str, u64),
) -> Result<Section, DemoError> {
    let load = LOAD
        .replace("FILE", file)
        .replace("BLOCKS", &(file_bytes / 4096).to_string());
    let begin =
        format!("rm -f /dev/shm/rounds; ( exec python3 -c '{load}' >/dev/null 2>&1 & ); sleep 3");
    shell.run(bench, &begin)?;
    debians.neighbour_goes_on();
    neighbour.run(bench, &begin)?;
    let first = Mark::take(bench, shell)?;
    thread::sleep(BESIDE);
    let beside = Mark::take(bench, shell)?.rate_since(&first);
    neighbour.run(bench, END)?;
    debians.neighbour_stands_still();
    let mut rows = Vec::new();
    let mut bars = Vec::new();
    for name in ["first join", "after a minute"] {
        let mut row = Row::new(name);
        let begun = Mark::take(bench, shell)?;
        let again = debians.is_protected();
        if again {
            debians.become_(ALONE)?;
            thread::sleep(AWAY);
        }
        let before = Mark::take(bench, shell)?;
        thread::sleep(BESIDE);
        let start = Mark::take(bench, shell)?;
        let sent_before = debians.disk_bytes_sent()?;
        let join = debians.join()?;
        let end = Mark::take(bench, shell)?;
        let sent = debians.disk_bytes_sent()? - sent_before;
        thread::sleep(BESIDE);
        let after = Mark::take(bench, shell)?;

        let limit = match again {
            true => end.written - begun.written,
            false => debians.disk_bytes_used()?,
        };
        let (alone, during) = (start.rate_since(&before), end.rate_since(&start));
        let slowed = (1.0 - during / alone) * 100.0;
        row.sample("takes", "s", join.seconds);
        row.sample("stands still", "ms", join.pause_ms.unwrap_or(f64::NAN));
        row.sample(
            if again { "written meanwhile" } else { "in use" },
            "MiB",
            limit / f64::from(1 << 20),
        );
        row.sample("sent", "MiB", sent / f64::from(1 << 20));
        row.sample("alone", "rounds/s", alone);
        row.sample("meanwhile", "rounds/s", during);
        row.sample("protected", "rounds/s", after.rate_since(&end));
        row.sample("slowed by", "%", slowed);
        row.sample("beside a neighbour", "rounds/s", beside);
        bars.push(Bar {
            what: format!("{name}: bytes sent"),
            value: sent / limit,
            most: if again { MOST_AGAIN } else { MOST_FIRST },
            unit: String::new(),
        });
        bars.push(Bar {
            what: format!("{name}: guest slowed by"),
            value: slowed,
            most: MOST_SLOWED_PERCENT,
            unit: "%".to_owned(),
        });
        rows.push(row);
    }
    shell.run(bench, END)?;
    Ok(Section {
        name: "join".to_owned(),
        title: TITLE.to_owned(),
        rows,
        bars,
        notes: vec![format!(
            "A round: 512 KiB hashed with SHA-256 by Python, and 4 KiB of noise written somewhere \
             in a file of {} MiB. Meanwhile: from the joining node's start to protection, which \
             takes the memory and the log with it, too. Beside a neighbour: nobody joins, and \
             another VM, which nobody protects, does the same. Sent: all messages for the disks \
             from the live node to the joining one, compressed; memory and log are not in it. In \
             use: what the live node's file takes of its host's disk. Written: sectors that the \
             guest's disk has counted, from the backup's end to protection. Both nodes and their \
             arbiter share the host's cores and its disk; the other guests stand still.",
            file_bytes >> 20
        )],
        compared: Vec::new(),
    })
}

/// Bytes that a file takes of its disk.
pub(super) fn bytes_used(path: &std::path::Path) -> Result<f64, DemoError> {
    let about = std::fs::metadata(path).map_err(DemoError::io(path))?;
    // In units of 512 bytes whatever the file system's are (stat(2)).
    Ok(about.blocks() as f64 * 512.0)
}
