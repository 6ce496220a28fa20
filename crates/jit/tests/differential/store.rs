//! Decodes stores, for what a faulting one would have stored.

use twinvm_cpu::HartState;

/// Address and value of a store; `None` for any other instruction.
pub(crate) fn decode(raw: u32, state: &HartState) -> Option<(u64, u64)> {
    let bits = |at: u32, count: u32, to: u32| (raw >> at & ((1 << count) - 1)) << to;
    let x = |n: u32| if n == 0 { 0 } else { state.x[n as usize - 1] };
    let f = |n: u32| state.f[n as usize];
    if raw & 3 == 3 {
        let imm = (raw as i32 >> 25 << 5) as i64 as u64 | u64::from(bits(7, 5, 0));
        let at = x(bits(15, 5, 0)).wrapping_add(imm);
        let source = bits(20, 5, 0);
        return match raw & 0x7f {
            0x23 => Some((at, x(source))),
            0x27 => Some((at, f(source))),
            _ => None,
        };
    }
    let kind = raw >> 13 & 7;
    let word = kind == 6;
    let (base, imm, source) = match raw & 3 {
        0 => {
            let low = if word {
                bits(6, 1, 2) | bits(5, 1, 6)
            } else {
                bits(5, 2, 6)
            };
            (8 + bits(7, 3, 0), bits(10, 3, 3) | low, 8 + bits(2, 3, 0))
        }
        2 if word => (2, bits(9, 4, 2) | bits(7, 2, 6), bits(2, 5, 0)),
        2 => (2, bits(10, 3, 3) | bits(7, 3, 6), bits(2, 5, 0)),
        _ => return None,
    };
    let at = x(base).wrapping_add(u64::from(imm));
    match kind {
        5 => Some((at, f(source))),
        6 | 7 => Some((at, x(source))),
        _ => None,
    }
}
