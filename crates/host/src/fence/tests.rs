use std::fs;
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::hooks::command;

const PATIENCE: Duration = Duration::from_secs(30);

/// The process's loop on a thread of this one.
struct Runner {
    wishes: Option<io::PipeWriter>,
    answers: mpsc::Receiver<Answer>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
    folder: tempfile::TempDir,
}

impl Runner {
    fn of(script: &str, timeout: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = command::script(folder.path(), script);
        let (input, wishes) = io::pipe().unwrap();
        let (sender, answers) = mpsc::channel();
        let setup = Setup {
            vm: "shop".to_owned(),
            node: "a".to_owned(),
            peer: "b".to_owned(),
            disk: "nbd://san/shop".to_owned(),
            command: HookCommand {
                program,
                args: vec!["off".to_owned()],
                timeout,
            },
        };
        let thread = thread::spawn(move || {
            serve(&input, Lines::default(), &setup, &mut |answer| {
                sender.send(answer).map_err(io::Error::other)
            })
        });
        Self {
            wishes: Some(wishes),
            answers,
            thread: Some(thread),
            folder,
        }
    }

    fn wish(&self, number: u64, generation: u64) {
        let wish = Wish {
            number,
            generation,
            takeover: number > 1,
        };
        let line = line(&wish).unwrap();
        rustix::io::write(self.wishes.as_ref().unwrap(), &line).unwrap();
    }

    fn answer(&self) -> (u64, Option<String>) {
        let answer = self.answers.recv_timeout(PATIENCE).expect("an answer");
        (answer.number, answer.trouble)
    }

    fn wrote(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    fn end(&mut self) {
        self.wishes = None;
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

#[test]
fn the_command_knows_whom_to_keep_off_and_says_why_it_can_not() {
    let script = "env | grep ^TWINVM_ | sort > env\n[ -e ok ] && exit\n\
                  echo connecting; echo 'no route to the switch' >&2; touch ok; exit 3";
    let mut runner = Runner::of(script, PATIENCE);
    runner.wish(1, 7);
    let why = "exit status: 3: no route to the switch".to_owned();
    assert_eq!(runner.answer(), (1, Some(why)));
    runner.wish(2, 8);
    assert_eq!(runner.answer(), (2, None));
    assert_eq!(
        runner.wrote("env"),
        "TWINVM_DISK=nbd://san/shop\nTWINVM_EVENT=took-over\nTWINVM_GENERATION=8\n\
         TWINVM_NODE=a\nTWINVM_PEER=b\nTWINVM_VM=shop\n"
    );
    runner.end();
}

#[test]
fn it_has_its_time_and_no_more() {
    let mut runner = Runner::of("sleep 60; touch done", Duration::from_millis(50));
    runner.wish(1, 7);
    let why = "killed: it took too long".to_owned();
    assert_eq!(runner.answer(), (1, Some(why)));
    assert!(!runner.folder.path().join("done").exists());
    runner.end();
}

#[test]
fn what_an_older_generation_wanted_is_ended() {
    let script = "[ $TWINVM_GENERATION = 9 ] && exit; touch began; sleep 60";
    let mut runner = Runner::of(script, Duration::from_secs(3600));
    runner.wish(1, 7);
    let until = Instant::now() + PATIENCE;
    while !runner.folder.path().join("began").exists() {
        assert!(Instant::now() < until, "it never began");
        thread::sleep(Duration::from_millis(1));
    }
    runner.wish(2, 9);
    let (number, trouble) = runner.answer();
    assert_eq!((number, trouble.is_some()), (1, true));
    assert_eq!(runner.answer(), (2, None));
    // And with the node.
    runner.wish(3, 7);
    runner.end();
}
