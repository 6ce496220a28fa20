use super::*;

fn code(source: &str) -> String {
    let lines: Vec<String> = split(source).into_iter().map(|line| line.code).collect();
    lines.join("\n")
}

#[test]
fn comments_and_strings_are_no_code() {
    assert_eq!(code("a(); // unsafe {\nb();"), "a(); \nb();");
    assert_eq!(code("a(/* x /* y */ z */ b)"), "a( b)");
    assert_eq!(code("/* one\ntwo */ b"), "\n b");
    assert_eq!(code(r#"say("unsafe \" {", x)"#), r#"say("", x)"#);
    assert_eq!(code("say(\"one // no\ntwo\", x) // c"), "say(\"\n\", x) ");
    assert_eq!(code("x = r#\"a \" unsafe\"#; y"), "x = r#\"\"; y");
    assert_eq!(code("x = br\"a\\\"; y"), "x = br\"\"; y");
    // A word that ends in r before a quote is no raw string.
    assert_eq!(code(r#"or"a\"b" y"#), r#"or"" y"#);
}

#[test]
fn characters_are_emptied_and_lifetimes_stay() {
    assert_eq!(
        code("f('\"', '\\'', '\\u{27}', b'{') // c"),
        "f('', '', '', b'') "
    );
    assert_eq!(
        code("fn f<'a, 'b>(x: &'a str) {}"),
        "fn f<'a, 'b>(x: &'a str) {}"
    );
}

#[test]
fn comment_text_is_kept_by_line() {
    let lines = split("// SAFETY: one\nlet a = /* two */ 1; // three");
    assert_eq!(lines[0].comment, "// SAFETY: one");
    assert_eq!(lines[1].comment, "/* two */// three");
}

#[test]
fn items_under_cfg_test_are_marked_to_their_end() {
    let source = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { if c {} }\n}\nfn d() {}\n\
                  #[cfg(test)]\nmod more;\nfn e() {}\n#[cfg(test)] const X: [u8; 2] = [\n1, 2];\nfn f() {}";
    let marked: Vec<usize> = split(source)
        .iter()
        .enumerate()
        .filter(|(_, line)| line.test)
        .map(|(index, _)| index + 1)
        .collect();
    assert_eq!(marked, [2, 3, 4, 5, 7, 8, 10, 11]);
}

#[test]
fn tokens_know_their_line() {
    let lines = split("use std::time;\nx1+y");
    let found: Vec<(usize, &str)> = tokens(&lines)
        .into_iter()
        .map(|token| (token.line, token.text))
        .collect();
    let expected = [
        (1, "use"),
        (1, "std"),
        (1, "::"),
        (1, "time"),
        (1, ";"),
        (2, "x1"),
        (2, "+"),
        (2, "y"),
    ];
    assert_eq!(found, expected);
}

#[test]
fn test_files_are_known_by_their_place() {
    for test in [
        "crates/mem/tests/a.rs",
        "crates/mem/src/a/tests.rs",
        "crates/mem/src/a_tests.rs",
        "crates/mem/benches/a.rs",
        "crates/fp/tests/oracle/main.rs",
    ] {
        assert!(is_test_path(test), "{test}");
    }
    for code in ["crates/mem/src/lib.rs", "crates/mem/src/contests.rs"] {
        assert!(!is_test_path(code), "{code}");
    }
}
