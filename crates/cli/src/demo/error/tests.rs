use super::*;

#[test]
fn a_failure_shows_the_end_of_its_log_without_control_characters() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let mut text: String = (0..40).map(|n| format!("line {n}\n")).collect();
    text.push_str("\x1b[2Jlast\r\n");
    std::fs::write(&path, text).unwrap();
    let shown = DemoError::failed_see("node a ended", &path).to_string();
    assert!(shown.starts_with("node a ended\nThe log "));
    assert!(shown.contains("a.log ends with:"));
    assert!(shown.contains("\n    line 39\n    [2Jlast"), "{shown}");
    assert!(!shown.contains("line 25\n"), "only the last lines: {shown}");
    assert!(shown.contains("line 26\n"), "{shown}");
}

#[test]
fn a_log_that_is_not_there_is_named_all_the_same() {
    let shown = DemoError::failed_see("gone", Path::new("/nonexistent/b.log")).to_string();
    assert_eq!(shown, "gone\nThe log /nonexistent/b.log says nothing.");
}
