use super::{FdtConfig, MAX_CMDLINE_BYTES, MAX_FDT_BYTES, build};

/// The tree as text, one line for each node and property; values as cells or strings.
fn text(tree: &[u8]) -> String {
    let word = |at: usize| u32::from_be_bytes(tree[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 0xd00d_feed);
    assert_eq!(word(4) as usize, tree.len());
    let (mut at, strings) = (word(8) as usize, word(12) as usize);
    let zero_ended = |at: usize| {
        let len = tree[at..].iter().position(|byte| *byte == 0).unwrap();
        std::str::from_utf8(&tree[at..at + len]).unwrap()
    };
    let mut out = String::new();
    let mut depth = 0;
    loop {
        let token = word(at);
        at += 4;
        match token {
            1 => {
                let name = zero_ended(at);
                out += &format!("{:indent$}{name}/\n", "", indent = 2 * depth);
                at = (at + name.len() + 1).next_multiple_of(4);
                depth += 1;
            }
            2 => depth -= 1,
            3 => {
                let (len, name) = (
                    word(at) as usize,
                    zero_ended(strings + word(at + 4) as usize),
                );
                let value = &tree[at + 8..at + 8 + len];
                out += &format!(
                    "{:indent$}{name} = {}\n",
                    "",
                    show(value),
                    indent = 2 * depth
                );
                at = (at + 8 + len).next_multiple_of(4);
            }
            9 => return out,
            other => panic!("token {other}"),
        }
    }
}

fn show(value: &[u8]) -> String {
    if value == [0] {
        return "[\"\"]".to_owned();
    }
    let printable = |byte: &u8| (0x20..0x7f).contains(byte);
    if let Some((0, strings)) = value.split_last().map(|(last, rest)| (*last, rest)) {
        let parts: Vec<_> = strings.split(|byte| *byte == 0).collect();
        if parts
            .iter()
            .all(|part| !part.is_empty() && part.iter().all(printable))
        {
            let parts: Vec<_> = parts
                .iter()
                .map(|part| std::str::from_utf8(part).unwrap())
                .collect();
            return format!("{parts:?}");
        }
    }
    let cells: Vec<_> = value
        .chunks(4)
        .map(|cell| format!("{:x}", u32::from_be_bytes(cell.try_into().unwrap())))
        .collect();
    format!("<{}>", cells.join(" "))
}

/// The lines of the node at `path` and of what is below it.
fn node(tree: &str, path: &str) -> String {
    let mut lines = tree.lines().peekable();
    for (depth, name) in path.split('/').enumerate() {
        let wanted = format!("{:indent$}{name}/", "", indent = 2 * (depth + 1));
        lines
            .find(|line| *line == wanted)
            .unwrap_or_else(|| panic!("no {path} in\n{tree}"));
    }
    let indent = " ".repeat(2 * (path.split('/').count() + 1));
    let mut out = String::new();
    while let Some(line) = lines.next_if(|line| line.starts_with(&indent)) {
        out += line.strip_prefix(&indent).unwrap();
        out.push('\n');
    }
    out
}

fn two_harts() -> FdtConfig<'static> {
    FdtConfig {
        ram_bytes: 0x1_2000_0000,
        harts: 2,
        cmdline: "console=ttyS0 quiet",
        initrd: Some((0x8100_0000, 0x1_0000_0123)),
        rng_seed: Some([0x5a; 32]),
    }
}

#[test]
fn chosen_and_memory() {
    let tree = text(&build(two_harts()).unwrap());
    assert_eq!(
        node(&tree, "memory@80000000"),
        "device_type = [\"memory\"]\nreg = <0 80000000 1 20000000>\n"
    );
    assert_eq!(
        node(&tree, "chosen"),
        "bootargs = [\"console=ttyS0 quiet\"]\n\
         stdout-path = [\"/soc/serial@10000000\"]\n\
         linux,initrd-start = <0 81000000>\n\
         linux,initrd-end = <1 123>\n\
         rng-seed = <5a5a5a5a 5a5a5a5a 5a5a5a5a 5a5a5a5a 5a5a5a5a 5a5a5a5a 5a5a5a5a 5a5a5a5a>\n"
    );
    let bare = FdtConfig {
        initrd: None,
        rng_seed: None,
        ..two_harts()
    };
    let tree = text(&build(bare).unwrap());
    assert!(!node(&tree, "chosen").contains("initrd") && !tree.contains("rng-seed"));
}

