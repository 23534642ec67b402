"""The launcher serves whoever asks rightly after one who did not: all pods' processes come from it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime_core.errors import ResourceExhausted, Unavailable
from runtime_core.launcher import messages
from runtime_core.launcher.client import Launcher


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    launcher = Launcher.start(["gc", "json"])
    yield launcher
    launcher.close()


@pytest.mark.parametrize("job", ["json:nothing", "nothing:at_all", ":", ""])
def test_a_job_that_is_not_there_is_refused(launcher: Launcher, job: str) -> None:
    """By its name."""
    with pytest.raises(Unavailable, match="not preloaded"):
        launcher.fork(job, {})


@pytest.mark.parametrize(
    "packet", [b"no JSON", b"{}", b'{"id": 99}', b'{"id": 99, "job": 7}', b'{"id": 99, "job": "gc:collect"}', b"[]", b"7"]
)
def test_what_is_no_request_costs_nothing(launcher: Launcher, packet: bytes) -> None:
    """The same process serves the next one."""
    before = launcher.pid
    launcher._socket.send(packet)
    # A job that cannot be called so ends with an exit status of its own.
    assert launcher.fork("gc:collect", {}).wait(20) == 1
    assert launcher.pid == before


def test_a_message_beyond_the_limit_is_the_senders_matter(launcher: Launcher) -> None:
    """A kind of error that has a status, and the next call is served."""
    with pytest.raises(ResourceExhausted, match="over the limit"):
        launcher.fork("gc:collect", {"x": "a" * messages.LIMIT})
    assert launcher.fork("gc:collect", {}).wait(20) == 1
