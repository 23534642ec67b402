"""The wiring of trivet-csi: back end, records, recovery, server, registration, and its end."""

from __future__ import annotations

import os
import signal
import threading

from csi_driver.records import Records
from csi_driver.server import gates
from csi_driver.service import Service
from csi_driver.settings import Settings
from runtime_core.errors import from_oserror
from runtime_core.interfaces.volume import VolumeBackend
from runtime_core.log import Log
from runtime_core.registry import load_driver
from runtime_core.serving import listen
from runtime_core.store.database import Database
from runtime_core.store.ledger import Ledger

_DRAIN_SECONDS = 10


class Daemon:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = Log(settings.log_level)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; what is mounted stays."""
        path = listen.socket_path(self._settings.endpoint, "--endpoint")
        self._make_root()
        database = Database(self._settings.root)
        listen.prepare_socket(path)
        service = self._service(database)
        ended = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: ended.set())
        server = listen.make_server(list(gates(service)))
        listen.bind(server, path)
        server.start()
        print(f"trivet-csi is ready on {path}", flush=True)
        ended.wait()
        server.stop(_DRAIN_SECONDS).wait()
        path.unlink(missing_ok=True)
        database.close()

    def _make_root(self) -> None:
        try:
            self._settings.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._settings.root.chmod(0o700)
        except OSError as error:
            raise from_oserror(error, "--root") from error

    def _service(self, database: Database) -> Service:
        settings = self._settings
        return Service(
            settings=settings,
            node_id=settings.node_id or os.uname().nodename,
            backend=self._backend(),
            records=Records.of(database),
            ledger=Ledger(database, {}),
            log=self._log,
        )

    def _backend(self) -> VolumeBackend:
        directory = self._settings.root / self._settings.backend
        directory.mkdir(mode=0o700, exist_ok=True)
        backend: VolumeBackend = load_driver("volume", self._settings.backend)(str(directory), self._settings.backend_settings)
        return backend
