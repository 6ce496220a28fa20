//! `twinvm run --firmware`: bare programs in machine mode.

#[path = "support/elf.rs"]
mod elf;
mod support;

use support::{Folder, json, refuses, twinvm};

const RAM: u64 = 0x8000_0000;

/// lui t0, finisher; a1 = value; sw; then spin.
fn finish(value: u32) -> Vec<u32> {
    let low = ((value << 20) as i32 >> 20) as u32;
    vec![
        0x0010_02b7,                               // lui t0, 0x100
        (value.wrapping_sub(low)) | 6 << 7 | 0x37, // lui t1, high
        low << 20 | 6 << 15 | 6 << 7 | 0x1b,       // addiw t1, t1, low
        0x0062_a023,                               // sw t1, 0(t0)
        0x0000_006f,                               // j .
    ]
}

fn run(folder: &Folder, program: &[u8], more: &[&str]) -> support::Done {
    let file = folder.file("program.elf", program);
    twinvm(&[&["run", "--firmware", &file, "--memory", "8M"], more].concat())
}

#[test]
fn the_finisher_decides_the_exit_code() {
    let cases = [
        (0x5555, 0),
        (0x3333, 1),
        (1 << 16 | 0x3333, 1),
        (7 << 16 | 0x3333, 7),
        (119 << 16 | 0x3333, 119),
        (120 << 16 | 0x3333, 119),
        (0xffff_3333, 119),
    ];
    for (value, code) in cases {
        let program = elf::program(RAM, &finish(value), &[]);
        let done = run(&Folder::new(), &program, &[]);
        assert_eq!(
            (done.code, done.err.as_str()),
            (Some(code), ""),
            "{value:#x}"
        );
    }
    let reset = elf::program(RAM, &finish(0x7777), &[]);
    let folder = Folder::new();
    assert_eq!(
        run(&folder, &reset, &["--on-reset", "exit"]).code,
        Some(120)
    );
    // Each turn is four steps: it starts again until the limit.
    let report = folder.text("report");
    let limit = ["--max-instructions", "1002", "--report", &report];
    assert_eq!(run(&folder, &reset, &limit).code, Some(124));
    assert_eq!(json(&folder.path("report"))["icount"], 1002);
}

#[test]
fn a_file_that_is_no_elf_lies_at_the_start_of_ram() {
    let folder = Folder::new();
    // auipc a5, 0; srli a5, a5, 31; beqz a5, fail; pass
    let mut words = vec![0x0000_0797, 0x01f7_d793, 0x0007_8c63];
    words.extend(finish(0x5555));
    words.extend(finish(0x3333));
    let raw: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(run(&folder, &raw, &[]).code, Some(0));
}

