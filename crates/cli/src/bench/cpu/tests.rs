use super::*;

#[test]
fn a_plan_has_the_programs_that_were_named_in_the_order_of_the_table() {
    let names = |plan: &Plan| {
        let names = plan.programs.iter().map(|program| program.name);
        names.collect::<Vec<_>>()
    };
    let some = Plan::new(&["gzip".to_owned(), "ash".to_owned()], 0.5);
    assert_eq!(names(&some), ["ash", "gzip"]);
    assert_eq!(Plan::new(&[], 1.0).programs.len(), PROGRAMS.len());
}

#[test]
fn without_debian_only_what_busybox_has_is_run() {
    // The tests' folder has no target/image/debian.
    let some = Plan::new(&["gzip".to_owned(), "sha256".to_owned()], 1.0);
    assert_eq!(Image::choose(None, &some).unwrap(), Image::Redis);
    let error = Image::choose(None, &Plan::new(&[], 1.0)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    for hint in ["make image-debian", "--debian DIR", "ash,sha256,gzip"] {
        assert!(text.contains(hint), "{text}");
    }
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn different_results_are_no_comparison() {
    let turn = |digest: &str| Turn {
        cpu_s: 1.0,
        digest: digest.to_owned(),
    };
    agree(&PROGRAMS[0], &[turn("a"), turn("a")]).unwrap();
    let error = agree(&PROGRAMS[0], &[turn("a"), turn("b")]).unwrap_err();
    assert!(error.to_string().starts_with("ash: "), "{error}");
}

#[test]
fn a_line_of_the_table_has_the_steps_of_its_runs() {
    let mut samples = Samples::new(&PROGRAMS[0]);
    let turn = |cpu_s: f64| Turn {
        cpu_s,
        digest: String::new(),
    };
    samples.take(7, &[turn(2.0), turn(1.0)]);
    samples.take(9, &[turn(4.0), turn(1.0)]);
    let lines = [
        (100, "go 7 x 1\nbegin 7\n"),
        (1_000_000_100, "sum 7\n"),
        (2_000_000_000, "go 9 x 1\nbegin 9\n"),
        (3_000_000_000, "sum 9\n"),
    ];
    let lines = lines.map(|(icount, text)| (icount, text.as_bytes().to_vec()));
    let row = samples.row("QEMU", &Typed::of(lines));
    assert_eq!(row.samples("steps"), [1.0, 1.0]);
    assert_eq!(row.samples("MIPS"), [500.0, 250.0]);
    assert_eq!(row.samples("twinvm: CPU"), [2.0, 4.0]);
    assert_eq!(row.samples("× the speed of QEMU"), [0.5, 0.25]);
    assert_eq!(samples.compared.more["ours_mips"], 375.0);
}
