"""The distribution project's registry on loopback, and pushing a small image into it by its HTTP interface."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import subprocess
from pathlib import Path
from typing import Any

from e2e.wait import wait_for
from runtime_core.images.manifest import machine_platform
from trivet.demo import image as demo_image


class ForeignRegistry:
    """A running registry; `host` is its loopback address."""

    def __init__(self, program: Path, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        config = directory / "registry.json"
        config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"level": "error"},
                    "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
                    "http": {"addr": self.host},
                }
            )
        )
        self._log = (directory / "registry.log").open("w")
        self._process = subprocess.Popen(
            [str(program), "serve", str(config)], stdout=self._log, stderr=self._log, env={"OTEL_TRACES_EXPORTER": "none"}
        )
        wait_for("registry", self._answers, 20)

    def push_tools(self, name: str = "trivet/tools", tag: str = "1") -> str:
        """An image with a shell and a few tools, of this machine's files; its reference."""
        blob, tar, kind = demo_image.build_layer()
        config = json.dumps(
            {
                "architecture": machine_platform()[0],
                "os": "linux",
                "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
                "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]},
            }
        ).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self._push_blob(name, config, "application/vnd.oci.image.config.v1+json"),
            "layers": [self._push_blob(name, blob, kind)],
        }
        status, _ = self._ask("PUT", f"/v2/{name}/manifests/{tag}", json.dumps(manifest).encode(), manifest["mediaType"])
        assert status == http.client.CREATED
        return f"{self.host}/{name}:{tag}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _push_blob(self, name: str, content: bytes, kind: str) -> dict[str, Any]:
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        status, location = self._ask("POST", f"/v2/{name}/blobs/uploads/", b"", "application/octet-stream")
        assert status == http.client.ACCEPTED
        path = location.partition(self.host)[2] or location
        path += ("&" if "?" in path else "?") + f"digest={digest}"
        status, _ = self._ask("PUT", path, content, "application/octet-stream")
        assert status == http.client.CREATED
        return {"mediaType": kind, "digest": digest, "size": len(content)}

    def _ask(self, method: str, path: str, body: bytes, kind: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.host, timeout=20)
        try:
            connection.request(method, path, body, {"Content-Type": kind})
            response = connection.getresponse()
            response.read()
            return response.status, response.headers.get("Location", "")
        finally:
            connection.close()

    def _answers(self) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        try:
            return self._ask("GET", "/v2/", b"", "text/plain")[0] == http.client.OK
        except OSError:
            return False
