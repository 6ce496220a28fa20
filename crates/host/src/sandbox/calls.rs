//! Which system calls a process of ours makes, and which only an intruder would.

use libc as c;
use seccompiler::BackendError;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{self, Eq, MaskedEq};
use seccompiler::{SeccompCondition, SeccompRule};

use super::filter::Rules;

/// Allowed whatever their arguments are. What they can reach is what the process's user can.
const PLAIN: &[i64] = &[
    // Files, among them disks, recordings and the arbiter's folder.
    c::SYS_read,
    c::SYS_write,
    c::SYS_readv,
    c::SYS_writev,
    c::SYS_pread64,
    c::SYS_pwrite64,
    c::SYS_preadv,
    c::SYS_pwritev,
    c::SYS_preadv2,
    c::SYS_pwritev2,
    c::SYS_openat,
    c::SYS_openat2,
    c::SYS_close,
    c::SYS_close_range,
    c::SYS_fstat,
    c::SYS_newfstatat,
    c::SYS_statx,
    c::SYS_statfs,
    c::SYS_fstatfs,
    c::SYS_lseek,
    c::SYS_faccessat,
    c::SYS_faccessat2,
    c::SYS_readlinkat,
    c::SYS_getcwd,
    c::SYS_getdents64,
    c::SYS_mkdirat,
    c::SYS_renameat,
    c::SYS_renameat2,
    c::SYS_linkat,
    c::SYS_unlinkat,
    c::SYS_fchmod,
    c::SYS_fchmodat,
    c::SYS_ftruncate,
    c::SYS_fallocate,
    c::SYS_fsync,
    c::SYS_fdatasync,
    c::SYS_sync_file_range,
    c::SYS_copy_file_range,
    c::SYS_sendfile,
    c::SYS_splice,
    c::SYS_fadvise64,
    c::SYS_flock,
    c::SYS_fcntl,
    c::SYS_dup,
    c::SYS_dup3,
    c::SYS_pipe2,
    c::SYS_umask,
    // Memory; mapping and protecting are below.
    c::SYS_brk,
    c::SYS_munmap,
    c::SYS_mremap,
    c::SYS_madvise,
    c::SYS_mincore,
    c::SYS_membarrier,
    // Threads of this process; making them is below.
    c::SYS_futex,
    c::SYS_futex_waitv,
    c::SYS_set_robust_list,
    c::SYS_get_robust_list,
    c::SYS_rseq,
    c::SYS_set_tid_address,
    c::SYS_exit,
    c::SYS_exit_group,
    c::SYS_sched_yield,
    c::SYS_sched_getaffinity,
    c::SYS_getpriority,
    c::SYS_getpid,
    c::SYS_getppid,
    c::SYS_gettid,
    c::SYS_getuid,
    c::SYS_geteuid,
    c::SYS_getgid,
    c::SYS_getegid,
    c::SYS_getgroups,
    // Clocks, timers and what the process has used.
    c::SYS_clock_gettime,
    c::SYS_clock_getres,
    c::SYS_clock_nanosleep,
    c::SYS_nanosleep,
    c::SYS_gettimeofday,
    c::SYS_times,
    c::SYS_getrusage,
    c::SYS_sysinfo,
    c::SYS_uname,
    c::SYS_getcpu,
    c::SYS_getrandom,
    c::SYS_timerfd_create,
    c::SYS_timerfd_settime,
    c::SYS_timerfd_gettime,
    // Signals that come; sending them is below.
    c::SYS_rt_sigaction,
    c::SYS_rt_sigprocmask,
    c::SYS_rt_sigreturn,
    c::SYS_rt_sigpending,
    c::SYS_rt_sigtimedwait,
    c::SYS_rt_sigsuspend,
    c::SYS_sigaltstack,
    c::SYS_restart_syscall,
    // Waiting.
    c::SYS_ppoll,
    c::SYS_pselect6,
    c::SYS_epoll_create1,
    c::SYS_epoll_ctl,
    c::SYS_epoll_pwait,
    c::SYS_epoll_pwait2,
    c::SYS_eventfd2,
    // Sockets; making them is below.
    c::SYS_connect,
    c::SYS_bind,
    c::SYS_listen,
    c::SYS_accept,
    c::SYS_accept4,
    c::SYS_getsockname,
    c::SYS_getpeername,
    c::SYS_setsockopt,
    c::SYS_getsockopt,
    c::SYS_sendto,
    c::SYS_recvfrom,
    c::SYS_sendmsg,
    c::SYS_recvmsg,
    c::SYS_sendmmsg,
    c::SYS_recvmmsg,
    c::SYS_shutdown,
];

