//! What a node's process does to its disk's file, taken down at the system calls, and what a
//! power failure may have made of the file at any moment.
//!
//! The medium below the file keeps what was written before an `fdatasync` that has returned. Each
//! 512-byte sector of what was written since holds any of the contents that it has had since.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use crate::cluster::wait_within;

const SECTOR: usize = 512;
/// All calls that can change a file or make it durable.
const CALLS: &str = "trace=write,pwrite64,writev,pwritev,pwritev2,fallocate,ftruncate,truncate,\
                     copy_file_range,sendfile,splice,mmap,fdatasync,fsync,sync_file_range";
/// Bytes of a write that are taken down: more than a request of the guest can have.
const STRING_BYTES: &str = "67108864";
/// How long the last lines may take once the process has ended.
const LIMIT: Duration = Duration::from_secs(60);

/// The program that becomes a node and takes down what is done to `disk`: the process that was
/// started is the node itself, strace its grandchild.
pub(crate) fn way<'a>(disk: &'a str, trace: &'a str) -> Vec<&'a str> {
    let mut words = vec!["strace", "-D", "-f", "--seccomp-bpf", "-q", "-ttt", "-T"];
    words.extend([
        "-xx",
        "-s",
        STRING_BYTES,
        "-e",
        CALLS,
        "-e",
        "signal=SIGKILL",
    ]);
    words.extend(["-P", disk, "-o", trace]);
    words
}

/// A node in its sandbox lets nobody but root look into it.
pub(crate) const OPEN: [&str; 2] = ["--sandbox", "off"];

/// Chance from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// A call: when it began and when it had returned, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Span {
    begin: u64,
    /// None if the process was killed in it.
    end: Option<u64>,
}

#[derive(Debug)]
struct Write {
    span: Span,
    offset: u64,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Bytes(Vec<u8>),
    Zeros(u64),
}

/// All that was done to one file, in the order in which it began.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    writes: Vec<Write>,
    flushes: Vec<Span>,
}

impl Trace {
    /// Reads what strace has written of a process that was killed.
    #[track_caller]
    pub(crate) fn read(path: &Path, pid: u32) -> Self {
        let last = format!("{pid} ");
        wait_within(LIMIT, "the end of the trace", || {
            let bytes = fs::metadata(path).ok()?.len();
            let mut end = vec![0; bytes.min(64 << 10) as usize];
            let file = File::open(path).ok()?;
            let from = bytes - end.len() as u64;
            file.read_exact_at(&mut end, from).ok()?;
            let text = String::from_utf8_lossy(&end).into_owned();
            text.lines()
                .any(|line| line.starts_with(&last) && line.ends_with("+++ killed by SIGKILL +++"))
                .then_some(())
        });
        let mut trace = Self::default();
        let mut open: Vec<(String, Call)> = Vec::new();
        for line in BufReader::new(File::open(path).unwrap()).lines() {
            let line = line.unwrap();
            trace.line(&line, &mut open);
        }
        // What never returned.
        for (_, call) in open {
            trace.add(call);
        }
        trace.writes.sort_by_key(|write| write.span.begin);
        trace.flushes.sort_by_key(|flush| flush.begin);
        trace
    }

    fn line(&mut self, line: &str, open: &mut Vec<(String, Call)>) {
        let bad = || -> ! { panic!("strace: {}", line.get(..200).unwrap_or(line)) };
        // The number of the thread is padded.
        let Some((pid, rest)) = line.split_once(' ') else {
            bad()
        };
        let Some((at, rest)) = rest.trim_start().split_once(' ') else {
            bad()
        };
        if rest.starts_with("+++") || rest.starts_with("---") {
            return;
        }
        let begin = micros(at).unwrap_or_else(|| bad());
        if rest.starts_with("<... ") {
            let at = open.iter().position(|(other, _)| other == pid);
            let (_, mut call) = open.swap_remove(at.unwrap_or_else(|| bad()));
            if call.returned(rest) {
                self.add(call);
            }
            return;
        }
        let mut call = Call::parse(rest, begin).unwrap_or_else(|| bad());
        if rest.ends_with("<unfinished ...>") {
            open.push((pid.to_owned(), call));
        } else if call.returned(rest) {
            self.add(call);
        }
    }

    fn add(&mut self, Call { span, what }: Call) {
        match what {
            What::Flush => self.flushes.push(span),
            What::Write(offset, data) => self.writes.push(Write { span, offset, data }),
        }
    }

    /// Calls of both kinds.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.writes.len(), self.flushes.len())
    }

    /// A moment from `from` to `to`: any, or more often one at which some write has begun and isn't
    /// durable yet.
    pub(crate) fn moment(&self, from: u64, to: u64, dice: &mut Dice) -> u64 {
        let within = |write: &&Write| (from..to).contains(&write.span.begin);
        let begun: Vec<&Write> = self.writes.iter().filter(within).collect();
        if dice.roll(4) == 0 || begun.is_empty() {
            return from + dice.roll(to - from);
        }
        let Span { begin, end } = begun[dice.roll(begun.len() as u64) as usize].span;
        let flushes = self.flushes.iter().filter(|flush| Some(flush.begin) >= end);
        let durable = flushes.filter_map(|flush| flush.end).min().unwrap_or(to);
        begin + dice.roll(durable.min(to).saturating_sub(begin).max(1))
    }

    /// Makes of the file, as it was when the trace began, what it may be after a power failure at
    /// `cut`. How many writes the medium hadn't made durable.
    pub(crate) fn cut(&self, file: &File, cut: u64, dice: &mut Dice) -> usize {
        let returned = |flush: &&Span| flush.end.is_some_and(|end| end <= cut);
        let flushed = self.flushes.iter().filter(returned);
        let flushed = flushed.map(|flush| flush.begin).max().unwrap_or(0);
        // Sometimes all of it is lost, or nothing.
        let way = dice.roll(8);
        let mut unsettled = 0;
        for write in self.writes.iter().filter(|write| write.span.begin <= cut) {
            if write.span.end.is_some_and(|end| end <= flushed) {
                write.put(file, |_| true);
                continue;
            }
            unsettled += 1;
            match (way, dice.roll(3)) {
                (0, _) | (2.., 0) => {}
                (1, _) | (2.., 1) => write.put(file, |_| true),
                (2.., _) => write.put(file, |_| dice.roll(2) == 0),
            }
        }
        unsettled
    }
}

