//! The program behind `cargo xtask simulate`.

use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_twinvm-sim"))
        .args(arguments)
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_last_line_is_a_summary() {
    let output = simulate(&["--seed", "40", "--runs", "30"]);
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output);
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("simulate: 30 runs, seeds 40 to 69, "),
        "{last}"
    );
    assert!(last.contains(" 0 findings, "), "{last}");
}

#[test]
fn a_finding_tells_its_seed_and_how_to_see_it_again() {
    let output = simulate(&["--seed", "40", "--runs", "200", "--neglect", "cas"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = lines(&output);
    assert!(found[0].starts_with("FINDING (wrong), seed "), "{found:?}");
    assert!(found[1].starts_with("commit "), "{found:?}");
    assert!(found.last().unwrap().contains(" 1 findings, "), "{found:?}");
    let again = found[2]
        .strip_prefix("again: cargo xtask simulate ")
        .unwrap();
    assert!(again.contains("--runs 1 --trace"), "{again}");
    let arguments: Vec<&str> = again.split(' ').collect();
    let output = simulate(&arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let shown = lines(&output);
    assert_eq!(shown[0], found[0]);
    assert!(shown.len() > 20, "{shown:?}");
    assert!(shown[4].contains(" ms  "), "{shown:?}");
}

#[test]
fn what_it_does_not_understand_is_told() {
    for arguments in [&["--neglect", "sleep"][..], &["--hours", "1"]] {
        let output = simulate(arguments);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}
