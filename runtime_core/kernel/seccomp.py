"""OCI seccomp profiles to BPF programs, by libseccomp; compiled once and kept.

Compiling takes milliseconds and libseccomp, so it happens in the daemon (or in the OCI
command), never in a forked child: that gets the finished program.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import threading
from pathlib import Path
from typing import Any

from runtime_core.errors import FailedPrecondition, InvalidArgument

_ACTIONS = {
    "SCMP_ACT_KILL": "KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS": "KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD": "KILL_THREAD",
    "SCMP_ACT_TRAP": "TRAP",
    "SCMP_ACT_LOG": "LOG",
    "SCMP_ACT_ALLOW": "ALLOW",
}
_COMPARISONS = {
    "SCMP_CMP_NE": "NE", "SCMP_CMP_LT": "LT", "SCMP_CMP_LE": "LE", "SCMP_CMP_EQ": "EQ",
    "SCMP_CMP_GE": "GE", "SCMP_CMP_GT": "GT", "SCMP_CMP_MASKED_EQ": "MASKED_EQ",
}  # fmt: skip
_EPERM = 1
_GENERATION = 2  # of what this file makes of a profile: a kept program of another one is not used
#: classic BPF (linux/bpf_common.h): BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGT|BPF_K, BPF_RET|BPF_K
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _RETURN = 0x20, 0x15, 0x25, 0x06
_RETURN_ERRNO = 0x00050000
_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
_UNKNOWN = -1  # __NR_SCMP_ERROR
_OPTIMIZE, _BINARY_TREE = 8, 2  # SCMP_FLTATR_CTL_OPTIMIZE: log n instead of n comparisons per call


def compile_profile(profile: dict[str, Any]) -> bytes:
    """The BPF program of an OCI `linux.seccomp` object; syscalls that this machine lacks are left out.

    Raises InvalidArgument for what the profile gets wrong, FailedPrecondition without libseccomp.
    """
    try:
        # Not at module level: it loads libseccomp, which only this function needs.
        import pyseccomp  # type: ignore[import-untyped]
    except (ImportError, RuntimeError, OSError) as error:
        raise FailedPrecondition("seccomp needs the library libseccomp.so.2 (Debian: apt-get install libseccomp2)") from error
    default = _action(pyseccomp, profile.get("defaultAction", ""), profile.get("defaultErrnoRet"))
    program = pyseccomp.SyscallFilter(default)
    if not isinstance(profile.get("syscalls") or [], list):
        raise InvalidArgument("linux.seccomp.syscalls is not a list")
    for architecture in profile.get("architectures") or ():
        _add_architecture(pyseccomp, program, architecture)
    for number, rule in enumerate(profile.get("syscalls") or ()):
        try:
            _add_rule(pyseccomp, program, rule, default)
        except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
            raise InvalidArgument(f"linux.seccomp.syscalls[{number}]: {error!r}") from error
    try:
        program.set_attr(_OPTIMIZE, _BINARY_TREE)
    except (ValueError, OSError):
        pass  # libseccomp before 2.5
    descriptor = os.memfd_create("trivet-seccomp", os.MFD_CLOEXEC)
    with open(descriptor, "rb+") as file:
        program.export_bpf(file)
        file.seek(0)
        compiled = file.read()
    if profile["defaultAction"] != "SCMP_ACT_ERRNO" or "defaultErrnoRet" in profile:
        return compiled
    return _unknown_is_enosys(_highest(pyseccomp, profile)) + compiled


class FilterCache:
    """Compiled programs by the content of their profile, in memory and in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._programs: dict[str, bytes] = {}

    def program(self, profile: dict[str, Any]) -> bytes:
        """The BPF program of `profile`, compiled at its first use on this kernel; raises as `compile_profile`."""
        text = json.dumps(profile, sort_keys=True)
        key = hashlib.sha256(f"{_GENERATION} {os.uname().release} {text}".encode()).hexdigest()
        with self._lock:
            found = self._programs.get(key)
            if found is None:
                found = self._programs[key] = self._load(key) or self._compile(key, profile)
            return found

    def _load(self, key: str) -> bytes:
        try:
            content = (self._directory / key).read_bytes()
        except FileNotFoundError:
            return b""
        return content if len(content) % 8 == 0 else b""

    def _compile(self, key: str, profile: dict[str, Any]) -> bytes:
        program = compile_profile(profile)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._directory / f".{key}"
        temporary.write_bytes(program)
        temporary.rename(self._directory / key)
        return program


