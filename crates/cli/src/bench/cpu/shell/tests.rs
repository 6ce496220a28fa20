use super::super::programs::PROGRAMS;
use super::*;

/// A terminal holds 4096 bytes that nobody has read (Linux's n_tty); the mark is typed with them.
const MAX_TYPED_BYTES: usize = 3072;

#[test]
fn marks_are_whole_and_of_their_number() {
    let console = "a <begin:1>\r\nx <end:1:0>\r\n<sum:1:123 45>\r\n<begin:12>\r\n<end:12:";
    assert_eq!(mark(console, "begin", 1), Some(""));
    assert_eq!(mark(console, "begin", 12), Some(""));
    assert_eq!(mark(console, "end", 1), Some("0"));
    assert_eq!(mark(console, "sum", 1), Some("123 45"));
    assert_eq!(mark(console, "end", 12), None);
    assert_eq!(mark(console, "begin", 2), None);
}

#[test]
fn the_echo_of_what_is_typed_is_no_mark() {
    for line in SETUP.into_iter().chain([AS_SCRIPT]) {
        for name in ["ok", "begin", "end", "sum"] {
            assert_eq!(mark(line, name, 1), None, "{line}");
        }
    }
}

#[test]
fn no_more_is_typed_than_a_terminal_holds() {
    let lines = SETUP.map(str::to_owned).into_iter();
    let lines = lines.chain(TEXTS.map(|texts| data(texts, 1.0)));
    let image = Image::Debian("image".into());
    let lines = lines.chain(PROGRAMS.iter().map(|program| function(program, &image)));
    for line in lines {
        assert!(line.len() < MAX_TYPED_BYTES, "{}: {line}", line.len());
        // It is cut into pieces of some bytes.
        assert!(line.is_ascii(), "{line}");
    }
}

#[test]
fn a_function_is_of_the_image_that_runs_it() {
    let gzip = PROGRAMS
        .iter()
        .find(|program| program.name == "gzip")
        .unwrap();
    assert!(function(gzip, &Image::Redis).contains("busybox gzip"));
    let debian = function(gzip, &Image::Debian("image".into()));
    assert!(debian.starts_with("run_gzip() {\ngzip "), "{debian}");
}
