//! A session as the live node sees it. Acks count only here.

use crate::config::{CAUGHT_UP_TICKS, Config};
use crate::event::Progress;
use crate::record::{ConnId, NodeId, Position, SessionId};
use crate::time::Instant;

/// The sending end of a session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) conn: ConnId,
    pub(crate) id: SessionId,
    pub(crate) peer: NodeId,
    pub(crate) peer_name: String,
    /// Where the snapshot stands, once taken.
    pub(crate) base: Option<Position>,
    /// Log sent, up to here.
    pub(crate) sent: Position,
    /// Log acked, up to here.
    pub(crate) acked: Position,
    /// How far the backup has executed.
    pub(crate) progress: Progress,
    /// How far it is behind, ticks, if its speed is known.
    pub(crate) lag: Option<u64>,
    pub(crate) installed: bool,
    heard_at: Instant,
    /// When it last executed something, or had nothing to execute.
    progressed_at: Instant,
    pub(crate) next_beat: Instant,
}

impl Session {
    pub(crate) fn new(
        now: Instant,
        conn: ConnId,
        id: SessionId,
        peer: NodeId,
        peer_name: String,
    ) -> Self {
        Self {
            conn,
            id,
            peer,
            peer_name,
            base: None,
            sent: Position(0),
            acked: Position(0),
            progress: Progress::default(),
            lag: None,
            installed: false,
            heard_at: now,
            progressed_at: now,
            next_beat: now,
        }
    }

    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// The joiner runs from here on; standing still counts from now.
    pub(crate) fn on_installed(&mut self, now: Instant) {
        self.installed = true;
        self.progressed_at = now;
    }

    /// Takes an ack. False if it acks what was never sent.
    pub(crate) fn on_ack(&mut self, now: Instant, received: Position, progress: Progress) -> bool {
        if received > self.sent {
            return false;
        }
        self.acked = self.acked.max(received);
        if progress.position > self.progress.position || progress.position >= received {
            self.progressed_at = now;
        }
        self.progress = progress;
        true
    }

    /// Whether the joiner runs close behind. As long as nobody knows how fast it is it doesn't: a
    /// takeover might take many times what it is behind in virtual time.
    pub(crate) fn caught_up(&self, log_end: Position) -> bool {
        let level = self.progress.position >= log_end;
        let close = |lag| level || lag <= CAUGHT_UP_TICKS;
        self.installed && self.lag.is_some_and(close)
    }

    /// Grounds for suspicion that time has brought.
    pub(crate) fn suspicion(&self, now: Instant, config: &Config) -> Option<String> {
        if now >= self.heard_at.plus_ms(config.suspect_ms) {
            return Some(format!(
                "nothing heard from the backup for {} ms",
                config.suspect_ms
            ));
        }
        if self.installed && now >= self.progressed_at.plus_ms(config.stall_ms) {
            return Some(format!(
                "the backup has executed nothing for {} ms: {} of {} received",
                config.stall_ms, self.progress.position, self.acked
            ));
        }
        None
    }

    pub(crate) fn deadline(&self, config: &Config) -> Instant {
        let mut at = self.next_beat.min(self.heard_at.plus_ms(config.suspect_ms));
        if self.installed {
            at = at.min(self.progressed_at.plus_ms(config.stall_ms));
        }
        at
    }
}