def _highest(library: Any, profile: dict[str, Any]) -> int:
    """The highest system call number that the profile has an opinion on."""
    names = {name for rule in profile.get("syscalls") or () for name in rule["names"]}
    return max((_resolve(library, name) for name in names), default=_UNKNOWN)


def _unknown_is_enosys(highest: int) -> bytes:
    """Instructions before a filter that answer ENOSYS above `highest` on the native architecture.

    A C library that tries a system call newer than the profile falls back after ENOSYS, and fails after
    the default of EPERM.
    """
    audit = _AUDIT_ARCHITECTURES.get(os.uname().machine)
    if audit is None or highest < 0:
        return b""
    return b"".join(
        struct.pack("=HBBI", code, if_true, if_false, value)
        for code, if_true, if_false, value in (
            (_LOAD, 0, 0, 4),  # seccomp_data.arch
            (_JUMP_EQUAL, 0, 3, audit),
            (_LOAD, 0, 0, 0),  # seccomp_data.nr
            (_JUMP_GREATER, 0, 1, highest),
            (_RETURN, 0, 0, _RETURN_ERRNO | errno.ENOSYS),
        )
    )


def _action(library: Any, name: str, errno_return: int | None) -> Any:
    if name == "SCMP_ACT_ERRNO":
        return library.ERRNO(_EPERM if errno_return is None else errno_return)
    if name == "SCMP_ACT_TRACE":
        return library.TRACE(errno_return or _EPERM)
    if name not in _ACTIONS:
        raise InvalidArgument(f"linux.seccomp: unknown action {name!r}")
    return getattr(library, _ACTIONS[name])


def _add_architecture(library: Any, program: Any, name: str) -> None:
    short = name.removeprefix("SCMP_ARCH_")
    architecture = getattr(library.Arch, short, None)
    if architecture is None:
        return  # one that this libseccomp has not heard of cannot be run here either
    try:
        program.add_arch(architecture)
    except (ValueError, RuntimeError, FileExistsError):
        return  # the native one is there from the start


def _add_rule(library: Any, program: Any, rule: dict[str, Any], default: Any) -> None:
    action = _action(library, rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    comparisons = [_comparison(library, argument) for argument in rule.get("args") or ()]
    for name in rule["names"]:
        if _is_known(library, name):
            _add(program, action, name, comparisons)


def _is_known(library: Any, name: str) -> bool:
    return _resolve(library, name) != _UNKNOWN


def _resolve(library: Any, name: str) -> int:
    try:
        return int(library.resolve_syscall(library.Arch.NATIVE, name))
    except (ValueError, OSError):
        return _UNKNOWN


def _add(program: Any, action: Any, name: str, comparisons: list[Any]) -> None:
    indices = [comparison[0] for comparison in comparisons]
    # libseccomp refuses two comparisons of one argument in one rule: they are alternatives then.
    groups = [[c] for c in comparisons] if len(set(indices)) != len(indices) else [comparisons]
    for group in groups:
        program.add_rule(action, name, *[c[1] for c in group])


def _comparison(library: Any, argument: dict[str, Any]) -> tuple[int, Any]:
    operator = _COMPARISONS.get(argument.get("op", ""))
    if operator is None:
        raise InvalidArgument(f"linux.seccomp: unknown comparison {argument.get('op')!r}")
    index, value = argument["index"], argument["value"]
    compare = getattr(library, operator)
    return index, library.Arg(index, compare, value, argument.get("valueTwo") or 0)
