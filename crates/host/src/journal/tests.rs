use serde_json::Value;

use super::*;

/// 2024-02-29 23:59:59.007 UTC.
const LEAP_DAY_NS: u64 = 1_709_251_199_007_000_000;

#[test]
fn moments_are_iso_8601_in_utc() {
    assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(timestamp(LEAP_DAY_NS), "2024-02-29T23:59:59.007Z");
}

#[test]
fn a_line_for_people_stays_one_line() {
    let journal = Journal::new(LogFormat::Text, "shop", "a");
    assert_eq!(
        journal.render(LEAP_DAY_NS, NoteLevel::Warn, "note", "odd\nname"),
        "2024-02-29T23:59:59.007Z node a: warning: odd name\n"
    );
    assert_eq!(
        journal.render(LEAP_DAY_NS, NoteLevel::Info, "note", "well"),
        "2024-02-29T23:59:59.007Z node a: well\n"
    );
}

#[test]
fn a_line_for_programs_is_one_object_with_every_field() {
    let mut journal = Journal::new(LogFormat::Json, "shop \"x\"", "a");
    let before = journal.render(0, NoteLevel::Info, "started", "begins");
    let before: Value = serde_json::from_str(&before).unwrap();
    assert_eq!(before["generation"], Value::Null);
    journal.set_generation(7);
    let text = journal.render(LEAP_DAY_NS, NoteLevel::Error, "took-over", "two\nlines");
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        line,
        serde_json::json!({
            "time": "2024-02-29T23:59:59.007Z",
            "level": "error",
            "vm": "shop \"x\"",
            "node": "a",
            "generation": 7,
            "event": "took-over",
            "text": "two\nlines",
        })
    );
}

#[test]
fn a_servers_lines_are_one_line_each() {
    let render = |format| {
        ServerLines::new(format, "arbiter").render(
            LEAP_DAY_NS,
            NoteLevel::Warn,
            "refused",
            "a peer \"x\"\nis refused",
        )
    };
    assert_eq!(
        render(LogFormat::Text),
        "twinvm arbiter: a peer \"x\" is refused\n"
    );
    let text = render(LogFormat::Json);
    assert_eq!(text.matches('\n').count(), 1, "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        line,
        serde_json::json!({
            "time": "2024-02-29T23:59:59.007Z",
            "level": "warning",
            "server": "arbiter",
            "event": "refused",
            "text": "a peer \"x\"\nis refused",
        })
    );
}
