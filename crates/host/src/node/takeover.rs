//! When what happened in the last takeover, for `status`.

use twinvm_protocol::RoleKind;

use crate::time;

/// Moments of a takeover that this node made, host monotonic nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    heard: u64,
    suspected: u64,
    asked: Option<u64>,
    answered: Option<u64>,
    announced: Option<u64>,
    wall_ms: u64,
}

/// A takeover that this node made.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastTakeover {
    /// When the other node was suspected.
    pub(super) at_unix_ms: u64,
    /// What it took, in milliseconds, stage by stage.
    pub(super) stages: [(&'static str, Option<f64>); 4],
}

/// Watches roles and frames go by.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last_heard: u64,
    current: Option<Moments>,
    last: Option<Moments>,
}

impl Watch {
    /// The peer said something.
    pub(super) fn heard(&mut self, now_ns: u64) {
        self.last_heard = now_ns;
    }

    pub(super) fn role_changed(&mut self, now_ns: u64, from: RoleKind, to: RoleKind) {
        match (from, to) {
            (_, RoleKind::Claiming) => {
                self.current = Some(Moments {
                    heard: self.last_heard.min(now_ns),
                    suspected: now_ns,
                    wall_ms: time::wall_ns() / 1_000_000,
                    ..Moments::default()
                });
            }
            (RoleKind::Claiming, RoleKind::Live) => self.last = self.current.take(),
            _ => self.current = None,
        }
    }

    /// The arbiter is asked: the log is drained.
    pub(super) fn asked(&mut self, now_ns: u64) {
        if let Some(current) = &mut self.current {
            current.asked.get_or_insert(now_ns);
        }
    }

    /// The arbiter has answered: the last answer before going live counts.
    pub(super) fn answered(&mut self, now_ns: u64) {
        if let Some(current) = &mut self.current
            && current.asked.is_some()
        {
            current.answered = Some(now_ns);
        }
    }

    /// A frame went out: the first one after a takeover is the announcement.
    pub(super) fn transmitted(&mut self, now_ns: u64) {
        for moments in [&mut self.current, &mut self.last].into_iter().flatten() {
            if moments.announced.is_none() {
                moments.announced = Some(now_ns);
            }
        }
    }

    /// The last takeover, if there was one.
    pub(super) fn last(&self) -> Option<LastTakeover> {
        let m = self.last?;
        let ms = |from: u64, to: Option<u64>| {
            to.map(|to| (to.saturating_sub(from) / 1000) as f64 / 1000.0)
        };
        let asked = m.asked.unwrap_or(m.suspected);
        let answered = m.answered.unwrap_or(asked);
        Some(LastTakeover {
            at_unix_ms: m.wall_ms,
            stages: [
                ("detect", ms(m.heard, Some(m.suspected))),
                ("drain", ms(m.suspected, m.asked)),
                ("arbitrate", ms(asked, m.answered)),
                ("announce", ms(answered, m.announced)),
            ],
        })
    }

    /// The last takeover for `status`: null if there was none.
    pub(super) fn json(&self) -> serde_json::Value {
        let Some(last) = self.last() else {
            return serde_json::Value::Null;
        };
        let [detect, drain, arbitrate, announce] = last.stages.map(|(_, ms)| ms);
        serde_json::json!({
            "at_unix_ms": last.at_unix_ms,
            "detect_ms": detect,
            "drain_ms": drain,
            "arbitrate_ms": arbitrate,
            "announce_ms": announce,
        })
    }
}
