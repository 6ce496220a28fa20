use proptest::prelude::*;
use twinvm_protocol::{Incarnation, LiveName, NodeId};

use super::*;

#[test]
fn base64_is_that_of_the_rfc() {
    // RFC 4648, section 10.
    let vectors = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];
    for (bytes, text) in vectors {
        assert_eq!(base64::encode(bytes.as_bytes()), text);
        assert_eq!(base64::decode(text).as_deref(), Some(bytes.as_bytes()));
    }
    for bad in [
        "Z", "Zg", "Zg=", "Zh==", "=Zg=", "Zg==Zg==", "====", "Z g=", "Zm9v\n",
    ] {
        assert_eq!(base64::decode(bad), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn base64_keeps_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..99), text in "[A-Za-z0-9+/=]{0,12}") {
        let encoded = base64::encode(&bytes);
        prop_assert_eq!(base64::decode(&encoded), Some(bytes));
        if let Some(decoded) = base64::decode(&text) {
            prop_assert_eq!(base64::encode(&decoded), text);
        }
    }
}

#[test]
fn two_clusters_are_not_taken_for_one() {
    let vm = VmName::new("shop").expect("a name");
    let mut arbiter = EtcdArbiter::new(Vec::new(), &vm, None);
    let answer = |cluster: &str| json!({ "header": { "cluster_id": cluster } }).to_string();
    assert!(arbiter.judge(answer("7").as_bytes()).is_ok());
    let why = arbiter.judge(answer("8").as_bytes()).expect_err("another");
    assert!(why.contains("cluster 8") && why.contains("to 7"), "{why}");
    assert!(arbiter.judge(answer("7").as_bytes()).is_ok());
    for bad in [&b"ok"[..], b"{}", b"{\"header\":{}}"] {
        assert!(arbiter.judge(bad).is_err());
    }
    // Without members there is nobody to ask.
    assert_eq!(arbiter.read(), Outcome::Unknown);
    assert!(arbiter.take_trouble().is_some());
}

#[test]
fn only_a_whole_answer_is_a_record_or_none() {
    let (id, incarnation) = (NodeId(1), Incarnation(2));
    let record = Record::solo(Generation(7), LiveName { id, incarnation });
    let value = base64::encode(&encode_record(&record));
    let pair = json!({ "key": "a2V5", "value": value });
    let header = json!({ "cluster_id": "1" });
    let read = |answer: &Value| record_in(answer, "a2V5");
    let one = json!({ "header": header, "kvs": [pair], "count": "1" });
    assert_eq!(read(&one), Ok(Some(record)));
    assert_eq!(read(&json!({ "header": header })), Ok(None));
    let damaged = json!({ "key": "a2V5", "value": "AAAA" });
    for bad in [
        json!({}),
        json!([]),
        json!({ "kvs": [pair], "count": "1" }),
        json!({ "header": header, "count": "1" }),
        json!({ "header": header, "kvs": [pair] }),
        json!({ "header": header, "kvs": [pair, pair], "count": "2" }),
        json!({ "header": header, "kvs": [{ "key": "eA==", "value": value }], "count": "1" }),
        json!({ "header": header, "kvs": [{ "key": "a2V5" }], "count": "1" }),
        json!({ "header": header, "kvs": [damaged], "count": "1" }),
    ] {
        assert!(read(&bad).is_err(), "{bad}");
    }
}

/// Time may be over at any moment, and after a pause nobody has been asked again yet.
#[test]
fn the_last_reason_is_told_whenever_the_time_is_over() {
    // Nobody is given this port.
    let at: SocketAddr = "127.0.0.1:1".parse().expect("an address");
    let vm = VmName::new("shop").expect("a name");
    let mut arbiter = EtcdArbiter::new(vec![Member { at, name: None }], &vm, None);
    let why = arbiter
        .ask("/", &json!({}), Instant::now())
        .expect_err("no time");
    assert!(why.contains("no time was left"), "{why}");
    for n in 0..20 {
        let mut ask = || {
            let until = Instant::now() + PAUSE + Duration::from_micros(100 * n);
            arbiter
                .ask("/", &json!({}), until)
                .expect_err("nobody is there")
        };
        // A busy host may keep it waiting before it asks for the first time.
        let mut why = ask();
        for _ in 0..2 {
            if why.contains("no time was left") {
                why = ask();
            }
        }
        assert!(
            why.contains(&at.to_string()) && why.contains("refused"),
            "{why}"
        );
    }
}

/// The last try of a call may have next to no time, and its silence says nothing of the member.
#[test]
fn a_try_that_was_cut_short_hides_no_reason() {
    let listener = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let ask = |listener: &std::net::TcpListener| {
        let at = listener.local_addr().expect("its address");
        let vm = VmName::new("shop").expect("a name");
        let mut arbiter = EtcdArbiter::new(vec![Member { at, name: None }], &vm, None);
        let until = Instant::now() + MEMBER_LIMIT * 3 / 4;
        arbiter.ask("/", &json!({}), until).expect_err("no answer")
    };
    let silent = listener();
    let why = ask(&silent);
    assert!(why.contains("it does not answer in time"), "{why}");

    // One connection is closed, the next one kept without an answer.
    let one_of_two = listener();
    let server = one_of_two.try_clone().expect("a copy");
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for number in 0.. {
            match server.accept() {
                Ok(_closed) if number % 2 == 0 => {}
                Ok(silent) => kept.push(silent),
                Err(_) => return,
            }
        }
    });
    // On a busy host it may be late.
    let mut why = (0..5).map(|_| ask(&one_of_two));
    assert!(
        why.any(|why| !why.contains("in time")),
        "the first try's reason is told"
    );
}
