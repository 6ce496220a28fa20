//! What a test starts from, and every way to run it: in one go, in slices of
//! many lengths, with all derived state thrown away, hashed or restored between.
//! A program must be the same under each way, at every step where two ways stop.

use crate::asm::Asm;
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use twinvm_cpu::tier::CodeListener;
use twinvm_cpu::{
    AccessFault, Bus, CSR_NAMES, Clock, Engine, Env, Exit, Hart, HartState, Lines, Mode,
};
use twinvm_mem::{Memory, MemoryDigest, RAM_BASE, state};

pub(crate) const RAM_BYTES: u64 = 1 << 20;
/// Where programs start.
pub(crate) const CODE: u64 = RAM_BASE;
/// Where traps to M go by default; the handler there spins.
pub(crate) const M_HANDLER: u64 = RAM_BASE + 0x8000;
/// Where traps to S go by default; the handler there spins.
pub(crate) const S_HANDLER: u64 = RAM_BASE + 0x9000;
/// Some RAM for data.
pub(crate) const DATA: u64 = RAM_BASE + 0x2_0000;
/// A 32-bit word that is no instruction.
pub(crate) const ILLEGAL: u32 = 0xffff_ffff;
/// Registers of the test device (8 bytes each): 0 counts reads, 1 interrupt
/// lines (bit 0 msip, 1 meip, 2 seip), 2 mtimecmp, 3 alarm, 4 attention,
/// 5 DMA: the value written goes to the address in 6.
pub(crate) const DEVICE: u64 = 0x1000_0000;

/// Where the test device has a ROM, for fetches only.
pub(crate) const ROM: u64 = 0x1000;

/// A device that shows all that the contract of [`Bus`] allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) reads: u64,
    pub(crate) lines: u64,
    pub(crate) mtimecmp: u64,
    pub(crate) alarm: u64,
    pub(crate) attention: bool,
    pub(crate) dma: u64,
    /// What can be fetched from [`ROM`].
    pub(crate) rom: Vec<u8>,
    /// What happened: (mtime, what, value).
    pub(crate) log: Vec<(u64, u64, u64)>,
}

impl Default for Device {
    fn default() -> Self {
        Self {
            reads: 0,
            lines: 0,
            mtimecmp: u64::MAX,
            alarm: u64::MAX,
            attention: false,
            dma: 0,
            rom: Vec::new(),
            log: Vec::new(),
        }
    }
}

impl Bus for Device {
    fn read(&mut self, pa: u64, _: usize, mtime: u64) -> Result<u64, AccessFault> {
        let value = match pa.checked_sub(DEVICE) {
            Some(0) => {
                self.reads += 1;
                self.reads
            }
            Some(8) => self.lines,
            Some(16) => self.mtimecmp,
            _ => return Err(AccessFault),
        };
        self.log.push((mtime, pa, value));
        Ok(value)
    }

    fn write(
        &mut self,
        mem: &mut Memory,
        pa: u64,
        size: usize,
        value: u64,
        mtime: u64,
    ) -> Result<(), AccessFault> {
        match pa.checked_sub(DEVICE) {
            Some(8) => self.lines = value,
            Some(16) => self.mtimecmp = value,
            Some(24) => self.alarm = value,
            Some(32) => self.attention = true,
            Some(40) => mem
                .store(self.dma, &value.to_le_bytes()[..size])
                .map_err(|_| AccessFault)?,
            Some(48) => self.dma = value,
            _ => return Err(AccessFault),
        }
        self.log.push((mtime, pa, value));
        Ok(())
    }

    fn fetch(&self, pa: u64) -> Option<u16> {
        let at = usize::try_from(pa.checked_sub(ROM)?).ok()?;
        Some(u16::from_le_bytes(
            self.rom.get(at..)?.first_chunk().copied()?,
        ))
    }

    fn lines(&self, _: u64) -> Lines {
        Lines {
            msip: self.lines & 1 != 0,
            meip: self.lines & 2 != 0,
            seip: self.lines & 4 != 0,
            mtimecmp: self.mtimecmp,
            alarm: self.alarm,
        }
    }

    fn alarm(&mut self, mtime: u64) {
        self.log.push((mtime, 0, 0));
        self.alarm = u64::MAX;
        self.lines ^= 1;
        self.attention = true;
    }

    fn attention(&self) -> bool {
        self.attention
    }
}

/// What comes from outside at an exact step count.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// DMA.
    Store(u64, Vec<u8>),
    /// An anchor.
    Clock(Clock),
    /// Interrupt lines.
    Lines(u64),
}

