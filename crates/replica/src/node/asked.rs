//! What the protocol is told, and what it asks for: most of it is the driver's, the rest is done to
//! the machine here.

use super::*;

impl Replica {
    /// The session is over, or another one begins.
    pub(super) fn forget_peer(&mut self) {
        self.peer = None;
        self.peer_speed = BackupSpeed::default();
        self.unexecuted = None;
    }

    /// The peer has said how far it is; what the protocol took of it counts.
    pub(super) fn peer_told(&mut self, now: HostTime) {
        let status = self.node.status();
        let progress = status.peer_progress;
        // 0: it has not restored a snapshot yet, or there is no session.
        if status.session.is_none() || progress.vtime == 0 {
            return;
        }
        if let Vm::Live(live) = &mut self.vm {
            self.peer = Some(progress);
            let (position, stored) = (progress.position.0, status.acked.0);
            live.passed(position);
            if let Some(unexecuted) = &mut self.unexecuted {
                unexecuted.executed(position);
            }
            self.peer_speed
                .told(now.mono_ns, progress.icount, position, stored);
            return;
        }
        // While its guest sleeps the live side's virtual time stands still, its clock
        // does not: keep what says the most.
        let told = (progress.vtime, now);
        let ahead = |(vtime, at): (u64, HostTime)| i128::from(vtime) * 100 - i128::from(at.mono_ns);
        if self.live_vtime.is_none_or(|kept| ahead(told) > ahead(kept)) {
            self.live_vtime = Some(told);
        }
    }

