use clap::Parser as _;

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: DemoArgs,
}

fn parse(words: &[&str]) -> Result<DemoArgs, clap::Error> {
    let words = std::iter::once("demo").chain(words.iter().copied());
    Line::try_parse_from(words).map(|line| line.args)
}

#[test]
fn defaults_are_those_of_the_help() {
    let args = parse(&[]).unwrap();
    assert_eq!(args.kills, 4);
    assert_eq!(args.seed, None);
    assert_eq!(args.guest, GuestKind::Redis);
    assert_eq!(args.out(), PathBuf::from("target/demo"));
    assert_eq!(args.image(), PathBuf::from("target/image/redis"));
    let debian = parse(&["--guest", "debian"]).unwrap();
    assert_eq!(debian.out(), PathBuf::from("target/demo-debian"));
    assert_eq!(debian.image(), PathBuf::from("target/image/debian"));
}

#[test]
fn numbers_out_of_range_are_refused() {
    assert!(parse(&["--kills", "1001"]).is_err());
    assert!(parse(&["--kills", "-1"]).is_err());
    assert!(parse(&["--seed", "x"]).is_err());
    assert!(parse(&["--kills", "0"]).is_err(), "nothing would be shown");
    assert_eq!(parse(&["--kills", "1"]).unwrap().kills, 1);
}

#[test]
fn a_folder_that_can_not_be_is_bad_input_and_nothing_runs() {
    let (code, why) = run(&parse(&["--out", "/proc/nonexistent/x"]).unwrap()).unwrap_err();
    assert_eq!(code, 2);
    assert!(why.contains("/proc/nonexistent/x"), "{why}");
}

#[test]
fn an_image_that_can_not_be_made_is_a_fault_of_ours() {
    let out = tempfile::tempdir().unwrap();
    let mut args = parse(&["--image", "/proc/nonexistent/image"]).unwrap();
    args.out = Some(out.path().join("out"));
    let (code, why) = run(&args).unwrap_err();
    assert_eq!(code, 125, "{why}");
    assert!(why.contains("/proc/nonexistent/image"), "{why}");
}
