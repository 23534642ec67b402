"""OCI seccomp profiles to BPF programs, by libseccomp; compiled once and kept.

Compiling takes milliseconds and libseccomp, so it happens in the daemon (or in the OCI
command), never in a forked child: that gets the finished program.
"""

from __future__ import annotations

import hashlib
import json
import os
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
_UNKNOWN = -1  # __NR_SCMP_ERROR
_OPTIMIZE, _BINARY_TREE = 8, 2  # SCMP_FLTATR_CTL_OPTIMIZE: log n instead of n comparisons per call


def compile_profile(profile: dict[str, Any]) -> bytes:
    """The BPF program of an OCI `linux.seccomp` object; syscalls that this machine lacks are left out.

    Raises InvalidArgument for what the profile gets wrong, FailedPrecondition without libseccomp.
    """
    try:
        import pyseccomp  # not at module level: it loads libseccomp, which only this function needs
    except (ImportError, RuntimeError, OSError) as error:
        raise FailedPrecondition(
            "seccomp needs the library libseccomp.so.2 (Debian: apt-get install libseccomp2)"
        ) from error
    default = _action(pyseccomp, profile.get("defaultAction", ""), profile.get("defaultErrnoRet"))
    program = pyseccomp.SyscallFilter(default)
    for architecture in profile.get("architectures") or ():
        _add_architecture(pyseccomp, program, architecture)
    for rule in profile.get("syscalls") or ():
        _add_rule(pyseccomp, program, rule, default)
    try:
        program.set_attr(_OPTIMIZE, _BINARY_TREE)
    except (ValueError, OSError):
        pass  # libseccomp before 2.5
    descriptor = os.memfd_create("trivet-seccomp", os.MFD_CLOEXEC)
    with open(descriptor, "rb+") as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


class FilterCache:
    """Compiled programs by the content of their profile, in memory and in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._programs: dict[str, bytes] = {}

    def program(self, profile: dict[str, Any]) -> bytes:
        text = json.dumps(profile, sort_keys=True)
        key = hashlib.sha256(f"{os.uname().release} {text}".encode()).hexdigest()
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
    try:
        return bool(library.resolve_syscall(library.Arch.NATIVE, name) != _UNKNOWN)
    except (ValueError, OSError):
        return False


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
