//! A process: a node, its toy machine, and the driver between them.

use std::collections::VecDeque;

use twinvm_protocol::{Action, Event, LiveName, Node, Position, Progress, SessionId};

use super::check::Life;
use super::machine::{Out, REC_BYTES, Rec, Vm};

pub(crate) struct Proc {
    pub(crate) epoch: u64,
    pub(crate) node: Node<Out>,
    pub(crate) vm: Option<Vm>,
    /// Executes as live.
    pub(crate) running: bool,
    pub(crate) life: Life,
    /// By this name its last claim was sent.
    pub(crate) claim: Option<LiveName>,
    /// Appended, not flushed.
    pub(crate) unflushed: Vec<Rec>,
    pub(crate) flush_at: u64,
    pub(crate) snapshot_for: Option<SessionId>,
    pub(crate) beat: u64,
    pub(crate) hung_until: u64,
    /// Backup: stored, not executed.
    pub(crate) stored: VecDeque<Rec>,
    pub(crate) stored_end: u64,
    pub(crate) replaying: bool,
    pub(crate) session: Option<SessionId>,
    pub(crate) install: Vec<u8>,
    pub(crate) last_local: u64,
    pub(crate) tick_at: u64,
    pub(crate) paused_until: u64,
}

/// What a driver step made, to be handed to the node.
pub(crate) type Events = Vec<Event<Out>>;

impl Proc {
    pub(crate) fn new(epoch: u64, node: Node<Out>) -> Self {
        Self {
            epoch,
            node,
            vm: None,
            running: false,
            life: 0,
            claim: None,
            unflushed: Vec::new(),
            flush_at: 0,
            snapshot_for: None,
            beat: 0,
            hung_until: 0,
            stored: VecDeque::new(),
            stored_end: 0,
            replaying: false,
            session: None,
            install: Vec::new(),
            last_local: 0,
            tick_at: u64::MAX,
            paused_until: 0,
        }
    }

    pub(crate) fn discard(&mut self) {
        self.vm = None;
        self.running = false;
        self.replaying = false;
        self.stored.clear();
        self.unflushed.clear();
        self.session = None;
        self.snapshot_for = None;
        self.install.clear();
    }

    pub(crate) fn flush(&mut self, events: &mut Events) {
        let Some(vm) = &self.vm else {
            return;
        };
        if self.unflushed.is_empty() {
            return;
        }
        let batch: Vec<u8> = self.unflushed.iter().flat_map(Rec::bytes).collect();
        let end = vm.end();
        let first = end - self.unflushed.len() as u64;
        self.unflushed.clear();
        events.push(Event::Flushed {
            first: Position(first),
            end: Position(end),
            batch,
        });
    }

    pub(crate) fn progress(&self, now: u64) -> Event<Out> {
        let vm = self.vm.as_ref();
        Event::Progress {
            progress: Progress {
                icount: vm.map_or(0, |vm| vm.icount),
                position: Position(vm.map_or(0, Vm::end)),
                vtime: now * 10,
            },
            beat: self.beat,
            joiner_lag: Some(0),
        }
    }

    /// One slice of the live machine.
    pub(crate) fn slice(&mut self, now: u64, steps: u64, inputs: &[u64], halt: bool) -> Events {
        let mut events = Vec::new();
        if now < self.hung_until {
            return events;
        }
        self.beat += 1;
        if self.running
            && !self.node.execution_must_wait()
            && let Some(vm) = self.vm.as_mut().filter(|vm| !vm.halted)
        {
            let made = vm.run(steps);
            let loud = !made.is_empty();
            for (rec, out) in made {
                self.unflushed.push(rec);
                events.push(Event::Output {
                    position: Position(out.position),
                    bytes: 64,
                    item: out,
                });
            }
            for data in inputs {
                self.unflushed.push(vm.input(*data));
            }
            if halt {
                self.unflushed.push(vm.halt());
                let position = Position(vm.end());
                events.push(Event::GuestHalted { position });
            }
            if loud || halt || now >= self.flush_at || self.snapshot_for.is_some() {
                self.flush_at = now + 15_000;
                self.flush(&mut events);
            }
        }
        if let Some(session) = self.snapshot_for.take()
            && let Some(vm) = &self.vm
        {
            // Here the batch is flushed, so none straddles the snapshot.
            let position = Position(vm.end());
            events.push(Event::SnapshotTaken { session, position });
        }
        events.push(self.progress(now));
        events
    }

    pub(crate) fn store(&mut self, batch: &[u8], end: Position) {
        for rec in batch.chunks(REC_BYTES) {
            self.stored.push_back(Rec::parse(rec));
        }
        self.stored_end = end.0;
    }

    /// Replays up to `count` stored records.
    pub(crate) fn replay(&mut self, now: u64, count: usize) -> Events {
        let mut events = Vec::new();
        let Some(vm) = self.vm.as_mut().filter(|_| self.replaying) else {
            return events;
        };
        for _ in 0..count {
            let Some(rec) = self.stored.pop_front() else {
                break;
            };
            match vm.apply(rec) {
                Ok(None) => {
                    if vm.halted {
                        let position = Position(vm.end());
                        events.push(Event::GuestHalted { position });
                    }
                }
                Ok(Some(out)) => events.push(Event::Output {
                    position: Position(out.position),
                    bytes: 64,
                    item: out,
                }),
                Err(detail) => {
                    events.push(Event::Diverged { detail });
                    break;
                }
            }
        }
        events.push(self.progress(now));
        events
    }

    pub(crate) fn drain(&mut self, now: u64) -> Events {
        let mut events = self.replay(now, usize::MAX);
        let position = Position(self.vm.as_ref().map_or(0, Vm::end));
        events.push(Event::Drained { position });
        events
    }

    pub(crate) fn next_action(&mut self) -> Option<Action<Out>> {
        self.node.next_action()
    }
}
