use super::guest::*;
use crate::*;

#[cfg(not(feature = "jit"))]
#[test]
fn a_build_without_the_second_engine_interprets_and_says_so() {
    let mut m = machine(Asm::default().print(b'h').system_reset(0));
    assert_eq!(m.engine_kind(), EngineKind::Interp);
    let refused = m.set_engine(EngineKind::Jit).map_err(|e| e.to_string());
    let why = refused.expect_err("there is no second engine");
    assert!(why.starts_with("engine jit: this build has none"), "{why}");
    assert!(!why.contains('\n'), "{why}");
    assert_eq!(m.engine_kind(), EngineKind::Interp);
    m.set_engine(EngineKind::Interp).expect("it is the engine");
    assert_eq!(m.run(1000), Exit::Output);
    assert_eq!(m.take_console(), b"h");
}

#[cfg(all(feature = "jit", target_arch = "x86_64", target_os = "linux"))]
#[test]
fn engines_take_turns_at_a_guest() {
    let mut m = machine(Asm::default().print(b'h').print(b'i').system_reset(0));
    assert_eq!(m.engine_kind(), EngineKind::Jit);
    for kind in [EngineKind::Interp, EngineKind::Jit, EngineKind::Interp] {
        let until = m.icount() + 3;
        assert_eq!(m.run(until), Exit::Limit);
        m.set_engine(kind).expect("memory for code");
        assert_eq!(m.engine_kind(), kind);
    }
    assert_eq!(m.run(1000), Exit::Output);
    assert_eq!(m.take_console(), b"hi");
}
