"""The exit of a container on disk: written before it is reported, read by a later daemon."""

from __future__ import annotations

import json
import os

from runtime_core.kernel import paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write(directory: str, name: str, record: dict[str, Any]) -> None:
    """Durable and atomic: temporary file, fsync, rename, fsync of the directory."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    temporary = f"{directory}/.{name}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        content = json.dumps(record).encode()
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except OSError:
        os.unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    os.rename(temporary, f"{directory}/{name}")
    paths.sync_directory(directory)


def read_all(directory: str) -> dict[str, dict[str, Any]]:
    """Name → record; a file that is torn was never told of, and is left out."""
    found: dict[str, dict[str, Any]] = {}
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return found
    for name in names:
        if name.startswith("."):
            continue
        try:
            with open(f"{directory}/{name}") as file:
                found[name] = json.load(file)
        except (FileNotFoundError, json.JSONDecodeError):
            continue
    return found


def remove(directory: str, name: str) -> None:
    """Delete the record `name`. Idempotent."""
    try:
        os.unlink(f"{directory}/{name}")
    except FileNotFoundError:
        return
