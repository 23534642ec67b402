"""Compiling OCI seccomp profiles."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from cri.translate.security import DEFAULT_CAPABILITIES, default_profile
from runtime_core.errors import InvalidArgument
from runtime_core.kernel import seccomp


def _profile(*rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW") -> dict[str, Any]:
    return {
        "defaultAction": default,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": list(rules),
    }


def test_program_is_an_array_of_instructions() -> None:
    """struct sock_filter has eight bytes."""
    program = seccomp.compile_profile(_profile({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}))
    assert program and len(program) % 8 == 0


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({}, "action"),
        ({"defaultAction": "SCMP_ACT_NOPE"}, "SCMP_ACT_NOPE"),
        (_profile({"names": ["mkdir"], "action": "SCMP_ACT_NOPE"}), "SCMP_ACT_NOPE"),
        (_profile({"action": "SCMP_ACT_ERRNO"}), r"syscalls\[0\]"),
        (_profile({"names": ["mkdir"]}), r"syscalls\[0\]"),
        (_profile({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "op": "x", "value": 1}]}), "'x'"),
        (_profile({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 9, "op": "SCMP_CMP_EQ", "value": 1}]}), r"syscalls\[0\]"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {"a": 1}}, "syscalls"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(profile: dict[str, Any], message: str) -> None:
    """Whatever a profile gets wrong is an InvalidArgument that says where."""
    with pytest.raises(InvalidArgument, match=message):
        seccomp.compile_profile(profile)


def test_unknown_system_calls_are_left_out() -> None:
    """A profile may name what this libseccomp has never heard of."""
    rules = {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO"}
    known = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}
    assert seccomp.compile_profile(_profile(rules)) == seccomp.compile_profile(_profile(known))


def test_two_conditions_on_one_argument_are_alternatives() -> None:
    """libseccomp refuses them in one rule; runc reads them as "or"."""
    comparisons = [{"index": 0, "op": "SCMP_CMP_EQ", "value": value} for value in (1, 2)]
    assert seccomp.compile_profile(_profile({"names": ["personality"], "action": "SCMP_ACT_ERRNO", "args": comparisons}))


def test_cache_compiles_once_and_survives(tmp_path: Path) -> None:
    """One compilation per content: from memory, then from disk, and not from a damaged file."""
    cache = seccomp.FilterCache(tmp_path / "filters")
    profile = _profile({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"})
    program = cache.program(profile)
    (kept,) = (tmp_path / "filters").iterdir()
    assert (tmp_path / "filters").stat().st_mode & 0o777 == 0o700
    assert seccomp.FilterCache(tmp_path / "filters").program(dict(reversed(profile.items()))) == program
    kept.write_bytes(b"torn")
    assert seccomp.FilterCache(tmp_path / "filters").program(profile) == program


def test_runtime_default_compiles_quickly() -> None:
    """The profile that every pod gets takes well under a second, once."""
    profile = default_profile(DEFAULT_CAPABILITIES)
    began = time.monotonic()
    program = seccomp.compile_profile(profile)
    assert time.monotonic() - began < 1
    assert len(program) // 8 < 4096  # BPF_MAXINSNS
