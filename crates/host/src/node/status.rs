//! `ctl status`.

use serde_json::{Value, json};
use twinvm_protocol::RoleKind;
use twinvm_replica::{Replica, ReplicaStatus};

use super::NodeOptions;
use super::happenings::Happenings;
use super::takeover::Watch;

/// Rates are means over about this long: 2 s.
const WINDOW_NS: u64 = 2_000_000_000;

/// Measures rates.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Meter {
    /// Where the window began; none until the first look at a machine, whose counts may be
    /// those of a snapshot.
    since: Option<Counts>,
    mips: f64,
    log_bytes_s: f64,
}

#[derive(Debug, Clone, Copy)]
struct Counts {
    at_ns: u64,
    icount: u64,
    log_bytes: u64,
}

impl Meter {
    /// Another machine or another role runs here from now on.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }

    pub(super) fn mips(&self) -> f64 {
        self.mips
    }

    pub(super) fn sample(&mut self, now_ns: u64, replica: &Replica) {
        self.take(now_ns, replica.counters());
    }

    fn take(&mut self, at_ns: u64, (icount, log_bytes): (u64, u64)) {
        let now = Counts {
            at_ns,
            icount,
            log_bytes,
        };
        let since = *self.since.get_or_insert(now);
        let ns = at_ns.saturating_sub(since.at_ns);
        if ns < WINDOW_NS {
            return;
        }
        let seconds = ns as f64 / 1e9;
        self.mips = icount.saturating_sub(since.icount) as f64 / seconds / 1e6;
        self.log_bytes_s = log_bytes.saturating_sub(since.log_bytes) as f64 / seconds;
        self.since = Some(now);
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// By how much virtual time the backup is behind, if there is a session.
pub(super) fn lag_ms(status: &ReplicaStatus) -> Option<f64> {
    let protocol = &status.protocol;
    protocol.session?;
    let peer = protocol.peer_progress.vtime;
    let (ahead, behind) = match protocol.role {
        RoleKind::Live => (status.vtime, peer),
        _ => (peer, status.vtime),
    };
    Some(ahead.saturating_sub(behind) as f64 / 10_000.0)
}

/// The answer to `status`.
pub(super) fn json(
    options: &NodeOptions,
    replica: &Replica,
    meter: &Meter,
    watch: &Watch,
    happenings: &Happenings,
    waits: &[String],
) -> Value {
    let status = replica.status();
    let protocol = &status.protocol;
    let live = protocol.role == RoleKind::Live;
    let peer = &protocol.peer_progress;
    let has_session = protocol.session.is_some();
    let lag_ms = lag_ms(&status).map(rounded);
    let hold = replica
        .hold_us()
        .map(|(p50, p99)| json!({ "p50": p50, "p99": p99 }));
    let peer_role = match (has_session, live, protocol.protected) {
        (false, _, _) => "unknown",
        (true, true, true) => "backup",
        (true, true, false) => "joining",
        (true, false, _) => "live",
    };
    json!({
        "vm": options.vm,
        "node": options.name,
        "pid": std::process::id(),
        "generation": protocol.generation.0,
        "protected": protocol.protected,
        "role": protocol.role.to_string(),
        "link": protocol.link,
        "lag_ms": lag_ms,
        "log_bytes": status.log_bytes,
        "log_bytes_s": rounded(meter.log_bytes_s),
        "output_hold_us": hold,
        "join_pause_us": status.join_pause_ns.map(|ns| rounded(ns as f64 / 1000.0)),
        "disk_copies_bytes": {
            "sent": status.disk_copies_bytes.0,
            "heard": status.disk_copies_bytes.1,
        },
        "mips": rounded(meter.mips),
        "icount": status.icount,
        "position": status.position,
        "digests_equal": status.digests_equal,
        "divergence": status.divergence,
        "disks": disks(&status, waits),
        "takeovers": happenings.counts().takeovers,
        "last_takeover": watch.json(),
        "nodes": [
            {
                "name": options.name,
                "role": protocol.role.to_string(),
                "peer": options.listen.to_string(),
                "icount": status.icount,
                "position": status.position,
            },
            {
                "name": options.peer_name,
                "role": peer_role,
                "peer": options.peer.to_string(),
                "icount": if has_session { Some(peer.icount) } else { None },
                "position": if has_session { Some(peer.position.0) } else { None },
            },
        ],
        "waiting_for": protocol.note,
    })
}

/// A copy of disks under way, why this node joins nobody, and why requests of shared disks wait; null
/// if there is nothing of it.
fn disks(status: &ReplicaStatus, waits: &[String]) -> Value {
    let sync = status.sync.map(|(out, progress)| {
        json!({
            "to": if out { "the other node" } else { "this node" },
            "stage": progress.stage,
            "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
        })
    });
    if sync.is_none() && status.stays_out.is_none() && waits.is_empty() {
        return Value::Null;
    }
    json!({ "copying": sync, "stays_out": status.stays_out, "waits": waits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_begin_where_the_machine_does() {
        let mut meter = Meter::default();
        // A machine from a snapshot, five thousand million steps old.
        meter.take(1_000_000_000, (5_000_000_000, 0));
        meter.take(2_000_000_000, (5_050_000_000, 500));
        assert_eq!(meter.mips, 0.0, "the window is not over");
        meter.take(3_000_000_000, (5_100_000_000, 1_000));
        assert_eq!((meter.mips, meter.log_bytes_s), (50.0, 500.0));
        meter.restart();
        meter.take(4_000_000_000, (5_100_000_000, 0));
        meter.take(6_000_000_000, (5_102_000_000, 10));
        assert_eq!((meter.mips, meter.log_bytes_s), (1.0, 5.0));
    }
}
