"""A registry of our own: the pull side of the distribution specification, from memory, on loopback."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from runtime_core.images.manifest import machine_platform
from runtime_core.kernel.decimal_number import parse_decimal


class Registry:
    """Serves what is put into it on 127.0.0.1 until it is closed."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[str, tuple[str, bytes]] = {}
        handler = type("Handler", (_Handler,), {"registry": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="registry", daemon=True).start()

    def put_blob(self, content: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        self._blobs[digest] = content
        return digest

    def put_manifest(self, repository: str, tag: str, document: dict[str, Any]) -> str:
        body = json.dumps(document).encode()
        digest = "sha256:" + hashlib.sha256(body).hexdigest()
        for name in (tag, digest):
            self._manifests[f"{repository}:{name}"] = (document["mediaType"], body)
        return digest

    def put_image(self, repository: str, tag: str, layers: list[tuple[bytes, bytes, str]], config: dict[str, Any]) -> str:
        """Layers are (blob, tar, media type); the reference by which the image can be pulled."""
        document = {
            "architecture": machine_platform()[0],
            "os": "linux",
            "config": config,
            "rootfs": {
                "type": "layers",
                "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest() for _blob, tar, _type in layers],
            },
        }
        body = json.dumps(document).encode()
        descriptors = [{"mediaType": kind, "digest": self.put_blob(blob), "size": len(blob)} for blob, _tar, kind in layers]
        self.put_manifest(
            repository,
            tag,
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": self.put_blob(body),
                    "size": len(body),
                },
                "layers": descriptors,
            },
        )
        return f"{self.host}/{repository}:{tag}"

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """(media type, body) of a request path, or None."""
        if path in ("/v2/", "/v2"):
            return "application/json", b"{}"
        repository, kind, name = path.removeprefix("/v2/").rsplit("/", 2)
        if kind == "blobs" and name in self._blobs:
            return "application/octet-stream", self._blobs[name]
        if kind == "manifests":
            return self._manifests.get(f"{repository}:{name}")
        return None

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: Registry
    protocol_version = "HTTP/1.1"
    # A client that tries TLS first must see an answer it takes for HTTP.
    default_request_version = "HTTP/1.0"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = self.registry.answer(path) if path.count("/") >= 2 else None
        if found is None:
            self._send(404, "application/json", b'{"errors":[{"code":"NAME_UNKNOWN"}]}')
            return
        kind, body = found
        begin = _range_start(self.headers.get("Range", ""), len(body))
        if begin:
            self._send(206, kind, body[begin:], f"bytes {begin}-{len(body) - 1}/{len(body)}")
        else:
            self._send(200, kind, body)

    do_HEAD = do_GET  # noqa: N815

    def _send(self, status: int, kind: str, body: bytes, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def _range_start(header: str, size: int) -> int:
    begin = parse_decimal(header.removeprefix("bytes=").partition("-")[0], size - 1)
    return begin or 0
