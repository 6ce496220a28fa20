use std::sync::mpsc;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn server() -> MetricsServer {
    let listen = "127.0.0.1:0".parse().unwrap();
    let figures = || Ok("# TYPE twinvm_protected gauge\ntwinvm_protected 1\n".to_owned());
    MetricsServer::start(listen, Box::new(figures)).unwrap()
}

fn connect(server: &MetricsServer) -> TcpStream {
    let stream = TcpStream::connect(server.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What a client that writes `text` reads.
fn asked(server: &MetricsServer, text: &[u8]) -> String {
    let mut stream = connect(server);
    let _ = stream.write_all(text);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn the_figures_are_at_metrics() {
    let server = server();
    let body = "# TYPE twinvm_protected gauge\ntwinvm_protected 1\n";
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let whole = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n\r\n";
    assert_eq!(asked(&server, whole), format!("{head}{body}"));
    let query = b"GET /metrics?x=1 HTTP/1.0\n\n";
    assert_eq!(asked(&server, query), format!("{head}{body}"));
    assert_eq!(asked(&server, b"HEAD /metrics HTTP/1.1\r\n\r\n"), head);
}

#[test]
fn other_requests_are_told_what_is_wrong() {
    let server = server();
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404 Not Found"),
        (b"GET /metricsx HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /metrics\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics SPDY/3\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics HTTP/1.1 x\r\n\r\n", "400 Bad Request"),
        (b"\xff\xfe\r\n\r\n", "400 Bad Request"),
        (b"\r\n\r\n", "400 Bad Request"),
    ] {
        let answer = asked(&server, request);
        let expected = format!("HTTP/1.1 {status}\r\n");
        assert!(answer.starts_with(&expected), "{request:?}: {answer}");
    }
}

#[test]
fn a_node_that_does_not_answer_is_no_figure() {
    let listen = "127.0.0.1:0".parse().unwrap();
    let figures = || Err("the node is ending".to_owned());
    let server = MetricsServer::start(listen, Box::new(figures)).unwrap();
    let answer = asked(&server, b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nthe node is ending\n"), "{answer}");
}

#[test]
fn a_request_without_end_is_cut_off() {
    let server = server();
    let mut stream = connect(&server);
    // As much as is read before it is enough; what comes after may break the connection.
    let _ = stream.write_all(&[b'x'; MAX_REQUEST_BYTES + 1]);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[test]
fn dawdlers_are_few_and_gone_soon() {
    let server = server();
    let mut slow: Vec<TcpStream> = (0..MAX_CLIENTS).map(|_| connect(&server)).collect();
    // A byte now and then does not prolong it.
    let (stop, stopped) = mpsc::channel::<()>();
    let mut dripping = slow
        .iter()
        .map(|s| s.try_clone().unwrap())
        .collect::<Vec<_>>();
    let dripper = thread::spawn(move || {
        while stopped.recv_timeout(Duration::from_millis(50))
            == Err(mpsc::RecvTimeoutError::Timeout)
        {
            for stream in &mut dripping {
                let _ = stream.write_all(b"G");
            }
        }
    });
    for stream in &mut slow {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    drop(stop);
    dripper.join().unwrap();
    // Their places are free again, soon after.
    let until = Instant::now() + PATIENCE;
    while !asked(&server, b"GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 ") {
        assert!(Instant::now() < until);
    }
}

#[test]
fn more_clients_than_places_are_sent_away_at_once() {
    let until = Instant::now() + PATIENCE;
    loop {
        let server = server();
        let held: Vec<TcpStream> = (0..MAX_CLIENTS).map(|_| connect(&server)).collect();
        let mut more = connect(&server);
        let mut answer = String::new();
        // Closed without a word, long before those that hold the places are given up.
        let sent_away = more.read_to_string(&mut answer).is_ok() && answer.is_empty();
        let mut one = &held[0];
        let _ = one.write_all(b"GET /metrics HTTP/1.1\r\n\r\n");
        let _ = one.read_to_string(&mut answer);
        if sent_away && answer.starts_with("HTTP/1.1 200 ") {
            return;
        }
        // On a busy host their time may be over by then.
        let late = answer.contains("HTTP/1.1 408 ");
        assert!(late && Instant::now() < until, "{answer}");
    }
}

#[test]
fn a_port_that_is_in_use_is_named() {
    let server = server();
    let error = MetricsServer::start(server.local_addr(), Box::new(|| Ok(String::new())));
    let text = error.unwrap_err().to_string();
    let begin = format!("metrics: can't listen on {}: Address", server.local_addr());
    assert!(
        text.starts_with(&begin) && text.contains("--metrics"),
        "{text}"
    );
}