#[test]
fn harts_and_their_interrupts() {
    let tree = text(&build(two_harts()).unwrap());
    assert!(
        node(&tree, "cpus").starts_with(
            "#address-cells = <1>\n#size-cells = <0>\ntimebase-frequency = <989680>\n"
        )
    );
    // What the harts have is said in one place.
    let names = twinvm_cpu::EXTENSIONS;
    let isa = format!("rv64imafdc_{}", names[6..].join("_"));
    assert_eq!(
        node(&tree, "cpus/cpu@1"),
        format!(
            "device_type = [\"cpu\"]\n\
         reg = <1>\n\
         status = [\"okay\"]\n\
         compatible = [\"riscv\"]\n\
         riscv,isa = [\"{isa}\"]\n\
         riscv,isa-base = [\"rv64i\"]\n\
         riscv,isa-extensions = {names:?}\n\
         riscv,cbom-block-size = <40>\n\
         riscv,cboz-block-size = <40>\n\
         mmu-type = [\"riscv,sv48\"]\n\
         interrupt-controller/\n\
         \x20 #interrupt-cells = <1>\n\
         \x20 interrupt-controller = <>\n\
         \x20 compatible = [\"riscv,cpu-intc\"]\n\
         \x20 phandle = <4>\n"
        )
    );
    assert!(node(&tree, "cpus/cpu@0").contains("  phandle = <3>\n"));
    // Contexts in the order M, S, hart by hart.
    assert_eq!(
        node(&tree, "soc/plic@c000000"),
        "reg = <0 c000000 0 600000>\n\
         compatible = [\"sifive,plic-1.0.0\", \"riscv,plic0\"]\n\
         #address-cells = <0>\n\
         #interrupt-cells = <1>\n\
         interrupt-controller = <>\n\
         interrupts-extended = <3 b 3 9 4 b 4 9>\n\
         riscv,ndev = <5f>\n\
         phandle = <1>\n"
    );
    assert_eq!(
        node(&tree, "soc/clint@2000000"),
        "reg = <0 2000000 0 10000>\n\
         compatible = [\"sifive,clint0\", \"riscv,clint0\"]\n\
         interrupts-extended = <3 3 3 7 4 3 4 7>\n"
    );
}

#[test]
fn devices() {
    let tree = text(&build(two_harts()).unwrap());
    assert_eq!(
        node(&tree, "soc/serial@10000000"),
        "reg = <0 10000000 0 100>\n\
         compatible = [\"ns16550a\"]\n\
         clock-frequency = <384000>\n\
         interrupts = <a>\n\
         interrupt-parent = <1>\n"
    );
    for slot in 1..=8 {
        assert_eq!(
            node(&tree, &format!("soc/virtio_mmio@1000{slot}000")),
            format!(
                "reg = <0 1000{slot}000 0 1000>\n\
                 compatible = [\"virtio,mmio\"]\n\
                 interrupts = <{slot}>\n\
                 interrupt-parent = <1>\n"
            )
        );
    }
    assert_eq!(
        node(&tree, "soc/rtc@101000"),
        "reg = <0 101000 0 1000>\n\
         compatible = [\"google,goldfish-rtc\"]\n\
         interrupts = <b>\n\
         interrupt-parent = <1>\n"
    );
    assert_eq!(
        node(&tree, "soc/test@100000"),
        "reg = <0 100000 0 1000>\n\
         compatible = [\"sifive,test1\", \"sifive,test0\", \"syscon\"]\n\
         phandle = <2>\n"
    );
    for (name, value) in [("poweroff", "5555"), ("reboot", "7777")] {
        assert_eq!(
            node(&tree, name),
            format!(
                "compatible = [\"syscon-{name}\"]\nregmap = <2>\noffset = <0>\nvalue = <{value}>\n"
            )
        );
    }
}

#[test]
fn the_same_configuration_gives_the_same_bytes() {
    assert_eq!(build(two_harts()).unwrap(), build(two_harts()).unwrap());
}

#[test]
fn the_largest_tree_fits() {
    let config = FdtConfig {
        harts: twinvm_devices::MAX_HARTS as u32,
        cmdline: &"x".repeat(MAX_CMDLINE_BYTES),
        ..two_harts()
    };
    assert!(build(config).unwrap().len() as u64 <= MAX_FDT_BYTES / 2);
}

#[test]
fn errors_name_the_field() {
    let error = |config: FdtConfig<'_>| build(config).unwrap_err().to_string();
    let long = "x".repeat(MAX_CMDLINE_BYTES + 1);
    assert_eq!(
        error(FdtConfig {
            cmdline: &long,
            ..two_harts()
        }),
        "the kernel command line has 1024 bytes, Linux reads at most 1023: shorten it"
    );
    assert_eq!(
        error(FdtConfig {
            cmdline: "a\0b",
            ..two_harts()
        }),
        "the kernel command line has a zero byte at offset 1: remove it"
    );
    assert_eq!(
        error(FdtConfig {
            harts: 0,
            ..two_harts()
        }),
        "harts = 0, allowed are 1 to 8"
    );
    assert_eq!(
        error(FdtConfig {
            harts: 9,
            ..two_harts()
        }),
        "harts = 9, allowed are 1 to 8"
    );
}
