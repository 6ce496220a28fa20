//! How much of the protocol is looked at.

use std::fmt;

use crate::state::Left;

/// Where a search begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// Two hosts on which nothing has ever run, and no record.
    #[default]
    Nothing,
    /// A protected pair: all faults are left for what comes after.
    Pair,
}

/// How much of the protocol is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Where it begins.
    pub from: From,
    /// How much may happen.
    pub bounds: Left,
    /// `output = "backup"`: a backup emits what it has executed, the live node only what no backup
    /// has emitted when there is none any more.
    pub backup_speaks: bool,
    /// The VM has replicated disks.
    pub disks: bool,
    /// People reset the record and start nodes by force.
    pub people: bool,
}

impl Scope {
    /// From nothing, with so many faults, requests and inputs.
    pub const fn new(faults: u8, requests: u8, inputs: u8) -> Self {
        let bounds = Left {
            faults,
            requests,
            inputs,
            cold_delay: false,
            wipes: 0,
        };
        Self {
            from: From::Nothing,
            bounds,
            backup_speaks: false,
            disks: false,
            people: false,
        }
    }

    /// The same, with `output = "backup"`.
    #[must_use]
    pub const fn with_backup_speaking(self) -> Self {
        Self {
            backup_speaks: true,
            ..self
        }
    }

    /// The same, from a protected pair.
    #[must_use]
    pub const fn from_pair(self) -> Self {
        Self {
            from: From::Pair,
            ..self
        }
    }

    /// The same, with `cold_delay_ms` set.
    #[must_use]
    pub const fn with_cold_delay(mut self) -> Self {
        self.bounds.cold_delay = true;
        self
    }

    /// The same, of a VM with replicated disks.
    #[must_use]
    pub const fn with_disks(mut self) -> Self {
        self.disks = true;
        self
    }

    /// The same, and people reset the record (each is a request) and start nodes by force.
    #[must_use]
    pub const fn with_people(mut self) -> Self {
        self.people = true;
        self
    }

    /// The same, with an arbiter that loses its record once.
    #[must_use]
    pub const fn with_wipe(mut self) -> Self {
        self.bounds.wipes = 1;
        self
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Left {
            faults,
            requests,
            inputs,
            cold_delay,
            wipes,
        } = self.bounds;
        let from = match self.from {
            From::Nothing => "nothing",
            From::Pair => "a pair",
        };
        write!(
            f,
            "from {from}: {faults} faults, {requests} requests, {inputs} inputs"
        )?;
        if self.backup_speaks {
            f.write_str(", output = backup")?;
        }
        if self.disks {
            f.write_str(", disks")?;
        }
        if self.people {
            f.write_str(", resets and force")?;
        }
        if cold_delay {
            f.write_str(", cold_delay_ms set")?;
        }
        if wipes > 0 {
            write!(f, ", {wipes} losses of the record")?;
        }
        Ok(())
    }
}
