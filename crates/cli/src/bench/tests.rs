use clap::Parser;

use super::args::QUICK_SCALE;
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
    assert_eq!((args.what, args.runs()), (What::All, 5));
    assert_eq!(out_path(&args), Path::new("target/bench/bench.json"));
    let args = parse(&["boot", "--runs", "3", "--out", "x.json"]).unwrap();
    assert_eq!((args.what, args.runs()), (What::Boot, 3));
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
fn programs_are_found_in_the_path() {
    assert!(find_program("sh").is_some());
    assert!(find_program("no-such-program-of-ours").is_none());
}

#[test]
fn an_image_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = debian::check(dir.path()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("twinvm image build debian"), "{text}");
}

/// A bench for code that only asks it whether to go on.
pub(super) fn idle_bench() -> Bench {
    Bench {
        dir: PathBuf::new(),
        program: PathBuf::new(),
        image: None,
        image_dir: PathBuf::new(),
        debian: None,
        programs_of: Ok(Image::Redis),
        plan: Plan::new(&[], 1.0),
        against: Against::Qemu,
        engine: None,
        in_namespace: false,
        qemu: PathBuf::new(),
        interrupted: Arc::default(),
        runs: 1,
        kills: 0,
        silences: 0,
        planned: 0,
        seed: 1,
        clock_for: Duration::ZERO,
    }
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

#[test]
fn a_guest_on_a_tap_has_an_address_of_its_network() {
    let cmdline = "console=ttyS0 ADDR=10.0.2.15/24 GW=10.0.2.2 panic=-1";
    assert_eq!(guests::Wire::User.cmdline(cmdline), cmdline);
    assert_eq!(
        guests::Wire::Tap(tap::TAPS[1]).cmdline(cmdline),
        "console=ttyS0 panic=-1 ADDR=10.0.3.15/24 GW=10.0.3.2"
    );
}

#[test]
fn the_work_of_record_is_what_its_comments_say() {
    use twinvm_machine::{ImageKind, Images, Machine, MachineConfig, OnReset, PowerOn};
    let program = record::PROGRAM.iter().flat_map(|word| word.to_le_bytes());
    let mut machine = Machine::new(
        MachineConfig {
            ram_bytes: 16 << 20,
            harts: 1,
            slots: Vec::new(),
            cmdline: String::new(),
            images: Images::default().with(ImageKind::Firmware, &program.collect::<Vec<u8>>()),
            on_reset: OnReset::Exit,
        },
        PowerOn {
            rng_seed: [0; 32],
            rtc_base_ns: 0,
        },
    )
    .unwrap();
    // Reset ROM, two instructions, and 4000 rounds at least, in which each place of the table
    // has been hit; the numbers are xorshift's.
    machine.run(60_000);
    let table = machine.ram(0x8010_0000, 2048).unwrap();
    assert!(table.chunks(8).all(|number| number != [0; 8]));
    let (mut number, mut expected) = (1_u64, [0_u64; 256]);
    let rounds = 60_000 / 12;
    let mut seen = false;
    for _ in 0..rounds {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        let place = &mut expected[(number & 0x7f8) as usize / 8];
        *place = place.wrapping_add(number);
        let bytes: Vec<u8> = expected.iter().flat_map(|n| n.to_le_bytes()).collect();
        seen |= bytes == table;
    }
    assert!(seen, "the table is none of xorshift's");
}

#[test]
fn a_comparison_is_of_what_was_asked_for() {
    let args = parse(&[
        "cpu",
        "--quick",
        "--programs",
        "gzip,ash",
        "--against",
        "qemu-rr",
    ])
    .unwrap();
    assert_eq!((args.runs(), args.against), (3, Against::QemuRr));
    let plan = args.plan();
    assert_eq!((plan.programs.len(), plan.scale), (2, QUICK_SCALE));
    assert_eq!(parse(&["cpu"]).unwrap().runs(), 3);
    assert_eq!(parse(&["cpu", "--scale", "2.5"]).unwrap().plan().scale, 2.5);
    for words in [
        &["cpu", "--programs", "tar"][..],
        &["cpu", "--scale", "0"],
        &["cpu", "--scale", "NaN"],
        &["cpu", "--quick", "--scale", "1"],
        &["cpu", "--against", "kvm"],
        &["--from", "x.json", "--quick"],
    ] {
        assert!(parse(words).is_err(), "{words:?}");
    }
}

#[test]
fn all_is_everything_once() {
    for part in [What::Boot, What::Net, What::Tap, What::Clock] {
        assert!(What::All.has(part, false), "{part:?}");
    }
    // A boot of Debian belongs to `boot`.
    assert!(!What::All.has(What::Debian, true) && What::Debian.has(What::Debian, true));
    assert!(What::All.has(What::Cpu, true) && !What::All.has(What::Cpu, false));
    assert!(What::Cpu.has(What::Cpu, false) && !What::Cpu.has(What::Boot, true));
}
