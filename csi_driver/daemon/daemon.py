"""The wiring of trivet-csi: back end, records, recovery, server, registration, and its end."""

from __future__ import annotations

import os
from contextlib import ExitStack

from csi_driver.daemon import summary
from csi_driver.daemon.recovery import recover
from csi_driver.daemon.server import rpc_handlers
from csi_driver.node.recover import recover_node
from csi_driver.node.watch import start_watch
from csi_driver.records.flusher import Flusher
from csi_driver.records.releases import releasers
from csi_driver.records.schema import Records
from csi_driver.registration.server import Registration
from csi_driver.service import Service
from csi_driver.settings import Settings
from runtime_core.errors import InvalidArgument, TrivetError
from runtime_core.interfaces.volume import VolumeBackend
from runtime_core.kernel import memory, paths
from runtime_core.log import Log
from runtime_core.registry import load_driver
from runtime_core.serving import unix_server
from runtime_core.serving.stop_signals import stop_signals
from runtime_core.store.database import Database
from runtime_core.store.ledger import Ledger

_DRAIN_SECONDS = 10


class Daemon:
    """trivet-csi, from its settings to its end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = Log(settings.log_level)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; what is mounted stays."""
        memory.share_arenas()
        ended = stop_signals()
        path = unix_server.socket_path(self._settings.endpoint, "--endpoint")
        paths.make_private_directory(str(self._settings.root), "--root")
        with ExitStack() as closing:
            database = Database(self._settings.root)
            closing.callback(database.close)
            unix_server.prepare_socket(path)
            service = self._service(database, closing)
            recover_node(service)
            recover(service, self._report_error)
            closing.callback(start_watch(service).close)
            server = unix_server.make_server([*rpc_handlers(service), summary.rpc_handler(service)])
            unix_server.bind(server, path)
            server.start()
            closing.callback(path.unlink, missing_ok=True)
            closing.callback(lambda: server.stop(_DRAIN_SECONDS).wait())
            self._announce(service, closing)
            memory.release_unused_memory()
            print(f"trivet-csi is ready on {path}", flush=True)
            os.read(ended, 1)

    def _announce(self, service: Service, closing: ExitStack) -> None:
        if self._settings.health_port:
            from csi_driver.daemon.health_endpoint import HealthEndpoint  # here: an HTTP server is two megabytes

            closing.callback(HealthEndpoint(service, self._settings.health_port).close)
        if self._settings.registration:
            registration = Registration(self._settings, self._log)
            registration.start()
            closing.callback(registration.stop, _DRAIN_SECONDS)

    def _service(self, database: Database, closing: ExitStack) -> Service:
        settings = self._settings
        records, backend = Records.load(database), self._backend()
        store = Flusher(settings.root)
        closing.callback(store.close)
        return Service(
            settings=settings,
            node_id=settings.node_id or os.uname().nodename,
            backend=backend,
            records=records,
            ledger=Ledger(database, releasers(backend, records)),
            store=store,
            log=self._log,
        )

    def _backend(self) -> VolumeBackend:
        directory = self._settings.root / self._settings.backend
        directory.mkdir(mode=0o700, exist_ok=True)
        driver = load_driver("volume", self._settings.backend)
        try:
            backend: VolumeBackend = driver(str(directory), self._settings.backend_settings)
        except InvalidArgument as error:
            raise InvalidArgument(f"backend-settings: {error}") from error
        return backend

    def _report_error(self, what: str, error: TrivetError) -> None:
        self._log.warning("recovery", of=what, error=str(error))
