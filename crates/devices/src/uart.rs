//! The serial console: a 16550A of our own, one byte per register, level-triggered interrupt.
//!
//! Registers and interrupt priorities are those of the 16550 data sheet. Two things differ from a
//! chip on a wire, because there is no wire and time is virtual:
//!
//! - The transmitter is infinitely fast: a byte leaves in the step that writes it, THRE and TEMT
//!   are always set, and the THR-empty interrupt is raised again by that same write.
//! - The receiver never overruns: bytes wait in a queue of fixed size in device state (the "line")
//!   and enter the receive FIFO as soon as it has room. The character timeout, which would need
//!   time, is reported at once: any byte below the trigger level counts as timed out.
//!
//! While loopback is on the line waits, and what the guest sends comes back into its own receiver;
//! there an overrun is possible, as on the chip.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::Outbox;
use crate::persist::{Persist, StateError, at_most, length};

#[cfg(test)]
mod tests;

/// Bytes that may wait for the guest; when it is full the host keeps further input to itself before
/// it is logged. Enough for a pasted page of text.
pub const INPUT_QUEUE_BYTES: usize = 4096;

const FIFO_BYTES: usize = 16;
/// Receive trigger levels by FCR bits 7–6.
const TRIGGER_LEVELS: [usize; 4] = [1, 4, 8, 14];

const DATA: u64 = 0;
const IER: u64 = 1;
const IIR_FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;

const IER_RECEIVED: u8 = 0x01;
const IER_THR_EMPTY: u8 = 0x02;
const IER_LINE_STATUS: u8 = 0x04;
const IER_MODEM_STATUS: u8 = 0x08;
const IER_MASK: u8 = 0x0f;

const IIR_NONE: u8 = 0x01;
const IIR_MODEM_STATUS: u8 = 0x00;
const IIR_THR_EMPTY: u8 = 0x02;
const IIR_RECEIVED: u8 = 0x04;
const IIR_LINE_STATUS: u8 = 0x06;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_FIFOS_ON: u8 = 0xc0;

const FCR_ENABLE: u8 = 0x01;
const FCR_CLEAR_RECEIVER: u8 = 0x02;

const LCR_DLAB: u8 = 0x80;

const MCR_DTR: u8 = 0x01;
const MCR_RTS: u8 = 0x02;
const MCR_OUT1: u8 = 0x04;
const MCR_OUT2: u8 = 0x08;
const MCR_LOOP: u8 = 0x10;
const MCR_MASK: u8 = 0x1f;

const LSR_DATA_READY: u8 = 0x01;
const LSR_OVERRUN: u8 = 0x02;
const LSR_TRANSMITTER_EMPTY: u8 = 0x60;

const MSR_CTS: u8 = 0x10;
const MSR_DSR: u8 = 0x20;
const MSR_RING: u8 = 0x40;
const MSR_CARRIER: u8 = 0x80;
const MSR_LINES: u8 = 0xf0;
const MSR_DELTAS: u8 = 0x0f;
const MSR_RING_ENDED: u8 = 0x04;
/// The far side is always there and ready.
const MSR_CONNECTED: u8 = MSR_CTS | MSR_DSR | MSR_CARRIER;

/// The serial port.
#[derive(Debug)]
pub struct Uart16550 {
    ier: u8,
    /// FCR bits 7–6, and whether the FIFOs are on.
    trigger: u8,
    fifos_on: bool,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: [u8; 2],
    /// A received byte was lost (loopback only); read-clears.
    overrun: bool,
    /// MSR bits 7–4 as last seen and the deltas since the guest last read them.
    msr: u8,
    /// The transmitter became empty and the guest has not yet been told.
    thr_empty_pending: bool,
    fifo: VecDeque<u8>,
    line: VecDeque<u8>,
}

/// The saved form of [`Uart16550`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UartState {
    /// Interrupt enable register.
    pub ier: u8,
    /// Receive trigger, bits 7–6 of FCR as a number.
    pub trigger: u8,
    /// FIFOs enabled.
    pub fifos_on: bool,
    /// Line control register.
    pub lcr: u8,
    /// Modem control register.
    pub mcr: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Divisor latch, low byte first.
    pub divisor: [u8; 2],
    /// Overrun error.
    pub overrun: bool,
    /// Modem status register.
    pub msr: u8,
    /// THR-empty interrupt pending.
    pub thr_empty_pending: bool,
    /// Receive FIFO, oldest first.
    pub fifo: Vec<u8>,
    /// Input that waits for room in the FIFO, oldest first.
    pub line: Vec<u8>,
}