/// The older names of some of these, which newer architectures don't have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[i64] = &[
    c::SYS_open,
    c::SYS_stat,
    c::SYS_lstat,
    c::SYS_access,
    c::SYS_readlink,
    c::SYS_mkdir,
    c::SYS_rmdir,
    c::SYS_rename,
    c::SYS_link,
    c::SYS_unlink,
    c::SYS_chmod,
    c::SYS_dup2,
    c::SYS_pipe,
    c::SYS_poll,
    c::SYS_select,
    c::SYS_epoll_create,
    c::SYS_epoll_wait,
    c::SYS_eventfd,
    c::SYS_time,
    c::SYS_getrlimit,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[i64] = &[];

/// Refused as all that isn't named, but without a line in the kernel's log: the C library makes it
/// for every thread and, where there is no such call, the older one. That one's arguments a filter
/// can see.
pub(super) const QUIET: &[i64] = &[c::SYS_clone3];

/// Whoever makes one of these is not us.
pub(super) const HOSTILE: &[i64] = &[
    // Other programs.
    c::SYS_execve,
    c::SYS_execveat,
    // Other processes.
    c::SYS_ptrace,
    c::SYS_process_vm_readv,
    c::SYS_process_vm_writev,
    c::SYS_process_madvise,
    c::SYS_pidfd_getfd,
    c::SYS_kcmp,
    // File systems and namespaces.
    c::SYS_mount,
    c::SYS_umount2,
    c::SYS_pivot_root,
    c::SYS_chroot,
    c::SYS_move_mount,
    c::SYS_open_tree,
    c::SYS_fsopen,
    c::SYS_fsconfig,
    c::SYS_fsmount,
    c::SYS_fspick,
    c::SYS_mount_setattr,
    c::SYS_setns,
    c::SYS_unshare,
    c::SYS_name_to_handle_at,
    c::SYS_open_by_handle_at,
    c::SYS_quotactl,
    c::SYS_swapon,
    c::SYS_swapoff,
    c::SYS_acct,
    // The kernel.
    c::SYS_bpf,
    c::SYS_perf_event_open,
    c::SYS_userfaultfd,
    c::SYS_kexec_load,
    c::SYS_init_module,
    c::SYS_finit_module,
    c::SYS_delete_module,
    c::SYS_reboot,
    c::SYS_syslog,
    c::SYS_personality,
    c::SYS_add_key,
    c::SYS_request_key,
    c::SYS_keyctl,
    // The host's clock and name.
    c::SYS_settimeofday,
    c::SYS_clock_settime,
    c::SYS_clock_adjtime,
    c::SYS_adjtimex,
    c::SYS_sethostname,
    c::SYS_setdomainname,
    // Other rights.
    c::SYS_setuid,
    c::SYS_setgid,
    c::SYS_setreuid,
    c::SYS_setregid,
    c::SYS_setresuid,
    c::SYS_setresgid,
    c::SYS_setfsuid,
    c::SYS_setfsgid,
    c::SYS_setgroups,
    c::SYS_capset,
    #[cfg(target_arch = "x86_64")]
    c::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    c::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    c::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    c::SYS_modify_ldt,
];

/// Requests of ioctl(2): of the terminal that a process was started on, what shows whether it is
/// one and how it is set, never what types for its user (`TIOCSTI`); of descriptors, whether they
/// block and how much they hold; of TAP interfaces, what attaches to them.
const IOCTLS: &[u64] = &[
    c::TCGETS,
    c::TCSETS,
    c::TCSETSW,
    c::TCSETSF,
    c::TCGETS2,
    c::TCSETS2,
    c::TCSETSW2,
    c::TCSETSF2,
    c::TIOCGWINSZ,
    c::FIONBIO,
    c::FIONREAD,
    c::FIOCLEX,
    c::TUNSETIFF,
    c::TUNSETOFFLOAD,
    c::TUNSETVNETHDRSZ,
    c::TUNSETVNETLE,
    c::SIOCGIFFLAGS,
    c::SIOCGIFINDEX,
];

/// Address families and kinds that sockets may have.
const FAMILIES: &[i32] = &[c::AF_UNIX, c::AF_INET, c::AF_INET6];
const KINDS: &[i32] = &[c::SOCK_STREAM, c::SOCK_DGRAM];
/// The bits of a socket's kind that are no flags (linux/net.h).
const KIND: u64 = 0xf;

