//! What the program says to people. A terminal that is gone, a pipe that nobody reads, a full file
//! system: none of it may end a guest, so nothing is written with the macros that panic then.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use crate::FAULT;

/// A line on standard error, if there is a way to write it.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A part of a line on standard error, at once.
pub(crate) fn part(text: impl Display) {
    let mut err = io::stderr().lock();
    let _ = write!(err, "{text}").and_then(|()| err.flush());
}

/// A command's answer, as lines on standard output. A reader that wants no more of it is no
/// failure.
///
/// # Errors
/// It can't be written: what was asked for is not there.
pub(crate) fn answer(text: impl Display) -> Result<(), (u8, String)> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err((FAULT, format!("the answer can't be written: {error}")))
        }
        _ => Ok(()),
    }
}
