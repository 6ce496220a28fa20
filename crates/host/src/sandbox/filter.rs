//! The filter of system calls (seccomp(2)).
//!
//! It has three answers:
//!
//! - What a node, an arbiter's server or a switch does is allowed, where it matters only with the
//!   arguments that it has there ([`calls::allowed`]).
//! - What only an intruder would ask for kills the process ([`calls::HOSTILE`]): to start
//!   programs, to look into processes, to mount, to load code into the kernel. None of it is
//!   anything that a C library does by itself on any kernel.
//! - Everything else is refused as if the kernel did not have it (`ENOSYS`), and a line in the
//!   kernel's log says so. A C library that has learnt a new call falls back to the old one, as it
//!   does on an older kernel: an update of the host must not kill a protected machine. An intruder
//!   gets nothing by it.
//!
//! Calls whose arguments don't matter cost nothing: kernels from 5.11 on know from a table that
//! they are allowed, before any filter runs.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use super::calls;

/// The calls and, for each, when it is meant: always if there is no rule.
pub(super) type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The filter can't be put in place.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// Nobody has said what calls are called there.
    #[error("there is no filter of system calls for this kind of processor")]
    Processor,
    /// A fault of our own.
    #[error("the filter of system calls: {0}")]
    Rules(#[from] BackendError),
    /// A kernel without it, or a host that forbids it.
    #[error("this host's kernel refuses a filter of system calls (seccomp): {0}")]
    Kernel(io::Error),
    /// Another thread has a filter of its own.
    #[error("thread {0} can't be given the filter of system calls")]
    Thread(i64),
}

/// Filters the calls of this process from now on, on all its threads.
///
/// # Errors
/// [`FilterError`]; then no call of its threads is filtered, or only the worst are.
pub fn install() -> Result<(), FilterError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| FilterError::Processor)?;
    let refuse = SeccompAction::Errno(libc::ENOSYS as u32);
    let always = |numbers: &[i64]| numbers.iter().map(|call| (*call, Vec::new())).collect();
    let allow = SeccompAction::Allow;
    let kill = program(
        always(calls::HOSTILE),
        allow.clone(),
        SeccompAction::KillProcess,
        arch,
    )?;
    let quiet = program(always(calls::QUIET), allow.clone(), refuse.clone(), arch)?;
    let rest = program(calls::allowed()?, refuse, allow, arch)?;
    // Of several filters' answers the kernel takes the hardest. The last one is about installing
    // others, too.
    put(&kill, Log::No)?;
    put(&quiet, Log::No)?;
    put(&rest, Log::Yes)
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
    arch: TargetArch,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(rules, otherwise, matched, arch)?.try_into()
}

/// Whether the kernel's log is to have a line about what is refused. What kills always has.
#[derive(Clone, Copy, PartialEq)]
enum Log {
    No,
    Yes,
}

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    filter: *const sock_filter,
}

fn put(program: &BpfProgram, log: Log) -> Result<(), FilterError> {
    let kernel = |error: rustix::io::Errno| FilterError::Kernel(error.into());
    rustix::thread::set_no_new_privs(true).map_err(kernel)?;
    let too_long = |_| FilterError::Kernel(io::ErrorKind::InvalidInput.into());
    let described = Program {
        len: u16::try_from(program.len()).map_err(too_long)?,
        filter: program.as_ptr(),
    };
    // Kernels before 5.16 would otherwise slow down the loads and stores of the whole process, the
    // guest's too. What a guest may learn from the processor's guesses is the same with a filter as
    // without.
    let mut flags = libc::SECCOMP_FILTER_FLAG_TSYNC | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    if log == Log::Yes {
        flags |= libc::SECCOMP_FILTER_FLAG_LOG;
    }
    // SAFETY: `described` has the layout of `struct sock_fprog`, and its pointer and length are
    // those of the program, which outlives the call. The kernel copies both and keeps no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const described,
        )
    };
    match result {
        0 => Ok(()),
        1.. => Err(FilterError::Thread(result)),
        _ => Err(FilterError::Kernel(io::Error::last_os_error())),
    }
}