/// `PR_GET_AUXV` of Linux 6.4 (linux/prctl.h).
const PR_GET_AUXV: i32 = 0x4155_5856;
/// Of prctl(2): what threads and mappings are called, and what libraries ask about their process.
const PRCTLS: &[i32] = &[
    c::PR_SET_NAME,
    c::PR_GET_NAME,
    c::PR_SET_VMA,
    c::PR_GET_DUMPABLE,
    c::PR_GET_NO_NEW_PRIVS,
    c::PR_GET_SECCOMP,
    PR_GET_AUXV,
];

/// What a new thread shares with its process: all that makes it no process of its own.
pub(super) const THREAD: u64 =
    (c::CLONE_VM | c::CLONE_FS | c::CLONE_FILES | c::CLONE_SIGHAND | c::CLONE_THREAD) as u64;
/// What makes another world for it.
const WORLDS: u64 = (c::CLONE_NEWNS
    | c::CLONE_NEWCGROUP
    | c::CLONE_NEWUTS
    | c::CLONE_NEWIPC
    | c::CLONE_NEWUSER
    | c::CLONE_NEWPID
    | c::CLONE_NEWNET) as u32 as u64;

/// Everything that is allowed.
pub(super) fn allowed() -> Result<Rules, BackendError> {
    let plain = PLAIN.iter().chain(OLDER);
    let mut rules: Rules = plain.map(|call| (*call, Vec::new())).collect();
    // Decided before this filter is asked.
    rules.extend(HOSTILE.iter().chain(QUIET).map(|call| (*call, Vec::new())));

    // Memory that can be written and executed at once is what an intruder puts code into.
    for call in [c::SYS_mmap, c::SYS_mprotect] {
        let both = (c::PROT_WRITE | c::PROT_EXEC) as u64;
        let not_both = [0, c::PROT_WRITE, c::PROT_EXEC];
        let cases = not_both.map(|protection| on(2, MaskedEq(both), protection as u64));
        rules.insert(call, any(cases)?);
    }
    rules.insert(
        c::SYS_clone,
        any([on(0, MaskedEq(THREAD | WORLDS), THREAD)])?,
    );
    rules.insert(c::SYS_socket, sockets()?);
    let pair = on(0, Eq, c::AF_UNIX as u64);
    rules.insert(c::SYS_socketpair, any([pair])?);
    rules.insert(c::SYS_ioctl, any(IOCTLS.iter().map(|it| on(1, Eq, *it)))?);
    rules.insert(
        c::SYS_prctl,
        any(PRCTLS.iter().map(|it| on(0, Eq, *it as u32 as u64)))?,
    );
    // Limits are read, never set.
    let reading = SeccompCondition::new(2, Qword, Eq, 0);
    rules.insert(c::SYS_prlimit64, any([reading])?);
    // A thread may yield to others, for itself. To go before them needs CAP_SYS_NICE.
    let process = on(0, Eq, c::PRIO_PROCESS as u64)?;
    let itself = on(1, Eq, 0)?;
    let rule = SeccompRule::new(vec![process, itself])?;
    rules.insert(c::SYS_setpriority, vec![rule]);
    // A process that ends itself says so to itself.
    let own = u64::from(std::process::id());
    rules.insert(c::SYS_tgkill, any([on(0, Eq, own)])?);
    rules.insert(c::SYS_kill, any([on(0, Eq, own)])?);
    Ok(rules)
}

/// Streams and datagrams, never what goes past the host's network.
fn sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let mut rules = Vec::new();
    for family in FAMILIES {
        for kind in KINDS {
            let family = on(0, Eq, *family as u64)?;
            let kind = on(1, MaskedEq(KIND), *kind as u64)?;
            rules.push(SeccompRule::new(vec![family, kind])?);
        }
    }
    // What the C library asks for the host's addresses when it looks a name up.
    let family = on(0, Eq, c::AF_NETLINK as u64)?;
    let route = on(2, Eq, c::NETLINK_ROUTE as u64)?;
    rules.push(SeccompRule::new(vec![family, route])?);
    Ok(rules)
}

/// A condition on the lower half of an argument: all of an `int`.
fn on(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, Dword, op, value)
}

/// One of these must hold.
fn any(
    cases: impl IntoIterator<Item = Result<SeccompCondition, BackendError>>,
) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |case: Result<_, _>| SeccompRule::new(vec![case?]);
    cases.into_iter().map(rule).collect()
}
