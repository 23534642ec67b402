"""System calls that Python's os module lacks: one function each, raising OSError.

Cold: every CNI executable, the launcher and the monitor import this, so it takes
ctypes and os alone. No policy: what gets mounted where is decided above. Numbers
that libc has no wrapper for are those of the unified table (open_tree = 428 and
up), the same on every architecture that Trivet runs on.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False  # spares the cold start an import of typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

# clone / unshare / setns (include/uapi/linux/sched.h)
CLONE_NEWTIME = 0x80
CLONE_PARENT = 0x8000
CLONE_PIDFD = 0x1000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# mount(2), umount2(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_SYNCHRONOUS, MS_REMOUNT, MS_MANDLOCK, MS_DIRSYNC = 16, 32, 64, 128
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_MOVE, MS_REC = 1024, 2048, 4096, 8192, 16384
MS_SILENT, MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 32768, 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_STRICTATIME, MS_LAZYTIME = 1 << 21, 1 << 24, 1 << 25
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8

# the mount API by file descriptor (include/uapi/linux/mount.h)
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_SYMLINKS, MOVE_MOUNT_F_EMPTY_PATH = 0x1, 0x4
MOVE_MOUNT_T_SYMLINKS, MOVE_MOUNT_T_EMPTY_PATH = 0x10, 0x40
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_SET_BINARY, FSCONFIG_SET_PATH = 0, 1, 2, 3
FSCONFIG_SET_PATH_EMPTY, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE, FSCONFIG_CMD_RECONFIGURE = 4, 5, 6, 7
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR__ATIME, MOUNT_ATTR_RELATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME = 0x70, 0, 0x10, 0x20
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_IDMAP, MOUNT_ATTR_NOSYMFOLLOW = 0x80, 0x100000, 0x200000

# openat2(2)
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 1, 2, 4
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 8, 16

# prctl(2)
PR_SET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_KEEPCAPS = 1, 3, 4, 8
PR_SET_NAME, PR_GET_SECCOMP, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = 15, 21, 22, 23, 24
PR_GET_SECUREBITS, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP = 27, 28, 4
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4

# seccomp(2)
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1, 2, 4

CLOSE_RANGE_CLOEXEC = 4

# statfs(2)
PROC_SUPER_MAGIC = 0x9FA0

_NR_OPEN_TREE, _NR_MOVE_MOUNT, _NR_FSOPEN, _NR_FSCONFIG, _NR_FSMOUNT = 428, 429, 430, 431, 432
_NR_CLONE3, _NR_CLOSE_RANGE, _NR_OPENAT2, _NR_MOUNT_SETATTR = 435, 436, 437, 442
#: (seccomp, capget, capset, pivot_root, keyctl, bpf) where the tables differ
_NR_BY_MACHINE = {
    "x86_64": (317, 125, 126, 155, 250, 321),
    "aarch64": (277, 90, 91, 41, 219, 280),
    "riscv64": (277, 90, 91, 41, 219, 280),
}
_NR_SECCOMP, _NR_CAPGET, _NR_CAPSET, _NR_PIVOT_ROOT, _NR_KEYCTL, _NR_BPF = _NR_BY_MACHINE.get(
    os.uname().machine, _NR_BY_MACHINE["aarch64"]
)


def _check_errno(result: int, function: Any, arguments: tuple[Any, ...]) -> int:
    """Raise on -1, so that no caller can forget to look."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{function.__name__}: {os.strerror(code)}")
    return result


def _declare(name: str, *argtypes: Any) -> Callable[..., int]:
    function: Any = _libc[name]
    function.argtypes, function.restype, function.errcheck = argtypes, ctypes.c_int, _check_errno
    return function  # type: ignore[no-any-return]


_syscall = _libc["syscall"]
_syscall.restype = ctypes.c_long


def call(name: str, number: int, *arguments: Any, path: str | bytes | None = None) -> int:
    """Make the raw system call `number`; ints, bytes and ctypes references are passed as they are."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _syscall(ctypes.c_long(number), *converted)
    if result == -1:
        code = ctypes.get_errno()
        where = (os.fsdecode(path),) if path is not None else ()
        raise OSError(code, f"{name}: {os.strerror(code)}", *where)
    return result


unshare = _declare("unshare", ctypes.c_int)
setns = _declare("setns", ctypes.c_int, ctypes.c_int)
_mount = _declare("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = _declare("umount2", ctypes.c_char_p, ctypes.c_int)
_prctl = _declare("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
syncfs = _declare("syncfs", ctypes.c_int)
sethostname = _declare("sethostname", ctypes.c_char_p, ctypes.c_size_t)
setdomainname = _declare("setdomainname", ctypes.c_char_p, ctypes.c_size_t)
_fstatfs = _declare("fstatfs", ctypes.c_int, ctypes.c_void_p)
setfsuid = _libc["setfsuid"]  # both return the id before and cannot fail
setfsgid = _libc["setfsgid"]


def mount(source: str, target: str, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2) by path; only for paths that no container can change."""
    try:
        _mount(os.fsencode(source), os.fsencode(target), os.fsencode(fstype) or None, flags, os.fsencode(data))
    except OSError as error:
        error.filename = target
        raise


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    try:
        _umount2(os.fsencode(target), flags)
    except OSError as error:
        error.filename = target
        raise


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2)."""
    return _prctl(option, arg2, arg3, arg4, arg5)


def filesystem_type(descriptor: int) -> int:
    """f_type of fstatfs(2), such as PROC_SUPER_MAGIC; descriptors of O_PATH will do."""
    buffer = (ctypes.c_long * 32)()
    _fstatfs(descriptor, ctypes.addressof(buffer))
    return buffer[0]


def set_process_name(name: str) -> None:
    """PR_SET_NAME: what ps shows as comm, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    call("pivot_root", _NR_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old), path=new_root)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2(directory: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2); the new descriptor is close-on-exec. EAGAIN (a racing rename) is the caller's to retry."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return call(
        "openat2",
        _NR_OPENAT2,
        directory,
        os.fsencode(path),
        ctypes.byref(how),
        ctypes.sizeof(how),
        path=path,
    )