    /// Hands an event to the protocol and does what it asks, until all is quiet.
    pub(super) fn tell(&mut self, env: &mut dyn Env, event: ProtocolEvent<Output>) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = env.now();
            self.node.handle(protocol_time(now), event);
            while let Some(action) = self.node.next_action() {
                match sort(action) {
                    Sorted::Driver(action) => {
                        if let Action::Exit { .. } = action {
                            self.last_alarm("this node ends");
                        }
                        self.actions.push_back(action);
                    }
                    Sorted::Own(own) => self.carry_out(env, own, &mut events),
                }
            }
        }
    }

    fn carry_out(
        &mut self,
        env: &mut dyn Env,
        action: ProtocolAction<Output>,
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        let now = env.now();
        match action {
            ProtocolAction::ColdStart { generation } => {
                self.claim_shared(generation, false);
                self.cold_start(env);
            }
            ProtocolAction::GoLive { generation } => {
                self.claim_shared(generation, true);
                self.go_live(env);
            }
            ProtocolAction::Announce => self.announce(),
            ProtocolAction::Emit { position, item } => {
                self.note_hold(position.0, now);
                let speaks = matches!(self.vm, Vm::Following(_));
                for item in item.items {
                    match item {
                        OutputItem::Frame { device, mut bytes } => {
                            if speaks {
                                give_voice(&mut bytes);
                            }
                            self.actions.push_back(Action::Transmit { device, bytes });
                        }
                        OutputItem::Disk(request) => self.emit_shared(request),
                        OutputItem::Halt(_) => {}
                    }
                }
            }
            ProtocolAction::Left { position } => self.note_hold(position.0, now),
            ProtocolAction::Freeze => {
                self.frozen = true;
                self.hold_until_ns = None;
                self.snapshot = None;
                let position = match &mut self.vm {
                    Vm::Live(live) => {
                        live.flush();
                        live.position()
                    }
                    _ => 0,
                };
                self.collect_batches(events);
                if !self.begin_gathering(now) {
                    events.push_back(ProtocolEvent::Frozen {
                        position: Position(position),
                    });
                }
            }
            ProtocolAction::Thaw => {
                self.frozen = false;
                self.stays_with_bad_memory();
                self.stays();
                self.resume(now);
                self.disks_thaw(now);
            }
            ProtocolAction::Discard => {
                self.last_alarm("the session is over");
                // What comes in place of a frozen machine's disks may be on its way already.
                if !matches!(self.vm, Vm::Live(_)) {
                    self.sync.end_in();
                }
                drop(env.end_storing());
                self.scrub.forget();
                self.vm = Vm::Nothing;
                self.frozen = false;
                self.handover = handover::Handover::default();
                self.hold_until_ns = None;
                self.forget_peer();
                self.idle = None;
                self.snapshot = None;
                self.live_vtime = None;
                self.neighbours = cards(&self.config);
                self.forget_disks();
            }
            ProtocolAction::TakeSnapshot { session } => {
                self.stays_for_sure();
                if self.disks.any() {
                    self.begin_sync(env, session, events);
                } else {
                    self.take_snapshot(env, session, events);
                }
            }
            ProtocolAction::EndSession { session } => {
                self.forget_peer();
                if let Vm::Live(live) = &mut self.vm {
                    live.forget_kept();
                }
                self.disks_alone(now);
                self.sync.end(session);
                if self
                    .snapshot
                    .as_ref()
                    .is_some_and(|out| out.session == session)
                {
                    self.snapshot = None;
                }
            }
            ProtocolAction::BeginInstall { session, position } => {
                events.push_back(ProtocolEvent::Progress {
                    progress: Progress::default(),
                    beat: self.beat,
                    joiner_lag: None,
                });
                self.vm = Vm::Installing(Box::new(Install::new(
                    session,
                    position.0,
                    self.config.clone(),
                    cards(&self.config),
                )));
                self.probe_reads(now);
            }
            ProtocolAction::InstallChunk {
                session,
                offset,
                bytes,
                last,
            } => {
                self.install_chunk(now, session, offset, &bytes, last, events);
            }
            // What differs stores nothing more, so nothing is acked.
            ProtocolAction::Store { .. } if self.examines() => {}
            ProtocolAction::Store {
                session,
                first,
                end,
                batch,
            } => {
                let stored = Stored::decode(first, end, first, &batch);
                let stored = stored.and_then(|stored| self.store(session, stored));
                events.push_back(match stored {
                    Ok(()) => ProtocolEvent::Stored { session, end },
                    Err(why) => ProtocolEvent::SessionFailed { session, why },
                });
            }
            ProtocolAction::BeginDrain if self.examines() => {
                events.extend(self.alarm("the live node is gone"));
            }
            ProtocolAction::BeginDrain => {
                if let Vm::Following(following) = &mut self.vm {
                    following.draining = true;
                    self.take_the_rest(env);
                    self.drain(env, events);
                }
            }
            ProtocolAction::Side { session, bytes } => match &bytes[..] {
                [disks::SUBJECT, bytes @ ..] => self.disks_heard(env, session, bytes, events),
                [handover::SUBJECT, word @ ..] => {
                    self.handover_heard(now, session, word, events);
                }
                _ => self.heard(env, session, &bytes, events),
            },
            _ => {}
        }
    }

    fn note_hold(&mut self, position: u64, now: HostTime) {
        while let Some((made_position, made_ns)) = self.made_ns.front().copied() {
            if made_position > position {
                break;
            }
            self.made_ns.pop_front();
            if self.holds_us.len() >= MAX_HOLDS {
                self.holds_us.pop_front();
            }
            let held_us = now.mono_ns.saturating_sub(made_ns) / 1000;
            self.holds += 1;
            self.holds_sum_us = self.holds_sum_us.saturating_add(held_us);
            self.holds_us
                .push_back(u32::try_from(held_us).unwrap_or(u32::MAX));
        }
    }

    fn cold_start(&mut self, env: &mut dyn Env) {
        let power_on = draw_power_on(env);
        let live = Machine::new(self.config.clone(), power_on)
            .map_err(|error| error.to_string())
            .and_then(|mut machine| {
                equip(&mut machine, self.engine);
                Live::new(machine, 0, env.now()).map_err(|e| e.to_string())
            });
        self.neighbours = cards(&self.config);
        self.set_live(live);
        self.announce();
    }

    fn go_live(&mut self, env: &mut dyn Env) {
        let Vm::Following(following) = std::mem::replace(&mut self.vm, Vm::Nothing) else {
            return self.fatal("went live without a machine".to_owned());
        };
        let position = following.replay.position();
        let mut followed = following.replay.into_live();
        // What nobody has told of is asked for again, behind the claim.
        followed.ended.retain(|one| !self.shared.has(one.device));
        let now = env.now();
        let live = Live::take_over(followed.machine, position, now, self.live_vtime);
        let live = live.map(|mut live| {
            live.requests_are_under_way(self.shared.all_again(followed.next));
            live
        });
        self.set_live(live.map_err(|error| error.to_string()));
        self.disks_go_live(now, followed.ended);
    }

    fn set_live(&mut self, live: Result<Live, String>) {
        self.made_ns.clear();
        self.frozen = false;
        self.handover = handover::Handover::default();
        self.idle = None;
        self.held_back = false;
        self.hold_until_ns = None;
        self.lagging = None;
        self.owed_ns = 0;
        match live {
            Ok(live) => self.vm = Vm::Live(Box::new(live)),
            Err(what) => self.fatal(what),
        }
    }

    pub(super) fn announce(&mut self) {
        for (device, bytes) in self.neighbours.announcements() {
            self.actions.push_back(Action::Transmit { device, bytes });
        }
    }
}
