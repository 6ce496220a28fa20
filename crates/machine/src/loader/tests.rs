use proptest::prelude::*;
use twinvm_mem::RAM_BASE;

use super::{FileProblem, LoadError, LoadPlan, MAX_SEGMENTS, Segment, symbol};
use crate::fdt::MAX_FDT_BYTES;
use crate::image::{ImageKind, Images};

const MIB: u64 = 1 << 20;

/// A plan without firmware.
fn plan(kernel: &[u8], initrd: Option<&[u8]>, ram_bytes: u64) -> Result<LoadPlan, LoadError> {
    let images = Images::new(kernel.to_vec(), initrd.map(<[u8]>::to_vec));
    super::plan(&images, ram_bytes)
}

/// A Linux Image of `len` bytes that takes `image_bytes` in RAM.
fn image(len: usize, image_bytes: u64) -> Vec<u8> {
    let mut image = vec![0x13; len.max(64)];
    image[8..16].copy_from_slice(&(2 * MIB).to_le_bytes());
    image[16..24].copy_from_slice(&image_bytes.to_le_bytes());
    image[24..32].copy_from_slice(&0u64.to_le_bytes());
    image[48..56].copy_from_slice(b"RISCV\0\0\0");
    image[56..60].copy_from_slice(b"RSC\x05");
    image[60..64].copy_from_slice(&0u32.to_le_bytes());
    image
}

struct Program {
    offset: u64,
    va: u64,
    pa: u64,
    file_bytes: u64,
    ram_bytes: u64,
}

/// An ELF executable with these segments, `len` bytes long.
fn elf(entry: u64, programs: &[Program], len: usize) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(64, 0);
    file[16..18].copy_from_slice(&2u16.to_le_bytes());
    file[18..20].copy_from_slice(&243u16.to_le_bytes());
    file[24..32].copy_from_slice(&entry.to_le_bytes());
    file[32..40].copy_from_slice(&64u64.to_le_bytes());
    file[54..56].copy_from_slice(&56u16.to_le_bytes());
    file[56..58].copy_from_slice(&(programs.len() as u16).to_le_bytes());
    for p in programs {
        file.extend_from_slice(&1u32.to_le_bytes());
        file.extend_from_slice(&7u32.to_le_bytes());
        for field in [p.offset, p.va, p.pa, p.file_bytes, p.ram_bytes, 0x1000] {
            file.extend_from_slice(&field.to_le_bytes());
        }
    }
    file.resize(len.max(file.len()), 0);
    file
}

fn error(kernel: &[u8]) -> String {
    plan(kernel, None, 256 * MIB).unwrap_err().to_string()
}

#[test]
fn image_initrd_and_tree_have_their_places() {
    let kernel = image(5000, 30 * MIB);
    let initrd = vec![1; 10_000];
    assert_eq!(
        plan(&kernel, Some(&initrd), 256 * MIB),
        Ok(LoadPlan {
            entry: 0x8020_0000,
            next: None,
            segments: vec![Segment {
                image: ImageKind::Kernel,
                pa: 0x8020_0000,
                range: 0..5000,
                ram_bytes: 30 * MIB
            }],
            // 10,000 bytes end within the page below the tree.
            initrd: Some((0x8fdf_d000, 0x8fdf_f710)),
            fdt_addr: 0x8fe0_0000,
        })
    );
    let old = image(5000, 0);
    assert_eq!(
        plan(&old, None, 256 * MIB).unwrap().segments[0].ram_bytes,
        5000
    );
}

#[test]
fn the_tree_goes_to_the_last_aligned_two_mib() {
    let fdt = |ram| plan(&image(64, 64), None, ram).unwrap().fdt_addr - RAM_BASE;
    assert_eq!(fdt(64 * MIB), 62 * MIB);
    assert_eq!(fdt(65 * MIB), 64 * MIB);
    assert_eq!(fdt(64 * MIB + MAX_FDT_BYTES), 64 * MIB);
    assert_eq!(fdt(64 * MIB + MAX_FDT_BYTES - 1), 62 * MIB);
    assert_eq!(fdt(8192 * MIB), 8190 * MIB);
}

#[test]
fn elf_segments_are_placed_and_the_entry_translated() {
    let file = elf(
        0xffff_ffff_8000_0104,
        &[
            Program {
                offset: 0x200,
                va: 0xffff_ffff_8000_0000,
                pa: 0x8000_0000,
                file_bytes: 0x300,
                ram_bytes: 0x1000,
            },
            Program {
                offset: 0x500,
                va: 0xffff_ffff_8000_1000,
                pa: 0x8040_0000,
                file_bytes: 0,
                ram_bytes: 0x20,
            },
        ],
        0x500,
    );
    let plan = plan(&file, None, 64 * MIB).unwrap();
    assert_eq!(plan.entry, 0x8000_0104);
    assert_eq!(
        plan.segments,
        [
            Segment {
                image: ImageKind::Kernel,
                pa: 0x8000_0000,
                range: 0x200..0x500,
                ram_bytes: 0x1000
            },
            Segment {
                image: ImageKind::Kernel,
                pa: 0x8040_0000,
                range: 0x500..0x500,
                ram_bytes: 0x20
            },
        ]
    );
}

