use super::*;

const LIVE: &str = "packet 0 110
sending 40 112
sent 40 113
ack-came 40 114
ack-taken 40 115
sending 41 150
sent 41 160
ack-came 41 190
ack-taken 41 195
out 0 200
ack-came 41 290
ack-taken 41 295
packet 0 410
sending 42 450
";
const BACKUP: &str = "came 40 113
stored 40 113
came 41 170
stored 41 180
stored 41 280
came 42 470
stored 42 4";

fn way() -> Way {
    Way::new(&read(LIVE).unwrap(), &read(BACKUP).unwrap())
}

#[test]
fn an_answer_is_the_last_packet_and_its_ack_and_batch() {
    let span = Span {
        from_ns: 100,
        to_ns: 260,
    };
    let answer = Answer {
        hops_ns: [10, 40, 20, 10, 10, 5, 5, 60].map(Some),
        written_ns: Some(10),
        waits_ns: Some(50),
    };
    assert_eq!(way().of(&span), Some(answer));
    let [first, rest @ .., last] = way().of_alone(&span).unwrap().hops_ns;
    assert_eq!((first, rest[0], last), (Some(10), Some(90), Some(60)));
    assert_eq!(rest[1..], [None; 5]);
}

#[test]
fn an_answer_with_marks_that_are_missing_is_none() {
    let (from_ns, to_ns) = (400, 500);
    assert_eq!(way().of(&Span { from_ns, to_ns }), None);
}

#[test]
fn a_torn_last_line_is_left_out_and_any_other_told() {
    assert_eq!(read(BACKUP).unwrap().len(), 6);
    let error = read("came 41\n").unwrap_err();
    assert!(
        error.to_string().contains("\"came 41\" is no mark"),
        "{error}"
    );
}
