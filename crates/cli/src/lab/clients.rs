//! Clients of the guest's Redis, several at a time, each on one TCP connection, that record what
//! they ask and are answered.
//!
//! They share few keys, so that answers depend on each other, and each counts on a key of its own.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::LabError;
use super::history::{Answer, Ask, Call, Verdict, judge};
use super::patience;
use super::resp::{self, Reply};

/// Keys that all clients use.
const SHARED_KEYS: u16 = 4;
/// The first of the keys that clients have for themselves.
const OWN_KEYS: u16 = 1000;
/// How often a client that waits looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);
/// A connection is made again after this long without an answer: longer than anything that a
/// protected VM's clients may have to wait.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Calls that a client keeps (64 bytes each).
const MAX_CALLS: usize = 1 << 22;
/// Sets a key if it has the value that is expected, in one step.
const SWAP: &str = "if redis.call('GET',KEYS[1])==ARGV[1] then redis.call('SET',KEYS[1],ARGV[2]) \
                    return 1 end return 0";

/// What clients do.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    /// Where the guest's Redis answers.
    pub(crate) address: SocketAddr,
    pub(crate) clients: u16,
    /// Between an answer and the next request, at most.
    pub(crate) think: Duration,
    /// What the clients ask follows from it.
    pub(crate) seed: u64,
}

/// Clients at work, each in a thread of its own.
#[derive(Debug)]
pub(crate) struct Clients {
    origin: Instant,
    stop: Arc<AtomicBool>,
    seen: Vec<Arc<Mutex<Seen>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What one client has seen.
#[derive(Debug, Default)]
struct Seen {
    /// In the order in which they were asked.
    calls: Vec<Call>,
    /// Why connections were lost.
    lost: Vec<String>,
}

/// What all of them have seen, at the end.
#[derive(Debug)]
pub(crate) struct Seens {
    pub(crate) calls: Vec<Call>,
    /// Why connections were lost, with the client's number.
    pub(crate) lost: Vec<String>,
}

impl Seens {
    /// Whether one copy of the data explains all answers.
    pub(crate) fn verdict(&self) -> Verdict {
        judge(&self.calls)
    }

    /// Calls that were answered.
    pub(crate) fn answers(&self) -> usize {
        let answered = |call: &&Call| call.answered.is_some();
        self.calls.iter().filter(answered).count()
    }
}

impl Clients {
    /// Connects all and begins. The first is connected before this returns.
    pub(crate) fn start(load: &Load) -> Result<Self, LabError> {
        let origin = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Self {
            origin,
            stop: Arc::clone(&stop),
            seen: Vec::new(),
            threads: Vec::new(),
        };
        for number in 0..load.clients {
            let seen = Arc::new(Mutex::new(Seen::default()));
            let client = Client {
                number,
                load: load.clone(),
                stream: connect(load.address).map_err(LabError::of(load.address))?,
                buffer: Vec::new(),
                dice: Dice(load.seed.wrapping_add(u64::from(number) << 32)),
                known: [None; SHARED_KEYS as usize],
                fresh: i64::from(number) << 40,
                origin,
                stop: Arc::clone(&stop),
                seen: Arc::clone(&seen),
            };
            let thread = thread::Builder::new().name(format!("client {number}"));
            let thread = thread.spawn(move || client.run());
            clients.seen.push(seen);
            clients
                .threads
                .push(thread.map_err(LabError::of("a client's thread"))?);
        }
        Ok(clients)
    }

    /// Nanoseconds on the clock of the calls.
    pub(crate) fn now_ns(&self) -> u64 {
        nanos(self.origin)
    }

