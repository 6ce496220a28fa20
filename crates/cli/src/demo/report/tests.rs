use super::super::timeline::Gap;
use super::*;

fn seen() -> Told {
    Told {
        times_us: vec![1_000, 2_000, 402_000, 403_000],
        tally: Tally {
            answers: 4,
            ..Tally::default()
        },
        final_check: Some(true),
        wording: Wording {
            what: "answers",
            on: "on one connection",
            right: "all there",
            wrong: "NOT ALL THERE",
            ..Wording::default()
        },
        ..Told::default()
    }
}

fn kill() -> Kill {
    Kill {
        node: "a",
        at_us: 2_500,
        pause: Some(Gap {
            start_us: 2_000,
            end_us: 402_000,
        }),
        takeover: Some(Takeover {
            at_unix_ms: Some(1.0),
            detect_ms: Some(300.25),
            arbitrate_ms: Some(2.0),
            drain_ms: Some(0.5),
            announce_ms: None,
        }),
        protected_us: Some(900_000),
        reprotect_ms: Some(450.1234),
        join_pause_ms: Some(12.0),
    }
}

fn report(seen: &Told, kills: &[Kill], failure: Option<&str>) -> Report {
    let work = Work {
        seconds: 2.0,
        log_bytes: 25_000,
        instructions: 170_000_000,
    };
    Report::new(seen, kills, &work, (7, 1), failure.map(str::to_owned))
}

#[test]
fn the_json_has_every_field() {
    let json = serde_json::to_value(report(&seen(), &[kill()], None)).unwrap();
    assert_eq!(json["answers"], 4);
    for field in ["lost", "duplicated", "out_of_order", "wrong"] {
        assert_eq!(json[field], 0, "{field}");
    }
    assert_eq!(json["final_check"], true);
    assert_eq!(json["ok"], true);
    assert_eq!(json["log_mbit_s"], 0.1);
    assert_eq!(json["guest_mips"], 85.0);
    assert_eq!(json["reprotect_ms"], serde_json::json!([450.123]));
    assert_eq!(json["seed"], 7);
    assert_eq!(json["kills"], 1);
    assert_eq!(json["seconds"], 0.402);
    assert_eq!(json["pause_ms"]["p50"], 400.0);
    let takeover = &json["takeovers"][0];
    assert_eq!(takeover["at_s"], 0.003);
    assert_eq!(takeover["node"], "a");
    assert_eq!(takeover["pause_ms"], 400.0);
    assert_eq!(takeover["detect_ms"], 300.25);
    assert_eq!(takeover["arbitrate_ms"], 2.0);
    assert_eq!(takeover["drain_ms"], 0.5);
    assert!(takeover["announce_ms"].is_null());
    assert!(json.get("failure").is_none());
}

#[test]
fn each_thing_that_can_be_wrong_makes_it_not_ok() {
    let good = seen();
    assert!(report(&good, &[kill()], None).ok);
    let mut lost = good.clone();
    lost.tally.lost = 1;
    assert!(!report(&lost, &[kill()], None).ok);
    let mut miscounted = good.clone();
    miscounted.final_check = Some(false);
    assert!(!report(&miscounted, &[kill()], None).ok);
    let mut unasked = good.clone();
    unasked.final_check = None;
    assert!(!report(&unasked, &[kill()], None).ok);
    let mut broken = good.clone();
    broken.fault = Some("reset".to_owned());
    assert!(!report(&broken, &[kill()], None).ok);
    assert!(!report(&good, &[kill()], Some("never protected")).ok);
    assert!(!report(&good, &[], None).ok, "a kill is missing");
}

#[test]
fn a_history_that_no_order_explains_makes_it_not_ok() {
    let history = |failure: Option<&str>| History {
        clients: 3,
        answers: 1234,
        linearizable: failure.is_none(),
        failure: failure.map(str::to_owned),
    };
    let with = |failure| Told {
        history: Some(history(failure)),
        ..seen()
    };
    let good = report(&with(None), &[kill()], None);
    assert!(good.ok);
    let text = good.to_string();
    assert!(
        text.contains("1234 answers to 3 clients at a time: linearizable"),
        "{text}"
    );
    let bad = report(&with(Some("key 2: no order")), &[kill()], None);
    assert!(!bad.ok);
    assert_eq!(bad.failure.as_deref(), Some("key 2: no order"));
    let json = serde_json::to_value(&bad).unwrap();
    assert_eq!(json["history"]["linearizable"], false);
}

#[test]
fn a_session_that_breaks_makes_it_not_ok() {
    let with = |failure: Option<&str>| Told {
        sessions: ["pgbench", "ssh"]
            .map(|name| Session {
                name,
                told: "12 lines".to_owned(),
                failure: failure.filter(|_| name == "ssh").map(str::to_owned),
            })
            .into(),
        ..seen()
    };
    let good = report(&with(None), &[kill()], None);
    assert!(good.ok);
    let text = good.to_string();
    let lines = "sessions   pgbench: 12 lines\n           ssh: 12 lines\n";
    assert!(text.contains(lines), "{text}");
    let bad = report(&with(Some("ended")), &[kill()], None);
    assert!(!bad.ok);
    assert_eq!(bad.failure.as_deref(), Some("ssh: ended"));
    assert!(bad.to_string().contains("ssh: BROKEN: 12 lines"));
}

#[test]
fn the_summary_names_counts_and_pauses() {
    let text = report(&seen(), &[kill()], None).to_string();
    assert!(
        text.contains("answers    4 in 0.4 s on one connection; all there"),
        "{text}"
    );
    assert!(
        text.contains("0 lost, 0 duplicated, 0 out of order"),
        "{text}"
    );
    assert!(
        text.contains("p50 400.0 ms, p99 400.0 ms, longest 400.0 ms"),
        "{text}"
    );
    assert!(
        text.contains("log 0.10 Mbit/s, guest 85.0 million"),
        "{text}"
    );
}

#[test]
fn a_report_of_nothing_is_a_report() {
    let report = report(&Told::default(), &[], Some("never up"));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["failure"], "never up");
    assert!(json["pause_ms"]["max"].is_null());
    assert!(report.to_string().contains("0 in 0.0 s"));
}