impl Default for Uart16550 {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart16550 {
    /// A port after power-on.
    pub fn new() -> Self {
        Self {
            ier: 0,
            trigger: 0,
            fifos_on: false,
            lcr: 0,
            mcr: 0,
            scratch: 0,
            divisor: [0; 2],
            overrun: false,
            msr: MSR_CONNECTED,
            thr_empty_pending: false,
            fifo: VecDeque::new(),
            line: VecDeque::new(),
        }
    }

    /// Power-on state; input that waits is lost.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// Bytes that [`push_input`](Self::push_input) would take now. The host looks before it logs
    /// console input and keeps the rest.
    pub fn input_room(&self) -> usize {
        INPUT_QUEUE_BYTES - self.line.len()
    }

    /// Receives typed bytes and says how many were taken: those beyond
    /// [`input_room`](Self::input_room) are dropped, the same on every node.
    pub fn push_input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.input_room());
        self.line.extend(&bytes[..taken]);
        self.refill();
        taken
    }

    /// The interrupt line.
    #[inline]
    pub fn irq_level(&self) -> bool {
        self.interrupt() != IIR_NONE
    }

    /// Reads a register; of an access of any size only the low byte carries data.
    pub fn read(&mut self, offset: u64) -> u64 {
        let value = match offset {
            DATA if self.dlab() => self.divisor[0],
            DATA => self.receive(),
            IER if self.dlab() => self.divisor[1],
            IER => self.ier,
            IIR_FCR => self.identify_interrupt(),
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => self.line_status(),
            MSR => {
                let value = self.msr;
                self.msr &= !MSR_DELTAS;
                value
            }
            _ => self.scratch,
        };
        u64::from(value)
    }

    /// Writes a register; of an access of any size only the low byte counts. Next hop of a
    /// transmitted byte: the outbox, which the machine empties after the access.
    pub fn write(&mut self, offset: u64, value: u64, out: &mut Outbox) {
        let value = value as u8;
        match offset {
            DATA if self.dlab() => self.divisor[0] = value,
            DATA => self.transmit(value, out),
            IER if self.dlab() => self.divisor[1] = value,
            IER => self.enable_interrupts(value & IER_MASK),
            IIR_FCR => self.control_fifos(value),
            LCR => self.lcr = value,
            MCR => self.control_modem(value & MCR_MASK),
            LSR | MSR => {}
            _ => self.scratch = value,
        }
    }

    fn dlab(&self) -> bool {
        self.lcr & LCR_DLAB != 0
    }

    fn looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    fn capacity(&self) -> usize {
        if self.fifos_on { FIFO_BYTES } else { 1 }
    }

    /// The most urgent enabled interrupt, as IIR bits 3–0.
    fn interrupt(&self) -> u8 {
        let enabled = |bit| self.ier & bit != 0;
        if enabled(IER_LINE_STATUS) && self.overrun {
            IIR_LINE_STATUS
        } else if enabled(IER_RECEIVED) && !self.fifo.is_empty() {
            let trigger = TRIGGER_LEVELS[usize::from(self.trigger & 3)];
            if !self.fifos_on || self.fifo.len() >= trigger {
                IIR_RECEIVED
            } else {
                IIR_TIMEOUT
            }
        } else if enabled(IER_THR_EMPTY) && self.thr_empty_pending {
            IIR_THR_EMPTY
        } else if enabled(IER_MODEM_STATUS) && self.msr & MSR_DELTAS != 0 {
            IIR_MODEM_STATUS
        } else {
            IIR_NONE
        }
    }

    /// IIR: reading it ends a THR-empty interrupt, if that is the one reported.
    fn identify_interrupt(&mut self) -> u8 {
        let interrupt = self.interrupt();
        if interrupt == IIR_THR_EMPTY {
            self.thr_empty_pending = false;
        }
        interrupt | if self.fifos_on { IIR_FIFOS_ON } else { 0 }
    }

    /// LSR: reading it clears the error bits.
    fn line_status(&mut self) -> u8 {
        let mut value = LSR_TRANSMITTER_EMPTY;
        if !self.fifo.is_empty() {
            value |= LSR_DATA_READY;
        }
        if std::mem::take(&mut self.overrun) {
            value |= LSR_OVERRUN;
        }
        value
    }

    fn receive(&mut self) -> u8 {
        let byte = self.fifo.pop_front().unwrap_or(0);
        self.refill();
        byte
    }

    /// Moves waiting input into the receive FIFO.
    fn refill(&mut self) {
        if self.looped() {
            return;
        }
        while self.fifo.len() < self.capacity() {
            let Some(byte) = self.line.pop_front() else {
                break;
            };
            self.fifo.push_back(byte);
        }
    }

    fn transmit(&mut self, byte: u8, out: &mut Outbox) {
        self.thr_empty_pending = true;
        if !self.looped() {
            out.push_console(byte);
        } else if self.fifo.len() < self.capacity() {
            self.fifo.push_back(byte);
        } else {
            self.overrun = true;
            if !self.fifos_on {
                self.fifo[0] = byte;
            }
        }
    }

    /// IER: enabling the THR-empty interrupt raises it, since the transmitter is empty; Linux
    /// starts every transmission this way. Disabling it forgets it.
    fn enable_interrupts(&mut self, value: u8) {
        if (self.ier ^ value) & IER_THR_EMPTY != 0 {
            self.thr_empty_pending = value & IER_THR_EMPTY != 0;
        }
        self.ier = value;
    }

    /// FCR: switching the FIFOs on or off empties them; the other bits count only when they are
    /// on.
    fn control_fifos(&mut self, value: u8) {
        let on = value & FCR_ENABLE != 0;
        let switched = on != self.fifos_on;
        if switched || (on && value & FCR_CLEAR_RECEIVER != 0) {
            self.fifo.clear();
        }
        self.fifos_on = on;
        self.trigger = if on { value >> 6 } else { 0 };
        self.refill();
    }

    /// MCR: in loopback its outputs are the modem status inputs.
    fn control_modem(&mut self, value: u8) {
        self.mcr = value;
        let lines = if self.looped() {
            [
                (MCR_RTS, MSR_CTS),
                (MCR_DTR, MSR_DSR),
                (MCR_OUT1, MSR_RING),
                (MCR_OUT2, MSR_CARRIER),
            ]
            .into_iter()
            .filter(|(output, _)| value & output != 0)
            .fold(0, |lines, (_, input)| lines | input)
        } else {
            MSR_CONNECTED
        };
        let changed = (self.msr ^ lines) & MSR_LINES;
        // The ring indicator reports only its trailing edge.
        let mut deltas = (changed & !MSR_RING) >> 4;
        if changed & MSR_RING != 0 && lines & MSR_RING == 0 {
            deltas |= MSR_RING_ENDED;
        }
        self.msr = lines | (self.msr & MSR_DELTAS) | deltas;
        self.refill();
    }
}

