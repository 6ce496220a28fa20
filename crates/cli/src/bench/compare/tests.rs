use serde_json::{Value, json};

use super::super::machine::MachineLine;
use super::*;

fn compared(name: &str, pairs: &[(f64, f64)]) -> Compared {
    let mut compared = Compared::new(name);
    for (ours, other) in pairs {
        compared.pair(*ours, *other);
    }
    compared
}

fn section(compared: Vec<Compared>) -> Section {
    Section {
        name: "cpu".to_owned(),
        title: "programs".to_owned(),
        rows: Vec::new(),
        bars: Vec::new(),
        notes: Vec::new(),
        compared,
    }
}

#[test]
fn faster_is_above_one() {
    let work = compared("gzip", &[(1.0, 2.0), (2.0, 3.0), (1.5, 6.0)]);
    let speed = work.speed().unwrap();
    // The medians are 1.5 and 3; the pairs are 2, 1.5 and 4.
    assert_eq!((speed.ratio, speed.min, speed.max), (2.0, 1.5, 4.0));
    let note = work.note("QEMU").unwrap();
    assert_eq!(note, "gzip: 2.00 × the speed of QEMU (1.50–4.00).");
}

#[test]
fn too_little_work_has_no_speed() {
    assert_eq!(compared("a", &[]).speed(), None);
    assert_eq!(compared("a", &[(0.0, 1.0)]).speed(), None);
    assert_eq!(compared("a", &[(1.0, 0.0)]).speed(), None);
    // One pair of three without a sample leaves the others.
    let work = compared("a", &[(0.0, 1.0), (1.0, 2.0), (1.0, 2.0)]);
    assert_eq!(work.speed().unwrap().max, 2.0);
}

#[test]
fn a_geometric_mean_of_what_there_is() {
    assert_eq!(geometric_mean([]), None);
    let near = |values: &[f64], expected: f64| {
        let mean = geometric_mean(values.iter().copied()).unwrap();
        assert!((mean - expected).abs() < 1e-12, "{values:?}: {mean}");
    };
    near(&[2.0, 8.0], 4.0);
    near(&[0.5, 2.0], 1.0);
    near(&[3.0, 0.0, 3.0], 3.0);
}

#[test]
fn json_for_other_programs() {
    let mut gzip = compared("gzip", &[(1.0, 2.0)]);
    gzip.more.insert("mips".to_owned(), 500.0);
    let mut report = Report::new(MachineLine::default());
    report.sections.push(section(vec![gzip]));
    let second = section(vec![compared("gcc", &[(4.0, 2.0)])]);
    report.sections.push(second);
    let text = to_json(&report, "qemu", "jit").unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let row = &value["rows"][0];
    assert_eq!(value["against"], "qemu");
    assert_eq!(value["engine"], "jit");
    assert_eq!(value["rows"].as_array().unwrap().len(), 2);
    for (key, expected) in [
        ("name", json!("gzip")),
        ("ours_cpu_s", json!(1.0)),
        ("other_cpu_s", json!(2.0)),
        ("ratio", json!(2.0)),
        ("mips", json!(500.0)),
    ] {
        assert_eq!(row[key], expected, "{key}");
    }
    // 2 and 1/2.
    let mean = value["geomean"].as_f64().unwrap();
    assert!((mean - 1.0).abs() < 1e-12, "{mean}");
}

#[test]
fn nothing_compared_is_told_as_nothing() {
    let report = Report::new(MachineLine::default());
    let value: Value = serde_json::from_str(&to_json(&report, "qemu", "jit").unwrap()).unwrap();
    assert_eq!(
        (&value["geomean"], &value["rows"]),
        (&json!(null), &json!([]))
    );
}
