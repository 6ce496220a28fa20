//! The machine: power-on, running, outputs, reset.

use crate::boot::Boot;
use crate::config::{MachineConfig, OnReset, PowerOn};
use crate::engine::{EngineKind, fastest};
use crate::harts::{Harts, MAX_HARTS};
use crate::image::ImageKind;
use crate::loader;
use crate::output::{Halt, Output, OutputItem};
use crate::sbi::SbiEffect;
use twinvm_cpu::{AccessFault, Bus, Clock, Engine, EngineCounters, Env, Exit as CpuExit, Lines};
use twinvm_devices::virtio::{DiskRequest, NetOffloads};
use twinvm_devices::{Board, BoardConfig, BoardError, DeviceOutput, FinisherRequest, Now, map};
use twinvm_mem::{MemError, Memory};

/// Why [`Machine::run`] stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The asked step count is reached.
    Limit,
    /// The guest waits. Only a record can go on: time forward to `timer`
    /// (virtual time, ticks), or input.
    Idle {
        /// Virtual time at which the next timer is due, if one is set.
        timer: Option<u64>,
    },
    /// An [`Output`] waits in [`Machine::take_output`].
    Output,
    /// The guest has started itself again, in its last step. A run ends there because
    /// a reset costs as much as millions of steps; just call again.
    Reset,
    /// The guest has printed a lot: a step can print thousands of bytes, so a run ends before they
    /// fill the host's memory. Take them with [`Machine::take_console`] and call again.
    Console,
    /// Devices have done much for the guest: a step can cost as much as many thousands, so a run
    /// ends before it keeps its caller from everything else. Just call again.
    Devices,
    /// The machine has ended; it never runs again.
    Halted(Halt),
}

/// A machine cannot be made as configured.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// RAM.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// What it boots from.
    #[error(transparent)]
    Load(#[from] loader::LoadError),
    /// Devices.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The device tree doesn't fit.
    #[error("device tree: {0}")]
    DeviceTree(String),
    /// No harts, or too many.
    #[error("harts = {0}: expected 1 to {MAX_HARTS}")]
    Harts(u32),
}

/// Text of the guest's at which a run ends. One step more can add 16 MiB to it: a virtio console's
/// whole queue.
const CONSOLE_BYTES: usize = 1 << 20;

/// A virtual machine.
pub struct Machine {
    pub(crate) config: MachineConfig,
    pub(crate) power_on: PowerOn,
    pub(crate) mem: Memory,
    pub(crate) harts: Harts,
    pub(crate) board: Board,
    pub(crate) clock: Clock,
    pub(crate) icount: u64,
    pub(crate) halted: Option<Halt>,
    pub(crate) engine: Engine,
    pub(crate) engine_kind: EngineKind,
    pub(crate) output: Option<Output>,
    pub(crate) console: Vec<u8>,
}

/// The devices as the hart sees them.
pub(crate) struct BoardBus<'a>(pub(crate) &'a mut Board);

impl Bus for BoardBus<'_> {
    fn read(&mut self, pa: u64, size: usize, mtime: u64) -> Result<u64, AccessFault> {
        self.0
            .read(pa, size, Now { mtime })
            .map_err(|_| AccessFault)
    }

    fn write(
        &mut self,
        mem: &mut Memory,
        pa: u64,
        size: usize,
        value: u64,
        mtime: u64,
    ) -> Result<(), AccessFault> {
        self.0
            .write(mem, pa, size, value, Now { mtime })
            .map_err(|_| AccessFault)
    }

    fn fetch(&self, pa: u64) -> Option<u16> {
        let offset = pa.checked_sub(map::ROM_BASE)?;
        if offset >= map::ROM_SIZE {
            return None;
        }
        let at = offset as usize;
        let byte = |at: usize| self.0.rom().get(at).copied().unwrap_or(0);
        Some(u16::from_le_bytes([byte(at), byte(at + 1)]))
    }

    fn lines(&self, hart: u64) -> Lines {
        let hart = hart as usize;
        let lines = self.0.interrupt_lines(hart);
        Lines {
            msip: lines.msip,
            meip: lines.meip,
            seip: lines.seip,
            mtimecmp: self.0.mtimecmp(hart),
            alarm: self.0.alarm_deadline().unwrap_or(u64::MAX),
        }
    }

    fn alarm(&mut self, mtime: u64) {
        self.0.update_time(Now { mtime });
    }

    fn attention(&self) -> bool {
        self.0.has_outputs()
    }
}

