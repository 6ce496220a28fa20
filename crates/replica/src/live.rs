//! The live half: executes the machine and writes its log.

mod disks;
mod kept;

use self::kept::Kept;
use crate::pacing::{HostTime, Pacing};
use twinvm_log::{BatchBuilder, Body, EncodedBatch, PushError, Record, StateEntry};
use twinvm_machine::{Clock, Exit, Halt, InjectError, Machine, Output, VIRTIO_SLOTS};

/// Steps between two digests in the log. At 10^8 steps a digest that rehashes a
/// few thousand pages costs well under 1 %.
const DIGEST_STEPS: u64 = 200_000_000;
/// Batches are closed before they come near the log's own bound.
const FLUSH_BYTES: usize = 64 << 10;
/// Anchors, and without a follower input too, are on their way after this long even without
/// output: 10 ms. Nothing waits for them but the backup, which can't execute past the last one: a
/// guest that computes is lost so much of at a takeover, and makes it anew. Each batch costs a live
/// node that sends it and is told that it has come 80 µs of processor time.
const FLUSH_NS: u64 = 10_000_000;
/// Packets are on their way to a follower after this long, 100 µs, if no output takes them along
/// sooner. A packet that dies with this node has to be sent again, which takes its sender's TCP
/// 200 ms and more. At once would be better still, but costs the live node's processor a fifth
/// more for each request when requests come one after the other.
const PACKET_FLUSH_NS: u64 = 100_000;
/// Batches of a guest that has not waited for anything since it made an output are this far apart:
/// 500 µs. Each costs both nodes some 30 µs of processor time (sending, waking, acking), and clients
/// of a guest that is busy wait for its processor anyway. As soon as it waits, its outputs don't.
const SPACING_NS: u64 = 500_000;

/// Why [`Live::slice`] returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveExit {
    /// The slice is over; more to run.
    Busy,
    /// The guest waits. Call again when input comes, at the latest at `wake_ns`
    /// (host monotonic time) if there is one.
    Idle {
        /// When the guest's next timer is due.
        wake_ns: Option<u64>,
    },
    /// The guest made output. Its record is in the log at `position` (the number
    /// of records up to and including it).
    ///
    /// Next hop: the output gate, which lets it go when the backup has acked
    /// `position`.
    Output {
        /// End position of the `Output` record.
        position: u64,
        /// What left the guest.
        output: Output,
    },
    /// The machine has ended (its last output came before).
    Halted(Halt),
}

/// The log cannot take what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The record is not one that the log can hold.
    #[error("log: {0}")]
    Log(#[from] PushError),
    /// The machine refuses its own record: a fault of ours.
    #[error("machine: {0}")]
    Inject(#[from] InjectError),
}

/// What the live half did, for reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveStats {
    /// Bytes of closed batches.
    pub log_bytes: u64,
    /// Records appended.
    pub records: u64,
    /// Frames dropped before the log because the guest had no room.
    pub frames_dropped: u64,
}

/// A machine that executes and is logged.
pub struct Live {
    machine: Machine,
    builder: BatchBuilder,
    closed: Vec<EncodedBatch>,
    pacing: Pacing,
    next_digest: u64,
    /// The last one that was logged: step and digest.
    last_digest: Option<(u64, u128)>,
    stop_at: u64,
    /// When the current batch has to be closed.
    flush_due_ns: Option<u64>,
    /// Somebody follows.
    followed: bool,
    /// An output is in the current batch.
    output_waits: bool,
    /// The guest has waited for something since the last batch with an output.
    rested: bool,
    last_flush_ns: u64,
    stats: LiveStats,
    /// Of each virtio slot, the number of the first disk request not yet handed out.
    disks_next: [u64; VIRTIO_SLOTS],
    /// What was true at the digests since they were last taken, if somebody keeps that.
    states: Option<Vec<StateEntry>>,
    /// What a follower that finds a difference may ask for.
    kept: Option<Kept>,
}

impl Live {
    /// Executes `machine` from here on, its log beginning at `position`. The
    /// first record is an anchor, so virtual time moves from the first step.
    pub fn new(machine: Machine, position: u64, now: HostTime) -> Result<Self, LiveError> {
        let pacing = Pacing::new(now, machine.mtime(), machine.icount());
        Self::with_pacing(machine, position, now, pacing)
    }

