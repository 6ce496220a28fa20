//! What executed the guest, and how: part of a run's report.

use serde::Serialize;
use twinvm_machine::Machine;

use crate::engine_arg::EngineArg;

/// Kinds of instructions that are told.
const TOLD_KINDS: usize = 40;

/// What executed the guest, from the run's beginning.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EngineReport {
    name: &'static str,
    steps_interpreted: u64,
    steps_translated: u64,
    interpreter: Interpreter,
    #[serde(skip_serializing_if = "Option::is_none")]
    translation: Option<Translation>,
}

#[derive(Debug, Clone, Serialize)]
struct Interpreter {
    blocks_entered: u64,
    instructions_decoded: u64,
    page_walks: u64,
    fetches_dropped: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Translation {
    blocks: u64,
    instructions: u64,
    blocks_retired: u64,
    flushes: u64,
    links: u64,
    code_bytes: u64,
    peak_code_bytes: u64,
    table_bytes: u64,
    entries: u64,
    exits: Exits,
    steps_outside: Outside,
    calls: u64,
    calls_by_kind: Vec<Calls>,
}

#[derive(Debug, Clone, Serialize)]
struct Exits {
    tail: u64,
    lookup: u64,
    link: u64,
    look: u64,
    trap: u64,
    sbi: u64,
    turn: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Outside {
    cold: u64,
    tail: u64,
    single: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Calls {
    kind: String,
    calls: u64,
}

impl EngineReport {
    /// What the machine's engine has done so far.
    pub(crate) fn of(machine: &Machine) -> Self {
        let counters = machine.engine_counters();
        let done = counters.translation;
        let translated = done.own_steps();
        let calls = |(kind, calls): &(_, u64)| Calls {
            kind: format!("{kind:?}"),
            calls: *calls,
        };
        Self {
            name: EngineArg::from(machine.engine_kind()).name(),
            steps_interpreted: counters.steps - translated,
            steps_translated: translated,
            interpreter: Interpreter {
                blocks_entered: counters.blocks,
                instructions_decoded: counters.decoded,
                page_walks: counters.walks,
                fetches_dropped: counters.voids,
            },
            translation: counters.memory.map(|memory| Translation {
                blocks: done.blocks,
                instructions: done.instructions,
                blocks_retired: done.retired,
                flushes: done.flushes,
                links: done.links,
                code_bytes: memory.code_bytes,
                peak_code_bytes: memory.peak_code_bytes,
                table_bytes: memory.table_bytes,
                entries: done.entries,
                exits: Exits {
                    tail: done.exits.tail,
                    lookup: done.exits.lookup,
                    link: done.exits.link,
                    look: done.exits.look,
                    trap: done.exits.trap,
                    sbi: done.exits.sbi,
                    turn: done.exits.turn,
                },
                steps_outside: Outside {
                    cold: done.outside.cold,
                    tail: done.outside.tail,
                    single: done.outside.single,
                },
                calls: done.calls,
                calls_by_kind: counters
                    .by_kind
                    .iter()
                    .take(TOLD_KINDS)
                    .map(calls)
                    .collect(),
            }),
        }
    }
}
