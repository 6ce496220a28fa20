//! Files that somebody gives to a node: recordings, snapshots, images, the VM's file.

use std::path::Path;
use std::sync::OnceLock;

use twinvm_config::VmConfig;
use twinvm_image::{lock, sources};
use twinvm_log::{
    Batch, Body, LogHeader, LogReader, LogWriter, Record, STATES_VERSION, StateEntry, StatesReader,
};
use twinvm_machine::{
    DiskConfig, Exit, ImageKind, Images, Machine, MachineConfig, OnReset, PowerOn, SlotConfig,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::input::Input;

/// Steps that a machine of hostile making is run.
const STEPS: u64 = 300;
/// The least RAM that a machine with firmware can have.
const RAM_BYTES: u64 = 3 << 20;
const POWER_ON: PowerOn = PowerOn {
    rng_seed: [1; 32],
    rtc_base_ns: 1,
};

/// A batch with right checksums around any payload.
fn sealed(first_position: u64, count: u16, base: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![twinvm_log::BATCH_VERSION];
    bytes.extend_from_slice(&first_position.to_le_bytes());
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&base.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let head = xxh3_64(&bytes) as u32;
    bytes.extend_from_slice(&head.to_le_bytes());
    bytes.extend_from_slice(payload);
    let all = xxh3_64(&bytes);
    bytes.extend_from_slice(&all.to_le_bytes());
    bytes
}

fn is_canonical(batch: &Batch) {
    for pair in batch.records.windows(2) {
        assert!(pair[0].icount <= pair[1].icount);
    }
    let again = batch.encode().expect("what was decoded can be encoded");
    assert_eq!(&Batch::decode(again.bytes()).expect("own encoding"), batch);
}

/// Batches and logs: what is accepted can be written again and reads the same.
pub fn recording(data: &[u8]) {
    if let Ok((batch, used)) = Batch::decode_prefix(data) {
        assert!(used <= data.len());
        is_canonical(&batch);
    }
    let mut input = Input::new(data);
    let (count, base) = (input.word() % 64, input.quad());
    let payload = input.rest();
    let bytes = sealed(0, count, base, payload);
    if let Ok(batch) = Batch::decode(&bytes) {
        is_canonical(&batch);
    }

    // A log: its head and one good batch, what is changed in them, and the batch from above.
    let mut input = Input::new(data);
    let header = LogHeader {
        config: b"config".to_vec(),
        first_position: 0,
        snapshot_checksum: 1,
    };
    let good = Batch {
        first_position: 0,
        records: vec![Record {
            icount: 5,
            body: Body::PortRx {
                device: 1,
                bytes: b"x".to_vec(),
            },
        }],
    };
    let mut log = LogWriter::new(Vec::new(), &header).expect("writes to memory");
    let encoded = good.encode().expect("a good batch");
    log.append(&encoded).expect("writes to memory");
    let mut log = log.into_inner();
    if input.byte() & 1 == 0 {
        log = input.mutate(log);
    }
    log.extend_from_slice(&sealed(1, count, base, payload));
    if let Ok(reader) = LogReader::new(&log[..]) {
        for entry in reader {
            if entry.is_err() {
                break;
            }
        }
    }
}

fn config(ram_bytes: u64, images: Images) -> MachineConfig {
    MachineConfig {
        ram_bytes,
        harts: 2,
        slots: vec![
            SlotConfig::Net { mac: [2; 6] },
            SlotConfig::Rng,
            SlotConfig::Console,
            SlotConfig::Disk(DiskConfig {
                sectors: 64,
                read_only: false,
                number: 0,
            }),
        ],
        cmdline: "x".to_owned(),
        images,
        on_reset: OnReset::Exit,
    }
}

/// Lets a machine that nobody vouches for make some steps.
fn run(machine: &mut Machine) {
    let until = machine.icount().saturating_add(STEPS);
    for _ in 0..STEPS {
        match machine.run(until) {
            Exit::Output => drop(machine.take_output()),
            Exit::Reset | Exit::Devices => {}
            Exit::Console => drop(machine.take_console()),
            Exit::Limit | Exit::Idle { .. } | Exit::Halted(_) => break,
        }
    }
    machine.take_output();
    machine.take_console();
    machine.digest();
}

/// The snapshot of a small machine without its checksum.
fn small_snapshot() -> &'static [u8] {
    static SNAPSHOT: OnceLock<Vec<u8>> = OnceLock::new();
    SNAPSHOT.get_or_init(|| {
        // addi a0, a0, 1; store to the serial port's page; back.
        let code: Vec<u8> = [0x0015_0513_u32, 0x1000_05b7, 0x00a5_8023, 0xff5f_f06f]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let images = Images::default().with(ImageKind::Firmware, &code);
        let mut machine =
            Machine::new(config(RAM_BYTES, images), POWER_ON).expect("a small machine");
        run(&mut machine);
        let mut bytes = machine.save(true).expect("a snapshot");
        bytes.truncate(bytes.len() - 8);
        bytes
    })
}