    fn with_pacing(
        machine: Machine,
        position: u64,
        now: HostTime,
        pacing: Pacing,
    ) -> Result<Self, LiveError> {
        let mut live = Self {
            next_digest: next_digest(machine.icount()),
            last_digest: None,
            machine,
            builder: BatchBuilder::new(position),
            closed: Vec::new(),
            pacing,
            stop_at: u64::MAX,
            flush_due_ns: None,
            followed: false,
            output_waits: false,
            rested: true,
            last_flush_ns: 0,
            stats: LiveStats::default(),
            disks_next: [0; VIRTIO_SLOTS],
            states: None,
            kept: None,
        };
        live.anchor(now)?;
        Ok(live)
    }

    /// Goes on as the live side with a machine that was a backup: `vtime_at` is
    /// the former live side's virtual time (ticks) at our host time `at`, so that
    /// virtual time steps forward to where it would be, never back.
    pub fn take_over(
        machine: Machine,
        position: u64,
        now: HostTime,
        vtime_at: Option<(u64, HostTime)>,
    ) -> Result<Self, LiveError> {
        let own = Pacing::new(now, machine.mtime(), machine.icount());
        let pacing = match vtime_at {
            Some((vtime, at)) => {
                let kept = Pacing::new(at, vtime, machine.icount());
                if kept.wanted_mtime(now) > machine.mtime() {
                    kept
                } else {
                    own
                }
            }
            None => own,
        };
        Self::with_pacing(machine, position, now, pacing)
    }

