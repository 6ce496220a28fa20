//! Measures what a snapshot costs the guest: `cargo run --release -p twinvm-host --example
//! snapshot -- [MiB of RAM] [snapshots]`.
//!
//! A guest without an operating system touches all its memory once and then goes on writing:
//! `sweep` one word in each page of all RAM, over and over (the worst there is: each store is
//! the first to its page), `work` every 64th byte of 64 MiB. Beside it a thread reads each
//! snapshot to its end.

use std::thread;
use std::time::{Duration, Instant};

use twinvm_host::time::peak_rss_bytes;
use twinvm_machine::{ImageKind, Images, Machine, MachineConfig, OnReset, PowerOn, SlotConfig};

/// Steps between two looks at the outside, about what a node runs.
const SLICE_STEPS: u64 = 15_000;
/// Between two snapshots, to see how fast the guest is without one.
const BETWEEN: Duration = Duration::from_millis(300);
/// Bytes that the reading thread takes at one time.
const PIECE_BYTES: usize = 1 << 20;

const ZERO: u32 = 0;
const T0: u32 = 5;
const T1: u32 = 6;
const T2: u32 = 7;
const S0: u32 = 8;
const A0: u32 = 10;
const A1: u32 = 11;
const A2: u32 = 12;

fn lui(rd: u32, upper: u32) -> u32 {
    upper << 12 | rd << 7 | 0x37
}

fn addi(rd: u32, rs1: u32, imm: u32) -> u32 {
    (imm & 0xfff) << 20 | rs1 << 15 | rd << 7 | 0x13
}

fn slli(rd: u32, rs1: u32, by: u32) -> u32 {
    by << 20 | rs1 << 15 | 1 << 12 | rd << 7 | 0x13
}

fn add(rd: u32, rs1: u32, rs2: u32) -> u32 {
    rs2 << 20 | rs1 << 15 | rd << 7 | 0x33
}

fn sd(rs2: u32, rs1: u32) -> u32 {
    rs2 << 20 | rs1 << 15 | 3 << 12 | 0x23
}

/// Branches by a multiple of four bytes; `funct3` 0 is beq, 6 bltu.
fn branch(funct3: u32, rs1: u32, rs2: u32, by: i32) -> u32 {
    let by = by as u32;
    let high = (by >> 12 & 1) << 31 | (by >> 5 & 0x3f) << 25;
    let low = (by >> 1 & 0xf) << 8 | (by >> 11 & 1) << 7;
    high | rs2 << 20 | rs1 << 15 | funct3 << 12 | low | 0x63
}

/// Touches each page from 2 MiB on, then writes every `stride` bytes of the first
/// `window_mib` behind that, for ever.
fn guest(ram_mib: u32, window_mib: u32, stride: u32) -> Vec<u8> {
    let code = [
        addi(T0, ZERO, 1),
        slli(T0, T0, 31),
        lui(A1, 0x200),
        lui(A0, ram_mib << 8),
        add(T1, T0, A0), // end of RAM
        add(T0, T0, A1),
        lui(A0, window_mib << 8),
        add(A2, T0, A0), // end of the window
        lui(A1, 1),
        add(T2, T0, ZERO),
        sd(S0, T2),
        addi(S0, S0, 1),
        add(T2, T2, A1),
        branch(6, T2, T1, -12),
        lui(A1, stride >> 12),
        addi(A1, A1, stride & 0xfff),
        add(T2, T0, ZERO),
        sd(S0, T2),
        addi(S0, S0, 1),
        add(T2, T2, A1),
        branch(6, T2, A2, -12),
        branch(0, ZERO, ZERO, -20),
    ];
    code.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn median(samples: &mut [f64]) -> (f64, f64) {
    samples.sort_by(f64::total_cmp);
    (samples[samples.len() / 2], samples[samples.len() - 1])
}

fn measure(name: &str, ram_mib: u32, window_mib: u32, stride: u32, snapshots: usize) {
    let config = MachineConfig {
        ram_bytes: u64::from(ram_mib) << 20,
        harts: 1,
        slots: vec![SlotConfig::Rng],
        cmdline: String::new(),
        images: Images::default().with(ImageKind::Firmware, &guest(ram_mib, window_mib, stride)),
        on_reset: OnReset::Exit,
    };
    let power_on = PowerOn {
        rng_seed: [0; 32],
        rtc_base_ns: 0,
    };
    let mut machine = Machine::new(config, power_on).expect("a machine");
    // All of RAM is touched after four steps for each page.
    machine.run(u64::from(ram_mib) << 10);
    let run_while = |machine: &mut Machine, more: &dyn Fn(Duration) -> bool| {
        let (begun, from) = (Instant::now(), machine.icount());
        let mut longest = Duration::ZERO;
        while more(begun.elapsed()) {
            let slice = Instant::now();
            machine.run(machine.icount() + SLICE_STEPS);
            longest = longest.max(slice.elapsed());
        }
        let steps = machine.icount() - from;
        let mips = steps as f64 / 1e6 / begun.elapsed().as_secs_f64();
        (mips, longest.as_secs_f64() * 1e3)
    };
    let (mut pauses, mut slices) = (Vec::new(), Vec::new());
    let (mut alone, mut beside, mut seconds, mut aside) = (vec![], vec![], vec![], vec![]);
    let mut bytes = 0;
    for _ in 0..snapshots {
        alone.push(run_while(&mut machine, &|time| time < BETWEEN).0);
        let begun = Instant::now();
        let mut stream = machine.snapshot(false).expect("no other snapshot");
        pauses.push(begun.elapsed().as_secs_f64() * 1e3);
        let reader = thread::spawn(move || {
            let (mut piece, mut bytes) = (Vec::new(), 0);
            while stream.read(PIECE_BYTES, &mut piece) {
                bytes += piece.len();
                piece.clear();
            }
            (bytes + piece.len(), stream.aside_peak_bytes())
        });
        let (mips, longest) = run_while(&mut machine, &|_| !reader.is_finished());
        seconds.push(begun.elapsed().as_secs_f64());
        beside.push(mips);
        slices.push(longest);
        let (read, peak) = reader.join().expect("the reader ends well");
        bytes = read;
        aside.push(peak as f64 / f64::from(1 << 20));
    }
    println!("{name}: {ram_mib} MiB of RAM, all touched; {snapshots} snapshots of {bytes} bytes");
    for (what, unit, samples) in [
        ("pause", "ms", &mut pauses),
        ("longest slice meanwhile", "ms", &mut slices),
        ("time to read it", "s", &mut seconds),
        ("copied aside at one time", "MiB", &mut aside),
        ("guest's speed before", "MIPS", &mut alone),
        ("guest's speed meanwhile", "MIPS", &mut beside),
    ] {
        let (median, most) = median(samples);
        println!("  {what}: median {median:.3}, most {most:.3} {unit}");
    }
}

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|arg| arg.parse::<u32>().expect("a number"));
    let ram_mib = args.next().unwrap_or(1024).clamp(128, 2047);
    let snapshots = args.next().unwrap_or(30).max(1) as usize;
    measure("sweep", ram_mib, ram_mib - 2, 4096, snapshots);
    measure("work", ram_mib, 64, 64, snapshots);
    let peak = peak_rss_bytes().unwrap_or(0) >> 20;
    println!("peak memory of the process: {peak} MiB");
}
