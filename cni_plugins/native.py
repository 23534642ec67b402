"""An executable that asks the service without an interpreter: an ELF file from machine code and its parameters; pure."""

from __future__ import annotations

import os
import struct

from cni_plugins.native_code import X86_64
from cni_plugins.protocol import ACCEPT_SECONDS, ANSWER_SECONDS, NO_SERVICE, SERVICE_DIED, SERVICE_HUNG

_BASE, _ENTRY_ALIGNMENT = 0x400000, 16
_ZEROES, _ZEROES_LENGTH = 0x10000000, 0x1001000  # TEXT, REPLY and SCRATCH of native_x86_64.s
_ELF = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_EXECUTABLE, _MACHINE_X86_64 = 2, 62
_LOAD, _STACK = 1, 0x6474E551
_READ, _WRITE, _EXECUTE = 4, 2, 1
_PARAMETERS = struct.Struct("<Q120s8Q4Q")
#: opened to tell the service where the caller is
_OPENED = (("/proc/self/ns/net", 0), ("/proc/self/ns/mnt", 0), ("/", 0o10000000), (".", 0o10000000))
_LONGEST_SOCKET = 107


def executable(
    mark: bytes, socket: str, prefix: bytes, python: str, code: str, patience: tuple[int, int] = (ACCEPT_SECONDS, ANSWER_SECONDS)
) -> bytes:
    """For Linux on x86-64. `mark` is text for whoever looks into the file; `prefix` begins each request to `socket`;
    where something else is to be decided, it becomes `python -IS -c code`. `patience`: seconds in which the
    service takes a call, and in which it answers it then.

    ValueError for a socket whose path is too long for an address.
    """
    address = os.fsencode(socket)
    if len(address) > _LONGEST_SOCKET:
        raise ValueError(f"{socket}: longer than {_LONGEST_SOCKET} bytes")
    head = _ELF.size + 3 * _SEGMENT.size
    start = -(-(head + len(mark)) // _ENTRY_ALIGNMENT) * _ENTRY_ALIGNMENT
    pool = _Pool(_BASE + start + len(X86_64) + _PARAMETERS.size)
    parameters = _parameters(pool, address, prefix, python, code, patience)
    content = mark.ljust(start - head, b"\0") + X86_64 + parameters + bytes(pool.content)
    length = head + len(content)
    identity = b"\x7fELF\x02\x01\x01"
    elf = _ELF.pack(
        identity, _EXECUTABLE, _MACHINE_X86_64, 1, _BASE + start, _ELF.size, 0, 0, _ELF.size, _SEGMENT.size, 3, 0, 0, 0
    )
    segments = _SEGMENT.pack(_LOAD, _READ | _EXECUTE, 0, _BASE, _BASE, length, length, 0x1000)
    segments += _SEGMENT.pack(_LOAD, _READ | _WRITE, 0, _ZEROES, _ZEROES, 0, _ZEROES_LENGTH, 0x1000)
    segments += _SEGMENT.pack(_STACK, _READ | _WRITE, 0, 0, 0, 0, 0, 16)
    return elf + segments + content


class _Pool:
    """Strings and tables after the parameters, each by its address in memory."""

    def __init__(self, address: int) -> None:
        self._address, self.content = address, bytearray()

    def put(self, content: bytes) -> int:
        self.content += bytes(-len(self.content) % 8)
        place = self._address + len(self.content)
        self.content += content
        return place

    def text(self, text: str) -> int:
        return self.put(os.fsencode(text) + b"\0")

    def table(self, *numbers: int) -> int:
        return self.put(struct.pack(f"<{len(numbers)}Q", *numbers))


def _parameters(pool: _Pool, address: bytes, prefix: bytes, python: str, code: str, patience: tuple[int, int]) -> bytes:
    """In the order of native_x86_64.s."""
    program = pool.text(python)
    words = [program, *(pool.text(word) for word in ("-IS", "-c", code))]
    died, alone, hung = (pool.table(*words, pool.text(word), 0) for word in (SERVICE_DIED, NO_SERVICE, SERVICE_HUNG))
    paths = [number for path, flags in _OPENED for number in (pool.text(path), flags | os.O_CLOEXEC)]
    return _PARAMETERS.pack(
        2 + len(address) + 1,
        struct.pack("<H", 1) + address,
        pool.put(prefix),
        len(prefix),
        program,
        pool.table(*words, 0),
        died,
        alone,
        pool.table(*paths),
        hung,
        *(number for seconds in patience for number in (seconds, 0)),
    )
