use super::*;
use crate::testing::saves_every_bit;

const FCR: u64 = IIR_FCR;
const IIR: u64 = IIR_FCR;
const SCRATCH: u64 = 7;

/// A port, and what it sent.
struct Port {
    uart: Uart16550,
    out: Outbox,
}

impl Port {
    fn new() -> Self {
        Self {
            uart: Uart16550::new(),
            out: Outbox::default(),
        }
    }

    /// As Linux leaves it: FIFOs on with trigger 8, receive interrupts on.
    fn set_up() -> Self {
        let mut port = Self::new();
        port.write(FCR, 0x81);
        port.write(IER, IER_RECEIVED | IER_LINE_STATUS);
        port
    }

    fn write(&mut self, register: u64, value: u8) {
        self.uart.write(register, value.into(), &mut self.out);
    }

    fn read(&mut self, register: u64) -> u8 {
        self.uart.read(register) as u8
    }

    fn sent(&mut self) -> Vec<u8> {
        self.out.take_console()
    }
}

/// The steps of Linux's 8250 autoconfig that decide "is a 16550A".
#[test]
fn linux_finds_a_16550a() {
    let mut port = Port::new();
    port.write(IER, 0);
    assert_eq!(port.read(IER) & 0x0f, 0);
    port.write(IER, 0x0f);
    assert_eq!(port.read(IER), 0x0f);
    port.write(IER, 0);

    // Loopback: RTS and OUT2 come back as CTS and DCD.
    port.write(MCR, MCR_LOOP | MCR_OUT2 | MCR_RTS);
    assert_eq!(port.read(MSR) & 0xf0, 0x90);
    port.write(MCR, 0);
    assert_eq!(port.read(MSR) & 0xf0, 0xb0);

    port.write(SCRATCH, 0xa5);
    assert_eq!(port.read(SCRATCH), 0xa5);
    port.write(SCRATCH, 0x5a);
    assert_eq!(port.read(SCRATCH), 0x5a);

    assert_eq!(port.read(IIR) >> 6, 0, "FIFOs off");
    port.write(FCR, FCR_ENABLE);
    assert_eq!(port.read(IIR) >> 6, 3, "FIFOs on: a 16550A");

    // Not a 16650 (EFR at the IIR under DLAB), not a 16750 (64-byte FIFO), not an XScale (UUE).
    port.write(LCR, 0xbf);
    assert_ne!(port.read(IIR), 0);
    port.write(LCR, 0x80);
    port.write(FCR, FCR_ENABLE | 0x20);
    assert_eq!(port.read(IIR) >> 5, 6);
    port.write(LCR, 0);
    port.write(IER, 0x40);
    assert_eq!(port.read(IER), 0);
}

/// The THRE test of Linux's serial8250_do_startup: a port that fails it gets a polling timer.
#[test]
fn linux_trusts_the_thr_empty_interrupt() {
    let mut port = Port::new();
    port.write(FCR, FCR_ENABLE);
    port.write(IER, IER_THR_EMPTY);
    assert_eq!(port.read(IIR) & 0x0f, IIR_THR_EMPTY);
    port.write(IER, 0);
    port.write(IER, IER_THR_EMPTY);
    assert_eq!(port.read(IIR) & 0x0f, IIR_THR_EMPTY, "raised again");
    assert_eq!(port.read(IIR) & 0x0f, IIR_NONE, "ended by reading IIR");
    port.write(IER, 0);
    // And the one for UART_BUG_TXEN.
    port.write(IER, IER_THR_EMPTY);
    assert_eq!(port.read(LSR) & 0x60, 0x60);
    assert_eq!(port.read(IIR) & IIR_NONE, 0);
}

#[test]
fn transmission_is_driven_by_interrupts() {
    let mut port = Port::set_up();
    assert!(!port.uart.irq_level());
    port.write(IER, IER_RECEIVED | IER_THR_EMPTY);
    assert!(port.uart.irq_level());
    assert_eq!(port.read(IIR), IIR_FIFOS_ON | IIR_THR_EMPTY);
    assert!(!port.uart.irq_level());
    for byte in *b"hello" {
        port.write(DATA, byte);
    }
    assert_eq!(port.sent(), b"hello");
    assert!(port.uart.irq_level(), "empty again");
    port.write(IER, IER_RECEIVED);
    assert!(!port.uart.irq_level(), "nothing more to send");
    assert_eq!(port.read(IIR) & 0x0f, IIR_NONE);
}

#[test]
fn dlab_turns_two_registers_into_the_divisor() {
    let mut port = Port::new();
    port.write(IER, 5);
    port.write(LCR, LCR_DLAB | 3);
    port.write(DATA, 0x34);
    port.write(IER, 0x12);
    assert_eq!((port.read(DATA), port.read(IER)), (0x34, 0x12));
    port.write(LCR, 3);
    assert_eq!(port.read(IER), 5);
    assert_eq!(port.read(LCR), 3);
    assert!(port.sent().is_empty());
}

#[test]
fn received_bytes_interrupt_below_the_trigger_as_a_timeout() {
    let mut port = Port::set_up();
    assert_eq!(port.uart.push_input(b"abc"), 3);
    assert!(port.uart.irq_level());
    assert_eq!(port.read(IIR) & 0x0f, IIR_TIMEOUT);
    port.uart.push_input(b"defgh");
    assert_eq!(port.read(IIR) & 0x0f, IIR_RECEIVED, "8 are the trigger");
    let mut got = Vec::new();
    while port.read(LSR) & LSR_DATA_READY != 0 {
        got.push(port.read(DATA));
    }
    assert_eq!(got, b"abcdefgh");
    assert!(!port.uart.irq_level());
    assert_eq!(port.read(DATA), 0, "empty");
}

