//! The run loop: interrupts, blocks and exits, exact to the step.

use crate::block::{Block, Blocks};
use crate::bus::{Bus, Lines};
use crate::clock::Clock;
use crate::counters::{EngineCounters, TranslationCounters};
use crate::csr::CsrView;
use crate::decode::{decode, is_long};
use crate::exec::{Core, Outcome};
use crate::hart::{Hart, Mode, envcfg, irq, status};
use crate::mmu::Fetch;
use crate::op::Op;
use crate::pmp::Pmp;
use crate::tier::{Code, CodeListener, Tier, TierExit, Window};
use crate::trap::{Exception, cause};
use crate::walk::{Space, WalkFault};
use twinvm_mem::{Change, Memory, RAM_BASE};

/// Why [`Engine::run`] stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The asked step count is reached.
    Limit,
    /// The hart waits for an interrupt that only a record, time or another hart
    /// can bring.
    Idle,
    /// The devices have something for the machine ([`Bus::attention`]).
    Attention,
    /// The last step was `pause`, `wrs.nto` or `wrs.sto`: with several harts, the
    /// turn of this one ends here. Told whatever the asked step count.
    Yield,
    /// An ECALL from S-mode that the built-in SBI answers: the step is not yet
    /// counted and pc still points at the ECALL.
    Sbi,
}

/// What a hart runs in.
pub struct Env<'a> {
    /// Guest RAM.
    pub mem: &'a mut Memory,
    /// The devices.
    pub bus: &'a mut dyn Bus,
    /// The current anchor of virtual time.
    pub clock: Clock,
    /// Steps since power-on; advanced by the run.
    pub icount: u64,
    /// True if ECALLs from S-mode are for the machine.
    pub builtin_sbi: bool,
}

/// The interpreter, a second engine if there is one, and all they derive from memory.
pub struct Engine {
    core: Core,
    blocks: Blocks,
    tier: Option<Box<dyn Tier>>,
    voids: u64,
    steps: u64,
    translation: TranslationCounters,
    /// The PMP that `pmp_numbers` belong to: in M-mode, and in S and U.
    pmp: Option<Pmp>,
    pmp_numbers: [u8; 2],
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new() -> Self {
        Self {
            core: Core::new(),
            blocks: Blocks::new(),
            tier: None,
            voids: 0,
            steps: 0,
            translation: TranslationCounters::default(),
            pmp: None,
            pmp_numbers: [0; 2],
        }
    }

    /// Plugs in a second engine, which is given each block that has been entered
    /// `hot_at` times (up to 254), or takes it out. All derived state goes.
    pub fn set_tier(&mut self, mem: &mut Memory, tier: Option<Box<dyn Tier>>, hot_at: u8) {
        self.flush(mem);
        self.blocks
            .set_cold(tier.as_ref().map_or(0, |tier| tier.cold()));
        self.tier = tier;
        self.set_hot_at(Some(hot_at));
    }

    /// Blocks go to the second engine when they have been entered this often; `None`:
    /// never, and it runs nothing any more.
    pub fn set_hot_at(&mut self, hot_at: Option<u8>) {
        let never = u8::MAX;
        let hot_at = hot_at.map_or(never, |at| at.min(never - 1));
        let hot_at = if self.tier.is_some() { hot_at } else { never };
        self.blocks.set_hot_at(hot_at);
    }

    /// From now on blocks have one instruction, so that single steps enter translated
    /// code too: for finding the instruction whose translation is wrong. All derived
    /// state goes.
    pub fn set_single_blocks(&mut self, mem: &mut Memory) {
        self.flush(mem);
        self.blocks.most_ops = 1;
    }

    /// Puts another tier around the second engine, until that is another. All derived state
    /// goes. Does nothing without a second engine.
    pub fn wrap_tier(
        &mut self,
        mem: &mut Memory,
        wrap: impl FnOnce(Box<dyn Tier>) -> Box<dyn Tier>,
    ) {
        self.flush(mem);
        self.tier = self.tier.take().map(wrap);
        let cold = self.tier.as_ref().map_or(0, |tier| tier.cold());
        self.blocks.set_cold(cold);
    }

