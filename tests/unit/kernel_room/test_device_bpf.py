"""The device program, run by an interpreter of the few instructions that it has."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime_core.errors import InvalidArgument
from runtime_core.kernel import device_bpf

_DENY_ALL = {"allow": False, "access": "rwm"}
_ALLOW_ALL = {"allow": True, "type": "a", "access": "rwm"}
_NULL = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
_MKNOD = [{"allow": True, "type": kind, "access": "m"} for kind in "cb"]
_TERMINALS = {"allow": True, "type": "c", "major": 136, "access": "rw"}
_ACCESS, _KINDS = {"m": 1, "r": 2, "w": 4}, {"b": 1, "c": 2}


@pytest.mark.parametrize(
    ("rules", "wanted", "allowed"),
    [
        ([_DENY_ALL], "c 1:3 r", False),
        ([_DENY_ALL, _NULL], "c 1:3 rw", True),
        ([_DENY_ALL, _NULL], "c 1:5 r", False),
        ([_DENY_ALL, _NULL], "b 1:3 r", False),
        ([_DENY_ALL, *_MKNOD], "b 8:0 m", True),
        ([_DENY_ALL, *_MKNOD], "b 8:0 rm", False),
        ([_DENY_ALL, _TERMINALS], "c 136:7 rw", True),
        ([_DENY_ALL, _TERMINALS], "c 136:7 m", False),
        ([_DENY_ALL, _TERMINALS, *_MKNOD], "c 136:7 rwm", True),
        ([_NULL, _DENY_ALL], "c 1:3 r", False),
        ([_DENY_ALL, _NULL, {**_NULL, "allow": False, "access": "w"}], "c 1:3 r", True),
        ([_DENY_ALL, _NULL, {**_NULL, "allow": False, "access": "w"}], "c 1:3 rw", False),
        ([{**_NULL, "allow": False}], "c 1:3 r", False),
        ([{**_NULL, "allow": False}], "c 1:5 r", True),
        ([_DENY_ALL, {**_NULL, "type": "u"}], "c 1:3 r", True),
        ([_DENY_ALL, {**_NULL, "major": -1}], "c 99:3 r", True),
        ([{"allow": False, "type": "a", "access": "w"}], "b 8:0 rw", False),
    ],
)
def test_the_last_rule_that_matches_decides(rules: list[dict[str, Any]], wanted: str, allowed: bool) -> None:
    """For each kind of access by itself; what no rule matches is allowed."""
    assert run(device_bpf.encode(rules), *_parse(wanted)) is allowed


_RULES = st.lists(
    st.fixed_dictionaries(
        {
            "allow": st.booleans(),
            "type": st.sampled_from("abc"),
            "major": st.sampled_from([None, 1, 2]),
            "minor": st.sampled_from([None, 3]),
            "access": st.sampled_from(["r", "w", "m", "rw", "rm", "rwm"]),
        }
    ),
    max_size=6,
)


@given(_RULES, st.sampled_from("bc"), st.integers(1, 3), st.integers(3, 4), st.sampled_from(["r", "w", "m", "rw", "rwm"]))
def test_the_program_is_the_rules(rules: list[dict[str, Any]], kind: str, major: int, minor: int, access: str) -> None:
    """It answers as going through the rules does, for each letter of the access."""

    def by_hand(letter: str) -> bool:
        answer = True
        for rule in rules:
            numbers = rule["major"] in (None, major) and rule["minor"] in (None, minor)
            if numbers and rule["type"] in ("a", kind) and letter in rule["access"]:
                answer = rule["allow"]
        return answer

    asked = sum(_ACCESS[letter] for letter in access), _KINDS[kind], major, minor
    assert run(device_bpf.encode(rules), *asked) is all(by_hand(letter) for letter in access)


@pytest.mark.parametrize("rules", [[], [_ALLOW_ALL], [_DENY_ALL, _ALLOW_ALL], [_NULL], [_DENY_ALL, _ALLOW_ALL, _NULL]])
def test_rules_that_forbid_nothing_need_no_program(rules: list[dict[str, Any]]) -> None:
    """A privileged container's cgroup gets none."""
    assert device_bpf.encode(rules) == b""


@pytest.mark.parametrize("rule", [{"allow": True, "type": "p"}, {"allow": True, "access": "rx"}])
def test_a_bad_rule_is_refused_by_number(rule: dict[str, Any]) -> None:
    """The message says which of the rules it is."""
    with pytest.raises(InvalidArgument, match=r"devices\[1\]"):
        device_bpf.encode([_DENY_ALL, rule])


def run(program: bytes, access: int, kind: int, major: int, minor: int) -> bool:
    """What the kernel does with the program, and with none; it must end by an exit, after jumps forward alone."""
    if not program:
        return True
    code = list(struct.iter_unpack("=BBhi", program))
    context = struct.pack("=III", access << 16 | kind, major, minor)
    registers: dict[int, int] = {}
    position = 0
    while True:
        operation, both, offset, immediate = code[position]
        target, source = both & 15, both >> 4
        position += 1
        match operation:
            case 0x61:
                assert source == 1
                registers[target] = struct.unpack_from("=I", context, offset)[0]
            case 0xB7:
                registers[target] = immediate
            case 0xBC:
                registers[target] = registers[source]
            case 0x54:
                registers[target] &= immediate
            case 0x74:
                registers[target] >>= immediate
            case 0x05 | 0x55 | 0x45:
                taken = {0x05: True, 0x55: registers.get(target) != immediate, 0x45: registers.get(target, 0) & immediate}
                assert offset > 0
                position += offset if taken[operation] else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(f"instruction {operation:#x}")


def _parse(wanted: str) -> tuple[int, int, int, int]:
    kind, numbers, access = wanted.split()
    major, _, minor = numbers.partition(":")
    return sum(_ACCESS[letter] for letter in access), _KINDS[kind], int(major), int(minor)
