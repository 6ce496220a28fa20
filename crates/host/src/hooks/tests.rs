use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use twinvm_protocol::NoteLevel;

use super::runner::{Lines, serve};
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A runner on a thread of this process.
struct Runner {
    events: Option<io::PipeWriter>,
    lines: mpsc::Receiver<(NoteLevel, String)>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
    folder: tempfile::TempDir,
}

impl Runner {
    fn of(script: &str, timeout: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = command::script(folder.path(), script);
        Self::with(folder, program, timeout)
    }

    fn with(folder: tempfile::TempDir, program: PathBuf, timeout: Duration) -> Self {
        let (input, events) = io::pipe().unwrap();
        let (sender, lines) = mpsc::channel();
        let setup = Setup {
            vm: "shop".to_owned(),
            node: "a".to_owned(),
            peer: "b".to_owned(),
            log_json: false,
            command: HookCommand {
                program,
                args: vec!["first".to_owned(), "two words".to_owned()],
                timeout,
            },
        };
        let thread = thread::spawn(move || {
            serve(&input, Lines::default(), &setup, &mut |level, _, text| {
                let _ = sender.send((level, text.to_owned()));
            })
        });
        Self {
            events: Some(events),
            lines,
            thread: Some(thread),
            folder,
        }
    }

    fn tell(&mut self, name: &str) {
        let event = HookEvent {
            event: name.to_owned(),
            generation: 7,
            role: "live".to_owned(),
            protected: false,
            why: "the peer's connection broke".to_owned(),
            time: "2026-01-31T12:00:00.000Z".to_owned(),
        };
        let line = line(&event).unwrap();
        rustix::io::write(self.events.as_ref().unwrap(), &line).unwrap();
    }

