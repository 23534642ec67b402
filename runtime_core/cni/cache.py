"""What was attached, so that DEL, CHECK and GC work from it after any restart or change of configuration."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from runtime_core.errors import from_oserror

_LIBCNI_KIND = "cniCacheV1"


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
    """One file per attachment, <container id>:<interface>:<network>, replaced atomically.

    What a runtime with libcni has attached is found too where `libcni` is its directory of results, and is forgotten
    by `remove`; nothing is written there.
    """

    def __init__(self, directory: Path, *, libcni: Path | None = None) -> None:
        self._directory, self._libcni = directory, libcni
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise from_oserror(error, f"CNI cache {directory}") from error

    def put(self, attachment: Attachment) -> None:
        """Write the attachment's file, atomically."""
        path = self._path(attachment.network, attachment.container_id, attachment.interface)
        temporary = path.with_name(f".{path.name}")
        try:
            temporary.write_text(json.dumps({field.name: getattr(attachment, field.name) for field in fields(attachment)}))
            os.rename(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):  # the error that counts is the first one
                temporary.unlink()
            raise from_oserror(error, f"CNI cache {path}") from error

    def remove_half_written(self) -> None:
        """What writers that were killed have left; for who is the only one to write here."""
        for path in self._directory.glob(".*"):
            path.unlink(missing_ok=True)

    def of_container(self, container_id: str) -> list[Attachment]:
        """Attachments of one container, ours and libcni's."""
        foreign = [attachment for attachment in self._foreign() if attachment.container_id == container_id]
        return _merged(self._read(f"{container_id}:"), foreign)

    def all(self) -> list[Attachment]:
        """All attachments, ours and libcni's."""
        return _merged(self._read(""), self._foreign())

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
        """Forget one attachment, libcni's file too. Idempotent."""
        self._path(network, container_id, interface).unlink(missing_ok=True)
        if self._libcni is not None:
            (self._libcni / f"{network}-{container_id}-{interface}").unlink(missing_ok=True)

    def _foreign(self) -> list[Attachment]:
        """A name may be split in several ways, since each part may hold a dash: the content says which it is."""
        found = []
        for path in sorted(self._libcni.iterdir()) if self._libcni is not None and self._libcni.is_dir() else []:
            try:
                attachment = _from_libcni(json.loads(path.read_text()))
            except (ValueError, TypeError, KeyError, AttributeError, OSError):
                continue  # torn, of another kind, or no attachment at all
            if path.name == f"{attachment.network}-{attachment.container_id}-{attachment.interface}":
                found.append(attachment)
        return found

    def _path(self, network: str, container_id: str, interface: str) -> Path:
        # No part may contain a colon, so that no two attachments have one name.
        return self._directory / f"{container_id}:{interface}:{network}"


def _from_libcni(document: dict[str, Any]) -> Attachment:
    """libcni's "cniCacheV1": the configuration is base64, the arguments are pairs."""
    if document["kind"] != _LIBCNI_KIND:
        raise ValueError(document["kind"])
    config = json.loads(base64.b64decode(document["config"]))
    return Attachment(
        container_id=str(document["containerId"]),
        interface=str(document["ifName"]),
        netns=str(document.get("netns", "")),
        network=str(document["networkName"]),
        config={**config, "name": document["networkName"]},
        args={str(key): str(value) for key, value in document.get("cniArgs") or []},
        capabilities=dict(document.get("capabilityArgs") or {}),
        result=document.get("result") or None,
    )


def _merged(own: list[Attachment], foreign: list[Attachment]) -> list[Attachment]:
    known = {(a.network, a.container_id, a.interface) for a in own}
    return own + [a for a in foreign if (a.network, a.container_id, a.interface) not in known]
