//! The replaying half: executes a machine from the log and checks it.

mod disks;

use disks::OwnDisks;
pub(crate) use disks::{DONE, DiskResult};
use std::collections::VecDeque;
use twinvm_log::{Body, Record};
use twinvm_machine::{Exit, Machine, Output, OutputItem};

/// Replay and log do not agree: one of them is not of this run, or determinism
/// is broken. Never flaky.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("diverged at position {position}, step {icount}: {what}")]
pub struct Divergence {
    /// Index of the record in question.
    pub position: u64,
    /// Step at which it shows.
    pub icount: u64,
    /// What differs, both sides' values.
    pub what: String,
    /// What was read from a disk that both sides reach: the other one may have changed it, if it has
    /// gone on without this one.
    pub doubtful: bool,
}

/// Why [`Replay::run`] returned.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplayExit {
    /// The budget is used up; more to do.
    Busy,
    /// All records are applied.
    Starved,
    /// The guest made output, as the log says. `position` is the end of its record.
    Output {
        /// End position of the `Output` record.
        position: u64,
        /// What the live side has sent or holds in its gate.
        output: Output,
    },
    /// The next record tells the end of a disk's request that has not ended here yet: only with
    /// [`Replay::own_disks`].
    Waits,
    /// A disk's request has ended in another way here: this copy of the disk can't follow. Only
    /// with [`Replay::own_disks`].
    DiskDiffers {
        /// Virtio slot of the disk.
        device: u8,
        /// The request's status in the log, and here.
        status: (u8, u8),
    },
    /// The record that ends a recording was reached.
    End {
        /// The reason it carries.
        reason: u8,
    },
}

/// A machine that follows a log.
pub struct Replay {
    machine: Machine,
    position: u64,
    records: VecDeque<Record>,
    checked_digests: u64,
    /// The last one that was equal: step and digest.
    last_digest: Option<(u64, u128)>,
    disks: OwnDisks,
}

impl Replay {
    /// Follows a log from `position`, where `machine` stands.
    pub fn new(machine: Machine, position: u64) -> Self {
        Self {
            machine,
            position,
            records: VecDeque::new(),
            checked_digests: 0,
            last_digest: None,
            disks: OwnDisks::default(),
        }
    }

    /// Adds the next records of the log.
    pub fn push(&mut self, records: impl IntoIterator<Item = Record>) {
        self.records.extend(records);
    }

    /// Records that wait to be applied.
    pub fn backlog(&self) -> usize {
        self.records.len()
    }

    /// Position up to which the log is applied.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Digests of the log that were found equal so far.
    pub fn checked_digests(&self) -> u64 {
        self.checked_digests
    }

