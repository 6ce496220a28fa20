//! `[protect]`: the limits of the protocol, and what protection does to disks.

use twinvm_host::node::Flush;
use twinvm_protocol::{Config as Limits, OutputFrom};

use crate::error::VmTomlError;
use crate::table::{Document, Table};

const PROTECT_KEYS: &[&str] = &[
    "heartbeat_ms",
    "suspect_ms",
    "stall_ms",
    "cold_delay_ms",
    "output",
    "flush",
    "sync_mib_s",
];

/// The longest time a limit in `[protect]` may be: an hour.
const MAX_LIMIT_MS: u64 = 3_600_000;
/// Above any disk: 1 TiB/s.
const MAX_SYNC_MIB_S: u64 = 1 << 20;
const MAX_COLD_DELAY_MS: u64 = 30 * 24 * 3_600_000;

/// What `[protect]` says.
#[derive(Default)]
pub(crate) struct Protection {
    /// The limits of the protocol.
    pub(crate) limits: Limits,
    /// When a guest's flush of a disk counts as done.
    pub(crate) flush: Flush,
    /// Most MiB per second of disks that a joining node is sent.
    pub(crate) sync_mib_s: Option<u64>,
}

pub(crate) fn parse(
    document: &Document<'_>,
    root: &Table<'_, '_>,
) -> Result<Protection, VmTomlError> {
    let Some(table) = document.table(root, "protect", PROTECT_KEYS)? else {
        return Ok(Protection::default());
    };
    let rate = table.integer("sync_mib_s", 1, MAX_SYNC_MIB_S)?;
    Ok(Protection {
        limits: parse_limits(&table)?,
        flush: table.choice(
            "flush",
            [
                ("live", Flush::Live),
                ("both", Flush::Both),
                ("never", Flush::Never),
            ],
        )?,
        sync_mib_s: rate.map(|rate| rate.value),
    })
}

fn parse_limits(table: &Table<'_, '_>) -> Result<Limits, VmTomlError> {
    let default = Limits::default();
    let limit = |key, default| {
        let value = table.integer(key, 1, MAX_LIMIT_MS)?;
        Ok(value.map_or(default, |value| value.value))
    };
    let limits = Limits {
        heartbeat_ms: limit("heartbeat_ms", default.heartbeat_ms)?,
        suspect_ms: limit("suspect_ms", default.suspect_ms)?,
        stall_ms: limit("stall_ms", default.stall_ms)?,
        cold_delay_ms: table
            .integer("cold_delay_ms", 0, MAX_COLD_DELAY_MS)?
            .map(|value| value.value),
        output: table.choice(
            "output",
            [("live", OutputFrom::Live), ("backup", OutputFrom::Backup)],
        )?,
    };
    // One lost heartbeat must not end a session.
    if limits.suspect_ms < 2 * limits.heartbeat_ms {
        let problem = format!(
            "suspect_ms = {} is less than twice heartbeat_ms = {}: one late heartbeat would \
             cause a takeover; set suspect_ms = {} or more",
            limits.suspect_ms,
            limits.heartbeat_ms,
            2 * limits.heartbeat_ms
        );
        let line = table
            .line_of("suspect_ms")
            .or(table.line_of("heartbeat_ms"));
        return Err(table.conflict(line, problem));
    }
    Ok(limits)
}
