"""Files with the settings that an interface had before tuning, in the reference set's own format. Cold."""

from __future__ import annotations

import json
import os

from cni_plugins.options.link_options import is_interface_name
from runtime_core.errors import from_oserror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime_core.cni.request import Request

_SUFFIX, _MOST = ".json", 1 << 16
_KINDS: dict[str, type] = {"mac": str, "mtu": int, "promisc": bool, "allmulti": bool, "txQLen": int}


def save(directory: str, request: Request, settings: dict[str, Any]) -> None:
    """Whole or not at all. The owner is what GC goes by; the reference set does not read it."""
    path = _path(directory, request)
    document = {**settings, "owner": [request.network, request.container_id, request.interface]}
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            json.dump(document, file)
        os.rename(temporary, path)
    except OSError as error:
        raise from_oserror(error, f"dataDir: saving {path}") from error


def load(directory: str, request: Request) -> dict[str, Any]:
    """{} where there is no such file, or none that can be read."""
    document = _document(_path(directory, request))
    return {key: document[key] for key, kind in _KINDS.items() if type(document.get(key)) is kind}


def remove(directory: str, request: Request) -> None:
    """Delete the attachment's file. Idempotent."""
    _unlink(_path(directory, request))


def remove_stale(directory: str, network: str, valid: set[tuple[str, str]]) -> None:
    """Those of `network` whose (container id, interface) is not in `valid`; what does not say its network stays."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_oserror(error, f"dataDir: listing {directory}") from error
    for name in names:
        path = os.path.join(directory, name)
        owner = _document(path).get("owner") if name.endswith(_SUFFIX) else None
        if isinstance(owner, list) and len(owner) == 3 and owner[0] == network and (owner[1], owner[2]) not in valid:
            _unlink(path)


def is_nameable(request: Request) -> bool:
    """Whether the attachment can have had a file at all."""
    return is_interface_name(request.interface) and "/" not in request.container_id and "\0" not in request.container_id


def _path(directory: str, request: Request) -> str:
    return os.path.join(directory, f"{request.container_id}_{request.interface}{_SUFFIX}")


def _document(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read(_MOST))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise from_oserror(error, f"dataDir: removing {path}") from error