#[test]
fn a_program_starts_in_machine_mode_as_firmware_does() {
    // Stores a0, a1, a2, mhartid and what the tree's first word is at 0x8000_1000.
    let mut words = vec![
        0x8000_17b7, // lui a5, 0x80001
        0x0207_9793, // slli a5, a5, 32
        0x0207_d793, // srli a5, a5, 32
        0x00a7_b023, // sd a0, 0(a5)
        0x00b7_b423, // sd a1, 8(a5)
        0x0006_2703, // lw a4, 0(a2)
        0x00e7_a823, // sw a4, 16(a5)
        0x0005_a703, // lw a4, 0(a1)
        0x00e7_aa23, // sw a4, 20(a5)
        0x0086_3703, // ld a4, 8(a2)
        0x00e7_bc23, // sd a4, 24(a5)
        0x0106_3703, // ld a4, 16(a2)
        0x02e7_b023, // sd a4, 32(a5)
        0x0186_3703, // ld a4, 24(a2)
        0x02e7_b423, // sd a4, 40(a5)
        0xf140_2773, // csrr a4, mhartid
        0x02e7_b823, // sd a4, 48(a5)
    ];
    words.extend(finish(0x5555));
    let symbols = [
        ("begin_signature", RAM + 0x1000),
        ("end_signature", RAM + 0x1038),
    ];
    let program = elf::program(RAM, &words, &symbols);
    let folder = Folder::new();
    let signature = folder.text("signature");
    let done = run(&folder, &program, &["--signature", &signature]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let text = std::fs::read_to_string(&signature).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(text.ends_with('\n'));
    assert_eq!(
        lines,
        [
            "00000000", "00000000", // a0
            "80600000", "00000000", // a1: the last 2 MiB of 8
            "4942534f", // a2: "OSBI"
            "edfe0dd0", // at a1: a device tree, big-endian
            "00000002", "00000000", // version
            "00000000", "00000000", // no next stage
            "00000001", "00000000", // which would run in supervisor mode
            "00000000", "00000000", // mhartid
        ]
    );
}

#[test]
fn what_runs_once_is_translated_where_that_is_asked_for() {
    let folder = Folder::new();
    // 60 times addi a0, a0, 1.
    let mut words = vec![0x0015_0513; 60];
    words.extend(finish(0x5555));
    let program = elf::program(RAM, &words, &[]);
    let report = folder.text("report");
    let translated = |more: &[&str]| {
        let args = [&["--engine", "jit", "--report", &report], more].concat();
        assert_eq!(run(&folder, &program, &args).code, Some(0));
        let report = json(&folder.path("report"));
        // Six of them lead here from outside RAM.
        assert_eq!(report["icount"], 70);
        report["engine"]["steps_translated"].as_u64()
    };
    assert_eq!(translated(&[]), Some(0));
    assert_eq!(translated(&["--hot-at", "1"]), Some(0));
    // All but the store to a device.
    assert_eq!(translated(&["--hot-at", "0"]), Some(63));
    let file = folder.text("program.elf");
    refuses(
        &[
            "run",
            "--firmware",
            &file,
            "--memory",
            "8M",
            "--engine",
            "interp",
            "--hot-at",
            "0",
        ],
        "twinvm run: --hot-at: nothing is translated on this host or with this engine",
    );
}

#[test]
fn a_signature_needs_its_symbols() {
    let folder = Folder::new();
    let signature = folder.text("signature");
    let refused = |symbols: &[(&str, u64)], why: &str| {
        let file = folder.file("program.elf", elf::program(RAM, &finish(0x5555), symbols));
        let args = [
            "run",
            "--firmware",
            &file,
            "--memory",
            "8M",
            "--signature",
            &signature,
        ];
        refuses(
            &args,
            &format!("twinvm run: --signature: {}", why.replace("FILE", &file)),
        );
        assert_eq!(folder.names(), ["program.elf"]);
    };
    let missing = |symbol: &str| {
        format!(
            "FILE has no symbol {symbol}: give an ELF file that defines begin_signature and \
             end_signature, with its symbol table (not stripped)"
        )
    };
    refused(&[], &missing("begin_signature"));
    refused(&[("begin_signature", RAM)], &missing("end_signature"));
    for (begin, end) in [
        (RAM + 8, RAM),
        (RAM + 2, RAM + 8),
        (RAM - 8, RAM + 8),
        (RAM, RAM + (8 << 20) + 4),
        (RAM, u64::MAX - 3),
    ] {
        refused(
            &[("begin_signature", begin), ("end_signature", end)],
            &format!(
                "FILE: begin_signature is {begin:#x} and end_signature is {end:#x}: expected \
                 addresses in RAM, both multiples of 4, the end not before the beginning"
            ),
        );
    }
}

/// Asserts that this firmware is refused with this line; `FILE` stands for its path.
#[track_caller]
fn refuse(program: &[u8], more: &[&str], why: &str) {
    let folder = Folder::new();
    let file = folder.file("program", program);
    let args = [&["run", "--firmware", &file, "--memory", "8M"], more].concat();
    refuses(
        &args,
        &format!("twinvm run: {}", why.replace("FILE", &file)),
    );
}

#[test]
fn what_is_no_firmware_is_refused() {
    let good = elf::program(RAM, &finish(0x5555), &[]);
    let edit = |at: usize, to: u8| {
        let mut file = good.clone();
        file[at] = to;
        file
    };
    let other = |name: &str| {
        format!(
            "FILE: the firmware is for {name}, this machine is riscv64: give a file for riscv64"
        )
    };
    refuse(&edit(18, 62), &[], &other("x86-64 (an ELF file)"));
    refuse(&edit(18, 183), &[], &other("arm64 (an ELF file)"));
    refuse(&edit(4, 1), &[], &other("riscv32 (an ELF file)"));
    refuse(
        &edit(5, 2),
        &[],
        "FILE: the firmware has a bad ELF header: big-endian files are not supported",
    );
    refuse(
        &edit(16, 1),
        &[],
        "FILE: the firmware has a bad ELF header: type 1 is no executable: link it first",
    );
    refuse(
        &good[..130],
        &[],
        "FILE: the firmware file is cut short: it has 130 bytes, its headers ask for 140; copy it \
         again",
    );
    refuse(
        b"",
        &[],
        "FILE: the firmware file is empty: leave it out, or give one with content",
    );
    refuse(
        &[0x1f, 0x8b, 8, 0],
        &[],
        "FILE: the firmware is compressed (gzip): unpack it first, for instance with gunzip",
    );
}

#[test]
fn segments_have_to_fit() {
    refuse(
        &elf::program(0x1000, &finish(0x5555), &[]),
        &[],
        "FILE: the firmware has a segment for physical address 0x1000, RAM starts at 0x80000000: \
         link it for RAM, or give the Image in place of vmlinux",
    );
    // Where the device tree goes, and behind the end.
    refuse(
        &elf::program(RAM + (6 << 20), &finish(0x5555), &[]),
        &[],
        "FILE: memory is 8 MiB, the firmware needs 6.0 MiB and 64 KiB behind it, from a multiple of \
         2 MiB on, for the device tree: set memory = \"9M\" or more",
    );
    refuse(
        &elf::program(RAM + (100 << 20), &finish(0x5555), &[]),
        &[],
        "FILE: memory is 8 MiB, the firmware needs 100.0 MiB and 64 KiB behind it, from a multiple of \
         2 MiB on, for the device tree: set memory = \"103M\" or more",
    );
}

#[test]
fn firmware_beside_a_kernel() {
    let folder = Folder::new();
    let kernel = folder.file("kernel", support::guest::hello());
    refuse(
        &elf::program(RAM, &finish(0x5555), &[]),
        &["--kernel", &kernel],
        &format!(
            "{kernel}: the kernel's place 0x80000000 lies in the firmware's segment from \
             0x80000000 on: link one of them for another address (a Linux Image goes to 0x80200000)"
        ),
    );
    let initrd = folder.text("initrd");
    std::fs::File::create(folder.path("initrd"))
        .unwrap()
        .set_len(6 << 20)
        .unwrap();
    // A kernel behind the firmware, as a Linux Image is.
    let next = folder.file("next", elf::program(RAM + (2 << 20), &finish(0x5555), &[]));
    let firmware = elf::program(RAM, &finish(0x5555), &[]);
    refuse(
        &firmware,
        &["--kernel", &next, "--initrd", &initrd],
        &format!(
            "{initrd}: the initrd doesn't fit: it has 6 MiB, the kernel takes 2.0 MiB and memory \
             is 8 MiB: set memory = \"11M\" or more"
        ),
    );
    refuse(
        &firmware,
        &["--initrd", &initrd],
        "an initrd without a kernel: add the kernel, or leave the initrd out",
    );
    // Jumps to the next stage, whose address is in a2's third word.
    let jump = elf::program(RAM, &[0x0106_3783, 0x0007_8067], &[]);
    let folder = Folder::new();
    assert_eq!(run(&folder, &jump, &["--kernel", &next]).code, Some(0));
}

#[test]
fn the_device_tree_can_be_read_and_replaced() {
    let folder = Folder::new();
    let firmware = folder.file("program.elf", elf::program(RAM, &finish(0x5555), &[]));
    let tree = folder.text("tree");
    let args = [
        "run",
        "--firmware",
        &firmware,
        "--memory",
        "8M",
        "--harts",
        "2",
    ];
    let dump = |more: &[&str]| {
        let done = twinvm(&[&args[..], &["--dump-dtb", &tree], more].concat());
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
        std::fs::read(folder.path("tree")).unwrap()
    };
    let own = dump(&["--cmdline", "hello"]);
    let dtc = std::process::Command::new("dtc")
        .args(["-I", "dtb", "-O", "dts", &tree])
        .output()
        .expect("dtc: scripts/setup.sh test installs it");
    let text = String::from_utf8_lossy(&dtc.stdout);
    assert!(dtc.status.success());
    for line in [
        "bootargs = \"hello\";",
        "cpu@1 {",
        "mmu-type = \"riscv,sv48\";",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("rng-seed"), "{text}");
    // What is given comes out as it is, whatever else is said.
    let given = folder.file("given", &own);
    assert_eq!(dump(&["--dtb", &given, "--cmdline", "other"]), own);
    // Copies the word at a1 + 64, where this tree is not like the machine's own.
    let mut words = vec![
        0x8000_17b7, // lui a5, 0x80001
        0x0207_9793, // slli a5, a5, 32
        0x0207_d793, // srli a5, a5, 32
        0x0405_a703, // lw a4, 64(a1)
        0x00e7_a023, // sw a4, 0(a5)
    ];
    words.extend(finish(0x5555));
    let symbols = [
        ("begin_signature", RAM + 0x1000),
        ("end_signature", RAM + 0x1004),
    ];
    let mut marked = own;
    marked[64..68].copy_from_slice(&0x1234_5678u32.to_le_bytes());
    let marked = folder.file("marked", marked);
    let signature = folder.text("signature");
    let program = elf::program(RAM, &words, &symbols);
    let done = run(
        &folder,
        &program,
        &["--dtb", &marked, "--signature", &signature],
    );
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(std::fs::read_to_string(&signature).unwrap(), "12345678\n");
}