    fn says(&self) -> (NoteLevel, String) {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    fn wrote(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// The node ends.
    fn end(&mut self) {
        self.events = None;
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

#[test]
fn the_command_hears_what_happened() {
    let mut runner = Runner::of("echo \"$@\"; env | grep ^TWINVM_ | sort > env", PATIENCE);
    runner.tell("protection-lost");
    assert_eq!(
        runner.says(),
        (
            NoteLevel::Info,
            "protection-lost: first two words".to_owned()
        )
    );
    let (level, text) = runner.says();
    assert_eq!(level, NoteLevel::Info);
    assert!(text.ends_with("exit status: 0"), "{text}");
    assert_eq!(
        runner.wrote("env"),
        "TWINVM_EVENT=protection-lost\nTWINVM_GENERATION=7\nTWINVM_LEFT_OUT=0\nTWINVM_NODE=a\n\
         TWINVM_PEER=b\nTWINVM_PROTECTED=no\nTWINVM_ROLE=live\n\
         TWINVM_TIME=2026-01-31T12:00:00.000Z\nTWINVM_VM=shop\n\
         TWINVM_WHY=the peer's connection broke\n"
    );
    runner.end();
}

#[test]
fn one_at_a_time_in_order_and_the_oldest_is_left_out() {
    let mut runner = Runner::of(
        ": > began; while [ ! -e go ]; do sleep 0.01; done\n\
         mkdir alone || echo not alone\n\
         echo $TWINVM_EVENT $TWINVM_LEFT_OUT >> heard\n\
         rmdir alone",
        PATIENCE,
    );
    runner.tell("first");
    // It runs before the others come: they wait for it.
    let until = Instant::now() + PATIENCE;
    while !runner.folder.path().join("began").exists() {
        assert!(Instant::now() < until, "it never began");
        thread::sleep(Duration::from_millis(10));
    }
    for n in 0..20 {
        runner.tell(&format!("event-{n}"));
    }
    for n in 0..4 {
        let text = format!("too many events at a time: event-{n} is left out");
        assert_eq!(runner.says(), (NoteLevel::Warn, text));
    }
    fs::write(runner.folder.path().join("go"), "").unwrap();
    runner.end();
    let heard = runner.wrote("heard");
    let expected: Vec<String> = (4..20)
        .map(|n| format!("event-{n} {}", if n == 4 { 4 } else { 0 }))
        .collect();
    assert_eq!(
        heard.lines().collect::<Vec<_>>(),
        [&["first 0".to_owned()][..], &expected].concat()
    );
}

#[test]
fn one_that_takes_too_long_is_killed_with_all_that_it_started() {
    let mut runner = Runner::of(
        "[ $TWINVM_EVENT = next ] && exit 3\nsleep 600 & echo $! > child\nwait",
        Duration::from_millis(300),
    );
    let until = Instant::now() + PATIENCE;
    let child: i32 = loop {
        runner.tell("stuck");
        let (level, text) = runner.says();
        assert_eq!(level, NoteLevel::Warn);
        assert!(
            text.starts_with("stuck: ") && text.ends_with("killed: it took too long"),
            "{text}"
        );
        // On a busy host its time may be over before it has started anything.
        if let Ok(child) = runner.wrote("child").trim().parse() {
            break child;
        }
        assert!(Instant::now() < until, "it never starts its child");
    };
    let gone = |pid: i32| {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    let until = Instant::now() + PATIENCE;
    while !gone(child) {
        assert!(Instant::now() < until, "its child lives on");
        thread::sleep(Duration::from_millis(10));
    }
    loop {
        runner.tell("next");
        let (level, text) = runner.says();
        assert_eq!(level, NoteLevel::Warn);
        if text.ends_with("exit status: 3") {
            break;
        }
        let late = text.ends_with("killed: it took too long");
        assert!(late && Instant::now() < until, "{text}");
    }
    runner.end();
}

#[test]
fn what_it_prints_is_bounded() {
    let mut runner = Runner::of("yes word | head -c 300000; printf '\\033[2Jx\\n'", PATIENCE);
    runner.tell("noisy");
    let mut lines = Vec::new();
    loop {
        let (_, text) = runner.says();
        lines.push(text);
        if lines.last().unwrap().contains("has ended") {
            break;
        }
    }
    assert_eq!(lines.len(), 22, "{lines:?}");
    assert_eq!(lines[19], "noisy: word");
    assert_eq!(lines[20], "noisy: it printed more, which is left out");
    runner.end();
}

#[test]
fn a_command_that_is_not_there_is_told_for_each_event() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("absent");
    let mut runner = Runner::with(folder, program.clone(), PATIENCE);
    for name in ["one", "two"] {
        runner.tell(name);
        let (level, text) = runner.says();
        assert_eq!(level, NoteLevel::Warn);
        let begin = format!("{name}: can't run {}: No such file", program.display());
        assert!(text.starts_with(&begin), "{text}");
    }
    runner.end();
}

#[test]
fn one_that_can_not_be_run_is_seen_before_any_event() {
    let folder = tempfile::tempdir().unwrap();
    let kind = |program: &Path| command::look(program).map_err(|error| error.kind());
    let absent = folder.path().join("absent");
    assert_eq!(kind(&absent), Err(io::ErrorKind::NotFound));
    assert_eq!(kind(folder.path()), Err(io::ErrorKind::PermissionDenied));
    let plain = folder.path().join("plain");
    fs::write(&plain, "no program").unwrap();
    assert_eq!(kind(&plain), Err(io::ErrorKind::PermissionDenied));
    assert_eq!(kind(&command::script(folder.path(), "true")), Ok(()));
    assert_eq!(kind(Path::new("sh")), Ok(()));
    assert_eq!(
        kind(Path::new("no-such-program-anywhere")),
        Err(io::ErrorKind::NotFound)
    );
}

#[test]
fn after_the_nodes_end_it_has_its_time_limit_and_no_more() {
    let mut runner = Runner::of("sleep 600", Duration::from_millis(300));
    for name in ["one", "two", "three"] {
        runner.tell(name);
    }
    runner.end();
}

#[test]
fn a_node_is_never_held_up_by_a_runner_that_does_not_read() {
    let command = |program: &str| HookCommand {
        program: Path::new(program).to_owned(),
        args: Vec::new(),
        timeout: Duration::from_millis(100),
    };
    let start = |program: &str, args: &[&str]| {
        Hooks::start(
            OsStr::new(program),
            args,
            ("shop", "a", "b"),
            LogFormat::Text,
            command("true"),
        )
        .unwrap()
    };
    let event = HookEvent {
        event: "protection-lost".to_owned(),
        generation: 1,
        role: "live".to_owned(),
        protected: false,
        // Cut at a letter's edge.
        why: "ä".repeat(3000),
        time: String::new(),
    };
    let mut stuck = start("sleep", &["600"]);
    let told = (0..1000).find_map(|_| stuck.tell(event.clone()).err());
    assert_eq!(told, Some(HookTrouble::Full("protection-lost".to_owned())));
    stuck.finish();
    let _ = stuck.runner.kill();

    // They end once they have read something.
    let mut gone = start("head", &["-c1"]);
    gone.finish();
    let told = (0..2).map(|_| gone.tell(event.clone())).collect::<Vec<_>>();
    // Its input is closed already, so the next event is nobody's.
    assert_eq!(told, [Ok(()), Ok(())]);
    let mut gone = start("head", &["-c1"]);
    gone.runner.wait().unwrap();
    // A process that another test has just started holds a copy of the pipe's end until it executes
    // its program.
    let until = Instant::now() + PATIENCE;
    let mut short = event.clone();
    short.why.clear();
    while gone.tell(short.clone()) != Err(HookTrouble::Gone) {
        assert!(Instant::now() < until, "it has ended, and nobody says so");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(gone.tell(event), Ok(()), "told once");
}
