//! What is told at the end: report.json and the summary on the terminal.

use std::fmt;

use serde::Serialize;

use super::checker::Tally;
use super::status::Takeover;
use super::timeline::percentile;

/// One kill and what followed, as the client and the nodes saw it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kill {
    /// The node that was killed.
    pub(crate) node: &'static str,
    /// When, in microseconds since the client's start.
    pub(crate) at_us: u64,
    /// The longest time without an answer across the kill, in microseconds since the client's
    /// start.
    pub(crate) pause: Option<super::timeline::Gap>,
    /// What the node that took over says of it.
    pub(crate) takeover: Option<Takeover>,
    /// When the VM was protected again, in microseconds since the client's start.
    pub(crate) protected_us: Option<u64>,
    /// From the start of the killed node to the VM being protected again.
    pub(crate) reprotect_ms: Option<f64>,
    /// The longest time without an answer from then until the VM was protected again.
    pub(crate) join_pause_ms: Option<f64>,
}

/// All that clients can tell at their end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// When each answer came, in microseconds since the clients' start; never decreasing.
    pub(crate) times_us: Vec<u64>,
    /// The judgement of all answers.
    pub(crate) tally: Tally,
    /// The guest, asked at the end, has what it has answered for; none if it never was asked.
    pub(crate) final_check: Option<bool>,
    /// What ended the work early.
    pub(crate) fault: Option<String>,
    /// How all of it is told.
    pub(crate) wording: Wording,
    /// What several clients at a time were answered.
    pub(crate) history: Option<History>,
    /// Other sessions.
    pub(crate) sessions: Vec<Session>,
}

/// The words for what was answered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wording {
    /// One answer, in the plural, at most ten letters.
    pub(crate) what: &'static str,
    /// On how many connections.
    pub(crate) on: &'static str,
    /// Over the picture.
    pub(crate) title: &'static str,
    /// The check at the end.
    pub(crate) right: &'static str,
    pub(crate) wrong: &'static str,
    pub(crate) unknown: &'static str,
}

/// What the live nodes did while they were protected and the client counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    /// Time that was measured, in seconds.
    pub(crate) seconds: f64,
    /// Bytes of log made in it.
    pub(crate) log_bytes: u64,
    /// Instructions executed in it.
    pub(crate) instructions: u64,
}

impl Work {
    /// So many a second; `None` if nothing was measured.
    fn rate(&self, count: u64) -> Option<f64> {
        (self.seconds > 0.0).then(|| count as f64 / self.seconds)
    }
}

/// The content of report.json. Times are in milliseconds unless the name says otherwise.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// New answers.
    pub(crate) answers: u64,
    /// Numbers that never came.
    pub(crate) lost: u64,
    /// Numbers that came twice.
    pub(crate) duplicated: u64,
    /// Numbers that came after a higher one.
    pub(crate) out_of_order: u64,
    /// Answers that were none.
    pub(crate) wrong: u64,
    /// GET at the end gave the highest number; none if it was never asked.
    pub(crate) final_check: Option<bool>,
    /// Every answer was right, up to the last check.
    pub(crate) ok: bool,
    /// What ended the run early.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    /// From the first answer to the last, in seconds.
    pub(crate) seconds: f64,
    /// Size of the log while protected.
    pub(crate) log_mbit_s: Option<f64>,
    /// Speed of the guest while protected.
    pub(crate) guest_mips: Option<f64>,
    /// For each kill: from the start of the killed node to protection.
    pub(crate) reprotect_ms: Vec<Option<f64>>,
    /// The pauses of all takeovers together.
    pub(crate) pause_ms: Spread,
    /// One entry for each kill.
    pub(crate) takeovers: Vec<TakeoverEntry>,
    /// The seed of the random moments.
    pub(crate) seed: u64,
    /// How many kills were asked for.
    pub(crate) kills: u32,
    /// The clients beside the one that counts; none if they never came to their end.
    pub(crate) history: Option<History>,
    /// Sessions beside the clients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sessions: Vec<Session>,
    #[serde(skip)]
    wording: Wording,
}

/// A connection, or a few, that had to stay open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Session {
    /// Whose.
    pub(crate) name: &'static str,
    /// What came over it, in words.
    pub(crate) told: String,
    /// What is wrong, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

/// What several clients at a time were answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct History {
    /// How many.
    pub(crate) clients: u16,
    /// To all of them.
    pub(crate) answers: usize,
    /// One copy of the data explains every answer.
    pub(crate) linearizable: bool,
    /// What is wrong, if something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
}

/// One kill in report.json.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct TakeoverEntry {
    /// When the node was killed, in seconds since the client's start.
    pub(crate) at_s: f64,
    /// The node that was killed.
    pub(crate) node: &'static str,
    /// The longest time without an answer.
    pub(crate) pause_ms: Option<f64>,
    /// Parts of it, as the new live node measured them.
    pub(crate) detect_ms: Option<f64>,
    /// Winning the arbiter's record.
    pub(crate) arbitrate_ms: Option<f64>,
    /// Executing what was left of the log.
    pub(crate) drain_ms: Option<f64>,
    /// Announcing the MAC address.
    pub(crate) announce_ms: Option<f64>,
    /// The longest time without an answer from then until the VM was protected again.
    pub(crate) join_pause_ms: Option<f64>,
}

