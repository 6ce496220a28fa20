//! Executing: slices of the live half and of the replay, input, idling, holding back.

use super::*;
use crate::lag::{joiners_share, ticks_for};

/// Steps of a slice while draining for a takeover: nothing else is to be done.
const DRAIN_STEPS: u64 = 50_000;

/// Lag from which on the live guest is slowed: below what counts as caught up
/// (100 ms), so that a joining backup gets there.
const SLOW_LAG_TICKS: u64 = 800_000;
/// Nanoseconds in a tick.
const TICK_NS: u64 = 100;
/// Pauses of the slow loop are put together up to this: one after each slice of 30 µs would cost
/// more than the slice's own work.
const MIN_PAUSE_NS: u64 = 1_000_000;
/// Longest pause of the slow loop: input still gets in often.
const MAX_PAUSE_NS: u64 = 20_000_000;
/// The same for the sake of a joining backup, behind which the guest never waits: a slice in so much
/// is as slow as a backup may be that still gets level.
const MAX_JOINERS_PAUSE_NS: u64 = 100_000_000;

impl Replica {
    /// How far a backup that has restored its snapshot is behind, ticks: in virtual time, or in the
    /// time that it needs for what is left to execute, whichever is more.
    fn lag_ticks(&self) -> u64 {
        match (&self.vm, self.peer) {
            (Vm::Live(live), Some(peer)) if self.node.wants_log() => {
                let age = live.machine().mtime().saturating_sub(peer.vtime);
                age.max(self.left_ticks())
            }
            _ => 0,
        }
    }

    /// The time that it needs for what is left to execute, ticks; 0 if its speed is not known.
    fn left_ticks(&self) -> u64 {
        let (Vm::Live(live), Some(peer)) = (&self.vm, self.peer) else {
            return 0;
        };
        let per_s = match self.node.has_joiner() {
            true => self.peer_speed.even_per_s(),
            false => self.peer_speed.per_s(),
        };
        let steps = live.machine().icount().saturating_sub(peer.icount);
        ticks_for(steps, per_s)
    }

    /// How far a joining backup is behind, as [`Self::lag_ticks`], once it has been watched for long
    /// enough. One that was never out of work is as fast as was measured, any other at least as fast
    /// as the guest has been.
    fn joiner_lag(&self) -> Option<u64> {
        let (Vm::Live(live), Some(peer)) = (&self.vm, self.peer) else {
            return None;
        };
        let per_s = self.peer_speed.at_least_per_s()?;
        let age = live.machine().mtime().saturating_sub(peer.vtime);
        let steps = live.machine().icount().saturating_sub(peer.icount);
        Some(age.max(ticks_for(steps, Some(per_s))))
    }

    /// Whether a live guest must be held back now. Nobody takes over from a joining backup, so its
    /// lag is none of the reasons.
    pub(super) fn stalled(&self) -> bool {
        let behind = || !self.node.has_joiner() && self.lag_ticks() > MAX_LAG_TICKS;
        let full = || {
            self.queued_bytes > LOG_QUEUE_BYTES
                || self.unexecuted.as_ref().is_some_and(Unexecuted::is_full)
        };
        self.node.execution_must_wait() || (self.node.wants_log() && (full() || behind()))
    }

    /// The slow loop: a live guest whose backup lags pauses after each slice of `steps` steps.
    fn slow_down(&mut self, began: HostTime, ended: HostTime, steps: u64) {
        let lag = self.lag_ticks();
        if lag <= SLOW_LAG_TICKS {
            self.lagging = None;
            self.owed_ns = 0;
            return;
        }
        // The two ways to slow down begin anew with each other.
        let has_joiner = self.node.has_joiner();
        let since_ns = match self.lagging {
            Some((joiner, since_ns)) if joiner == has_joiner => since_ns,
            _ => ended.mono_ns,
        };
        self.lagging = Some((has_joiner, since_ns));
        let since_ns = ended.mono_ns.saturating_sub(since_ns);
        let slice_ns = ended.mono_ns.saturating_sub(began.mono_ns);
        let (pause_ns, most_ns) = match has_joiner {
            true => (
                self.joiners_pause_ns(since_ns, slice_ns, steps),
                MAX_JOINERS_PAUSE_NS,
            ),
            false => (
                self.backups_pause_ns(lag, since_ns, slice_ns, steps),
                MAX_PAUSE_NS,
            ),
        };
        self.owed_ns = self.owed_ns.saturating_add(pause_ns).min(most_ns);
        if self.owed_ns >= MIN_PAUSE_NS {
            let pause_ns = std::mem::take(&mut self.owed_ns);
            self.hold_until_ns = Some(ended.mono_ns.saturating_add(pause_ns));
            self.held_back = true;
        }
    }

