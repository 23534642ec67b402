"""A trivet-csi of each test's own, or its node service alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.csi_daemon import CsiDaemon
from tests.support.csi_node import NodeService, own_mounts


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., CsiDaemon]]:
    """Not started yet; the settings are those of the configuration file."""
    made: list[CsiDaemon] = []

    def make(**settings: object) -> CsiDaemon:
        made.append(CsiDaemon(tmp_path, **settings))
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeService]:
    with own_mounts():
        node = NodeService(tmp_path)
        yield node
        node.close()
