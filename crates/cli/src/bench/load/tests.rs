use std::net::TcpListener;
use std::thread;

use super::*;
use crate::bench::tests::idle_bench;

/// A server that gives `answers` one after the other, each for one more kilobyte read at most.
fn server(answers: Vec<Vec<u8>>, expected: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for answer in answers {
            let mut request = vec![0; expected];
            if stream.read_exact(&mut request).is_err() {
                return;
            }
            // In two pieces, so that the client sees half an answer.
            let (first, second) = answer.split_at(answer.len() / 2);
            let _ = stream.write_all(first);
            thread::sleep(Duration::from_millis(2));
            let _ = stream.write_all(second);
        }
    });
    address
}

fn lane(answers: Vec<Vec<u8>>, block: &[u8]) -> Pipelines {
    let stream = connect(server(answers, block.len())).unwrap();
    stream.set_nonblocking(true).unwrap();
    let (missing, blocks) = (0, 0);
    Pipelines {
        lanes: vec![Lane {
            stream,
            missing,
            blocks,
        }],
        block: block.to_vec(),
    }
}

#[test]
fn every_answer_in_the_pipeline_is_judged() {
    let bench = idle_bench();
    let good = OK.repeat(DEPTH);
    let mut pipelines = lane(vec![good.clone(); 3], b"x");
    pipelines.turn(&bench, 3).unwrap();
    let mut bad = good.clone();
    bad[40] = b'-';
    for wrong in [bad, [good.clone(), OK.to_vec()].concat()] {
        let mut pipelines = lane(vec![good.clone(), wrong], b"x");
        let error = pipelines.turn(&bench, 2).unwrap_err().to_string();
        assert!(error.contains("the answer to SET was"), "{error}");
    }
    let mut pipelines = lane(vec![good], b"x");
    let error = pipelines.turn(&bench, 2).unwrap_err().to_string();
    assert!(
        error.contains("closed") || error.contains("reset"),
        "{error}"
    );
}

#[test]
fn a_large_value_comes_back_as_it_was() {
    let bench = idle_bench();
    let request = resp::command(&["GET", "k"]).len();
    let value = Bulk::new(server(Vec::new(), 1)).unwrap().value;
    assert!(!value.contains(&0));
    let answer = [format!("${VALUE_BYTES}\r\n").as_bytes(), &value, b"\r\n"].concat();
    let mut other = answer.clone();
    other[VALUE_BYTES / 2] ^= 1;
    let mut bulk = Bulk::new(server(vec![answer, other], request)).unwrap();
    bulk.get(&bench, "k").unwrap();
    let error = bulk.get(&bench, "k").unwrap_err().to_string();
    assert!(error.contains("another value"), "{error}");
}
