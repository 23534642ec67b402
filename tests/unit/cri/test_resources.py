"""Limits of a container: what an update leaves as it was."""

from __future__ import annotations

from typing import Any

import pytest

from cri.translate.resources import merged


@pytest.mark.parametrize(
    ("present", "change", "memory"),
    [
        ({"limit": 64, "swap": 64}, {"limit": 128}, {"limit": 128, "swap": 128}),
        ({"limit": 64, "swap": 96}, {"limit": 128}, {"limit": 128, "swap": 160}),
        ({"limit": 64, "swap": 96}, {"limit": 32}, {"limit": 32, "swap": 64}),
        ({"limit": 64, "swap": -1}, {"limit": 128}, {"limit": 128, "swap": -1}),
        ({"limit": 64}, {"limit": 128}, {"limit": 128}),
        ({"limit": 64, "swap": 64}, {"limit": 128, "swap": 256}, {"limit": 128, "swap": 256}),
        ({"limit": 64, "swap": 64}, {"swap": 80}, {"limit": 64, "swap": 80}),
        ({"limit": 64, "swap": 64}, {"swap": -1}, {"limit": 64, "swap": -1}),
        ({}, {"limit": 64}, {"limit": 64}),
    ],
)
def test_a_memory_limit_alone_leaves_the_room_for_swap(
    present: dict[str, int], change: dict[str, int], memory: dict[str, int]
) -> None:
    """Of memory and swap together OCI and cgroup v1 know the sum, which moves along."""
    whole: dict[str, Any] = {"cpu": {"shares": 2}, "memory": present} if present else {"cpu": {"shares": 2}}
    assert merged(whole, {"memory": change}) == {"cpu": {"shares": 2}, "memory": memory}


def test_what_is_not_changed_stays() -> None:
    """A change of the processors alone says nothing about memory."""
    present = {"memory": {"limit": 64, "swap": 96}, "cpu": {"shares": 2, "cpus": "0"}}
    assert merged(present, {"cpu": {"shares": 4}}) == {"memory": {"limit": 64, "swap": 96}, "cpu": {"shares": 4, "cpus": "0"}}