/// A snapshot with changes and a right checksum: it is refused, or it is a machine that runs. One
/// in four is saved and restored, and the copy runs the same.
pub fn snapshot(data: &[u8]) {
    let mut input = Input::new(data);
    let copied = input.byte().is_multiple_of(4);
    let piece = 16 + usize::from(input.word());
    let mut bytes = input.mutate(small_snapshot().to_vec());
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    let mut restore = twinvm_machine::Restore::new(None);
    for part in bytes.chunks(piece) {
        if restore.push(part).is_err() {
            return;
        }
    }
    let Ok(mut machine) = restore.finish() else {
        return;
    };
    if !copied {
        return run(&mut machine);
    }
    let saved = machine.save(true).expect("no other snapshot is being read");
    let mut copy = Machine::restore(&saved, None).expect("own snapshot restores");
    assert_eq!(copy.digest(), machine.digest());
    run(&mut machine);
    run(&mut copy);
    assert_eq!(copy.digest(), machine.digest());
}

/// A small program of two segments (System V ABI, ELF-64) with one symbol.
fn elf() -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2u16, 243] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&1u32.to_le_bytes());
    for quad in [0x8000_0000u64, 64, 0] {
        file.extend_from_slice(&quad.to_le_bytes());
    }
    file.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, 2, 64, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    for at in [0x8000_0000u64, 0x8000_1000] {
        for word in [1u32, 7] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        for quad in [176u64, at, at, 16, 4096, 4096] {
            file.extend_from_slice(&quad.to_le_bytes());
        }
    }
    file.extend_from_slice(&0x0000_0013_u32.to_le_bytes().repeat(4));
    file
}

/// A Linux Image (Documentation/arch/riscv/boot-image-header.rst) of a few instructions.
fn image() -> Vec<u8> {
    let mut file = vec![0u8; 80];
    file[..4].copy_from_slice(&0x0400_006f_u32.to_le_bytes());
    file[8..16].copy_from_slice(&0x20_0000u64.to_le_bytes());
    file[16..24].copy_from_slice(&80u64.to_le_bytes());
    file[0x20..0x24].copy_from_slice(&2u32.to_le_bytes());
    file[0x30..0x38].copy_from_slice(b"RISCV\0\0\0");
    file[0x38..0x3c].copy_from_slice(b"RSC\x05");
    file
}

/// The device tree of a small machine.
fn tree() -> &'static [u8] {
    static TREE: OnceLock<Vec<u8>> = OnceLock::new();
    TREE.get_or_init(|| {
        let images = Images::default().with(ImageKind::Kernel, &image());
        let config = config(16 << 20, images);
        config.device_tree().expect("a device tree")
    })
}

/// Kernels, firmware and device trees: they are refused, or they are what a machine boots from.
pub fn loader(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let base = match choice % 4 {
        0 => elf(),
        1 => image(),
        2 => tree().to_vec(),
        _ => input.rest().to_vec(),
    };
    let file = input.mutate(base);
    let _ = twinvm_machine::loader::symbol(&file, "begin_signature");
    let images = Images::default();
    let images = match choice >> 2 & 3 {
        0 => images.with(ImageKind::Kernel, &file),
        1 => images.with(ImageKind::Firmware, &file),
        2 => images
            .with(ImageKind::Kernel, &image())
            .with(ImageKind::DeviceTree, &file),
        _ => images
            .with(ImageKind::Kernel, &image())
            .with(ImageKind::Initrd, &file),
    };
    if let Ok(mut machine) = Machine::new(config(16 << 20, images), POWER_ON) {
        run(&mut machine);
    }
}

const VM: &str = "name = \"shop\"\nmemory = \"256M\"\nharts = 2\non_reset = \"exit\"\n\
console = \"virtio\"\nkernel = \"k\"\narbiter = \"file:a\"\n[[net]]\nmac = \"52:54:00:12:34:ab\"\n\
backend = \"lan:l\"\n[[disk]]\npath = \"d\"\nreadonly = true\n[[node]]\nname = \"a\"\n\
channel = \"127.0.0.1:1\"\n[[node]]\nname = \"b\"\nchannel = \"[::1]:2\"\n[protect]\n\
heartbeat_ms = 20\n";

