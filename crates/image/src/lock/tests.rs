use super::*;

fn digest(fill: char) -> String {
    fill.to_string().repeat(64)
}

fn sample() -> String {
    format!(
        "# a lock\nrecipe {}\npackage zlib1g 1:1.3+b1 riscv64 {} 85664\n\
         package libc6 2.41-12~x all {} 7\noutput kernel {} 1\n",
        digest('a'),
        digest('b'),
        digest('c'),
        digest('d')
    )
}

#[test]
fn reads_sorts_and_writes_back() {
    let lock = Lock::parse(&sample()).unwrap();
    assert_eq!(lock.packages[0].name, "libc6");
    assert_eq!(
        lock.packages[1].file_name(),
        "zlib1g_1%3a1.3+b1_riscv64.deb"
    );
    assert_eq!(lock.packages[1].size_bytes, 85664);
    assert_eq!(lock.outputs[0].sha256.to_string(), digest('d'));
    assert_eq!(Lock::parse(&lock.to_string()).unwrap(), lock);
}

#[test]
fn names_the_bad_line() {
    let good = sample();
    let bad = |added: String| {
        let error = Lock::parse(&format!("{good}{added}\n")).unwrap_err();
        assert_eq!(error.line, 6, "{error:?}");
        error.why
    };
    let d = digest('e');
    assert_eq!(bad("packet x".to_owned()), "unknown item `packet`");
    assert_eq!(
        bad(format!("package x 1 riscv64 {d}")),
        "`package` has another number of fields"
    );
    assert_eq!(
        bad(format!("package ../x 1 riscv64 {d} 1")),
        "`../x` is not a name"
    );
    assert_eq!(
        bad(format!("package -o 1 riscv64 {d} 1")),
        "`-o` is not a name"
    );
    assert_eq!(
        bad(format!("package x 1/2 riscv64 {d} 1")),
        "`1/2` is not a name"
    );
    assert_eq!(
        bad(format!("package x 1 riscv64 {} 1", digest('E'))),
        format!("`{}` is not a SHA-256", digest('E'))
    );
    assert!(bad(format!("package x 1 riscv64 {d} -1")).contains("not a size"));
    assert!(bad(format!("output x {d} 99999999999")).contains("not a size"));
    assert_eq!(
        bad(format!("package zlib1g 2 riscv64 {d} 1")),
        "package zlib1g is there twice"
    );
    assert_eq!(
        bad(format!("output kernel {d} 1")),
        "output kernel is there twice"
    );
    assert_eq!(bad(format!("recipe {d}")), "a second `recipe`");
}

#[test]
fn says_what_is_lacking() {
    for item in ["recipe", "package", "output"] {
        let rest: Vec<String> = sample()
            .lines()
            .filter(|line| !line.starts_with(item))
            .map(str::to_owned)
            .collect();
        let error = Lock::parse(&rest.join("\n")).unwrap_err();
        assert_eq!(
            (error.line, error.why),
            (0, format!("has no line `{item}`"))
        );
    }
    let error = Lock::parse(&"\n".repeat(MAX_LINES + 5)).unwrap_err();
    assert_eq!(error.line, MAX_LINES + 1);
}
