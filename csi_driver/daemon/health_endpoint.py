"""HTTP on the loopback address: /healthz for a liveness probe, /metrics for Prometheus."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from csi_driver.daemon.metrics import CONTENT_TYPE, metrics
from csi_driver.daemon.summary import volume_summary
from csi_driver.identity.probe import check
from csi_driver.service import Service
from runtime_core.errors import FailedPrecondition, TrivetError, from_oserror

_PLAIN = "text/plain; charset=utf-8"


class HealthEndpoint:
    def __init__(self, service: Service, port: int) -> None:
        """FailedPrecondition or another kind of error says why the port cannot be had."""
        handler = type("Handler", (_Handler,), {"driver": service})
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        except OSError as error:
            raise from_oserror(error, f"--health-port: {port}") from error
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and close the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    driver: Service

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._health()
        elif self.path == "/metrics":
            self._metrics()
        else:
            self._answer(404, _PLAIN, "there are /healthz and /metrics\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """Not a line per probe."""

    def _health(self) -> None:
        try:
            check(self.driver)
        except FailedPrecondition as error:
            self._answer(503, _PLAIN, f"{error}\n")
        else:
            self._answer(200, _PLAIN, "ok\n")

    def _metrics(self) -> None:
        try:
            text = metrics(self.driver.timings.read(), volume_summary(self.driver), self.driver.backend.capacity())
        except (TrivetError, OSError) as error:
            self._answer(500, _PLAIN, f"{error}\n")
        else:
            self._answer(200, CONTENT_TYPE, text)

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