impl Machine {
    /// A machine at power-on: images loaded, the hart at its first instruction.
    pub fn new(config: MachineConfig, power_on: PowerOn) -> Result<Self, MachineError> {
        if !(1..=MAX_HARTS).contains(&(config.harts as usize)) {
            return Err(MachineError::Harts(config.harts));
        }
        let mut mem = Memory::new(config.ram_bytes)?;
        let boot = Boot::new(&config, &power_on)?;
        let board = Board::new(&Self::board_config(&config, &power_on), boot.rom())?;
        boot.load(&config, &mut mem)?;
        let (engine, engine_kind) = fastest(&mut mem);
        Ok(Self {
            mem,
            harts: boot.harts(config.harts),
            board,
            clock: Clock {
                icount: 0,
                mtime: 0,
                rate: 0,
                span: 0,
            },
            icount: 0,
            halted: None,
            engine,
            engine_kind,
            output: None,
            console: Vec::new(),
            config,
            power_on,
        })
    }

    pub(crate) fn board_config(config: &MachineConfig, power_on: &PowerOn) -> BoardConfig {
        BoardConfig {
            harts: config.harts as usize,
            slots: config.slots.clone(),
            rtc_base_ns: power_on.rtc_base_ns,
        }
    }

    /// Runs until the step counter is `until`, or something needs the caller.
    /// Exact: at [`Exit::Limit`], [`Machine::icount`] is `until`.
    ///
    /// Next hop for what the guest sends: [`Machine::take_output`].
    pub fn run(&mut self, until: u64) -> Exit {
        let builtin_sbi = !self.config.images.has(ImageKind::Firmware);
        // Where a run ends doesn't depend on the ones before.
        self.board.take_work();
        loop {
            if self.output.is_some() {
                return Exit::Output;
            }
            if let Some(halt) = self.halted {
                return Exit::Halted(halt);
            }
            let mut bus = BoardBus(&mut self.board);
            let mut env = Env {
                mem: &mut self.mem,
                bus: &mut bus,
                clock: self.clock,
                icount: self.icount,
                builtin_sbi,
            };
            let several = self.harts.are_several();
            if several && env.icount < until && !self.harts.choose(&self.engine, &mut env) {
                return Exit::Idle {
                    timer: self.harts.next_timer(&self.engine, &env),
                };
            }
            let limit = until.min(self.harts.turn_end());
            let exit = self.engine.run(self.harts.running_mut(), &mut env, limit);
            let timer = match exit {
                CpuExit::Idle if !several => self.harts.next_timer(&self.engine, &env),
                _ => None,
            };
            self.icount = env.icount;
            let mut worked = false;
            match exit {
                CpuExit::Limit if self.icount >= until => return Exit::Limit,
                CpuExit::Idle if !several => return Exit::Idle { timer },
                // The turn is over.
                CpuExit::Limit | CpuExit::Idle => {}
                CpuExit::Yield => self.harts.yield_turn(self.icount),
                CpuExit::Attention => {
                    worked = self.board.take_work();
                    if self.collect_outputs() {
                        return Exit::Reset;
                    }
                }
                CpuExit::Sbi => match self.sbi_call() {
                    SbiEffect::None => {}
                    SbiEffect::Suspend | SbiEffect::SuspendTo { .. } => self.harts.suspend(),
                    SbiEffect::PowerOff => self.halt(Halt::PowerOff),
                    SbiEffect::Reset => {
                        if self.reset_request() {
                            return Exit::Reset;
                        }
                    }
                },
            }
            if self.console.len() >= CONSOLE_BYTES {
                return Exit::Console;
            }
            if worked && self.output.is_none() && self.halted.is_none() {
                return Exit::Devices;
            }
        }
    }

    /// Takes what the devices have; true if the machine has started again.
    fn collect_outputs(&mut self) -> bool {
        let items: Vec<OutputItem> = self
            .board
            .take_outputs()
            .into_iter()
            .map(|output| match output {
                DeviceOutput::Frame { device, bytes } => OutputItem::Frame { device, bytes },
            })
            .collect();
        self.console.extend(self.board.take_console());
        if !items.is_empty() {
            self.output = Some(Output {
                icount: self.icount,
                items,
            });
        }
        match self.board.take_finisher_request() {
            Some(FinisherRequest::Pass) => self.halt(Halt::PowerOff),
            Some(FinisherRequest::Fail(code)) => self.halt(Halt::Fail(code)),
            Some(FinisherRequest::Reset) => return self.reset_request(),
            None => {}
        }
        false
    }

    /// True if the machine has started again.
    fn reset_request(&mut self) -> bool {
        match self.config.on_reset {
            OnReset::Exit => self.halt(Halt::Reset),
            OnReset::Restart => self.reset(),
        }
        self.halted.is_none()
    }