/// VM.toml: it is refused with an error that can be shown, or its values are in their bounds.
pub fn vm_toml(data: &[u8]) {
    let mut input = Input::new(data);
    let text = match input.byte() % 4 {
        0 => input.rest().to_vec(),
        _ => input.mutate(VM.as_bytes().to_vec()),
    };
    let text = String::from_utf8_lossy(&text);
    match VmConfig::parse(Path::new("VM.toml"), &text) {
        Ok(vm) => {
            assert!((1..=twinvm_machine::MAX_HARTS).contains(&(vm.harts as usize)));
            assert!(vm.memory_bytes > 0 && vm.memory_bytes.is_multiple_of(4096));
            let _ = vm.pair("a").map_err(|error| error.to_string());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What the file begins with.
const STATES_MAGIC: &[u8] = b"twinvsta";

/// The file `states` of a recording: what is accepted is written the same.
pub fn states(data: &[u8]) {
    let mut input = Input::new(data);
    let mut file = STATES_MAGIC.to_vec();
    file.extend_from_slice(&STATES_VERSION.to_le_bytes());
    if input.byte() & 1 == 0 {
        file.extend_from_slice(input.rest());
    } else {
        // With right lengths and sums around any content.
        while !input.is_empty() {
            let content = match input.byte() % 4 {
                0 => {
                    let len = usize::from(input.word()) % 600;
                    input.bytes(len).to_vec()
                }
                _ => changed_entry(&mut input),
            };
            file.extend_from_slice(&(content.len() as u32).to_le_bytes());
            file.extend_from_slice(&content);
            file.extend_from_slice(&xxh3_64(&content).to_le_bytes());
        }
    }
    let reader = StatesReader::new(&file[..]).expect("a right head");
    for entry in reader.map_while(Result::ok) {
        let mut file = file[..12].to_vec();
        file.extend_from_slice(&entry.encode());
        let mut again = StatesReader::new(&file[..]).expect("a right head");
        assert_eq!(again.next().and_then(Result::ok), Some(entry));
    }
}

/// The content of a good entry with what is changed in it.
fn changed_entry(input: &mut Input<'_>) -> Vec<u8> {
    let entry = StateEntry {
        position: 300,
        icount: 1 << 40,
        digest: 7,
        state: vec![1; 20],
        pages: vec![(0, 1), (5, 2), (u32::MAX, 3)],
    };
    let encoded = entry.encode();
    let len = 1 + usize::from(input.byte() % 40);
    Input::new(input.bytes(len)).mutate(encoded[4..encoded.len() - 8].to_vec())
}

const LOCK: &str = "recipe 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\
package redis-server 5:7.0.15-1 riscv64 \
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 100\n\
output kernel 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef 100\n";
const LIST: &str = "deb [signed-by=/k.gpg trusted=yes] http://mirror.example/debian trixie main\n";
const DEB822: &str = "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\n\
Components: main\n contrib\nSigned-By: /k.gpg\n\n";
const INDEX: &str = "Package: redis\nVersion: 1\nArchitecture: riscv64\nSize: 100\nDepends: libc6 (>= 2)\n\
SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\n";

/// What an image is made from: its lock file, the host's package sources, package indexes, programs.
pub fn image_files(data: &[u8]) {
    let mut input = Input::new(data);
    let choice = input.byte();
    let base = match choice % 5 {
        0 => LOCK.as_bytes().to_vec(),
        1 => LIST.as_bytes().to_vec(),
        2 => DEB822.as_bytes().to_vec(),
        3 => INDEX.as_bytes().to_vec(),
        _ => dynamic_elf(),
    };
    let file = match choice >> 6 {
        0 => input.rest().to_vec(),
        _ => input.mutate(base),
    };
    let text = String::from_utf8_lossy(&file);
    if let Ok(lock) = lock::Lock::parse(&text) {
        assert_eq!(lock::Lock::parse(&lock.to_string()), Ok(lock.clone()));
        for package in &lock.packages {
            // A part of a command line, and of a path.
            assert!(!package.name.starts_with('-') && !package.file_name().contains('/'));
        }
    }
    for parse in [sources::parse_list, sources::parse_deb822] {
        if let Ok(found) = parse(&text) {
            let _ = sources::debian_mirror(&found);
        }
    }
    assert!(twinvm_image::inside::offered(&text, &["redis"]) <= 1);
    let _ = twinvm_image::inside::needed_libraries(&file);
}

/// The small program with a table of what it needs.
fn dynamic_elf() -> Vec<u8> {
    let mut file = elf();
    let at = file.len() as u64;
    file[56] = 3;
    // The second segment becomes the table; what is loaded holds the file as it is.
    let second = 64 + 56;
    file[second..second + 4].copy_from_slice(&2u32.to_le_bytes());
    file[second + 8..second + 16].copy_from_slice(&at.to_le_bytes());
    file[second + 32..second + 40].copy_from_slice(&64u64.to_le_bytes());
    for (tag, value) in [(5u64, 0x8000_0000u64), (1, 1), (1, 2), (0, 0)] {
        file.extend_from_slice(&tag.to_le_bytes());
        file.extend_from_slice(&value.to_le_bytes());
    }
    file.extend_from_slice(b"libc.so.6\0");
    file
}
