//! What is wrong with a command line, in one line as every other message.

use clap::error::ErrorKind;
use clap::{Command, Error};

use crate::BAD_INPUT;
use crate::say;

/// Prints what the parser says. Help goes out as it is; anything else becomes one line that names
/// the command whose --help says what there is.
pub(crate) fn tell(error: &Error, program: &Command, words: &[&str]) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody need read it to its end.
            let _ = error.print();
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            BAD_INPUT
        }
        _ => {
            let commands = commands(program, words);
            let text = error.render().to_string();
            say::line(format_args!(
                "{}: {}; see {} --help",
                commands[..commands.len().min(2)].join(" "),
                one_line(&text),
                commands.join(" ")
            ));
            BAD_INPUT
        }
    }
}

/// The program's name and those of the commands that the line begins with.
fn commands<'a>(program: &Command, words: &[&'a str]) -> Vec<&'a str> {
    let mut names = vec!["twinvm"];
    let mut command = program;
    for word in words {
        let Some(found) = command.find_subcommand(word) else {
            break;
        };
        command = found;
        names.push(word);
    }
    names
}

/// The parser's text without its frame, tips behind semicolons.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    let said = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty());
    for part in said {
        let part = part.strip_prefix("error: ").unwrap_or(part);
        match part.strip_prefix("tip: ") {
            Some(tip) => line = format!("{line}; {tip}"),
            None if line.is_empty() => line.push_str(part),
            None => line = format!("{line} {part}"),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn frames_are_left_out_and_tips_kept() {
        assert_eq!(
            one_line(
                "error: unexpected argument '--frob' found\n\n  tip: a similar argument exists: \
                 '--from'\n\nUsage: twinvm run\n\nFor more information, try '--help'.\n"
            ),
            "unexpected argument '--frob' found; a similar argument exists: '--from'"
        );
        assert_eq!(
            one_line(
                "error: invalid value 'x' for '--engine'\n  [possible values: a, b]\n\nFor more \
                 information, try '--help'.\n"
            ),
            "invalid value 'x' for '--engine' [possible values: a, b]"
        );
    }
}
