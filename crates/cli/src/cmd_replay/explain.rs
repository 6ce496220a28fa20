//! Where a replay that has diverged went wrong first, for people and for programs.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use twinvm_log::{STATES_FILE, StateEntry, StatesReader};
use twinvm_machine::EngineKind;
use twinvm_replica::{
    Divergence, Executed, ExplainError, Explanation, Found, Perturbation, Searching,
    explain_disturbed, explain_recorded,
};

use crate::say;

use super::progress::Progress;
use super::source::{Again, SourceError};
use super::{ReplayArgs, disturb};

/// Steps of a slice where nothing is disturbed: each is compared, the last one step by step.
const QUIET_STEPS: u64 = 100_000;

/// What was found; the fields are told in the command's help.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    found: &'static str,
    position: u64,
    icount: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    slice: Option<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hart: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    right: Option<String>,
    instructions: Vec<Instruction>,
    notes: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Instruction {
    icount: u64,
    hart: usize,
    pc: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    text: String,
    trap: bool,
}

impl Explained {
    /// Looks for it; tells on the way what it does.
    pub(crate) fn search(
        args: &ReplayArgs,
        until: u64,
        divergence: &Divergence,
    ) -> Result<Self, SourceError> {
        let mut again = Again {
            dir: args.dir.clone(),
            engine: args.engine.map(EngineKind::from),
        };
        let mut progress: Option<Progress> = None;
        let mut tell = |searching: Searching| match searching {
            Searching::Pass { number, from, to } => {
                if let Some(progress) = &mut progress {
                    progress.clear();
                }
                say::line(format_args!(
                    "twinvm replay: looking for the first difference: replay {number}, between \
                     steps {from} and {to}"
                ));
                progress = Some(Progress::new(0, to));
            }
            Searching::At(icount) => {
                if let Some(progress) = &mut progress {
                    progress.show(icount);
                }
            }
        };
        let result = match args.perturb {
            Some(seed) => explain_disturbed(
                &mut again,
                &mut |machine| disturb(seed, args.sabotage, machine),
                until,
                divergence,
                &mut tell,
            ),
            // Translated code, whichever engine has diverged, beside the interpreter.
            None => explain_disturbed(
                &mut Again {
                    dir: args.dir.clone(),
                    engine: Some(EngineKind::Jit),
                },
                &mut |machine| Perturbation::quiet(QUIET_STEPS, machine),
                until,
                divergence,
                &mut tell,
            ),
        };
        let result = match result {
            // Nothing disturbed it: only the recording can tell.
            Ok(found) if args.perturb.is_none() && found.found == Found::Vanished => {
                Err(ExplainError::PlainDiverged(divergence.clone()))
            }
            Ok(mut found) if args.perturb.is_none() => {
                let note = "the plain replay is interpreted, the other one translated";
                found.notes.push(note.to_owned());
                Ok(found)
            }
            other => other,
        };
        let result = match result {
            Err(ExplainError::PlainDiverged(plain)) => {
                let mut states = States::open(&args.dir);
                let found = explain_recorded(&mut again, &plain, &mut states, &mut tell);
                found.map(|mut found| {
                    found.notes.extend(states.trouble);
                    if args.perturb.is_some() {
                        found.notes.push(format!(
                            "the plain replay is not what was recorded: {plain}"
                        ));
                    }
                    found
                })
            }
            other => other,
        };
        if let Some(progress) = &mut progress {
            progress.clear();
        }
        match result {
            Ok(found) => Ok(found.into()),
            Err(ExplainError::Recording(error)) => Err(error),
            Err(ExplainError::PlainDiverged(_)) => {
                unreachable!("a comparison with the recording doesn't fail by diverging")
            }
        }
    }
}

/// The recording's file of states, as far as it can be read.
struct States {
    reader: Option<StatesReader<std::io::BufReader<std::fs::File>>>,
    trouble: Option<String>,
}

impl States {
    fn open(dir: &Path) -> Self {
        let (reader, trouble) = match StatesReader::open(dir) {
            Ok(Some(reader)) => (Some(reader), None),
            Ok(None) => (
                None,
                Some(format!("the recording has no file {STATES_FILE}")),
            ),
            Err(error) => (None, Some(format!("{STATES_FILE}: {error}"))),
        };
        Self { reader, trouble }
    }
}

impl Iterator for States {
    type Item = StateEntry;

    fn next(&mut self) -> Option<StateEntry> {
        match self.reader.as_mut()?.next()? {
            Ok(entry) => Some(entry),
            Err(error) => {
                self.trouble = Some(format!("{STATES_FILE}: {error}"));
                None
            }
        }
    }
}

impl From<Explanation> for Explained {
    fn from(found: Explanation) -> Self {
        let (item, hart, left, right) = match found.difference {
            Some(it) => (Some(it.item), it.hart, Some(it.left), Some(it.right)),
            None => (None, None, None, None),
        };
        Self {
            found: match found.found {
                Found::Disturbance => "disturbance",
                Found::Step => "step",
                Found::Slice => "slice",
                Found::Check => "check",
                Found::Recording => "recording",
                Found::Vanished => "vanished",
            },
            position: found.position,
            icount: found.icount,
            slice: found.slice,
            item,
            hart,
            left,
            right,
            instructions: found.instructions.into_iter().map(told).collect(),
            notes: found.notes,
        }
    }
}

fn told(executed: Executed) -> Instruction {
    Instruction {
        icount: executed.icount,
        hart: executed.hart,
        pc: format!("{:#x}", executed.pc),
        raw: executed.raw.map(|raw| match raw & 3 {
            3 => format!("{raw:08x}"),
            _ => format!("{raw:04x}"),
        }),
        text: executed.text,
        trap: executed.trap,
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            icount, position, ..
        } = self;
        match self.found {
            "disturbance" => writeln!(
                f,
                "first difference: after step {icount}, before record {position}, in what was done to \
                 the replay between two steps"
            )?,
            "step" => writeln!(
                f,
                "first difference: step {icount}, before record {position}"
            )?,
            "recording" => writeln!(
                f,
                "compared with the recording at step {icount}, record {position}"
            )?,
            found => writeln!(f, "{found}: step {icount}, before record {position}")?,
        }
        if let Some((from, to)) = self.slice {
            writeln!(f, "  slice: from step {from} to step {to}")?;
        }
        if let (Some(item), Some(left), Some(right)) = (&self.item, &self.left, &self.right) {
            let plain = match self.found {
                "recording" => "recording",
                _ => "plain replay",
            };
            writeln!(f, "  {item}")?;
            writeln!(f, "    {plain:<13} {left}")?;
            writeln!(f, "    {:<13} {right}", "this replay")?;
        }
        if !self.instructions.is_empty() {
            writeln!(f, "  the last instructions before it:")?;
        }
        for it in &self.instructions {
            writeln!(
                f,
                "    step {}  hart {}  {:>18}  {:>8}  {}{}",
                it.icount,
                it.hart,
                it.pc,
                it.raw.as_deref().unwrap_or("-"),
                it.text,
                if it.trap { "  (trap)" } else { "" }
            )?;
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}