/// Percentiles by nearest rank.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    /// Half of all are at most this.
    pub(crate) p50: Option<f64>,
    /// 99 of 100 are at most this.
    pub(crate) p99: Option<f64>,
    /// The longest.
    pub(crate) max: Option<f64>,
}

impl Report {
    pub(crate) fn new(
        told: &Told,
        kills: &[Kill],
        work: &Work,
        (seed, asked_kills): (u64, u32),
        failure: Option<String>,
    ) -> Self {
        let Tally {
            answers,
            lost,
            duplicated,
            out_of_order,
            wrong,
        } = told.tally;
        let pauses: Vec<f64> = kills.iter().filter_map(pause_ms).collect();
        let length_us = match told.times_us[..] {
            [first, .., last] => last - first,
            _ => 0,
        };
        let history = told.history.as_ref();
        let broken = told.sessions.iter().find_map(Session::broken);
        let failure = failure
            .or_else(|| told.fault.clone())
            .or_else(|| history.and_then(|history| history.failure.clone()))
            .or(broken);
        Self {
            answers,
            lost,
            duplicated,
            out_of_order,
            wrong,
            final_check: told.final_check,
            ok: told.tally.is_clean()
                && told.final_check == Some(true)
                && kills.len() == asked_kills as usize
                && failure.is_none(),
            failure,
            seconds: round(length_us as f64 / 1e6),
            log_mbit_s: work
                .rate(work.log_bytes)
                .map(|bytes| round(bytes * 8.0 / 1e6)),
            guest_mips: work.rate(work.instructions).map(|steps| round(steps / 1e6)),
            reprotect_ms: kills.iter().map(|k| k.reprotect_ms.map(round)).collect(),
            pause_ms: Spread {
                p50: percentile(&pauses, 50.0),
                p99: percentile(&pauses, 99.0),
                max: percentile(&pauses, 100.0),
            },
            takeovers: kills.iter().map(TakeoverEntry::new).collect(),
            seed,
            kills: asked_kills,
            history: told.history.clone(),
            sessions: told.sessions.clone(),
            wording: told.wording,
        }
    }
}

impl Session {
    fn broken(&self) -> Option<String> {
        let failure = self.failure.as_ref()?;
        Some(format!("{}: {failure}", self.name))
    }
}

impl TakeoverEntry {
    fn new(kill: &Kill) -> Self {
        let parts = kill.takeover.unwrap_or_default();
        Self {
            at_s: round(kill.at_us as f64 / 1e6),
            node: kill.node,
            pause_ms: pause_ms(kill),
            detect_ms: parts.detect_ms,
            arbitrate_ms: parts.arbitrate_ms,
            drain_ms: parts.drain_ms,
            announce_ms: parts.announce_ms,
            join_pause_ms: kill.join_pause_ms.map(round),
        }
    }
}

fn pause_ms(kill: &Kill) -> Option<f64> {
    kill.pause.map(|gap| round(gap.ms()))
}

/// Three digits after the point are enough for every unit in the report.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A number with one digit after the point, or a dash.
struct Shown(Option<f64>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value:.1}"),
            None => f.write_str("–"),
        }
    }
}

/// The summary on the terminal.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wording {
            what,
            on,
            right,
            wrong,
            unknown,
            ..
        } = self.wording;
        let checked = match self.final_check {
            Some(true) => right,
            Some(false) => wrong,
            None => unknown,
        };
        writeln!(
            f,
            "{what:<11}{} in {:.1} s {on}; {checked}",
            self.answers, self.seconds
        )?;
        write!(
            f,
            "           {} lost, {} duplicated, {} out of order",
            self.lost, self.duplicated, self.out_of_order
        )?;
        match self.wrong {
            0 => writeln!(f)?,
            wrong => writeln!(f, ", {wrong} wrong")?,
        }
        if let Some(history) = &self.history {
            writeln!(
                f,
                "histories  {} answers to {} clients at a time: {}linearizable",
                history.answers,
                history.clients,
                if history.linearizable { "" } else { "NOT " }
            )?;
        }
        for (number, session) in self.sessions.iter().enumerate() {
            let head = if number == 0 { "sessions" } else { "" };
            let broken = if session.failure.is_some() {
                "BROKEN: "
            } else {
                ""
            };
            writeln!(f, "{head:<11}{}: {broken}{}", session.name, session.told)?;
        }
        if !self.takeovers.is_empty() {
            let reprotect: Vec<f64> = self.reprotect_ms.iter().flatten().copied().collect();
            writeln!(
                f,
                "pauses     p50 {} ms, p99 {} ms, longest {} ms ({} of {} kills)",
                Shown(self.pause_ms.p50),
                Shown(self.pause_ms.p99),
                Shown(self.pause_ms.max),
                self.takeovers.len(),
                self.kills
            )?;
            writeln!(
                f,
                "protection back p50 {} ms, longest {} ms after a node's start",
                Shown(percentile(&reprotect, 50.0)),
                Shown(percentile(&reprotect, 100.0))
            )?;
        }
        let log = self
            .log_mbit_s
            .map_or("–".to_owned(), |mbit| format!("{mbit:.2}"));
        write!(
            f,
            "while safe log {log} Mbit/s, guest {} million instructions/s",
            Shown(self.guest_mips)
        )
    }
}

#[cfg(test)]
mod tests;