/// The start of a test.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) hart: HartState,
    pub(crate) ram: Vec<(u64, Vec<u8>)>,
    pub(crate) clock: Clock,
    pub(crate) device: Device,
    pub(crate) icount: u64,
    pub(crate) builtin_sbi: bool,
    /// In order of their step counts.
    pub(crate) events: Vec<(u64, Event)>,
}

/// A clock of one tick per step.
pub(crate) const CLOCK: Clock = Clock {
    icount: 0,
    mtime: 0,
    rate: 1 << 32,
    span: u64::MAX,
};

impl World {
    /// M-mode at [`CODE`], which holds what `program` writes and then spins.
    pub(crate) fn new(program: impl FnOnce(&mut Asm)) -> Self {
        let mut world = Self {
            hart: Hart::new(0, CODE).save(),
            ram: Vec::new(),
            clock: CLOCK,
            device: Device::default(),
            icount: 0,
            builtin_sbi: false,
            events: Vec::new(),
        };
        world.set_csr("mtvec", M_HANDLER);
        // All memory open to S and U.
        world.set_csr("pmpcfg0", 0x1f).set_csr("pmpaddr0", !0 >> 10);
        world.set_csr("stvec", S_HANDLER);
        world.set_csr("mstatus", world.csr("mstatus") | 1 << 13);
        world.code(CODE, program);
        world.code(M_HANDLER, |_| {});
        world.code(S_HANDLER, |_| {});
        world
    }

    /// Puts code at an address, with an endless loop behind it.
    pub(crate) fn code(&mut self, at: u64, program: impl FnOnce(&mut Asm)) -> &mut Self {
        let mut asm = Asm::at(at);
        program(&mut asm);
        asm.op(crate::asm::SPIN);
        self.ram.push((at, asm.bytes));
        self
    }

    pub(crate) fn word(&mut self, at: u64, value: u64) -> &mut Self {
        self.ram.push((at, value.to_le_bytes().to_vec()));
        self
    }

    pub(crate) fn csr(&self, name: &str) -> u64 {
        csr(&self.hart, name)
    }

    pub(crate) fn set_csr(&mut self, name: &str, value: u64) -> &mut Self {
        // UXL and SXL cannot be other than 64.
        let fixed = if name == "mstatus" { 0xa << 32 } else { 0 };
        self.hart.csrs[csr_index(name)] = value | fixed;
        self
    }

    pub(crate) fn set_x(&mut self, n: usize, value: u64) -> &mut Self {
        self.hart.x[n - 1] = value;
        self
    }

    pub(crate) fn mode(&mut self, mode: Mode) -> &mut Self {
        self.hart.mode = mode;
        self
    }

    /// Runs in every way and compares; hands the end over to `verify`.
    pub(crate) fn check(&self, steps: u64, verify: impl FnOnce(&After)) {
        let until = self.icount + steps;
        let reference = Run::new(self, WAYS[0]).go(until);
        self.compare(&WAYS[1..], until, &reference, "");
        verify(&reference);
    }

    /// Runs in these ways, too. An engine has one way after the other and forgets all
    /// between, as long as it is of the same kind: it must be like a new one.
    pub(crate) fn compare(&self, ways: &[Way], until: u64, reference: &After, case: &str) {
        let mut used: Option<(Tier, Engine)> = None;
        for way in ways {
            let same = |(tier, _): &(Tier, Engine)| tier.translates() == way.2.translates();
            let engine = used.take().filter(same).map(|(_, engine)| engine);
            let after = Run::with(self, *way, engine).go(until);
            after.compare(reference, case);
            used = Some((way.2, after.engine));
        }
    }
}

fn csr_index(name: &str) -> usize {
    let found = CSR_NAMES.iter().position(|n| *n == name);
    found.unwrap_or_else(|| panic!("no CSR {name} in a hart's state"))
}

pub(crate) fn csr(hart: &HartState, name: &str) -> u64 {
    hart.csrs[csr_index(name)]
}

/// Where a run is cut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    Never,
    Every(u64),
    Random(u64),
}

/// What is done to the engine where a run is cut. None of it may matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Between {
    Nothing,
    Flush,
    Digest,
    Restore,
}

/// What runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    Interpreter,
    /// Blocks are translated when they have been entered this often.
    Translated(u8),
}
use Tier::{Interpreter, Translated};

impl Tier {
    fn translates(self) -> bool {
        matches!(self, Translated(_))
    }