    /// The longest that each client has waited for an answer that came after `from_ns`, to a
    /// question from before `to_ns`.
    pub(crate) fn longest_waits(&self, from_ns: u64, to_ns: u64) -> Vec<Duration> {
        let of = |seen: &Arc<Mutex<Seen>>| {
            let seen = lock(seen);
            let waits = seen.calls.iter().rev().take_while(|call| {
                call.answered
                    .is_none_or(|(answered_ns, _)| answered_ns >= from_ns)
            });
            let waits = waits.filter(|call| call.asked_ns <= to_ns);
            let wait = waits.filter_map(|call| Some(call.answered?.0 - call.asked_ns));
            Duration::from_nanos(wait.max().unwrap_or(0))
        };
        self.seen.iter().map(of).collect()
    }

    /// How many questions from after `from_ns` each client has been answered.
    pub(crate) fn answered_since(&self, from_ns: u64) -> Vec<usize> {
        let of = |seen: &Arc<Mutex<Seen>>| {
            let seen = lock(seen);
            let first = seen.calls.partition_point(|call| call.asked_ns < from_ns);
            let answered = |call: &&Call| call.answered.is_some();
            seen.calls[first..].iter().filter(answered).count()
        };
        self.seen.iter().map(of).collect()
    }

    /// Ends the clients; the first to end reads all keys once more.
    pub(crate) fn finish(mut self, address: SocketAddr) -> Result<Seens, LabError> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread
                .join()
                .map_err(|_| LabError("a client has panicked".to_owned()))?;
        }
        let mut seens = Seens {
            calls: Vec::new(),
            lost: Vec::new(),
        };
        for (number, seen) in self.seen.iter().enumerate() {
            let seen = std::mem::take(&mut *lock(seen));
            seens.calls.extend(seen.calls);
            let lost = seen.lost.into_iter();
            seens
                .lost
                .extend(lost.map(|why| format!("client {number}: {why}")));
        }
        let keys: BTreeSet<u16> = seens.calls.iter().map(|call| call.key).collect();
        let last = || -> io::Result<Vec<Call>> {
            let mut stream = connect(address)?;
            let (mut buffer, mut calls) = (Vec::new(), Vec::new());
            for key in keys {
                let asked_ns = nanos(self.origin);
                stream.write_all(&request(key, Ask::Get))?;
                let until = Instant::now() + ANSWER_LIMIT;
                let reply = reply(&mut stream, &mut buffer, || Instant::now() < until)?;
                let answer = answer(Ask::Get, &reply).map_err(io::Error::other)?;
                calls.push(Call {
                    client: u16::MAX,
                    key,
                    ask: Ask::Get,
                    asked_ns,
                    answered: Some((nanos(self.origin), answer)),
                });
            }
            Ok(calls)
        };
        seens
            .calls
            .extend(last().map_err(LabError::of("reading all keys at the end"))?);
        Ok(seens)
    }
}

/// Ends the threads without waiting: they look at the flag by themselves.
impl Drop for Clients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanos(origin: Instant) -> u64 {
    origin.elapsed().as_nanos() as u64
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LOOK))?;
    stream.set_write_timeout(Some(CONNECT_LIMIT))?;
    Ok(stream)
}

fn request(key: u16, ask: Ask) -> Vec<u8> {
    let key = format!("lab:{key}");
    match ask {
        Ask::Get => resp::command(&["GET", &key]),
        Ask::Set(value) => resp::command(&["SET", &key, &value.to_string()]),
        Ask::Incr => resp::command(&["INCR", &key]),
        Ask::Swap(from, to) => {
            let (from, to) = (from.to_string(), to.to_string());
            resp::command(&["EVAL", SWAP, "1", &key, &from, &to])
        }
    }
}

/// The answer in a reply, or what is wrong with it.
fn answer(ask: Ask, reply: &Reply) -> Result<Answer, String> {
    match (ask, reply) {
        (Ask::Get, Reply::Bulk(None)) => Ok(Answer::Value(None)),
        (Ask::Get, Reply::Bulk(Some(text))) => match text.parse() {
            Ok(value) => Ok(Answer::Value(Some(value))),
            Err(_) => Err(format!("the answer to GET was {text:?}")),
        },
        (Ask::Set(_), Reply::Simple(text)) if text == "OK" => Ok(Answer::Done),
        (Ask::Incr, Reply::Integer(value)) => Ok(Answer::Number(*value)),
        (Ask::Swap(..), Reply::Integer(value)) => Ok(Answer::Swapped(*value == 1)),
        _ => Err(format!("the answer to {ask:?} was {reply:?}")),
    }
}

