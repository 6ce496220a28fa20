//! `ctl status`.

use serde_json::{Value, json};
use twinvm_protocol::RoleKind;
use twinvm_replica::Replica;

use super::NodeOptions;
use super::takeover::Watch;

/// Rates are means over about this long: 2 s.
const WINDOW_NS: u64 = 2_000_000_000;

/// Measures rates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meter {
    since_ns: u64,
    icount: u64,
    log_bytes: u64,
    mips: f64,
    log_bytes_s: f64,
}

impl Meter {
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            since_ns: now_ns,
            icount: 0,
            log_bytes: 0,
            mips: 0.0,
            log_bytes_s: 0.0,
        }
    }

    /// Another machine runs here from now on.
    pub(super) fn restart(&mut self, now_ns: u64) {
        *self = Self::new(now_ns);
    }

    pub(super) fn sample(&mut self, now_ns: u64, replica: &Replica) {
        let ns = now_ns.saturating_sub(self.since_ns);
        if ns < WINDOW_NS {
            return;
        }
        let (icount, log_bytes) = replica.counters();
        let seconds = ns as f64 / 1e9;
        self.mips = icount.saturating_sub(self.icount) as f64 / seconds / 1e6;
        self.log_bytes_s = log_bytes.saturating_sub(self.log_bytes) as f64 / seconds;
        (self.since_ns, self.icount, self.log_bytes) = (now_ns, icount, log_bytes);
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The answer to `status`.
pub(super) fn json(
    options: &NodeOptions,
    replica: &Replica,
    meter: &Meter,
    watch: &Watch,
    _now_ns: u64,
) -> Value {
    let status = replica.status();
    let protocol = &status.protocol;
    let live = protocol.role == RoleKind::Live;
    let peer = &protocol.peer_progress;
    let has_session = protocol.session.is_some();
    let lag_ms = has_session.then(|| {
        let (ahead, behind) = if live {
            (status.vtime, peer.vtime)
        } else {
            (peer.vtime, status.vtime)
        };
        rounded(ahead.saturating_sub(behind) as f64 / 10_000.0)
    });
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
        "mips": rounded(meter.mips),
        "icount": status.icount,
        "position": status.position,
        "digests_equal": status.digests_equal,
        "divergence": status.divergence,
        "last_takeover": watch.json(),
        "nodes": [
            {
                "name": options.name,
                "role": protocol.role.to_string(),
                "peer": options.listen.to_string(),
                "icount": status.icount,
            },
            {
                "name": options.peer_name,
                "role": peer_role,
                "peer": options.peer.to_string(),
                "icount": if has_session { Some(peer.icount) } else { None },
            },
        ],
        "waiting_for": protocol.note,
    })
}
