//! The log and the snapshot on their way to the other node, and from it.

use super::*;

/// Unsent bytes up to which the next piece of a snapshot is queued: enough to keep a
/// fast link busy between two looks.
const SNAPSHOT_QUEUE_BYTES: usize = 1 << 20;
/// Records a backup stores ahead of its execution before its acks wait for it. They
/// are bounded on the wire by the live node's lag and queue already.
const MAX_BACKLOG: usize = 1 << 20;

impl Replica {
    /// Hands closed batches to the protocol; without a session nobody needs them.
    pub(super) fn collect_batches(&mut self, events: &mut VecDeque<ProtocolEvent<Output>>) {
        let Vm::Live(live) = &mut self.vm else { return };
        let batches = live.take_batches();
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

    /// Sends the next piece of a snapshot if the channel has room. One at a time: the
    /// guest runs in between.
    pub(super) fn send_snapshot(&mut self, env: &mut dyn Env) {
        if self.queued_bytes >= SNAPSHOT_QUEUE_BYTES {
            return;
        }
        let (Some(out), Vm::Live(live)) = (&mut self.snapshot, &mut self.vm) else {
            return;
        };
        let (event, bytes, last) = out.next_chunk(live.machine_mut());
        if last {
            self.snapshot = None;
        }
        self.queued_bytes += bytes;
        self.tell(env, event);
    }

    pub(super) fn install_chunk(
        &mut self,
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
        if !last {
            return;
        }
        match install.finish() {
            Ok((position, machine, neighbours, records)) => {
                let mut replay = Replay::new(machine, position);
                replay.push(records);
                self.neighbours = neighbours;
                let following = Following {
                    session,
                    replay,
                    draining: false,
                };
                self.vm = Vm::Following(Box::new(following));
                events.push_back(ProtocolEvent::Installed { session });
            }
            Err(why) => events.push_back(ProtocolEvent::SessionFailed { session, why }),
        }
    }

    pub(super) fn store(
        &mut self,
        session: SessionId,
        first: u64,
        end: u64,
        batch: &[u8],
    ) -> Result<(), String> {
        let batch = Batch::decode(batch).map_err(|error| format!("log batch: {error}"))?;
        if batch.first_position != first || batch.next_position() != end {
            return Err(format!(
                "log batch holds positions {}..{}, its frame says {first}..{end}",
                batch.first_position,
                batch.next_position()
            ));
        }
        let push = |records: Vec<Record>, backlog: usize| {
            if backlog + records.len() > MAX_BACKLOG {
                return Err(format!(
                    "more than {MAX_BACKLOG} records wait to be executed"
                ));
            }
            Ok(records)
        };
        match &mut self.vm {
            Vm::Following(f) if f.session == session && !f.draining => {
                let records = push(batch.records, f.replay.backlog())?;
                f.replay.push(records);
                Ok(())
            }
            Vm::Installing(install) if install.session == session => {
                let records = push(batch.records, install.backlog())?;
                install.push(records);
                Ok(())
            }
            _ => Err("a log batch without a machine to follow it".to_owned()),
        }
    }
}
