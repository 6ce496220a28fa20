//! The loop of a VM that runs alone: slices, and between them what comes and goes.

use std::time::Duration;

use crossbeam_channel::{Receiver, Select};
use twinvm_host::port::{Port, PortAddress, PortCounts, PortEvent};
use twinvm_host::random::fill_random;
use twinvm_host::signals::SignalEvent;
use twinvm_host::time::{mono_ns, process_cpu_ns};
use twinvm_log::{MAX_CONSOLE_BYTES, MAX_ENTROPY_BYTES};
use twinvm_machine::{Machine, Output, OutputItem};
use twinvm_replica::{HostTime, Live, LiveError, LiveExit};

use crate::say;

use super::console::Console;
use super::disks::Disks;
use super::end::End;
use super::recorder::{Recorder, RecorderError};
use super::report::EngineReport;
use super::snapshot::RunSnapshotError;

/// Frames taken from one wire between two slices: the guest must go on too.
const FRAMES_PER_TURN: usize = 64;
/// Results taken from the disks between two slices: each brings 128 KiB at most.
const RESULTS_PER_TURN: usize = 16;

/// A network card and what it is plugged into.
pub(crate) struct Wire {
    /// Virtio slot of the card.
    pub(crate) slot: u8,
    /// Where the port leads.
    pub(crate) address: PortAddress,
    /// The way out.
    pub(crate) port: Port,
    /// The way in.
    pub(crate) frames: Receiver<PortEvent>,
}

