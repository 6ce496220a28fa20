//! Where a replay went wrong is found and named: beside a plain replay, or by what the recording
//! holds.

use crate::worker::{Run, machine};
use twinvm_log::{Body, Record, StateEntry};
use twinvm_machine::Machine;
use twinvm_replica::{
    Divergence, ExplainError, Explanation, Found, LiveExit, Opened, Perturbation, Recorded, Replay,
    ReplayExit, Searching, TOLD_INSTRUCTIONS, explain_disturbed, explain_recorded,
};

const STEPS: u64 = 20_000_000;
/// Steps between two keys.
const KEY_STEPS: u64 = 2_000_000;
/// Steps between two digests.
const DIGEST_STEPS: u64 = 5_000_000;
const SEED: u64 = 1;

/// A copy with all pages hashed, as a recording's snapshot gives it.
fn restored() -> Machine {
    let bytes = machine().save(true).unwrap();
    Machine::restore(&bytes, None).unwrap()
}

/// The worker's log, and what is kept at its digests.
fn record() -> (Vec<Record>, Vec<StateEntry>) {
    let mut run = Run::begin();
    run.live.keep_states();
    let mut digests = 1;
    run.run(STEPS, KEY_STEPS, |run, icount| {
        if icount / DIGEST_STEPS >= digests {
            digests += 1;
            run.live.log_digest(run.now).unwrap();
        }
    });
    // Too late for the guest to read.
    run.key(b'l');
    let records = run.end();
    (records, run.live.take_states())
}

/// Gives the plain replays the first log and every second one, the disturbed, the other; in the
/// passes after `passes` both get the first.
struct Logs {
    plain: Vec<Record>,
    disturbed: Vec<Record>,
    opened: u32,
    passes: u32,
}

impl Recorded for Logs {
    type Error = ();

    fn open(&mut self) -> Result<Opened<()>, ()> {
        self.opened += 1;
        let records = match self.opened % 2 {
            0 if self.opened <= 2 * self.passes => &self.disturbed,
            _ => &self.plain,
        };
        Ok(Opened {
            machine: restored(),
            position: 0,
            records: Box::new(records.clone().into_iter().map(Ok)),
        })
    }
}

fn replay(records: &[Record], mut perturbation: Option<Perturbation>) -> Result<(), Divergence> {
    let mut replay = Replay::new(restored(), 0);
    let mut records = records.iter().cloned();
    loop {
        replay.push(
            records
                .by_ref()
                .take(twinvm_replica::AHEAD - replay.backlog()),
        );
        let exit = match &mut perturbation {
            Some(perturbation) => perturbation.run(&mut replay, u64::MAX)?,
            None => replay.run(u64::MAX)?,
        };
        match exit {
            ReplayExit::End { .. } => return Ok(()),
            ReplayExit::Starved | ReplayExit::Busy | ReplayExit::Output { .. } => {}
            ReplayExit::Waits | ReplayExit::DiskDiffers { .. } => panic!("there is no disk"),
        }
        replay.machine_mut().take_console();
    }
}

fn explain(logs: (&[Record], &[Record]), sabotage: Option<u64>) -> (Divergence, Explanation) {
    let (divergence, found, _) = explain_in(logs, sabotage, u32::MAX / 2);
    (divergence, found)
}

/// The same where only the first passes see the fault; also the number of passes made.
fn explain_in(
    logs: (&[Record], &[Record]),
    sabotage: Option<u64>,
    passes: u32,
) -> (Divergence, Explanation, u32) {
    let mut perturbation = |machine: &Machine| {
        let mut perturbation = Perturbation::new(SEED, machine);
        if let Some(step) = sabotage {
            perturbation.sabotage(step);
        }
        perturbation
    };
    let divergence = replay(logs.1, Some(perturbation(&machine()))).expect_err("it was sabotaged");
    let mut logs = Logs {
        plain: logs.0.to_vec(),
        disturbed: logs.1.to_vec(),
        opened: 0,
        passes,
    };
    let mut made = 0;
    let found = explain_disturbed(
        &mut logs,
        &mut perturbation,
        u64::MAX,
        &divergence,
        &mut |searching| {
            if let Searching::Pass { number, .. } = searching {
                made = number;
            }
        },
    );
    let found = found.unwrap_or_else(|_| panic!("no explanation"));
    (divergence, found, made)
}

