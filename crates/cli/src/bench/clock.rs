//! The guest's clock beside the host's: how far it goes off, and whether it ever goes back.
//!
//! The guest's Redis tells its wall clock (TIME) in the middle of a round trip, the host reads its
//! monotonic clock before and after. What is judged is the difference since the first look: where
//! both began is of no interest.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::guests::{Guest, Kind};
use super::report::{Row, Section};
use super::{Bench, say};
use crate::demo::client::{connect, fill};
use crate::demo::error::DemoError;
use crate::demo::resp::{self, Reply};

/// The furthest that the guest's clock may go off: 1 ms.
const MOST_OFF_MS: f64 = 1.0;
/// After the boot the guest still has things to do.
const SETTLE: Duration = Duration::from_secs(10);
/// Between two looks.
const DISTANCE: Duration = Duration::from_millis(500);
/// Round trips of one look; the shortest counts, because it says most exactly when the guest
/// read its clock.
const TRIES: usize = 20;
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Typed at the guest's shell: its one hart is never idle again, and still answers promptly.
const BUSY: &str = "nice -n 19 sh -c 'while :; do :; done' &\n";
const OFF: &str = "furthest off";
const BACK: &str = "times back";

/// Measures an idle guest, then makes it busy and measures again.
pub(crate) fn measure(bench: &Bench) -> Result<Section, DemoError> {
    say("clock      a guest boots");
    let mut guest = Guest::start(bench, Kind::Run)?;
    guest.await_pong(bench)?;
    let mut clock = GuestClock::new(guest.address())?;
    let mut rows = Vec::new();
    for name in ["idle guest", "busy guest"] {
        if name == "busy guest" {
            guest.type_line(BUSY)?;
        }
        bench.sleep_until(Instant::now() + SETTLE)?;
        say(&format!(
            "clock      {name}: {} s",
            bench.clock_for.as_secs()
        ));
        rows.push(watch(bench, &mut guest, &mut clock, name)?);
    }
    guest.finish()?;
    let bars = rows
        .iter()
        .flat_map(|row| [row.bar(OFF, MOST_OFF_MS), row.bar(BACK, 0.0)])
        .flatten()
        .collect();
    Ok(Section {
        name: "clock".to_owned(),
        title: "the guest's clock against the host's monotonic clock".to_owned(),
        rows,
        bars,
        notes: vec![format!(
            "{} s each, a look every {} ms, the best of {TRIES} round trips. Each look can be \
             wrong by half of its round trip, which is part of what is shown.",
            bench.clock_for.as_secs(),
            DISTANCE.as_millis()
        )],
        compared: Vec::new(),
    })
}

fn watch(
    bench: &Bench,
    guest: &mut Guest,
    clock: &mut GuestClock,
    name: &str,
) -> Result<Row, DemoError> {
    let mut row = Row::new(name);
    let (mut first, mut furthest) = (None, 0.0_f64);
    let back_before = clock.back;
    let end = Instant::now() + bench.clock_for;
    while Instant::now() < end {
        guest.check()?;
        let look = clock.look(bench)?;
        let off = look.offset_us - *first.get_or_insert(look.offset_us);
        furthest = furthest.max(off.abs());
        row.sample("off", "ms", off.abs() / 1000.0);
        row.sample("round trip", "ms", look.round_trip_us / 1000.0);
        bench.sleep_until(Instant::now() + DISTANCE)?;
    }
    row.sample(OFF, "ms", furthest / 1000.0);
    row.sample(BACK, "", (clock.back - back_before) as f64);
    Ok(row)
}

/// One look at the guest's clock.
struct Look {
    /// The guest's clock minus the host's, microseconds.
    offset_us: f64,
    round_trip_us: f64,
}

/// A connection that asks for the time.
struct GuestClock {
    stream: TcpStream,
    buffer: Vec<u8>,
    began: Instant,
    last_us: i64,
    /// How often the guest's clock was before what it had told earlier.
    back: u64,
}

impl GuestClock {
    fn new(address: SocketAddr) -> Result<Self, DemoError> {
        Ok(Self {
            stream: connect(address)
                .map_err(|error| DemoError::failed(format!("connecting: {error}")))?,
            buffer: Vec::new(),
            began: Instant::now(),
            last_us: i64::MIN,
            back: 0,
        })
    }

    fn look(&mut self, bench: &Bench) -> Result<Look, DemoError> {
        let mut best = self.ask(bench)?;
        for _ in 1..TRIES {
            let look = self.ask(bench)?;
            if look.round_trip_us < best.round_trip_us {
                best = look;
            }
        }
        Ok(best)
    }

    fn ask(&mut self, bench: &Bench) -> Result<Look, DemoError> {
        let broken = |error: std::io::Error| DemoError::failed(format!("clock: {error}"));
        let request = resp::command(&["TIME"]);
        let before_us = self.began.elapsed().as_nanos() as f64 / 1000.0;
        self.stream.write_all(&request).map_err(broken)?;
        let guest_us = self.answer(bench)?;
        let after_us = self.began.elapsed().as_nanos() as f64 / 1000.0;
        self.back += u64::from(guest_us < self.last_us);
        self.last_us = guest_us;
        Ok(Look {
            offset_us: guest_us as f64 - f64::midpoint(before_us, after_us),
            round_trip_us: after_us - before_us,
        })
    }

    /// The guest's wall clock in microseconds: an array of seconds and microseconds.
    fn answer(&mut self, bench: &Bench) -> Result<i64, DemoError> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            if let Some((us, length)) = parse(&self.buffer).map_err(DemoError::failed)? {
                self.buffer.drain(..length);
                return Ok(us);
            }
            bench.check()?;
            if Instant::now() >= deadline {
                return Err(DemoError::failed("clock: no answer to TIME"));
            }
            fill(&mut self.stream, &mut self.buffer)
                .map_err(|error| DemoError::failed(format!("clock: {error}")))?;
        }
    }
}

/// The answer to TIME in microseconds and its length, or `None` if it isn't whole yet.
fn parse(bytes: &[u8]) -> Result<Option<(i64, usize)>, String> {
    const HEAD: &[u8] = b"*2\r\n";
    let Some(rest) = bytes.strip_prefix(HEAD) else {
        return match HEAD.starts_with(bytes) {
            true => Ok(None),
            false => Err(format!(
                "clock: answer {:?}",
                String::from_utf8_lossy(bytes)
            )),
        };
    };
    let Some((seconds, first)) = resp::parse(rest)? else {
        return Ok(None);
    };
    let Some((micros, second)) = resp::parse(&rest[first..])? else {
        return Ok(None);
    };
    let number = |reply: Reply| match reply {
        Reply::Bulk(Some(text)) => text.parse::<i64>().map_err(|_| format!("clock: {text:?}")),
        other => Err(format!("clock: {other:?}")),
    };
    let us = number(seconds)?
        .checked_mul(1_000_000)
        .and_then(|us| us.checked_add(number(micros.clone()).ok()?))
        .ok_or_else(|| format!("clock: {micros:?}"))?;
    Ok(Some((us, HEAD.len() + first + second)))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_answer_to_time_is_two_numbers() {
        let whole = b"*2\r\n$2\r\n17\r\n$3\r\n250\r\nrest";
        assert_eq!(parse(whole), Ok(Some((17_000_250, whole.len() - 4))));
        for cut in 0..whole.len() - 5 {
            assert_eq!(parse(&whole[..cut]), Ok(None), "cut at {cut}");
        }
        assert!(parse(b"-ERR no\r\n").is_err());
        assert!(parse(b"*2\r\n$1\r\nx\r\n$1\r\n1\r\n").is_err());
    }
}
