//! Points: what was written before one is on both copies, and durable there, so nobody needs to
//! look at it when a node joins again.
//!
//! ```text
//! live: anchor at p, the word "point n at p"   backup: executes exactly to p
//!   names the moment, flushes                    names the moment, flushes
//!      │ <──────────────── "done n" ──────────────────┤
//!   both are done: forgets what was written before ── "clear n" ──> the same
//! ```

use super::disks::SUBJECT;
use super::*;
use twinvm_machine::{DiskRequest, VIRTIO_SLOTS};

/// Second byte of a word. Never reused.
const WORD_POINT: u8 = 4;
const WORD_DONE: u8 = 5;
const WORD_CLEAR: u8 = 6;
/// Between two points, while the guest writes: 10 s.
const POINT_NS: u64 = 10_000_000_000;

/// The point that is being made.
#[derive(Debug, Default)]
pub(super) struct Points {
    /// Something was written since the last one.
    pub(super) wrote: bool,
    last_ns: u64,
    count: u64,
    /// Its number, and the flush that belongs to it here.
    now: Option<(u64, u64)>,
    /// Live: it is done here, and at the backup.
    here: bool,
    there: bool,
    /// Backup: its number, and the position at which it is made.
    awaited: Option<(u64, u64)>,
}

fn word(kind: u8, point: u64, position: Option<u64>) -> Vec<u8> {
    let mut bytes = vec![SUBJECT, kind];
    bytes.extend_from_slice(&point.to_le_bytes());
    bytes.extend(position.iter().flat_map(|position| position.to_le_bytes()));
    bytes
}

impl Replica {
    /// Live and protected: makes a point now and then.
    pub(super) fn make_point(&mut self, env: &mut dyn Env, now: HostTime) {
        let due = now.mono_ns.saturating_sub(self.points.last_ns) >= POINT_NS;
        if !self.disks.any() || !self.points.wrote || !due || self.frozen || !self.node.protected()
        {
            return;
        }
        self.hand_out_disks(now);
        let (Vm::Live(live), Some(session)) = (&mut self.vm, self.node.session()) else {
            return;
        };
        let position = match live.point(now) {
            Ok(position) => position,
            Err(error) => return self.fatal(error.to_string()),
        };
        self.points.last_ns = now.mono_ns;
        self.points.count += 1;
        let point = self.points.count;
        // Before the record that it is about.
        let bytes = word(WORD_POINT, point, Some(position));
        self.tell(env, ProtocolEvent::Side { session, bytes });
        if let Vm::Live(live) = &mut self.vm {
            live.flush();
        }
        self.send_batches(env);
        self.begin_point(point);
    }

    fn begin_point(&mut self, point: u64) {
        let flush = self.next_flush();
        self.points.wrote = false;
        self.points.now = Some((point, flush));
        (self.points.here, self.points.there) = (false, false);
        let in_flight = self.requests_in_flight();
        self.actions.push_back(Action::DiskPoint {
            point,
            flush,
            in_flight,
        });
    }

    /// What the machine here waits for. Both nodes' machines are at the same step when they name a
    /// point, so it is the same on both.
    fn requests_in_flight(&self) -> Vec<DiskRequest> {
        let machine = match &self.vm {
            Vm::Live(live) => live.machine(),
            Vm::Following(following) => following.replay.machine(),
            Vm::Nothing | Vm::Installing(_) => return Vec::new(),
        };
        machine.disk_requests(&mut [0; VIRTIO_SLOTS])
    }

    /// The backup may have come to a point: all requests up to it are handed out.
    pub(super) fn at_point(&mut self) {
        if let (Vm::Following(following), Some((point, position))) =
            (&mut self.vm, self.points.awaited)
            && following.replay.position() == position
        {
            self.points.awaited = None;
            following.replay.pause_at(None);
            self.begin_point(point);
        }
    }

    /// The flush of a point has ended here. False if it was none.
    pub(super) fn point_flushed(&mut self, env: &mut dyn Env, flush: u64, done: bool) -> bool {
        let Some((point, _)) = self.points.now.filter(|(_, own)| *own == flush) else {
            return false;
        };
        if !done {
            self.points.now = None;
        } else if let Vm::Following(following) = &self.vm {
            let session = following.session;
            let bytes = word(WORD_DONE, point, None);
            self.tell(env, ProtocolEvent::Side { session, bytes });
        } else {
            self.points.here = true;
            let mut events = VecDeque::new();
            self.clear_if_both(&mut events);
            for event in events {
                self.tell(env, event);
            }
        }
        true
    }

    fn clear_if_both(&mut self, events: &mut VecDeque<ProtocolEvent<Output>>) {
        let (Some((point, _)), Some(session)) = (self.points.now, self.node.session()) else {
            return;
        };
        if self.points.here && self.points.there && matches!(self.vm, Vm::Live(_)) {
            self.points.now = None;
            self.actions.push_back(Action::ClearDisks { point });
            let bytes = word(WORD_CLEAR, point, None);
            events.push_back(ProtocolEvent::Side { session, bytes });
        }
    }

    /// What may be a word about points. One without a meaning means nothing: a session with a
    /// backup is worth more.
    pub(super) fn point_heard(
        &mut self,
        bytes: &[u8],
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        let Some((&[kind, ref point @ ..], position)) = bytes.split_first_chunk::<9>() else {
            return;
        };
        let point = u64::from_le_bytes(*point);
        let current = self.points.now.is_some_and(|(own, _)| own == point);
        match (kind, &mut self.vm, <[u8; 8]>::try_from(position)) {
            (WORD_POINT, Vm::Following(following), Ok(position)) => {
                let position = u64::from_le_bytes(position);
                if following.replay.position() < position {
                    following.replay.pause_at(Some(position));
                    self.points.awaited = Some((point, position));
                }
            }
            (WORD_DONE, Vm::Live(_), _) if current => {
                self.points.there = true;
                self.clear_if_both(events);
            }
            (WORD_CLEAR, Vm::Following(_), _) if current => {
                self.points.now = None;
                self.actions.push_back(Action::ClearDisks { point });
            }
            // What was on its way when one side had gone on.
            _ => {}
        }
    }

    /// The session is over: no point counts any more.
    pub(super) fn forget_points(&mut self) {
        let (count, last_ns) = (self.points.count, self.points.last_ns);
        self.points = Points {
            wrote: true,
            last_ns,
            count,
            ..Points::default()
        };
        if let Vm::Following(following) = &mut self.vm {
            following.replay.pause_at(None);
        }
    }
}
