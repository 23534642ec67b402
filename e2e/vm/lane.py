"""Tests run in the guest, and what came of each: a missing program fails there, a skipped test is told with its reason."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from xml.etree import ElementTree

from e2e.vm.guest import Guest

#: on the disk: /tmp is memory there, and images of volumes are large
_DIRECTORY = "/var/lib/trivet-lane"
_SLOW = "600"  # seconds for a test: it runs five to sixteen times as long as here


@dataclass(frozen=True)
class Lane:
    #: "directory.module::name[parameters]"
    passed: frozenset[str]
    #: reason by test
    skipped: dict[str, str]

    def reasons(self) -> set[str]:
        return set(self.skipped.values())


def run(guest: Guest, *arguments: str, seconds: float) -> Lane:
    """pytest with these arguments; AssertionError with its output when a test fails."""
    directory = f"{_DIRECTORY}-{secrets.token_hex(4)}"  # its own: what another lane left mounted is in nobody's way
    report = f"{directory}.xml"
    guest.run(
        "env", "CI=true", "./run", "test", "-p", "no:cacheprovider", "-o", f"timeout={_SLOW}", "--tb=short",
        f"--basetemp={directory}", "-o", "tmp_path_retention_policy=failed", f"--junitxml={report}", *arguments,
        seconds=seconds,
    )  # fmt: skip
    return _read(guest.run("cat", report, seconds=30))


def _read(report: str) -> Lane:
    passed, skipped = set(), {}
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        found = case.find("skipped")
        if found is None:
            passed.add(name)
        else:
            skipped[name] = found.get("message", "")
    return Lane(frozenset(passed), skipped)