    /// Tells of all translated code, until the second engine is another. All derived state
    /// goes. Does nothing without a second engine.
    pub fn listen(&mut self, mem: &mut Memory, listener: CodeListener) {
        self.flush(mem);
        if let Some(tier) = &mut self.tier {
            tier.listen(listener);
        }
    }

    /// Throws away all derived state. Never visible to the guest.
    pub fn flush(&mut self, mem: &mut Memory) {
        self.core.mmu.flush(mem);
        self.flush_code(mem);
    }

    /// Throws away all decoded and translated code.
    fn flush_code(&mut self, mem: &mut Memory) {
        self.blocks.flush(mem);
        self.core.mmu.forget_returns();
        self.translation.flushes += 1;
        if let Some(tier) = &mut self.tier {
            tier.flush();
        }
    }

    fn drop_code_page(&mut self, page: u32) {
        let codes = self.blocks.drop_page(page);
        if !codes.is_empty() {
            self.core.mmu.forget_returns();
        }
        for code in codes {
            self.translation.retired += 1;
            if let Some(tier) = &mut self.tier {
                tier.retire(code);
            }
        }
    }

    /// What was done since the engine was made.
    pub fn counters(&self) -> EngineCounters {
        let by_kind = self.core.interpreted.sorted();
        EngineCounters {
            blocks: self.core.blocks_run,
            decoded: self.blocks.decoded,
            walks: self.core.mmu.walks,
            voids: self.voids,
            steps: self.steps,
            translation: TranslationCounters {
                calls: by_kind.iter().map(|(_, count)| count).sum(),
                ..self.translation
            },
            memory: self.tier.as_ref().map(|tier| tier.memory()),
            by_kind,
        }
    }

    /// Virtual time, in ticks, at which the next timer of an idle hart is due: for
    /// the sleep of the host. `None` if no timer is set.
    pub fn next_timer(&self, hart: &Hart, env: &Env) -> Option<u64> {
        let lines = env.bus.lines(hart.id);
        hart.compares(&view(env, &lines))
            .into_iter()
            .chain([Some(lines.alarm)])
            .flatten()
            .filter(|at| *at != u64::MAX)
            .min()
    }

    /// Whether the hart would make a step now: it doesn't wait, or what it waits
    /// for is there.
    pub fn can_step(&self, hart: &Hart, env: &Env) -> bool {
        !hart.waiting || hart.wakes(&view(env, &env.bus.lines(hart.id)))
    }

    fn refresh_lines(&mut self, hart: &Hart, env: &Env) {
        let lines = env.bus.lines(hart.id);
        self.core.lines = line_bits(&lines);
        self.core.mtimecmp = lines.mtimecmp;
        self.core.alarm = lines.alarm;
        self.core.touched_bus = false;
    }

    /// Drops what changes in memory have made stale.
    pub(crate) fn absorb_changes(&mut self, mem: &mut Memory) {
        if !mem.has_changes() {
            // Dropping a busy table page leaves no change behind.
            return self.note_dropped_fetches();
        }
        let mut write_tags = Vec::new();
        for change in mem.take_changes() {
            match change {
                Change::Code { page } => self.drop_code_page(page),
                Change::Table { page, first, last } => {
                    self.core.mmu.table_changed(mem, page, first, last);
                }
                Change::WriteTags { page } => write_tags.push(page),
                Change::AllWriteTags => self.core.mmu.drop_write_tags(),
                Change::Everything => self.flush(mem),
            }
        }
        if !write_tags.is_empty() {
            self.core.mmu.withdraw_write_tags(&write_tags);
        }
        self.note_dropped_fetches();
    }

