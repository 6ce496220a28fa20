//! A guest that does what is typed: its shell, alone on the console.
//!
//! A run is: `go N PROGRAM ARGUMENT` is typed, the guest prints `<begin:N>` and waits; `begin N`
//! lets it go; it prints `<end:N:STATUS>` and waits for the next line, `sum N`, which it answers
//! with a digest of what the program has printed. Between begin and end it does nothing else.

use std::path::Path;
use std::time::Duration;

use super::programs::{DATA, DATA_BYTES, Program, WARM, Work};
use super::{Image, Plan};
use crate::bench::Bench;
use crate::bench::debian::DiskCopy;
use crate::bench::guests::{BOOT_LIMIT, Guest, Kind, Spec};
use crate::bench::machine::TICKS_PER_SECOND;
use crate::demo::error::DemoError;

/// Half of what a 16550 holds.
const PIECE_BYTES: usize = 8;
/// Of a SHA-256 in hexadecimal.
const DIGEST_LETTERS: usize = 64;

/// For Debian and for the Redis image: the kernel says nothing in between, nothing is written to
/// the disk, no service runs.
const CMDLINE: [&str; 2] = ["loglevel=1 ro init=/bin/sh", "loglevel=1 rdinit=/bin/sh"];
/// What the shell shows when it waits for its first line.
const PROMPT: &str = "# ";
/// A step of the preparations: the longest copies 20 MiB from a disk.
const SETUP_LIMIT: Duration = Duration::from_secs(240);
/// A question to a waiting shell.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// A run with the usual amount of work takes seconds, or some tens of them on a busy host.
const RUN_LIMIT_S: f64 = 300.0;

/// Typed first: from then on the shell reads the console as it would a script, without prompts
/// and without an editor for lines.
const AS_SCRIPT: &str = "printf '<ok:%s:%s>\\n' 0 0; exec /bin/sh /dev/console\n";
/// Typed next: each run in the same environment, addresses too.
const SETUP: [&str; 3] = [
    "cd / && export PATH=/usr/local/bin:/usr/bin:/bin LC_ALL=C HOME=/dev/shm TMPDIR=/dev/shm \
     PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1",
    "busybox mkdir -p /proc /dev/shm && busybox mount -t proc proc /proc && \
     busybox mount -t tmpfs tmpfs /dev/shm && echo 0 >/proc/sys/kernel/randomize_va_space",
    "go() { n=$1; shift; printf '<begin:%s>\\n' $n; read -r line; \
     \"$@\" </dev/null >/dev/shm/out 2>&1; s=$?; printf '<end:%s:%s>\\n' $n $s; \
     [ $s = 0 ] || busybox tail -n 5 /dev/shm/out; }; \
     sum() { printf '<sum:%s:%s>\\n' $1 \"$(busybox sha256sum </dev/shm/out)\"; }",
];
/// Text for Debian's data, and what a guest of the Redis image has in its place.
const TEXTS: [&str; 2] = ["/usr/lib/python3*/*.py", "/bin/busybox /bin/redis*"];

/// A guest with a shell.
pub(crate) struct Shell {
    guest: Guest,
    /// Goes after the guest.
    _disk: Option<DiskCopy>,
    /// Of the last question.
    asked: u32,
}

/// One run of a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Turn {
    /// Processor time of the guest's process, all threads.
    pub(crate) cpu_s: f64,
    /// SHA-256 of what the program has printed.
    pub(crate) digest: String,
}

impl Shell {
    /// Boots a guest of `image` and prepares everything that the plan's programs need.
    pub(crate) fn boot(
        bench: &Bench,
        image: &Image,
        kind: Kind,
        plan: &Plan,
    ) -> Result<Self, DemoError> {
        let (spec, disk) = image.guest(bench, kind)?;
        let which = usize::from(*image == Image::Redis);
        let spec = Spec {
            cmdline: format!("{} {}", spec.cmdline, CMDLINE[which]),
            ..spec
        };
        let mut guest = Guest::power_on(bench, kind, &spec)?;
        let what = format!("the guest of {} has a shell", kind.name());
        guest.await_console(bench, &what, BOOT_LIMIT, |console| {
            let last = console.rsplit('\n').next()?;
            last.contains(PROMPT).then_some(())
        })?;
        let mut shell = Self {
            guest,
            _disk: disk,
            asked: 0,
        };
        shell.type_line(bench, AS_SCRIPT)?;
        shell.mark(bench, "ok", 0, ANSWER_LIMIT)?;
        for line in SETUP {
            shell.prepare(bench, line)?;
        }
        if plan
            .programs
            .iter()
            .any(|program| program.work == Work::Data)
        {
            shell.prepare(bench, &data(TEXTS[which], plan.scale))?;
        }
        for program in &plan.programs {
            shell.prepare(bench, &function(program, image))?;
        }
        Ok(shell)
    }

    /// What runs the guest.
    pub(crate) fn kind(&self) -> Kind {
        self.guest.kind()
    }

