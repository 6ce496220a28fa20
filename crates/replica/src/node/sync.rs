//! Disks on their way to a joining node, and from a live one.
//!
//! ```text
//! live:    TakeSnapshot ─> copies while the guest runs ─> level: disks and machine frozen in one
//!          step, SnapshotTaken ─> the rest, beside the machine's pages
//! joining: the first word ─> copies ─> SnapshotBegin ─> the rest, the machine ─> both whole and
//!          durable: Installed
//! ```

use super::disks::SUBJECT;
use super::*;
use crate::sync::{DisksIn, DisksOut, MAX_WORDS_BYTES, SyncProgress, SyncWords};
use twinvm_protocol::RoleKind;

/// Second byte of a word: from a [`DisksOut`], from a [`DisksIn`]. Never reused.
pub(super) const WORD_OUT: u8 = 2;
pub(super) const WORD_IN: u8 = 3;

/// Unsent bytes up to which more is queued: enough to keep a fast link busy between two looks.
const QUEUE_BYTES: usize = 1 << 20;

/// A guest that runs waits for a word at most once in this many times that a word takes here, so
/// that it loses a twentieth of its time; as much again goes into handing the word to the channel.
const SPACING: u64 = 20;

/// Both ends of copies under way; at most one at a time.
#[derive(Default)]
pub(super) struct Sync {
    out: Option<Out>,
    inward: Option<In>,
    /// While the guest runs, no word before this host time.
    not_before_ns: u64,
    /// Bytes of all words to joining nodes and from them, since this node's start.
    copied_out: (u64, u64),
}

struct Out {
    session: SessionId,
    disks: Box<dyn DisksOut>,
    /// The machine's snapshot is taken, and the disks are those of its step.
    frozen: bool,
}

struct In {
    session: SessionId,
    disks: Box<dyn DisksIn>,
    /// The protocol has been told that the copy here is overwritten.
    told: bool,
    /// All of it is here and durable.
    is_whole: bool,
}

impl Sync {
    /// The session is over.
    pub(super) fn end(&mut self, session: SessionId) {
        self.out.take_if(|out| out.session == session);
        self.inward.take_if(|inward| inward.session == session);
    }

    /// What was taken here is of no use any more.
    pub(super) fn end_in(&mut self) {
        self.inward = None;
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.out.is_some() || self.inward.is_some()
    }

    /// How far it is; true: this node sends.
    pub(super) fn progress(&self) -> Option<(bool, SyncProgress)> {
        match (&self.out, &self.inward) {
            (Some(out), _) => Some((true, out.disks.progress())),
            (None, Some(inward)) => Some((false, inward.disks.progress())),
            (None, None) => None,
        }
    }

    /// Bytes that this node has sent to joining nodes for the sake of their disks since its start,
    /// and bytes that these have answered.
    pub(super) fn copied_out(&self) -> (u64, u64) {
        self.copied_out
    }

    /// Whether a machine may be installed for this session: its disks are whole and durable.
    pub(super) fn is_whole(&self, session: SessionId) -> bool {
        let inward = self.inward.as_ref();
        inward.is_some_and(|inward| inward.session == session && inward.is_whole)
    }
}

impl Replica {
    /// A node joins: its disks come first.
    pub(super) fn begin_sync(
        &mut self,
        env: &mut dyn Env,
        session: SessionId,
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        match env.send_disks() {
            Ok(disks) => {
                self.sync.out = Some(Out {
                    session,
                    disks,
                    frozen: false,
                });
            }
            Err(why) => events.push_back(ProtocolEvent::SessionFailed { session, why }),
        }
    }

