//! Two places, each with a node, and clients beside either: who gains by `output = "backup"`.
//!
//! ```text
//!  client ─── front ─────── wire0 ≈≈ wire1 ─────── front2 ─── (client)
//!               │                (takes its time)    │
//!             host a                               host b
//! ```

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use twinvm_host::port::{Port, PortAddress, PortEvent};
use twinvm_protocol::OutputFrom;

use crate::bench::redis::{Client, WARM_UP, take};
use crate::bench::report::{Row, Section};
use crate::bench::{Bench, netns, say, takeover};
use crate::demo::error::DemoError;
use crate::lab::pair::{Pair, REDIS};

const NAME: &str = "output";
const TITLE: &str = "who emits, by distance and where the client is";
const DELAYS_MS: [u64; 4] = [0, 1, 5, 20];
const MEMORY: &str = "256M";
/// Round trips of a turn.
const REQUESTS: usize = 200;
const LIMIT: Duration = Duration::from_secs(120);
/// Networks learn where the client is now.
const SETTLE: Duration = Duration::from_millis(500);
/// Frames under way on the wire, each way.
const FRAMES: usize = 4096;

/// The two interfaces that the wire joins, and how long each frame takes
#[derive(Debug, clap::Args)]
pub(crate) struct WireArgs {
    one: String,
    other: String,
    delay_ms: u64,
}

/// Carries frames until the process ends.
pub(crate) fn run_wire(args: &WireArgs) -> Result<u8, (u8, String)> {
    let open = |name: &str| {
        let (frames_in, frames) = bounded(FRAMES);
        let port = Port::open(&PortAddress::Tap(name.to_owned()), frames_in);
        port.map(|port| (port, frames))
            .map_err(|error| (2, error.to_string()))
    };
    let (one, other) = (open(&args.one)?, open(&args.other)?);
    let delay = Duration::from_millis(args.delay_ms);
    thread::scope(|scope| {
        scope.spawn(|| carry(&one.1, &other.0, delay));
        carry(&other.1, &one.0, delay);
    });
    Ok(0)
}

/// Hands on each frame when its time has come.
fn carry(from: &Receiver<PortEvent>, to: &Port, delay: Duration) {
    let (pieces_in, pieces) = bounded(FRAMES);
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(event) = from.recv() {
                if let PortEvent::Frame(bytes) = event
                    && pieces_in.send((Instant::now(), bytes)).is_err()
                {
                    return;
                }
            }
        });
        while let Ok((came, bytes)) = pieces.recv() {
            thread::sleep((came + delay).saturating_duration_since(Instant::now()));
            to.send(&bytes);
        }
    });
}

/// Two networks in the place of the one to which both hosts are connected.
struct Sites {
    wire: Child,
}

impl Drop for Sites {
    fn drop(&mut self) {
        let _ = self.wire.kill();
        let _ = self.wire.wait();
    }
}

impl Sites {
    fn part(bench: &Bench, pair: &Pair, delay_ms: u64) -> Result<Self, DemoError> {
        let switch = &pair.hosts.switch;
        let lines = [
            "ip link add front2 type bridge",
            "ip link set front2 up",
            "ip tuntap add dev wire0 mode tap",
            "ip tuntap add dev wire1 mode tap",
            "ip link set wire0 master front",
            "ip link set wire1 master front2",
            "ip link set wire0 up",
            "ip link set wire1 up",
            "ip link set front-b nomaster",
            "ip link set front-b master front2",
        ];
        for line in lines {
            switch.run(line)?;
        }
        let mut command = switch.command(&bench.program);
        let delay = delay_ms.to_string();
        command.args(["lab-wire", "wire0", "wire1", &delay]);
        let wire = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let wire = wire.map_err(|error| DemoError::failed(format!("lab-wire: {error}")))?;
        Ok(Self { wire })
    }
}

/// The client is beside this node from now on.
fn client_beside(pair: &Pair, node: usize) -> Result<(), DemoError> {
    let bridge = ["front", "front2"][node];
    for line in [
        "ip link set front-c nomaster".to_owned(),
        format!("ip link set front-c master {bridge}"),
    ] {
        pair.hosts.switch.run(&line)?;
    }
    thread::sleep(SETTLE);
    Ok(())
}

/// Tries until somebody is there: networks take a while to learn.
fn connect() -> Result<Client, DemoError> {
    let until = Instant::now() + LIMIT;
    loop {
        match Client::new(REDIS, NAME) {
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => thread::sleep(SETTLE),
            Ok(client) => return Ok(client),
        }
    }
}

/// Measures in namespaces of its own, or says why it can't.
pub(in crate::bench) fn measure(bench: &Bench) -> Result<Vec<Section>, DemoError> {
    netns::section_on_hosts(bench, (NAME, TITLE), inside)
}

/// One row per distance, place and way out.
fn inside(bench: &Bench) -> Result<Section, DemoError> {
    let mut rows = Vec::new();
    for ms in DELAYS_MS {
        for (output, by) in [(OutputFrom::Live, "live"), (OutputFrom::Backup, "backup")] {
            say(&format!("output     {ms} ms, the {by} node emits"));
            let delay = Duration::from_millis(ms);
            let mut pair = takeover::lab(bench, MEMORY, (delay, output), true)?;
            let _sites = Sites::part(bench, &pair, ms)?;
            let live = pair.bring_up(LIMIT)?;
            for (node, place) in [(live, "live"), (1 - live, "backup")] {
                let mut row = Row::new(&format!("{ms} ms, output {by}, client by the {place}"));
                client_beside(&pair, node)?;
                let mut client = connect()?;
                client.forget(bench)?;
                client.turn(bench, WARM_UP.min(REQUESTS))?;
                for _ in 0..bench.runs {
                    take(&mut row, client.turn(bench, REQUESTS)?);
                }
                if let Some(p50) = row.samples("p50").first() {
                    say(&format!(
                        "output     client by the {place}: p50 {p50:.2} ms"
                    ));
                }
                super::still_protected(&pair, live)?;
                rows.push(row);
            }
        }
    }
    Ok(Section {
        name: NAME.to_owned(),
        title: TITLE.to_owned(),
        rows,
        bars: Vec::new(),
        notes: vec![format!(
            "{REQUESTS} INCR on one connection a turn. The two hosts are so far apart, one way, for \
             the channel and for the guest's network."
        )],
        compared: Vec::new(),
    })
}
