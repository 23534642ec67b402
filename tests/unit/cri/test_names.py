"""Durations and paths as callers write them, and by what a container's request is known again."""

from __future__ import annotations

from typing import Any

import pytest

from cri.api.v1 import api_pb2 as api
from cri.translate import names
from cri.translate.identity import container_digest
from runtime_core.errors import InvalidArgument

_TERMINATION = {"io.kubernetes.container.terminationMessagePath": "/dev/termination-log"}


@pytest.mark.parametrize("value", [2**31, 2**32, 9223372037, 2**63 - 1])
def test_a_duration_is_clamped_to_what_can_be_waited(value: int) -> None:
    """threading.TIMEOUT_MAX and time_t are beyond it."""
    assert names.seconds(value, "timeout") == 10**8


def test_a_negative_duration_is_refused() -> None:
    """By its field."""
    assert names.seconds(30, "timeout") == 30
    with pytest.raises(InvalidArgument, match="timeout"):
        names.seconds(-1, "timeout")


@pytest.mark.parametrize("path", ["", "a", "/a/..", "/" + "a" * 256, "/" + "é" * 128, "/a" * 2048, "/a\0b"])
def test_a_path_that_cannot_be_is_refused(path: str) -> None:
    """By its field, before the kernel is asked."""
    with pytest.raises(InvalidArgument, match="field"):
        names.check_absolute_path(path, "field")


def test_a_path_may_be_as_long_as_a_path_can_be() -> None:
    """And shorter by what is yet to be added."""
    longest = "/" + "/".join(["a" * 255] * 15 + ["a" * 254])
    assert names.check_absolute_path(longest, "field") == longest
    with pytest.raises(InvalidArgument):
        names.check_absolute_path(longest, "field", room=1)


def _config(**more: Any) -> api.ContainerConfig:
    mounts = [api.Mount(container_path="/dev/termination-log", host_path=more.pop("log", "/pods/1/a1")), *more.pop("mounts", [])]
    return api.ContainerConfig(**{"annotations": _TERMINATION, "mounts": mounts, "args": ["a"], **more})


def test_a_kubelets_retry_is_the_same_request() -> None:
    """The termination message's file has another name on the node each time; all else counts."""
    assert container_digest(_config()) == container_digest(_config(log="/pods/1/b2"))
    for other in (
        _config(args=["b"]),
        _config(annotations={}),
        _config(mounts=[api.Mount(container_path="/x", host_path="/y")]),
        _config(annotations={**_TERMINATION, "hash": "2"}),
    ):
        assert container_digest(other) != container_digest(_config())
    assert container_digest(_config(annotations={})) != container_digest(_config(annotations={}, log="/pods/1/b2"))
