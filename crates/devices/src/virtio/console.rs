//! The console (virtio 1.2 section 5.3): one port with a receive and a transmit queue. Without
//! VIRTIO_CONSOLE_F_MULTIPORT there is no control queue, and without the other features nothing in
//! the configuration space.
//!
//! Transmit completes in its notify step. Input goes into the guest's buffers in the step of its
//! record; without buffers it waits in a queue of fixed size in device state until the guest
//! notifies its receive queue.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use twinvm_mem::Memory;

use super::mmio::serve_all;
use super::{Chain, RingError, VirtioDevice, VirtioMmio, Virtqueue};
use crate::persist::{Persist, StateError, length};
use crate::{DeviceOut, INPUT_QUEUE_BYTES};

#[cfg(test)]
mod tests;

/// Most bytes printed of one transmit buffer: more than Linux puts into one (32 KiB). What is
/// beyond is lost: a guest could else make one notify copy its RAM many times.
pub const MAX_TEXT_BYTES: usize = 1 << 16;

const RX: usize = 0;
const TX: usize = 1;

/// The console.
#[derive(Debug, Default)]
pub struct VirtioConsole {
    /// Input that waits for buffers, at most [`INPUT_QUEUE_BYTES`].
    waiting: VecDeque<u8>,
}

/// The saved form of [`VirtioConsole`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    /// Input that waits for buffers, oldest first.
    pub waiting: Vec<u8>,
}

impl VirtioConsole {
    /// A console without input.
    pub fn new() -> Self {
        Self::default()
    }

    /// Hands waiting input to the guest while it has buffers. Its notifications for new ones are
    /// wanted only while input waits.
    fn deliver(&mut self, rx: &mut Virtqueue, mem: &mut Memory) -> Result<bool, RingError> {
        if !self.waiting.is_empty() {
            let mut chain = Chain::default();
            for _ in 0..rx.available(mem)? {
                rx.take(mem, &mut chain)?;
                let written = chain.write(mem, self.waiting.make_contiguous())?;
                rx.give_back(mem, &chain, written as u32)?;
                self.waiting.drain(..written);
                if self.waiting.is_empty() {
                    break;
                }
            }
        }
        if self.waiting.is_empty() {
            rx.unwatch(mem)?;
        } else {
            rx.watch(mem)?;
        }
        rx.publish(mem)
    }
}

/// Prints the text of one transmit buffer.
fn transmit(mem: &Memory, chain: &Chain, out: &mut DeviceOut<'_>) -> Result<(), RingError> {
    let mut text = vec![0; chain.readable_bytes().min(MAX_TEXT_BYTES as u64) as usize];
    chain.read(mem, 0, &mut text)?;
    out.console(&text);
    Ok(())
}

impl VirtioDevice for VirtioConsole {
    const DEVICE_ID: u32 = 3;
    const QUEUES: usize = 2;

    fn features(&self) -> u64 {
        0
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn notify(
        &mut self,
        queue: usize,
        queues: &mut [Virtqueue],
        mem: &mut Memory,
        mut out: DeviceOut<'_>,
    ) -> Result<bool, RingError> {
        match queue {
            RX => self.deliver(&mut queues[RX], mem),
            TX => serve_all(&mut queues[TX], mem, |mem, chain| {
                transmit(mem, chain, &mut out).map(|()| 0)
            }),
            _ => Ok(false),
        }
    }

    fn reset(&mut self) {
        self.waiting.clear();
    }
}

impl VirtioMmio<VirtioConsole> {
    /// Bytes of input that would be taken now: none before the guest's driver runs the console.
    /// The host looks before it logs input and keeps the rest.
    pub fn input_room(&self) -> usize {
        if self.queue_running(RX) {
            INPUT_QUEUE_BYTES - self.device().waiting.len()
        } else {
            0
        }
    }

    /// Receives typed bytes, in the step of their record, and says how many were taken: those
    /// beyond [`input_room`](Self::input_room) are dropped, the same on every node.
    pub fn push_input(&mut self, mem: &mut Memory, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.input_room());
        if taken > 0 {
            self.act(RX, |device, queues| {
                device.waiting.extend(&bytes[..taken]);
                device.deliver(&mut queues[RX], mem)
            });
        }
        taken
    }
}

impl Persist for VirtioConsole {
    type State = ConsoleState;

    fn save(&self) -> ConsoleState {
        ConsoleState {
            waiting: self.waiting.iter().copied().collect(),
        }
    }

    fn restore(state: ConsoleState) -> Result<Self, StateError> {
        length("console.waiting", state.waiting.len(), 0, INPUT_QUEUE_BYTES)?;
        Ok(Self {
            waiting: state.waiting.into(),
        })
    }
}
