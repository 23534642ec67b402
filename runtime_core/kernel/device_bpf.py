"""Device rules of a cgroup v2: the eBPF program that decides over each opening and making of a device. Cold.

OCI's rules count in their order, and of those that match the last one; so the program tries them from
the last to the first. An access of several kinds (r, w, m) is allowed when each of them is.
"""

from __future__ import annotations

import ctypes
import os
import struct

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# include/uapi/linux/bpf.h
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE = 15, 6
_F_ALLOW_MULTI, _F_REPLACE = 2, 4
_ACCESS = {"m": 1, "r": 2, "w": 4}
_KINDS = {"a": 0, "b": 1, "c": 2, "u": 2}
_EVERY_ACCESS = 7
_EVERYTHING = [0, -1, -1, _EVERY_ACCESS]
_MAX_PROGRAMS = 64

# instructions: class, operation and operand (immediate) of include/uapi/linux/bpf_common.h
_LOAD, _MOVE, _MOVE_REGISTER, _AND, _SHIFT_RIGHT = 0x61, 0xB7, 0xBC, 0x54, 0x74
_JUMP, _JUMP_UNEQUAL, _JUMP_ANY_BIT, _EXIT = 0x05, 0x55, 0x45, 0x95
_RESULT, _CONTEXT, _KIND, _WANTED, _MAJOR, _MINOR = range(6)


def encode(rules: list[dict[str, Any]]) -> bytes:
    """The program for `linux.resources.devices`; b"" when they forbid nothing. Pure.

    What no rule matches is allowed, as in a new cgroup v1."""
    counting: list[tuple[bool, int, int, int, int]] = []
    default = True
    for number, rule in enumerate(rules):
        allow, *what = parsed = _parse(rule, f"linux.resources.devices[{number}]")
        if what == _EVERYTHING:  # those before it never count
            counting, default = [], allow
        else:
            counting.append(parsed)
    if default and all(allow for allow, *_what in counting):
        return b""
    # struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor
    code = [
        _instruction(_LOAD, _KIND, _CONTEXT, 0),
        _instruction(_LOAD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD, _MINOR, _CONTEXT, 8),
        _instruction(_MOVE_REGISTER, _WANTED, _KIND),
        _instruction(_SHIFT_RIGHT, _WANTED, immediate=16),
        _instruction(_AND, _KIND, immediate=0xFFFF),
    ]
    for parsed in reversed(counting):
        code += _rule(*parsed)
    return b"".join([*code, *_answer(default)])


def replace(cgroup: str, program: bytes) -> None:
    """Attach `program` (b"": none) to the cgroup directory, in the place of what it had."""
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened = [directory]
    try:
        for number in _attached(directory):
            opened.append(syscalls.bpf(_PROG_GET_FD_BY_ID, _attributes("III", number, 0, 0)))
        earlier = opened[1:]
        if program:
            new = _load(program)
            opened.append(new)
            flags = _F_ALLOW_MULTI | (_F_REPLACE if earlier else 0)
            replaced = earlier.pop(0) if earlier else 0
            syscalls.bpf(_PROG_ATTACH, _attributes("IIIII", directory, new, _CGROUP_DEVICE, flags, replaced))
        for descriptor in earlier:
            syscalls.bpf(_PROG_DETACH, _attributes("III", directory, descriptor, _CGROUP_DEVICE))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _parse(rule: dict[str, Any], field: str) -> tuple[bool, int, int, int, int]:
    """(allow, kind, major, minor, access); 0 and -1 are any."""
    kind = _KINDS.get(rule.get("type") or "a")
    if kind is None:
        raise InvalidArgument(f"{field}.type: {rule['type']!r} is not one of a, b, c, u")
    access = 0
    for letter in rule.get("access") or "rwm":
        if letter not in _ACCESS:
            raise InvalidArgument(f"{field}.access: {letter!r} is not one of r, w, m")
        access |= _ACCESS[letter]
    numbers = [-1 if rule.get(key) is None else rule[key] for key in ("major", "minor")]
    return bool(rule["allow"]), kind, max(-1, numbers[0]), max(-1, numbers[1]), access


def _rule(allow: bool, kind: int, major: int, minor: int, access: int) -> list[bytes]:
    """Answer when this rule decides what is still asked for; otherwise run on to the next one."""
    if allow:
        verdict = [
            _instruction(_AND, _WANTED, immediate=~access & _EVERY_ACCESS),
            _instruction(_JUMP_UNEQUAL, _WANTED, offset=2),
            *_answer(True),
        ]
    else:
        verdict = [
            _instruction(_JUMP_ANY_BIT, _WANTED, offset=1, immediate=access),
            _instruction(_JUMP, offset=2),
            *_answer(False),
        ]
    checks = [
        (register, wanted)
        for register, wanted, is_any in ((_KIND, kind, kind == 0), (_MAJOR, major, major < 0), (_MINOR, minor, minor < 0))
        if not is_any
    ]
    left = len(checks) + len(verdict)
    found = []
    for register, wanted in checks:
        left -= 1
        found.append(_instruction(_JUMP_UNEQUAL, register, offset=left, immediate=wanted))
    return found + verdict


def _answer(allow: bool) -> list[bytes]:
    return [_instruction(_MOVE, _RESULT, immediate=int(allow)), _instruction(_EXIT)]


def _instruction(operation: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    """struct bpf_insn."""
    return struct.pack("=BBhi", operation, source << 4 | target, offset, immediate)


def _attached(directory: int) -> list[int]:
    """Ids of the programs that this very cgroup has."""
    ids = (ctypes.c_uint32 * _MAX_PROGRAMS)()
    query = _attributes("IIIIQI", directory, _CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), _MAX_PROGRAMS)
    syscalls.bpf(_PROG_QUERY, query)
    return list(ids[: struct.unpack_from("=IIIIQI", query)[5]])


def _load(program: bytes) -> int:
    code, terms = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"Apache-2.0")
    values = _PROG_TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code), ctypes.addressof(terms)
    return syscalls.bpf(_PROG_LOAD, _attributes("IIQQ", *values))


def _attributes(layout: str, *values: int) -> ctypes.Array[ctypes.c_char]:
    packed = struct.pack("=" + layout, *values)
    return ctypes.create_string_buffer(packed, len(packed))
