use super::*;
use crate::op::Kind;
use std::collections::HashSet;

const PC: u64 = 0xffff_ffff_8000_1000;

fn all(table: &[(u32, &str)]) {
    for (raw, want) in table {
        assert_eq!(disassemble(*raw, PC), *want, "{raw:#010x}");
    }
}

/// As GNU binutils prints them (but for the older names that it gives to
/// instructions with an immediate).
#[test]
fn as_other_disassemblers_write() {
    all(&[
        (0x0000_0013, "nop"),
        (0x0000_0001, "nop"),
        (0xfd43_0313, "addi t1,t1,-44"),
        (0x0002_8513, "mv a0,t0"),
        (0x0280_0293, "li t0,40"),
        (0x8000_02b7, "lui t0,0x80000"),
        (0x0000_1517, "auipc a0,0x1"),
        (0x020b_1713, "slli a4,s6,0x20"),
        (0x4187_d79b, "sraiw a5,a5,0x18"),
        (0x0000_006f, "j 0xffffffff80001000"),
        (0xffdf_f0ef, "jal 0xffffffff80000ffc"),
        (0x0080_02ef, "jal t0,0xffffffff80001008"),
        (0x0000_8067, "ret"),
        (0x0045_80e7, "jalr 4(a1)"),
        (0xfe05_0ee3, "beqz a0,0xffffffff80000ffc"),
        (0x00b5_6463, "bltu a0,a1,0xffffffff80001008"),
        (0xff01_3423, "sd a6,-24(sp)"),
        (0x0081_3507, "fld fa0,8(sp)"),
        (0x1005_252f, "lr.w a0,(a0)"),
        (0x1cb5_352f, "sc.d.aq a0,a1,(a0)"),
        (0x06b5_252f, "amoadd.w.aqrl a0,a1,(a0)"),
        (0x0ff0_000f, "fence"),
        (0x0330_000f, "fence rw,rw"),
        (0x8330_000f, "fence.tso"),
        (0x0100_000f, "pause"),
        (0x0000_100f, "fence.i"),
        (0x1200_0073, "sfence.vma"),
        (0x12a5_0073, "sfence.vma a0,a0"),
        (0x16b5_0073, "sinval.vma a0,a1"),
        (0x1002_9573, "csrrw a0,sstatus,t0"),
        (0x1000_2573, "csrr a0,sstatus"),
        (0x1801_1073, "csrw satp,sp"),
        (0x1001_7073, "csrci sstatus,2"),
        (0x3b02_9073, "csrw pmpaddr0,t0"),
        (0x7c0f_a073, "csrs 0x7c0,t6"),
        (0xc010_2573, "rdtime a0"),
        (0x0035_1573, "fscsr a0,a0"),
        (0x02b5_7553, "fadd.d fa0,fa0,fa1"),
        (0x02b5_0553, "fadd.d fa0,fa0,fa1,rne"),
        (0xc205_1553, "fcvt.w.d a0,fa0,rtz"),
        (0x6ab5_7543, "fmadd.d fa0,fa0,fa1,fa3"),
        (0x22b5_8553, "fmv.d fa0,fa1"),
        (0x22b5_9553, "fneg.d fa0,fa1"),
        (0xd205_0553, "fcvt.d.w fa0,a0"),
        (0x6017_9a13, "ctz s4,a5"),
        (0x0045_200f, "cbo.zero (a0)"),
        (0x00d0_0073, "wrs.nto"),
        (0x0005_6013, "prefetch.i 0(a0)"),
        (0x0040, "addi s0,sp,4"),
        (0x852e, "mv a0,a1"),
        (0x902e, "add zero,zero,a1"),
        (0x8082, "ret"),
        (0x9002, "ebreak"),
        (0x757d, "lui a0,0xfffff"),
        (0xfd7d, "bnez a0,0xffffffff80000ffe"),
        (0xbffd, "j 0xffffffff80000ffe"),
        (0x0005, "c.nop 1"),
        (0x0000, "unimp"),
        (0x0004, ".insn 2, 0x0004"),
        (0xc000_1073, "unimp"),
        (0xffff_ffff, ".insn 4, 0xffffffff"),
    ]);
}

#[test]
fn the_high_half_of_a_short_instruction_does_not_matter() {
    assert_eq!(disassemble(0xffff_8082, PC), "ret");
}

/// What [`disassemble`] says of each kind; found by decoding, not by the table.
fn corpus() -> impl Iterator<Item = u32> {
    let short = (0..0x1_0000).filter(|half| half & 3 != 3);
    // Every opcode with all funct7, rs2, funct3; some registers.
    let long = (0..1u32 << 20).map(|n| {
        let (opcode, f3, high) = (n & 31, n >> 5 & 7, n >> 8);
        high << 20 | 0x5 << 15 | f3 << 12 | 0x7 << 7 | opcode << 2 | 3
    });
    let odd = [
        0x73,
        0x10_0073,
        0x1020_0073,
        0x3020_0073,
        0x1050_0073,
        0xd0_0073,
        0x1d0_0073,
        0x1200_0073,
        0x1600_0073,
        0x1800_0073,
        0x1810_0073,
        0x100_000f,
        0x13,
        0x200f,
        0x10_200f,
        0x20_200f,
        0x40_200f,
    ];
    short.chain(long).chain(odd)
}

#[test]
fn every_instruction_has_text_and_says_what_it_is() {
    let mut kinds = HashSet::new();
    let mut texts = HashSet::new();
    for raw in corpus() {
        let op = decode(raw, 0);
        kinds.insert(op.kind as u8);
        let said = disassemble(raw, PC);
        let name = said.split(' ').next().unwrap_or_default();
        assert!(!name.is_empty() && said.is_ascii(), "{raw:#x}: {said}");
        if op.kind == Kind::Illegal {
            assert!(name == ".insn" || name == "unimp", "{raw:#x}: {said}");
        } else {
            assert!(name != ".insn", "{raw:#x}: {said}");
            texts.insert(text(op.kind).0);
        }
    }
    // All but that of a word of which half is known.
    assert!(!kinds.contains(&(Kind::Crossing as u8)));
    assert_eq!(
        kinds.len(),
        Kind::Illegal as usize,
        "kinds that no word has"
    );
    assert_eq!(
        texts.len(),
        Kind::Illegal as usize - 1,
        "two kinds share a name"
    );
}

#[test]
fn distinct_words_read_differently() {
    // Immediates, registers and rounding modes all show.
    let words = [
        0x0020_8033u32,
        0x02b5_0553,
        0x0635_2283,
        0x1005_252f,
        0x3415_1573,
    ];
    for word in words {
        let mut seen = HashSet::from([disassemble(word, PC)]);
        for bit in 7..32 {
            let other = word ^ 1 << bit;
            let said = disassemble(other, PC);
            assert!(seen.insert(said.clone()), "{other:#010x}: {said}");
        }
    }
}
