//! Through TAP interfaces, where nothing lies between the guest and the kernel: round trips,
//! pipelined requests, and bytes in bulk.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::compare::Compared;
use super::guests::{Guest, Kind, Spec, Tap, Wire};
use super::load::{Bulk, CONNECTIONS, DEPTH, Pipelines, VALUE_BYTES};
use super::redis::{Client, REQUESTS, WARM_UP, take};
use super::report::{Row, Section};
use super::stats::Summary;
use super::{Bench, iperf, netns, say};
use crate::demo::error::DemoError;

/// One interface for each guest, each with a network of its own.
pub(crate) const TAPS: [Tap; 2] = [
    Tap {
        name: "bench-qemu",
        host: Ipv4Addr::new(10, 0, 2, 2),
        guest: Ipv4Addr::new(10, 0, 2, 15),
    },
    Tap {
        name: "bench-twinvm",
        host: Ipv4Addr::new(10, 0, 3, 2),
        guest: Ipv4Addr::new(10, 0, 3, 15),
    },
];
pub(crate) const KINDS: [Kind; 2] = [Kind::Qemu, Kind::Run];
const NAME: &str = "tap";
/// Blocks of requests of a turn on each connection.
const BLOCKS: usize = 40;
/// Values of a turn each way.
const VALUES: usize = 16;
const KEY: &str = "bench:value";
const PER_REQUEST: &str = "CPU of a request";
const RATIO: &str = "CPU ÷ QEMU's";

/// Measures in a namespace of its own, or says why it can't.
pub(crate) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    if bench.in_namespace {
        return inside(bench);
    }
    say("tap        in a network namespace of its own");
    match netns::bench_inside(bench, &["tap"])? {
        Ok(sections) => Ok(sections),
        Err(why) => {
            say(&format!("tap        not measured: {why}"));
            Ok(vec![Section::skipped(
                "tap",
                "through TAP interfaces",
                &why,
            )])
        }
    }
}

fn inside(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    netns::settle(bench, &TAPS)?;
    let mut guests = boot(bench, NAME, KINDS)?;
    let mut sections = vec![
        round_trips(bench, NAME, &mut guests)?,
        pipelined(bench, NAME, &mut guests)?,
        bulk(bench, &mut guests)?,
    ];
    for guest in guests {
        guest.finish()?;
    }
    match iperf::measure(bench) {
        Ok(section) => sections.extend(section),
        Err(DemoError::Interrupted) => return Err(DemoError::Interrupted),
        Err(error) => {
            say(&format!("tap        iperf3: {error}"));
            let why = error.to_string();
            let why = why.lines().next().unwrap_or_default();
            sections.push(Section::skipped("tap", iperf::TITLE, why));
        }
    }
    Ok(sections)
}

/// Boots the yardstick's guest and ours, each on a TAP interface of its own.
pub(crate) fn boot(bench: &Bench, name: &str, kinds: [Kind; 2]) -> Result<Vec<Guest>, DemoError> {
    say(&format!("{name:<11}two guests boot"));
    let guests = kinds.into_iter().zip(TAPS).map(|(kind, tap)| {
        let spec = Spec::redis(bench, Wire::Tap(tap))?;
        let mut guest = Guest::power_on(bench, kind, &spec)?;
        guest.await_pong(bench)?;
        Ok(guest)
    });
    guests.collect()
}

/// Calls `turn` for each guest in each round, the guests in turns; it gets the guest's number.
pub(crate) fn in_turns(
    bench: &Bench,
    name: &str,
    guests: &mut [Guest],
    what: &str,
    mut turn: impl FnMut(usize, &mut Guest) -> Result<(), DemoError>,
) -> Result<(), DemoError> {
    for round in 0..bench.runs {
        for step in 0..guests.len() {
            let index = (round as usize + step) % guests.len();
            turn(index, &mut guests[index])?;
            say(&format!(
                "{name:<6}{:>2}/{:<3}{what}, {}",
                round + 1,
                bench.runs,
                guests[index].kind().name()
            ));
        }
        guests.iter_mut().try_for_each(Guest::check)?;
    }
    Ok(())
}

/// The rows, the yardstick's first, with our processor time compared with its.
fn section(
    name: &str,
    title: String,
    mut rows: Vec<Row>,
    ratios: &[(&str, &str)],
    note: String,
) -> Section {
    if let [qemu, ours] = &mut rows[..] {
        for (quantity, name) in ratios {
            ours.compare(quantity, name, qemu);
        }
    }
    Section {
        name: name.to_owned(),
        title,
        rows,
        bars: Vec::new(),
        notes: vec![note],
        compared: Vec::new(),
    }
}

/// Adds what the processor time of a request says of the two, with their other columns.
fn compared(mut section: Section, name: &str, columns: &[(&str, &str)]) -> Section {
    let [qemu, ours] = &section.rows[..] else {
        return section;
    };
    let mut compared = Compared::new(name);
    let seconds = |row: &Row| {
        let us = row.samples(PER_REQUEST).iter();
        us.map(|us| us / 1e6).collect::<Vec<f64>>()
    };
    (compared.ours_cpu_s, compared.other_cpu_s) = (seconds(ours), seconds(qemu));
    for (who, row) in [("ours", ours), ("other", qemu)] {
        for (quantity, key) in columns {
            if let Some(summary) = Summary::of(row.samples(quantity)) {
                compared.more.insert(format!("{who}_{key}"), summary.median);
            }
        }
    }
    section.notes.extend(compared.note(&qemu.name));
    section.compared.push(compared);
    section
}

