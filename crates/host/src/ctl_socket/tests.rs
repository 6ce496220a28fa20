use crossbeam_channel::Receiver;
use serde_json::json;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Served {
    dir: tempfile::TempDir,
    path: PathBuf,
    server: CtlServer,
    calls: Receiver<CtlCall>,
}

fn served(bound: usize) -> Served {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("a")).unwrap();
    let path = dir.path().join("a/ctl.sock");
    let (sender, calls) = bounded(bound);
    let server = CtlServer::start(&path, sender).unwrap();
    Served {
        dir,
        path,
        server,
        calls,
    }
}

/// What a client that writes `text` reads.
fn raw(path: &Path, text: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(text);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn requests_reach_the_loop_and_answers_the_client() {
    let s = served(8);
    let requests = [
        CtlRequest::Status {},
        CtlRequest::Stop {},
        CtlRequest::Takeover {},
        CtlRequest::Detach {},
        CtlRequest::Snapshot {
            to: None,
            force: false,
        },
        CtlRequest::Snapshot {
            to: Some(PathBuf::from("/tmp/x")),
            force: true,
        },
        CtlRequest::Digest {},
        CtlRequest::Metrics {},
    ];
    let count = requests.len();
    let calls = s.calls;
    let node = thread::spawn(move || {
        for turn in 0..count {
            let call = calls.recv_timeout(PATIENCE).unwrap();
            let seen = format!("{:?}", call.request);
            call.reply.send(match turn {
                1 => Err("not live".to_owned()),
                _ => Ok(json!({ "seen": seen })),
            });
        }
    });
    for (turn, asked) in requests.iter().enumerate() {
        let answer = request(&s.path, asked);
        if turn == 1 {
            assert_eq!(answer.unwrap_err().to_string(), "node a: not live");
        } else {
            assert_eq!(answer.unwrap(), json!({ "seen": format!("{asked:?}") }));
        }
    }
    node.join().unwrap();
}

#[test]
fn long_work_says_how_far_it_is_and_hears_that_nobody_listens() {
    let s = served(8);
    let path = s.path.clone();
    let client = thread::spawn(move || {
        let mut heard = Vec::new();
        let answer = request_with(&path, &CtlRequest::Digest {}, &mut |value| {
            heard.push(value.clone());
        });
        (heard, answer.unwrap())
    });
    let call = s.calls.recv_timeout(PATIENCE).unwrap();
    assert!(call.reply.progress(json!(1)));
    // Never more than one waits, and the answer always finds room.
    for _ in 0..1000 {
        assert!(call.reply.progress(json!(2)));
    }
    call.reply.send(Ok(json!("done")));
    let (heard, answer) = client.join().unwrap();
    assert_eq!(heard[0], json!(1));
    assert_eq!(answer, json!("done"));

    let mut gone = UnixStream::connect(&s.path).unwrap();
    gone.write_all(b"{\"op\":\"snapshot\"}\n").unwrap();
    let call = s.calls.recv_timeout(PATIENCE).unwrap();
    drop(gone);
    while call.reply.progress(json!(1)) {
        thread::yield_now();
    }
}

#[test]
fn who_has_gone_with_something_unheard_is_missed_all_the_same() {
    let (reply, heard) = CtlReply::new();
    assert!(reply.progress(json!(1)));
    assert!(reply.progress(json!(2)));
    drop(heard);
    assert!(!reply.progress(json!(3)));
}

#[test]
fn the_wire_is_what_the_page_says() {
    let s = served(8);
    let node = thread::spawn(move || {
        let call = s.calls.recv_timeout(PATIENCE).unwrap();
        assert_eq!(call.request, CtlRequest::Status {});
        call.reply.send(Ok(json!({"vm": "redis"})));
        let call = s.calls.recv_timeout(PATIENCE).unwrap();
        call.reply.send(Err("no".to_owned()));
    });
    let answer = raw(&s.path, b"{\"op\":\"status\"}\n");
    assert_eq!(answer, "{\"ok\":{\"vm\":\"redis\"}}\n");
    let answer = raw(&s.path, b"{\"op\":\"stop\"}\nmore");
    assert_eq!(answer, "{\"error\":\"no\"}\n");
    node.join().unwrap();
}

#[test]
fn nonsense_is_answered_and_goes_no_further() {
    let s = served(8);
    let long = [b'x'; 2 * MAX_REQUEST_BYTES];
    for text in [
        &b"\n"[..],
        b"status\n",
        b"{\"op\":\"dance\"}\n",
        b"{\"op\":\"stop\",\"force\":true}\n",
        b"{\"op\":\"snapshot\",\"to\":7}\n",
        b"\xff\xfe\n",
        &long,
    ] {
        let answer = raw(&s.path, text);
        assert!(
            answer.starts_with("{\"error\":") && answer.ends_with("}\n"),
            "{answer}"
        );
    }
    assert!(s.calls.is_empty());
}

#[test]
fn a_client_that_says_nothing_is_let_go_and_holds_nobody_up() {
    let s = served(8);
    let until = Instant::now() + PATIENCE;
    let mut idle = loop {
        let mut idle = UnixStream::connect(&s.path).unwrap();
        let asking = {
            let path = s.path.clone();
            thread::spawn(move || request(&path, &CtlRequest::Status {}))
        };
        let call = s.calls.recv_timeout(PATIENCE).unwrap();
        call.reply.send(Ok(Value::Null));
        assert_eq!(asking.join().unwrap().unwrap(), Value::Null);
        // The other one was served while this one was waited for, unless the host was too busy.
        idle.set_nonblocking(true).unwrap();
        let waits = idle.read(&mut [0; 1]);
        if waits.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            break idle;
        }
        assert!(Instant::now() < until, "it always holds the other one up");
    };
    idle.set_nonblocking(false).unwrap();
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    // A byte now and then does not help it: its line may be a hundred times as long.
    let mut dripping = idle.try_clone().unwrap();
    let dripper = thread::spawn(move || {
        while dripping.write_all(b"{").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let mut answer = String::new();
    let _ = idle.read_to_string(&mut answer);
    assert!(answer.contains("in time"), "{answer}");
    dripper.join().unwrap();
}

#[test]
fn clients_are_bounded() {
    let s = served(2 * MAX_CLIENTS);
    let clients: Vec<_> = (0..MAX_CLIENTS)
        .map(|_| {
            let path = s.path.clone();
            thread::spawn(move || request(&path, &CtlRequest::Status {}))
        })
        .collect();
    let calls: Vec<CtlCall> = (0..MAX_CLIENTS)
        .map(|_| s.calls.recv_timeout(PATIENCE).unwrap())
        .collect();
    let error = request(&s.path, &CtlRequest::Status {}).unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
    for call in calls {
        call.reply.send(Ok(Value::Null));
    }
    for client in clients {
        assert!(client.join().unwrap().is_ok());
    }
}

#[test]
fn a_busy_an_ending_and_an_ended_loop() {
    let s = served(0);
    let ask = |path: &Path| {
        request(path, &CtlRequest::Status {})
            .unwrap_err()
            .to_string()
    };
    assert!(ask(&s.path).contains("busy"));
    drop(s.calls);
    assert!(ask(&s.path).contains("ending"));

    let s = served(1);
    let path = s.path.clone();
    let asking = thread::spawn(move || request(&path, &CtlRequest::Stop {}));
    drop(s.calls.recv_timeout(PATIENCE).unwrap());
    let error = asking.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("ended before it answered"), "{error}");

    let path = s.path.clone();
    drop(s.server);
    assert!(!path.exists());
    let text = format!(
        "node a is not running (no socket {}): start its service, or `twinvm node`",
        path.display()
    );
    assert_eq!(ask(&path), text);
    drop(s.dir);
    assert_eq!(ask(&path), text);
}

/// A process that ends as soon as it has answered has said so.
#[test]
fn an_answer_that_was_given_is_written_when_the_server_has_ended() {
    for _ in 0..100 {
        let s = served(1);
        let mut client = UnixStream::connect(&s.path).unwrap();
        client.write_all(b"{\"op\":\"stop\"}\n").unwrap();
        let call = s.calls.recv_timeout(PATIENCE).unwrap();
        call.reply.send(Ok(json!({"begun": true})));
        drop(s.server);
        client.set_nonblocking(true).unwrap();
        let mut answer = [0; 64];
        let count = client.read(&mut answer).unwrap();
        assert_eq!(&answer[..count], b"{\"ok\":{\"begun\":true}}\n");
    }
}

#[test]
fn what_a_killed_node_left_is_replaced() {
    let s = served(1);
    let path = s.dir.path().join("left.sock");
    drop(UnixListener::bind(&path).unwrap());
    let error = request(&path, &CtlRequest::Status {}).unwrap_err();
    assert!(matches!(error, CtlError::NotRunning { .. }));
    let (sender, calls) = bounded(1);
    let _server = CtlServer::start(&path, sender).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let asking = thread::spawn(move || request(&path, &CtlRequest::Status {}));
    calls
        .recv_timeout(PATIENCE)
        .unwrap()
        .reply
        .send(Ok(json!(1)));
    assert_eq!(asking.join().unwrap().unwrap(), json!(1));
}

#[test]
fn paths_that_cannot_be_had_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let start = |path: &Path| {
        let (sender, _calls) = bounded(1);
        CtlServer::start(path, sender).unwrap_err()
    };
    let file = dir.path().join("file");
    fs::write(&file, "precious").unwrap();
    assert!(matches!(start(&file), CtlServerError::NotASocket(_)));
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    let long = dir.path().join("x".repeat(120));
    let error = start(&long).to_string();
    assert!(
        error.contains("state_dir") && error.contains("107"),
        "{error}"
    );
    let nowhere = dir.path().join("no/ctl.sock");
    let error = start(&nowhere).to_string();
    assert!(error.starts_with(&nowhere.display().to_string()), "{error}");
}
