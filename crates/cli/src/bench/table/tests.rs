use super::super::machine::MachineLine;
use super::*;

fn report() -> Report {
    let mut qemu = Row::new("QEMU");
    let mut ours = Row::new("twinvm");
    for (theirs_s, ours_s) in [(2.0, 3.0), (4.0, 5.0), (2.5, 10.0)] {
        qemu.sample("CPU", "s", theirs_s);
        ours.sample("CPU", "s", ours_s);
    }
    ours.compare("CPU", "÷ QEMU", &qemu);
    let bars = [ours.bar("÷ QEMU", 4.0), ours.bar("CPU", 4.5)];
    let mut report = Report::new(MachineLine::default());
    report.sections.push(Section {
        name: "boot".to_owned(),
        title: "to PONG".to_owned(),
        rows: vec![qemu, ours],
        bars: bars.into_iter().flatten().collect(),
        notes: vec!["A note.".to_owned()],
        compared: Vec::new(),
    });
    report
}

#[test]
fn a_table_for_a_terminal() {
    let text = text(&report());
    let table: Vec<&str> = text.lines().skip(2).collect();
    let expected = "\
boot: to PONG (median, smallest–largest; n = 3)
           CPU, s             ÷ QEMU
  QEMU     2.50 (2.00–4.00)   –
  twinvm   5.00 (3.00–10.0)   1.50 (1.25–4.00)
  pass: twinvm: ÷ QEMU 1.50, at most 4
  FAIL: twinvm: CPU 5.00 s, at most 4.5 s
  A note.";
    assert_eq!(table.join("\n"), expected);
}

#[test]
fn a_table_for_a_document() {
    let text = markdown(&report());
    let expected = "\
### boot: to PONG (median, smallest–largest; n = 3)

|  | CPU, s | ÷ QEMU |
|---|---|---|
| QEMU | 2.50 (2.00–4.00) | – |
| twinvm | 5.00 (3.00–10.0) | 1.50 (1.25–4.00) |

- pass: twinvm: ÷ QEMU 1.50, at most 4
- FAIL: twinvm: CPU 5.00 s, at most 4.5 s
- A note.
";
    assert!(text.ends_with(expected), "{text}");
}

#[test]
fn what_was_not_measured_says_why() {
    let mut report = Report::new(MachineLine::default());
    let section = Section::skipped("tap", "through TAP", "no rights");
    report.sections.push(section);
    assert!(text(&report).ends_with("\n\ntap: through TAP\n  not measured: no rights\n"));
    let document = markdown(&report);
    let end = "\n\n### tap: through TAP\n\n- not measured: no rights\n";
    assert!(document.ends_with(end), "{document}");
}

#[test]
fn ratios_are_of_pairs_and_never_of_nothing() {
    let mut above = Row::new("a");
    let mut below = Row::new("b");
    for (over, under) in [(1.0, 0.0), (6.0, 2.0)] {
        above.sample("CPU", "s", over);
        below.sample("CPU", "s", under);
    }
    above.compare("CPU", "ratio", &below);
    assert_eq!(above.samples("ratio"), [3.0]);
    assert_eq!(above.samples("nothing"), [0.0; 0]);
    assert_eq!(above.bar("nothing", 1.0), None);
}

#[test]
fn a_single_sample_has_no_spread() {
    let mut row = Row::new("a");
    row.sample("CPU", "s", 0.5);
    assert_eq!(cell(&row, "CPU"), "0.500");
    assert_eq!(cell(&row, "wall"), NOTHING);
}

#[test]
fn the_samples_survive_json() {
    let report = report();
    let read: Report = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(read, report);
}
