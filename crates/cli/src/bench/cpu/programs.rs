//! The programs, each a function of the guest's shell.

/// A program that the guests run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// On the command line and in the table.
    pub(crate) name: &'static str,
    /// What it is told to do.
    pub(crate) work: Work,
    /// Body of its function in Debian's shell; `$1` is the amount of work. It prints the same
    /// wherever it runs.
    pub(crate) debian: &'static str,
    /// The same with busybox alone.
    pub(crate) busybox: Option<&'static str>,
}

/// How much work a program gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// As many times, rows, rounds …; and before the first run that counts.
    Count { full: u32, warm: u32 },
    /// A file of [`DATA_BYTES`].
    Data,
}

/// The file of [`Work::Data`].
pub(crate) const DATA: &str = "/dev/shm/data";
/// Its size, before scaling: text that compresses well.
pub(crate) const DATA_BYTES: f64 = 20.0 * 1024.0 * 1024.0;
/// A small file in its place, so that program, libraries and caches are warm.
pub(crate) const WARM: &str = "/dev/shm/warm";

impl Work {
    /// The argument for a run that counts; at least one of whatever is counted.
    pub(crate) fn argument(self, scale: f64) -> String {
        match self {
            Self::Count { full, .. } => ((f64::from(full) * scale).round() as u32)
                .max(1)
                .to_string(),
            Self::Data => DATA.to_owned(),
        }
    }

    /// The argument for the run before.
    pub(crate) fn warm_up(self) -> String {
        match self {
            Self::Count { warm, .. } => warm.to_string(),
            Self::Data => WARM.to_owned(),
        }
    }
}

const fn count(full: u32, warm: u32) -> Work {
    Work::Count { full, warm }
}

/// A shell that counts: a tree walked, variables set, tests made.
const ASH: &str = "busybox ash -c 'i=0; while [ $i -lt $0 ]; do i=$((i + 1)); done; echo $i' $1";

/// In the order of the table.
pub(crate) const PROGRAMS: [Program; 11] = [
    Program {
        name: "ash",
        work: count(200_000, 100),
        debian: ASH,
        busybox: Some(ASH),
    },
    Program {
        name: "coremark-like",
        work: count(20_000, 10),
        debian: "bench-int $1",
        busybox: None,
    },
    Program {
        name: "nbody",
        work: count(1_000_000, 100),
        debian: "bench-nbody $1",
        busybox: None,
    },
    Program {
        name: "matmul",
        work: count(8, 1),
        debian: "bench-matmul 400 $1",
        busybox: None,
    },
    Program {
        name: "sha256",
        work: Work::Data,
        debian: "openssl dgst -sha256 $1 $1 $1 $1",
        busybox: Some("busybox sha256sum $1"),
    },
    Program {
        name: "aes-128-ctr",
        work: Work::Data,
        debian: "for i in 1 2; do openssl enc -aes-128-ctr -K 000102030405060708090a0b0c0d0e0f \
                 -iv 00000000000000000000000000000000 -in $1 -out /dev/shm/o || return; done; \
                 busybox tail -c 32 /dev/shm/o | busybox od -x",
        busybox: None,
    },
    Program {
        name: "sysbench-cpu",
        work: count(2_000, 1),
        debian: "sysbench cpu --cpu-max-prime=10000 --events=$1 --time=0 run \
                 >/dev/shm/o && busybox grep 'total number of events' /dev/shm/o",
        busybox: None,
    },
    Program {
        name: "sqlite",
        work: count(100_000, 10),
        debian: "sqlite3 :memory: \"
create table t(id integer primary key, k integer, s text);
with recursive n(i) as (values(1) union all select i + 1 from n where i < $1)
insert into t select i, (i * 7919) % 100003, 'row ' || i from n;
create index tk on t(k);
select count(*), sum(k), max(s) from t;
select k % 10, count(*), avg(id) from t group by 1;
select sum(a.id * b.k) from t a join t b on b.k = a.id;\"",
        busybox: None,
    },
    Program {
        name: "python3",
        work: count(10, 1),
        debian: PYTHON,
        busybox: None,
    },
    Program {
        name: "gzip",
        work: Work::Data,
        debian: "gzip -n -6 -c $1 >/dev/shm/o && busybox tail -c 8 /dev/shm/o | busybox od -x && \
                 busybox wc -c </dev/shm/o",
        busybox: Some(
            "busybox gzip -c <$1 >/dev/shm/o && busybox tail -c 8 /dev/shm/o | busybox od -x && \
             busybox wc -c </dev/shm/o",
        ),
    },
    Program {
        name: "gcc",
        work: count(2, 1),
        debian: "i=0; while [ $i -lt $1 ]; do i=$((i + 1)); gcc -O2 -c -o /dev/shm/o \
                 /usr/local/src/twinvm/bench-int.c || return; done; busybox sha256sum </dev/shm/o",
        busybox: None,
    },
];

/// Calls, objects, dictionaries, strings, JSON, sorting, a regular expression, floating point,
/// large integers.
const PYTHON: &str = "python3 -c '
import hashlib, json, re, sys
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y
    def step(self, d):
        self.x += d
        self.y -= d * 2
        return self.x * self.y
for turn in range(int(sys.argv[1])):
    words = [format(i * 7919 % 100003, \"x\") for i in range(turn, turn + 3000)]
    count = {}
    for word in words:
        for letter in word:
            count[letter] = count.get(letter, 0) + 1
    points = [Point(i, i + 1) for i in range(1000)]
    walked = sum(point.step(d) for d in range(8) for point in points)
    text = json.dumps({word: [i, word] for i, word in enumerate(words)})
    back = json.loads(text)
    found = len(re.findall(r\"[a-f]+[0-9]\", text))
    words.sort(key=lambda word: (len(word), word[::-1]))
    total = 0.0
    for i in range(1, 20000):
        total += 1.0 / (i * i)
    print(fib(17), walked, len(back), found, words[0], words[-1], sorted(count.items())[:3],
          repr(total), 3 ** 2000 % 1000007, hashlib.md5(text.encode()).hexdigest())
' $1";

#[cfg(test)]
mod tests;
