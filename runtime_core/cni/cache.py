"""What was attached, so that DEL, CHECK and GC work from it after any restart or change of configuration."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from runtime_core.errors import from_oserror


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """One ADD: its parameters, the list it used, and (when it succeeded) its result."""

    container_id: str
    interface: str
    netns: str
    network: str
    config: dict[str, Any]
    args: dict[str, str]
    capabilities: dict[str, Any]
    result: dict[str, Any] | None = None


class Cache:
    """One file per attachment, <container id>:<interface>:<network>, replaced atomically."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise from_oserror(error, f"CNI cache {directory}") from error

    def put(self, attachment: Attachment) -> None:
        path = self._path(attachment.network, attachment.container_id, attachment.interface)
        temporary = path.with_name(f".{path.name}")
        try:
            temporary.write_text(json.dumps({field.name: getattr(attachment, field.name) for field in fields(attachment)}))
            os.rename(temporary, path)
        except OSError as error:
            raise from_oserror(error, f"CNI cache {path}") from error

    def of_container(self, container_id: str) -> list[Attachment]:
        return self._read(f"{container_id}:")

    def all(self) -> list[Attachment]:
        return self._read("")

    def _read(self, prefix: str) -> list[Attachment]:
        found = []
        for name in os.listdir(self._directory):
            if name.startswith(".") or not name.startswith(prefix):
                continue
            try:
                found.append(Attachment(**json.loads((self._directory / name).read_text())))
            except (ValueError, TypeError, FileNotFoundError):
                continue  # torn by a crash of the machine: GC releases what it stood for
        return found

    def remove(self, network: str, container_id: str, interface: str) -> None:
        self._path(network, container_id, interface).unlink(missing_ok=True)

    def _path(self, network: str, container_id: str, interface: str) -> Path:
        # No part may contain a colon, so that no two attachments have one name.
        return self._directory / f"{container_id}:{interface}:{network}"
