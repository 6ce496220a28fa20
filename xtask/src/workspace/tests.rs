use super::*;

#[test]
fn members_are_read_with_their_dependencies() {
    let metadata = br#"{
        "workspace_root": "/r",
        "packages": [
            { "manifest_path": "/r/crates/cpu/Cargo.toml", "dependencies": [
                { "name": "twinvm-mem", "kind": null, "path": "/r/crates/mem" },
                { "name": "twinvm-fp", "kind": "dev", "path": "/r/crates/fp" },
                { "name": "twinvm-cpu", "kind": "dev", "path": "/r/crates/cpu" },
                { "name": "thiserror", "kind": null },
                { "name": "cc", "kind": "build" },
                { "name": "proptest", "kind": "dev" }
            ] },
            { "manifest_path": "/r/xtask/Cargo.toml", "dependencies": [] }
        ]
    }"#;
    let members = parse(metadata).unwrap();
    assert_eq!(members.len(), 2);
    assert_eq!(members[0].name, "cpu");
    assert_eq!(members[0].manifest, "crates/cpu/Cargo.toml");
    assert_eq!(members[0].uses, ["fp", "mem"]);
    assert_eq!(members[0].libraries, ["thiserror", "cc"]);
    assert_eq!(members[1].name, "xtask");
}

#[test]
fn other_text_is_an_error() {
    assert!(parse(b"").is_err());
    assert!(parse(b"{}").is_err());
    assert!(parse(br#"{"workspace_root": "/r", "packages": [{}]}"#).is_err());
}
