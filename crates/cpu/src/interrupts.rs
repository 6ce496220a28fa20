//! Which interrupt, if any, is the next step.

use crate::csr::CsrView;
use crate::hart::{Hart, Mode, irq, status};

/// Priority order of the Privileged Architecture, section 3.1.9.
const PRIORITY: [u64; 6] = [irq::MEI, irq::MSI, irq::MTI, irq::SEI, irq::SSI, irq::STI];

impl Hart {
    /// The cause of the interrupt to take now.
    pub(crate) fn interrupt(&self, view: &CsrView) -> Option<u64> {
        let enabled = self.pending(view) & self.mie;
        if enabled == 0 {
            return None;
        }
        let m_on = self.mode != Mode::Machine || self.mstatus & status::MIE != 0;
        let s_on = self.mode == Mode::User
            || (self.mode == Mode::Supervisor && self.mstatus & status::SIE != 0);
        let m = if m_on { enabled & !self.mideleg } else { 0 };
        let s = if s_on && self.mode != Mode::Machine {
            enabled & self.mideleg
        } else {
            0
        };
        let from = if m != 0 { m } else { s };
        PRIORITY
            .iter()
            .find(|bit| from & **bit != 0)
            .map(|bit| crate::trap::cause::INTERRUPT | u64::from(bit.trailing_zeros()))
    }

    /// True if WFI's wait is over: an interrupt is pending and enabled in mie,
    /// whatever the global enables say.
    pub(crate) fn wakes(&self, view: &CsrView) -> bool {
        self.pending(view) & self.mie != 0
    }

    /// The first step count after `view.icount` at which a timer interrupt
    /// becomes pending that isn't now.
    pub(crate) fn timer_deadline(&self, view: &CsrView) -> Option<u64> {
        self.compares(view)
            .into_iter()
            .flatten()
            .filter_map(|compare| view.clock.deadline(compare))
            .filter(|at| *at > view.icount)
            .min()
    }

    /// Compare values of timers whose interrupt is enabled and not yet due.
    pub(crate) fn compares(&self, view: &CsrView) -> [Option<u64>; 2] {
        let now = view.clock.mtime(view.icount);
        let mtimer = (self.mie & irq::MTI != 0).then_some(view.mtimecmp);
        let sstc = self.menvcfg & crate::hart::envcfg::STCE != 0 && self.mie & irq::STI != 0;
        let stimer = sstc.then_some(self.stimecmp);
        [mtimer, stimer].map(|compare| compare.filter(|c| *c > now))
    }
}
