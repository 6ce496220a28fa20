use super::*;

const PATH: &str = "docs/ARCHITECTURE.md";

fn member(name: &str, uses: &[&str]) -> Member {
    Member {
        name: name.to_owned(),
        manifest: format!("crates/{name}/Cargo.toml"),
        uses: uses.iter().map(|&used| used.to_owned()).collect(),
        libraries: Vec::new(),
    }
}

fn members() -> Vec<Member> {
    vec![
        member("mem", &[]),
        member("cpu", &["mem"]),
        member("cli", &["cpu", "mem"]),
    ]
}

fn document(rows: &str) -> String {
    format!(
        "# A\n\n{BEGIN}\n| crate | may use |\n|---|---|\n{rows}{END}\n\n| not | a row | here |\n"
    )
}

fn messages(members: &[Member], document: &str) -> Vec<String> {
    check(members, PATH, document)
        .iter()
        .map(ToString::to_string)
        .collect()
}

const ROWS: &str = "| mem | none |\n| `cpu` | `mem` |\n| cli | all |\n";

#[test]
fn a_workspace_that_keeps_the_table_passes() {
    assert_eq!(messages(&members(), &document(ROWS)), [""; 0]);
}

#[test]
fn a_dependency_outside_the_row_fails() {
    let mut members = members();
    members[0].uses.push("cpu".to_owned());
    assert_eq!(
        messages(&members, &document(ROWS)),
        ["error: crates/mem/Cargo.toml: mem may not use cpu: docs/ARCHITECTURE.md:6 allows none"]
    );
}

#[test]
fn a_crate_without_a_row_fails() {
    let found = messages(&members(), &document("| mem | none |\n| cli | all |\n"));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("no row for crate cpu"), "{found:?}");
}

#[test]
fn a_row_for_no_crate_fails() {
    let rows = format!("{ROWS}| sim | mem, gone |\n");
    let found = messages(&members(), &document(&rows));
    assert_eq!(found.len(), 2);
    assert!(found[0].contains(":9: names crate sim"), "{found:?}");
    assert!(found[1].contains(":9: names crate gone"), "{found:?}");
}

#[test]
fn a_table_that_is_not_one_fails() {
    let whole = document(ROWS);
    for bad in [
        String::new(),
        whole.replace(BEGIN, ""),
        whole.replace(END, ""),
        format!("{whole}{whole}"),
        document(&format!("{ROWS}| mem | none |\n")),
        document(&format!("{ROWS}| lonely |\n")),
    ] {
        assert_ne!(messages(&members(), &bad), [""; 0], "{bad}");
    }
}
