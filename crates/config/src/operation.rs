//! `[hooks]` and `[metrics]`: how nodes are watched from outside.

use std::path::PathBuf;
use std::time::Duration;

use twinvm_host::hooks::{DEFAULT_TIMEOUT, HookCommand};

use crate::error::VmTomlError;
use crate::table::{Document, Table};
use crate::values::Channel;

const HOOKS_KEYS: &[&str] = &["command", "timeout_s"];
const METRICS_KEYS: &[&str] = &["listen"];

/// The longest that a command may take: ten minutes.
const MAX_TIMEOUT_S: u64 = 600;
/// The longest command: with an event's other words it fits into what its process reads.
const MAX_COMMAND_BYTES: usize = 2000;

/// The command in `[hooks]`.
pub(crate) fn parse_hooks(
    document: &Document<'_>,
    root: &Table<'_, '_>,
) -> Result<Option<HookCommand>, VmTomlError> {
    let Some(table) = document.table(root, "hooks", HOOKS_KEYS)? else {
        return Ok(None);
    };
    let command = parse_command(&table, ("command", "timeout_s"), DEFAULT_TIMEOUT)?;
    command.map(Some).ok_or_else(|| table.missing("command"))
}

/// A command and its time limit, if there is one by these keys: words between spaces; a path is
/// relative to the file.
pub(crate) fn parse_command(
    table: &Table<'_, '_>,
    (key, timeout_key): (&'static str, &'static str),
    timeout: Duration,
) -> Result<Option<HookCommand>, VmTomlError> {
    let limit = table.integer(timeout_key, 1, MAX_TIMEOUT_S)?;
    let Some(text) = table.string(key)? else {
        return Ok(None);
    };
    let mut words = text.value.split_whitespace();
    let program = words.next();
    let odd = text.value.len() > MAX_COMMAND_BYTES || text.value.contains('\0');
    let Some(program) = program.filter(|_| !odd) else {
        let expected = "a program and its arguments, at most 2000 bytes";
        return Err(table.value_at(text.line, key, text.value, expected));
    };
    let program = match program.contains('/') {
        // A name is looked for in PATH.
        false => PathBuf::from(program),
        // Found wherever the node is started.
        true => {
            let path = table.relative(program);
            std::path::absolute(&path).unwrap_or(path)
        }
    };
    Ok(Some(HookCommand {
        program,
        args: words.map(str::to_owned).collect(),
        timeout: limit.map_or(timeout, |s| Duration::from_secs(s.value)),
    }))
}

/// Where `[metrics]` has figures read.
pub(crate) fn parse_metrics(
    document: &Document<'_>,
    root: &Table<'_, '_>,
) -> Result<Option<Channel>, VmTomlError> {
    let Some(table) = document.table(root, "metrics", METRICS_KEYS)? else {
        return Ok(None);
    };
    let text = table
        .string("listen")?
        .ok_or_else(|| table.missing("listen"))?;
    let listen = Channel::parse(text.value).ok_or_else(|| {
        let expected = "\"HOST:PORT\" such as \"127.0.0.1:9177\"";
        table.value_at(text.line, "listen", text.value, expected)
    })?;
    Ok(Some(listen))
}