    fn note_dropped_fetches(&mut self) {
        if self.core.mmu.fetch_dropped {
            self.core.mmu.fetch_seen();
            self.voids += 1;
        }
    }

    /// Chooses the address spaces for the hart's mode, satp, mstatus and PMP.
    fn select_spaces(&mut self, hart: &Hart, mem: &mut Memory) {
        self.core.reselect = false;
        if self.core.pmp_changed {
            self.core.pmp_changed = false;
            if self.pmp.as_ref() != Some(&hart.pmp) {
                self.pmp_numbers = self.core.mmu.pmp_numbers(mem, &hart.pmp);
                self.pmp = Some(hart.pmp);
            }
        }
        let [machine_pmp, lesser_pmp] = self.pmp_numbers;
        let space = |mode: Mode| {
            if mode == Mode::Machine {
                Space::bare(machine_pmp)
            } else {
                Space::new(
                    hart.satp,
                    mode == Mode::User,
                    hart.mstatus & status::SUM != 0,
                    hart.mstatus & status::MXR != 0,
                    hart.menvcfg & envcfg::ADUE != 0,
                    lesser_pmp,
                )
            }
        };
        let fetch = space(hart.mode);
        let data = if hart.mode == Mode::Machine && hart.mstatus & status::MPRV != 0 {
            space(Mode::from_bits(hart.mstatus >> status::MPP_SHIFT))
        } else {
            fetch
        };
        self.core.mmu.select(fetch, data);
        self.note_dropped_fetches();
    }

    /// Runs until the step counter is `until`, or something needs the machine.
    /// One engine serves all harts of a machine: each call may bring another one
    /// (see [`Hart::begin_turn`]).
    pub fn run(&mut self, hart: &mut Hart, env: &mut Env, until: u64) -> Exit {
        let from = env.icount;
        let exit = self.run_until(hart, env, until);
        self.steps += env.icount - from;
        exit
    }

    fn run_until(&mut self, hart: &mut Hart, env: &mut Env, until: u64) -> Exit {
        debug_assert!(hart.has_turn(), "another hart has the turn");
        self.refresh_lines(hart, env);
        self.absorb_changes(env.mem);
        // It may be another hart than before.
        self.core.pmp_changed = true;
        self.select_spaces(hart, env.mem);
        loop {
            if self.core.reselect {
                self.select_spaces(hart, env.mem);
            }
            if self.core.touched_bus {
                // A device may have written to the reserved line.
                hart.end_reservation();
                self.refresh_lines(hart, env);
            }
            // Due alarms come first: where a run is cut must not matter, and an
            // alarm may ask for attention.
            let clock = env.clock;
            let now = clock.mtime(env.icount);
            if now >= self.core.alarm {
                env.bus.alarm(now);
                self.refresh_lines(hart, env);
            }
            if env.bus.attention() {
                return Exit::Attention;
            }
            if env.icount >= until {
                return Exit::Limit;
            }
            let view = self.core.view(&clock, env.icount);
            if hart.waiting {
                if !hart.wakes(&view) {
                    return Exit::Idle;
                }
                hart.waiting = false;
            }
            if let Some(cause) = hart.interrupt(&view) {
                let pc = hart.pc;
                hart.enter_trap(cause, 0, pc);
                env.icount += 1;
                self.select_spaces(hart, env.mem);
                continue;
            }
            let limit = [hart.timer_deadline(&view), clock.deadline(self.core.alarm)]
                .into_iter()
                .flatten()
                .filter(|at| *at > env.icount)
                .fold(until, u64::min);
            if let Some(exit) = self.run_blocks(hart, env, limit) {
                return exit;
            }
        }
    }

