//! Through TAP interfaces, where nothing lies between the guest and the kernel: round trips,
//! pipelined requests, and bytes in bulk.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::guests::{Guest, Kind, Spec, Tap, Wire};
use super::load::{Bulk, CONNECTIONS, DEPTH, Pipelines, VALUE_BYTES};
use super::redis::{Client, REQUESTS, WARM_UP, take};
use super::report::{Row, Section};
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
    say("tap        two guests boot");
    let mut guests = Vec::new();
    for (kind, tap) in KINDS.into_iter().zip(TAPS) {
        let spec = Spec::redis(bench, Wire::Tap(tap));
        let mut guest = Guest::power_on(bench, kind, &spec)?;
        guest.await_pong(bench)?;
        guests.push(guest);
    }
    let mut sections = vec![
        round_trips(bench, &mut guests)?,
        pipelined(bench, &mut guests)?,
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

/// Calls `turn` for each guest in each round, the guests in turns; it gets the guest's number.
pub(crate) fn in_turns(
    bench: &Bench,
    guests: &mut [Guest],
    what: &str,
    mut turn: impl FnMut(usize, &mut Guest) -> Result<(), DemoError>,
) -> Result<(), DemoError> {
    for round in 0..bench.runs {
        for step in 0..guests.len() {
            let index = (round as usize + step) % guests.len();
            turn(index, &mut guests[index])?;
            say(&format!(
                "tap   {:>2}/{:<3}{what}, {}",
                round + 1,
                bench.runs,
                KINDS[index].name()
            ));
        }
        guests.iter_mut().try_for_each(Guest::check)?;
    }
    Ok(())
}

/// The rows with our processor time compared with QEMU's.
fn section(title: String, rows: [Row; 2], compared: &[(&str, &str)], note: String) -> Section {
    let [qemu, mut run] = rows;
    for (quantity, name) in compared {
        run.compare(quantity, name, &qemu);
    }
    Section {
        name: "tap".to_owned(),
        title,
        rows: vec![qemu, run],
        bars: Vec::new(),
        notes: vec![note],
    }
}

fn rows() -> [Row; 2] {
    KINDS.map(|kind| Row::new(kind.name()))
}

fn round_trips(bench: &Bench, guests: &mut [Guest]) -> Result<Section, DemoError> {
    let mut rows = rows();
    let mut clients = Vec::new();
    for (guest, kind) in guests.iter().zip(KINDS) {
        let mut client = Client::new(guest.address(), kind.name())?;
        client.turn(bench, WARM_UP)?;
        clients.push(client);
    }
    in_turns(bench, guests, "round trips", |index, guest| {
        let before = guest.cpu_s()?;
        let times_us = clients[index].turn(bench, REQUESTS)?;
        let used = guest.cpu_s()? - before;
        let row = &mut rows[index];
        row.sample(PER_REQUEST, "µs", used * 1e6 / times_us.len() as f64);
        take(row, times_us);
        Ok(())
    })?;
    Ok(section(
        "round trips of INCR on one connection, through TAP".to_owned(),
        rows,
        &[(PER_REQUEST, RATIO)],
        format!(
            "{REQUESTS} round trips a turn, in turns, in a network namespace of their own; \
             virtio-net with checksum and segmentation offload, QEMU without vhost."
        ),
    ))
}

fn pipelined(bench: &Bench, guests: &mut [Guest]) -> Result<Section, DemoError> {
    let mut rows = rows();
    let mut clients = Vec::new();
    for guest in guests.iter() {
        let mut client = Pipelines::new(guest.address())?;
        client.turn(bench, 1)?;
        clients.push(client);
    }
    in_turns(bench, guests, "pipelined requests", |index, guest| {
        let (began, before) = (Instant::now(), guest.cpu_s()?);
        let requests = clients[index].turn(bench, BLOCKS)? as f64;
        let (seconds, used) = (began.elapsed().as_secs_f64(), guest.cpu_s()? - before);
        let row = &mut rows[index];
        row.sample(PER_REQUEST, "µs", used * 1e6 / requests);
        row.sample("requests", "1/s", requests / seconds);
        Ok(())
    })?;
    Ok(section(
        format!("SET on {CONNECTIONS} connections, {DEPTH} under way on each, through TAP"),
        rows,
        &[(PER_REQUEST, RATIO)],
        format!(
            "{} requests a turn from one thread of the bench, as `redis-benchmark -c \
             {CONNECTIONS} -P {DEPTH}` sends them.",
            CONNECTIONS * DEPTH * BLOCKS
        ),
    ))
}

fn bulk(bench: &Bench, guests: &mut [Guest]) -> Result<Section, DemoError> {
    const WAYS: [[&str; 3]; 2] = [
        ["into the guest: CPU", "in: CPU ÷ QEMU's", "in"],
        ["out of it: CPU", "out: CPU ÷ QEMU's", "out"],
    ];
    let mut rows = rows();
    let mut clients = Vec::new();
    for guest in guests.iter() {
        let mut client = Bulk::new(guest.address())?;
        client.set(bench, KEY)?;
        client.get(bench, KEY)?;
        clients.push(client);
    }
    in_turns(bench, guests, "large values", |index, guest| {
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