/// The log with another key at the record `n` keys from the first.
fn other_key(records: &[Record], n: usize, key: u8) -> (Vec<Record>, usize) {
    let mut records = records.to_vec();
    let mut keys =
        (0..records.len()).filter(|at| matches!(records[*at].body, Body::ConsoleRx { .. }));
    let at = keys.nth(n).unwrap();
    records[at].body = Body::ConsoleRx { bytes: vec![key] };
    (records, at)
}

#[test]
fn a_disturbance_that_matters_is_named_at_its_step() {
    let (records, _) = record();
    let (divergence, found) = explain((&records, &records), Some(STEPS / 2));
    assert_eq!(found.found, Found::Disturbance, "{found:?}");
    let difference = found.difference.unwrap();
    assert_eq!(difference.item, "uart fifo");
    assert_eq!(
        (difference.left.as_str(), difference.right.as_str()),
        ("[]", "[0x78]")
    );
    // The first slice end from there on; slices have 600,000 steps at most.
    assert!((STEPS / 2..STEPS / 2 + 600_000).contains(&found.icount));
    assert!(found.icount <= divergence.icount);
    assert_eq!(found.slice.unwrap().0, found.icount);
    assert_eq!(found.instructions.len() as u64, TOLD_INSTRUCTIONS);
    let last = found.instructions.last().unwrap();
    assert_eq!((last.icount, last.hart), (found.icount, 0));
    assert!(
        found
            .instructions
            .iter()
            .any(|it| it.text.starts_with("lbu t0,"))
    );
}

#[test]
fn a_record_that_is_applied_otherwise_is_named_at_the_next_step() {
    let (records, _) = record();
    let (other, at) = other_key(&records, 5, b'j');
    let (_, found) = explain((&records, &other), None);
    assert_eq!(found.found, Found::Step, "{found:?}");
    assert_eq!(found.icount, records[at].icount + 1);
    assert!(found.position > at as u64);
    let difference = found.difference.unwrap();
    assert_eq!(difference.item, "uart fifo[0]");
    assert_eq!(
        (difference.left.as_str(), difference.right.as_str()),
        ("0x6b", "0x6a")
    );
}

#[test]
fn what_goes_away_when_it_is_looked_at_is_said_with_its_slice() {
    let (records, _) = record();
    let (other, at) = other_key(&records, 5, b'j');
    let (_, real, passes) = explain_in((&records, &other), None, u32::MAX / 2);
    // The disturbed replay is made once more to find the fault: none there.
    let (_, gone, _) = explain_in((&records, &other), None, 0);
    assert_eq!(gone.found, Found::Vanished, "{gone:?}");
    assert_eq!(gone.difference, None);
    let found: Vec<Explanation> = (1..passes)
        .map(|seen| explain_in((&records, &other), None, seen).1)
        .collect();
    let cut = found.iter().find(|it| it.found == Found::Slice);
    let cut = cut.unwrap_or_else(|| panic!("{found:?}"));
    assert_eq!(cut.slice, real.slice);
    let (from, to) = cut.slice.unwrap();
    assert!((from..=to).contains(&records[at].icount));
    assert_eq!(cut.notes.len(), 1);
    // What was seen at its end is still told.
    assert!(cut.difference.is_some());
}

#[test]
fn a_check_that_fails_though_the_machines_are_equal_is_told_as_such() {
    let (records, _) = record();
    let mut other = records.clone();
    let at = other
        .iter()
        .position(|record| matches!(record.body, Body::Digest { .. }))
        .unwrap();
    other[at].body = Body::Digest { digest: 5 };
    let (divergence, found) = explain((&records, &other), None);
    assert_eq!(found.found, Found::Check, "{found:?}");
    assert_eq!(
        (found.position, found.icount),
        (at as u64, records[at].icount)
    );
    assert_eq!(found.difference, None);
    assert!(found.notes[0].ends_with(&divergence.what), "{found:?}");
}