def open_tree(directory: int, path: str | bytes, flags: int) -> int:
    """open_tree(2): an O_PATH descriptor, with OPEN_TREE_CLONE of a detached copy."""
    return call("open_tree", _NR_OPEN_TREE, directory, os.fsencode(path), flags | OPEN_TREE_CLOEXEC, path=path)


def move_mount(
    from_fd: int,
    to_fd: int,
    *,
    from_path: str | bytes = "",
    to_path: str | bytes = "",
    flags: int = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
) -> None:
    call(
        "move_mount",
        _NR_MOVE_MOUNT,
        from_fd,
        os.fsencode(from_path),
        to_fd,
        os.fsencode(to_path),
        flags,
        path=to_path or None,
    )


def fsopen(fstype: str) -> int:
    return call("fsopen", _NR_FSOPEN, fstype.encode(), FSOPEN_CLOEXEC, path=fstype)


def fsconfig_flag(context: int, key: str) -> None:
    call("fsconfig", _NR_FSCONFIG, context, FSCONFIG_SET_FLAG, key.encode(), None, 0, path=key)


def fsconfig_string(context: int, key: str, value: str | bytes) -> None:
    call(
        "fsconfig",
        _NR_FSCONFIG,
        context,
        FSCONFIG_SET_STRING,
        key.encode(),
        os.fsencode(value),
        0,
        path=key,
    )


def fsconfig_fd(context: int, key: str, descriptor: int) -> None:
    call("fsconfig", _NR_FSCONFIG, context, FSCONFIG_SET_FD, key.encode(), None, descriptor, path=key)


def fsconfig_create(context: int) -> None:
    call("fsconfig", _NR_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(context: int, attributes: int = 0) -> int:
    return call("fsmount", _NR_FSMOUNT, context, FSMOUNT_CLOEXEC, attributes)


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def mount_setattr(
    directory: int,
    path: str | bytes = "",
    *,
    flags: int = AT_EMPTY_PATH,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2): change the attributes of a mount, with AT_RECURSIVE of all below it."""
    attr = _MountAttr(attr_set, attr_clr, propagation, userns_fd)
    call(
        "mount_setattr",
        _NR_MOUNT_SETATTR,
        directory,
        os.fsencode(path),
        flags,
        ctypes.byref(attr),
        ctypes.sizeof(attr),
        path=path or None,
    )


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """close_range(2), both ends included."""
    call("close_range", _NR_CLOSE_RANGE, first, last, flags)


def close_all_except(kept: set[int]) -> None:
    """Close every descriptor above 2 that is not in `kept`."""
    first = 3
    for descriptor in sorted(fd for fd in kept if fd > 2):
        if descriptor > first:
            close_range(first, descriptor - 1)
        first = descriptor + 1
    close_range(first)


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


def clone3(flags: int, exit_signal: int = 17, cgroup_fd: int = 0) -> tuple[int, int]:
    """Fork with clone flags from a SINGLE-THREADED process.

    Returns (pid, pidfd) in the parent, (0, -1) in the child. Python's own fork
    hooks run, so the child is a sound interpreter. `cgroup_fd` is used with
    CLONE_INTO_CGROUP (cgroup v2).
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(flags=flags | CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=exit_signal)
    args.cgroup = cgroup_fd
    reference, size, number = ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args)), ctypes.c_long(_NR_CLONE3)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _syscall(number, reference, size)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    code = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid == -1:
        raise OSError(code, f"clone3: {os.strerror(code)}")
    return pid, pidfd.value


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    ]


_CAPABILITY_VERSION_3 = 0x20080522


def capget(pid: int = 0) -> tuple[int, int, int]:
    """(effective, permitted, inheritable) as 64-bit masks."""
    header, data = _CapHeader(_CAPABILITY_VERSION_3, pid), (_CapData * 2)()
    call("capget", _NR_CAPGET, ctypes.byref(header), ctypes.byref(data))
    return (
        data[0].effective | data[1].effective << 32,
        data[0].permitted | data[1].permitted << 32,
        data[0].inheritable | data[1].inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of this process, with 64-bit masks."""
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    for half in (0, 1):
        shift = 32 * half
        data[half].effective = effective >> shift & 0xFFFFFFFF
        data[half].permitted = permitted >> shift & 0xFFFFFFFF
        data[half].inheritable = inheritable >> shift & 0xFFFFFFFF
    call("capset", _NR_CAPSET, ctypes.byref(header), ctypes.byref(data))


class _SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def seccomp_set_filter(program: bytes, flags: int = 0) -> None:
    """Load a compiled BPF program (array of struct sock_filter, 8 bytes each)."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    call("seccomp", _NR_SECCOMP, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(fprog))


def new_session_keyring(name: str) -> None:
    """Join a new session keyring (KEYCTL_JOIN_SESSION_KEYRING), so that none is shared with the host."""
    call("keyctl", _NR_KEYCTL, 1, name.encode())


def bpf(command: int, attributes: ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2); `attributes` is the leading part of union bpf_attr, into which the kernel may write."""
    return call("bpf", _NR_BPF, command, ctypes.byref(attributes), len(attributes))