    /// While the pair is protected, so long that the guest is as fast as the backup where the loop
    /// begins, and slower the further behind that is. As long as the backup's speed is not known, or
    /// is less than was measured, the pause grows with the time in which it has not come closer. So
    /// any backup keeps up with some speed of ours.
    fn backups_pause_ns(&self, lag: u64, since_ns: u64, slice_ns: u64, steps: u64) -> u64 {
        let seconds = since_ns / 1_000_000_000;
        let blind_ns = slice_ns.saturating_mul(lag).saturating_mul(seconds + 1) / SLOW_LAG_TICKS;
        let paced_ns = self.peer_speed.per_s().map_or(0, |per_s| {
            let ns = u128::from(steps) * 1_000_000_000 / u128::from(per_s.max(1));
            let ns = ns * u128::from(lag) / u128::from(SLOW_LAG_TICKS);
            u64::try_from(ns)
                .unwrap_or(u64::MAX)
                .saturating_sub(slice_ns)
        });
        blind_ns.max(paced_ns)
    }

    /// While a node joins, so long that the guest has its share of the backup's speed, and none as
    /// long as that is not known.
    fn joiners_pause_ns(&self, since_ns: u64, slice_ns: u64, steps: u64) -> u64 {
        let Some(per_s) = self.peer_speed.even_per_s() else {
            return 0;
        };
        let share = joiners_share(self.left_ticks().saturating_mul(TICK_NS), since_ns);
        let ns = u128::from(steps) * 1_000_000_000 / u128::from(per_s.max(1));
        let ns = u64::try_from(ns * 1000 / u128::from(share)).unwrap_or(u64::MAX);
        ns.saturating_sub(slice_ns)
    }

    pub(super) fn slice(&mut self, env: &mut dyn Env, now: HostTime) {
        if self.frozen {
            return;
        }
        self.beat = self.beat.wrapping_add(1);
        match &self.vm {
            Vm::Live(_) => self.live_slice(env, now),
            // A drain goes on by itself, or with a disk's result.
            Vm::Following(following) if following.draining => {}
            Vm::Following(_) => self.follow_slice(env, now),
            Vm::Nothing | Vm::Installing(_) => {}
        }
        // A backup that is level says so at once: acks that come before it executes again would speak
        // of it as one that is behind.
        let level = matches!(&self.vm, Vm::Following(f) if f.replay.backlog() == 0);
        self.report_progress(env, level);
    }

    pub(super) fn live_slice(&mut self, env: &mut dyn Env, now: HostTime) {
        if self.stalled() {
            self.held_back = true;
            return;
        }
        if self.held_back {
            self.held_back = false;
            if let Vm::Live(live) = &mut self.vm {
                live.resumed(now);
            }
        }
        let Vm::Live(live) = &mut self.vm else { return };
        let mut steps = 0;
        let exit = live.slice(now, &mut |ran| {
            steps = ran;
            env.ran(ran);
            env.now()
        });
        let ended = env.now();
        print(live.machine_mut(), &mut self.actions);
        let exit = match exit {
            Ok(exit) => exit,
            Err(error) => return self.fatal(error.to_string()),
        };
        match exit {
            LiveExit::Busy => self.idle = None,
            LiveExit::Idle { wake_ns } => {
                live.rests(ended);
                self.idle = Some(wake_ns);
            }
            LiveExit::Output { position, output } => {
                self.idle = None;
                self.live_output(env, position, output);
            }
            LiveExit::Halted(_) => self.idle = Some(None),
        }
        self.slow_down(now, ended, steps);
        self.hand_out_disks(env.now());
        self.answer_entropy(env);
        if let Vm::Live(live) = &mut self.vm {
            live.flush_if_due(env.now());
        }
        self.send_batches(env);
    }

    /// Learns the guest's addresses from what it sends; true if the machine has ended.
    fn look_at(&mut self, output: &Output) -> bool {
        let mut halts = false;
        for item in &output.items {
            match item {
                OutputItem::Frame { device, bytes } => self.neighbours.learn(*device, bytes),
                OutputItem::Disk(_) => {}
                OutputItem::Halt(_) => halts = true,
            }
        }
        halts
    }