impl Write {
    /// Writes those sectors that `keep` names.
    fn put(&self, file: &File, mut keep: impl FnMut(usize) -> bool) {
        let zeros;
        let data = match &self.data {
            Data::Bytes(data) => data,
            Data::Zeros(bytes) => {
                zeros = vec![0; *bytes as usize];
                &zeros
            }
        };
        let mut from = 0;
        let sectors = data.len().div_ceil(SECTOR);
        for sector in 0..=sectors {
            if sector < sectors && keep(sector) {
                continue;
            }
            let end = (sector * SECTOR).min(data.len());
            file.write_all_at(&data[from..end], self.offset + from as u64)
                .unwrap();
            from = ((sector + 1) * SECTOR).min(data.len());
        }
    }
}

struct Call {
    span: Span,
    what: What,
}

enum What {
    Write(u64, Data),
    Flush,
}

impl Call {
    /// `name(arguments) = …`
    fn parse(text: &str, begin: u64) -> Option<Self> {
        let (name, rest) = text.split_once('(')?;
        let what = match name {
            "fdatasync" | "fsync" => What::Flush,
            "pwrite64" => {
                let (_, rest) = rest.split_once('"')?;
                let (data, rest) = rest.split_once('"')?;
                let mut numbers = rest.strip_prefix(", ")?.split(", ");
                let bytes: usize = numbers.next()?.parse().ok()?;
                let data = unhex(data)?;
                if data.len() != bytes {
                    return None;
                }
                What::Write(first_number(numbers.next()?)?, Data::Bytes(data))
            }
            "fallocate" => {
                let mut words = rest.split(", ");
                let how = words.nth(1)?;
                // Both clear the range.
                if !how.contains("FALLOC_FL_PUNCH_HOLE") && !how.contains("FALLOC_FL_ZERO_RANGE") {
                    return None;
                }
                let offset = words.next()?.parse().ok()?;
                What::Write(offset, Data::Zeros(first_number(words.next()?)?))
            }
            _ => return None,
        };
        let span = Span { begin, end: None };
        Some(Self { span, what })
    }

    /// Takes what stands behind the last `=`: false if the call has failed.
    #[track_caller]
    fn returned(&mut self, text: &str) -> bool {
        let (_, result) = text.rsplit_once(" = ").unwrap();
        if result.starts_with('?') {
            return true;
        }
        if result.starts_with('-') {
            return false;
        }
        let took = result.rsplit_once('<').and_then(|(_, took)| {
            let took = took.trim_end().strip_suffix('>')?;
            micros(took)
        });
        if let What::Write(_, Data::Bytes(data)) = &self.what {
            let written = first_number(result);
            assert_eq!(written, Some(data.len() as u64), "a short write: {result}");
        }
        self.span.end = Some(self.span.begin + took.unwrap());
        true
    }
}

/// `1795313061.079212`
fn micros(text: &str) -> Option<u64> {
    let (seconds, rest) = text.split_once('.')?;
    let seconds: u64 = seconds.parse().ok()?;
    Some(seconds * 1_000_000 + rest.parse::<u64>().ok()?)
}

fn first_number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit());
    text[..end.unwrap_or(text.len())].parse().ok()
}

/// `\x00\x01`
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = text.as_bytes().chunks(4).map(|four| match four {
        [b'\\', b'x', high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
        _ => None,
    });
    bytes.collect()
}

#[test]
fn what_was_flushed_is_there_and_the_rest_may_be() {
    let text = "\
7 100.000010 pwrite64(5, \"\\x61\\x61\", 2, 0) = 2 <0.000005>
8 100.000011 fdatasync(5 <unfinished ...>
7 100.000020 pwrite64(5, \"\\x62\\x62\", 2, 2) = 2 <0.000002>
8 100.000030 <... fdatasync resumed>) = 0 <0.000019>
8 100.000040 fdatasync(5) = 0 <0.000010>
7 100.000060 fallocate(5, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 0, 1) = 0 <0.000001>
7 100.000070 fdatasync(5) = ? <unavailable>
7 100.000080 +++ killed by SIGKILL +++
";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    fs::write(&path, text).unwrap();
    let trace = Trace::read(&path, 7);
    assert_eq!(trace.counts(), (3, 3));
    let may_be = |cut: u64| {
        let mut found = std::collections::BTreeSet::new();
        for seed in 1..200 {
            fs::write(folder.path().join("disk"), "....").unwrap();
            let file = File::options()
                .write(true)
                .open(folder.path().join("disk"))
                .unwrap();
            trace.cut(&file, 100_000_000 + cut, &mut Dice(seed * 77));
            found.insert(fs::read_to_string(folder.path().join("disk")).unwrap());
        }
        found.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(may_be(12), ["....", "aa.."]);
    // The first write had not ended when the first flush began.
    assert_eq!(may_be(35), ["....", "..bb", "aa..", "aabb"]);
    assert_eq!(may_be(55), ["aabb"]);
    assert_eq!(may_be(90), ["\0abb", "aabb"]);
}
