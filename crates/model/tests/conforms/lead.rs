//! The events that one step of the model stands for.

use super::*;

impl Shadow {
    /// The events of one step.
    pub(super) fn lead(&mut self, before: &World, action: Action, after: &World) -> Checked {
        let (at, slot) = (action.at, action.at as usize);
        let node = before.node(at);
        let down = self.sessions[1 - slot];
        let up = self.sessions[slot];
        match action.what {
            What::Start => self.start(slot),
            What::Read => {
                if node.role.seeks() {
                    self.tick_until(slot, |p| p.read.is_some())?;
                } else if node.link == Link::Probe {
                    self.tick_until(slot, |p| p.read.is_some())?;
                }
                Ok(())
            }
            What::Seen => {
                let proc = self.proc(slot)?;
                let Some((req, outcome)) = proc.seen.take() else {
                    return Err("no answer is on its way".into());
                };
                // Asked again meanwhile, the question has a new number.
                let asked = node.seen.is_some_and(|s| s.asked);
                let req = proc.read.take_if(|_| asked).unwrap_or(req);
                self.feed(slot, Event::Arbiter { req, outcome })
            }
            What::Land => {
                let Some(mut cas) = self.proc(slot)?.cas else {
                    return Err("no CAS is out".into());
                };
                cas.landed = true;
                let outcome = self.land(cas);
                let proc = self.proc(slot)?;
                proc.cas = Some(cas);
                proc.answered = Some(outcome);
                Ok(())
            }
            What::Answered => {
                let proc = self.proc(slot)?;
                let (Some(cas), Some(outcome)) = (proc.cas, proc.answered.take()) else {
                    return Err("no answer is on its way".into());
                };
                self.feed(
                    slot,
                    Event::Arbiter {
                        req: cas.req,
                        outcome,
                    },
                )
            }
            What::Unknown => {
                let proc = self.proc(slot)?;
                let Some(cas) = &mut proc.cas else {
                    return Err("no CAS is out".into());
                };
                let late = (!cas.landed).then_some(*cas);
                cas.landed = true;
                let req = cas.req;
                proc.answered = None;
                self.strays.extend(late);
                let outcome = Outcome::Unknown;
                self.feed(slot, Event::Arbiter { req, outcome })
            }
            What::AskAgain => self.tick_until(slot, |p| p.cas.is_some_and(|c| !c.landed)),
            What::LandStray(index) => {
                let outcome = self.land_stray(before, index)?;
                if after.node(at).seen.is_some() && node.seen.is_none() {
                    self.proc(slot)?.seen = Some((ReqId(0), outcome));
                }
                Ok(())
            }
            What::Dial => self.dial(slot),
            What::Called => self.called(slot, before, at),
            What::Snapshot => {
                let session = self.session_of(slot)?;
                let position = Position(u64::from(node.log.len()));
                self.feed(slot, Event::SnapshotTaken { session, position })?;
                let event = Event::SnapshotChunk {
                    session,
                    offset: 0,
                    bytes: vec![0],
                    last: true,
                };
                self.feed(slot, event)?;
                self.feed(slot, level_with(position))
            }
            What::Deliver => {
                let message = self.deliver(down, slot)?;
                if matches!(message, Message::SnapshotBegin { .. }) {
                    self.deliver(down, slot)?;
                }
                Ok(())
            }
            What::Store => {
                let session = self.session_of(slot)?;
                let end = after.node(at).stored;
                let outputs = node.log.prefix(end).outputs(node.stored);
                let now = !self.speaks;
                for position in outputs.filter(|_| now) {
                    self.executed(slot, position)?;
                }
                if node.log.halted() {
                    let position = Position(u64::from(end));
                    self.feed(slot, Event::GuestHalted { position })?;
                }
                let end = Position(u64::from(end));
                self.feed(slot, Event::Stored { session, end })
            }
            What::Install => {
                let session = self.session_of(slot)?;
                self.feed(slot, Event::Installed { session })?;
                self.proc(slot)?.ms += HEARTBEAT_MS;
                self.feed(slot, Event::Tick)
            }
            What::Acks => {
                // The model has the highest ack alone.
                let ack = |m: &Message| matches!(m, Message::Ack { .. });
                let fits = |m: &Message| ack(m) || matches!(m, Message::Installed);
                let queue = &mut self.wires[up].queue[slot];
                let last = queue.iter().rposition(ack);
                let mut index = 0;
                queue.retain(|m| {
                    index += 1;
                    !ack(m) || Some(index - 1) == last
                });
                while self.wires[up].queue[slot].front().is_some_and(fits) {
                    self.deliver(up, slot)?;
                }
                Ok(())
            }
            What::Beat => {
                self.proc(slot)?.ms += HEARTBEAT_MS;
                self.feed(slot, Event::Tick)?;
                let beat = self.wires[up].queue[1 - slot].pop_back();
                let Some(message @ Message::Heartbeat { .. }) = beat else {
                    return Err(format!("no heartbeat, but {beat:?}"));
                };
                let conn = ConnId(up as u64);
                self.feed(1 - slot, Event::Received { conn, message })
            }
            What::Speak => {
                self.executed(slot, after.node(at).released)?;
                // The next ack says so.
                self.proc(slot)?.ms += HEARTBEAT_MS;
                self.feed(slot, Event::Tick)
            }
            What::LoseSession => self.hang_up(up, slot),
            What::Suspect => self.hang_up(down, slot),
            What::Drained => {
                let left = node.log.prefix(node.stored).outputs(node.released);
                let now = self.speaks;
                for position in left.filter(|_| now) {
                    self.executed(slot, position)?;
                }
                let position = Position(u64::from(node.stored));
                self.feed(slot, Event::Drained { position })
            }
            What::Output => {
                let position = after.node(at).log.len();
                let event = Event::Output {
                    position: Position(u64::from(position)),
                    bytes: 1,
                    item: position,
                };
                self.appended(slot, after, at, Some(event))
            }
            What::Input => self.appended(slot, after, at, None),
            What::Overwrite => {
                let session = self.session_of(1 - slot)?;
                self.feed(slot, Event::Overwriting { session })
            }
            What::Reset => self.reset(slot),
            What::StartForced => {
                self.stop(1 - slot);
                self.stop(slot);
                let shown = self
                    .arbiter
                    .current()
                    .map_or(Generation(0), |r| r.generation);
                self.start(slot)?;
                let force = Force {
                    shown,
                    ..Force::default()
                };
                self.feed(slot, Event::Force(force))
            }
            What::StartAlone | What::Force => {
                let proc = self.proc(slot)?;
                proc.ms = proc.ms.max(proc.started_ms + FIRST_START_MS);
                self.feed(slot, Event::Tick)
            }
            What::HandoverOver => {
                self.proc(slot)?.ms += HANDOVER_MS;
                self.feed(slot, Event::Tick)
            }
            What::Crash => {
                self.stop(slot);
                Ok(())
            }
            What::Cut => {
                self.wires[up].cut = true;
                Ok(())
            }
            What::Poweroff => {
                let position = Position(u64::from(node.log.len() + 1));
                self.halted(slot, position)
            }
            What::Stop | What::Takeover | What::Detach => {
                let ctl = match action.what {
                    What::Stop => Ctl::Stop,
                    What::Takeover => Ctl::Takeover,
                    _ => Ctl::Detach,
                };
                self.feed(slot, Event::Ctl(ctl))?;
                self.frozen(slot, node.log.len())
            }
            What::Terminate => {
                self.feed(slot, Event::Terminate)?;
                self.frozen(slot, node.log.len())
            }
            other => Err(format!("{other:?} has no counterpart")),
        }
    }