    /// Runs blocks until `limit` or until something may have changed what the
    /// outer loop looks at.
    fn run_blocks(&mut self, hart: &mut Hart, env: &mut Env, limit: u64) -> Option<Exit> {
        // A jump of the second engine that led to hart.pc.
        let mut jump = None;
        // The interpreter is to run the block at hart.pc.
        let mut tail = false;
        while env.icount < limit {
            let place = self.core.mmu.fetch_tlb().place(hart.pc);
            let known = place.and_then(|place| self.blocks.at(place));
            // It needs the ops.
            let known = known.filter(|block| block.len != 0 || !tail);
            let (block, last) = match known {
                Some(block) => (block, limit),
                None => match self.find_block(env, hart.pc) {
                    Ok(Found::Block(block)) => (block, limit),
                    Ok(Found::Single(op)) => (self.blocks.single(op), env.icount + 1),
                    Err(exception) => {
                        self.trap(hart, env, exception);
                        return None;
                    }
                },
            };
            let translated = if tail || block.id == 0 {
                Translated::No
            } else {
                self.translated(env, hart.pc, block)
            };
            let outcome = match translated {
                Translated::Flushed => {
                    jump = None;
                    continue;
                }
                Translated::At(code) => {
                    let exit = self.run_tier(hart, env, code, jump.take(), limit);
                    tail = false;
                    match exit {
                        Ok(TierExit::Tail) => {
                            tail = true;
                            continue;
                        }
                        Ok(TierExit::Lookup) => continue,
                        Ok(TierExit::Link(from)) => {
                            jump = Some(from);
                            continue;
                        }
                        Ok(TierExit::Look) => Outcome::Look,
                        Err(outcome) => outcome,
                    }
                }
                Translated::No if block.len == 0 => {
                    tail = true;
                    continue;
                }
                Translated::No => {
                    jump = None;
                    let from = env.icount;
                    let outcome = self.core.execute(hart, env, &self.blocks, block, last);
                    let outside = &mut self.translation.outside;
                    let steps = if tail {
                        &mut outside.tail
                    } else if block.id == 0 {
                        &mut outside.single
                    } else {
                        &mut outside.cold
                    };
                    *steps += env.icount - from;
                    tail = false;
                    outcome
                }
            };
            match outcome {
                Outcome::Done => {}
                Outcome::Look => {
                    self.absorb_changes(env.mem);
                    return None;
                }
                Outcome::Trap(exception) => {
                    self.trap(hart, env, exception);
                    return None;
                }
                Outcome::Sbi => return Some(Exit::Sbi),
                Outcome::Yield => return Some(Exit::Yield),
            }
        }
        None
    }

    /// Where the translation of a block starts, made now if the block is hot.
    fn translated(&mut self, env: &mut Env, pc: u64, block: Block) -> Translated {
        let Some(tier) = &mut self.tier else {
            return Translated::No;
        };
        let Some(place) = self.core.mmu.fetch_tlb().place(pc) else {
            return Translated::No;
        };
        if !self.blocks.is_hot(place) {
            return Translated::No;
        }
        let mut code = self.blocks.code(block);
        if code == 0 {
            let asked = Code {
                pa: RAM_BASE + place,
                va: pc,
                ops: self.blocks.ops_of(block, u64::MAX),
            };
            let Some(address) = tier.translate(&asked) else {
                self.flush_code(env.mem);
                return Translated::Flushed;
            };
            self.translation.blocks += 1;
            self.translation.instructions += asked.ops.len() as u64;
            code = address;
            self.blocks.set_code(place, block, code);
        }
        Translated::At(code)
    }