fn rows(guests: &[Guest]) -> Vec<Row> {
    let names = guests.iter().map(|guest| guest.kind().name());
    names.map(Row::new).collect()
}

/// Round trips on one connection.
pub(crate) fn round_trips(
    bench: &Bench,
    name: &str,
    guests: &mut [Guest],
) -> Result<Section, DemoError> {
    let mut rows = rows(guests);
    let mut clients = Vec::new();
    for guest in guests.iter() {
        let mut client = Client::new(guest.address(), guest.kind().name())?;
        client.turn(bench, WARM_UP)?;
        clients.push(client);
    }
    in_turns(bench, name, guests, "round trips", |index, guest| {
        let before = guest.cpu_s()?;
        let times_us = clients[index].turn(bench, REQUESTS)?;
        let used = guest.cpu_s()? - before;
        let row = &mut rows[index];
        row.sample(PER_REQUEST, "µs", used * 1e6 / times_us.len() as f64);
        take(row, times_us);
        Ok(())
    })?;
    let section = section(
        name,
        "round trips of INCR on one connection, through TAP".to_owned(),
        rows,
        &[(PER_REQUEST, RATIO)],
        format!(
            "{REQUESTS} round trips a turn, in turns, in a network namespace of their own; \
             virtio-net with checksum and segmentation offload, QEMU without vhost."
        ),
    );
    let columns = [
        ("p50", "p50_ms"),
        ("p99", "p99_ms"),
        ("requests", "requests_s"),
    ];
    Ok(compared(section, "redis, one connection", &columns))
}

/// Many connections with many requests under way on each.
pub(crate) fn pipelined(
    bench: &Bench,
    name: &str,
    guests: &mut [Guest],
) -> Result<Section, DemoError> {
    let mut rows = rows(guests);
    let mut clients = Vec::new();
    for guest in guests.iter() {
        let mut client = Pipelines::new(guest.address())?;
        client.turn(bench, 1)?;
        clients.push(client);
    }
    in_turns(bench, name, guests, "pipelined requests", |index, guest| {
        let (began, before) = (Instant::now(), guest.cpu_s()?);
        let requests = clients[index].turn(bench, BLOCKS)? as f64;
        let (seconds, used) = (began.elapsed().as_secs_f64(), guest.cpu_s()? - before);
        let row = &mut rows[index];
        row.sample(PER_REQUEST, "µs", used * 1e6 / requests);
        row.sample("requests", "1/s", requests / seconds);
        Ok(())
    })?;
    let section = section(
        name,
        format!("SET on {CONNECTIONS} connections, {DEPTH} under way on each, through TAP"),
        rows,
        &[(PER_REQUEST, RATIO)],
        format!(
            "{} requests a turn from one thread of the bench, as `redis-benchmark -c \
             {CONNECTIONS} -P {DEPTH}` sends them.",
            CONNECTIONS * DEPTH * BLOCKS
        ),
    );
    let work = format!("redis -c {CONNECTIONS} -P {DEPTH}");
    Ok(compared(section, &work, &[("requests", "requests_s")]))
}

fn bulk(bench: &Bench, guests: &mut [Guest]) -> Result<Section, DemoError> {
    const WAYS: [[&str; 3]; 2] = [
        ["into the guest: CPU", "in: CPU ÷ QEMU's", "in"],
        ["out of it: CPU", "out: CPU ÷ QEMU's", "out"],
    ];
    let mut rows = rows(guests);
    let mut clients = Vec::new();
    for guest in guests.iter() {
        let mut client = Bulk::new(guest.address())?;
        client.set(bench, KEY)?;
        client.get(bench, KEY)?;
        clients.push(client);
    }
    in_turns(bench, NAME, guests, "large values", |index, guest| {
        for [cpu, _, rate] in WAYS {
            let (began, before) = (Instant::now(), guest.cpu_s()?);
            for _ in 0..VALUES {
                match rate {
                    "in" => clients[index].set(bench, KEY)?,
                    _ => clients[index].get(bench, KEY)?,
                }
            }
            let (seconds, used) = (began.elapsed().as_secs_f64(), guest.cpu_s()? - before);
            let bytes = (VALUES * VALUE_BYTES) as f64;
            let row = &mut rows[index];
            row.sample(cpu, "s/GiB", used * f64::from(1 << 30) / bytes);
            row.sample(rate, "Gbit/s", bytes * 8.0 / seconds / 1e9);
        }
        Ok(())
    })?;
    Ok(section(
        NAME,
        format!(
            "bytes in bulk through TAP: SET and GET of a value of {} MiB",
            VALUE_BYTES >> 20
        ),
        rows,
        &[(WAYS[0][0], WAYS[0][1]), (WAYS[1][0], WAYS[1][1])],
        format!(
            "{VALUES} values a turn each way, one after the other on one connection. The guest's \
             Redis copies them: part of the time is Redis and not the network.",
        ),
    ))
}