    /// Somebody follows: packets are soon on their way, so that few are lost with this node.
    pub fn followed(&mut self) {
        self.followed = true;
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The machine, for snapshots and digests; nothing may be run or injected.
    pub fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Ends being live; the machine is kept.
    pub fn into_machine(self) -> Machine {
        self.machine
    }

    /// End of the log: the number of records appended, batches closed or not.
    pub fn position(&self) -> u64 {
        self.builder.next_position()
    }

    /// The digest that was logged last, and the step it is of.
    pub fn last_digest(&self) -> Option<(u64, u128)> {
        self.last_digest
    }

    /// What was done so far.
    pub fn stats(&self) -> LiveStats {
        self.stats
    }

    fn append(&mut self, body: Body, now: HostTime) -> Result<u64, LiveError> {
        let record = Record {
            icount: self.machine.icount(),
            body,
        };
        let position = self.push(&record, now)?;
        if !matches!(
            record.body,
            Body::Output { .. } | Body::Digest { .. } | Body::End { .. }
        ) {
            self.machine.inject(&record)?;
        }
        Ok(position)
    }

    /// Puts a record into the log, no more.
    fn push(&mut self, record: &Record, now: HostTime) -> Result<u64, LiveError> {
        if self.builder.encoded_bytes() >= FLUSH_BYTES {
            self.flush();
        }
        let position = match self.builder.push(record) {
            Ok(position) => position,
            // Full: close this batch and begin the next.
            Err(_) if !self.builder.is_empty() => {
                self.flush();
                self.builder.push(record)?
            }
            Err(error) => return Err(error.into()),
        };
        let wait_ns = match record.body {
            Body::Output { .. } | Body::DiskWrite { .. } if self.followed => 0,
            // The sooner a backup comes to the guest's next request, the sooner its own disk begins.
            Body::NetRx { .. } | Body::BlockEnded { .. } if self.followed => PACKET_FLUSH_NS,
            _ => FLUSH_NS,
        };
        let mut due_ns = now.mono_ns.saturating_add(wait_ns);
        if !self.rested {
            due_ns = due_ns.max(self.last_flush_ns.saturating_add(SPACING_NS));
        }
        self.output_waits |= matches!(record.body, Body::Output { .. } | Body::DiskWrite { .. });
        self.flush_due_ns = Some(self.flush_due_ns.map_or(due_ns, |due| due.min(due_ns)));
        self.stats.records += 1;
        if let Some(kept) = &mut self.kept
            && let Body::Anchor { .. } | Body::Output { .. } = record.body
        {
            kept.record(position, &self.machine);
        }
        Ok(position)
    }

    fn anchor(&mut self, now: HostTime) -> Result<(), LiveError> {
        let Clock {
            mtime, rate, span, ..
        } = self
            .pacing
            .anchor(now, &self.machine.clock(), self.machine.icount());
        let tell_tale = self.machine.tell_tale();
        self.append(
            Body::Anchor {
                mtime,
                rate,
                span,
                tell_tale,
            },
            now,
        )?;
        Ok(())
    }

    /// A frame from the network: stamped with the step count, logged, and only
    /// then put into the guest's receive queue. Dropped, unlogged, if the queue
    /// has no room.
    ///
    /// Next hop: [`Machine::inject`].
    pub fn net_rx(&mut self, device: u8, frame: Vec<u8>, now: HostTime) -> Result<(), LiveError> {
        if !self.machine.net_room(device) || frame.len() > twinvm_log::MAX_FRAME_BYTES {
            self.stats.frames_dropped += 1;
            return Ok(());
        }
        self.step_time(now)?;
        self.append(Body::NetRx { device, frame }, now)?;
        Ok(())
    }

    /// Bytes typed for the guest, which go to its virtio console if it has one, else to the
    /// serial one. Returns how many were taken: what there is no room for is the caller's to keep.
    pub fn console_rx(&mut self, bytes: &[u8], now: HostTime) -> Result<usize, LiveError> {
        let port = self.machine.config().console_slot();
        let room = match port {
            Some(device) => self.machine.port_room(device),
            None => self.machine.console_room(),
        };
        let take = bytes.len().min(room).min(twinvm_log::MAX_CONSOLE_BYTES);
        if take > 0 {
            self.step_time(now)?;
            let bytes = bytes[..take].to_vec();
            let body = match port {
                Some(device) => Body::PortRx { device, bytes },
                None => Body::ConsoleRx { bytes },
            };
            self.append(body, now)?;
        }
        Ok(take)
    }

    /// The guest's open request for entropy: slot and length.
    pub fn entropy_wanted(&self) -> Option<(u8, usize)> {
        self.machine.entropy_wanted()
    }

    /// Answers an entropy request.
    pub fn entropy(&mut self, device: u8, bytes: Vec<u8>, now: HostTime) -> Result<(), LiveError> {
        self.append(Body::Entropy { device, bytes }, now)?;
        Ok(())
    }

    /// Brings virtual time up to the host's clock if it fell behind while the
    /// guest waited.
    fn step_time(&mut self, now: HostTime) -> Result<(), LiveError> {
        if self
            .pacing
            .anchor_due(now, &self.machine.clock(), self.machine.icount())
        {
            self.pacing.resumed(now, self.machine.icount());
            self.anchor(now)?;
        }
        Ok(())
    }

    /// No slice runs past this step. Once the machine has reached it, slices are
    /// empty and end as [`LiveExit::Busy`], or tell what the last step gave out.
    pub fn stop_at(&mut self, icount: u64) {
        self.stop_at = icount;
    }

    /// Runs one slice. `clock` reads the host's time when the slice has ended; it is told how many
    /// steps that had.
    pub fn slice(
        &mut self,
        now: HostTime,
        clock: &mut dyn FnMut(u64) -> HostTime,
    ) -> Result<LiveExit, LiveError> {
        if self
            .pacing
            .anchor_due(now, &self.machine.clock(), self.machine.icount())
        {
            self.anchor(now)?;
        }
        let began = self.machine.icount();
        let until = began.saturating_add(self.pacing.slice_steps());
        let until = until.min(self.next_digest).min(self.stop_at);
        let exit = self.machine.run(until);
        let now = clock(self.machine.icount().saturating_sub(began));
        self.pacing.ran(now, self.machine.icount());
        Ok(match exit {
            Exit::Limit => {
                if self.machine.icount() == self.next_digest {
                    self.log_digest(now)?;
                    self.next_digest = next_digest(self.machine.icount());
                }
                LiveExit::Busy
            }
            Exit::Idle { timer } => {
                let wake_ns = timer.map(|mtime| self.pacing.host_ns_at(mtime));
                if wake_ns.is_some_and(|wake| wake <= now.mono_ns) {
                    // Already due by the host's clock: step time forward.
                    self.pacing.resumed(now, self.machine.icount());
                    self.anchor(now)?;
                    return Ok(LiveExit::Busy);
                }
                LiveExit::Idle { wake_ns }
            }
            Exit::Output => match self.machine.take_output() {
                Some(output) => {
                    let position = self.append(
                        Body::Output {
                            hash: output.hash(),
                        },
                        now,
                    )? + 1;
                    LiveExit::Output { position, output }
                }
                None => LiveExit::Busy,
            },
            Exit::Reset | Exit::Console | Exit::Devices => LiveExit::Busy,
            Exit::Halted(halt) => LiveExit::Halted(halt),
        })
    }

    /// Execution was held back until now: the speed is measured anew. The next slice
    /// sets an anchor if one is due.
    pub fn resumed(&mut self, now: HostTime) {
        self.pacing.resumed(now, self.machine.icount());
    }

    /// The guest slept until now, or execution was held back: go on from here.
    pub fn woke(&mut self, now: HostTime) -> Result<(), LiveError> {
        self.pacing.resumed(now, self.machine.icount());
        self.anchor(now)
    }

    /// Appends a last record, so that a replay runs to this very step.
    pub fn end(&mut self, reason: u8, now: HostTime) -> Result<(), LiveError> {
        self.log_digest(now)?;
        self.append(Body::End { reason }, now)?;
        self.flush();
        Ok(())
    }

    /// Appends a digest of the state as it is now.
    pub fn log_digest(&mut self, now: HostTime) -> Result<(), LiveError> {
        let digest = self.machine.digest().total();
        let position = self.append(Body::Digest { digest }, now)?;
        self.last_digest = Some((self.machine.icount(), digest));
        if self.states.is_none() && self.kept.is_none() {
            return Ok(());
        }
        let changed = self.machine.take_changed_pages().into_iter();
        let entry = StateEntry {
            position,
            icount: self.machine.icount(),
            digest,
            state: self.machine.state().encode(),
            pages: changed.map(|(page, hash)| (page, hash as u64)).collect(),
        };
        if let Some(states) = &mut self.states {
            states.push(entry.clone());
        }
        if let Some(kept) = &mut self.kept {
            kept.digest(entry);
        }
        Ok(())
    }

    /// From now on keeps what is true at each digest, for [`Live::take_states`], which then is to
    /// be called after each slice. To be asked for at the recording's beginning.
    pub fn keep_states(&mut self) {
        self.machine.note_changed_pages();
        self.states = Some(Vec::new());
    }

    /// Takes what was kept since the last call, oldest first.
    ///
    /// Next hop: the recording's file of states.
    pub fn take_states(&mut self) -> Vec<StateEntry> {
        self.states.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Closes the current batch.
    pub fn flush(&mut self) {
        if let Some(batch) = self.builder.take() {
            self.stats.log_bytes += batch.bytes().len() as u64;
            self.closed.push(batch);
        }
        self.flush_due_ns = None;
        self.output_waits = false;
    }

    /// The guest waits: its outputs, if some are in the current batch, wait for nothing.
    pub fn rests(&mut self, now: HostTime) {
        if self.output_waits {
            self.last_flush_ns = now.mono_ns;
            self.flush();
        }
        self.rested = true;
    }

    /// Closes the current batch if something in it has waited for long enough.
    pub fn flush_if_due(&mut self, now: HostTime) {
        if self.flush_due_ns().is_some_and(|due| now.mono_ns >= due) {
            self.last_flush_ns = now.mono_ns;
            self.rested &= !self.output_waits;
            self.flush();
        }
    }

    /// Host time by which [`Live::flush_if_due`] must be called.
    pub fn flush_due_ns(&self) -> Option<u64> {
        self.flush_due_ns
    }

    /// Takes the closed batches, oldest first.
    pub fn take_batches(&mut self) -> Vec<EncodedBatch> {
        std::mem::take(&mut self.closed)
    }
}

fn next_digest(icount: u64) -> u64 {
    (icount / DIGEST_STEPS + 1).saturating_mul(DIGEST_STEPS)
}
