// SPDX-License-Identifier: AGPL-3.0-or-later
//! The system calls that a program of an image may use: those of shells, and of copying, compressing and
//! linking programs. Every other call fails with ENOSYS, including calls that later kernels add.
//!
//! Deliberately absent: mounts, namespaces, modules, keys, tracing, other processes' memory, bpf, perf,
//! io_uring, userfaultfd, file handles, clocks, swap, reboot, device nodes.

use std::collections::BTreeMap;

use anyhow::Context;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Every flag of clone(2) that creates a namespace.
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;
/// The bits of mknod(2)'s second argument that hold the file type.
const TYPE_BITS: u64 = libc::S_IFMT as u64;
/// Allowed with any arguments.
#[rustfmt::skip]
const ALLOWED: &[libc::c_long] = &[
    // Files.
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64,
    libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2,
    libc::SYS_open, libc::SYS_openat, libc::SYS_openat2, libc::SYS_creat, libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek, libc::SYS_dup, libc::SYS_dup2, libc::SYS_dup3, libc::SYS_fcntl,
    libc::SYS_flock, libc::SYS_ioctl, libc::SYS_stat, libc::SYS_fstat, libc::SYS_lstat,
    libc::SYS_newfstatat, libc::SYS_statx, libc::SYS_access, libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents, libc::SYS_getdents64, libc::SYS_getcwd, libc::SYS_chdir, libc::SYS_fchdir,
    libc::SYS_rename, libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_mkdir, libc::SYS_mkdirat,
    libc::SYS_rmdir, libc::SYS_link, libc::SYS_linkat,
    libc::SYS_unlink, libc::SYS_unlinkat, libc::SYS_symlink, libc::SYS_symlinkat,
    libc::SYS_readlink, libc::SYS_readlinkat, libc::SYS_chmod, libc::SYS_fchmod, libc::SYS_fchmodat,
    libc::SYS_fchmodat2, libc::SYS_chown, libc::SYS_fchown, libc::SYS_lchown, libc::SYS_fchownat,
    libc::SYS_umask, libc::SYS_truncate, libc::SYS_ftruncate, libc::SYS_fallocate,
    libc::SYS_fadvise64, libc::SYS_readahead, libc::SYS_sync, libc::SYS_fsync, libc::SYS_fdatasync,
    libc::SYS_syncfs, libc::SYS_sync_file_range,
    libc::SYS_utime, libc::SYS_utimes, libc::SYS_utimensat, libc::SYS_futimesat, libc::SYS_statfs,
    libc::SYS_fstatfs, libc::SYS_ustat, libc::SYS_sendfile, libc::SYS_splice, libc::SYS_tee,
    libc::SYS_vmsplice, libc::SYS_copy_file_range,
    libc::SYS_getxattr, libc::SYS_lgetxattr, libc::SYS_fgetxattr, libc::SYS_listxattr,
    libc::SYS_llistxattr, libc::SYS_flistxattr, libc::SYS_setxattr, libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr, libc::SYS_lremovexattr, libc::SYS_fremovexattr,
    libc::SYS_memfd_create, libc::SYS_inotify_init, libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch,
    // Waiting.
    libc::SYS_poll, libc::SYS_ppoll, libc::SYS_select, libc::SYS_pselect6, libc::SYS_epoll_create,
    libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_wait, libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd, libc::SYS_eventfd2, libc::SYS_timerfd_create, libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime, libc::SYS_signalfd, libc::SYS_signalfd4, libc::SYS_pipe,
    libc::SYS_pipe2,
    libc::SYS_nanosleep, libc::SYS_clock_nanosleep, libc::SYS_pause, libc::SYS_alarm,
    libc::SYS_getitimer, libc::SYS_setitimer,
    libc::SYS_timer_create, libc::SYS_timer_settime, libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun, libc::SYS_timer_delete,
    // Memory.
    libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_mprotect, libc::SYS_madvise,
    libc::SYS_brk, libc::SYS_msync, libc::SYS_mincore, libc::SYS_mlock, libc::SYS_mlock2,
    libc::SYS_munlock, libc::SYS_membarrier,
    libc::SYS_pkey_alloc, libc::SYS_pkey_free, libc::SYS_pkey_mprotect, libc::SYS_rseq,
    // Processes.
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_execve, libc::SYS_execveat, libc::SYS_exit,
    libc::SYS_exit_group, libc::SYS_wait4, libc::SYS_waitid, libc::SYS_kill, libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_getpid, libc::SYS_getppid, libc::SYS_gettid, libc::SYS_getpgid, libc::SYS_setpgid,
    libc::SYS_getpgrp, libc::SYS_getsid, libc::SYS_setsid,
    libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getresuid,
    libc::SYS_getresgid, libc::SYS_getgroups, libc::SYS_setuid, libc::SYS_setgid,
    libc::SYS_setreuid, libc::SYS_setregid,
    libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setgroups, libc::SYS_setfsuid,
    libc::SYS_setfsgid, libc::SYS_capget, libc::SYS_capset, libc::SYS_prctl, libc::SYS_arch_prctl,
    libc::SYS_getrlimit, libc::SYS_setrlimit, libc::SYS_prlimit64, libc::SYS_getrusage,
    libc::SYS_getpriority, libc::SYS_setpriority, libc::SYS_ioprio_get, libc::SYS_ioprio_set,
    libc::SYS_times,
    libc::SYS_sched_yield, libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity,
    libc::SYS_sched_getparam, libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max, libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval, libc::SYS_sched_getattr, libc::SYS_getcpu,
    libc::SYS_set_tid_address, libc::SYS_set_robust_list, libc::SYS_get_robust_list,
    libc::SYS_futex, libc::SYS_futex_waitv, libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask, libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigpending, libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo, libc::SYS_sigaltstack,
    libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal,
    // The system.
    libc::SYS_uname, libc::SYS_sysinfo, libc::SYS_gettimeofday, libc::SYS_time,
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_getrandom,
    // Operations on sockets. Only AF_UNIX sockets can be created.
    libc::SYS_connect, libc::SYS_bind, libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4,
    libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown, libc::SYS_getsockname, libc::SYS_getpeername, libc::SYS_getsockopt,
    libc::SYS_setsockopt,
];

/// Applies the filter to this thread and to all its descendants.
pub fn filter() -> anyhow::Result<()> {
    let program: BpfProgram = rules()?.try_into().context("compile the rules")?;
    Ok(seccompiler::apply_filter(&program)?)
}

fn rules() -> anyhow::Result<SeccompFilter> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    let masked = |argument: u8, mask: u64, value: u64| {
        let operator = SeccompCmpOp::MaskedEq(mask);
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    // clone3(2) passes its flags in memory, where the filter cannot read them. Without it, libraries use clone(2).
    rules.insert(libc::SYS_clone, vec![masked(0, NAMESPACES, 0)?]);
    let domain = u64::from(u32::MAX);
    let unix = libc::AF_UNIX as u64;
    rules.insert(libc::SYS_socket, vec![masked(0, domain, unix)?]);
    rules.insert(libc::SYS_socketpair, vec![masked(0, domain, unix)?]);
    let fifo = u64::from(libc::S_IFIFO);
    rules.insert(libc::SYS_mknod, vec![masked(1, TYPE_BITS, fifo)?]);
    rules.insert(libc::SYS_mknodat, vec![masked(2, TYPE_BITS, fifo)?]);
    let other = SeccompAction::Errno(libc::ENOSYS as u32);
    Ok(SeccompFilter::new(rules, other, SeccompAction::Allow, TargetArch::x86_64)?)
}