#[test]
fn a_divergence_says_what_it_has_at_hand() {
    let (mut records, _) = record();
    let anchors = |record: &Record| matches!(record.body, Body::Anchor { .. });
    let at = records.iter().rposition(anchors).unwrap();
    if let Body::Anchor { tell_tale, .. } = &mut records[at].body {
        *tell_tale ^= 1;
    }
    let found = replay(&records, None).expect_err("another tell-tale");
    assert_eq!(found.position, at as u64);
    let (start, end) = found.what.split_once(" here (hart 0 at pc 0x").unwrap();
    assert!(
        start.starts_with("tell-tale of the registers is 0x"),
        "{found}"
    );
    assert!(end.ends_with(')'), "{found}");

    // The guest powers off: its one output.
    let mut run = Run::begin();
    run.key(b'q');
    let now = run.now;
    while !matches!(
        run.live.slice(now, &mut |_| now).unwrap(),
        LiveExit::Output { .. }
    ) {}
    let mut records = run.records();
    let last = records.pop().unwrap();
    let Body::Output { hash } = last.body else {
        panic!("{last:?}");
    };
    let other = |body| {
        let mut records = records.clone();
        let icount = last.icount;
        records.push(Record { icount, body });
        replay(&records, None).expect_err("another record").what
    };
    let what = other(Body::Output { hash: 7 });
    assert!(
        what.starts_with(&format!(
            "output hash 0x0000000000000007 in the log, {hash:#018x} here: the end (PowerOff) (hart \
             0 at pc 0x"
        )),
        "{what}"
    );
    let what = other(Body::Digest { digest: 7 });
    assert!(
        what.starts_with("output here: the end (PowerOff), hash "),
        "{what}"
    );
    let goes_on = format!("; the log goes on with a digest for step {}", last.icount);
    assert!(what.ends_with(&goes_on), "{what}");
}

#[test]
fn a_recording_that_is_wrong_is_told_from_a_disturbance() {
    let (records, _) = record();
    let (other, _) = other_key(&records, 1, b'j');
    let mut logs = Logs {
        plain: other.clone(),
        disturbed: other.clone(),
        opened: 0,
        passes: u32::MAX / 2,
    };
    let mut perturbation = |machine: &Machine| Perturbation::new(SEED, machine);
    let first = perturbation(&machine());
    let divergence = replay(&other, Some(first)).expect_err("another key");
    let found = explain_disturbed(
        &mut logs,
        &mut perturbation,
        u64::MAX,
        &divergence,
        &mut |_| {},
    );
    match found {
        Err(ExplainError::PlainDiverged(plain)) => assert_eq!(plain, divergence),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_plain_replay_is_compared_with_what_the_recording_holds() {
    let (records, states) = record();
    let digests = records
        .iter()
        .filter(|record| matches!(record.body, Body::Digest { .. }));
    assert_eq!(digests.count(), states.len());
    assert!(states[0].pages.len() > 200 && states[1].pages.len() > 200);
    let explain = |log: &[Record], states: &[StateEntry]| {
        let divergence = replay(log, None).expect_err("another key");
        let mut logs = Logs {
            plain: log.to_vec(),
            disturbed: log.to_vec(),
            opened: 0,
            passes: u32::MAX / 2,
        };
        let states = &mut states.iter().cloned();
        let found = explain_recorded(&mut logs, &divergence, states, &mut |_| {});
        let found = found.unwrap_or_else(|_| panic!("no explanation"));
        assert_eq!(found.icount, divergence.icount);
        assert_eq!(found.instructions.len() as u64, TOLD_INSTRUCTIONS);
        found
    };

    // A key that the guest has read: it is in RAM. The tell-tale may see it before: the worker
    // has it in t0 for some steps, but no record lies there.
    let (other, _) = other_key(&records, 1, b'j');
    let found = explain(&other, &states);
    assert_eq!(found.icount, states[0].icount);
    let difference = found.difference.unwrap();
    assert!(
        difference.item.starts_with("RAM page 0x804"),
        "{difference}"
    );
    assert!(difference.left.starts_with("hash 0x"), "{difference}");
    assert!(difference.right.contains(", begins "), "{difference}");

    // A key that it has not read.
    let last = records
        .iter()
        .filter(|record| matches!(record.body, Body::ConsoleRx { .. }))
        .count()
        - 1;
    let (other, _) = other_key(&records, last, b'm');
    let found = explain(&other, &states);
    let difference = found.difference.unwrap();
    assert_eq!(difference.item, "uart fifo[0]");
    assert_eq!(
        (difference.left.as_str(), difference.right.as_str()),
        ("0x6c", "0x6d")
    );

    // Without the states, with foreign ones, with junk: poorer, and said.
    let mut foreign = states.clone();
    let mut junk = states.clone();
    for n in 0..states.len() {
        foreign[n].digest ^= 1;
        junk[n].state = vec![0xff; 50];
        junk[n].pages.push((u32::MAX, 3));
    }
    for states in [vec![], foreign, junk] {
        let found = explain(&other, &states);
        assert_eq!(found.difference, None);
        assert!(!found.notes.is_empty());
    }
}