    /// An engine that knows nothing of this memory: one of this kind, or a new one.
    fn fresh(self, memory: &mut Memory, used: Option<Engine>) -> Engine {
        let Some(mut engine) = used else {
            return self.engine(memory);
        };
        engine.flush(memory);
        if let Translated(hot_at) = self {
            engine.set_hot_at(Some(hot_at));
        }
        engine
    }

    pub(crate) fn engine(self, memory: &mut Memory) -> Engine {
        let mut engine = Engine::new();
        if let Translated(hot_at) = self {
            let tier = twinvm_jit::tier(RAM_BYTES).expect("memory for code");
            engine.set_tier(memory, tier, hot_at);
        }
        engine
    }

    /// Goes on from a snapshot. As in a machine's, pages that nobody has stored to are
    /// left out. The engine is a new one each time at first, then now and then, for to make
    /// one takes as long as thousands of steps; else it forgets all it knows. `restores`
    /// counts.
    pub(crate) fn restore(self, memory: &mut Memory, engine: &mut Engine, restores: &mut u32) {
        let mut fresh = Memory::new(RAM_BYTES).expect("a RAM size");
        for page in 0..memory.pages() {
            if memory.page_state(page) & state::FRESH == 0 {
                let bytes = memory.page(page).expect("the page is RAM");
                assert!(fresh.restore_page(page as u32, bytes));
            }
        }
        engine.flush(memory);
        *memory = fresh;
        if *restores < 16 || restores.is_multiple_of(16) {
            *engine = self.engine(memory);
        }
        *restores += 1;
    }
}

/// One way to run.
pub(crate) type Way = (Cut, Between, Tier);

/// The first is the reference: nothing derived lives longer than a step.
pub(crate) const WAYS: [Way; 15] = [
    (Cut::Every(1), Between::Flush, Interpreter),
    (Cut::Never, Between::Nothing, Interpreter),
    (Cut::Every(1), Between::Nothing, Interpreter),
    (Cut::Every(2), Between::Restore, Interpreter),
    (Cut::Every(3), Between::Digest, Interpreter),
    (Cut::Every(5), Between::Flush, Interpreter),
    (Cut::Every(64), Between::Digest, Interpreter),
    (Cut::Random(1), Between::Nothing, Interpreter),
    (Cut::Never, Between::Nothing, Translated(0)),
    (Cut::Every(1), Between::Nothing, Translated(0)),
    (Cut::Every(3), Between::Digest, Translated(0)),
    (Cut::Every(64), Between::Restore, Translated(0)),
    (Cut::Random(1), Between::Nothing, Translated(1)),
    (Cut::Random(2), Between::Flush, Translated(0)),
    (Cut::Random(3), Between::Digest, Translated(2)),
];

/// The end of a run, and what it passed.
pub(crate) struct After {
    pub(crate) way: Way,
    pub(crate) hart: HartState,
    pub(crate) device: Device,
    pub(crate) icount: u64,
    pub(crate) exit: Exit,
    pub(crate) memory: Memory,
    pub(crate) engine: Engine,
    digest: MemoryDigest,
    /// The hart at each step where the run was cut.
    trace: BTreeMap<u64, HartState>,
    exits: Vec<(u64, Exit)>,
}

impl After {
    pub(crate) fn x(&self, n: usize) -> u64 {
        if n == 0 { 0 } else { self.hart.x[n - 1] }
    }

    pub(crate) fn csr(&self, name: &str) -> u64 {
        csr(&self.hart, name)
    }

    /// Steps at which the engine asked for attention or an SBI call, or yielded.
    pub(crate) fn exits(&self) -> &[(u64, Exit)] {
        &self.exits
    }

    pub(crate) fn word(&self, pa: u64) -> u64 {
        self.memory.load_u64(pa).expect("the address is RAM")
    }

    /// Panics at the first difference; `case` says how to get it again.
    pub(crate) fn compare(&self, reference: &After, case: &str) {
        let way = self.way;
        for (at, hart) in &self.trace {
            if let Some(want) = reference.trace.get(at) {
                assert_eq!(hart, want, "hart after step {at} run as {way:?} {case}");
            }
        }
        assert_eq!(self.icount, reference.icount, "steps, {way:?} {case}");
        assert_eq!(self.exit, reference.exit, "exit, {way:?} {case}");
        assert_eq!(self.exits, reference.exits, "exits, {way:?} {case}");
        assert_eq!(self.device, reference.device, "device, {way:?} {case}");
        if self.digest != reference.digest {
            let pages = (0..self.memory.pages())
                .filter(|p| self.memory.page(*p) != reference.memory.page(*p))
                .collect::<Vec<_>>();
            panic!("RAM pages {pages:?} differ, {way:?} {case}");
        }
    }
}

