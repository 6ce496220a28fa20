//! Records enter the machine here, and nowhere else.

use crate::machine::Machine;
use twinvm_cpu::Clock;
use twinvm_devices::virtio::MAX_DISK_REQUEST_BYTES;
use twinvm_devices::{BoardError, Now};
use twinvm_log::{Body, MAX_DISK_BYTES, Record};

/// A record that doesn't belong here: the log is not of this run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// The record is for another step.
    #[error("record for step {record} while the machine is at step {machine}")]
    WrongStep {
        /// The record's step.
        record: u64,
        /// The machine's step.
        machine: u64,
    },
    /// An anchor would turn time back.
    #[error("anchor at step {icount} sets time {mtime} before {now}")]
    TimeBack {
        /// Step of the anchor.
        icount: u64,
        /// Its virtual time, ticks.
        mtime: u64,
        /// Virtual time by the old anchor.
        now: u64,
    },
    /// The device does not exist, has no room, or did not ask.
    #[error("device {device} takes no {what} at step {icount}")]
    Device {
        /// Virtio slot.
        device: u8,
        /// What the record carries.
        what: &'static str,
        /// The record's step.
        icount: u64,
    },
    /// No request of this disk can have ended like this.
    #[error("step {icount}: {source}")]
    Disk {
        /// The record's step.
        icount: u64,
        /// What is wrong.
        source: BoardError,
    },
    /// The record is not an input.
    #[error("a record of this kind is no input")]
    NotInput,
}

// Every read that a disk lets through has room in a record.
const _: () = assert!(MAX_DISK_REQUEST_BYTES <= MAX_DISK_BYTES as u64);

impl Machine {
    /// Applies an input record: it takes effect after the current step and
    /// before the next.
    ///
    /// Next hop of a `NetRx`: the virtual NIC's receive queue, then the guest. A `BlockDone` may
    /// let requests out that had to wait: see [`Machine::disk_requests`].
    pub fn inject(&mut self, record: &Record) -> Result<(), InjectError> {
        if record.icount != self.icount {
            return Err(InjectError::WrongStep {
                record: record.icount,
                machine: self.icount,
            });
        }
        let icount = self.icount;
        let refuse = |device: u8, what: &'static str| InjectError::Device {
            device,
            what,
            icount,
        };
        match &record.body {
            Body::Anchor {
                mtime, rate, span, ..
            } => {
                let now = self.mtime();
                if *mtime < now {
                    return Err(InjectError::TimeBack {
                        icount,
                        mtime: *mtime,
                        now,
                    });
                }
                self.clock = Clock {
                    icount,
                    mtime: *mtime,
                    rate: *rate,
                    span: *span,
                };
                // Due at this very step: whether the machine is run before it is
                // looked at must not matter.
                if self.board.alarm_deadline().is_some_and(|at| at <= *mtime) {
                    self.board.update_time(Now { mtime: *mtime });
                }
                return Ok(());
            }
            Body::NetRx { device, frame } => {
                self.board
                    .receive_frame(&mut self.mem, *device, frame)
                    .map_err(|_| refuse(*device, "frame"))?;
            }
            Body::ConsoleRx { bytes } => {
                if self.board.console_room() < bytes.len() {
                    return Err(refuse(0, "console input"));
                }
                self.board.push_console_input(bytes);
            }
            Body::PortRx { device, bytes } => {
                if self.board.port_room(*device) < bytes.len() {
                    return Err(refuse(*device, "console input"));
                }
                self.board
                    .push_port_input(&mut self.mem, *device, bytes)
                    .map_err(|_| refuse(*device, "console input"))?;
            }
            Body::Entropy { device, bytes } => {
                self.board
                    .complete_entropy(&mut self.mem, *device, bytes)
                    .map_err(|_| refuse(*device, "entropy"))?;
            }
            Body::BlockDone {
                device,
                id,
                status,
                data,
            } => {
                self.board
                    .complete_disk(&mut self.mem, *device, *id, *status, data)
                    .map_err(|source| InjectError::Disk { icount, source })?;
            }
            // What it stands for needs the contents of a disk: a `BlockDone`.
            Body::BlockEnded { .. }
            | Body::DiskWrite { .. }
            | Body::Output { .. }
            | Body::Digest { .. }
            | Body::End { .. } => {
                return Err(InjectError::NotInput);
            }
        }
        // DMA may have touched the reserved line.
        self.harts.running_mut().end_reservation();
        Ok(())
    }
}