    /// The digest that was found equal last, and the step it is of.
    pub fn last_digest(&self) -> Option<(u64, u128)> {
        self.last_digest
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The machine, for digests, flushes and snapshots; nothing may be run or
    /// injected.
    pub fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// Ends the replay; the machine is kept.
    pub fn into_machine(self) -> Machine {
        self.machine
    }

    /// Puts the machine in place of the one there: a restored copy of the same
    /// state (perturbation).
    pub fn replace_machine(&mut self, machine: Machine) {
        self.machine = machine;
    }

    fn diverged(&self, what: String) -> Divergence {
        Divergence {
            position: self.position,
            icount: self.machine.icount(),
            what,
            doubtful: false,
        }
    }

    /// The record that is applied next, if it is held already.
    pub(crate) fn next_record(&self) -> Option<&Record> {
        self.records.front()
    }

    /// Applies records for this very step, but not that at `position` nor any behind it.
    pub(crate) fn apply_before(&mut self, position: u64) -> Result<(), Divergence> {
        while self.position < position
            && self.records.front().is_some_and(|record| {
                record.icount == self.machine.icount()
                    && !matches!(record.body, Body::Output { .. })
            })
        {
            match self.apply()? {
                None | Some(ReplayExit::Output { .. }) => {}
                Some(_) => break,
            }
        }
        Ok(())
    }

    /// Runs at most `budget` steps and applies what is due. Console text is to be taken between
    /// two calls.
    pub fn run(&mut self, budget: u64) -> Result<ReplayExit, Divergence> {
        let end = self.machine.icount().saturating_add(budget);
        self.advance(end, true)
    }

    /// Runs to step `end` at most; what is due there is not applied yet.
    pub(crate) fn run_up_to(&mut self, end: u64) -> Result<ReplayExit, Divergence> {
        self.advance(end, false)
    }

    fn advance(&mut self, end: u64, apply_last: bool) -> Result<ReplayExit, Divergence> {
        loop {
            if self.pauses() || !apply_last && self.machine.icount() >= end {
                return Ok(ReplayExit::Busy);
            }
            let Some(record) = self.records.front() else {
                return Ok(ReplayExit::Starved);
            };
            if record.icount < self.machine.icount() {
                return Err(self.diverged(format!(
                    "the machine is at step {} but the next record is for step {}",
                    self.machine.icount(),
                    record.icount
                )));
            }
            let is_output = matches!(record.body, Body::Output { .. });
            if self.machine.icount() == record.icount && !is_output {
                if let Some(exit) = self.apply()? {
                    return Ok(exit);
                }
                continue;
            }
            if self.machine.icount() >= end {
                return Ok(ReplayExit::Busy);
            }
            match self.machine.run(record.icount.min(end)) {
                Exit::Limit if is_output && self.machine.icount() == record.icount => {
                    return Err(self.diverged(format!(
                        "the log has an output here, the replay made none ({})",
                        self.place()
                    )));
                }
                Exit::Limit => {}
                Exit::Output => return self.check_output(),
                // At the end what is due there is still to be applied.
                Exit::Reset | Exit::Console | Exit::Devices if self.machine.icount() >= end => {}
                Exit::Reset | Exit::Console | Exit::Devices => return Ok(ReplayExit::Busy),
                Exit::Idle { .. } => {
                    return Err(self.diverged(format!(
                        "the guest waits, the next record is for step {}",
                        record.icount
                    )));
                }
                Exit::Halted(halt) => {
                    return Err(self.diverged(format!(
                        "the machine has ended ({halt:?}), the next record is for step {}",
                        record.icount
                    )));
                }
            }
        }
    }

    /// Applies the record in front, which is for this very step.
    fn apply(&mut self) -> Result<Option<ReplayExit>, Divergence> {
        if let Some(Record {
            body:
                Body::BlockEnded {
                    device,
                    id,
                    status,
                    hash,
                },
            ..
        }) = self.records.front()
        {
            let (device, id, status, hash) = (*device, *id, *status, *hash);
            return self.apply_disk(device, id, status, hash);
        }
        if let Some(Record {
            body: Body::DiskWrite { device, id, hash },
            ..
        }) = self.records.front()
        {
            let (device, id, hash) = (*device, *id, *hash);
            return self.check_write(device, id, hash).map(Some);
        }
        let Some(record) = self.records.pop_front() else {
            return Ok(None);
        };
        match &record.body {
            Body::Digest { digest } => {
                let own = self.machine.digest();
                if own.total() != *digest {
                    return Err(self.diverged(format!(
                        "digest {:#034x} in the log, {:#034x} here ({own:x?})",
                        digest,
                        own.total(),
                    )));
                }
                self.checked_digests += 1;
                // What has changed since counts from here.
                self.machine.take_changed_pages();
                self.last_digest = Some((self.machine.icount(), *digest));
            }
            Body::End { reason } => {
                let reason = *reason;
                self.position += 1;
                return Ok(Some(ReplayExit::End { reason }));
            }
            Body::Output { .. } => {}
            body => {
                if let Body::Anchor { tell_tale, .. } = body {
                    let own = self.machine.tell_tale();
                    if own != *tell_tale {
                        return Err(self.diverged(format!(
                            "tell-tale of the registers is {tell_tale:#06x} in the log, {own:#06x} \
                             here ({})",
                            self.place()
                        )));
                    }
                }
                if let Err(error) = self.machine.inject(&record) {
                    return Err(self.diverged(error.to_string()));
                }
                if let Body::BlockDone { device, id, .. } = body {
                    self.forget_disk_result(*device, *id);
                }
            }
        }
        self.position += 1;
        Ok(None)
    }

    fn check_output(&mut self) -> Result<ReplayExit, Divergence> {
        let Some(output) = self.machine.take_output() else {
            return Ok(ReplayExit::Busy);
        };
        match self.records.front() {
            Some(Record {
                icount,
                body: Body::Output { hash },
            }) if *icount == output.icount => {
                if *hash != output.hash() {
                    return Err(self.diverged(format!(
                        "output hash {:#018x} in the log, {:#018x} here: {} ({})",
                        hash,
                        output.hash(),
                        describe(&output),
                        self.place()
                    )));
                }
                self.records.pop_front();
                self.position += 1;
                Ok(ReplayExit::Output {
                    position: self.position,
                    output,
                })
            }
            next => Err(self.diverged(format!(
                "output here: {}, hash {:#018x} ({}); the log goes on with {}",
                describe(&output),
                output.hash(),
                self.place(),
                match next {
                    Some(record) => format!("{} for step {}", kind(&record.body), record.icount),
                    None => "nothing".to_owned(),
                }
            ))),
        }
    }

    /// Where the guest is, for messages.
    fn place(&self) -> String {
        format!(
            "hart {} at pc {:#x}",
            self.machine.running_hart(),
            self.machine.pc()
        )
    }
}

/// Items of an output that a message names.
const NAMED_ITEMS: usize = 4;

/// Kinds and lengths of an output's items.
fn describe(output: &Output) -> String {
    let items = output.items.iter().take(NAMED_ITEMS);
    let mut names: Vec<String> = items
        .map(|item| match item {
            OutputItem::Frame { device, bytes } => {
                format!("a frame of {} bytes from slot {device}", bytes.len())
            }
            OutputItem::Disk(request) => format!("request {} of a disk", request.id),
            OutputItem::Halt(halt) => format!("the end ({halt:?})"),
        })
        .collect();
    if output.items.len() > NAMED_ITEMS {
        names.push(format!("{} more", output.items.len() - NAMED_ITEMS));
    }
    names.join(", ")
}

/// Name of a record's kind.
pub(crate) fn kind(body: &Body) -> &'static str {
    match body {
        Body::Anchor { .. } => "an anchor",
        Body::NetRx { .. } => "a frame",
        Body::ConsoleRx { .. } | Body::PortRx { .. } => "console input",
        Body::Entropy { .. } => "entropy",
        Body::BlockDone { .. } | Body::BlockEnded { .. } => "a disk's result",
        Body::DiskWrite { .. } => "a write to a shared disk",
        Body::Output { .. } => "an output",
        Body::Digest { .. } => "a digest",
        Body::End { .. } => "the end",
    }
}
