"""The executables' machine code: it is what its source says, and the file around it is what the kernel loads."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

import cni_plugins
from cni_plugins.native import executable
from cni_plugins.native_code import X86_64
from runtime_core.testing.tools import require_program


def test_the_code_is_its_source_assembled(tmp_path: Path) -> None:
    """Byte for byte."""
    assembler, copier = require_program("as", "binutils"), require_program("objcopy", "binutils")
    source = Path(cni_plugins.__file__).with_name("native_x86_64.s")
    subprocess.run([assembler, "--64", "-o", tmp_path / "o", source], check=True)
    subprocess.run([copier, "-O", "binary", "-j", ".text", tmp_path / "o", tmp_path / "bin"], check=True)
    assert (tmp_path / "bin").read_bytes() == X86_64


def test_the_file_is_loaded_without_memory_that_is_writable_and_executable() -> None:
    """By its program headers (elf(5)); the mark stands where `trivet-cni install` looks for it."""
    content = executable(b"# trivet-cni stub: x\n", "/run/s.sock", b"key\0kind\0", "/usr/bin/python3", "pass")
    assert content[:4] == b"\x7fELF"
    assert b"# trivet-cni stub" in content[:256]
    entry, offset = struct.unpack_from("<QQ", content, 24)
    size, count = struct.unpack_from("<HH", content, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", content, offset + number * size) for number in range(count)]
    assert all(flags & 3 != 3 for _kind, flags, *_rest in segments)
    assert [length for kind, _flags, _offset, _virtual, _physical, length, *_rest in segments if kind == 1] == [len(content), 0]
    assert content[entry - 0x400000 :].startswith(X86_64)


def test_a_path_that_no_address_holds_is_refused() -> None:
    """sockaddr_un has 108 bytes."""
    executable(b"", "/" * 107, b"", "", "")
    with pytest.raises(ValueError, match="longer than 107"):
        executable(b"", "/" * 108, b"", "", "")
