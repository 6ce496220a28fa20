use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

#[test]
fn a_process_ends_with_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start("x", &mut shell("sleep 100"), &dir.path().join("log")).unwrap();
    let pid = process.pid();
    assert!(exists(pid));
    drop(process);
    assert!(!exists(pid));
}

#[test]
fn a_process_ends_with_a_panic_too() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start("x", &mut shell("sleep 100"), &dir.path().join("log")).unwrap();
    let pid = process.pid();
    let panicked = thread::spawn(move || {
        let _process = process;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert!(!exists(pid));
}

#[test]
fn an_unexpected_end_is_told_with_code_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = "echo it went wrong >&2; exit 3";
    let mut process = Process::start("node a", &mut shell(script), &log).unwrap();
    assert!(process.wait(soon()));
    let error = process.check().unwrap_err().to_string();
    assert!(error.starts_with("node a has ended by itself (exit code 3)"));
    assert!(error.contains("it went wrong"), "{error}");
}

#[test]
fn sigterm_lets_a_process_end_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    let mut process = Process::start("x", &mut shell(script), &log).unwrap();
    let deadline = soon();
    while !read_end(&log, 100).unwrap().contains("up") {
        assert!(Instant::now() < deadline);
        thread::sleep(LOOK);
    }
    assert!(process.check().is_ok());
    assert!(!process.wait(Instant::now()));
    process.terminate();
    assert!(process.wait(soon()));
    assert_eq!(read_end(&log, 100).unwrap(), "up\nbye\n");
}

#[test]
fn a_second_start_goes_on_in_the_same_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    for text in ["one", "two"] {
        let mut process = Process::start("x", &mut shell(&format!("echo {text}")), &log).unwrap();
        assert!(process.wait(soon()));
    }
    assert_eq!(read_end(&log, 100).unwrap(), "one\ntwo\n");
    assert_eq!(read_end(&log, 4).unwrap(), "two\n");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("/nonexistent/program");
    let error = Process::start("the switch", &mut command, &dir.path().join("log")).unwrap_err();
    assert!(error.to_string().starts_with("the switch can't be started"));
}
