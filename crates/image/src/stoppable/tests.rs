use rustix::process::getpid;

use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_program_says_its_lines_and_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let stoppable = Stoppable::start().unwrap();
    let mut lines = Vec::new();
    let script = "echo one; echo two >&2; echo 'dpkg: error: no'; echo last; exit 3";
    let error = stoppable
        .run(shell(script), "sh", "talking", &log, |line| {
            lines.push(line.to_owned());
        })
        .unwrap_err()
        .to_string();
    assert_eq!(lines, ["one", "two", "dpkg: error: no", "last"]);
    let expected = "sh failed while talking: dpkg: error: no; all it said is in ";
    assert!(error.starts_with(expected), "{error}");
    let kept = std::fs::read_to_string(&log).unwrap();
    assert_eq!(kept, "one\ntwo\ndpkg: error: no\nlast\n");
    let silent = stoppable.run(shell("exit 3"), "sh", "talking", &log, |_| {});
    assert!(silent.unwrap_err().to_string().contains("exit status: 3"));

    // In the same test, since a signal reaches every Stoppable of the process.
    let stopped = stoppable.run(
        shell("echo up; exec sleep 600"),
        "sh",
        "waiting",
        &log,
        |_| {
            kill_process(getpid(), Signal::TERM).unwrap();
        },
    );
    assert!(matches!(stopped, Err(ImageError::Stopped)), "{stopped:?}");
    let late = stoppable.run(shell("exec sleep 600"), "sh", "waiting", &log, |_| {});
    assert!(matches!(late, Err(ImageError::Stopped)), "{late:?}");
}