    /// The output's record is in the log: flush if it is time, then queue it in the gate under its
    /// position. Next hop: [`twinvm_protocol::Gate`].
    pub(super) fn live_output(&mut self, env: &mut dyn Env, position: u64, output: Output) {
        let halts = self.look_at(&output);
        self.made_ns.push_back((position, env.now().mono_ns));
        let position = Position(position);
        let bytes = output_bytes(&output);
        if let Vm::Live(live) = &mut self.vm {
            match halts {
                true => live.flush(),
                false => live.flush_if_due(env.now()),
            }
        }
        self.tell(
            env,
            ProtocolEvent::Output {
                position,
                bytes,
                item: output,
            },
        );
        self.send_batches(env);
        if halts {
            self.tell(env, ProtocolEvent::GuestHalted { position });
        }
    }

    pub(super) fn answer_entropy(&mut self, env: &mut dyn Env) {
        let Vm::Live(live) = &mut self.vm else { return };
        if let Some((device, len)) = live.entropy_wanted() {
            let mut bytes = vec![0; len];
            env.random(&mut bytes);
            let now = env.now();
            if let Err(error) = live.entropy(device, bytes, now) {
                return self.fatal(error.to_string());
            }
            self.idle = None;
        }
    }

    /// Slices of a backup are as long as those of a live node, 30 µs at its own speed: it looks at
    /// its channel as often as that one looks at its wire, and doesn't fall behind for looking.
    pub(super) fn follow_slice(&mut self, env: &mut dyn Env, now: HostTime) {
        if self.examine_slice(env) {
            return;
        }
        let Vm::Following(following) = &mut self.vm else {
            return;
        };
        let began = following.replay.machine().icount();
        if following.rested {
            following.slices.resumed(now, began);
        }
        let result = following.replay.run(following.slices.steps());
        let icount = following.replay.machine().icount();
        env.ran(icount.saturating_sub(began));
        let ended = env.now();
        following.slices.ran(ended, icount);
        following.rested = matches!(result, Ok(ReplayExit::Starved | ReplayExit::Waits));
        print(following.replay.machine_mut(), &mut self.actions);
        self.hand_out_disks(ended);
        match result {
            Ok(ReplayExit::DiskDiffers { device, status }) => {
                let why = self.disk_differs(device, status);
                self.tell(env, ProtocolEvent::Unfit { why });
            }
            Ok(ReplayExit::Output { position, output }) => {
                for event in self.replayed_output(position, output) {
                    self.tell(env, event);
                }
            }
            Ok(_) => {}
            Err(divergence) => self.examine(env, divergence),
        }
    }

    pub(super) fn replayed_output(
        &mut self,
        position: u64,
        output: Output,
    ) -> Vec<ProtocolEvent<Output>> {
        let halts = self.look_at(&output);
        let position = Position(position);
        let bytes = output_bytes(&output);
        let mut events = vec![ProtocolEvent::Output {
            position,
            bytes,
            item: output,
        }];
        if halts {
            events.push(ProtocolEvent::GuestHalted { position });
        }
        events
    }

    /// Executes all that is stored, for a claim.
    pub(super) fn drain(
        &mut self,
        env: &mut dyn Env,
        events: &mut VecDeque<ProtocolEvent<Output>>,
    ) {
        loop {
            let Vm::Following(following) = &mut self.vm else {
                return;
            };
            let began = following.replay.machine().icount();
            let exit = following.replay.run(DRAIN_STEPS);
            env.ran(following.replay.machine().icount().saturating_sub(began));
            let position = Position(following.replay.position());
            print(following.replay.machine_mut(), &mut self.actions);
            self.hand_out_disks(env.now());
            match exit {
                Ok(ReplayExit::Starved | ReplayExit::End { .. }) => {
                    if !self.flush_for_claim(position) {
                        events.push_back(ProtocolEvent::Drained { position });
                    }
                    return;
                }
                // Goes on with the result.
                Ok(ReplayExit::Waits) => return,
                Ok(ReplayExit::DiskDiffers { device, .. }) if self.shared.has(device) => {
                    return self.read_again_later(device, env.now());
                }
                Ok(ReplayExit::DiskDiffers { device, status }) => {
                    let why = self.disk_differs(device, status);
                    events.push_back(ProtocolEvent::Unfit { why });
                    return;
                }
                Ok(ReplayExit::Busy) => {}
                Ok(ReplayExit::Output { position, output }) => {
                    events.extend(self.replayed_output(position, output));
                }
                Err(divergence) if divergence.doubtful => {
                    events.push_back(examine::unread(&divergence));
                    return;
                }
                Err(divergence) => {
                    let detail = divergence.to_string();
                    self.note_divergence(&detail);
                    events.push_back(ProtocolEvent::Diverged { detail });
                    return;
                }
            }
        }
    }