/// Why a run can't go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriveError {
    /// The live half refuses.
    #[error("internal fault: {0}")]
    Live(#[from] LiveError),
    /// The snapshot at the end.
    #[error(transparent)]
    Snapshot(#[from] RunSnapshotError),
    /// The recording can't be written.
    #[error("the recording has failed, so the run was ended: {0}")]
    Recording(#[from] RecorderError),
    /// No random numbers.
    #[error("reading random numbers: {0}")]
    Random(std::io::Error),
}

/// What is left of a run.
pub(crate) struct Ended {
    /// Steps since power-on.
    pub(crate) icount: u64,
    /// Of the final state.
    pub(crate) digest: u128,
    /// When the guest made its last step.
    pub(crate) host_ns: u64,
    /// Processor time at that moment.
    pub(crate) cpu_ns: u64,
    /// Pages of RAM that were written to, in bytes.
    pub(crate) ram_touched_bytes: u64,
    /// What went through each network card's port.
    pub(crate) nets: Vec<PortCounts>,
    /// What executed the guest, and how.
    pub(crate) engine: EngineReport,
    /// What went wrong while the recording was finished, or the snapshot written.
    pub(crate) trouble: Option<DriveError>,
}

/// What of a run can still be written down when it has ended.
pub(crate) struct Frozen {
    /// As it was when the run ended.
    pub(crate) machine: Machine,
    /// They may still be at work.
    pub(crate) disks: Disks,
    /// What people want meanwhile.
    pub(crate) signals: Receiver<SignalEvent>,
}

/// A VM and everything it is plugged into.
pub(crate) struct Drive {
    live: Live,
    console: Console,
    signals: Receiver<SignalEvent>,
    wires: Vec<Wire>,
    disks: Disks,
    recording: Option<Recorder>,
}

fn now() -> HostTime {
    HostTime { mono_ns: mono_ns() }
}

impl Drive {
    /// Powers the machine on.
    pub(crate) fn new(
        machine: Machine,
        console: Console,
        signals: Receiver<SignalEvent>,
        wires: Vec<Wire>,
        disks: Disks,
        recording: Option<Recorder>,
    ) -> Result<Self, DriveError> {
        let mut live = Live::new(machine, 0, now())?;
        if recording.is_some() {
            live.keep_states();
        }
        Ok(Self {
            live,
            console,
            signals,
            wires,
            disks,
            recording,
        })
    }

    /// Runs the guest until it ends, is ended, or has made `limit` steps.
    pub(crate) fn run(&mut self, limit: Option<u64>) -> Result<End, DriveError> {
        let limit = limit.unwrap_or(u64::MAX);
        self.live.stop_at(limit);
        loop {
            if !self.take_inputs()? {
                return Ok(End::Stopped);
            }
            let exit = self.live.slice(now(), &mut |_| now())?;
            self.print();
            for request in self.live.take_disk_requests() {
                self.disks.submit(request);
            }
            match exit {
                LiveExit::Busy if self.live.machine().icount() >= limit => return Ok(End::Limit),
                LiveExit::Busy => {}
                LiveExit::Output { output, .. } => self.send(&output),
                // Its own request for entropy is answered at once.
                LiveExit::Idle { .. } if self.live.entropy_wanted().is_some() => {}
                LiveExit::Idle { wake_ns } => self.wait(wake_ns)?,
                LiveExit::Halted(halt) => return Ok(End::Halted(halt)),
            }
            self.live.flush_if_due(now());
            self.keep_log()?;
        }
    }

    /// Hands the guest what has come for it; false if the run is to end.
    fn take_inputs(&mut self) -> Result<bool, DriveError> {
        if self.signals.try_recv().is_ok() || !self.console.poll() {
            return Ok(false);
        }
        let typed = self.console.typed();
        while !typed.is_empty() {
            let (first, _) = typed.as_slices();
            let piece = &first[..first.len().min(MAX_CONSOLE_BYTES)];
            let taken = self.live.console_rx(piece, now())?;
            typed.drain(..taken);
            if taken == 0 {
                break;
            }
        }
        for wire in &mut self.wires {
            let machine = self.live.machine();
            wire.port.guest_takes(machine.net_offloads(wire.slot));
            for _ in 0..FRAMES_PER_TURN {
                // What the guest has no room for stays in the queue.
                if !self.live.machine().net_room(wire.slot) {
                    break;
                }
                match wire.frames.try_recv() {
                    Ok(PortEvent::Frame(packet)) => self.live.net_rx(wire.slot, packet, now())?,
                    Ok(PortEvent::Lost { why: text } | PortEvent::Note { text }) => {
                        say::line(format_args!("twinvm run: {text}"));
                    }
                    // The network finds the guest by its next frame.
                    Ok(PortEvent::Reconnected) => {
                        say::line(format_args!("twinvm run: {} is there again", wire.address));
                    }
                    Err(_) => break,
                }
            }
        }
        for _ in 0..RESULTS_PER_TURN {
            let Some(done) = self.disks.next() else {
                break;
            };
            self.live
                .block_done(done.device, done.id, done.status, done.data, now())?;
        }
        while let Some((slot, len)) = self.live.entropy_wanted() {
            let mut bytes = vec![0; len.min(MAX_ENTROPY_BYTES)];
            fill_random(&mut bytes).map_err(DriveError::Random)?;
            self.live.entropy(slot, bytes, now())?;
        }
        Ok(true)
    }

    fn print(&mut self) {
        let text = self.live.machine_mut().take_console();
        if !text.is_empty() {
            self.console.print(&text);
        }
    }

    /// Without a backup there is no gate: what the guest sends goes straight to the wire.
    fn send(&self, output: &Output) {
        for item in &output.items {
            let OutputItem::Frame { device, bytes } = item else {
                continue;
            };
            if let Some(wire) = self.wires.iter().find(|wire| wire.slot == *device) {
                wire.port.send(bytes);
            }
        }
    }

    /// Sleeps until the guest's next timer is due or something comes in.
    fn wait(&mut self, wake_ns: Option<u64>) -> Result<(), DriveError> {
        loop {
            let flush_ns = self.live.flush_due_ns();
            let now_ns = mono_ns();
            if flush_ns.is_some_and(|due| due <= now_ns) {
                self.live.flush();
                self.keep_log()?;
                continue;
            }
            if wake_ns.is_some_and(|wake| wake <= now_ns) || self.listen(flush_ns, wake_ns, now_ns)
            {
                break;
            }
        }
        self.live.woke(now())?;
        Ok(())
    }

    /// Waits for input at most until the earlier of two moments; false if none came.
    fn listen(&self, flush_ns: Option<u64>, wake_ns: Option<u64>, now_ns: u64) -> bool {
        let mut select = Select::new();
        select.recv(&self.signals);
        if let Some(typed) = self.console.wakes() {
            select.recv(typed);
        }
        select.recv(self.disks.wakes());
        for wire in &self.wires {
            if self.live.machine().net_room(wire.slot) {
                select.recv(&wire.frames);
            }
        }
        match flush_ns.into_iter().chain(wake_ns).min() {
            Some(until) => {
                let wait = Duration::from_nanos(until.saturating_sub(now_ns));
                select.ready_timeout(wait).is_ok()
            }
            None => {
                select.ready();
                true
            }
        }
    }

    /// Writes closed batches to the recording.
    fn keep_log(&mut self) -> Result<(), DriveError> {
        for batch in self.live.take_batches() {
            if let Some(recording) = &mut self.recording {
                recording.append(&batch)?;
            }
        }
        for entry in self.live.take_states() {
            if let Some(recording) = &mut self.recording {
                recording.keep_state(&entry);
            }
        }
        Ok(())
    }

    /// The machine as it is now.
    pub(crate) fn machine(&self) -> &Machine {
        self.live.machine()
    }

    /// Ends the log and the recording; the guest makes no further step.
    pub(crate) fn end(mut self, end: End) -> (Ended, Frozen) {
        let (host_ns, cpu_ns) = (mono_ns(), process_cpu_ns());
        self.print();
        let trouble = self.finish(end).err();
        let ended = Ended {
            icount: self.live.machine().icount(),
            digest: self.live.machine_mut().digest().total(),
            host_ns,
            cpu_ns,
            ram_touched_bytes: self.live.machine().ram_touched_bytes(),
            nets: self.wires.iter().map(|wire| wire.port.counts()).collect(),
            engine: EngineReport::of(self.live.machine()),
            trouble,
        };
        let frozen = Frozen {
            machine: self.live.into_machine(),
            disks: self.disks,
            signals: self.signals,
        };
        (ended, frozen)
    }

    fn finish(&mut self, end: End) -> Result<(), DriveError> {
        self.live.end(end.exit_code(), now())?;
        self.keep_log()?;
        match self.recording.take() {
            Some(recording) => Ok(recording.finish()?),
            None => Ok(()),
        }
    }
}
