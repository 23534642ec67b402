"""A service on a back end of plain files, whose functions are called as the RPC handler calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from csi_driver.daemon.server import SERVICES
from csi_driver.records.flusher import Flusher
from csi_driver.records.releases import releasers
from csi_driver.records.schema import Records
from csi_driver.service import Service
from csi_driver.settings import Settings
from runtime_core.log import Log
from runtime_core.serving.rpc_handler import Call
from runtime_core.store.database import Database
from runtime_core.store.ledger import Ledger
from tests.support.csi_daemon import NODE
from tests.support.memory_backend import MemoryBackend


class Driver:
    """`driver.CreateVolume(request)` is what the RPC does, without gRPC."""

    def __init__(self, directory: Path, backend: dict[str, Any], **settings: Any) -> None:
        self.root = directory
        self._database = Database(directory)
        self.backend = MemoryBackend(str(directory / "memory"), backend)
        records = Records.load(self._database)
        self.service = Service(
            settings=Settings(root=directory, backend="memory", **settings),
            node_id=NODE,
            backend=self.backend,
            records=records,
            ledger=Ledger(self._database, releasers(self.backend, records)),
            store=Flusher(directory),
            log=Log("error"),
        )

    def __getattr__(self, rpc: str) -> Callable[[Any], Any]:
        for functions in SERVICES.values():
            if rpc in functions:
                return lambda request: functions[rpc](self.service, request, Call(rpc, lambda: None))
        raise AttributeError(rpc)

    def close(self) -> None:
        self.service.store.close()
        self._database.close()


@pytest.fixture
def make_driver(tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    made: list[Driver] = []

    def make(backend: dict[str, Any] | None = None, **settings: Any) -> Driver:
        made.append(Driver(tmp_path, backend or {}, **settings))
        return made[-1]

    yield make
    for driver in made:
        driver.close()


@pytest.fixture
def driver(make_driver: Callable[..., Driver]) -> Driver:
    return make_driver()