/// A world being run.
pub(crate) struct Run {
    way: Way,
    hart: Hart,
    memory: Memory,
    device: Device,
    engine: Engine,
    clock: Clock,
    icount: u64,
    builtin_sbi: bool,
    events: std::vec::IntoIter<(u64, Event)>,
    rng: Rng,
    restores: u32,
    trace: BTreeMap<u64, HartState>,
    exits: Vec<(u64, Exit)>,
}

impl Run {
    pub(crate) fn new(world: &World, way: Way) -> Self {
        Self::with(world, way, None)
    }

    fn with(world: &World, way: Way, engine: Option<Engine>) -> Self {
        let mut memory = Memory::new(RAM_BYTES).expect("a RAM size");
        for (at, bytes) in &world.ram {
            memory.store(*at, bytes).expect("the address is RAM");
        }
        Self {
            way,
            hart: Hart::restore(&world.hart).expect("a hart state"),
            engine: way.2.fresh(&mut memory, engine),
            memory,
            device: world.device.clone(),
            clock: world.clock,
            icount: world.icount,
            builtin_sbi: world.builtin_sbi,
            events: world.events.clone().into_iter(),
            rng: Rng::new(match way.0 {
                Cut::Random(seed) => seed,
                _ => 0,
            }),
            restores: 0,
            trace: BTreeMap::new(),
            exits: Vec::new(),
        }
    }

    /// Tells of translated code.
    pub(crate) fn listen(&mut self, listener: CodeListener) {
        self.engine.listen(&mut self.memory, listener);
    }

    /// Runs to step `until`, or until the hart idles with no event left.
    pub(crate) fn go(mut self, until: u64) -> After {
        let mut exit = Exit::Limit;
        while self.icount < until {
            let next = self.events.as_slice().first().map(|(at, _)| *at);
            if next.is_some_and(|at| at <= self.icount) {
                self.inject();
                continue;
            }
            let stop = match self.way.0 {
                Cut::Never => until,
                Cut::Every(n) => self.icount + n,
                Cut::Random(_) => self.icount + 1 + self.rng.below(60),
            };
            let stop = stop.min(until).min(next.unwrap_or(until));
            match self.slice(stop) {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(why) => {
                    if next.is_none() {
                        exit = why;
                        break;
                    }
                    self.inject();
                }
            }
        }
        After {
            way: self.way,
            hart: self.hart.save(),
            device: self.device,
            icount: self.icount,
            exit,
            digest: self.memory.digest(),
            memory: self.memory,
            engine: self.engine,
            trace: self.trace,
            exits: self.exits,
        }
    }

    fn slice(&mut self, stop: u64) -> ControlFlow<Exit> {
        let mut env = Env {
            mem: &mut self.memory,
            bus: &mut self.device,
            clock: self.clock,
            icount: self.icount,
            builtin_sbi: self.builtin_sbi,
        };
        let exit = self.engine.run(&mut self.hart, &mut env, stop);
        self.icount = env.icount;
        assert!(self.icount <= stop, "ran past the limit");
        match exit {
            Exit::Limit => assert_eq!(self.icount, stop),
            Exit::Idle => return ControlFlow::Break(exit),
            Exit::Yield => self.exits.push((self.icount, exit)),
            Exit::Attention => {
                self.exits.push((self.icount, exit));
                self.device.attention = false;
            }
            Exit::Sbi => {
                self.exits.push((self.icount, exit));
                self.hart.set_pc(self.hart.pc() + 4);
                self.icount += 1;
            }
        }
        if !matches!(self.way.0, Cut::Never) {
            self.trace.insert(self.icount, self.hart.save());
        }
        match self.way.1 {
            Between::Nothing => {}
            Between::Flush => self.engine.flush(&mut self.memory),
            Between::Digest => {
                self.memory.digest();
            }
            Between::Restore => self.restore(),
        }
        ControlFlow::Continue(())
    }

    fn restore(&mut self) {
        let (memory, engine) = (&mut self.memory, &mut self.engine);
        self.way.2.restore(memory, engine, &mut self.restores);
        self.hart = Hart::restore(&self.hart.save()).expect("a saved state");
    }

    fn inject(&mut self) {
        match self.events.next() {
            Some((_, Event::Store(pa, bytes))) => {
                self.memory.store(pa, &bytes).expect("the address is RAM");
                self.hart.end_reservation();
            }
            Some((_, Event::Clock(clock))) => self.clock = clock,
            Some((_, Event::Lines(lines))) => self.device.lines = lines,
            None => {}
        }
    }
}