    /// Runs translated code; an error if the interpreter had the last word in it.
    fn run_tier(
        &mut self,
        hart: &mut Hart,
        env: &mut Env,
        code: u64,
        jump: Option<u32>,
        limit: u64,
    ) -> Result<TierExit, Outcome> {
        let Some(tier) = &mut self.tier else {
            return Ok(TierExit::Look);
        };
        if let Some(jump) = jump
            && let Some(page) = self.core.mmu.fetch_tlb().fetch(hart.pc)
        {
            tier.link(jump, code, page);
            self.translation.links += 1;
        }
        let from = env.icount;
        let mut window = Window {
            core: &mut self.core,
            hart,
            env,
            blocks: &self.blocks,
            outcome: Outcome::Done,
        };
        let exit = tier.run(&mut window, code, limit);
        let outcome = window.outcome;
        let counters = &mut self.translation;
        counters.entries += 1;
        counters.steps += env.icount - from;
        match outcome {
            Outcome::Done => {
                counters.exits.count(exit);
                return Ok(exit);
            }
            Outcome::Look => counters.exits.look += 1,
            Outcome::Trap(_) => counters.exits.trap += 1,
            Outcome::Sbi => counters.exits.sbi += 1,
            Outcome::Yield => counters.exits.turn += 1,
        }
        Err(outcome)
    }

    /// Takes a trap of the instruction at the hart's pc: one step.
    fn trap(&mut self, hart: &mut Hart, env: &mut Env, exception: Exception) {
        let pc = hart.pc;
        hart.enter_trap(exception.cause, exception.tval, pc);
        env.icount += 1;
        self.absorb_changes(env.mem);
        self.select_spaces(hart, env.mem);
    }

    /// What lies at `pc`: a block, or one instruction that cannot be in one.
    #[cold]
    fn find_block(&mut self, env: &mut Env, pc: u64) -> Result<Found, Exception> {
        let first = self.fetch(env.mem, pc)?;
        if first.page {
            if self.blocks.is_full(env.mem) {
                self.blocks.drop_ops();
            }
            let block = self.blocks.find(env.mem, first.pa);
            self.absorb_changes(env.mem);
            if let Some(block) = block {
                return Ok(Found::Block(block));
            }
        }
        let low = parcel(env, first.pa, pc)?;
        let mut raw = u32::from(low);
        if is_long(low) {
            let second = pc.wrapping_add(2);
            let pa = self.fetch(env.mem, second)?.pa;
            raw |= u32::from(parcel(env, pa, second)?) << 16;
        }
        Ok(Found::Single(decode(raw, 0)))
    }

    /// Where the instruction parcel at `va` is.
    fn fetch(&mut self, mem: &mut Memory, va: u64) -> Result<Fetch, Exception> {
        let found = self.core.mmu.fetch(mem, va).map_err(|fault| {
            let cause = match fault {
                WalkFault::Page => cause::FETCH_PAGE,
                WalkFault::Access => cause::FETCH_ACCESS,
            };
            Exception::new(cause, va)
        });
        // The walk may have tagged pages, and set A in an entry that is code.
        self.absorb_changes(mem);
        found
    }
}

/// The instruction parcel at `pa`, which `va` translates to.
fn parcel(env: &Env, pa: u64, va: u64) -> Result<u16, Exception> {
    match env.mem.load_u16(pa) {
        Ok(parcel) => Some(parcel),
        Err(_) => env.bus.fetch(pa),
    }
    .ok_or(Exception::new(cause::FETCH_ACCESS, va))
}

/// What there is of a block for the second engine.
enum Translated {
    /// Nothing: the interpreter runs it.
    No,
    /// Its translation starts there.
    At(u64),
    /// There was no room: all code is gone, the block too.
    Flushed,
}

/// What lies at a pc.
enum Found {
    Block(Block),
    /// An instruction on two pages, outside RAM, or where the PMP has a bound:
    /// decoded each time.
    Single(Op),
}

fn view<'a>(env: &'a Env, lines: &Lines) -> CsrView<'a> {
    CsrView {
        clock: &env.clock,
        icount: env.icount,
        lines: line_bits(lines),
        mtimecmp: lines.mtimecmp,
    }
}

fn line_bits(lines: &Lines) -> u64 {
    let bit = |on: bool, bit: u64| if on { bit } else { 0 };
    bit(lines.msip, irq::MSI) | bit(lines.meip, irq::MEI) | bit(lines.seip, irq::SEI)
}
