"""Capabilities by name (capabilities(7)), and the order in which a process gives them up. Cold."""

from __future__ import annotations

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import syscalls

#: Position is the number (include/uapi/linux/capability.h).
NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
_NUMBERS = {"CAP_" + name: number for number, name in enumerate(NAMES)}


def mask(names: list[str] | tuple[str, ...], field: str) -> int:
    """Bit mask of names such as CAP_CHOWN; InvalidArgument naming `field` for an unknown one."""
    bits = 0
    for name in names:
        number = _NUMBERS.get(name)
        if number is None:
            raise InvalidArgument(f"{field}: unknown capability {name!r}")
        bits |= 1 << number
    return bits


def names(bits: int) -> list[str]:
    """Names of the capabilities in the mask `bits`, by number."""
    return [name for name, number in _NUMBERS.items() if bits >> number & 1]


def machine() -> list[str]:
    """The capabilities that this process can hand on: its bounding set and what it holds itself."""
    _effective, permitted, _inheritable = syscalls.capget()
    return [name for name, number in _NUMBERS.items() if permitted >> number & 1 and _is_bounding(number)]


def limit_bounding(kept: int) -> None:
    """Drop everything but `kept` from the bounding set; needs CAP_SETPCAP."""
    for number in range(len(NAMES) + 23):
        if not kept >> number & 1:
            try:
                syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
            except OSError:
                if number < len(NAMES):
                    raise
                return  # beyond the kernel's last capability


def apply(effective: int, permitted: int, ambient: int) -> None:
    """Set the sets of this process. The inheritable set holds the ambient ones, which the kernel
    demands, and is empty otherwise (CVE-2022-24769)."""
    syscalls.capset(effective, permitted, ambient)
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(len(NAMES)):
        if ambient >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)


def _is_bounding(number: int) -> bool:
    try:
        return syscalls.prctl(syscalls.PR_CAPBSET_READ, number) == 1
    except OSError:
        return False  # EINVAL: the kernel does not know it
