//! Telling the person who waits what is going on.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Hears of a build's stages.
pub trait Progress {
    /// A stage begins (and the one before has ended), e.g. "downloading 14 packages".
    fn stage(&mut self, what: &str);

    /// How far the stage is, in bytes.
    fn advance(&mut self, done_bytes: u64, total_bytes: u64);

    /// Which of many like things the stage is at, e.g. a package that is being set up.
    fn item(&mut self, what: &str, number: u64, total: u64);

    /// Something to be kept on the screen, e.g. "up to date".
    fn note(&mut self, what: &str);
}

/// Says nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&mut self, _: &str) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn item(&mut self, _: &str, _: u64, _: u64) {}
    fn note(&mut self, _: &str) {}
}

/// A spinner or bar on standard error; where that is no terminal, one plain line per stage.
#[derive(Debug)]
pub struct Terminal {
    bar: Option<ProgressBar>,
    live: bool,
    stage: String,
    started: Instant,
    /// When something was last printed where there is no terminal.
    printed: Instant,
}

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(100);
/// How often a long stage says where it is, where there is no terminal.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

impl Terminal {
    /// Looks at standard error once, to choose between bars and lines.
    pub fn new() -> Self {
        Self {
            bar: None,
            live: std::io::stderr().is_terminal(),
            stage: String::new(),
            started: Instant::now(),
            printed: Instant::now(),
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A line on standard error, if there is a way to write it: nobody need read it.
fn line(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

impl Progress for Terminal {
    fn stage(&mut self, what: &str) {
        self.clear();
        what.clone_into(&mut self.stage);
        self.started = Instant::now();
        self.printed = self.started;
        if !self.live {
            line(what);
            return;
        }
        let bar = ProgressBar::new_spinner().with_message(what.to_owned());
        bar.set_style(style("{spinner} {elapsed:>4} {msg}"));
        bar.enable_steady_tick(TICK);
        self.bar = Some(bar);
    }

    fn advance(&mut self, done_bytes: u64, total_bytes: u64) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(total_bytes) {
                bar.set_style(style(
                    "{spinner} {msg} {wide_bar} {bytes}/{total_bytes} {eta}",
                ));
                bar.set_length(total_bytes);
            }
            bar.set_position(done_bytes.min(total_bytes));
        }
    }

    fn item(&mut self, what: &str, number: u64, total: u64) {
        let text = format!("{}: {what} ({number} of {total})", self.stage);
        if let Some(bar) = &self.bar {
            bar.set_message(text);
        } else if !self.live && self.printed.elapsed() >= SIGN_OF_LIFE {
            self.printed = Instant::now();
            line(format_args!(
                "{text}, {} s",
                self.started.elapsed().as_secs()
            ));
        }
    }

    fn note(&mut self, what: &str) {
        self.clear();
        line(what);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.clear();
    }
}