    /// Types a command and waits until it is done.
    fn prepare(&mut self, bench: &Bench, command: &str) -> Result<(), DemoError> {
        self.asked += 1;
        let number = self.asked;
        let mark = format!("printf '<ok:%s:%s>\\n' {number} $?");
        self.type_line(bench, &format!("{command}\n{mark}\n"))?;
        let status = self.mark(bench, "ok", number, SETUP_LIMIT)?;
        match status.as_str() {
            "0" => Ok(()),
            _ => Err(self.failed(format!(
                "the guest's shell: exit code {status} of: {command}"
            ))),
        }
    }

    /// Runs a program; `number` is its own in this guest.
    pub(crate) fn run(
        &mut self,
        bench: &Bench,
        program: &Program,
        argument: &str,
        number: u32,
        scale: f64,
    ) -> Result<Turn, DemoError> {
        let name = function_name(program);
        self.type_line(bench, &format!("go {number} {name} {argument}\n"))?;
        self.mark(bench, "begin", number, ANSWER_LIMIT)?;
        let limit = Duration::from_secs_f64(RUN_LIMIT_S * scale.max(1.0));
        let before_s = self.guest.cpu_s()?;
        self.type_line(bench, &line_before(number))?;
        let status = self.mark(bench, "end", number, limit)?;
        let ticks = ((self.guest.cpu_s()? - before_s) * TICKS_PER_SECOND).round();
        let cpu_s = ticks / TICKS_PER_SECOND;
        self.type_line(bench, &line_after(number))?;
        let sum = self.mark(bench, "sum", number, ANSWER_LIMIT)?;
        let digest = sum.split(' ').next().unwrap_or_default();
        match status.as_str() {
            "0" if digest.len() == DIGEST_LETTERS => Ok(Turn {
                cpu_s,
                digest: digest.to_owned(),
            }),
            "0" => Err(self.failed(format!(
                "{}: sha256sum in the guest of {} said {sum:?}",
                program.name,
                self.kind().name()
            ))),
            _ => Err(self.failed(format!(
                "{} in the guest of {}: exit code {status}",
                program.name,
                self.kind().name()
            ))),
        }
    }

    /// Types on the guest's console. The serial port of a QEMU that records loses what comes faster
    /// than the guest reads it, so there the echo of each piece is awaited.
    fn type_line(&mut self, bench: &Bench, text: &str) -> Result<(), DemoError> {
        if self.kind() != Kind::QemuRr {
            return self.guest.type_line(text);
        }
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.len().min(PIECE_BYTES));
            let echoed = self.guest.console_bytes()? + piece.len() as u64;
            self.guest.type_line(piece)?;
            let what = "the guest of QEMU rr=record echoes what is typed";
            let log = self.guest.console_log();
            bench.wait_for(what, ANSWER_LIMIT, &log, || {
                self.guest.check()?;
                Ok((self.guest.console_bytes()? >= echoed).then_some(()))
            })?;
            rest = more;
        }
        Ok(())
    }

    fn mark(
        &mut self,
        bench: &Bench,
        name: &str,
        number: u32,
        limit: Duration,
    ) -> Result<String, DemoError> {
        let what = format!(
            "the guest of {} prints <{name}:{number}>",
            self.kind().name()
        );
        self.guest.await_console(bench, &what, limit, |console| {
            mark(console, name, number).map(str::to_owned)
        })
    }

    fn failed(&self, what: String) -> DemoError {
        DemoError::failed_see(what, &self.guest.console_log())
    }

    /// Ends the guest; `read` gets the log of its recording, if one was made.
    pub(crate) fn finish(
        self,
        read: impl FnOnce(&Path) -> Result<(), DemoError>,
    ) -> Result<(), DemoError> {
        self.guest.finish_reading(read).map(|_| ())
    }
}

/// Typed to let a program go, and the first line after its end: a recording knows their steps.
pub(crate) fn line_before(number: u32) -> String {
    format!("begin {number}\n")
}

/// See [`line_before`].
pub(crate) fn line_after(number: u32) -> String {
    format!("sum {number}\n")
}

/// What stands behind name and number in a whole mark on the console.
fn mark<'a>(console: &'a str, name: &str, number: u32) -> Option<&'a str> {
    let head = format!("<{name}:{number}");
    console.split(head.as_str()).skip(1).find_map(|rest| {
        let (inside, _) = rest.split_once('>')?;
        match inside {
            "" => Some(inside),
            _ => inside.strip_prefix(':'),
        }
    })
}

/// The name of a program's function.
fn function_name(program: &Program) -> String {
    format!("run_{}", program.name.replace('-', "_"))
}

/// Makes the program a command of the shell.
fn function(program: &Program, image: &Image) -> String {
    let body = match (image, program.busybox) {
        (Image::Redis, Some(body)) => body,
        _ => program.debian,
    };
    format!("{}() {{\n{body}\n}}", function_name(program))
}

/// Makes the files that programs read.
fn data(texts: &str, scale: f64) -> String {
    let bytes = (DATA_BYTES * scale).round() as u64;
    format!(
        "while [ \"$(busybox stat -c %s {DATA} 2>/dev/null || echo 0)\" -lt {bytes} ]; do \
         cat {texts} >>{DATA} || break; done; busybox truncate -s {bytes} {DATA} && \
         busybox head -c 65536 {DATA} >{WARM}"
    )
}

#[cfg(test)]
mod tests;