impl Persist for Uart16550 {
    type State = UartState;

    fn save(&self) -> UartState {
        UartState {
            ier: self.ier,
            trigger: self.trigger,
            fifos_on: self.fifos_on,
            lcr: self.lcr,
            mcr: self.mcr,
            scratch: self.scratch,
            divisor: self.divisor,
            overrun: self.overrun,
            msr: self.msr,
            thr_empty_pending: self.thr_empty_pending,
            fifo: self.fifo.iter().copied().collect(),
            line: self.line.iter().copied().collect(),
        }
    }

    fn restore(state: UartState) -> Result<Self, StateError> {
        at_most("uart.ier", state.ier, IER_MASK)?;
        at_most("uart.trigger", state.trigger, 3u8)?;
        at_most("uart.mcr", state.mcr, MCR_MASK)?;
        let capacity = if state.fifos_on { FIFO_BYTES } else { 1 };
        length("uart.fifo", state.fifo.len(), 0, capacity)?;
        length("uart.line", state.line.len(), 0, INPUT_QUEUE_BYTES)?;
        Ok(Self {
            ier: state.ier,
            trigger: state.trigger,
            fifos_on: state.fifos_on,
            lcr: state.lcr,
            mcr: state.mcr,
            scratch: state.scratch,
            divisor: state.divisor,
            overrun: state.overrun,
            msr: state.msr,
            thr_empty_pending: state.thr_empty_pending,
            fifo: state.fifo.into(),
            line: state.line.into(),
        })
    }
}
