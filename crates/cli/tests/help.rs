//! What a person sees first.

mod support;

use support::twinvm;

/// Columns of a line where there is no terminal that says how wide it is.
const WIDE: usize = 100;

#[test]
fn every_command_explains_itself_with_an_example() {
    let main = twinvm(&["--help"]);
    assert_eq!(main.code, Some(0));
    let commands: Vec<&str> = main
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // What a command does may take two lines.
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    for known in ["run", "replay", "lan", "image"] {
        assert!(commands.contains(&known), "{commands:?}");
    }
    for command in commands
        .iter()
        .map(|name| vec![*name])
        .chain([vec!["image", "build"]])
        .chain(["import", "info", "grow"].map(|what| vec!["disk", what]))
        .chain(["init", "issue"].map(|what| vec!["keys", what]))
        .chain(["serve", "show", "reset"].map(|what| vec!["arbiter", what]))
        .chain([vec!["disk", "serve"]])
    {
        let help = twinvm(&[&command[..], &["--help"]].concat());
        assert_eq!(help.code, Some(0), "{command:?}");
        assert!(help.out.contains("Example"), "{command:?}: {}", help.out);
        let wide = help.out.lines().find(|line| line.chars().count() > WIDE);
        assert_eq!(wide, None, "{command:?}");
        let call = format!("\n  twinvm {}", command.join(" "));
        assert!(
            help.out.contains(&call),
            "{command:?} lacks{call}: {}",
            help.out
        );
    }
}

#[test]
fn the_version_names_what_two_nodes_must_have_alike() {
    let version = twinvm(&["--version"]);
    let expected = format!(
        "twinvm {} (machine_version {}, protocol {})\n",
        env!("CARGO_PKG_VERSION"),
        twinvm_machine::MACHINE_VERSION,
        twinvm_protocol::message::PROTOCOL_VERSION
    );
    assert_eq!((version.code, version.out), (Some(0), expected));
}
