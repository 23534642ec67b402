"""The leases that outlive the daemon: one file each, written whole or not at all. Cold."""

from __future__ import annotations

import hashlib
import json
import os

from runtime_core.errors import from_oserror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_MOST = 1024 * 1024


class LeaseFiles:
    """A record is a JSON object with `network`, `container_id` and `interface`, which name it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        with open(_BOOT_ID) as file:
            self._boot = file.read().strip()
        try:
            os.makedirs(directory, 0o700, exist_ok=True)
        except OSError as error:
            raise from_oserror(error, directory) from error

    def load(self) -> list[dict[str, Any]]:
        """Those of this boot. Others, and what is not whole, are removed: their namespaces are gone, their times mean nothing."""
        found = []
        for name in sorted(os.listdir(self._directory)):
            path = f"{self._directory}/{name}"
            record = _read(path) if name.endswith(".json") else None
            if record is None or record.get("boot") != self._boot:
                os.unlink(path)
            else:
                found.append(record)
        return found

    def save(self, record: dict[str, Any]) -> None:
        path = self._path(record)
        text = json.dumps({**record, "boot": self._boot}).encode()
        try:
            descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, text)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(f"{path}.new", f"{path}.json")
        except OSError as error:
            raise from_oserror(error, self._directory) from error

    def remove(self, record: dict[str, Any]) -> None:
        """Delete the record's file. Idempotent."""
        try:
            os.unlink(f"{self._path(record)}.json")
        except FileNotFoundError:
            return

    def _path(self, record: dict[str, Any]) -> str:
        name = json.dumps([record["network"], record["container_id"], record["interface"]])
        return f"{self._directory}/{hashlib.sha256(name.encode()).hexdigest()[:40]}"


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read(_MOST))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
