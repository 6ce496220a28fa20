//! boot
use std::io::Write;
use std::time::Instant;
use twinvm_machine::*;
use twinvm_replica::*;
fn main() {
    let kernel = std::fs::read("target/image/redis/kernel").unwrap();
    let initrd = std::fs::read("target/image/redis/initrd.cpio").unwrap();
    let cmdline = std::env::args()
        .nth(1)
        .unwrap_or("console=ttyS0 earlycon=sbi panic=-1 ADDR=10.0.2.15/24 GW=10.0.2.2".into());
    let config = MachineConfig {
        ram_bytes: 256 << 20,
        harts: 1,
        slots: vec![
            SlotConfig::Net {
                mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            },
            SlotConfig::Rng,
        ],
        cmdline,
        images: Images::new(kernel, Some(initrd)),
        on_reset: OnReset::Exit,
    };
    let m = Machine::new(
        config,
        PowerOn {
            rng_seed: [7; 32],
            rtc_base_ns: 1_700_000_000_000_000_000,
        },
    )
    .unwrap();
    let t0 = Instant::now();
    let mut clock = || HostTime {
        mono_ns: t0.elapsed().as_nanos() as u64,
    };
    let mut live = Live::new(m, 0, clock()).unwrap();
    let mut seen = String::new();
    let stop = std::env::var("STOP").unwrap_or("redis ready".into());
    loop {
        let now = clock();
        let exit = live.slice(now, &mut clock).unwrap();
        let c = live.machine_mut().take_console();
        if !c.is_empty() {
            std::io::stdout().write_all(&c).unwrap();
            std::io::stdout().flush().unwrap();
            seen.push_str(&String::from_utf8_lossy(&c));
            if seen.contains(&stop) {
                break;
            }
        }
        if let Some((d, n)) = live.entropy_wanted() {
            live.entropy(d, vec![0x55; n], clock()).unwrap();
        }
        live.flush_if_due(clock());
        live.take_batches();
        match exit {
            LiveExit::Busy => {}
            LiveExit::Idle { wake_ns } => {
                if let Some(w) = wake_ns {
                    let n = clock().mono_ns;
                    if w > n {
                        std::thread::sleep(std::time::Duration::from_nanos(w - n));
                    }
                    live.woke(clock()).unwrap();
                } else {
                    println!("idle for ever");
                    break;
                }
            }
            LiveExit::Output { .. } => {}
            LiveExit::Halted(h) => {
                println!("halted {h:?}");
                break;
            }
        }
        if t0.elapsed().as_secs() > 120 {
            println!("timeout");
            break;
        }
    }
    let s = t0.elapsed().as_secs_f64();
    for _ in 0..std::env::var("SNAP").map_or(0, |n| n.parse().unwrap()) {
        let t = Instant::now();
        let d = live.machine_mut().digest();
        println!("digest {:?}", t.elapsed());
        let t = Instant::now();
        let bytes = live.machine_mut().save(false);
        println!("save {} MB {:?}", bytes.len() >> 20, t.elapsed());
        let t = Instant::now();
        let mut m = Machine::restore(&bytes, Some(live.machine().config().clone())).unwrap();
        println!("restore {:?}", t.elapsed());
        let t = Instant::now();
        assert_eq!(m.digest(), d);
        println!("digest {:?}", t.elapsed());
    }
    println!(
        "\nicount {} M in {s:.2}s = {:.1} MIPS; {:?} {:?}",
        live.machine().icount() / 1_000_000,
        live.machine().icount() as f64 / s / 1e6,
        live.machine().engine_counters(),
        live.stats()
    );
}