fn one(pa: u64, ram_bytes: u64) -> Vec<u8> {
    elf(
        pa,
        &[Program {
            offset: 0,
            va: pa,
            pa,
            file_bytes: 8,
            ram_bytes,
        }],
        0,
    )
}

#[test]
fn an_elf_header_before_ram_is_left_out() {
    let linked_at = |offset, pa, file_bytes, ram_bytes| {
        let program = Program {
            offset,
            va: pa,
            pa,
            file_bytes,
            ram_bytes,
        };
        plan(&elf(RAM_BASE, &[program], 0x2000), None, 64 * MIB)
    };
    let segment = |range, ram_bytes| Segment {
        image: ImageKind::Kernel,
        pa: RAM_BASE,
        range,
        ram_bytes,
    };
    let whole = linked_at(0, RAM_BASE - 0x1000, 0x1012, 0x1020).unwrap();
    assert_eq!(whole.entry, RAM_BASE);
    assert_eq!(whole.segments, [segment(0x1000..0x1012, 0x20)]);
    // All that is in RAM is zero.
    let zero = linked_at(0, RAM_BASE - 0x1000, 0x78, 0x1020).unwrap();
    assert_eq!(zero.segments, [segment(0x78..0x78, 0x20)]);
    // What is not the header is the program's own.
    for other in [
        linked_at(0x100, RAM_BASE - 0x1000, 0x1012, 0x1020),
        linked_at(0, RAM_BASE - 0x1000, 0x1000, 0x1000),
    ] {
        let text = other.unwrap_err().to_string();
        assert!(
            text.contains("physical address 0x7ffff000") || text.contains("in no segment"),
            "{text}"
        );
    }
}

#[test]
fn a_raw_kernel_goes_where_qemu_puts_it() {
    // csrw sie, zero; nop
    let plan = plan(&[0x73, 0x10, 0x40, 0x10, 1, 0], None, 64 * MIB).unwrap();
    assert_eq!(plan.entry, 0x8020_0000);
    let segment = Segment {
        image: ImageKind::Kernel,
        pa: 0x8020_0000,
        range: 0..6,
        ram_bytes: 6,
    };
    assert_eq!(plan.segments, [segment]);
}

#[test]
fn what_is_no_kernel_is_named() {
    assert_eq!(
        error(b""),
        "the kernel file is empty: leave it out, or give one with content"
    );
    assert_eq!(
        error(b"hello"),
        "the kernel is neither a RISC-V Linux Image (\"RSC\\x05\" at byte 56) nor an ELF file \
         nor a raw binary"
    );
    assert!(error(b"070701000000").contains("nor a raw binary"), "cpio");
    assert!(error(&[0xd0, 0x0d, 0xfe, 0xed, 0, 0, 1, 0]).contains("nor a raw binary"));
    assert_eq!(
        error(&[0x1f, 0x8b, 8, 0]),
        "the kernel is compressed (gzip): unpack it first, for instance with gunzip"
    );
    assert!(error(&[0x28, 0xb5, 0x2f, 0xfd]).contains("(zstd)"));
    assert!(error(b"\xfd7zXZ\0").contains("(xz)"));
    assert!(error(b"MZ\0\0zimg").contains("(EFI zboot)"));
    let mut x86 = vec![0; 0x400];
    x86[0x202..0x206].copy_from_slice(b"HdrS");
    assert_eq!(
        error(&x86),
        "the kernel is for x86 (a bzImage), this machine is riscv64: give a file for riscv64"
    );
    let mut arm = image(64, 64);
    arm[56..60].copy_from_slice(b"ARM\x64");
    assert!(error(&arm).starts_with("the kernel is for arm64 (an Image)"));
    let mut x86 = one(0x8000_0000, 8);
    x86[18] = 62;
    assert!(error(&x86).starts_with("the kernel is for x86-64 (an ELF file), this machine is"));
    x86[18] = 2;
    assert!(error(&x86).contains("(ELF machine 2)"));
    let mut small = one(0x8000_0000, 8);
    small[4] = 1;
    assert!(error(&small).contains("riscv32"));
}

