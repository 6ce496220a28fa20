use std::hint::black_box;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;

#[test]
fn both_clocks_run_at_their_rate() {
    let pause = Duration::from_millis(30);
    let first = HostTime::now();
    thread::sleep(pause);
    let second = HostTime::now();
    let passed = second.mono_ns - first.mono_ns;
    assert!(passed >= pause.as_nanos() as u64, "{passed}");
    assert!(passed < 20_000_000_000, "{passed}");
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let wall_ns = wall.as_nanos() as u64;
    assert!(second.wall_ns.abs_diff(wall_ns) < 20_000_000_000);
    let time = HostTime {
        mono_ns: 5_999_999,
        wall_ns: 0,
    };
    assert_eq!(time.instant(), Instant::from_micros(5999));
}

#[test]
fn a_thread_pays_for_its_own_work_and_the_process_for_all() {
    let (own, all) = (thread_cpu_ns(), process_cpu_ns());
    let other = thread::spawn(|| {
        let start = thread_cpu_ns();
        while thread_cpu_ns() - start < 50_000_000 {
            black_box(());
        }
    });
    other.join().unwrap();
    assert!(process_cpu_ns() - all >= 50_000_000);
    assert!(thread_cpu_ns() - own < 40_000_000);
}

#[test]
fn peak_memory_sees_what_was_touched() {
    const BYTES: usize = 64 << 20;
    let before = peak_rss_bytes().unwrap();
    let block = black_box(vec![1u8; BYTES]);
    drop(block);
    let after = peak_rss_bytes().unwrap();
    assert!(after >= before && after >= BYTES as u64, "{before} {after}");
    assert_eq!(
        peak_rss_in("VmPeak:\t9 kB\nVmHWM:\t   1234 kB\n"),
        Some(1234 * 1024)
    );
    for odd in [
        "",
        "VmHWM:",
        "VmHWM: x kB",
        "VmHWM: 12 MB",
        "VmHWM: 18446744073709551615 kB",
    ] {
        assert_eq!(peak_rss_in(odd), None, "{odd}");
    }
}

#[test]
fn times_before_the_epoch_are_zero() {
    let before = Timespec {
        tv_sec: -5,
        tv_nsec: 0,
    };
    assert_eq!(nanoseconds(before), 0);
}