    /// What one end says to the other.
    pub(super) fn sync_heard(
        &mut self,
        env: &mut dyn Env,
        session: SessionId,
        kind: u8,
        bytes: &[u8],
    ) -> Result<(), String> {
        if kind == WORD_IN {
            self.sync.copied_out.1 += bytes.len() as u64;
            return match &mut self.sync.out {
                Some(out) if out.session == session => out.disks.heard(bytes),
                // What was on its way when the last word left.
                _ => Ok(()),
            };
        }
        if self
            .sync
            .inward
            .as_ref()
            .is_none_or(|i| i.session != session)
        {
            // A machine that follows has its disks, and one that executes takes nobody's.
            let has_its_own =
                matches!(&self.vm, Vm::Following(_)) || self.node.role() == RoleKind::Live;
            if !self.disks.any() || has_its_own {
                return Ok(());
            }
            self.sync.inward = None;
            // Of a frozen machine, which never goes on, requests may be under way.
            self.forget_disks();
            let disks = env.take_disks()?;
            self.sync.inward = Some(In {
                session,
                disks,
                told: false,
                is_whole: false,
            });
        }
        match &mut self.sync.inward {
            Some(inward) => inward.disks.heard(bytes),
            None => Ok(()),
        }
    }

    /// Passes on what the ends have to say as the channel has room, and freezes disks and machine
    /// when it is time. A guest that runs waits for one word at a time.
    pub(super) fn go_on_with_sync(&mut self, env: &mut dyn Env) {
        if !self.sync.is_under_way() {
            return;
        }
        let began_ns = env.now().mono_ns;
        let runs = matches!(self.vm, Vm::Live(_)) && self.wait() == Wait::Run;
        if runs && began_ns < self.sync.not_before_ns {
            return;
        }
        self.pass_words_on(env);
        let spent_ns = env.now().mono_ns.saturating_sub(began_ns);
        self.sync.not_before_ns = began_ns.saturating_add(spent_ns.saturating_mul(SPACING));
    }

    /// Before the word leaves that lets blocks come the mark of the copy says so.
    fn overwriting(&mut self, env: &mut dyn Env) {
        if let Some(inward) = self.sync.inward.as_mut()
            && !inward.told
            && inward.disks.overwrites()
        {
            inward.told = true;
            let session = inward.session;
            self.tell(env, ProtocolEvent::Overwriting { session });
        }
    }

    fn pass_words_on(&mut self, env: &mut dyn Env) {
        while self.queued_bytes < QUEUE_BYTES {
            if let Some(out) = &mut self.sync.out
                && !out.frozen
                && !self.frozen
                && out.disks.is_level()
            {
                out.frozen = true;
                out.disks.freeze();
                let session = out.session;
                let mut events = VecDeque::new();
                self.take_snapshot(env, session, &mut events);
                for event in events {
                    self.tell(env, event);
                }
            }
            let (session, kind, words) = match (&mut self.sync.out, &mut self.sync.inward) {
                (Some(out), _) => (out.session, WORD_OUT, out.disks.next()),
                (None, Some(inward)) => (inward.session, WORD_IN, inward.disks.next()),
                (None, None) => return,
            };
            match words {
                SyncWords::Ready(bytes) if bytes.len() <= MAX_WORDS_BYTES => {
                    self.overwriting(env);
                    self.queued_bytes += bytes.len();
                    if kind == WORD_OUT {
                        self.sync.copied_out.0 += bytes.len() as u64;
                    }
                    let bytes = [&[SUBJECT, kind], &bytes[..]].concat();
                    self.tell(env, ProtocolEvent::Side { session, bytes });
                }
                SyncWords::Ready(bytes) => {
                    return self.fatal(format!("{} bytes about disks at once", bytes.len()));
                }
                SyncWords::Later => break,
                SyncWords::Done => {
                    self.sync.out = None;
                    if let Some(inward) = &mut self.sync.inward {
                        inward.is_whole = true;
                    }
                    break;
                }
                SyncWords::Broken(why) if kind == WORD_IN => {
                    self.sync.end(session);
                    return self.disk_is_broken(env, &why);
                }
                SyncWords::Failed(why) | SyncWords::Broken(why) => {
                    self.sync.end(session);
                    self.tell(env, ProtocolEvent::SessionFailed { session, why });
                    return;
                }
            }
            if self.wait() == Wait::Run {
                break;
            }
        }
        self.install_if_whole(env);
    }
}