#[test]
fn damaged_headers_are_named() {
    assert_eq!(
        error(b"MZ\x6f\x10"),
        "the kernel file is cut short: it has 4 bytes, its headers ask for 64; copy it again"
    );
    assert!(error(&image(64, 64)[..60]).contains("it has 60 bytes, its headers ask for 64"));
    let mut big = image(64, 64);
    big[24] = 1;
    assert_eq!(
        error(&big),
        "the kernel has a bad Image header: big-endian kernels are not supported"
    );
    let mut odd = image(64, 64);
    odd[8] = 1;
    assert!(error(&odd).contains("text offset 0x200001 is no multiple of 2 MiB"));

    let good = one(0x8000_0000, 8);
    assert!(error(&good[..20]).contains("it has 20 bytes, its headers ask for 64"));
    assert!(error(&good[..100]).contains("it has 100 bytes, its headers ask for 120"));
    let edit = |at: usize, to: u8| {
        let mut file = good.clone();
        file[at] = to;
        error(&file)
    };
    assert!(edit(5, 2).contains("big-endian"));
    assert!(edit(16, 1).contains("type 1 is no executable: link it first"));
    assert!(edit(54, 32).contains("program headers of 32 bytes"));
    assert!(edit(56, MAX_SEGMENTS as u8 + 1).contains("65 segments, allowed are 64"));
    assert!(edit(56, 0).contains("nothing to load"));
    assert!(edit(64, 2).contains("nothing to load"));
    assert!(edit(24, 8).contains("entry 0x80000008 is in no segment"));
    assert!(edit(64 + 8, 200).contains("headers ask for 208"));
    assert!(edit(64 + 32, 9).contains("longer in the file than in memory"));
    assert!(
        error(&one(0x1000, 8)).starts_with("the kernel has a segment for physical address 0x1000")
    );
    assert!(error(&one(u64::MAX - 3, 8)).contains("runs past the last address"));
}

#[test]
fn a_cut_image_is_told_by_its_efi_sections() {
    let mut kernel = image(4096, 1 << 20);
    kernel[60..64].copy_from_slice(&64u32.to_le_bytes());
    let pe = &mut kernel[64..];
    pe[..4].copy_from_slice(b"PE\0\0");
    pe[6..8].copy_from_slice(&2u16.to_le_bytes());
    pe[20..22].copy_from_slice(&112u16.to_le_bytes());
    for (i, (bytes, offset)) in [(1024u32, 1024u32), (2048, 2048)].into_iter().enumerate() {
        let section = &mut pe[24 + 112 + 40 * i..];
        section[16..20].copy_from_slice(&bytes.to_le_bytes());
        section[20..24].copy_from_slice(&offset.to_le_bytes());
    }
    assert!(plan(&kernel, None, 64 * MIB).is_ok());
    assert_eq!(
        plan(&kernel[..4000], None, 64 * MIB),
        Err(LoadError::File {
            image: ImageKind::Kernel,
            problem: FileProblem::Truncated {
                have: 4000,
                need: 4096
            }
        })
    );
}

#[test]
fn memory_that_is_too_small_says_how_much_would_do() {
    let kernel = image(64, 30 * MIB);
    let too_small = |ram| plan(&kernel, None, ram).unwrap_err();
    assert_eq!(
        too_small(32 * MIB).to_string(),
        "memory is 32 MiB, the kernel needs 32 MiB and 64 KiB behind it, from a multiple of 2 MiB \
         on, for the device tree: set memory = \"33M\" or more"
    );
    assert!(plan(&kernel, None, 33 * MIB).is_ok());
    // What would do is told with the initrd in it.
    let with_initrd = plan(&kernel, Some(&[0; 4097]), 32 * MIB).unwrap_err();
    assert!(
        with_initrd
            .to_string()
            .ends_with("set memory = \"35M\" or more"),
        "{with_initrd}"
    );
    for ram in [0, 1, MAX_FDT_BYTES, 2 * MIB, 32 * MIB] {
        assert!(
            matches!(
                too_small(ram),
                LoadError::MemoryTooSmall { need_mib: 33, .. }
            ),
            "{ram}"
        );
    }
    assert!(matches!(
        plan(&kernel, None, u64::MAX),
        Err(LoadError::MemoryTooSmall { .. })
    ));
    for bytes in [u64::MAX, u64::MAX - 2 * MIB, 1 << 63] {
        let huge = image(64, bytes);
        assert!(matches!(
            plan(&huge, None, 1 << 40),
            Err(LoadError::MemoryTooSmall { .. })
        ));
    }
}

