"""What is read from an OCI process before anything is forked."""

from __future__ import annotations

from typing import Any

import pytest

from runtime_core.container import devices, messages
from runtime_core.container.credentials import Credentials
from runtime_core.container.program import Program
from runtime_core.errors import DeadlineExceeded, InvalidArgument, NotFound, PermissionDenied, TrivetError


def test_environment_last_entry_wins() -> None:
    """As with env(1): a later entry replaces an earlier one; a value may contain "="."""
    program = Program({"args": ["x"], "env": ["A=1", "B=x=y", "A=2"]})
    assert program.environment == {"A": "2", "B": "x=y"}


@pytest.mark.parametrize(
    ("name", "path", "candidates"),
    [
        ("sh", "PATH=/a:/b", ["/a/sh", "/b/sh"]),
        ("sh", "PATH=:/b", ["./sh", "/b/sh"]),
        ("./sh", "PATH=/a", ["./sh"]),
        ("/x/sh", "PATH=/a", ["/x/sh"]),
    ],
)
def test_candidates(name: str, path: str, candidates: list[str]) -> None:
    """A name with a slash is taken as it is (execvp(3))."""
    program = Program({"args": [name], "env": [path]})
    assert program._candidates(name) == candidates


@pytest.mark.parametrize("args", [None, [], [""]])
def test_a_program_is_needed(args: Any) -> None:
    """Neither the container nor the image named one."""
    with pytest.raises(InvalidArgument, match="process.args"):
        Program({"args": args})


@pytest.mark.parametrize("groups", [[-1], [2**31], ["a"], [True]])
def test_groups_are_bounded(groups: list[Any]) -> None:
    """Every id is 0..2^31-1."""
    with pytest.raises(InvalidArgument, match="process.user.additionalGids"):
        Credentials({"user": {"additionalGids": groups}}, b"")


def test_default_devices_are_allowed_after_a_deny() -> None:
    """Where rules exist the default devices are added; without, or with all allowed, nothing changes."""
    assert devices.with_default_rules({}) == {}
    everything = {"devices": [{"allow": True, "access": "rwm"}]}
    assert devices.with_default_rules(everything) is everything
    found = devices.with_default_rules({"devices": [{"allow": False, "access": "rwm"}], "cpu": {}})
    assert found["devices"][0] == {"allow": False, "access": "rwm"}
    assert {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"} in found["devices"]
    assert found["cpu"] == {}
    again = devices.with_default_rules(found)
    assert len(again["devices"]) == len(found["devices"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotFound("x"), NotFound),
        (OSError(13, "permission denied", "/x"), PermissionDenied),
        (ValueError("x"), TrivetError),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), TrivetError),
        (NotFound("\udcff" + "x" * 100_000), NotFound),
        (NotFound("\U0001f600" * 100_000), NotFound),
    ],
)
def test_failures_cross_the_channel(error: Exception, kind: type[TrivetError]) -> None:
    """Whatever goes wrong in a child is raised by its parent, as the same kind, however long it is."""
    ours, theirs = messages.socket_pair()
    with ours, theirs:
        messages.send_failure(theirs, error, "doing something")
        with pytest.raises(kind):
            messages.receive(ours)


def test_silence_has_an_end() -> None:
    """A child that hangs in a dead file system does not take its parent with it."""
    ours, theirs = messages.socket_pair()
    with ours, theirs:
        ours.settimeout(0.01)
        with pytest.raises(DeadlineExceeded):
            messages.receive(ours)


def test_end_of_the_conversation() -> None:
    """A closed channel is an empty message, not an error."""
    ours, theirs = messages.socket_pair()
    theirs.close()
    with ours:
        assert messages.receive(ours) == (b"", b"", [])
