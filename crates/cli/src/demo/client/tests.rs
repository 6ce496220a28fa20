use std::io::{BufRead, BufReader};
use std::net::TcpListener;

use super::*;

/// A server for one connection: `answer(nth request, count)` gives the bytes for each INCR.
fn serve(
    answer: impl Fn(u64) -> Vec<u8> + Send + 'static,
    count: Option<&'static str>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut asked = 0;
        while let Some(Ok(line)) = lines.next() {
            let bytes = match line.as_str() {
                "INCR" => {
                    asked += 1;
                    answer(asked)
                }
                "PING" => b"+PONG\r\n".to_vec(),
                "GET" => {
                    let value = count.map_or(asked.to_string(), str::to_owned);
                    format!("${}\r\n{value}\r\n", value.len()).into_bytes()
                }
                _ => continue,
            };
            if bytes.is_empty() || stream.write_all(&bytes).is_err() {
                return;
            }
        }
    });
    address
}

fn number(n: u64) -> Vec<u8> {
    format!(":{n}\r\n").into_bytes()
}

/// Lets the client count until it has `answers` or gives up.
fn watch(address: SocketAddr, answers: usize) -> Seen {
    let client = Client::start(address).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.fault().is_none() && client.seen().times_us.len() < answers {
        assert!(Instant::now() < deadline, "{:?}", client.seen().tally);
        thread::sleep(Duration::from_millis(1));
    }
    client.finish()
}

#[test]
fn a_server_that_counts_is_found_clean() {
    let seen = watch(serve(number, None), 50);
    assert!(seen.tally.is_clean());
    assert!(seen.tally.answers >= 50);
    assert_eq!(seen.fault, None);
    assert_eq!(seen.final_value, Some(seen.last.to_string()));
    assert_eq!(seen.times_us.len() as u64, seen.tally.answers);
    assert!(seen.times_us.is_sorted());
}

#[test]
fn an_answer_made_twice_is_seen_and_does_not_count_as_the_next() {
    let twice = |n| {
        if n == 5 {
            [number(n), number(n)].concat()
        } else {
            number(n)
        }
    };
    let seen = watch(serve(twice, None), 10);
    assert_eq!(seen.tally.duplicated, 1);
    assert_eq!(seen.tally.lost, 0);
    assert_eq!(seen.final_value, Some(seen.last.to_string()));
}

#[test]
fn a_request_carried_out_twice_is_seen() {
    let seen = watch(serve(|n| number(n + u64::from(n > 4)), None), 10);
    assert_eq!(seen.tally.lost, 1);
    assert_ne!(seen.final_value, Some(seen.last.to_string()));
}

#[test]
fn a_connection_that_ends_is_a_lost_answer() {
    let seen = watch(
        serve(|n| if n < 4 { number(n) } else { Vec::new() }, None),
        9,
    );
    assert_eq!((seen.tally.answers, seen.tally.lost), (3, 1));
    let fault = seen.fault.unwrap();
    assert!(
        fault.starts_with("after answer 3, request 4 got none"),
        "{fault}"
    );
}

#[test]
fn an_error_reply_is_wrong() {
    let seen = watch(serve(|_| b"-LOADING wait\r\n".to_vec(), None), 9);
    assert_eq!(seen.tally.wrong, 1);
    assert!(seen.fault.unwrap().contains("LOADING"));
}

#[test]
fn the_count_at_the_end_is_what_the_server_says() {
    let seen = watch(serve(number, Some("4")), 9);
    assert_eq!(seen.final_value.as_deref(), Some("4"));
}

#[test]
fn answers_after_a_moment_are_counted() {
    let client = Client::start(serve(number, None)).unwrap();
    let moment = client.now_us();
    let deadline = Instant::now() + Duration::from_secs(10);
    let third = loop {
        if let Some(at) = client.answer_after(moment, 3) {
            break at;
        }
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(1));
    };
    let later: Vec<u64> = client.seen().times_us;
    assert_eq!(
        later
            .iter()
            .filter(|&&at| moment < at && at < third)
            .count(),
        2
    );
    assert_eq!(client.answer_after(u64::MAX, 1), None);
}

#[test]
fn a_server_is_asked_whether_it_is_there() {
    assert!(ping(serve(number, None), Duration::from_secs(5)));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    assert!(!ping(address, Duration::from_millis(150)));
    drop(silent);
    assert!(!ping(address, Duration::from_millis(150)));
}