/// Reads one reply, for as long as `patient` says.
fn reply(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    mut patient: impl FnMut() -> bool,
) -> io::Result<Reply> {
    loop {
        if let Some((reply, length)) = resp::parse(buffer).map_err(io::Error::other)? {
            buffer.drain(..length);
            return Ok(reply);
        }
        patience::fill(stream, buffer, &mut patient)?;
    }
}

/// What a client's thread works with.
struct Client {
    number: u16,
    load: Load,
    stream: TcpStream,
    buffer: Vec<u8>,
    dice: Dice,
    /// The last values that were seen of the shared keys.
    known: [Option<i64>; SHARED_KEYS as usize],
    /// The next value that nobody has set yet.
    fresh: i64,
    origin: Instant,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

impl Client {
    fn run(mut self) {
        while !self.stopping() {
            thread::sleep(self.load.think.mul_f64(self.dice.part()));
            let (key, ask) = self.choose();
            let asked_ns = nanos(self.origin);
            let answered = self.call(key, ask);
            let answered_ns = nanos(self.origin);
            let mut seen = lock(&self.seen);
            seen.calls.push(Call {
                client: self.number,
                key,
                ask,
                asked_ns,
                answered: answered.as_ref().ok().map(|answer| (answered_ns, *answer)),
            });
            if seen.calls.len() >= MAX_CALLS {
                seen.lost
                    .push(format!("more than {MAX_CALLS} calls: ended"));
                return;
            }
            match answered {
                Ok(answer) => {
                    drop(seen);
                    self.learn(key, ask, answer);
                }
                Err(error) => {
                    seen.lost
                        .push(format!("at {} ms: {error}", answered_ns / 1_000_000));
                    drop(seen);
                    self.reconnect();
                }
            }
        }
    }

    fn choose(&mut self) -> (u16, Ask) {
        let drawn = self.dice.next();
        let key = (drawn >> 8) as u16 % SHARED_KEYS;
        self.fresh += 1;
        match (drawn % 16, self.known[usize::from(key)]) {
            (0..3, _) => (OWN_KEYS + self.number, Ask::Incr),
            (3..7, _) => (key, Ask::Incr),
            (7..9, _) => (key, Ask::Set(self.fresh)),
            (9..12, Some(known)) => (key, Ask::Swap(known, self.fresh)),
            _ => (key, Ask::Get),
        }
    }

    fn call(&mut self, key: u16, ask: Ask) -> io::Result<Answer> {
        self.stream.write_all(&request(key, ask))?;
        let until = Instant::now() + ANSWER_LIMIT;
        let patient = || Instant::now() < until;
        let reply = reply(&mut self.stream, &mut self.buffer, patient)?;
        answer(ask, &reply).map_err(io::Error::other)
    }

    fn learn(&mut self, key: u16, ask: Ask, answer: Answer) {
        if let Some(known) = self.known.get_mut(usize::from(key)) {
            match (ask, answer) {
                (_, Answer::Value(value)) => *known = value,
                (_, Answer::Number(value)) => *known = Some(value),
                (Ask::Set(value) | Ask::Swap(_, value), Answer::Done | Answer::Swapped(true)) => {
                    *known = Some(value);
                }
                _ => *known = None,
            }
        }
    }

    fn reconnect(&mut self) {
        self.buffer.clear();
        while !self.stopping() {
            match connect(self.load.address) {
                Ok(stream) => {
                    self.stream = stream;
                    return;
                }
                Err(_) => thread::sleep(LOOK),
            }
        }
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1.
    pub(crate) fn part(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
