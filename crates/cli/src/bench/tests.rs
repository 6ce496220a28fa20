use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: BenchArgs,
}

fn parse(words: &[&str]) -> Result<BenchArgs, clap::Error> {
    let words = ["bench"].iter().chain(words);
    Line::try_parse_from(words).map(|line| line.args)
}

#[test]
fn what_is_measured_by_default() {
    let args = parse(&[]).unwrap();
    assert_eq!((args.what, args.runs), (What::All, 5));
    assert_eq!(out_path(&args), Path::new("target/bench/bench.json"));
    let args = parse(&["boot", "--runs", "3", "--out", "x.json"]).unwrap();
    assert_eq!((args.what, args.runs), (What::Boot, 3));
    assert_eq!(out_path(&args), Path::new("x.json"));
}

#[test]
fn what_cannot_be_is_refused() {
    for words in [
        &["--runs", "0"][..],
        &["--runs", "101"],
        &["nothing"],
        &["--json", "--markdown"],
        &["--from", "x.json", "--runs", "3"],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
    assert!(parse(&["--from", "x.json", "--markdown"]).is_ok());
}

#[test]
fn a_missing_yardstick_is_named_with_the_mend() {
    let error = find_program("no-such-program-of-ours").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("no-such-program-of-ours in PATH"), "{text}");
    assert!(text.contains("`make bench` installs it"), "{text}");
    assert_eq!(text.lines().count(), 1);
    assert!(find_program("sh").is_ok());
}

#[test]
fn a_folder_is_for_one_run_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let held = claim(dir.path()).unwrap();
    let error = claim(dir.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("another bench is using it"));
    drop(held);
    claim(dir.path()).unwrap();
}

#[test]
fn samples_that_cannot_be_written_are_refused_first() {
    let dir = tempfile::tempdir().unwrap();
    check_out(&dir.path().join("x.json")).unwrap();
    check_out(Path::new("x.json")).unwrap();
    for path in [dir.path().to_owned(), dir.path().join("no/x.json")] {
        assert_eq!(check_out(&path).unwrap_err().exit_code(), 2, "{path:?}");
    }
}

#[test]
fn a_file_that_is_no_report_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    std::fs::write(&path, "{}").unwrap();
    for path in [path, dir.path().join("absent.json")] {
        let error = Report::read(&path).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }
}