#[test]
fn an_initrd_that_is_too_large_says_how_much_would_do() {
    let kernel = image(64, 30 * MIB);
    let initrd = vec![0; (20 * MIB + 1) as usize];
    assert_eq!(
        plan(&kernel, Some(&initrd), 48 * MIB)
            .unwrap_err()
            .to_string(),
        "the initrd doesn't fit: it has 20.0 MiB, the kernel takes 32 MiB and memory is 48 MiB: \
         set memory = \"55M\" or more"
    );
    assert!(plan(&kernel, Some(&initrd), 54 * MIB).is_err());
    let (start, end) = plan(&kernel, Some(&initrd), 55 * MIB)
        .unwrap()
        .initrd
        .unwrap();
    assert_eq!((start % 4096, end - start), (0, 20 * MIB + 1));
    assert_eq!(
        plan(&kernel, Some(&[]), 64 * MIB).unwrap_err().to_string(),
        "the initrd file is empty: leave it out, or give one with content"
    );
}

/// A file with one symbol table: `tohost` defined, `begin_signature` not.
fn with_symbols() -> Vec<u8> {
    let mut file = one(0x8000_0000, 8);
    let strings_at = file.len();
    file.extend_from_slice(b"\0tohost\0begin_signature\0");
    file.resize(file.len().next_multiple_of(8), 0);
    let symbols_at = file.len();
    for (name, section, value) in [(0u32, 0u16, 0u64), (8, 0, 5), (1, 2, 0x8000_1000)] {
        file.extend_from_slice(&name.to_le_bytes());
        file.extend_from_slice(&[0, 0]);
        file.extend_from_slice(&section.to_le_bytes());
        file.extend_from_slice(&value.to_le_bytes());
        file.extend_from_slice(&8u64.to_le_bytes());
    }
    let sections_at = file.len();
    for (kind, at, len, link) in [(0, 0, 0, 0), (2, symbols_at, 72, 2), (3, strings_at, 24, 0)] {
        let mut section = [0; 64];
        section[4..8].copy_from_slice(&u32::to_le_bytes(kind));
        section[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        section[32..40].copy_from_slice(&u64::to_le_bytes(len));
        section[40..44].copy_from_slice(&u32::to_le_bytes(link));
        file.extend_from_slice(&section);
    }
    file[40..48].copy_from_slice(&(sections_at as u64).to_le_bytes());
    file[60..62].copy_from_slice(&3u16.to_le_bytes());
    file
}

#[test]
fn symbols_are_found() {
    let file = with_symbols();
    assert_eq!(symbol(&file, "tohost"), Some(0x8000_1000));
    for absent in ["tohos", "tohost2", "begin_signature", "host"] {
        assert_eq!(symbol(&file, absent), None, "{absent}");
    }
    assert_eq!(symbol(&image(64, 64), "tohost"), None);
    for len in 0..file.len() {
        let _ = symbol(&file[..len], "tohost");
    }
}

/// What holds for every plan, whatever the files.
fn check(kernel: &[u8], initrd: Option<&[u8]>, ram: u64) -> Result<(), TestCaseError> {
    let Ok(plan) = plan(kernel, initrd, ram) else {
        return Ok(());
    };
    let top = RAM_BASE + ram;
    prop_assert!(plan.fdt_addr % (2 * MIB) == 0 && plan.fdt_addr + MAX_FDT_BYTES <= top);
    let mut free_from = RAM_BASE;
    for segment in &plan.segments {
        let range = segment.range.clone();
        prop_assert!(range.start <= range.end && range.end <= kernel.len());
        prop_assert!(range.len() as u64 <= segment.ram_bytes && segment.pa >= RAM_BASE);
        free_from = free_from.max(segment.pa + segment.ram_bytes);
    }
    prop_assert!(free_from <= plan.fdt_addr);
    prop_assert!((RAM_BASE..free_from).contains(&plan.entry));
    if let Some((start, end)) = plan.initrd {
        prop_assert!(free_from <= start && start < end && end <= plan.fdt_addr);
    }
    Ok(())
}

proptest! {
    #[test]
    fn hostile_files_never_break_a_plan(
        which in 0..4usize,
        edits in proptest::collection::vec((0..200usize, prop_oneof![Just(0), Just(0xff), any::<u8>()]), 0..12),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
        ram in prop_oneof![0..1u64 << 30, Just(u64::MAX), Just(u64::MAX - RAM_BASE)],
        initrd in proptest::option::of(1..100_000usize),
    ) {
        let mut file = match which {
            0 => image(300, 4096),
            1 => one(0x8000_0000, 4096),
            2 => with_symbols(),
            _ => vec![0x7f; 200],
        };
        for (at, to) in edits {
            if let Some(byte) = file.get_mut(at) {
                *byte = to;
            }
        }
        if !whole {
            file.truncate(cut.index(file.len()));
        }
        let initrd = initrd.map(|len| vec![0; len]);
        check(&file, initrd.as_deref(), ram)?;
        let _ = symbol(&file, "tohost");
    }
}