    /// Starts again inside the guest's own step: step count and virtual time go
    /// on, RAM is zeroed and the images are loaded from the machine's own copy.
    pub(crate) fn reset(&mut self) {
        self.mem.clear();
        self.board.reset();
        let loaded = Boot::new(&self.config, &self.power_on).and_then(|boot| {
            boot.load(&self.config, &mut self.mem)?;
            Ok(boot.harts(self.config.harts))
        });
        // The same configuration was good at power-on.
        match loaded {
            Ok(mut harts) => {
                harts.follow(&self.harts, self.icount);
                self.harts = harts;
            }
            Err(error) => unreachable!("a configuration that powered on must reset: {error}"),
        }
    }

    fn halt(&mut self, halt: Halt) {
        self.halted = Some(halt);
        let icount = self.icount;
        self.output
            .get_or_insert(Output {
                icount,
                items: Vec::new(),
            })
            .items
            .push(OutputItem::Halt(halt));
    }

    /// Takes the output that [`Exit::Output`] announced. The machine does not run
    /// on before it is taken.
    ///
    /// Next hop: the replica, which logs it and puts it into the output gate.
    pub fn take_output(&mut self) -> Option<Output> {
        self.output.take()
    }

    /// Takes what the guest printed on its consoles since the last call.
    pub fn take_console(&mut self) -> Vec<u8> {
        self.console.extend(self.board.take_console());
        std::mem::take(&mut self.console)
    }

    /// Steps since power-on.
    pub fn icount(&self) -> u64 {
        self.icount
    }

    /// Virtual time now, in ticks of 100 ns.
    pub fn mtime(&self) -> u64 {
        self.clock.mtime(self.icount)
    }

    /// The current anchor.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// The configuration.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// What was drawn at power-on.
    pub fn power_on(&self) -> &PowerOn {
        &self.power_on
    }

    /// Why the machine has ended, if it has.
    pub fn halted(&self) -> Option<Halt> {
        self.halted
    }

    /// Program counter of the next instruction of the hart that has the turn.
    pub fn pc(&self) -> u64 {
        self.harts.running().pc()
    }

    /// Bytes of RAM at physical address `pa`; `None` if they don't all lie there.
    pub fn ram(&self, pa: u64, bytes: usize) -> Option<&[u8]> {
        self.mem.slice(pa, bytes).ok()
    }

    /// RAM that has been written to: 4096 bytes for each page that anybody has stored to since
    /// power-on or reset (the guest, a device, the loader of its files), also if it is all zero
    /// again. After a restore it begins with the pages that the snapshot holds. For reports: not
    /// part of snapshots or digests, and the guest never sees it.
    pub fn ram_touched_bytes(&self) -> u64 {
        self.mem.touched_bytes()
    }

    /// A cheap 16-bit tell-tale over pc and registers of the hart that has the turn, for anchors.
    pub fn tell_tale(&self) -> u16 {
        self.harts.running().tell_tale()
    }

    /// Whether a frame for the device in this slot has room; if not, the host
    /// drops it before it is logged.
    pub fn net_room(&self, device: u8) -> bool {
        self.board.net_room(device)
    }

    /// What the guest does by itself with frames from the device in this slot: which headers
    /// frames for it may carry.
    pub fn net_offloads(&self, device: u8) -> NetOffloads {
        self.board.net_offloads(device)
    }

    /// How many bytes of input the serial console takes now.
    pub fn console_room(&self) -> usize {
        self.board.console_room()
    }

    /// How many bytes of input the virtio console in this slot takes now: none before the guest's
    /// driver runs it.
    pub fn port_room(&self, device: u8) -> usize {
        self.board.port_room(device)
    }

    /// Slot and length of an entropy request that waits for a record.
    pub fn entropy_wanted(&self) -> Option<(u8, usize)> {
        self.board.entropy_wanted()
    }

    /// The disk requests that are in flight, from the numbers `since` on: one for each virtio
    /// slot, which then are such that the same call gives only newer requests. All zero gives
    /// every request, as the driver of a restored machine needs it.
    ///
    /// Requests leave at once and not as output: what a disk holds is part of the machine. Whoever
    /// replays leaves them alone, the log has their results.
    ///
    /// Next hop: the host's disks, whose answers come back as `BlockDone` records.
    pub fn disk_requests(&self, since: &mut [u64; map::VIRTIO_SLOTS]) -> Vec<DiskRequest> {
        self.board.disk_requests(since)
    }

    /// Throws away all derived state of the engine. The guest never notices.
    pub fn flush_engine(&mut self) {
        self.engine.flush(&mut self.mem);
    }

    /// What the engine did so far, for reports.
    pub fn engine_counters(&self) -> EngineCounters {
        self.engine.counters()
    }
}
