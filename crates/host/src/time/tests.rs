use std::hint::black_box;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;

#[test]
fn both_clocks_run_at_their_rate() {
    let pause = Duration::from_millis(30);
    let first = mono_ns();
    thread::sleep(pause);
    let passed = mono_ns() - first;
    assert!(passed >= pause.as_nanos() as u64, "{passed}");
    assert!(passed < 20_000_000_000, "{passed}");
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(wall_ns().abs_diff(wall.as_nanos() as u64) < 20_000_000_000);
}

#[test]
fn the_process_pays_for_the_work_of_all_its_threads() {
    let before = process_cpu_ns();
    let other = thread::spawn(|| {
        let start = clock_gettime(ClockId::ThreadCPUTime);
        while nanoseconds(clock_gettime(ClockId::ThreadCPUTime)) - nanoseconds(start) < 50_000_000 {
            black_box(());
        }
    });
    other.join().unwrap();
    assert!(process_cpu_ns() - before >= 50_000_000);
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
        memory_in("VmPeak:\t9 kB\nVmHWM:\t   1234 kB\n", "VmHWM:"),
        Some(1234 * 1024)
    );
    for odd in [
        "",
        "VmHWM:",
        "VmHWM: x kB",
        "VmHWM: 12 MB",
        "VmHWM: 18446744073709551615 kB",
    ] {
        assert_eq!(memory_in(odd, "VmHWM:"), None, "{odd}");
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
