//! The log and the snapshot on their way to the other node, and from it.

use super::*;
use crate::install::Piece;
use crate::stored::Stored;
use twinvm_machine::SnapshotStream;
use twinvm_protocol::ConnId;

/// Unsent bytes up to which the next piece of a snapshot is queued: enough to keep a
/// fast link busy between two looks.
const SNAPSHOT_QUEUE_BYTES: usize = 1 << 20;
/// Records a backup stores ahead of its execution before it gives the session up: twice what a
/// live node lets it come to ([`crate::unexecuted`]).
const MAX_BACKLOG: usize = 1 << 20;

/// How far a backup has stored its session's log, and what its acks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storing {
    /// The session's connection.
    pub conn: ConnId,
    /// Stored up to here.
    pub end: Position,
    /// Outputs up to here have left.
    pub emitted: Position,
    /// Executed as far as the protocol has been told.
    pub progress: Progress,
}

fn too_many_records() -> String {
    format!("more than {MAX_BACKLOG} records wait to be executed")
}

impl Replica {
    /// Hands closed batches to the protocol; without a session nobody needs them.
    pub(super) fn collect_batches(&mut self, events: &mut VecDeque<ProtocolEvent<Output>>) {
        let Vm::Live(live) = &mut self.vm else { return };
        let batches = live.take_batches();
        if let Some(unexecuted) = &mut self.unexecuted {
            for batch in &batches {
                unexecuted.made(batch.next_position(), batch.bytes().len());
            }
        }
        if self.node.wants_log() {
            events.extend(batches.into_iter().map(|batch| ProtocolEvent::Flushed {
                first: Position(batch.first_position()),
                end: Position(batch.next_position()),
                batch: batch.into_bytes(),
            }));
        }
    }

    pub(super) fn send_batches(&mut self, env: &mut dyn Env) {
        let mut events = VecDeque::new();
        self.collect_batches(&mut events);
        for event in events {
            self.tell(env, event);
        }
    }

    /// A joining node gets the machine as it is now. The guest goes on as soon as the
    /// snapshot has begun.
    pub(super) fn take_snapshot(
        &mut self,
        env: &mut dyn Env,
        session: SessionId,
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        self.forget_peer();
        let Vm::Live(live) = &mut self.vm else { return };
        let began_ns = env.now().mono_ns;
        live.flush();
        live.followed();
        live.keep();
        self.answers = 0;
        // The snapshot takes place between two slices, no output waits.
        let position = Position(live.position());
        match SnapshotSource::new(&self.neighbours, live.machine_mut()) {
            Ok(source) => {
                self.snapshot = Some(SnapshotOut {
                    session,
                    pieces: env.read_snapshot(source),
                    offset: 0,
                });
                self.join_pause_ns = Some(env.now().mono_ns.saturating_sub(began_ns));
                self.collect_batches(events);
                self.unexecuted = Some(Unexecuted::new(position.0));
                events.push_back(ProtocolEvent::SnapshotTaken { session, position });
            }
            Err(busy) => {
                let why = busy.to_string();
                events.push_back(ProtocolEvent::SessionFailed { session, why });
            }
        }
    }

    /// Sends what has been read of a snapshot as the channel has room. A guest that runs
    /// waits for one piece at a time.
    pub(super) fn send_snapshot(&mut self, env: &mut dyn Env) {
        while self.queued_bytes < SNAPSHOT_QUEUE_BYTES {
            let Some(out) = &mut self.snapshot else {
                return;
            };
            let session = out.session;
            match out.pieces.next_piece() {
                Piece::Ready { bytes, last } => {
                    let (offset, len) = (out.offset, bytes.len());
                    out.offset += len as u64;
                    if last {
                        self.snapshot = None;
                    }
                    self.queued_bytes += len;
                    let chunk = ProtocolEvent::SnapshotChunk {
                        session,
                        offset,
                        bytes,
                        last,
                    };
                    self.tell(env, chunk);
                }
                Piece::Later => return,
                Piece::Failed(why) => {
                    self.snapshot = None;
                    self.tell(env, ProtocolEvent::SessionFailed { session, why });
                    return;
                }
            }
            if self.wait() == Wait::Run {
                return;
            }
        }
    }

    /// Begins a snapshot for a person, with the files the guest boots from, and says of
    /// which step it is. The guest goes on while the driver reads it.
    ///
    /// # Errors
    /// In one sentence: no machine here now, or too many snapshots at once.
    pub fn snapshot(&mut self) -> Result<(u64, SnapshotStream), String> {
        let machine = match &mut self.vm {
            Vm::Live(live) => live.machine_mut(),
            Vm::Following(following) => following.replay.machine_mut(),
            Vm::Nothing | Vm::Installing(_) => {
                return Err("this node has no machine now".to_owned());
            }
        };
        let icount = machine.icount();
        let stream = machine.snapshot(true).map_err(|busy| busy.to_string())?;
        Ok((icount, stream))
    }

