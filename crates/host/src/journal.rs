//! What a long-running process says on standard error: one line for each event.

use std::io::Write;

use serde_json::json;
use time::OffsetDateTime;
use twinvm_protocol::NoteLevel;

use crate::time as clock;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: `2026-01-31T12:00:00.000Z node a: what happened`.
    #[default]
    Text,
    /// For programs: a JSON object on each line, with `time`, `level`, `vm`, `node`,
    /// `generation`, `event` and `text`.
    Json,
}

impl LogFormat {
    /// The format of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// What a server that belongs to no node says.
#[derive(Clone, Copy, Debug)]
pub struct ServerLines {
    format: LogFormat,
    server: &'static str,
}

impl ServerLines {
    /// For the server of this name.
    pub fn new(format: LogFormat, server: &'static str) -> Self {
        Self { format, server }
    }

    /// Writes a line: `event` names what has happened, `text` says it.
    pub fn tell(self, level: NoteLevel, event: &str, text: &str) {
        let line = self.render(clock::wall_ns(), level, event, text);
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn render(self, at_ns: u64, level: NoteLevel, event: &str, text: &str) -> String {
        match self.format {
            LogFormat::Text => format!("twinvm {}: {}\n", self.server, one_line(text)),
            LogFormat::Json => {
                let line = json!({
                    "time": timestamp(at_ns),
                    "level": weight(level),
                    "server": self.server,
                    "event": event,
                    "text": text,
                });
                format!("{line}\n")
            }
        }
    }
}

fn weight(level: NoteLevel) -> &'static str {
    match level {
        NoteLevel::Info => "info",
        NoteLevel::Warn => "warning",
        NoteLevel::Error => "error",
    }
}

/// What somebody else wrote can't begin a line of its own.
fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

/// Lines of one node.
#[derive(Debug)]
pub struct Journal {
    format: LogFormat,
    vm: String,
    node: String,
    generation: Option<u64>,
    last: String,
}

impl Journal {
    /// For the node of this name.
    pub fn new(format: LogFormat, vm: &str, node: &str) -> Self {
        Self {
            format,
            vm: vm.to_owned(),
            node: node.to_owned(),
            generation: None,
            last: String::new(),
        }
    }

    /// The generation that lines carry, if it is known.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// The generation that lines carry from now on.
    pub fn set_generation(&mut self, generation: u64) {
        self.generation = Some(generation);
    }

    /// Something that happened and has no name of its own.
    pub fn line(&mut self, text: &str) {
        self.tell(NoteLevel::Info, "note", text);
    }

    /// The same with a weight.
    pub fn note(&mut self, level: NoteLevel, text: &str) {
        self.tell(level, "note", text);
    }

    /// Writes a line. One that repeats the text of the one before it is left out: a node may
    /// wait for days.
    pub fn tell(&mut self, level: NoteLevel, event: &str, text: &str) {
        if self.last == text {
            return;
        }
        self.last = text.to_owned();
        let line = self.render(clock::wall_ns(), level, event, text);
        // In one piece: another process may write to the same file.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn render(&self, at_ns: u64, level: NoteLevel, event: &str, text: &str) -> String {
        let time = timestamp(at_ns);
        let weight = weight(level);
        match self.format {
            LogFormat::Text => {
                let text = one_line(text);
                let weight = match level {
                    NoteLevel::Info => String::new(),
                    _ => format!("{weight}: "),
                };
                format!("{time} node {}: {weight}{text}\n", self.node)
            }
            LogFormat::Json => {
                let line = json!({
                    "time": time,
                    "level": weight,
                    "vm": self.vm,
                    "node": self.node,
                    "generation": self.generation,
                    "event": event,
                    "text": text,
                });
                format!("{line}\n")
            }
        }
    }
}

/// A moment as ISO 8601 writes it, in UTC with milliseconds.
pub(crate) fn timestamp(wall_ns: u64) -> String {
    let seconds = i64::try_from(wall_ns / 1_000_000_000).unwrap_or_default();
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        wall_ns / 1_000_000 % 1000
    )
}

#[cfg(test)]
mod tests;