    pub(super) fn frame(&mut self, env: &mut dyn Env, now: HostTime, device: u8, bytes: Vec<u8>) {
        if self.frozen && !self.handover.gathers() {
            return;
        }
        // What the backup sends to all comes here too, and so does what was sent in the guest's name
        // while it went from one host to the other.
        let own = self.neighbours.is_own(device, &bytes);
        if own {
            self.hears_itself(now);
        }
        if own || self.output == OutputFrom::Backup && self.neighbours.is_echo(device, &bytes) {
            return;
        }
        let level = self.backup_is_level();
        let Vm::Live(live) = &mut self.vm else { return };
        if let Err(error) = live.net_rx(device, bytes, now) {
            return self.fatal(error.to_string());
        }
        self.idle = None;
        self.woken(level);
        self.send_batches(env);
    }

    /// Whether the backup has executed all there is.
    pub(super) fn backup_is_level(&self) -> bool {
        match (&self.vm, self.peer) {
            (Vm::Live(live), Some(peer)) => peer.position.0 >= live.position(),
            _ => false,
        }
    }

    /// Virtual time stood still while the guest slept, and has stepped forward now: no lag of
    /// a backup that was level.
    pub(super) fn woken(&mut self, level: bool) {
        if let (true, Vm::Live(live), Some(peer)) = (level, &self.vm, &mut self.peer) {
            peer.vtime = live.machine().mtime();
        }
    }

    pub(super) fn tick(&mut self, env: &mut dyn Env, now: HostTime) {
        self.beat = self.beat.wrapping_add(1);
        let due = self
            .node
            .next_deadline()
            .is_some_and(|at| at <= protocol_time(now));
        self.report_progress(env, due);
        if due {
            self.tell(env, ProtocolEvent::Tick);
        }
        self.examine_tick(env, now);
        self.probe_tick(env, now);
        self.read_again(now);
        if !self.frozen {
            self.scrub(env, now);
        }
        self.hold_until_ns.take_if(|until| *until <= now.mono_ns);
        if self.frozen {
            return;
        }
        // The guest is held back between slices: it goes on with time stepped forward.
        self.held_back |= matches!(self.vm, Vm::Live(_)) && self.stalled();
        let level = self.backup_is_level();
        let Vm::Live(live) = &mut self.vm else { return };
        let woken = matches!(self.idle, Some(Some(wake)) if wake <= now.mono_ns);
        if woken && let Err(error) = live.woke(now) {
            return self.fatal(error.to_string());
        }
        live.flush_if_due(now);
        if woken {
            self.idle = None;
            self.woken(level);
        }
        self.send_batches(env);
        self.make_point(env, now);
    }

    /// Goes on after a time in which nothing was executed.
    pub(super) fn resume(&mut self, now: HostTime) {
        if let Vm::Live(live) = &mut self.vm {
            if let Err(error) = live.woke(now) {
                return self.fatal(error.to_string());
            }
            self.idle = None;
        }
    }

    pub(super) fn report_progress(&mut self, env: &mut dyn Env, always: bool) {
        let now = env.now();
        if !always && now.mono_ns.saturating_sub(self.last_progress_ns) < PROGRESS_NS {
            return;
        }
        let progress = match &self.vm {
            Vm::Live(live) => Progress {
                icount: live.machine().icount(),
                position: Position(live.position()),
                vtime: live.machine().mtime(),
            },
            Vm::Following(following) => Progress {
                icount: following.replay.machine().icount(),
                position: Position(following.replay.position()),
                vtime: following.replay.machine().mtime(),
            },
            Vm::Nothing | Vm::Installing(_) => return,
        };
        self.last_progress_ns = now.mono_ns;
        let event = ProtocolEvent::Progress {
            progress,
            beat: self.beat,
            joiner_lag: self.joiner_lag(),
        };
        self.tell(env, event);
    }
}

/// Passes on what the guest printed.
fn print(machine: &mut Machine, actions: &mut VecDeque<Action>) {
    let text = machine.take_console();
    if !text.is_empty() {
        actions.push_back(Action::Console(text));
    }
}
