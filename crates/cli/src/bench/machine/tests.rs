use super::*;

#[test]
fn ticks_behind_any_name() {
    let rest = "S 1 2 3 4 5 6 7 8 9 10 1234 66 0 0 20 0 1";
    assert_eq!(ticks(&format!("42 (twinvm) {rest}")), Some(1300));
    assert_eq!(ticks(&format!("42 (a) 9 (b) {rest}")), Some(1300));
    assert_eq!(ticks("42 (twinvm) S 1"), None);
    assert_eq!(ticks(""), None);
}

#[test]
fn own_processor_time_is_found_and_grows() {
    let pid = std::process::id();
    let before = cpu_s(pid).unwrap();
    let begin = Instant::now();
    while cpu_s(pid).unwrap() < before + 0.02 {
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn a_process_that_is_gone_is_named() {
    let error = cpu_s(u32::MAX).unwrap_err().to_string();
    assert!(error.contains("/proc/4294967295/stat"), "{error}");
}

#[test]
fn model_and_load() {
    let cpuinfo = "processor\t: 0\nmodel name\t: Fast CPU: 9000\nmodel\t: 1\n";
    assert_eq!(cpu_model(cpuinfo), "Fast CPU: 9000");
    assert_eq!(cpu_model("hart\t: 0\n"), "unknown processor");
    assert_eq!(load("0.93 1.25 0.95 1/345 6789\n"), "0.93 1.25 0.95");
}

#[test]
fn the_high_water_mark_is_in_kib() {
    let status = "Name:\tx\nVmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n";
    assert_eq!(high_water_bytes(status), Some(2 << 20));
    assert_eq!(high_water_bytes("Name:\tx\n"), None);
    assert!(peak_rss_bytes(std::process::id()).unwrap() > 1 << 20);
    assert!(peak_rss_bytes(u32::MAX).is_err());
}
