use super::super::report::{Report, Work};
use super::*;
use crate::demo::ledger::Journal;
use crate::demo::ledger::check::Finding;

fn report_of(change: impl FnOnce(&mut Outcome)) -> Report {
    let mut outcome = Outcome {
        journal: Journal {
            acked: [3, 4, 5, 6],
            times_us: vec![1, 2, 3],
            ..Journal::default()
        },
        finding: Finding {
            judged: 20,
            ..Finding::default()
        },
    };
    change(&mut outcome);
    Report::new(&told(outcome), &[], &Work::default(), (1, 0), None)
}

#[test]
fn a_clean_ledger_is_reported_as_one() {
    let report = report_of(|_| ());
    assert!(report.ok, "{report:?}");
    let text = report.to_string();
    assert!(
        text.contains("transfers  18 in 0.0 s on 4 connections; the tables say"),
        "{text}"
    );
    assert!(
        text.contains("20 answers to 5 clients at a time: linearizable"),
        "{text}"
    );
}

#[test]
fn everything_that_a_ledger_can_find_makes_it_not_ok() {
    assert!(!report_of(|it| it.finding.lost = 1).ok);
    assert!(!report_of(|it| it.finding.duplicated = 1).ok);
    assert!(!report_of(|it| it.finding.wrong.push("sum".to_owned())).ok);
    assert!(!report_of(|it| it.finding.no_order = Some("cycle".to_owned())).ok);
    let broken = report_of(|it| it.journal.broken.push("closed".to_owned()));
    assert!(!broken.ok);
    assert_eq!(broken.failure.as_deref(), Some("closed"));
    let unknown = report_of(|it| it.finding.unknown = (1, 2));
    assert!(!unknown.ok);
    let why = unknown.failure.unwrap();
    assert!(
        why.starts_with("3 commits were never answered: 1 of them"),
        "{why}"
    );
}