    pub(super) fn install_chunk(
        &mut self,
        now: HostTime,
        session: SessionId,
        offset: u64,
        bytes: &[u8],
        last: bool,
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        let Vm::Installing(install) = &mut self.vm else {
            return;
        };
        if let Err(why) = install.chunk(offset, bytes) {
            events.push_back(ProtocolEvent::SessionFailed { session, why });
            return;
        }
        if last {
            install.is_whole = true;
            self.finish_install(now, events);
        }
    }

    /// The machine may be whole here while its disks are not yet, or can't be read yet: then it waits.
    pub(super) fn install_if_whole(&mut self, env: &mut dyn Env) {
        if matches!(&self.vm, Vm::Installing(install) if install.is_whole) {
            let mut events = VecDeque::new();
            self.finish_install(env.now(), &mut events);
            for event in events {
                self.tell(env, event);
            }
        }
    }

    fn finish_install(&mut self, now: HostTime, events: &mut VecDeque<ProtocolEvent<Output>>) {
        let Vm::Installing(install) = &mut self.vm else {
            return;
        };
        let session = install.session;
        if self.disks.any() && !self.sync.is_whole(session) || !self.own_reads.can_be_had() {
            return;
        }
        match install.finish() {
            Ok((position, mut machine, neighbours, records)) => {
                super::equip(&mut machine, self.engine);
                machine.note_changed_pages();
                let mut replay = Replay::new(machine, position);
                if self.disks.any() {
                    replay.own_disks();
                    self.sync.end_in();
                }
                replay.own_reads(self.own_reads.slots());
                replay.push(records);
                self.neighbours = neighbours;
                let following = Following {
                    session,
                    slices: Slices::new(now, replay.machine().icount()),
                    rested: true,
                    replay,
                    draining: false,
                    examination: None,
                };
                self.vm = Vm::Following(Box::new(following));
                self.hand_out_disks(now);
                events.push_back(ProtocolEvent::Installed { session });
            }
            Err(why) => events.push_back(ProtocolEvent::SessionFailed { session, why }),
        }
    }

    /// Hands a batch to the machine that follows.
    pub(super) fn store(&mut self, session: SessionId, stored: Stored) -> Result<(), String> {
        let push =
            |records: Vec<Record>, backlog: usize| match backlog + records.len() <= MAX_BACKLOG {
                true => Ok(records),
                false => Err(too_many_records()),
            };
        match &mut self.vm {
            Vm::Following(f) if f.session == session && !f.draining => {
                let records = push(stored.records, f.replay.backlog())?;
                f.replay.push(records);
                Ok(())
            }
            Vm::Installing(install) if install.session == session => {
                let records = push(stored.records, install.backlog())?;
                install.push(records);
                Ok(())
            }
            _ => Err("a log batch without a machine to follow it".to_owned()),
        }
    }

    /// A batch that was stored and acked beside this loop. So it is kept whatever there is, and too
    /// much ends the session behind it.
    pub(super) fn stored_ahead(&mut self, env: &mut dyn Env, conn: ConnId, stored: Stored) {
        let (first, end, released) = (stored.first, stored.end, stored.released);
        // The session has ended meanwhile: its drain had this one.
        let Some(session) = self.node.storing(conn) else {
            return;
        };
        let Vm::Following(following) = &mut self.vm else {
            return self.fatal("a log batch without a machine to follow it".to_owned());
        };
        following.replay.push(stored.records);
        let fits = following.replay.backlog() <= MAX_BACKLOG;
        let event = ProtocolEvent::StoredAhead {
            conn,
            first,
            end,
            released,
        };
        self.tell(env, event);
        if !fits {
            let why = too_many_records();
            self.tell(env, ProtocolEvent::SessionFailed { session, why });
        }
    }

    /// What was acked beside this loop belongs to the drain.
    pub(super) fn take_the_rest(&mut self, env: &mut dyn Env) {
        let kept = env.end_storing();
        if let Vm::Following(following) = &mut self.vm {
            for stored in kept {
                following.replay.push(stored.records);
            }
        }
    }

    /// A backup's session whose log may be stored and acked beside this loop: its connection, how
    /// far it is stored, and what acks say.
    pub fn storing(&self) -> Option<Storing> {
        let Vm::Following(following) = &self.vm else {
            return None;
        };
        let (conn, end, emitted) = self.node.stored()?;
        let stores = !following.draining && following.examination.is_none();
        stores.then_some(Storing {
            conn,
            end,
            emitted,
            progress: self.node.progress(),
        })
    }
}
