use super::*;
use crate::lexer::split;

/// The lines with a finding, when `source` stands in `path`.
fn lines_at(path: &str, source: &str) -> Vec<usize> {
    check(path, &split(source))
        .iter()
        .map(|finding| finding.line)
        .collect()
}

fn lines(source: &str) -> Vec<usize> {
    lines_at("crates/mem/src/map.rs", source)
}

#[test]
fn unsafe_elsewhere_fails_with_or_without_a_reason() {
    let source = "// SAFETY: sound\nunsafe { f() }";
    for (path, expected) in [
        ("crates/cpu/src/lib.rs", &[2][..]),
        ("crates/fp/src/lib.rs", &[2]),
        ("crates/fp/tests/oracle/ops.rs", &[]),
        ("crates/jit/src/lib.rs", &[]),
        ("crates/host/tests/tap.rs", &[]),
    ] {
        assert_eq!(lines_at(path, source), expected, "{path}");
    }
    for attribute in [
        "#![allow(unsafe_code)]",
        "#[expect(missing_docs, unsafe_code)]",
    ] {
        assert_eq!(lines_at("crates/cpu/src/lib.rs", attribute), [1]);
        assert_eq!(lines(attribute), [0; 0]);
    }
    assert_eq!(
        lines_at("crates/cpu/src/lib.rs", "#![forbid(unsafe_code)]"),
        [0; 0]
    );
}

#[test]
fn each_place_needs_its_reason() {
    for bad in [
        "unsafe { f() }",
        "let x = unsafe { f() };",
        "unsafe impl Send for X {}",
        "unsafe extern \"C\" { fn f(); }",
        "#[unsafe(no_mangle)]",
        "pub unsafe fn f() {}",
        "unsafe extern \"C\" fn f() {}",
        "unsafe trait T {}",
        "// unsafe because it must\nunsafe { f() }",
        "// SAFETY: of another\n\nunsafe { f() }",
        "// SAFETY: of g\ng();\nunsafe { f() }",
        "g(); // SAFETY: of g\nunsafe { f() }",
        "let s = \"SAFETY: no\"; unsafe { f() }",
        "/// # Safety\n/// Wrong mark for a block.\nlet x = unsafe { f() };",
    ] {
        let last = bad.lines().count();
        assert_eq!(lines(bad), [last], "{bad}");
    }
}

#[test]
fn a_reason_directly_above_or_beside_is_found() {
    for good in [
        "// SAFETY: sound\nunsafe { f() }",
        "// SAFETY: sound,\n// and so on.\nlet x = unsafe { f() };",
        "// SAFETY: sound\nlet x =\n    unsafe { f() };",
        "unsafe { f() } // SAFETY: sound",
        "// SAFETY: sound\n#[allow(clippy::x)]\nunsafe impl Send for X {}",
        "/// Does.\n///\n/// # Safety\n/// Callers hold the lock.\n#[inline]\npub unsafe fn f() {}",
        "g(\n    // SAFETY: sound\n    unsafe { f() },\n);",
        "struct S { f: unsafe extern \"C\" fn(u8), g: unsafe fn() }",
        "// the unsafe way\nlet s = \"unsafe {\";",
    ] {
        assert_eq!(lines(good), [0; 0], "{good}");
    }
}