#[test]
fn input_waits_for_the_fifo_and_is_bounded() {
    let mut port = Port::set_up();
    let text: Vec<u8> = (0..5000).map(|i| i as u8).collect();
    assert_eq!(port.uart.push_input(&text), INPUT_QUEUE_BYTES);
    // The FIFO took 16 of them, so there is room for as many.
    assert_eq!(port.uart.input_room(), 16);
    assert_eq!(port.uart.push_input(&text[INPUT_QUEUE_BYTES..]), 16);
    assert_eq!(port.uart.input_room(), 0);
    assert_eq!(port.uart.push_input(b"x"), 0);
    let mut got = Vec::new();
    while port.read(LSR) & LSR_DATA_READY != 0 {
        got.push(port.read(DATA));
    }
    assert_eq!(got, &text[..INPUT_QUEUE_BYTES + 16]);
}

#[test]
fn without_fifos_bytes_come_one_by_one() {
    let mut port = Port::new();
    port.write(IER, IER_RECEIVED);
    port.uart.push_input(b"ab");
    assert_eq!(port.read(IIR), IIR_RECEIVED);
    assert_eq!(port.read(DATA), b'a');
    assert_eq!(port.read(DATA), b'b');
    assert_eq!(port.read(IIR), IIR_NONE);
}

#[test]
fn clearing_the_fifo_loses_what_is_in_it_only() {
    let mut port = Port::set_up();
    port.uart.push_input(b"0123456789abcdefXY");
    port.write(FCR, 0x80 | FCR_ENABLE | FCR_CLEAR_RECEIVER);
    assert_eq!((port.read(DATA), port.read(DATA)), (b'X', b'Y'));
    port.uart.push_input(b"z");
    port.write(FCR, 0);
    assert_eq!(port.read(LSR) & LSR_DATA_READY, 0, "switching empties");
}

#[test]
fn loopback_returns_bytes_and_can_overrun() {
    let mut port = Port::set_up();
    port.write(MCR, MCR_LOOP);
    for byte in 0..17 {
        port.write(DATA, byte);
    }
    assert!(port.sent().is_empty());
    port.uart.push_input(b"typed");
    assert_eq!(port.read(IIR) & 0x0f, IIR_LINE_STATUS);
    assert_eq!(port.read(LSR) & LSR_OVERRUN, LSR_OVERRUN);
    assert_eq!(port.read(LSR) & LSR_OVERRUN, 0, "read clears");
    let got: Vec<u8> = (0..16).map(|_| port.read(DATA)).collect();
    assert_eq!(got, (0..16).collect::<Vec<u8>>());
    assert_eq!(port.read(LSR) & LSR_DATA_READY, 0, "the line waits");
    port.write(MCR, 0);
    assert_eq!(port.read(DATA), b't');
}

#[test]
fn modem_lines_report_changes_once() {
    let mut port = Port::new();
    assert_eq!(port.read(MSR), 0xb0);
    port.write(IER, IER_MODEM_STATUS);
    port.write(MCR, MCR_LOOP | MCR_OUT1);
    assert_eq!(port.read(IIR), IIR_MODEM_STATUS);
    assert_eq!(port.read(MSR), MSR_RING | 0x0b, "CTS, DSR, DCD fell");
    assert_eq!(port.read(MSR), MSR_RING);
    assert!(!port.uart.irq_level());
    port.write(MCR, MCR_LOOP);
    assert_eq!(port.read(MSR), MSR_RING_ENDED);
}

#[test]
fn only_the_low_byte_counts() {
    let mut port = Port::new();
    let Port { uart, out } = &mut port;
    uart.write(SCRATCH, 0x1234_5678, out);
    assert_eq!(uart.read(SCRATCH), 0x78);
}

#[test]
fn saves() {
    let mut port = Port::set_up();
    port.write(MCR, MCR_LOOP | MCR_RTS);
    for byte in 0..20 {
        port.write(DATA, byte);
    }
    port.write(IER, 0x0f);
    port.write(SCRATCH, 3);
    port.write(LCR, 0x83);
    port.write(DATA, 1);
    port.write(IER, 2);
    port.uart.push_input(b"waiting on the line");
    let mut out = Outbox::default();
    saves_every_bit(port.uart, |uart| {
        uart.write(LCR, 3, &mut out);
        uart.write(MCR, 0, &mut out);
        for register in 0..8 {
            uart.read(register);
        }
        uart.write(DATA, 65, &mut out);
        uart.push_input(b"more");
    });
}

#[test]
fn refuses_states_that_a_port_cannot_have() {
    let good = Port::set_up().uart.save();
    type Spoil = fn(&mut UartState);
    let cases: [(&str, Spoil); 6] = [
        ("ier", |s| s.ier = 0x10),
        ("trigger", |s| s.trigger = 4),
        ("mcr", |s| s.mcr = 0x20),
        ("fifo", |s| s.fifo = vec![0; 17]),
        ("fifo while off", |s| {
            s.fifos_on = false;
            s.fifo = vec![0; 2];
        }),
        ("line", |s| s.line = vec![0; INPUT_QUEUE_BYTES + 1]),
    ];
    for (name, spoil) in cases {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(Uart16550::restore(state).is_err(), "{name}");
    }
}
