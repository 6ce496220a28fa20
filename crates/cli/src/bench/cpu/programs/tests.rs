use super::*;

#[test]
fn the_eleven_have_names_of_their_own() {
    for (index, program) in PROGRAMS.iter().enumerate() {
        let name = program.name;
        assert!(
            PROGRAMS[..index].iter().all(|other| other.name != name),
            "{name}"
        );
        // A comma would end it on the command line.
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(name.chars().all(plain), "{name}");
    }
}

#[test]
fn every_program_does_as_much_as_it_is_told() {
    let bodies = |program: &'static Program| {
        let both = [Some(program.debian), program.busybox];
        both.into_iter().flatten()
    };
    for program in &PROGRAMS {
        for body in bodies(program) {
            assert!(body.contains("$1"), "{}", program.name);
            // The shell would take it for a wish to complete a word.
            assert!(!body.contains('\t'), "{}", program.name);
        }
    }
}

#[test]
fn amounts_are_scaled_and_never_nothing() {
    let work = count(2000, 5);
    assert_eq!(work.argument(1.0), "2000");
    assert_eq!(work.argument(0.1), "200");
    assert_eq!(work.argument(0.000_1), "1");
    assert_eq!(work.warm_up(), "5");
    assert_eq!(Work::Data.argument(0.1), DATA);
    assert_eq!(Work::Data.warm_up(), WARM);
}
