use super::*;

fn typed(pieces: &[(u64, &str)]) -> Typed {
    let pieces = pieces
        .iter()
        .map(|(at, text)| (*at, text.as_bytes().to_vec()));
    Typed::of(pieces)
}

#[test]
fn steps_from_the_end_of_a_line_to_the_next() {
    let typed = typed(&[
        (10, "go 1 gz"),
        (20, "ip\nbegin"),
        (30, " 1\n"),
        (1030, "s"),
        (1040, "um 1\ngo 2 x\n"),
    ]);
    assert_eq!(typed.steps_between("begin 1", "sum 1"), Some(1000));
    assert_eq!(typed.steps_between("go 1 gzip", "begin 1"), Some(0));
    // Never backwards, and not of what was not typed to its end.
    assert_eq!(typed.steps_between("sum 1", "begin 1"), None);
    assert_eq!(typed.steps_between("begin 2", "sum 2"), None);
    assert_eq!(typed.steps_between("go 2", "go 2 x"), None);
}

#[test]
fn a_line_without_an_end_is_none() {
    assert_eq!(typed(&[(1, "begin 1")]), Typed::default());
}