    /// Replay has made this output again.
    fn executed(&mut self, slot: usize, position: u8) -> Checked {
        let event = Event::Output {
            position: Position(u64::from(position)),
            bytes: 1,
            item: position,
        };
        self.feed(slot, event)
    }

    fn halted(&mut self, slot: usize, position: Position) -> Checked {
        if self.proc(slot)?.node.wants_log() {
            let first = Position(position.0 - 1);
            let batch = vec![0];
            let end = position;
            self.feed(slot, Event::Flushed { first, end, batch })?;
        }
        self.feed(slot, Event::GuestHalted { position })
    }

    /// What a frozen machine reports.
    pub(super) fn frozen(&mut self, slot: usize, end: u8) -> Checked {
        let live = self.proc(slot)?.node.role() == RoleKind::Live;
        let position = Position(u64::from(end));
        if live {
            self.feed(slot, Event::Frozen { position })?;
        }
        Ok(())
    }

    /// The live machine has come to `end`.
    fn appended(
        &mut self,
        slot: usize,
        world: &World,
        id: Id,
        event: Option<Event<u8>>,
    ) -> Checked {
        let end = Position(u64::from(world.node(id).log.len()));
        let wants = self.proc(slot)?.node.wants_log();
        if let Some(event @ Event::Output { .. }) = event {
            self.feed(slot, event)?;
        } else {
            self.feed(slot, level_with(end))?;
            if let Some(event) = event {
                self.feed(slot, event)?;
            }
        }
        if wants && self.procs[slot].as_ref().is_some_and(|p| !p.exited) {
            let first = Position(end.0 - 1);
            let batch = vec![0];
            self.feed(slot, Event::Flushed { first, end, batch })?;
        }
        Ok(())
    }
}

/// The live machine has come so far, and whoever joins is never behind: the model knows no lag.
fn level_with(position: Position) -> Event<u8> {
    Event::Progress {
        progress: Progress {
            position,
            ..Progress::default()
        },
        beat: 0,
        joiner_lag: Some(0),
    }
}
